"""How much of an ability is left, and after which fraction of layers half of it is gone.

    kept(f) = (a(f) − c) / (a(0) − c)

with accuracy a at fraction f, a(0) that of the unpruned model, and chance c. Half is lost where
accuracy, made to fall nowhere upwards (isotonic regression) and joined by straight lines, first
comes down to c + (a(0) − c)/2. Nothing is assumed of the shape of the fall, as `transitions` does.

The interval is a parametric bootstrap's: accuracies are drawn from normal distributions with their
standard errors, each by itself. Prunings answer the same questions, so their errors go together
and the interval is, if anything, too wide.
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

DRAWS = 2000
TAIL = 0.025  # on either side of an interval
ABOVE_CHANCE = 3.0  # standard errors by which the unpruned accuracy has to exceed chance

Outcome = Literal["reached", "not reached", "undecided", "not testable"]


class HalfLost(NamedTuple):
    """outcome: whether half is lost within what was measured; `undecided` where some draws say so
    and others do not, `not testable` where the unpruned model is not clearly above chance, or
    chance is not known. fraction: where, NaN if it is not as measured. low, high: 95% interval, NaN
    where it lies beyond the largest fraction."""

    outcome: Outcome
    fraction: float = math.nan
    low: float = math.nan
    high: float = math.nan


def share_kept(
    accuracy: np.ndarray, stderr: np.ndarray, chance: float
) -> tuple[np.ndarray, np.ndarray]:
    """The share of what is above chance that is kept, and its standard error; all [fractions], the
    first unpruned. It may be below 0 and above 1. Errors of accuracies are taken as independent:

        SE(kept)² = (SE(a)² + kept² SE(a(0))²) / (a(0) − c)²

    Of the unpruned model itself they are 1 and 0; all NaN where it is not above chance."""
    height = accuracy[0] - chance
    if not height > 0:
        return np.full(len(accuracy), math.nan), np.full(len(accuracy), math.nan)
    kept = (accuracy - chance) / height
    error = np.hypot(stderr, kept * stderr[0]) / height
    error[0] = 0.0
    return kept, error


def half_lost(
    fractions: np.ndarray, accuracy: np.ndarray, stderr: np.ndarray, chance: float | None
) -> HalfLost:
    """Where half of what is above chance is lost; all [fractions], which rise from 0, unpruned.

    Raises ValueError for fractions that do not."""
    if fractions[0] != 0 or (np.diff(fractions) <= 0).any():
        raise ValueError(f"fractions have to rise from 0: {fractions}")
    if chance is None or not accuracy[0] > chance + ABOVE_CHANCE * stderr[0]:
        return HalfLost("not testable")
    drawn = np.random.default_rng(0).normal(accuracy, stderr, (DRAWS, len(accuracy)))
    found = np.sort([_crossing(fractions, one, chance) for one in drawn])
    low, high = (_known(found[round(at * (DRAWS - 1))]) for at in (TAIL, 1 - TAIL))
    reached = np.isfinite(found).mean()
    if reached >= 1 - TAIL:
        outcome: Outcome = "reached"
    else:
        outcome = "not reached" if reached <= TAIL else "undecided"
    return HalfLost(outcome, _known(_crossing(fractions, accuracy, chance)), low, high)


def _crossing(fractions: np.ndarray, accuracy: np.ndarray, chance: float) -> float:
    """Where a curve comes down to half of its height above chance; infinity where it does not."""
    falling = isotonic_regression(accuracy, increasing=False).x
    half = (falling[0] + chance) / 2
    below = np.flatnonzero(falling <= half)
    if not len(below):
        return math.inf
    if (after := below[0]) == 0:  # a draw in which the unpruned model is at chance
        return 0.0
    before = after - 1
    way = (falling[before] - half) / (falling[before] - falling[after])
    return float(fractions[before] + way * (fractions[after] - fractions[before]))


def _known(value: float) -> float:
    return float(value) if math.isfinite(value) else math.nan
