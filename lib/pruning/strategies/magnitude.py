"""The layers whose weights are smallest: Iᵢ = Σ |w|ᵖ over all weights of layer i, norms included
and biases not (Lu et al., §3; for p = 2 their code takes no root). Needs no text."""

from collections.abc import Iterator
from typing import Any, Literal

from torch import nn

from lib.models.anatomy import layers
from lib.pruning import strategy
from lib.schema import Group


class Settings(Group):
    p: Literal[1, 2] = 1


class Strategy(strategy.Strategy):
    Settings = Settings

    def measure(self, asked: strategy.Asked) -> dict[str, Any]:
        p = self.settings.p
        return {
            "scores": [
                sum(float(one.detach().double().abs().pow(p).sum()) for one in weights(layer))
                for layer in layers(asked.model)
            ]
        }


def weights(layer: nn.Module) -> Iterator[nn.Parameter]:
    """All parameters but biases."""
    return (one for name, one in layer.named_parameters() if not name.endswith("bias"))
