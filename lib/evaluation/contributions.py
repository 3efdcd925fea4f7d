"""What attention and the feed-forward network (FFN) add to the residual stream, found by trying.

Families name these modules in many ways, and put norms before or behind them. What they have in
common is that a layer returns what entered it, and the two. So a few tokens are read, and the first
two modules directly below a layer whose outputs add up with its input to its output are the ones.
Where no two do, as in families that multiply them or add inside a module, nothing is said of the
parts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from lib.models.anatomy import decoder, layers
from lib.pruning.geometry import residual_stream

SAME, SAME_16_BIT = 1e-4, 3e-2  # of the largest number of the sum
TRIED = 8  # tokens


class Parts(NamedTuple):
    """Modules of a layer whose outputs it adds to what enters it."""

    attention: nn.Module
    ffn: nn.Module


@contextmanager
def outputs(
    modules: list[nn.Module], length: int, where: torch.Tensor
) -> Iterator[dict[nn.Module, torch.Tensor]]:
    """Within `with`, each forward over windows of `length` leaves copies of what modules return
    at positions `where` [windows, positions, width]; some families return all tokens in one row,
    and some change in place later what was returned. Of what is no such tensor nothing is kept."""
    found: dict[nn.Module, torch.Tensor] = {}

    def take(module: nn.Module, _given: tuple, output: object) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if isinstance(hidden, torch.Tensor) and hidden.numel() % (length * hidden.shape[-1]) == 0:
            found[module] = hidden.reshape(-1, length, hidden.shape[-1])[:, where]

    handles = [module.register_forward_hook(take) for module in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def parts(model: PreTrainedModel) -> list[Parts] | None:
    """Of each layer; None where those of some layer are not found."""
    stack = layers(model)
    children = [child for layer in stack for child in layer.children()]
    tokens = torch.arange(TRIED)
    with residual_stream(model, torch.clone) as stream, outputs(children, TRIED, tokens) as left:
        decoder(model)(input_ids=tokens[None].to(model.device), use_cache=False)
    found = [_of_layer(*one, left) for one in zip(stack, stream[:-1], stream[1:], strict=True)]
    return None if None in found else found


def _of_layer(
    layer: nn.Module,
    entered: torch.Tensor,
    whole: torch.Tensor,
    left: dict[nn.Module, torch.Tensor],
) -> Parts | None:
    fits = {
        name: child
        for name, child in layer.named_children()
        if child in left and left[child].shape == whole.shape
    }
    tolerance = SAME if whole.dtype in (torch.float32, torch.float64) else SAME_16_BIT
    for (one, first), (other, second) in combinations(fits.items(), 2):
        missed = (entered + left[first] + left[second] - whole).abs().max()
        if missed <= tolerance * whole.abs().max():
            turned = "att" in other and "att" not in one
            return Parts(second, first) if turned else Parts(first, second)
    return None
