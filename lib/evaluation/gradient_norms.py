"""Norm of the gradient of each layer's weights."""

from collections.abc import Callable, Iterator

import torch
from torch import nn
from transformers import PreTrainedModel

from lib.models.anatomy import layers
from lib.pruning.gradients import backward, wanted


def of_layers(
    model: PreTrainedModel,
    windows: torch.Tensor,
    batch: int,
    progress: Callable[[Iterator], Iterator] = lambda batches: batches,
) -> dict[str, list[float]]:
    """‖∂L/∂θ_ℓ‖ by layer, L being the mean loss per token of a batch of token ids [windows,
    length]: mean over the batches, with its standard error (NaN of one batch). Of packed weights
    nothing is counted."""
    owner = {
        weight: i
        for i, layer in enumerate(layers(model))
        for weight in layer.parameters()
        if weight.is_floating_point()
    }
    squares = torch.zeros(len(layers(model)), dtype=torch.float64)

    def take(weight: nn.Parameter) -> None:
        squares[owner[weight]] += float(weight.grad.double().square().sum())
        weight.grad = None

    norms = []
    with wanted(model, list(owner), take):
        for some in progress(windows.split(batch)):
            squares.zero_()
            backward(model, some)
            norms.append(squares.sqrt())
    found = torch.stack(norms)
    stderr = found.std(0) / len(norms) ** 0.5
    return {"value": found.mean(0).tolist(), "stderr": stderr.tolist()}
