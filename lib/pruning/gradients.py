"""Gradients of the loss on windows of text, batch by batch, without room for more than one batch's.

L is the mean loss per token of a batch [nats].
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

Taken = Callable[[nn.Parameter], None]


@contextmanager
def wanted(model: PreTrainedModel, weights: Sequence[nn.Parameter], take: Taken) -> Iterator[None]:
    """Within `with`, gradients are made of these weights alone. `take` is given each weight as soon
    as its gradient is there, and takes it away. Afterwards all is as before."""
    before = {one: one.requires_grad for one in model.parameters()}
    handles = []
    try:
        model.requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
            handles.append(weight.register_post_accumulate_grad_hook(take))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for one, required in before.items():
            one.requires_grad_(required)
            one.grad = None


def backward(model: PreTrainedModel, windows: torch.Tensor) -> None:
    """∂L/∂w of token ids [windows, length]."""
    tokens = windows.to(model.device)
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].float()
    nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
