"""What tests of repairs share: a cut, texts, and layers that do something known."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tiny import random_tokens
from torch import nn
from transformers import PreTrainedModel

from lib import open_sets
from lib.models.anatomy import layers
from lib.pruning.dropped import Dropped, span
from lib.pruning.repair import load, repair

REPAIRS = open_sets.known("repair")
BLOCK = span(2, 4)
WINDOWS = random_tokens(24, 20)  # calibration text
TOKENS = random_tokens(3, 20, seed=1)  # other text


def repaired(model: PreTrainedModel, name: str, block: Dropped = BLOCK) -> dict[str, Any]:
    return repair(model, block, WINDOWS, 5, load(name))


def close(found: torch.Tensor, expected: torch.Tensor, share: float) -> None:
    """Within a share of the largest of those expected."""
    difference = (found - expected).detach().abs().max()
    assert float(difference) < share * float(expected.detach().abs().max())


@contextmanager
def replaced(module: nn.Module, function: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """A module's output put through a function."""
    handle = module.register_forward_hook(lambda _module, _given, output: function(output))
    yield
    handle.remove()


def silence(model: PreTrainedModel) -> None:
    """Both layers of the block leave the residual stream as it is."""
    with torch.no_grad():
        for layer in layers(model)[2:4]:
            for module in (layer.self_attn.o_proj, layer.mlp.down_proj):
                module.weight.zero_()
