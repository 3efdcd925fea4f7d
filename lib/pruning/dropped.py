"""Which layers to drop: blocks and the strategies that choose them (§3, §4.4 of Gromov et al.).

A block is [start, stop), 0-based and half-open: start = ℓ, stop = ℓ + n. Surgery drops any set of
layers; a block is the contiguous kind.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lib.errors import UserError

STRATEGIES = ("similarity", "simple")


@dataclass(frozen=True, order=True)
class Block:
    """Layers start … stop−1 of a model; empty (0, 0) for the unpruned one.

    A collection of layer numbers, so that it can be given wherever any set of layers can."""

    start: int
    stop: int

    @property
    def n(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))

    def __len__(self) -> int:
        return max(0, self.n)

    def __contains__(self, layer: object) -> bool:
        return layer in range(self.start, self.stop)

    def __str__(self) -> str:
        return f"{self.start}:{self.stop}"

    def check(self, n_layers: int) -> "Block":
        """Itself, if it lies within the model and leaves at least one layer."""
        if not 0 <= self.start <= self.stop <= n_layers:
            raise UserError(
                f"block {self}: layers of this model are 0 to {n_layers - 1}, as 0:{n_layers}"
            )
        if self.n == 0 and self.start:
            raise UserError(f"block {self}: holds no layer; the whole model is 0:0")
        if self.n >= n_layers:
            raise UserError(f"block {self}: drops all {n_layers} layers; at least one has to stay")
        return self

    def kept(self, n_layers: int) -> list[int]:
        return kept_layers(self, n_layers)

    def in_words(self, n_layers: int) -> str:
        """For example "drop layers 21–28, keep 0–20 and 29–31"."""
        return in_words(self, n_layers)


UNPRUNED = Block(0, 0)


def check_dropped(dropped: Collection[int], n_layers: int) -> tuple[int, ...]:
    """The layers to drop, sorted; none of them is the unpruned model.

    Raises UserError for a layer the model does not have, one that is named twice, and all."""
    if isinstance(dropped, Block):
        dropped.check(n_layers)
    layers = sorted(dropped)
    for layer in layers:
        if not 0 <= layer < n_layers:
            raise UserError(f"layer {layer}: layers of this model are 0 to {n_layers - 1}")
    for layer, following in pairwise(layers):
        if layer == following:
            raise UserError(f"layer {layer}: named twice among those to drop; drops overlap")
    if len(layers) == n_layers:
        raise UserError(f"drops all {n_layers} layers of this model; at least one has to stay")
    return tuple(layers)


def kept_layers(dropped: Collection[int], n_layers: int) -> list[int]:
    """The layers that stay, in order."""
    gone = set(dropped)
    return [layer for layer in range(n_layers) if layer not in gone]


def parse_layers(text: str, n_layers: int) -> tuple[int, ...]:
    """Layers named in text, sorted: single ones and half-open ranges, as "21:29" or "3,5:8".

    Raises UserError for anything else, an empty or overlapping range, layers that the model does
    not have, and all of its layers."""
    layers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,99})\s*(?::\s*(\d{1,99})\s*)?", part, re.ASCII)
        if not found:
            raise UserError(
                f"layers to drop '{text}': '{part.strip()}' is neither a layer nor a range; "
                "write 21:29 for layers 21–28, or 3,5:8"
            )
        start = int(found[1])
        stop = int(found[2]) if found[2] else start + 1
        if stop <= start:
            raise UserError(f"layers to drop '{text}': the range {start}:{stop} holds no layer")
        if stop > n_layers:
            raise UserError(
                f"layers to drop '{text}': layers of this model are 0 to {n_layers - 1}, "
                f"as 0:{n_layers}"
            )
        layers += range(start, stop)
    return check_dropped(layers, n_layers)


def ranges(layers: Iterable[int]) -> list[Block]:
    """The runs of consecutive layers, in order: 3, 5, 6, 7 as [3, 4) and [5, 8)."""
    found: list[Block] = []
    for layer in sorted(layers):
        if found and found[-1].stop == layer:
            found[-1] = Block(found[-1].start, layer + 1)
        else:
            found.append(Block(layer, layer + 1))
    return found


def in_words(dropped: Collection[int], n_layers: int) -> str:
    """For example "drop layers 3 and 5–7, keep 0–2, 4 and 8–31"."""

    def listed(layers: Collection[int]) -> str:
        spans = [
            str(run.start) if run.n == 1 else f"{run.start}–{run.stop - 1}"
            for run in ranges(layers)
        ]
        return " and ".join(filter(None, [", ".join(spans[:-1]), spans[-1]]))

    kept = listed(kept_layers(dropped, n_layers))
    if not dropped:
        return f"drop nothing, keep {kept}"
    noun = "layer" if len(dropped) == 1 else "layers"
    return f"drop {noun} {listed(dropped)}, keep {kept}"


def check_n(n: int, n_layers: int, least: int = 1) -> int:
    if not least <= n <= n_layers - 1:
        raise UserError(f"n = {n} layers to drop: allowed are {least} to {n_layers - 1}")
    return n


def simple(n: int, n_layers: int) -> Block:
    """The deepest n layers except the last one: [L−1−n, L−1) (§4.4).

    The paper's "(L−n) to (L−1), inclusive" leaves out only the last layer if layers are counted
    from 1, against its own equation 2, which counts from 0."""
    check_n(n, n_layers)
    return Block(n_layers - 1 - n, n_layers - 1)


def most_similar(distances: np.ndarray) -> int:
    """ℓ*(n): the start with the smallest distance (eq. 6); ties go to the deepest start."""
    return len(distances) - 1 - int(np.argmin(distances[::-1]))


def layers_to_drop(fraction: float, n_layers: int) -> int:
    """n for a fraction n / L: the nearest whole number, halves up, and at most L − 1."""
    return min(int(fraction * n_layers + 0.5), n_layers - 1)
