"""Linear centred kernel alignment of two representations of the same inputs (Kornblith et al.,
2019; estimated without bias after Song et al., 2012):

    CKA = HSIC(K, M) / √(HSIC(K, K) · HSIC(M, M)),   K = X Xᵀ, M = Y Yᵀ without their diagonals

    HSIC(K, M) = [tr KM + 1ᵀK1 · 1ᵀM1 / ((N−1)(N−2)) − 2/(N−2) · 1ᵀKM1] / (N (N−3))

It is 1 for representations that differ by a rotation, a shift and a factor, and about 0 for
independent ones.
"""

import numpy as np

GROUPS = 16  # of inputs at most, left out one after another for the standard error
FEWEST = 8  # inputs


def linear_cka(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Of x [N, D] and y [N, E], with the standard error of a jackknife over groups of inputs; NaN
    where one of them does not vary.

    Raises ValueError for different numbers of inputs, or for too few."""
    count = len(x)
    if count != len(y) or count < FEWEST:
        raise ValueError(f"{count} and {len(y)} inputs: at least {FEWEST} of the same are needed")
    k, m = (_gram(one) for one in (x, y))
    whole = _aligned(k, m)
    groups = np.array_split(np.arange(count), min(GROUPS, count))
    left = [np.setdiff1d(np.arange(count), group) for group in groups]
    parts = np.array([_aligned(k[np.ix_(i, i)], m[np.ix_(i, i)]) for i in left])
    return whole, float(np.sqrt((len(groups) - 1) * parts.var()))


def _gram(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    x = x - x.mean(axis=0)  # changes nothing but what rounding leaves of large means
    found = x @ x.T
    np.fill_diagonal(found, 0.0)
    return found


def _aligned(k: np.ndarray, m: np.ndarray) -> float:
    own = _hsic(k, k) * _hsic(m, m)
    return float(_hsic(k, m) / np.sqrt(own)) if own > 0 else float("nan")


def _hsic(k: np.ndarray, m: np.ndarray) -> float:
    n = len(k)
    of_k, of_m = k.sum(axis=0), m.sum(axis=0)
    found = (k * m).sum() + of_k.sum() * of_m.sum() / ((n - 1) * (n - 2))
    return float((found - 2 / (n - 2) * of_k @ of_m) / (n * (n - 3)))
