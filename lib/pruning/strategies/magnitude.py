"""The layers whose weights are smallest: Iᵢ = Σ |w|ᵖ over all weights of layer i, norms included
and biases not (Lu et al., §3; for p = 2 their code takes no root). Needs no text."""

from typing import Any, Literal

from lib.fields import Group
from lib.pruning import strategy


class Settings(Group):
    """p: the power."""

    p: Literal[1, 2] = 1


class Strategy(strategy.Strategy):
    Settings = Settings
    calibrated = False

    def measure(self, asked: strategy.Asked) -> dict[str, Any]:
        from lib.models.anatomy import layers

        p = self.settings.p
        return {
            "scores": [
                sum(
                    float(part.double().abs().pow(p).sum())
                    for weight in strategy.weights(layer, self.name)
                    for part in weight.detach().flatten().split(strategy.AT_ONCE)
                )
                for layer in layers(asked.model)
            ]
        }
