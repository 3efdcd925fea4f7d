"""Running a decoder layer by layer, as the model itself would.

The decoder's own code prepares what its layers are called with (masks, positions, rotary tables),
and its own code makes logits of what the last one returns; in between, layers are called one at a
time, in any order. Both ends run with the layers' `forward` replaced by one that computes nothing,
so no architecture has to be known here.
"""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import Cache, DynamicCache, PreTrainedModel

from lib.models.anatomy import decoder, layers


@dataclass
class Entrance:
    """What the layers are called with for some tokens.

    hidden [rows, length, width]: what enters layer 0. arguments: per layer, positional and keyword
    arguments beside the hidden states. cache: stands in them wherever the layer's cache belongs."""

    hidden: torch.Tensor
    arguments: list[tuple[tuple, dict[str, Any]]]
    cache: Cache | None


class _Entered(Exception):
    """Raised where what follows is not wanted."""


class Replay:
    """A model whose layers can be called one at a time."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.decoder = decoder(model)
        self.layers = layers(model)
        self.config = model.config.get_text_config()
        self._takes_positions = "position_ids" in inspect.signature(self.decoder.forward).parameters
        self._pristine = DynamicCache(config=self.config)
        self._beside = self._returned_beside()

    def _returned_beside(self) -> int | None:
        """How many things layers return in a tuple with the hidden states; None: they alone."""
        found = []

        def look(_module: nn.Module, _inputs: tuple, output: Any) -> None:
            found.append(len(output) - 1 if isinstance(output, tuple) else None)
            raise _Entered

        handle = self.layers[0].register_forward_hook(look)
        try:
            with suppress(_Entered):
                self.decoder(input_ids=self._tokens(1, 1), use_cache=False)
        finally:
            handle.remove()
        return found[0]

    def _returned(self, hidden: torch.Tensor) -> Any:
        """Hidden states as a layer returns them."""
        return hidden if self._beside is None else (hidden, *[None] * self._beside)

    def _tokens(self, rows: int, length: int) -> torch.Tensor:
        return torch.zeros(rows, length, dtype=torch.long, device=self.model.device)

    def cache_of(self, past: int = 0) -> DynamicCache:
        """An empty cache, or one that claims to hold `past` tokens."""
        cache = copy.copy(self._pristine)
        cache.layers = [copy.copy(layer) for layer in self._pristine.layers]
        if past:
            nothing = torch.zeros(1, 1, past, 1, device=self.model.device)
            for layer in cache.layers:
                layer.update(nothing, nothing)
        return cache

    def enter(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
        past: int | None = None,
    ) -> Entrance:
        """What the layers would be called with for tokens [rows, length].

        past: number of tokens that the cache holds before these; None: run without a cache.
        mask [rows, past + length] and positions [rows, length] are the model's own arguments."""
        arguments: list[tuple[tuple, dict[str, Any]]] = []
        first: list[torch.Tensor] = []

        def record(*args: Any, **kwargs: Any) -> Any:
            if not args:
                hidden = kwargs.pop("hidden_states")
            else:
                hidden, *rest = args
                args = tuple(rest)
            if not first:
                first.append(hidden)
            arguments.append((args, kwargs))
            if len(arguments) == len(self.layers):
                raise _Entered
            return self._returned(hidden)

        cache = None if past is None else self.cache_of(past)
        inputs: dict[str, Any] = {"input_ids": tokens, "use_cache": past is not None}
        if mask is not None:
            inputs["attention_mask"] = mask
        if positions is not None and self._takes_positions:
            inputs["position_ids"] = positions
        if cache is not None:
            inputs["past_key_values"] = cache
        with self._instead_of_layers(record), suppress(_Entered):
            self.decoder(**inputs)
        return Entrance(first[0], arguments, cache)

    def step(
        self, i: int, hidden: torch.Tensor, entrance: Entrance, cache: Any = None
    ) -> tuple[torch.Tensor, Any]:
        """Layer i's output [rows, length, width], and its cache afterwards.

        cache: what an earlier step of this layer returned, for rows in the same order."""
        args, kwargs = entrance.arguments[i]
        if entrance.cache is not None:
            whole = self._holder(i, cache)
            args = tuple(whole if value is entrance.cache else value for value in args)
            kwargs = {k: whole if v is entrance.cache else v for k, v in kwargs.items()}
        output = self.layers[i](hidden, *args, **kwargs)
        after = whole.layers[i] if entrance.cache is not None else None
        return (output[0] if isinstance(output, tuple) else output), after

    def _holder(self, i: int, layer_cache: Any) -> DynamicCache:
        """A cache of which only layer i is used."""
        cache = copy.copy(self._pristine)
        cache.layers = list(self._pristine.layers)
        before = self._pristine.layers[i] if layer_cache is None else layer_cache
        cache.layers[i] = copy.copy(before)
        return cache

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[positions, vocabulary] of the last layer's outputs [positions, width]."""
        alone = hidden[:, None]

        def give(*_: Any, **__: Any) -> Any:
            return self._returned(alone)

        with self._instead_of_layers(give):
            tokens = self._tokens(len(hidden), 1)
            return self.model(input_ids=tokens, use_cache=False).logits[:, 0]

    @contextmanager
    def _instead_of_layers(self, forward: Callable[..., Any]) -> Iterator[None]:
        own = [layer.__dict__.get("forward") for layer in self.layers]
        for layer in self.layers:
            layer.forward = forward
        try:
            yield
        finally:
            for layer, before in zip(self.layers, own, strict=True):
                _restore(layer, before)


def _restore(layer: nn.Module, forward: Callable[..., Any] | None) -> None:
    if forward is None:
        del layer.forward
    else:  # one that was set on the instance before, as accelerate does
        layer.forward = forward
