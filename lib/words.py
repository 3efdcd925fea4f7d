"""Numbers and names as people read them, on a page or in a terminal."""

import re
from collections.abc import Sequence


def spoken(seconds: float) -> str:
    """A duration: 90 s, 12.5 min, 3.0 h, 2.4 days."""
    for length, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} s"


def amount(value: float) -> str:
    """A number in three digits: 0.0123, 1.25, 12,300."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def power_of_ten(value: float) -> str:
    """A large number: 1.2 × 10¹⁴."""
    digits, _, power = f"{value:.1e}".partition("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits} × 10{raised}"


def size(count: float) -> str:
    """Bytes with their unit: 1.5 kB, 138 GB."""
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB")):
        if count >= 10**power:
            return f"{amount(count / 10**power)} {unit}"
    return f"{amount(count / 1e3)} kB"


def percent(share: float) -> str:
    """A share in three digits: 0.125 is 12.5%."""
    return f"{100 * share:.3g}%"


UNITS = "points?|times|nats|seeds?|layers?|questions?|of ln V"


def typeset(text: str) -> str:
    """Numbers as a page sets them: a minus sign where a number has one, an error and a unit on the
    line of their number, an interval on one line. Names with dashes stay as they are."""
    text = re.sub(r"(?<![\w.)\]-])-(?=\d)", "\N{MINUS SIGN}", text)
    text = re.sub(r" ?± ?(?=\d)", "\u00a0±\u00a0", text)
    text = re.sub(rf"(?<=\d) (?=(?:{UNITS})\b)", "\u00a0", text)
    text = re.sub(r"(?<=[\d\u00a0]of) (?=ln V)", "\u00a0", text)
    text = re.sub(r"\bln V\b", "ln\u00a0V", text)
    text = re.sub(r"(\[[^\s\[\]]*\d[^\s\[\]]*,) (?=[^\s\[\]]*\d[^\s\[\]]*\])", "\\1\u00a0", text)
    text = re.sub(r"(?<=[\d%]) (?=\[[\d\N{MINUS SIGN}])", "\u00a0", text)
    return re.sub(r"\b(Figs?\.|Tables?|App\.|Eq\.|[Ff]ootnote) (?=\w)", "\\1\u00a0", text)


def of_paper(where: str) -> str:
    """Where a paper says something: its figures and tables are not those of this book."""
    place = re.match(r"Figs?\.|Tables?\b|App\.|Eq\.|§|Footnote|abstract|2026 version", where)
    # "Footnote" begins no sentence any more.
    return f"the paper's {where.replace('Footnote', 'footnote')}" if place else where


def some(names: Sequence[str], most: int = 12) -> str:
    """Names for a message; of many, as MMLU's subjects, not all."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def unbroken(name: str) -> str:
    """The name, which stays on one line of a page."""
    return name.replace(" ", "\u00a0").replace("-", "\u2011")


def plain(text: str) -> str:
    """Text on one line that Markdown leaves as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|$~#&:])", r"\\\1", " ".join(text.split()))
