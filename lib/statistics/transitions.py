"""Where accuracy falls to chance: a logistic step fitted to accuracy against fraction (Fig. 2).

    accuracy(f) = c + (a − c) / (1 + exp((f − f₀)/s))

with chance c known, plateau a, critical fraction f₀, and width 2·ln(9)·s, over which the curve
falls from 90% to 10% of its height. Intervals come from resampling the questions, the same draw
for every pruning of a model, so that what the prunings share does not count as noise.
"""

from dataclasses import dataclass

import numpy as np

RESAMPLES = 200
ABOVE_CHANCE = 3.0  # standard errors by which the unpruned accuracy has to exceed chance
NARROWEST = 0.005  # in s: below any spacing of prunings the width is not resolved
TEN_TO_NINETY = 2 * np.log(9)
STARTS = (0.03, 0.15)  # in s
MOST_STEPS = 400


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
    rng = np.random.default_rng(0)
    drawn = [accuracy]
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, correct.shape[1], correct.shape[1])
        drawn.append(correct[:, chosen].mean(axis=1))
    best, *draws = _fitted(np.asarray(fractions, float), np.array(drawn), chance)
    critical, width = np.percentile(np.array(draws), [2.5, 97.5], axis=0).T
    return Transition(float(best[0]), *critical, float(best[1]), *width)


def _testable(f: np.ndarray, accuracy: np.ndarray, chance: float, whole: np.ndarray) -> bool:
    height, questions = accuracy[0] - chance, len(whole)
    # The variance of one score, which is p (1 − p) of right and wrong answers.
    spread = accuracy[0] * (1 - accuracy[0]) - (whole * (1 - whole)).mean()
    noise = np.sqrt(max(spread, 0.25 / questions) / questions)
    return len(f) >= 4 and height > ABOVE_CHANCE * noise and accuracy.min() < chance + height / 2


def _fitted(f: np.ndarray, accuracies: np.ndarray, chance: float) -> np.ndarray:
    """Critical fraction and width [n_curves, 2] by least squares, of many curves [n_curves,
    n_fractions] at once: one by one scipy's `least_squares`, which finds the same minima, takes
    thirty times as long. Each is started where it crosses half height, as a narrow and as a wide
    step, and the better fit counts."""
    top = np.maximum(accuracies[:, 0], chance + 1e-3)
    below = accuracies < (chance + (top - chance) / 2)[:, None]
    crossing = np.where(below.any(axis=1), f[below.argmax(axis=1)], f[-1]).clip(0.01, 0.99)
    fits = [
        _descended(f, accuracies, chance, np.stack([top, crossing, np.full_like(top, s)], axis=1))
        for s in STARTS
    ]
    better = np.argmin([cost for _, cost in fits], axis=0)
    found = np.array([place for place, _ in fits])[better, np.arange(len(accuracies))]
    return found[:, 1:] * [1, TEN_TO_NINETY]


def _descended(
    f: np.ndarray, accuracies: np.ndarray, chance: float, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg and Marquardt's way down within bounds, of each curve by itself: (plateau, critical
    fraction, s) [n_curves, 3], and the sums of squares there."""
    low, high = np.array([chance, 0.0, NARROWEST]), np.array([1 + 1e-6, 1.0, 1.0])
    diagonal, damping = np.arange(3), np.full(len(place), 1e-3)

    def at(place: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        steps = np.clip((f - place[:, 1:2]) / place[:, 2:], -60, 60)
        share = 1 / (1 + np.exp(steps))
        rest = chance + (place[:, :1] - chance) * share - accuracies
        return steps, share, rest, (rest**2).sum(axis=1)

    steps, share, rest, cost = at(place := place.clip(low, high))
    for _ in range(MOST_STEPS):
        slope = (place[:, :1] - chance) * share * (1 - share) / place[:, 2:]
        jacobian = np.stack([share, slope, slope * steps], axis=2)
        gradient = np.einsum("bn,bnk->bk", rest, jacobian)
        normal = np.einsum("bnk,bnl->bkl", jacobian, jacobian)
        # What stands at a bound and is drawn beyond it stays there.
        held = ((place <= low) & (gradient > 0)) | ((place >= high) & (gradient < 0))
        normal[held[:, :, None] | held[:, None, :]] = 0
        gradient[held] = 0
        normal[:, diagonal, diagonal] *= 1 + damping[:, None]
        normal[:, diagonal, diagonal] += 1e-12 + held
        move = np.linalg.solve(normal, gradient[:, :, None])[:, :, 0]
        tried = at(moved := (place - move).clip(low, high))
        down = tried[3] < cost
        settled = np.where(down, cost - tried[3] <= 1e-13 * cost, damping > 1e8)
        kept = zip((place, steps, share, rest), (moved, *tried[:3]), strict=True)
        place, steps, share, rest = (np.where(down[:, None], new, old) for old, new in kept)
        cost = np.where(down, tried[3], cost)
        damping = np.where(down, damping / 5, damping * 4).clip(1e-12, 1e12)
        if settled.all():
            break
    return place, cost
