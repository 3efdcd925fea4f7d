"""Which layers to drop: any set of them, 0-based.

A block [start, stop), half-open with start = ℓ and stop = ℓ + n, is the contiguous kind (§3 of
Gromov et al.).
"""

import re
from collections.abc import Collection, Iterable
from itertools import pairwise

import numpy as np

from lib.errors import UserError


class Dropped(tuple[int, ...]):
    """A set of layers to drop, 0-based, sorted; empty for the unpruned model."""

    def __new__(cls, layers: Iterable[int] = ()) -> "Dropped":
        return super().__new__(cls, sorted(layers))

    @property
    def n(self) -> int:
        return len(self)

    @property
    def contiguous(self) -> bool:
        """Whether it is a block [start, stop), or empty."""
        return self == tuple(range(self[0], self[-1] + 1)) if self else True

    @property
    def start(self) -> int | None:
        """Of a block, ℓ; 0 of the empty set; None where layers are scattered."""
        return (self[0] if self else 0) if self.contiguous else None

    @property
    def stop(self) -> int | None:
        """Of a block, ℓ + n; 0 of the empty set; None where layers are scattered."""
        return (self[-1] + 1 if self else 0) if self.contiguous else None

    def key(self) -> dict[str, list[int]]:
        """How it stands among the inputs of a record."""
        return {"block": [self.start, self.stop]} if self.contiguous else {"layers": list(self)}

    def __str__(self) -> str:
        """As `parse_layers` reads it: "21:29", "3,5:8"; "0:0" for the empty set."""
        if self.contiguous:
            return f"{self.start}:{self.stop}"
        runs = ranges(self)
        return ",".join(str(run[0]) if run.n == 1 else str(run) for run in runs)

    def __repr__(self) -> str:
        return f"Dropped({self})"

    def check(self, n_layers: int) -> "Dropped":
        """Itself, if a model of so many layers has all of them and keeps at least one.

        Raises UserError otherwise, and for a layer that is named twice."""
        for layer in self:
            if not 0 <= layer < n_layers:
                raise UserError(f"layer {layer}: layers of this model are 0 to {n_layers - 1}")
        for layer, following in pairwise(self):
            if layer == following:
                raise UserError(f"layer {layer}: named twice among those to drop; drops overlap")
        if len(self) == n_layers:
            raise UserError(f"drops all {n_layers} layers of this model; at least one has to stay")
        return self

    def kept(self, n_layers: int) -> list[int]:
        return kept_layers(self, n_layers)

    def in_words(self, n_layers: int) -> str:
        """For example "drop layers 21–28, keep 0–20 and 29–31"."""
        return in_words(self, n_layers)


UNPRUNED = Dropped()


def span(start: int, stop: int) -> Dropped:
    """The block [start, stop)."""
    return Dropped(range(start, stop))


def kept_layers(dropped: Collection[int], n_layers: int) -> list[int]:
    """The layers that stay, in order."""
    gone = set(dropped)
    return [layer for layer in range(n_layers) if layer not in gone]


def parse_layers(text: str, n_layers: int) -> Dropped:
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
    return Dropped(layers).check(n_layers)


def ranges(layers: Iterable[int]) -> list[Dropped]:
    """The runs of consecutive layers, in order: 3, 5, 6, 7 as [3, 4) and [5, 8)."""
    found: list[list[int]] = []
    for layer in sorted(layers):
        if found and found[-1][-1] + 1 == layer:
            found[-1].append(layer)
        else:
            found.append([layer])
    return [Dropped(run) for run in found]


def in_words(dropped: Collection[int], n_layers: int) -> str:
    """For example "drop layers 3 and 5–7, keep 0–2, 4 and 8–31"."""

    def listed(layers: Collection[int]) -> str:
        spans = [str(run[0]) if run.n == 1 else f"{run[0]}–{run[-1]}" for run in ranges(layers)]
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


def simple(n: int, n_layers: int) -> Dropped:
    """The deepest n layers except the last one: [L−1−n, L−1) (§4.4).

    The paper's "(L−n) to (L−1), inclusive" leaves out only the last layer if layers are counted
    from 1, against its own equation 2, which counts from 0."""
    check_n(n, n_layers)
    return span(n_layers - 1 - n, n_layers - 1)


def most_similar(distances: np.ndarray) -> int:
    """ℓ*(n): the start with the smallest distance (eq. 6); ties go to the deepest start."""
    return len(distances) - 1 - int(np.argmin(distances[::-1]))


def layers_to_drop(fraction: float, n_layers: int) -> int:
    """n for a fraction n / L: the nearest whole number, halves up, and at most L − 1."""
    return min(int(fraction * n_layers + 0.5), n_layers - 1)
