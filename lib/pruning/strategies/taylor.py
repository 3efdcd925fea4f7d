"""The layers whose weights the loss would miss least, to first order: Iᵢ = Σ |w · ∂L/∂w| over all
weights of layer i, where L is the mean loss per token on the calibration text (Kim et al.,
Shortened LLaMA, §3; Lu et al., §3). Needs the gradients of all layers beside the model.
"""

import math
from typing import Any

import torch

from lib.models.anatomy import layers
from lib.pruning import strategy
from lib.pruning.strategies.magnitude import weights
from lib.schema import Group


class Settings(Group):
    """guard: as its source has it, the first eighth of the layers and the last two go last."""

    guard: bool = False


class Strategy(strategy.Strategy):
    Settings = Settings

    def measure(self, asked: strategy.Asked) -> dict[str, Any]:
        model, stack = asked.model, layers(asked.model)
        before = {name: one.requires_grad for name, one in model.named_parameters()}
        model.requires_grad_(False)
        for layer in stack:
            for weight in weights(layer):
                weight.requires_grad_(True)
        try:
            for windows in asked.windows.split(asked.batch):
                tokens = windows.to(model.device)
                loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
                (loss * len(windows) / len(asked.windows)).backward()
            return {"scores": [sum(map(_first_order, weights(layer))) for layer in stack]}
        finally:
            model.zero_grad(set_to_none=True)
            for name, one in model.named_parameters():
                one.requires_grad_(before[name])

    def inputs(self) -> dict[str, Any]:
        found = super().inputs()
        del found["settings"]  # the guard is about the choice, not about scores
        return found

    def choose(self, scores: dict[str, Any], n: int, n_layers: int) -> list[int]:
        free = range(n_layers)
        if self.settings.guard:
            free = range(math.ceil(n_layers / 8), n_layers - 2)
        ranked = sorted(
            range(n_layers), key=lambda layer: (layer not in free, scores["scores"][layer], -layer)
        )
        return ranked[:n]


def _first_order(weight: torch.Tensor) -> float:
    if weight.grad is None:  # of an expert that no token was sent to
        return 0.0
    return float((weight.detach().double() * weight.grad.double()).abs().sum())
