"""What rules read: the tables of one study, and curves in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

NAMES = ("run", "study", "task", "corpus", "text", "prompt", "strategy")  # columns of tables
FLAT_LOSS = 0.05  # accuracy that a flat region may lose
State = Literal["unhealed", "control", "healed"]


class Tables:
    """The tables of one study by name, as the sections wrote them. absent: says of a table's name
    why it is not there, and what helps."""

    def __init__(self, folder: Path, absent: Callable[[str], str] | None = None) -> None:
        self.folder = folder
        self.absent = absent or (lambda name: f"{name}.csv has not been measured yet")

    def __getattr__(self, name: str) -> pd.DataFrame:
        path = self.folder / f"{name}.csv"
        if not path.exists():
            raise Untestable(self.absent(name))
        return read(path)

    def __contains__(self, name: str) -> bool:
        return (self.folder / f"{name}.csv").exists()


def read(path: Path) -> pd.DataFrame:
    """A table as it was written: a name that looks like a number, or like none, stays a name."""
    names = dict.fromkeys(NAMES, str)
    return pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])


class Untestable(Exception):
    """What a rule needs is absent in this study; the message says what."""


def of_state(table: pd.DataFrame, state: State) -> pd.DataFrame:
    """The rows of a state. Models healed in the study's own number format have no control apart:
    the unhealed ones are it."""
    rows = table[table["state"] == state]
    return of_state(table, "unhealed") if state == "control" and rows.empty else rows


def series(table: pd.DataFrame, strategy: str, state: State) -> pd.DataFrame:
    """One curve against fraction, the unpruned model first."""
    rows = table[table["strategy"].isin([strategy, "none"])]
    return of_state(rows, state).sort_values("fraction")


def of_task(qa: pd.DataFrame, task: tuple[str, int]) -> pd.DataFrame:
    return qa[(qa["task"] == task[0]) & (qa["shots"] == task[1])]


def testable_tasks(qa: pd.DataFrame) -> list[tuple[str, int]]:
    """Tasks on which the unpruned, unhealed model is above chance by three standard errors; none
    whose chance is not known."""
    base = of_state(qa[qa["strategy"] == "none"], "unhealed")
    if len(base) and base["chance"].isna().all():
        raise Untestable("chance is not known on any task")
    good = base[base["accuracy"] > base["chance"] + 3 * base["stderr"]]
    if good.empty:
        raise Untestable("the unpruned model is not above chance on any task")
    return list(zip(good["task"], good["shots"], strict=True))


class Flat(NamedTuple):
    """How far accuracy is flat: the largest fraction of layers up to which it loses at most
    FLAT_LOSS against the unpruned model healed the same way. As measured; with every loss two
    standard errors larger; with every loss as much smaller."""

    reached: float
    sure: float
    possible: float


def flat_regions(qa: pd.DataFrame, strategy: str, up_to: float = 0.0) -> dict[tuple, Flat]:
    """By task that the unpruned model can do, (name, shots). The standard errors are those of two
    accuracies side by side.

    Raises Untestable where no task is, where nothing was healed at a fraction of at least `up_to`,
    or the healing of the whole model broke down."""
    found = {}
    for task in testable_tasks(qa):
        curve = series(of_task(qa, task), strategy, "healed")
        if curve.empty or curve["n"].iloc[0]:
            raise Untestable("the whole model was not healed, or its healing broke down")
        fraction = curve["fraction"].to_numpy()
        if fraction[-1] < up_to:
            raise Untestable(f"no healed fraction of at least {up_to:.2f}")
        lost = (curve["accuracy"].iloc[0] - curve["accuracy"]).to_numpy()
        noise = 2 * np.hypot(curve["stderr"], curve["stderr"].iloc[0]).to_numpy()
        noise[0] = 0  # the unpruned model is no worse than itself
        ends = (
            float(fraction[np.logical_and.accumulate(lost + change <= FLAT_LOSS)].max())
            for change in (0 * noise, noise, -noise)
        )
        found[task] = Flat(*ends)
    return found


def named(task: str, shots: int) -> str:
    return f"{task} ({shots}-shot)"


def percent(value: float) -> str:
    """In three digits; what a fit leaves of 0 is 0."""
    return f"{100 * value if abs(value) > 1e-9 else 0:.3g}%"
