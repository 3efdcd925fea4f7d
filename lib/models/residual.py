"""Which linear maps write to the residual stream, found by trying rather than by name.

    x⁽ˡ⁺¹⁾ = x⁽ˡ⁾ + Σᵢ mᵢ,   mᵢ = hᵢ Wᵢᵀ + bᵢ

What is added as it stands passes gradients on as they stand: for any g, ∂⟨g, x⁽ˡ⁺¹⁾⟩/∂mᵢ = g, bit
for bit in every number format. A map whose output a norm follows, that is weighted as an expert, or
that something later in the layer reads too, has another gradient. Once the gradient through such
a reader is cut off, the map before it (that of attention, before the FFN) shows itself likewise.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lib.errors import UserError
from lib.models.anatomy import decoder, layers

LENGTH = 16  # tokens that are tried

Hook = tuple[nn.Module, Callable[..., Any]]


@contextmanager
def hooked(*hooks: Hook) -> Iterator[None]:
    """Within `with`, each function is called as a forward hook of its module: with the module, its
    arguments and its output, in place of which it may return another."""
    handles = [module.register_forward_hook(function) for module, function in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def last_writer(model: PreTrainedModel, layer: int, tokens: torch.Tensor) -> nn.Module:
    """The linear map that writes the output of a layer's FFN to the residual stream; tokens
    [length]. Where FFN and attention write side by side, every family computes the FFN last.

    Raises UserError where there is none, and for weights that are packed or not in memory."""
    layer_call = _call(model, layer, tokens)
    found = _direct(layer_call, [])[0]
    if not found:
        raise UserError(
            f"model {model.config.model_type}: what the FFN of layer {layer} adds to the residual "
            "stream is not the output of a linear map (a norm follows it, say, or it is that of "
            "several experts), so nothing can be folded into that"
        )
    return _writable(model, found[-1])


def writers(model: PreTrainedModel, layer: int, tokens: torch.Tensor) -> list[nn.Module]:
    """All linear maps that write to the residual stream in a layer; without their outputs the layer
    is the identity. tokens [length].

    Raises UserError where something else writes to it, and for weights that are packed or not in
    memory."""
    layer_call, found = _call(model, layer, tokens), []
    while True:
        more, carried = _direct(layer_call, found)
        if not more:
            break
        found += more
    if not carried:
        raise UserError(
            f"model {model.config.model_type}: not everything that layer {layer} adds to the "
            "residual stream is the output of a linear map (a norm follows it, say, or it is that "
            "of several experts), so nothing can be folded into these"
        )
    return [_writable(model, module) for module in found]


def weight(module: nn.Module) -> torch.Tensor:
    """The weight [out, in] of a linear map: a view, so that copying into it changes the model."""
    return module.weight.T if isinstance(module, Conv1D) else module.weight


def stream(found: torch.Tensor | tuple) -> torch.Tensor:
    """The residual stream [batch, length, width] among what a layer returns."""
    return found[0] if isinstance(found, tuple) else found


class _Call:
    """A layer of a model, with the arguments that the model gives it for some tokens."""

    def __init__(self, layer: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self.layer, self._kwargs = layer, {**kwargs}
        self.entering, *self._more = args or [self._kwargs.pop("hidden_states")]

    def __call__(self, entering: torch.Tensor) -> torch.Tensor:
        return stream(self.layer(entering, *self._more, **self._kwargs))


def _call(model: PreTrainedModel, number: int, tokens: torch.Tensor) -> _Call:
    layer, calls = layers(model)[number], []

    def record(_module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        calls.append(_Call(layer, args, kwargs))

    handle = layer.register_forward_pre_hook(record, with_kwargs=True)
    try:
        with torch.inference_mode(False), torch.no_grad():
            decoder(model)(tokens[None, :LENGTH].to(model.device), use_cache=False)
    finally:
        handle.remove()
    return calls[0]


def _direct(call: _Call, known: Collection[nn.Module]) -> tuple[list[nn.Module], bool]:
    """The linear maps, in the order in which they are computed, whose outputs are added to the
    stream and read by nothing else, once no gradient passes through those that are `known`; and
    whether the stream that enters leaves likewise."""
    probes: dict[nn.Module, torch.Tensor] = {}

    def probe(module: nn.Module, _given: tuple, output: torch.Tensor) -> torch.Tensor | None:
        if module in known:
            return output.detach()
        if output.shape[-1] != call.entering.shape[-1]:
            return None
        probes[module] = torch.zeros_like(output, requires_grad=True)
        return output + probes[module]

    maps = [one for one in call.layer.modules() if isinstance(one, nn.Linear | Conv1D)]
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        hooked(*((one, probe) for one in maps)),
    ):
        entering = call.entering.detach().requires_grad_()
        leaving = call(entering)
        g = torch.randn(leaving.shape, generator=torch.Generator().manual_seed(0)).to(leaving)
        wanted = [entering, *probes.values()]
        of_entering, *gradients = torch.autograd.grad(leaving, wanted, g, allow_unused=True)

    def as_given(gradient: torch.Tensor | None) -> bool:
        return gradient is not None and torch.equal(gradient.reshape(g.shape), g)

    found = zip(probes, gradients, strict=True)
    return [module for module, gradient in found if as_given(gradient)], as_given(of_entering)


def _writable(model: PreTrainedModel, module: nn.Module) -> nn.Module:
    if module.weight.is_meta or not module.weight.is_floating_point():
        name = next(name for name, one in model.named_modules() if one is module)
        why = "is not in memory" if module.weight.is_meta else "is quantised"
        raise UserError(f"model {model.config.model_type}: {name} {why}; nothing is folded into it")
    return module
