"""Claims and verdicts: conditions with their errors, and what follows from them.

A condition compares something measured with an edge. What was measured has a 95% interval (two
standard errors to each side). A condition is sure to hold where the whole interval lies on the
right side of the edge, and cannot hold where all of it lies on the wrong side. In between it is
open; and where open conditions decide which verdict it is, the claim is undecided.

Margins stand here as they were written down before the numbers that they judge were seen.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import erf
from typing import NamedTuple

import numpy as np

from lib.claims.rules.reading import Tables, Untestable, percent

VERDICTS = ("reproduced", "partly", "not reproduced", "undecided", "not testable here")
REPRODUCED, PARTLY, NOT_REPRODUCED, UNDECIDED, NOT_TESTABLE = VERDICTS
# Of a question of the paper's.
ANSWERS = {REPRODUCED: "yes", NOT_REPRODUCED: "no", UNDECIDED: "open", NOT_TESTABLE: NOT_TESTABLE}

FLAT_FRACTION = 0.20  # how far a flat region has to reach (claim 1; the paper's smallest is 20%)
NEAR = 0.10  # fractions that count as the same place (claim 4)
JUMP = 2.0  # steepest step over mean slope that is still "no jump" (claim 5)
LINEAR = 0.90  # R² of a straight line that is still "about linear" (claims 5, 13)
CONTRAST = 1.25  # mean distance of shallow over deep blocks (claim 6)
LAST = 0.90  # position in its row's range that is "near-maximal" (claim 7)
MOST = 0.75  # share of cases that counts as "generally" (claims 7, 12, 16)
COMPARABLE = 0.05  # difference in accuracy or normalised loss that is small (claims 3, 8 to 12, …)
OF_LAYERS, OF_LOSS = " of the layers", " of ln V"  # units; without one, COMPARABLE is of accuracy


class Measured(NamedTuple):
    """A number with its 95% interval."""

    value: float
    low: float
    high: float


def measured(value: float, error: float = 0.0) -> Measured:
    """With a standard error; 0 for what has none, such as a count."""
    return Measured(float(value), float(value - 2 * error), float(value + 2 * error))


def minus(a: Measured, b: Measured, factor: float = 1.0) -> Measured:
    """a − factor · b of two independent numbers; the factor is positive."""
    value = a.value - factor * b.value
    below = np.hypot(max(a.value - a.low, 0), factor * max(b.high - b.value, 0))
    above = np.hypot(max(a.high - a.value, 0), factor * max(b.value - b.low, 0))
    return Measured(value, float(value - below), float(value + above))


class Check(NamedTuple):
    """One condition of a rule: whether it holds as measured, whether it is sure to, whether it can;
    how far it is from its edge (negative: so much is missing), and the standard error of that; what
    is asked for, in words, where that is not the condition's name already."""

    what: str
    slack: float
    holds: bool
    sure: bool
    possible: bool
    unit: str = ""
    error: float = 0.0
    asked: str = ""

    @property
    def open(self) -> bool:
        return self.possible and not self.sure

    def __str__(self) -> str:
        error = f" ± {self.error:.2g}" if self.error > 1e-6 else ""
        room = "to spare" if self.holds else "short"
        return f"{self.what}: {abs(self.slack):.2g}{error}{self.unit} {room}" + (
            ", open" if self.open else ""
        )


def condition(
    what: str, slack: Measured, unit: str = "", edge: bool = True, asked: str = ""
) -> Check:
    """One that holds where the slack is positive, or 0 if the edge itself counts."""
    ends = (slack.value, min(slack.low, slack.value), max(slack.high, slack.value))
    holds, sure, possible = (bool(end > 0 or (edge and end == 0)) for end in ends)
    return Check(what, ends[0], holds, sure, possible, unit, (ends[2] - ends[1]) / 4, asked)


def _asked(than: str, limit: float, unit: str) -> str:
    """Nothing where the limit is 0: such a condition is named after what it compares."""
    if not limit:
        return ""
    if unit == OF_LAYERS:
        return f"{than} {percent(limit)}{unit}"
    if not unit and limit == COMPARABLE:
        return f"{than} {100 * limit:g} points"
    return f"{than} {limit:g}{unit}"


def at_least(what: str, found: Measured, limit: float, unit: str = "") -> Check:
    slack = Measured(*(end - limit for end in found))
    return condition(what, slack, unit, asked=_asked("at least", limit, unit))


def at_most(what: str, found: Measured, limit: float, unit: str = "") -> Check:
    asked = _asked("at most", limit, unit)
    return condition(what, minus(measured(limit), found), unit, asked=asked)


def above(what: str, found: Measured, limit: float, unit: str = "") -> Check:
    slack = Measured(*(end - limit for end in found))
    return condition(what, slack, unit, edge=False, asked=_asked("above", limit, unit))


def within(what: str, found: Measured, margin: float, unit: str = "") -> Check:
    """That a difference is small: sure where all of its interval lies within ± margin, impossible
    where none of it does."""
    low, high = min(found.low, found.value), max(found.high, found.value)
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    farthest = max(abs(low), abs(high))
    ends = Measured(margin - abs(found.value), margin - farthest, margin - nearest)
    return condition(what, ends, unit, asked=_asked("at most", margin, unit))


