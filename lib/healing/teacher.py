"""The unpruned model as its pruned self's teacher (eq. 8 of Gromov et al., a proposal of theirs).

Dropping the block [ℓ, ℓ+n) hands layer ℓ+n the input of layer ℓ. The mismatch is what separates the
two, relative to the size of what should be there, so that every token counts alike:

    L_aux = mean over tokens of ‖x^(ℓ+n)(θ₀) − x^(ℓ)(θ)‖² / ‖x^(ℓ+n)(θ₀)‖²

θ₀: the unpruned model, frozen, in the same number format as the one that is healed; θ: the pruned
model with its adapters. Both share all weights but the dropped layers and the adapters, so that the
teacher costs the memory of the dropped layers and a forward pass up to the end of the block.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig

from lib.healing.unpruned import Shared, read_by
from lib.models.anatomy import decoder, sizes
from lib.pruning.dropped import Dropped


class _Reached(Exception):
    """Raised at the cut: what follows it is not wanted of the teacher."""


class Teacher:
    """Tells a pruned model, while it is trained, how far it is from the unpruned one at the cut."""

    def __init__(self, unpruned: Shared) -> None:
        """Of a model that one block was taken from."""
        whole, block = unpruned.layers, unpruned.dropped
        at_end = block.stop == len(whole)
        # The layer behind the cut is the same module in both; behind the last one there is none.
        self._watched = [whole[block.start - 1], whole[-1]] if at_end else [whole[block.stop]]
        self._at_end = at_end
        self._unpruned = unpruned

    @contextmanager
    def watching(self) -> Iterator[Callable[[], torch.Tensor]]:
        """Inside, the pruned model may run; then gives what it has at the cut, with gradients."""
        seen: list[torch.Tensor] = []
        handle = _on_cut(self._watched[0], self._at_end, seen.append)
        try:
            yield lambda: seen[0]  # what is recomputed for the gradients comes later
        finally:
            handle.remove()

    def expected(self, adapted: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """x^(ℓ+n)(θ₀) of the unpruned model [rows, length, width], without adapters or dropout."""
        seen: list[torch.Tensor] = []

        def keep(hidden: torch.Tensor) -> None:
            seen.append(hidden)
            raise _Reached

        handle = _on_cut(self._watched[-1], self._at_end, keep)
        try:
            with self._unpruned.whole(adapted) as model:
                decoder(model)(**read_by(inputs), use_cache=False)
        except _Reached:
            pass
        finally:
            handle.remove()
        return seen[0]


def relative_cost(config: PretrainedConfig, block: Dropped, checkpointing: bool = False) -> float:
    """How many times as long a step with the teacher takes as one without, counted by the weights
    that are multiplied: forward and back through the kept layers and the head (forward once more
    with gradient checkpointing), and forward through the layers up to the end of the block."""
    text = config.get_text_config()
    _, each = sizes(config)
    kept = sum(size for i, size in enumerate(each) if i not in block)
    without = (3 if checkpointing else 2) * kept + 2 * text.vocab_size * text.hidden_size
    return 1 + sum(each[: block.stop]) / without


def mismatch(
    found: torch.Tensor, expected: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """L_aux of [rows, length, width] states; mask [rows, length] is 0 where there is no token."""
    found, expected = found.float(), expected.float()
    apart = (found - expected).square().sum(-1) / expected.square().sum(-1)
    return apart.mean() if mask is None else (apart * mask).sum() / mask.sum()


def _on_cut(layer: nn.Module, at_end: bool, tell: Callable[[torch.Tensor], None]) -> Any:
    """Tell what enters a layer, or what leaves it."""
    if at_end:
        return layer.register_forward_hook(
            lambda _layer, _inputs, out: tell(out[0] if isinstance(out, tuple) else out)
        )

    def before(_layer: nn.Module, inputs: tuple, named: dict[str, Any]) -> None:
        tell(inputs[0] if inputs else named["hidden_states"])

    return layer.register_forward_pre_hook(before, with_kwargs=True)
