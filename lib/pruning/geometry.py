"""Angular distances between the inputs of layers (eq. 7 of Gromov et al.).

    d(x⁽ˡ⁾, x⁽ˡ⁺ⁿ⁾) = (1/π) · arccos( x⁽ˡ⁾·x⁽ˡ⁺ⁿ⁾ / ‖x⁽ˡ⁾‖‖x⁽ˡ⁺ⁿ⁾‖ )

x⁽ˡ⁾ is the input to layer ℓ at the last token of a sequence, and x⁽ᴸ⁾ the output of the last layer
before the final norm; the last distance of every row is also taken after that norm. One forward
pass of the decoder per batch gives every ℓ and n.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from lib.errors import UserError
from lib.models.anatomy import decoder, layers, longest_alike
from lib.pruning.dropped import most_similar

TOKENS = 256  # whose distances are taken at once
METHOD = 3  # raise when the code that computes the values changes them


def pairs(n_layers: int) -> list[tuple[int, int]]:
    """(n, start) of every block: n = 1 … L−1, start = 0 … L−n."""
    return [(n, start) for n in range(1, n_layers) for start in range(n_layers - n + 1)]


def angular_distance(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(1/π)·angle between vectors along the last dimension, in [0, 1], in float64.

    2·atan2(‖û−v̂‖, ‖û+v̂‖) is the angle; unlike arccos of the cosine it keeps its precision near 0,
    where layer distances live."""
    return _between_units(_unit(u), _unit(v))


def _unit(x: torch.Tensor) -> torch.Tensor:
    x = x.double()
    return x / x.norm(dim=-1, keepdim=True)


