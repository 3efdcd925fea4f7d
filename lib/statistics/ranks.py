"""Rank correlation between two measures of the same layers."""

from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap, rankdata

FEWEST = 8  # layers; of fewer any order may be chance
RESAMPLES = 2000
LEVEL = 0.95


class Correlation(NamedTuple):
    """Spearman's ρ with its interval of LEVEL, over so many layers; NaN where it is not known."""

    rho: float
    low: float
    high: float
    count: int


def correlated(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Correlation:
    """Of two measures [layers], where both are numbers; the interval by a bootstrap over layers."""
    both = np.isfinite(first) & np.isfinite(second)
    x, y = first[both], second[both]
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(np.nan, np.nan, np.nan, len(x))

    # Percentiles: others are undefined where every layer but one has the same order.
    low, high = bootstrap(
        (x, y), _spearman, paired=True, vectorized=True, method="percentile",
        n_resamples=RESAMPLES, confidence_level=LEVEL, rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Correlation(float(_spearman(x, y)), float(low), float(high), len(x))


def _spearman(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
    """Of many samples at once: the correlation of their ranks. NaN where one has no order."""
    a, b = (rankdata(one, axis=axis) for one in (first, second))
    a, b = (ranks - ranks.mean(axis=axis, keepdims=True) for ranks in (a, b))
    with np.errstate(invalid="ignore"):
        sizes = (a * a).sum(axis=axis) * (b * b).sum(axis=axis)
        return (a * b).sum(axis=axis) / np.sqrt(sizes)
