"""The deepest n layers but the last one (§4.4 of Gromov et al.). Needs no data and no model."""

from lib.pruning.dropped import Dropped, simple
from lib.pruning.strategy import ByRule


class Strategy(ByRule):
    def choose(self, scores: None, n: int, n_layers: int) -> Dropped:
        return simple(n, n_layers)
