"""How alike two representations of the same tokens are, beyond the angle between them.

    CKA         linear, without bias, as in `cka`; here from sums over tokens, so that the time does
                not grow with their square
    SVCCA       mean canonical correlation of the principal directions that hold 99% of the variance
                on each side (Raghu et al., 2017)
    Procrustes  ‖XᵀY‖_* / (‖X‖ ‖Y‖) of centred X and Y: the best that a rotation can do. Of matrices
                of norm 1 the squared Procrustes distance is 2 (1 − it) (Ding et al., 2021)
    linear      share of the variance of y that the best linear map from x explains on tokens that
                it was not fitted on; `linear_update`: of the variance of y − x, which says more
                where the residual stream hardly moves

All are 1 at most. Errors: of the first three a jackknife over GROUPS of windows, of the last two
over the groups that were held out.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

GROUPS = 5  # of windows: tokens of one are no independent sample
KEPT = 0.99  # of the variance
FEWEST = 2  # tokens for each direction that SVCCA compares; where there are fewer, all look alike
RIDGE = 1e-6  # of the mean variance of x, added to each direction's

Measured = dict[str, tuple[float, float]]  # value and standard error
MEASURES = ("cka", "svcca", "procrustes", "linear", "linear_update")


@dataclass
class Sums:
    """Over the tokens of x [tokens, D] and y [tokens, E]: what HSIC and covariances are made of."""

    count: int
    x: torch.Tensor  # Σ x
    y: torch.Tensor
    xy: torch.Tensor  # Σ x yᵀ [D, E]
    xx: torch.Tensor  # Σ |x|², one number
    yy: torch.Tensor
    both: torch.Tensor  # Σ |x|² |y|²
    x_y: torch.Tensor  # Σ |x|² y [E]
    y_x: torch.Tensor  # Σ |y|² x [D]

    @classmethod
    def of(cls, x: torch.Tensor, y: torch.Tensor) -> "Sums":
        of_x, of_y = x.square().sum(1), y.square().sum(1)
        return cls(
            len(x), x.sum(0), y.sum(0), x.T @ y, of_x.sum(), of_y.sum(),
            of_x @ of_y, of_x @ y, of_y @ x,
        )  # fmt: skip

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(a + b for a, b in zip(self._all(), other._all(), strict=True)))

    def __sub__(self, other: "Sums") -> "Sums":
        return Sums(*(a - b for a, b in zip(self._all(), other._all(), strict=True)))

    def _all(self) -> tuple:
        return tuple(self.__dict__.values())

    def covariance(self) -> torch.Tensor:
        """Σ (x − x̄)(y − ȳ)ᵀ [D, E]."""
        return self.xy - torch.outer(self.x, self.y) / self.count

    def hsic(self) -> torch.Tensor:
        """Without bias (Song et al., 2012), of linear kernels whose diagonals are left out."""
        n = self.count
        trace = self.xy.square().sum() - self.both
        of_x, of_y = self.x @ self.x - self.xx, self.y @ self.y - self.yy
        between = self.x @ self.xy @ self.y - self.x_y @ self.y - self.y_x @ self.x + self.both
        found = trace + of_x * of_y / ((n - 1) * (n - 2)) - 2 / (n - 2) * between
        return found / (n * (n - 3))


class Side:
    """One representation [tokens, D] in float64, and what is derived of all of its groups and
    without each; made once and compared with several others. group [tokens]: from 0 to GROUPS − 1;
    None: all are one, and nothing is said of errors, nor of what a linear map explains."""

    def __init__(self, states: torch.Tensor, group: torch.Tensor | None = None) -> None:
        states = states.double()
        states = states - states.mean(0)  # changes no value but by rounding
        groups = range(GROUPS) if group is not None else ()
        self.parts = [states[group == g] for g in groups] or [states]
        self.own = without_each([Sums.of(part, part) for part in self.parts])

    @cached_property
    def directions(self) -> list[torch.Tensor]:
        """[D, k] of all tokens, and without each group: maps to the principal directions that hold
        KEPT of the variance, scaled to variance 1."""
        return [_whitening(one.covariance()) for one in self.own]


def without_each(parts: list[Sums]) -> list[Sums]:
    """Of all groups, and of all but each where there are several."""
    whole = sum(parts[1:], parts[0])
    return [whole, *(whole - part for part in parts if len(parts) > 1)]


def likeness(x: Side, y: Side) -> Measured:
    """NaN where one of them does not vary, and for SVCCA of fewer tokens than tell directions
    apart."""
    cross = without_each([Sums.of(a, b) for a, b in zip(x.parts, y.parts, strict=True)])
    sums = list(zip(x.own, y.own, cross, strict=True))
    directions = zip(x.directions, y.directions, cross, strict=True)
    found = {
        "cka": _jackknifed([_cka(*one) for one in sums]),
        "svcca": _jackknifed([_svcca(*one) for one in directions]),
        "procrustes": _jackknifed([_procrustes(*one) for one in sums]),
    }
    return found | (_linear(x, y, cross) if len(x.parts) > 1 else {})


def _jackknifed(values: list[float]) -> tuple[float, float]:
    """The value of all groups, with the error that those without one of them give; NaN of one.
    Where some of these are not known, neither is the value."""
    whole, *left = values
    if np.isnan(left).any():
        return float("nan"), float("nan")
    return whole, float(np.sqrt((len(left) - 1) * np.var(left))) if left else float("nan")


def _cka(x: Sums, y: Sums, cross: Sums) -> float:
    own = float(x.hsic() * y.hsic())
    return float(cross.hsic()) / own**0.5 if own > 0 else float("nan")


def _whitening(covariance: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    share = values.cumsum(0) / values.sum()
    kept = int((share < KEPT).sum()) + 1
    return vectors[:, :kept] / values[:kept].sqrt()


def _svcca(of_x: torch.Tensor, of_y: torch.Tensor, cross: Sums) -> float:
    directions = of_x.shape[1] + of_y.shape[1]
    if cross.count < FEWEST * directions:
        return float("nan")
    correlations = _singular_values(of_x.T @ cross.covariance() @ of_y)
    return float(correlations.clamp_max(1).mean())


def _procrustes(x: Sums, y: Sums, cross: Sums) -> float:
    norms = x.covariance().trace() * y.covariance().trace()
    return float(_singular_values(cross.covariance()).sum() / norms.sqrt())


def _singular_values(matrix: torch.Tensor) -> torch.Tensor:
    """By the eigenvalues of the smaller of MᵀM and MMᵀ, several times as fast as an SVD; those
    below 1e-8 of the largest are lost, which add nothing here."""
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    return torch.linalg.eigvalsh(matrix.T @ matrix).clamp_min(0).sqrt()


def _linear(x: Side, y: Side, cross: list[Sums]) -> Measured:
    """The map is fitted without each group in turn, and tried on it."""
    missed, spread, moved = [], [], []
    for g, (of_x, of_both) in enumerate(zip(x.own[1:], cross[1:], strict=True)):
        covariance = of_x.covariance()
        covariance.diagonal().add_(RIDGE * covariance.trace() / len(covariance))
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if failed:
            return dict.fromkeys(("linear", "linear_update"), (float("nan"), float("nan")))
        mapped = torch.cholesky_solve(of_both.covariance(), factor)
        before = x.parts[g] - of_both.x / of_both.count
        after = y.parts[g] - of_both.y / of_both.count
        missed.append(float((after - before @ mapped).square().sum()))
        spread.append(float(after.square().sum()))
        moved.append(float((after - before).square().sum()))
    return {"linear": _explained(missed, spread), "linear_update": _explained(missed, moved)}


def _explained(missed: list[float], of: list[float]) -> tuple[float, float]:
    share = 1 - np.array(missed) / np.array(of)
    return 1 - sum(missed) / sum(of), float(share.std(ddof=1) / len(share) ** 0.5)
