"""The layers that turn the residual stream least: block influence,

    BIᵢ = 1 − E cos(xᵢ, xᵢ₊₁)

over the tokens of all windows (Men et al., ShortGPT, eq. 1). `flattened` takes one cosine of all
tokens as a single vector instead, as the code of Lu et al. does: tokens then count by their squared
norm, and one with a massive activation decides alone.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lib.fields import Group
from lib.pruning import strategy

if TYPE_CHECKING:
    import torch


class Settings(Group):
    """flattened: one cosine of all tokens together."""

    flattened: bool = False


class Strategy(strategy.Strategy):
    Settings = Settings

    def measure(self, asked: strategy.Asked) -> dict[str, Any]:
        import torch

        if self.settings.flattened:
            inner, before, after = sum(found.sum((1, 2)) for found in _products(asked))
            return {"scores": (1 - inner / (before * after).sqrt()).tolist()}
        of_window = torch.cat(
            [
                (1 - inner / (before * after).sqrt()).mean(1)
                for inner, before, after in _products(asked)
            ]
        )
        found = {"scores": of_window.mean(0).tolist()}
        if len(of_window) > 1:
            found["stderr"] = (of_window.std(0) / len(of_window) ** 0.5).tolist()
        return found


def _products(asked: strategy.Asked) -> Iterator["torch.Tensor"]:
    """xᵢ·xᵢ₊₁, xᵢ·xᵢ and xᵢ₊₁·xᵢ₊₁ of every token in float64, batch by batch:
    [3, windows, length, layers]."""
    import torch

    from lib.models.anatomy import decoder
    from lib.pruning.geometry import residual_stream

    before: list[torch.Tensor] = []  # what entered the layer above

    def products(state: torch.Tensor) -> torch.Tensor:
        state = state.double()
        above = before.pop() if before else state
        before.append(state)
        return torch.stack([(above * state).sum(-1), state.square().sum(-1)])

    stack, all_windows = decoder(asked.model), asked.windows
    with residual_stream(asked.model, products) as stream:
        for windows in all_windows.split(asked.batch):
            before.clear()
            stream.clear()
            with torch.inference_mode():
                stack(input_ids=windows.to(stack.device), use_cache=False)
                inner, norms = torch.stack([one.cpu() for one in stream], dim=-1)
            yield torch.stack([inner[..., 1:], norms[..., :-1], norms[..., 1:]])
