"""Layers drawn by chance: what every other strategy has to beat (Lu et al., §3). One draw says
nothing, so `draws` of them go side by side; where one set alone is asked for, it is the first."""

from typing import Annotated

import numpy as np
from pydantic import Field

from lib.fields import MOST, Group, Seed
from lib.pruning import strategy
from lib.pruning.dropped import Dropped


class Settings(Group):
    """draws: sets of each number of layers; seed: of the first one, each has the next."""

    draws: Annotated[int, Field(ge=2, le=MOST)] = 20
    seed: Seed = 0


class Strategy(strategy.ByRule):
    Settings = Settings
    by_chance = True

    def choose(self, scores: None, n: int, n_layers: int) -> list[int]:
        return self._order(self.settings.seed, n_layers)[:n]

    def drawn(self, n: int, n_layers: int) -> list[Dropped]:
        """[draws]; that of fewer layers is part of that of more."""
        first, count = self.settings.seed, self.settings.draws
        return [Dropped(self._order(first + i, n_layers)[:n]) for i in range(count)]

    def _order(self, seed: int, n_layers: int) -> list[int]:
        return np.random.default_rng(seed).permutation(n_layers).tolist()
