"""Which layers to drop: blocks and the strategies that choose them (§3, §4.4 of Gromov et al.).

A block is [start, stop), 0-based and half-open: start = ℓ, stop = ℓ + n.
"""

from dataclasses import dataclass

import numpy as np

from lib.errors import UserError

STRATEGIES = ("similarity", "simple")


@dataclass(frozen=True, order=True)
class Block:
    """Layers start … stop−1 of a model; empty (0, 0) for the unpruned one."""

    start: int
    stop: int

    @property
    def n(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"{self.start}:{self.stop}"

    def check(self, n_layers: int) -> "Block":
        """Itself, if it lies within the model and leaves at least one layer."""
        if not 0 <= self.start <= self.stop <= n_layers:
            raise UserError(
                f"block {self}: layers of this model are 0 to {n_layers - 1}, as 0:{n_layers}"
            )
        if self.n >= n_layers:
            raise UserError(f"block {self}: drops all {n_layers} layers; at least one has to stay")
        return self

    def kept(self, n_layers: int) -> list[int]:
        return [i for i in range(n_layers) if not self.start <= i < self.stop]

    def in_words(self, n_layers: int) -> str:
        """For example "drop layers 21–28, keep 0–20 and 29–31"."""
        if self.n == 0:
            return f"drop nothing, keep 0–{n_layers - 1}"

        def span(start: int, stop: int) -> str:
            return str(start) if stop - start == 1 else f"{start}–{stop - 1}"

        parts = [(0, self.start), (self.stop, n_layers)]
        kept = " and ".join(span(a, b) for a, b in parts if b > a)
        noun = "layer" if self.n == 1 else "layers"
        return f"drop {noun} {span(self.start, self.stop)}, keep {kept}"


UNPRUNED = Block(0, 0)


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
