"""Comparing two sides of a study: win, loss, tie, or not decided.

A side wins where it leads by more than WIN and by more than two standard errors. Two sides tie
where neither wins and the interval of two standard errors around their difference lies within
COMPARABLE. A tie has to be shown: a study too small for that is undecided. Where several
comparisons decide one claim, a lead counts as more than two standard errors only after Holm's
correction.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from lib.claims.rules.judging import COMPARABLE, Check

WIN = 0.02  # lead in accuracy, or in loss over ln V, that counts
LEVEL = 2 * norm.sf(2)  # two-sided: outside of two standard errors

Result = Literal["win", "loss", "tie", "undecided"]
# Of the first side; "a loss" would be taken for the loss of a model.
SAYS = {"win": "wins", "loss": "loses", "tie": "a tie", "undecided": "undecided"}


class Pair(NamedTuple):
    """A difference of the first side less the second, with its standard error and what it shows."""

    name: str
    difference: float
    stderr: float
    result: Result

    def __str__(self) -> str:
        points = f"{100 * self.difference:+.1f} ± {100 * self.stderr:.1f}"
        return f"{self.name} {points} points ({SAYS[self.result]})"


def pairs(found: Sequence[tuple[str, float, float]]) -> list[Pair]:
    """Of a family of comparisons: names, differences and their standard errors."""
    p = [2 * norm.sf(abs(d) / e) if e else float(not d) for _, d, e in found]
    return [
        Pair(name, d, e, _result(d, e, bool(ok)))
        for (name, d, e), ok in zip(found, holm(p), strict=True)
    ]


def holm(p: Sequence[float]) -> np.ndarray:
    """Which hypotheses fall at LEVEL, the chance of any false one being no larger (Holm 1979)."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    fall = values[order] <= LEVEL / np.arange(len(values), 0, -1)
    found = np.zeros(len(values), dtype=bool)
    found[order] = np.logical_and.accumulate(fall)
    return found


def _result(difference: float, stderr: float, sure: bool) -> Result:
    if sure and abs(difference) > WIN:
        return "win" if difference > 0 else "loss"
    return "tie" if abs(difference) + 2 * stderr <= COMPARABLE else "undecided"


def wins(what: str, pair: Pair) -> Check:
    """That the first side wins."""
    sure = pair.result == "win"
    slack = pair.difference - max(WIN, 2 * pair.stderr)
    possible = sure or pair.result == "undecided"
    asked = f"ahead by more than {100 * WIN:g} points and two standard errors"
    return Check(what, slack, sure, sure, possible, "", pair.stderr, asked)


def holds_up(what: str, pair: Pair) -> Check:
    """That the first side wins or ties."""
    sure = pair.result in ("win", "tie")
    slack = COMPARABLE - 2 * pair.stderr - abs(min(pair.difference, 0.0))
    asked = f"ahead, or behind by no more than {100 * COMPARABLE:g} points"
    return Check(what, slack, sure, sure, pair.result != "loss", "", pair.stderr, asked)


def ties(what: str, pair: Pair) -> Check:
    """That neither side wins, and that this is shown."""
    sure = pair.result == "tie"
    slack = COMPARABLE - 2 * pair.stderr - abs(pair.difference)
    possible = sure or pair.result == "undecided"
    asked = f"no farther apart than {100 * COMPARABLE:g} points"
    return Check(what, slack, sure, sure, possible, "", pair.stderr, asked)


def turned(pair: Pair) -> Pair:
    """Of the second side less the first."""
    other: dict[Result, Result] = {"win": "loss", "loss": "win"}
    return pair._replace(difference=-pair.difference, result=other.get(pair.result, pair.result))


def compared(
    table: pd.DataFrame, first: str, second: str, value: str = "difference", error: str = "stderr"
) -> tuple[float, float] | None:
    """Of the first strategy less the second, from a row for the two in either order; None where
    there is none, or both dropped the same layers."""
    for row in table[table["same"].isna()].to_dict("records"):
        if {row["compared"], row["base"]} == {first, second}:
            sign = 1 if row["compared"] == first else -1
            return sign * row[value], row[error]
    return None
