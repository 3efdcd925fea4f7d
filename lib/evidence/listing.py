"""Records for people and spreadsheets: a short table, one line per record, one row per record."""

import csv
import io
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tabulate import tabulate

from lib.evidence.records import Record, digest, file_of, spelled

# What a value is about, where it holds more than that.
MAIN = {
    "qa": ("accuracy", "stderr", "n_questions"),
    "loss": ("loss", "stderr", "n_tokens"),
    "healing": ("train_loss", "tokens"),
    "writing": ("texts",),
    "answers": ("answers",),
    "cost": ("models",),
}
COLUMNS = ("kind", "name", "numbers", "when", "seconds", "device, threads")
WIDTH = 60  # of a name, at most


def in_order(records: Iterable[Record]) -> list[Record]:
    """By kind, then by the name of the file."""
    return sorted(records, key=lambda one: file_of(one["kind"], one["name"], one["inputs"]))


def table(records: list[Record]) -> str:
    """One line per record, and a last one with totals."""
    rows = [_row(record) for record in in_order(records)]
    sides = ["right" if column == "seconds" else "left" for column in COLUMNS]
    body = tabulate(rows, headers=COLUMNS, tablefmt="plain", colalign=sides, disable_numparse=True)
    kinds = Counter(record["kind"] for record in records)
    parts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    seconds = sum(record["provenance"].get("seconds") or 0 for record in records)
    return "\n".join([body, f"{_count(len(records))}: {parts}; {seconds:,.0f} s in all"])


def _row(record: Record) -> tuple[str, ...]:
    name, value, made = record["name"], record["value"], record["provenance"]
    scalars = [key for key in value if not isinstance(value[key], list | dict)]
    keys = MAIN.get(record["kind"], scalars[:3])
    numbers = ", ".join(f"{key} {short(value[key])}" for key in keys if key in value)
    return (
        record["kind"],
        name if len(name) <= WIDTH else f"{name[: WIDTH - 1]}…",
        numbers,
        str(made.get("when", ""))[:16].replace("T", " "),
        f"{made['seconds']:,.1f}" if made.get("seconds") is not None else "",
        device(made),
    )


def _count(number: int) -> str:
    return f"{number:,} record{'s' * (number != 1)}"


def device(provenance: dict[str, Any]) -> str:
    """Processor and threads in words, as far as they are known."""
    threads = provenance.get("threads")
    known = f"{threads} thread{'s' * (threads != 1)}" if threads is not None else ""
    return ", ".join(filter(None, [provenance.get("processor"), known]))


def short(value: Any) -> str:
    """A number in four digits, a list of numbers by its ends, any other by its length."""
    if isinstance(value, list) and value and isinstance(value[0], int | float):
        return f"{short(value[0])}…{short(value[-1])}"
    if isinstance(value, list | dict):
        return str(len(value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:WIDTH]


def difference(one: Record, other: Record) -> str:
    """Where the values of two records differ first, in how many places, and what of their
    surroundings differs."""
    first, second = (dict(leaves(record["value"])) for record in (one, other))
    places = [
        at
        for at in first | second
        if (at in first, first.get(at)) != (at in second, second.get(at))
    ]
    more = f" and {len(places) - 1:,} more" if len(places) > 1 else ""
    at = places[0]
    values = f"{at} {_leaf(first, at)} / {_leaf(second, at)}{more}"
    made = [device(record["provenance"]) for record in (one, other)]
    return values if made[0] == made[1] else f"{values} ({made[0]} / {made[1]})"


def leaves(value: Any, at: str = "") -> Iterable[tuple[str, Any]]:
    """Every scalar of a value and where it stands: ("train_loss[3]", 1.25)."""
    if isinstance(value, dict) and value:
        for key in sorted(value):
            yield from leaves(value[key], f"{at}.{key}" if at else key)
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            yield from leaves(item, f"{at}[{i}]")
    else:
        yield at, value


def _leaf(leaves: dict[str, Any], at: str) -> str:
    if at not in leaves:
        return "nothing"
    text = str(leaves[at])
    return text if len(text) <= 24 else f"{text[:11]}…{text[-12:]}"


def lines(records: list[Record]) -> str:
    """One record per line, as in published/<study>/evidence.jsonl."""
    return "".join(spelled(record) + "\n" for record in in_order(records))


def spreadsheet(records: list[Record]) -> str:
    """One row per record as CSV: kind, name, digest, each scalar of its value and of its
    provenance. What a record does not have is left empty."""
    rows: list[Record] = []
    for record in in_order(records):
        row = {"kind": record["kind"], "name": record["name"], "digest": digest(record["inputs"])}
        row |= _scalars("value", record["value"])
        made = record["provenance"]
        row |= _scalars("provenance", made)
        row |= _scalars("provenance.packages", made.get("packages", {}))
        rows.append(row)
    first = ("kind", "name", "digest")
    others = {key for row in rows for key in row} - set(first)
    columns = [*first, *sorted(others, key=lambda key: (key.startswith("provenance"), key))]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _scalars(part: str, values: dict[str, Any]) -> dict[str, Any]:
    found = values.items()
    return {f"{part}.{key}": value for key, value in found if not isinstance(value, list | dict)}
