"""The block whose input and output are most similar: ℓ*(n) = argmin d(ℓ, ℓ+n) (eq. 6 and 7 of
Gromov et al.)."""

from typing import Any

from lib.pruning import strategy
from lib.pruning.dropped import Dropped, span


class Strategy(strategy.Strategy):
    calibrated = False  # but on the validation text, as in the paper

    def scores(self, asked: strategy.Asked) -> dict[str, Any]:
        """The angular distances of all blocks, which a section of their own shows and records."""
        return asked.distances()

    def inputs(self) -> dict[str, Any]:
        from lib.pruning import geometry

        return super().inputs() | {"distances": geometry.METHOD}

    def choose(self, scores: dict[str, Any], n: int, n_layers: int) -> Dropped:
        """Ties go to the deepest start."""
        start = scores["optimal"]["start"][scores["optimal"]["n"].index(n)]
        return span(start, start + n)
