"""The layers that turn the residual stream least: block influence,

    BIᵢ = 1 − E cos(xᵢ, xᵢ₊₁)

over the tokens of all windows (Men et al., ShortGPT, eq. 1). `flattened` takes one cosine of all
tokens as a single vector instead, as the code of Lu et al. does: tokens then count by their squared
norm, and one with a massive activation decides alone.
"""

from typing import Any

import torch

from lib.models.anatomy import decoder
from lib.pruning import strategy
from lib.pruning.geometry import residual_stream
from lib.schema import Group


class Settings(Group):
    flattened: bool = False


class Strategy(strategy.Strategy):
    Settings = Settings

    def measure(self, asked: strategy.Asked) -> dict[str, Any]:
        products = _products(asked)  # of neighbours, and of each with itself
        if self.settings.flattened:
            inner, before, after = products.sum((1, 2))
            return {"scores": (1 - inner / (before * after).sqrt()).tolist()}
        inner, before, after = products
        of_window = (1 - inner / (before * after).sqrt()).mean(1)  # [windows, layers]
        error = of_window.std(0) / len(of_window) ** 0.5
        return {"scores": of_window.mean(0).tolist(), "stderr": error.tolist()}


@torch.inference_mode()
def _products(asked: strategy.Asked) -> torch.Tensor:
    """xᵢ·xᵢ₊₁, xᵢ·xᵢ and xᵢ₊₁·xᵢ₊₁ of every token in float64: [3, windows, length, layers]."""
    found: list[torch.Tensor] = []
    before: list[torch.Tensor] = []  # what entered the layer above

    def products(state: torch.Tensor) -> torch.Tensor:
        state = state.double()
        above = before.pop() if before else state
        before.append(state)
        return torch.stack([(above * state).sum(-1), state.square().sum(-1)])

    stack = decoder(asked.model)
    with residual_stream(asked.model, products) as stream:
        for windows in asked.windows.split(asked.batch):
            before.clear()
            stream.clear()
            stack(input_ids=windows.to(stack.device), use_cache=False)
            inner, norms = torch.stack([one.cpu() for one in stream], dim=-1)
            found.append(torch.stack([inner[..., 1:], norms[..., :-1], norms[..., 1:]]))
    return torch.cat(found, dim=1)
