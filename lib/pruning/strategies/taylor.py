"""The layers whose weights the loss would miss least, to first order: Iᵢ = Σ |w · ∂L/∂w| over all
weights of layer i, where L is the mean loss per token on the calibration text (Kim et al.,
Shortened LLaMA, §3; Lu et al., §3). Needs float32 gradients of all layers beside the model.
"""

import math
from typing import Any

from lib.fields import Group
from lib.pruning import strategy


class Settings(Group):
    """guard: the first eighth of the layers and the last two stay, as in the code of its source."""

    guard: bool = False


class Strategy(strategy.Strategy):
    Settings = Settings
    gradients = True
    PASSES = 3.0  # forward, and back through everything

    def measure(self, asked: strategy.Asked) -> dict[str, Any]:
        from lib.models.anatomy import layers

        of_layer = [strategy.weights(layer, self.name) for layer in layers(asked.model)]
        gradients = _gradients(asked, [weight for weights in of_layer for weight in weights])
        return {
            "scores": [
                sum(_first_order(weight, gradients.get(weight)) for weight in weights)
                for weights in of_layer
            ]
        }

    def inputs(self) -> dict[str, Any]:
        found = super().inputs()
        del found["settings"]  # the guard is about the choice, not about scores
        return found

    def free(self, n_layers: int) -> range:
        """The layers that may go."""
        if not self.settings.guard:
            return range(n_layers)
        return range(math.ceil(n_layers / 8), n_layers - 2)

    def most(self, n_layers: int) -> int:
        return min(len(self.free(n_layers)), n_layers - 1)

    def choose(self, scores: dict[str, Any], n: int, n_layers: int) -> list[int]:
        free = self.free(n_layers)
        return sorted(free, key=lambda layer: (scores["scores"][layer], -layer))[:n]


def _gradients(asked: strategy.Asked, weights: list[Any]) -> dict[Any, Any]:
    """∂L/∂w of the weights, in float32 whatever the model computes in: batches add up. Without one
    are experts that no token was sent to."""
    from lib.pruning.gradients import backward, wanted

    windows, found, share = asked.windows, {}, 0.0

    def take(weight: Any) -> None:
        gradient = weight.grad.float() * share
        found[weight] = found[weight].add_(gradient) if weight in found else gradient
        weight.grad = None

    with wanted(asked.model, weights, take):
        for some in windows.split(asked.batch):
            share = len(some) / len(windows)
            backward(asked.model, some)
    return found


def _first_order(weight: Any, gradient: Any) -> float:
    if gradient is None:
        return 0.0
    parts = zip(
        weight.detach().flatten().split(strategy.AT_ONCE),
        gradient.flatten().split(strategy.AT_ONCE),
        strict=True,
    )
    return sum(float((one.double() * other.double()).abs().sum()) for one, other in parts)
