"""Tables as they stand against what the same run's records give, cell by cell."""

import csv
import math
import re
from contextlib import suppress
from pathlib import Path

import pandas as pd

# Columns that say which row it is: of layers the set, not where it begins and ends.
KEYS = {"paper", "claim", "run", "varied", "metric", "task", "shots", "order", "way", "models"}
KEYS |= {"compared", "base", "corpus", "text", "prompt", "strategy", "state", "healing", "weights"}
KEYS |= {"seed", "rank", "n", "dropped", "role", "other", "draw", "sample", "layer"}
KEYS |= {"learning_rate"}
COMPUTED = {"paper", "claim", "verdict", "reason", "margins"}  # of verdicts; the rest is code's
SIGNED = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e-?\d+)?")
WORDS = {"reason", "margins"}  # of verdicts: how they say it is the code's, the numbers are not
CLOSE, FITTED = 1e-6, 2e-3  # relative: of another processor's sums, and where its fits end


def read(path: Path, run: str = "") -> pd.DataFrame:
    """A table as text, by line (its header is line 1), of one `run` where it holds others, too;
    empty where it is none. Verdicts from when there was one paper are of that one."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        cells = [dict(zip(header, row, strict=True)) for row in rows]
    except (OSError, ValueError, csv.Error):
        return pd.DataFrame()
    table = pd.DataFrame(cells, columns=list(dict.fromkeys(header)), dtype=str)
    table.index = pd.RangeIndex(2, len(table) + 2, name="line")
    if path.stem == "verdicts":
        table["paper"] = table.get("paper", "gromov")
    return table[table["run"] == run] if "run" in table else table


def edits(label: str, stands: pd.DataFrame, gives: pd.DataFrame) -> list[str]:
    """A line for each cell of `stands` that is another than in `gives`, and for each row or column
    that does not follow; columns that `stands` has not are newer. label: its path, for lines."""
    name = Path(label).stem
    shared = [key for key in gives if key in stands and (name != "verdicts" or key in COMPUTED)]
    if not shared:
        return [f"{label}: is empty, or no table"]
    found = [f"{label}: its records give no column '{key}'" for key in stands if key not in gives]
    if stands[shared].values.tolist() == gives[shared].values.tolist():  # as nearly always
        return found
    keys = [key for key in shared if key in KEYS or (key == "start" and "dropped" not in shared)]
    one, other = (
        table[shared].assign(nth=table.groupby(keys or [0] * len(table)).cumcount())
        for table in (stands, gives)
    )
    both = one.reset_index().merge(
        other, how="outer", on=[*keys, "nth"], suffixes=("", " given"), indicator="side"
    )
    for row in both.sort_values("line", kind="stable").to_dict("records"):
        words = ", ".join(f"{key} {short(row[key], 24)}" for key in keys if row[key])
        at = f"{label} line {row['line']:.0f} ({words})"
        if row["side"] == "right_only":
            found.append(f"{label}: lacks a row that its records give ({words})")
        elif row["side"] == "left_only":
            found.append(f"{at}: its records give no such row")
        else:
            for key in (key for key in shared if key not in keys):
                says, right = row[key], row[f"{key} given"]
                if name == "verdicts" and key in WORDS and _same_numbers(says, right):
                    continue
                if not _same(says, right, FITTED if name == "transitions" else CLOSE):
                    says, right = short(says) or "empty", short(right) or "empty"
                    found.append(f"{at}: {key} is {says}, its records give {right}")
    return found


def short(text: str, width: int = 48) -> str:
    """On one line, and cut."""
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _same(one: str, other: str, close: float) -> bool:
    with suppress(ValueError):
        return one == other or math.isclose(float(one), float(other), rel_tol=close, abs_tol=1e-12)
    return False


def _same_numbers(one: str, other: str) -> bool:
    """That two wordings give the same numbers: of the same words in their order and with their
    signs; else in whatever order, with a sign or with a word for it, and with as many conditions
    short, to spare and open."""
    if SIGNED.sub("", one) == SIGNED.sub("", other):
        signed = [[*map(float, SIGNED.findall(text))] for text in (one, other)]
        return len(signed[0]) == len(signed[1]) and all(
            math.isclose(*pair, abs_tol=1e-9) for pair in zip(*signed, strict=True)
        )
    sides = [re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", text) for text in (one, other)]
    mine, its = (sorted(map(float, numbers)) for numbers in sides)
    found = [sorted(re.findall(r"\b(?:short|spare|open)\b", text)) for text in (one, other)]
    alike = (math.isclose(*pair, abs_tol=1e-9) for pair in zip(mine, its, strict=False))
    return len(mine) == len(its) and all(alike) and found[0] == found[1]
