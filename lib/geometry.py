"""Angular distances between the inputs of layers (eq. 7 of Gromov et al.).

    d(x⁽ˡ⁾, x⁽ˡ⁺ⁿ⁾) = (1/π) · arccos( x⁽ˡ⁾·x⁽ˡ⁺ⁿ⁾ / ‖x⁽ˡ⁾‖‖x⁽ˡ⁺ⁿ⁾‖ )

x⁽ˡ⁾ is the input to layer ℓ at the last token of a sequence, and x⁽ᴸ⁾ the output of the last layer
before the final norm. One forward pass of the decoder per batch gives every ℓ and n.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from lib.blocks import most_similar
from lib.errors import UserError
from lib.models import layers

METHOD = 2  # raise when the code that computes the values changes them


def pairs(n_layers: int) -> list[tuple[int, int]]:
    """(n, start) of every block: n = 1 … L−1, start = 0 … L−n."""
    return [(n, start) for n in range(1, n_layers) for start in range(n_layers - n + 1)]


def angular_distance(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(1/π)·angle between vectors along the last dimension, in [0, 1], in float64.

    2·atan2(‖û−v̂‖, ‖û+v̂‖) is the angle; unlike arccos of the cosine it keeps its precision near 0,
    where layer distances live."""
    u, v = u.double(), v.double()
    u = u / u.norm(dim=-1, keepdim=True)
    v = v / v.norm(dim=-1, keepdim=True)
    return 2 * torch.atan2((u - v).norm(dim=-1), (u + v).norm(dim=-1)) / torch.pi


@contextmanager
def residual_stream(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Within `with`, each forward fills the list with L+1 tensors [batch, width]: the inputs of all
    layers at the last position, then the last layer's output.

    Hooks rather than `hidden_states`, whose last entry is taken after the final norm."""
    stream: list[torch.Tensor] = []
    stack = layers(model)

    def before(_module: object, args: tuple, kwargs: dict) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        stream.append(hidden[:, -1])

    def after(_module: object, _args: tuple, output: torch.Tensor | tuple) -> None:
        stream.append((output[0] if isinstance(output, tuple) else output)[:, -1])

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in stack]
    handles.append(stack[-1].register_forward_hook(after))
    try:
        yield stream
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Distances:
    """Mean distances over sequences: a row of `table` per block (n, start, distance, stderr,
    n_sequences), and `support` of each ℓ*(n) as (n, start) → share of bootstrap resamples."""

    table: pd.DataFrame
    support: dict[tuple[int, int], float]


@torch.inference_mode()
def measure(
    model: PreTrainedModel,
    sequences: torch.Tensor,
    batch: int,
    bootstrap: int,
    seed: int,
    progress: Callable[[Iterator], Iterator] = lambda batches: batches,
) -> Distances:
    """Every d(ℓ, ℓ+n) over windows of equal length ([n_sequences, length] token ids).

    The decoder runs without its head, so no logits are made. Bootstrap resamples are streamed with
    Poisson(1) weights per sequence; support counts the resamples in which a start is the argmin.

    Raises UserError when an activation is not finite, naming sequence and layer."""
    n_layers = len(layers(model))
    index = pairs(n_layers)
    count = len(sequences)
    total = torch.zeros(len(index), dtype=torch.float64)
    squares = torch.zeros_like(total)
    resampled = torch.zeros(bootstrap, len(index), dtype=torch.float64)
    weights = np.random.default_rng(seed)
    decoder = model.get_decoder()

    with residual_stream(model) as stream:
        for first in progress(range(0, count, batch)):
            tokens = sequences[first : first + batch].to(model.device)
            stream.clear()
            decoder(input_ids=tokens, use_cache=False)
            states = torch.stack([state.cpu() for state in stream])  # [L+1, batch, width]
            _check_finite(states, first)
            distances = torch.cat(  # in the order of `pairs`: [blocks, batch], turned
                [angular_distance(states[:-n], states[n:]) for n in range(1, n_layers)]
            ).T
            total += distances.sum(0)
            squares += (distances**2).sum(0)
            poisson = weights.poisson(1.0, size=(len(tokens), bootstrap))  # in order of sequences
            resampled += torch.from_numpy(poisson).double().T @ distances

    mean = total / count
    variance = (squares - count * mean**2).clamp_min(0) / (count - 1)
    table = pd.DataFrame(index, columns=["n", "start"])
    table["distance"] = mean.numpy()
    table["stderr"] = (variance / count).sqrt().numpy()
    table["n_sequences"] = count
    return Distances(table, _support(table, resampled.numpy()))


def optimal_blocks(distances: Distances) -> pd.DataFrame:
    """ℓ*(n) for n = 1 … L−1: n, start, stop, distance, support."""
    rows = []
    for n, group in distances.table.groupby("n"):
        start = most_similar(group["distance"].to_numpy())
        rows.append(
            {
                "n": n,
                "start": start,
                "stop": start + n,
                "distance": group["distance"].iloc[start],
                "support": distances.support.get((n, start), 0.0),
            }
        )
    return pd.DataFrame(rows)


def _support(table: pd.DataFrame, resampled: np.ndarray) -> dict[tuple[int, int], float]:
    support: dict[tuple[int, int], float] = {}
    for n, group in table.groupby("n"):
        columns = resampled[:, group.index]
        deepest_first = columns[:, ::-1].argmin(axis=1)
        chosen, counts = np.unique(len(group) - 1 - deepest_first, return_counts=True)
        for start, times in zip(chosen, counts, strict=True):
            support[int(n), int(start)] = float(times / len(resampled))
    return support


def _check_finite(states: torch.Tensor, first: int) -> None:
    bad = ~torch.isfinite(states).all(-1)  # [L+1, batch]
    if bad.any():
        layer, sequence = bad.nonzero()[0].tolist()
        raise UserError(
            f"activations entering layer {layer} are not finite at sequence {first + sequence}; "
            "try dtype: float32"
        )