def _between_units(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return 2 * torch.atan2((u - v).norm(dim=-1), (u + v).norm(dim=-1)) / torch.pi


@contextmanager
def residual_stream(
    model: PreTrainedModel, pick: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[list[torch.Tensor]]:
    """Within `with`, each forward fills the list with L+1 tensors: what `pick` takes of the inputs
    [batch, length, width] of all layers and of the last layer's output.

    Hooks rather than `hidden_states`, whose last entry is taken after the final norm and which
    holds every token of every layer."""
    stream: list[torch.Tensor] = []
    stack = layers(model)

    def before(_module: object, args: tuple, kwargs: dict) -> None:
        stream.append(pick(args[0] if args else kwargs["hidden_states"]))

    def after(_module: object, _args: tuple, output: torch.Tensor | tuple) -> None:
        stream.append(pick(output[0] if isinstance(output, tuple) else output))

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
    n_sequences); `after_norm`: the same columns for blocks that end with the last layer, its output
    taken after the final norm; and `support` of each ℓ*(n) as (n, start) → share of bootstrap
    resamples."""

    table: pd.DataFrame
    after_norm: pd.DataFrame
    support: dict[tuple[int, int], float]


@torch.inference_mode()
def measure(
    model: PreTrainedModel,
    sequences: torch.Tensor,
    batch: int,
    bootstrap: int,
    seed: int,
    mask: torch.Tensor | None = None,
    tokens: Literal["last", "all"] = "last",
    progress: Callable[[Iterator], Iterator] = lambda batches: batches,
) -> Distances:
    """Every d(ℓ, ℓ+n) over sequences of token ids [n_sequences, length].

    mask [n_sequences, length]: 1 where a token is text and 0 where it is padding, on either side;
    None: all of it is text. tokens: the distance at a sequence's last token of text, or the mean
    of the distances at each. The decoder runs without its head, so no logits are made. Bootstrap
    resamples are streamed with Poisson(1) weights per sequence; support counts the resamples in
    which a start is the argmin.

    Raises UserError when an activation is zero or not finite, naming sequence and layer, when a
    sequence has no text, and for sequences of several lengths where the longest turns the positions
    of those beside it."""
    n_layers = len(layers(model))
    index = pairs(n_layers)
    count = len(sequences)
    if mask is not None:
        _check_lengths(model, mask)
    total = squares = torch.zeros((), dtype=torch.float64)
    resampled = torch.zeros(bootstrap, len(index), dtype=torch.float64)
    weights = np.random.default_rng(seed)
    stack = decoder(model)

    where: tuple[torch.Tensor, ...] = ()  # row and position of each token whose state is kept
    with residual_stream(model, lambda hidden: hidden[where]) as stream:
        for first in progress(range(0, count, batch)):
            rows = slice(first, first + batch)
            text = torch.ones_like(sequences[rows]) if mask is None else mask[rows]
            where = _chosen(text, tokens)
            stream.clear()
            output = stack(**_inputs(stack, sequences[rows], text), use_cache=False)
            device = stream[0].device if stream[0].device.type == "cuda" else torch.device("cpu")
            states = torch.stack([state.to(device) for state in stream])  # [L+1, tokens, width]
            normed = output.last_hidden_state[where].to(device)
            _check_finite(states, normed, where[0] + first)
            distances = _mean_by_row(states, normed, where[0], len(text))
            total = total + distances.sum(0)
            squares = squares + (distances**2).sum(0)
            poisson = weights.poisson(
                1.0, size=(len(distances), bootstrap)
            )  # in order of sequences
            resampled += torch.from_numpy(poisson).double().T @ distances[:, : len(index)]

    mean = total / count
    variance = (squares - count * mean**2).clamp_min(0) / (count - 1)
    stderr = (variance / count).sqrt()
    split = len(index)
    # None where the decoder projects its output to another width, as in OPT-350m.
    last = [(n, n_layers - n) for n in range(1, n_layers)] if len(mean) > split else []
    table = _table(index, mean[:split], stderr[:split], count)
    after_norm = _table(last, mean[split:], stderr[split:], count)
    return Distances(table, after_norm, _support(table, resampled.numpy()))


def _inputs(
    stack: PreTrainedModel, tokens: torch.Tensor, text: torch.Tensor
) -> dict[str, torch.Tensor]:
    inputs = {"input_ids": tokens}
    if not text.all():
        inputs["attention_mask"] = text
        if "position_ids" in inspect.signature(stack.forward).parameters:
            # Positions count text only, so that padding on the left moves nothing.
            inputs["position_ids"] = (text.cumsum(1) - 1).clamp_min(0)
    return {key: value.to(stack.device) for key, value in inputs.items()}


def _chosen(text: torch.Tensor, tokens: Literal["last", "all"]) -> tuple[torch.Tensor, ...]:
    """Rows and positions, in order, of the tokens whose distances count; text [batch, length]."""
    if tokens == "all":
        return text.nonzero(as_tuple=True)
    position = torch.arange(1, text.shape[1] + 1)
    return torch.arange(len(text)), (text * position).argmax(1)


def _all_pairs(states: torch.Tensor, normed: torch.Tensor) -> torch.Tensor:
    """[tokens, blocks + L−1] of states [L+1, tokens, width] and [tokens, width]: all blocks in the
    order of `pairs`, then those of n = 1 … L−1 that end after the final norm, which are left out
    where what follows the norm has another width."""
    units, n_layers = _unit(states), len(states) - 1
    found = [_between_units(units[:-n], units[n:]) for n in range(1, n_layers)]
    if normed.shape[-1] == states.shape[-1]:
        found.append(_between_units(units[1:-1].flip(0), _unit(normed)[None]))
    return torch.cat(found).T


def _mean_by_row(
    states: torch.Tensor, normed: torch.Tensor, row: torch.Tensor, count: int
) -> torch.Tensor:
    """[count, …] means of `_all_pairs` over the tokens of each row; row [tokens].

    Some tokens at a time: their unit vectors in float64, and differences of these, take several
    times the room of the states."""
    sums: torch.Tensor | None = None
    for mine in torch.arange(len(row)).split(TOKENS):
        distances = _all_pairs(states[:, mine], normed[mine]).cpu()
        if sums is None:
            sums = torch.zeros(count, distances.shape[1], dtype=distances.dtype)
        sums.index_add_(0, row[mine], distances)
    return sums / row.bincount(minlength=count)[:, None]


def _table(
    index: list[tuple[int, int]], mean: torch.Tensor, stderr: torch.Tensor, count: int
) -> pd.DataFrame:
    table = pd.DataFrame(index, columns=["n", "start"])
    return table.assign(distance=mean.numpy(), stderr=stderr.numpy(), n_sequences=count)


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


def _check_finite(states: torch.Tensor, normed: torch.Tensor, sequence: torch.Tensor) -> None:
    """states [L+1, tokens, width]; after the final norm [tokens, width]; sequence [tokens]: which
    sequence each token belongs to."""

    def good(state: torch.Tensor) -> torch.Tensor:
        return state.isfinite().all(-1) & state.any(-1)

    if good(states).all() and good(normed).all():
        return
    for layer, state in enumerate([*states, normed]):
        if good(state).all():
            continue
        where = f"entering layer {layer}"
        if layer >= len(states) - 1:
            where = "leaving the last layer" if layer == len(states) - 1 else "after the final norm"
        token = int((~good(state)).nonzero()[0])
        what = "zero" if state[token].isfinite().all() else "not finite; try dtype: float32"
        raise UserError(f"activations {where} at sequence {int(sequence[token])} are {what}")


def _check_lengths(model: PreTrainedModel, mask: torch.Tensor) -> None:
    lengths = mask.sum(1)
    if not lengths.all():
        raise UserError(f"sequence {int((lengths == 0).nonzero()[0])} holds no token of text")
    longest = longest_alike(model.config)
    if longest is not None and lengths.max() > longest and lengths.min() < lengths.max():
        raise UserError(
            f"sequences of {int(lengths.min())} to {int(lengths.max())} tokens: beyond {longest} "
            "this model turns positions by the longest of a batch; use one length"
        )
