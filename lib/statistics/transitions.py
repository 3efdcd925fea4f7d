"""Where accuracy falls to chance: a logistic step fitted to accuracy against fraction (Fig. 2).

    accuracy(f) = c + (a − c) / (1 + exp((f − f₀)/s))

with chance c known, plateau a, critical fraction f₀, and width 2·ln(9)·s, over which the curve
falls from 90% to 10% of its height. Intervals come from resampling the questions, the same draw
for every pruning of a model, so that what the prunings share does not count as noise.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import least_squares

RESAMPLES = 200
ABOVE_CHANCE = 3.0  # standard errors by which the unpruned accuracy has to exceed chance
NARROWEST = 0.005  # in s: below any spacing of prunings the width is not resolved
TEN_TO_NINETY = 2 * np.log(9)


@dataclass(frozen=True)
class Transition:
    """Critical fraction and width with 95% intervals (low, high)."""

    fraction: float
    low: float
    high: float
    width: float
    width_low: float
    width_high: float


def step(f: np.ndarray, chance: float, plateau: float, critical: float, s: float) -> np.ndarray:
    """The fitted curve; the exponent is bounded so that narrow steps do not overflow."""
    return chance + (plateau - chance) / (1 + np.exp(np.clip((f - critical) / s, -60, 60)))


def plateau(f: np.ndarray, accuracy: np.ndarray, chance: float, critical: float, s: float) -> float:
    """That of the fitted curve whose place and width are known."""
    share = step(f, 0.0, 1.0, critical, s)
    return float(np.clip(chance + share @ (accuracy - chance) / (share @ share), chance, 1.0))


def fit(fractions: np.ndarray, correct: np.ndarray, chance: float | None) -> Transition | None:
    """Fit one curve. `correct` is [n_fractions, n_questions], scores from 0 to 1, the first row
    unpruned.

    None where there is no transition to fit: chance not known, fewer than four points, the unpruned
    one among them, the unpruned accuracy not clearly above chance, or never less than half of the
    height lost."""
    accuracy = correct.mean(axis=1)
    if chance is None or not _testable(fractions, accuracy, chance, correct[0]):
        return None
    best = _fit(tuple(fractions), tuple(accuracy), chance)
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, correct.shape[1], correct.shape[1])
        drawn = correct[:, chosen].mean(axis=1)
        draws.append(_fit(tuple(fractions), tuple(drawn), chance))
    critical, width = np.percentile(np.array(draws), [2.5, 97.5], axis=0).T
    return Transition(best[0], *critical, best[1], *width)


def _testable(f: np.ndarray, accuracy: np.ndarray, chance: float, whole: np.ndarray) -> bool:
    height, questions = accuracy[0] - chance, len(whole)
    # The variance of one score, which is p (1 − p) of right and wrong answers.
    spread = accuracy[0] * (1 - accuracy[0]) - (whole * (1 - whole)).mean()
    noise = np.sqrt(max(spread, 0.25 / questions) / questions)
    return len(f) >= 4 and height > ABOVE_CHANCE * noise and accuracy.min() < chance + height / 2


@cache  # a page may ask twice
def _fit(
    fractions: tuple[float, ...], accuracies: tuple[float, ...], chance: float
) -> tuple[float, float]:
    """(critical fraction, width) by least squares, started where the curve crosses half height."""
    f, accuracy = np.array(fractions), np.array(accuracies)
    plateau = max(accuracy[0], chance + 1e-3)
    below = np.flatnonzero(accuracy < chance + (plateau - chance) / 2)
    crossing = f[below[0]] if len(below) else f[-1]
    fitted = least_squares(
        lambda p: step(f, chance, *p) - accuracy,
        x0=[plateau, np.clip(crossing, 0.01, 0.99), 0.03],
        bounds=([chance, 0.0, NARROWEST], [1.0 + 1e-6, 1.0, 1.0]),
    )
    return float(fitted.x[1]), float(TEN_TO_NINETY * fitted.x[2])
