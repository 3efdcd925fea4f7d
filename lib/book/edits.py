"""Tables that stand somewhere against those that the same run's records give: every cell that says
something else is named."""

import csv
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Columns that say which row of a table it is.
NAMES = ["claim", "run", "varied", "metric", "task", "shots", "order", "way", "models", "compared"]
NAMES += ["base", "corpus", "text", "prompt", "strategy", "healing", "weights", "seed", "rank"]
NAMES += ["n", "start"]
# What of the verdicts follows from records; the rest are the words of the code that wrote them.
COMPUTED = {"verdicts": ["paper", "claim", "verdict", "reason", "margins"]}
CLOSE = 1e-6  # relative; another processor sums and fits to other last digits
SHOWN = 4  # cells of one table that are named one by one
WIDTH = 48  # of a text in a line, at most

Row = tuple[int, list[str]]  # its line in the file, and its cells


def edits(label: str, stands: Path, gives: Path, of: tuple[str, str] | None = None) -> list[str]:
    """A line for each cell of the table `stands` that is another than in `gives`; numbers may
    differ in their last digits.

    label: how lines name the table. of: a column and its value in the rows that are looked at."""
    one, other = _rows(cells(stands), gives.stem, of), _rows(cells(gives), gives.stem, of)
    if not one or not other:
        return [f"{label}: is empty, or no table"]
    (_, header), (_, right) = one[0], other[0]
    if header != right:
        what = ", ".join(sorted(set(header) ^ set(right))) or "their order"
        return [f"{label}: has other columns than its records give: {what}"]
    if len(one) != len(other):
        return [f"{label}: has {len(one) - 1:,} rows, its records give {len(other) - 1:,}"]
    found = list(_unlike(one, other))
    lines = [f"{label} line {line}{row}: {what}" for line, row, what in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"{label}: {len(found) - SHOWN:,} more cells are not what its records give")
    return lines


def cells(path: Path) -> list[list[str]]:
    """A table as text, its header first; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.reader(file))
    except (OSError, ValueError, csv.Error):
        return []


def short(text: str, width: int = WIDTH) -> str:
    """On one line, and cut."""
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _rows(table: list[list[str]], name: str, of: tuple[str, str] | None) -> list[Row]:
    """The header and those rows and columns that are looked at."""
    if not table:
        return []
    header, rows = table[0], list(enumerate(table, 1))
    if of is not None and of[0] in header:
        at = header.index(of[0])
        rows = [rows[0], *((line, row) for line, row in rows[1:] if row[at : at + 1] == [of[1]])]
    if name in COMPUTED:
        kept = [i for i, column in enumerate(header) if column in COMPUTED[name]]
        rows = [(line, [row[i] for i in kept if i < len(row)]) for line, row in rows]
    return rows


def _unlike(stands: list[Row], gives: list[Row]) -> Iterator[tuple[int, str, str]]:
    """Line, row in words, and what differs."""
    _, header = gives[0]
    for (line, one), (_, other) in zip(stands, gives, strict=True):
        if len(one) != len(other):
            yield line, "", f"has {len(one)} cells instead of {len(other)}"
            continue
        named = [(key, cell) for key, cell in zip(header, other, strict=True) if key in NAMES]
        words = ", ".join(f"{key} {short(cell, 24)}" for key, cell in named if cell)
        for column, cell, right in zip(header, one, other, strict=True):
            if not _same(cell, right):
                row = f" ({words})" if words else ""
                yield line, row, f"{column} is {_told(cell)}, its records give {_told(right)}"


def _told(cell: str) -> str:
    return short(cell) or "empty"


def _same(one: str, other: str) -> bool:
    if one == other:
        return True
    with suppress(ValueError):
        return math.isclose(float(one), float(other), rel_tol=CLOSE, abs_tol=1e-12)
    return False
