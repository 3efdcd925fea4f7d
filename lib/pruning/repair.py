"""Repairing a cut without training. Without the block [s, t) the residual stream x⁽ˢ⁾ enters layer
t in place of x⁽ᵗ⁾. A repair brings the two together again, by sums over calibration text in one
forward pass, and changes weights that are there already: it adds none, and no code.

    report = repair(model, span(21, 29), windows, batch=8, how=load("linear-map"))

Each repair is one file in lib/pruning/repairs/, a class `Repair` derived from the one here. It has
no settings: a study names it.
"""

import copy
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from lib import open_sets
from lib.errors import UserError
from lib.models.anatomy import decoder, layers
from lib.models.residual import hooked, stream
from lib.pruning.dropped import Dropped
from lib.pruning.surgery import drop, slice_config


@dataclass(frozen=True)
class Sums:
    """Over all tokens of the calibration text, in float64. They take the same room however many
    tokens there are.

    entering: Σ ‖x⁽ˢ⁾‖²; leaving: Σ ‖x⁽ᵗ⁾‖²; inner: Σ ⟨x⁽ˢ⁾, x⁽ᵗ⁾⟩. Of the output m of the map
    that is to change, where there is one: gram Σ m mᵀ and cross Σ m (x⁽ᵗ⁾ − x⁽ˢ⁾)ᵀ, both
    [width, width]."""

    tokens: int
    entering: float
    leaving: float
    inner: float
    gram: torch.Tensor | None
    cross: torch.Tensor | None

    @property
    def gap(self) -> float:
        """Σ ‖x⁽ˢ⁾ − x⁽ᵗ⁾‖², what is to be repaired."""
        return self.entering - 2 * self.inner + self.leaving

    def __add__(self, other: "Sums") -> "Sums":
        def added(key: str) -> Any:
            one, two = getattr(self, key), getattr(other, key)
            return None if one is None else one + two

        return Sums(**{key.name: added(key.name) for key in fields(self)})


Solved = TypeVar("Solved")


def fitted(
    halves: tuple[Sums, Sums],
    solve: Callable[[Sums], Solved],
    left: Callable[[Sums, Solved], float],
) -> tuple[Solved, dict[str, Any]]:
    """What all of the calibration text says, and of the squared distance at the cut, as a share of
    Σ ‖x⁽ᵗ⁾‖²: `gap`, before; `left`, after, on the text that it was fitted on; `left_elsewhere`, on
    text that it was not: what each half says is tried on the other. solve: a repair by sums; left:
    what it leaves of the gap by others."""
    one, two = halves
    whole = one + two
    found = solve(whole)
    elsewhere = left(one, solve(two)) + left(two, solve(one))
    shares = {"gap": whole.gap, "left": left(whole, found), "left_elsewhere": elsewhere}
    report = {name: value / whole.leaving for name, value in shares.items()}
    return found, {"tokens": whole.tokens} | report


class Repair(ABC):
    """METHOD: raised when the code that computes the weights changes them."""

    METHOD = 1

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def fold(
        self, model: PreTrainedModel, block: Dropped, windows: torch.Tensor, batch: int
    ) -> dict[str, Any]:
        """Change weights of the whole model so that it is repaired once the block is dropped;
        returns what was found, as plain values: the report of `fitted`, and more.

        windows: token ids [n_sequences, length], two or more, of which the model reads `batch` at
        once. Raises UserError, the model untouched, where the model has no weights that it could
        change so."""


def repair(
    model: PreTrainedModel,
    dropped: Collection[int],
    windows: torch.Tensor,
    batch: int,
    how: Repair,
) -> dict[str, Any]:
    """Drop a block of layers, repaired, in place; returns what was found (`Repair.fold`).

    Raises UserError, the model untouched, for layers that cannot be dropped or are no block, and
    where the repair does not fit the model."""
    block = Dropped(dropped).check(len(layers(model)))
    if not block or not block.contiguous:
        given = str(block) if block else "none"
        raise UserError(f"repair {how.name}: is of one block of layers, as 21:29, not of {given}")
    # Proven before anything long, and before any weight changes.
    slice_config(copy.deepcopy(model.config), block.kept(len(layers(model))))
    report = how.fold(model, block, windows, batch)
    drop(model, block)
    return report


@torch.inference_mode()
def measure(
    model: PreTrainedModel,
    block: Dropped,
    windows: torch.Tensor,
    batch: int,
    changed: nn.Module | None = None,
) -> tuple[Sums, Sums]:
    """The sums of a cut over every other window of token ids [n_sequences, length], and over the
    rest, each token counting alike. changed: the map whose output m is looked at, too. The decoder
    runs without its head.

    Raises UserError where an activation is not finite, or all are zero."""
    states: dict[str, torch.Tensor] = {}

    def before(_module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        states["entering"] = args[0] if args else kwargs["hidden_states"]

    def after(_module: nn.Module, _given: tuple, output: torch.Tensor | tuple) -> None:
        states["leaving"] = stream(output)

    def mapped(_module: nn.Module, _given: tuple, output: torch.Tensor) -> None:
        states["m"] = output

    stack, whole = layers(model), decoder(model)
    hooks = [(stack[block.stop - 1], after)] + ([(changed, mapped)] if changed else [])
    handle = stack[block.start].register_forward_pre_hook(before, with_kwargs=True)

    def read(rows: torch.Tensor) -> Sums:
        whole(rows.to(model.device), use_cache=False)
        return _sums({name: _in_64_bit(state) for name, state in states.items()})

    try:
        with hooked(*hooks):
            halves = [
                reduce(operator.add, map(read, half.split(batch)))
                for half in (windows[::2], windows[1::2])
            ]
    finally:
        handle.remove()
    for one in halves:
        known = math.isfinite(one.entering + one.leaving + one.inner)
        if not (known and one.entering and one.leaving):
            raise UserError(
                f"activations around layers {block} are zero or not finite on the calibration "
                "text; try dtype: float32"
            )
    return halves[0], halves[1]


def _sums(states: dict[str, torch.Tensor]) -> Sums:
    """Of some tokens; each state [tokens, width]."""
    x, y, m = states["entering"], states["leaving"], states.get("m")
    products = (float((one * two).sum()) for one, two in ((x, x), (y, y), (x, y)))
    maps = (None, None) if m is None else (m.T @ m, m.T @ (y - x))
    return Sums(len(x), *products, *maps)


def _in_64_bit(state: torch.Tensor) -> torch.Tensor:
    """[tokens, width]; of devices other than GPUs of CUDA some have no float64."""
    if state.device.type != "cuda":
        state = state.cpu()
    return state.double().flatten(0, -2)


def load(name: str) -> Repair:
    """A repair by its name. Raises UserError for one that is not known."""
    return open_sets.module("repair", name).Repair(name)
