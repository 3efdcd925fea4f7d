"""Weights stay what they are while libraries have hold of a model.

    with untouched(model, "lm-eval"):
        ...                            # a UserError at the end where a weight has changed

What has happened elsewhere: an output head tied to the embeddings, 4-bit weights repacked in place.
Such changes are of whole tensors, so some values of each tell, and a look costs milliseconds.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lib.errors import UserError

LOOKED_AT = 256  # values of each parameter, evenly spaced

Weights = dict[str, str]  # by name of the parameter: a digest of shape and values


def weights(parameters: Iterable[tuple[str, nn.Parameter]]) -> Weights:
    """Digests of (name, parameter) pairs. The number format does not count, the values do; of
    parameters that lie on disk only their shape is known."""
    return {name: _digest(parameter) for name, parameter in parameters}


def of_model(model: nn.Module) -> Weights:
    return weights(model.named_parameters(remove_duplicate=False))


def check(before: Weights, after: Weights, by: str) -> None:
    """Raises UserError for a parameter of both that has changed."""
    for name in before.keys() & after.keys():
        if before[name] != after[name]:
            raise UserError(
                f"{by} has changed the weights of the model ({name}); what was measured on it is "
                "not recorded"
            )


@contextmanager
def untouched(model: nn.Module, by: str) -> Iterator[None]:
    """Raises UserError where the weights are other ones at the end."""
    before = of_model(model)
    yield
    check(before, of_model(model), by)


def _digest(parameter: nn.Parameter) -> str:
    found = hashlib.sha256(str(tuple(parameter.shape)).encode())
    if not parameter.is_meta:
        plain = parameter.detach().as_subclass(torch.Tensor)  # of 4-bit ones the packed bytes
        values = plain.flatten()[:: max(1, plain.numel() // LOOKED_AT)]
        found.update(values.to(torch.float64).cpu().numpy().tobytes())
    return found.hexdigest()
