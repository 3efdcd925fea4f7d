"""What rules of claims are made of: the tables that they read, conditions, verdicts.

Margins that more than one rule uses stand here. Like the rules they were written down before the
numbers that they judge were seen.
"""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

VERDICTS = ("reproduced", "partly", "not reproduced", "not testable here")
FLAT_LOSS = 0.05  # accuracy that a flat region may lose (claim 1)
FLAT_FRACTION = 0.20  # how far a flat region has to reach (claim 1; the paper's smallest is 20%)
NEAR = 0.10  # fractions that count as the same place (claim 4)
JUMP = 2.0  # steepest step over mean slope that is still "no jump" (claim 5)
LINEAR = 0.90  # R² of a straight line that is still "about linear" (claim 5)
CONTRAST = 1.25  # mean distance of shallow over deep blocks (claim 6)
LAST = 0.90  # position in its row's range that is "near-maximal" (claim 7)
MOST = 0.75  # share of cases that counts as "generally" (claims 7, 12)
COMPARABLE = 0.05  # difference in accuracy or normalised loss that is small (claims 8, 9)


class Tables:
    """The tables of one study by name, as the sections wrote them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getattr__(self, name: str) -> pd.DataFrame:
        path = self.folder / f"{name}.csv"
        if not path.exists():
            raise Untestable(f"{name}.csv has not been measured yet")
        return pd.read_csv(path)

    def __contains__(self, name: str) -> bool:
        return (self.folder / f"{name}.csv").exists()


class Untestable(Exception):
    """This study cannot decide the claim; the message says why."""


class Check(NamedTuple):
    """One condition of a rule: whether it holds, and how far it is from its edge."""

    passed: bool
    what: str
    slack: float  # negative: so much is missing
    unit: str = ""

    def __str__(self) -> str:
        room = "to spare" if self.passed else "short"
        return f"{self.what}: {abs(self.slack):.2g}{self.unit} {room}"


class Outcome(NamedTuple):
    """A verdict, the numbers behind it, and what would have to move for another verdict."""

    verdict: str
    reason: str
    margins: str = ""


def graded(reason: str, *checks: Check) -> Outcome:
    """Reproduced where all conditions hold, partly where some do."""
    passed = [check.passed for check in checks]
    verdict = VERDICTS[0] if all(passed) else VERDICTS[1] if any(passed) else VERDICTS[2]
    return decided(verdict, reason, *checks)


def decided(verdict: str, reason: str, *checks: Check) -> Outcome:
    """With a verdict that does not follow from the number of conditions that hold."""
    return Outcome(verdict, reason, "; ".join(map(str, checks)))


def at_least(what: str, value: float, limit: float, unit: str = "") -> Check:
    return Check(bool(value >= limit), what, float(value - limit), unit)


def at_most(what: str, value: float, limit: float, unit: str = "") -> Check:
    return Check(bool(value <= limit), what, float(limit - value), unit)


def above(what: str, value: float, limit: float, unit: str = "") -> Check:
    return Check(bool(value > limit), what, float(value - limit), unit)


def testable_tasks(qa: pd.DataFrame) -> list[tuple[str, int]]:
    """Tasks on which the unpruned, unhealed model is above chance by three standard errors."""
    base = qa[(qa["strategy"] == "none") & (qa["healing"] == "none") & (qa["weights"] != "nf4")]
    good = base[base["accuracy"] > base["chance"] + 3 * base["stderr"]]
    if good.empty:
        raise Untestable("the unpruned model is not above chance on any task")
    return list(zip(good["task"], good["shots"], strict=True))


# Three versions of a pruned model: unhealed in the study's number format; its control, unhealed in
# the one in which healing trains (with other recipes than qlora the same); healed.
State = Literal["unhealed", "control", "healed"]


def of_state(table: pd.DataFrame, state: State) -> pd.DataFrame:
    healed = table["healing"] != "none"
    if state == "healed":
        return table[healed]
    of_control = table["weights"].isin(table["weights"][healed].unique())
    return table[~healed & (of_control if state == "control" else table["weights"] != "nf4")]


def series(table: pd.DataFrame, strategy: str, state: State) -> pd.DataFrame:
    """One curve against fraction, the unpruned model first."""
    rows = table[table["strategy"].isin([strategy, "none"])]
    return of_state(rows, state).sort_values("fraction")


def straight_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """The least-squares line through points: slope, value at 0, and R², the variance explained."""
    slope, start = np.polyfit(x, y, 1)
    missed = ((y - start - slope * x) ** 2).sum()
    return float(slope), float(start), float(1 - missed / ((y - y.mean()) ** 2).sum())


def of_task(qa: pd.DataFrame, task: tuple[str, int]) -> pd.DataFrame:
    return qa[(qa["task"] == task[0]) & (qa["shots"] == task[1])]


def named(task: str, shots: int) -> str:
    return f"{task} ({shots}-shot)"


def percent(value: float) -> str:
    return f"{100 * value:.3g}%"
