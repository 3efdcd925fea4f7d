"""One forward pass over windows of text: what each layer does to the residual stream, at the last
token of every window and some before it.

Means are streamed; the states themselves are kept of so many windows, however many are read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from lib.errors import UserError
from lib.evaluation.contributions import outputs, parts
from lib.models.anatomy import decoder
from lib.pruning.geometry import angular_distance, residual_stream

KEPT = 4096  # tokens at most
MEANS = ("angular", "cosine", "norm", "update", "attention", "ffn")

Means = dict[str, dict[str, list[float]]]  # by measure: `value` and `stderr` of each layer


@dataclass
class LayerStates:
    """means: `angular` (distance, as a share of π) and `cosine` between what enters a layer and
    what leaves it; `norm` of what enters it; `update`, `attention` and `ffn`: norms of what the
    layer, and its parts where they are told apart, add, over the norm of what enters. Errors are
    over windows. states [layers + 1, kept, width]; window [kept]: which each token is of."""

    means: Means
    states: torch.Tensor
    window: torch.Tensor
    n_windows: int


def positions(length: int, further: int) -> torch.Tensor:
    """The last token and so many before it, evenly spaced; all where there are fewer."""
    count = min(further + 1, length)
    return (torch.arange(1, count + 1) * length).div(count, rounding_mode="floor") - 1


@torch.inference_mode()
def read(
    model: PreTrainedModel,
    windows: torch.Tensor,
    batch: int,
    further: int,
    progress: Callable[[Iterator], Iterator] = lambda batches: batches,
) -> LayerStates:
    """Of token ids [windows, length]; the decoder runs without its head.

    Raises UserError for activations that are not finite or zero, naming layer and window."""
    where = positions(windows.shape[1], further)
    keep = min(len(windows), max(1, KEPT // len(where)))
    found = parts(model)
    modules = [module for layer in found or () for module in layer]
    stack, kept, rows = decoder(model), [], []

    def pick(hidden: torch.Tensor) -> torch.Tensor:
        return hidden[:, where]

    length = windows.shape[1]
    with residual_stream(model, pick) as stream, outputs(modules, length, where) as added:
        for first in progress(range(0, len(windows), batch)):
            stream.clear()
            stack(input_ids=windows[first : first + batch].to(stack.device), use_cache=False)
            states = torch.stack([one.float() for one in stream])
            _check(states, first)
            rows.append(_by_window(states, [added[module] for module in modules]).cpu())
            if first < keep:
                kept.append(states[:, : keep - first].cpu())
    means = torch.cat(rows, dim=-1)
    stderr = means.std(-1) / len(windows) ** 0.5
    named = {
        name: {"value": value.tolist(), "stderr": error.tolist()}
        for name, value, error in zip(MEANS, means.mean(-1), stderr, strict=False)
    }
    return LayerStates(
        named,
        torch.cat(kept, dim=1).flatten(1, 2),
        torch.arange(keep).repeat_interleave(len(where)),
        len(windows),
    )


def _by_window(states: torch.Tensor, added: list[torch.Tensor]) -> torch.Tensor:
    """[measures, layers, windows] of states [layers + 1, windows, tokens, width]: means over the
    tokens of each window. added: by layer what attention adds, and what the FFN does."""
    before, after = states[:-1], states[1:]
    norm = before.norm(dim=-1)
    cosine = torch.cosine_similarity(before.double(), after.double(), -1)
    found = [angular_distance(before, after), cosine, norm, (after - before).norm(dim=-1) / norm]
    for part in (added[0::2], added[1::2]) if added else ():
        found.append(torch.stack([one.float().norm(dim=-1) for one in part]) / norm)
    return torch.stack([one.double().mean(-1) for one in found])


def _check(states: torch.Tensor, first: int) -> None:
    good = (states.isfinite() & states.any(-1, keepdim=True)).all(-1).all(-1)
    if not good.all():
        layer, window = (~good).nonzero()[0].tolist()
        what = "zero" if states[layer, window].isfinite().all() else "not finite"
        where = f"entering layer {layer}" if layer < len(states) - 1 else "leaving the last layer"
        raise UserError(f"activations {where} in window {first + window} are {what}")
