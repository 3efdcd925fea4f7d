"""What the sentence at the head of a section is made of: numbers with their errors, who leads, and
names in a row.

What a sentence says follows from its numbers: a difference counts where it is larger than SURE
standard errors, and two intervals differ where they do not overlap. Of what is NaN nothing is said.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import pandas as pd

from lib import labels
from lib.claims.rules import reading
from lib.experiments.opened import OpenStudy
from lib.sections.section import Section

SURE = 2  # standard errors
START = {"healed": "Healed", "unhealed": "Unhealed, as nothing was healed"}
WITHOUT = "This study measures none of this, or too little to say what was found."
Made = dict[str, pd.DataFrame]  # all tables of a section by name, empty where a study does without


def says(opened: OpenStudy, one: Section, made: Made) -> str:
    """The sentence of a section: what it found, or that the study does without; empty for a section
    that has none. made: what `pages.measured` returns."""
    if one.in_short is None:
        return ""
    empty = {table.name: pd.DataFrame(columns=list(table.columns)) for table in one.tables}
    found = {name: table for name, table in made.items() if len(table)}
    return one.in_short(opened, empty | found) or WITHOUT


def rows(made: Made, name: str, *needed: str) -> pd.DataFrame:
    """Those of a table in which all `needed` columns hold something."""
    return made[name].dropna(subset=list(needed))


def by_state(table: pd.DataFrame, column: str = "models") -> tuple[str, pd.DataFrame]:
    """The healed rows if there are any, else the unhealed ones; before them, how to begin."""
    which = "healed" if (table[column] == "healed").any() else "unhealed"
    return START[which], table[table[column] == which]


def nearest(fractions: Collection[float], to: float) -> float:
    return min(fractions, key=lambda one: abs(one - to))


def percent(share: float) -> str:
    """In whole percent; … where it is not known, as the end of an interval may be."""
    return f"{max(100 * share, 0):.0f}%" if math.isfinite(share) else "…"


def dropped(fraction: float) -> str:
    return f"{reading.percent(fraction)} of the layers dropped"


def interval(share: float, low: float, high: float) -> str:
    """A share with its 95% interval: 33% [30, 35]."""
    return f"{percent(share)} [{percent(low).rstrip('%')}, {percent(high).rstrip('%')}]"


def wilson(right: float, of: float) -> tuple[float, float, float]:
    """A share with its 95% interval, which does not shrink to nothing at 0 or 1."""
    share, unit = right / of, SURE**2 / of
    half = SURE * math.sqrt(share * (1 - share) / of + unit / (4 * of))
    middle = share + unit / 2
    return share, (middle - half) / (1 + unit), (middle + half) / (1 + unit)


def with_error(value: float, stderr: float, digits: int = 1) -> str:
    """A value and its standard error, which one value of its kind has not."""
    error = f" ± {stderr:.{digits}f}" if math.isfinite(stderr) else ""
    return f"{value:.{digits}f}{error}"


def points(difference: float, stderr: float) -> str:
    """How large a difference in accuracy is, whatever its sign."""
    return f"{with_error(100 * abs(difference), 100 * stderr)} points"


def signed(difference: float, stderr: float) -> str:
    return f"{100 * difference:+.1f} ± {100 * stderr:.1f} points"


def sure(difference: float, stderr: float) -> bool:
    return abs(difference) > SURE * stderr


def listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def counted(count: int, what: str) -> str:
    """1 task, 2 tasks."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def of(count: int, total: int, what: str) -> str:
    """3 of 5 tasks, none of 5 tasks, all 5 tasks, 1 of 1 task."""
    share = "all" if count == total > 1 else f"{count or 'none'} of"
    return f"{share} {counted(total, what)}"


def told(table: pd.DataFrame) -> str:
    """How many differences are sure."""
    found = sum(map(sure, table["difference"], table["stderr"]))
    if len(table) == 1:
        return f"the difference can{'' if found else 'not'} be told from zero"
    return f"{of(found, len(table), 'difference')} can be told from zero"


def task(row: dict[str, Any]) -> str:
    """On what a difference was found: a number of questions of a task."""
    return f"on {row['n_questions']} questions of {labels.asked(row['task'], int(row['shots']))}"


def lead(one: str, other: str, difference: float, stderr: float) -> str:
    """Who leads by how much: `difference` is what the first has more than the other."""
    if not sure(difference, stderr):
        return f"neither {one} nor {other} leads ({signed(difference, stderr)})"
    ahead, behind = (one, other) if difference > 0 else (other, one)
    return f"{ahead} leads {behind} by {points(difference, stderr)}"


def leads(
    table: pd.DataFrame,
    one: str,
    other: str,
    where: Callable[[dict[str, Any]], str],
    at: str = "on",
    unit: str = "task",
) -> str:
    """Who leads `at` how many units, each a row with a difference of two sides, and where most."""
    found = table.sort_values("difference", key=abs, ascending=False).to_dict("records")
    first, parts, rest = found[0], [], len(found)
    if len(found) == 1:
        return f"{lead(one, other, first['difference'], first['stderr'])} {where(first)}"
    for ahead, behind, sign in ((one, other, 1), (other, one, -1)):
        clear = [row for row in found if sign * row["difference"] > SURE * row["stderr"]]
        rest -= len(clear)
        if clear:
            by = "by" if len(clear) == 1 else "by up to"
            size = points(clear[0]["difference"], clear[0]["stderr"])
            many = of(len(clear), len(found), unit)
            parts.append(f"{ahead} leads {behind} {at} {many}, {by} {size} {where(clear[0])}")
    if not parts:
        size = points(first["difference"], first["stderr"])
        neither = f"neither {one} nor {other} leads {at} any of {counted(len(found), unit)}"
        parts = [neither, f"the largest difference is {size} {where(first)}"]
    elif rest:
        others = "the other" if rest == 1 else f"the other {counted(rest, unit)}"
        parts.append(f"neither leads {at} {others}")
    return "; ".join(parts)


def best(scores: dict[str, float], compared: pd.DataFrame) -> tuple[str, list[str]]:
    """Who has the highest score, and who cannot be told from it by the differences between two."""
    top = max(scores, key=lambda name: scores[name])
    behind = {
        row["base"] if row["compared"] == top else row["compared"]
        for row in compared.to_dict("records")
        if top in (row["compared"], row["base"]) and sure(row["difference"], row["stderr"])
    }
    return top, [name for name in scores if name != top and name not in behind]


def beside(others: int, unsure: Sequence[str]) -> str:
    """Whom the best leads, or who cannot be told from it: names, where they are few."""
    if not unsure:
        return f", and leads {'the other' if others == 1 else f'all {others} others'}" * bool(
            others
        )
    named = listed(unsure) if len(unsure) < 3 else of(len(unsure), others, "other")
    return f", though {named} cannot be told from it"
