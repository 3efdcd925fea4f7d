"""Tables of text, for a page of the book or for a terminal, and numbers as they stand in them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lib.book.model_tables import markdown, unbroken

NAMES = ("study", "model", "section", "on")  # columns whose words stay on one line
Rows = list[dict[str, object]]


@dataclass(frozen=True)
class Table:
    """name: of its file for the page; heading: for a terminal; notes: lines below it."""

    name: str
    heading: str
    rows: Rows
    notes: Sequence[str] = ()


def amount(value: float) -> str:
    """A number in three digits."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def power_of_ten(value: float) -> str:
    """A large number: 1.2 × 10¹⁴."""
    digits, _, power = f"{value:.1e}".partition("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits} × 10{raised}"


def size(count: float) -> str:
    """Bytes, with their unit."""
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB")):
        if count >= 10**power:
            return f"{amount(count / 10**power)} {unit}"
    return f"{amount(count / 1e3)} kB"


def on_page(table: Table) -> str:
    """As Markdown. Titles and notes may come from files: nothing in them is taken for more than
    text."""
    rows = [{key: _cell(key, str(cell)) for key, cell in row.items()} for row in table.rows]
    text = markdown(rows) if rows else "There is none yet.\n"
    return text + "".join(f"\n{plain(note)}\n" for note in table.notes)


def _cell(column: str, text: str) -> str:
    return unbroken(plain(text)) if column in NAMES else plain(text)


def plain(text: str) -> str:
    """Text that Markdown leaves as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|$~#&:])", r"\\\1", " ".join(text.split()))


def on_terminal(table: Table) -> str:
    """In columns."""
    if not table.rows:
        return "\n".join([f"{table.heading}: none yet", *table.notes])
    lines = [list(table.rows[0]), *([*map(str, row.values())] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    body = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "\n".join([table.heading, "", *body, *table.notes])
