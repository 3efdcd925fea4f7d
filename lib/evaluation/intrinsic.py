"""Intrinsic dimension of a cloud of points by their two nearest neighbours (Facco et al., 2017).

Where points lie locally evenly on a surface of d dimensions, the ratio μ of the distances to the
second and the first neighbour is Pareto distributed, P(μ > m) = m^−d. So

    d = (N − 1) / Σ log μᵢ,     standard error  d / √(N − 2)
"""

import torch

FEWEST = 32  # different points


def two_nearest_neighbours(points: torch.Tensor) -> tuple[float, float]:
    """Dimension of points [N, D], with its standard error; NaN for fewer than FEWEST of which no
    two are the same."""
    points = points.double().unique(dim=0)
    if len(points) < FEWEST:
        return float("nan"), float("nan")
    points = points - points.mean(0)
    of_point = points.square().sum(1)
    squares = of_point[:, None] + of_point - 2 * points @ points.T
    squares.fill_diagonal_(torch.inf)
    first, second = squares.topk(2, largest=False).values.clamp_min(0).T
    apart = first > 0  # the rest is nearer than rounding can tell
    logs = (second[apart] / first[apart]).log() / 2
    count = len(logs)
    if count < FEWEST or not logs.sum() > 0:
        return float("nan"), float("nan")
    dimension = float((count - 1) / logs.sum())
    return dimension, dimension / (count - 2) ** 0.5
