"""The first n layers: the control that asks whether it matters at all which layers go."""

from lib.pruning.dropped import Dropped, span
from lib.pruning.strategy import ByRule


class Strategy(ByRule):
    def choose(self, scores: None, n: int, n_layers: int) -> Dropped:
        return span(0, n)