def shown(what: str, effect: float, error: float, unit: str = "") -> Check:
    """That an effect is there: above 0 by more than two standard errors. To miss that is no sign
    of its absence: it is open unless the interval ends below COMPARABLE, too."""
    there = bool(effect > 2 * error)
    possible = bool(there or effect + 2 * error >= COMPARABLE)
    asked = "above two standard errors"
    return Check(what, float(effect - 2 * error), there, there, possible, unit, float(error), asked)


def not_shown(what: str, effect: float, error: float, unit: str = "") -> Check:
    """The contrary: sure where the effect cannot be as large as COMPARABLE and is not seen."""
    one = shown(what, effect, error, unit)
    holds, sure, possible = not one.holds, not one.possible, not one.sure
    asked = "not above two standard errors"
    return Check(what, -one.slack, holds, sure, possible, unit, one.error, asked)


def all_of(what: str, checks: Sequence[Check]) -> Check:
    """That all conditions hold; the room left is that of the tightest."""
    worst = min(checks, key=lambda check: check.slack)
    holds = (all(check[i] for check in checks) for i in (2, 3, 4))
    return Check(what, worst.slack, *holds, worst.unit, worst.error, worst.asked)


def any_of(what: str, checks: Sequence[Check]) -> Check:
    """That one of them does; the room is that of the easiest."""
    best = max(checks, key=lambda check: check.slack)
    holds = (any(check[i] for check in checks) for i in (2, 3, 4))
    return Check(what, best.slack, *holds, best.unit, best.error, best.asked)


def share(cases: Sequence[Check]) -> Measured:
    """Of the cases that hold, with the interval that follows where each may in truth be on the
    other side of its edge, as likely as its error says, independently of the others."""
    likely = np.array([_likely(case) for case in cases])
    error = float(np.sqrt((likely * (1 - likely)).sum()) / len(cases))
    low, high = np.clip([likely.mean() - 2 * error, likely.mean() + 2 * error], 0, 1)
    return Measured(float(np.mean([case.holds for case in cases])), float(low), float(high))


def _likely(case: Check) -> float:
    """How likely it is that a condition holds in truth."""
    return 0.5 + 0.5 * erf(case.slack / case.error / 2**0.5) if case.error else float(case.holds)


class Outcome(NamedTuple):
    """A verdict, the numbers behind it, what would have to move for another verdict, and what the
    conditions that decide it ask for."""

    verdict: str
    reason: str
    margins: str = ""
    asked: str = ""


def judged(reason: str, rule: Callable[[list[bool]], str], *checks: Check) -> Outcome:
    """The verdict of a rule, given which of its conditions hold.

    More conditions that hold never make a verdict worse. So if it is the same with all open ones
    failing and with all holding, it is the same in between; else it is undecided."""
    worst = rule([check.sure for check in checks])
    best = rule([check.possible for check in checks])
    margins = "; ".join(map(str, checks))
    if worst == best:
        return Outcome(worst, reason, margins, asked_for(checks))
    open_ones = [check for check in checks if check.open]
    names = ", ".join(check.what for check in open_ones)
    reason = f"{reason}; within the error of its edge: {names}"
    return Outcome(UNDECIDED, reason, margins, asked_for(open_ones))


def asked_for(checks: Sequence[Check]) -> str:
    """What conditions ask for, each by its name; once where all ask for the same."""
    asked = {check.asked for check in checks}
    if len(asked) == 1 and len(checks) > 1:
        return f"each {asked.pop()}" if asked != {""} else ""
    return "; ".join(f"{check.what} {check.asked}" for check in checks if check.asked)


def graded(reason: str, *checks: Check) -> Outcome:
    """Reproduced where all conditions hold, partly where some do."""
    return judged(
        reason,
        lambda held: REPRODUCED if all(held) else PARTLY if any(held) else NOT_REPRODUCED,
        *checks,
    )


def answered(reason: str, check: Check) -> Outcome:
    """A question with one condition: yes where it holds, else no."""
    return judged(reason, lambda held: REPRODUCED if held[0] else NOT_REPRODUCED, check)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of a paper, and the rule that decides it on a study.

    where: the paper's figure or section. tables: what the rule reads. undecided: when the rule
    cannot tell, or why there is no such case. fails: what would be seen if the claim did not hold.
    question: the paper asks it, so that the answer is yes, no or open."""

    number: int
    statement: str
    where: str
    tables: tuple[str, ...]
    rule: str
    undecided: str
    fails: str
    check: Callable[[Tables], Outcome]
    question: bool = False

    def verdict(self, tables: Tables) -> Outcome:
        try:
            found = self.check(tables)
        except Untestable as reason:
            found = Outcome(NOT_TESTABLE, str(reason))
        return found._replace(verdict=ANSWERS[found.verdict]) if self.question else found


@dataclass(frozen=True)
class Paper:
    """`cite`: authors, where and when it appeared."""

    title: str
    cite: str
    claims: tuple[Claim, ...]

    @property
    def arxiv(self) -> str:
        """Its number there, which `cite` says; empty without one."""
        found = re.search(r"arXiv (\d{4}\.\d{4,5})", self.cite)
        return found[1] if found else ""
