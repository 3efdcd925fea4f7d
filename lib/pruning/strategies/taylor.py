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
    import torch

    model, windows = asked.model, asked.windows
    before = {one: one.requires_grad for one in model.parameters()}
    found: dict[Any, Any] = {}

    def take(weight: Any) -> None:
        gradient = weight.grad.float() * share
        found[weight] = found[weight].add_(gradient) if weight in found else gradient
        weight.grad = None

    handles = []
    try:
        model.requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
            handles.append(weight.register_post_accumulate_grad_hook(take))
        for some in windows.split(asked.batch):
            share, tokens = len(some) / len(windows), some.to(model.device)
            logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].float()
            torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), tokens[:, 1:].flatten()
            ).backward()
    finally:
        for handle in handles:
            handle.remove()
        for one, required in before.items():
            one.requires_grad_(required)
            one.grad = None
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
