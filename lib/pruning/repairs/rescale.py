"""One factor for the residual stream that enters after the cut: c x⁽ˢ⁾ in place of x⁽ᵗ⁾, with

    c = Σ ⟨x⁽ˢ⁾, x⁽ᵗ⁾⟩ / Σ ‖x⁽ˢ⁾‖²,

the least squares over all tokens. Prune&Comp (arXiv 2507.18212), whose idea it is, takes the ratio
of mean norms; c is smaller by about the cosine of the two, and never makes the error larger.

Prune&Comp multiplies all that is written to the stream before the cut, the embeddings too, and with
them a head that is tied to them. Here all that is written after the cut is divided by c instead.
With every layer and the head behind a norm that does not see the factor, that is the same model:

    c x + Σ fᵢ(c x + …) = c (x + Σ fᵢ(x + …) / c),   fᵢ(c x) = fᵢ(x)

but for the small number that norms add to a variance. It weighs least here, where the stream is
largest. That a model is of this kind is tried with a factor that no number format rounds. Before
the head alone, where the last layers are dropped, a factor changes nothing.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lib.errors import UserError
from lib.models.anatomy import decoder, layers
from lib.models.residual import hooked, weight, writers
from lib.pruning import repair
from lib.pruning.dropped import Dropped

TRIED = 2.0  # a factor
INEXACT = 0.05  # the most by which what leaves the last norm may differ, relative to it


class Repair(repair.Repair):
    def fold(
        self, model: PreTrainedModel, block: Dropped, windows: torch.Tensor, batch: int
    ) -> dict[str, Any]:
        after = range(block.stop, len(layers(model)))
        written = [one for layer in after for one in writers(model, layer, windows[0])]
        halves = repair.measure(model, block, windows, batch)
        factor, report = repair.fitted(halves, lambda sums: sums.inner / sums.entering, _left)
        if factor <= 0:
            raise UserError(
                f"repair {self.name}: the best factor is {factor:.3g}; norms see its sign"
            )
        if after and _inexact(model, block.stop, written, windows[:1]) > INEXACT:
            raise UserError(
                f"repair {self.name}: model {model.config.model_type} sees the size of its "
                f"residual stream after layer {block.stop - 1}, so no factor can be folded in"
            )
        with torch.no_grad():
            for module in written:
                for part in (weight(module), module.bias):
                    if part is not None:
                        part.div_(factor)
        return report | {"factor": factor}


def _left(sums: repair.Sums, factor: float) -> float:
    """Σ ‖c x⁽ˢ⁾ − x⁽ᵗ⁾‖²"""
    return factor**2 * sums.entering - 2 * factor * sums.inner + sums.leaving


@torch.inference_mode()
def _inexact(
    model: PreTrainedModel, layer: int, written: list[nn.Module], row: torch.Tensor
) -> float:
    """The relative difference of what leaves the last norm, where the stream that enters a layer is
    multiplied by a factor, and where outputs of maps are divided by it; row [1, length]."""

    def multiplied(_module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple:
        if args:
            return (TRIED * args[0], *args[1:]), kwargs
        return args, kwargs | {"hidden_states": TRIED * kwargs["hidden_states"]}

    def divided(_module: nn.Module, _given: tuple, output: torch.Tensor) -> torch.Tensor:
        return output / TRIED

    whole, row = decoder(model), row.to(model.device)
    entered = layers(model)[layer].register_forward_pre_hook(multiplied, with_kwargs=True)
    try:
        one = whole(row, use_cache=False).last_hidden_state.float()
    finally:
        entered.remove()
    with hooked(*((module, divided) for module in written)):
        other = whole(row, use_cache=False).last_hidden_state.float()
    return float((one - other).norm() / one.norm())
