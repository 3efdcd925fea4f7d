"""Straight lines through points, and how well they fit."""

import numpy as np

DRAWS = 2000


def straight_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """The least-squares line through points: slope, value at 0, and R², the variance explained; 0
    where there is none."""
    slope, start = np.polyfit(x, y, 1)
    missed, spread = ((y - start - slope * x) ** 2).sum(), ((y - y.mean()) ** 2).sum()
    return float(slope), float(start), float(1 - missed / spread) if spread else 0.0


def explained(x: np.ndarray, y: np.ndarray, error: np.ndarray) -> tuple[float, float, float]:
    """R² as measured, the least and the most that it may be; `error`: standard errors of y.

    The least is exceeded by 97.5% of draws of the points within their errors (with a fixed seed).
    Draws scatter more than the truth, never less, so the most is that of points which are two
    standard errors nearer to the line: 1 where errors may be all that keeps them off it."""
    slope, start, fit = straight_line(x, y)
    drawn = np.random.default_rng(0).normal(y, error, (DRAWS, len(y)))
    drawn -= drawn.mean(axis=1, keepdims=True)
    along = drawn @ ((x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).sum()))
    least = np.percentile(along**2 / (drawn**2).sum(axis=1), 2.5)
    line = start + slope * x
    missed = y - line
    nearer = line + np.copysign(np.maximum(np.abs(missed) - 2 * error, 0), missed)
    return fit, float(least), straight_line(x, nearer)[2]


def slope_error(x: np.ndarray, error: np.ndarray) -> float:
    """The standard error of a least-squares line's slope, from those of its points."""
    around = x - x.mean()
    return float(np.sqrt(((around * error) ** 2).sum()) / (around**2).sum())
