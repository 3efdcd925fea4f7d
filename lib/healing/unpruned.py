"""The unpruned model, frozen, beside its pruned self while that is trained."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from transformers import PreTrainedModel

from lib.models.anatomy import layers
from lib.pruning.dropped import Dropped
from lib.pruning.surgery import Cut


class Shared:
    """Of one model with the pruned one: both have all weights but the dropped layers and the
    adapters, so it costs the memory of the dropped layers alone."""

    def __init__(self, model: PreTrainedModel, dropped: Collection[int]) -> None:
        """Takes the layers out of the model, which `whole` then puts back for a while."""
        self.dropped = Dropped(dropped)
        self.layers = list(layers(model))
        self._model, self._cut = model, Cut(model, dropped)

    @contextmanager
    def whole(self, trained: nn.Module) -> Iterator[PreTrainedModel]:
        """Inside, the model is unpruned, without adapters, dropout or gradients. trained: the
        pruned one as it is trained, its adapters included."""
        plain = getattr(trained, "disable_adapter", nullcontext)()  # if it has adapters
        self._cut.turn()
        self._model.eval()
        try:
            with torch.no_grad(), plain:
                yield self._model
        finally:
            self._model.train()
            self._cut.turn()


class Apart:
    """A model of its own, where training changes the weights of the pruned one."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model.eval().requires_grad_(False)

    @contextmanager
    def whole(self, trained: nn.Module) -> Iterator[PreTrainedModel]:
        with torch.no_grad():
            yield self._model


def read_by(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the unpruned model is given of a batch: its tokens, and which are padding."""
    return {key: inputs[key] for key in ("input_ids", "attention_mask") if key in inputs}
