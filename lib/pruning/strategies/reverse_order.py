"""The deepest n layers, the last one included (Lu et al., §3). Needs no data and no model."""

from lib.pruning.dropped import Dropped, span
from lib.pruning.strategy import ByRule


class Strategy(ByRule):
    def choose(self, scores: None, n: int, n_layers: int) -> Dropped:
        return span(n_layers - n, n_layers)
