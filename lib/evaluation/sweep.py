"""Many prunings in one pass over the data (§4.1 of Gromov et al., without healing).

A pruned model runs the whole model's layers up to the block, and then those after it. So all
prunings walk down one tree: layers 0 … s−1 are run once for every block that starts at s or later,
and each block [s, t) branches off there to run layers t … L−1 alone. Dropping the deepest n layers
but the last costs one layer per n; all n together cost about two passes instead of L/2.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from tqdm import tqdm
from transformers import PretrainedConfig, PreTrainedModel

from lib.errors import UserError
from lib.evaluation.batches import SHORTEST_PREFIX, Batch, Row, make_batches
from lib.evaluation.replay import Entrance, Replay
from lib.evaluation.scoring import Head, Scores, ordinary
from lib.evidence.journal import Journal, row_key
from lib.models.anatomy import layers, longest_alike
from lib.models.vocabulary import check_ids
from lib.pruning.dropped import Dropped, in_words, kept_layers
from lib.pruning.geometry import residual_stream
from lib.pruning.surgery import pruned

Kept = tuple[int, ...]  # the layers of a pruned model, by their numbers in the whole one

# Nats by which a row's log-likelihood may differ between replayed and ordinary passes.
SAME, SAME_16_BIT = 1e-3, 0.5
ROOM = 2 << 30  # bytes of states that are kept between sweeps
TOGETHER = 8  # batches that are scored, and recorded, together where prunings run one by one


class State(NamedTuple):
    """A batch between two layers: the shared prefixes [groups, length, width], if there are any,
    and the rest of each input [inputs, length, width]."""

    prefix: torch.Tensor | None
    rest: torch.Tensor


class Walk:
    """One batch on its way through the layers."""

    def __init__(self, replay: Replay, batch: Batch, pad: int) -> None:
        self.replay = replay
        device = replay.model.device
        rests, text = (tensor.to(device) for tensor in batch.rests(pad))
        self.owners = batch.owners().to(device)
        self.prefix: Entrance | None = None
        if batch.groups[0].prefix == 0:
            self.rest = replay.enter(rests)
            return
        tokens, mask = (tensor.to(device) for tensor in batch.prefixes(pad))
        padded = bool((mask == 0).any())
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        self.prefix = replay.enter(tokens, mask if padded else None, positions, past=0)
        seen = torch.cat([mask[self.owners], torch.ones_like(rests)], dim=1) if padded else None
        # Padding stays at its row's last position: there may be none beyond it.
        positions = mask.sum(1)[self.owners, None] + text.cumsum(1) - 1
        self.rest = replay.enter(rests, seen, positions, past=mask.shape[1])

    def start(self) -> State:
        return State(self.prefix.hidden if self.prefix else None, self.rest.hidden)

    def step(self, i: int, state: State) -> State:
        """The batch after layer i."""
        if self.prefix is None:
            return State(None, self.replay.step(i, state.rest, self.rest)[0])
        prefix, cache = self.replay.step(i, state.prefix, self.prefix)
        rest, _ = self.replay.step(i, state.rest, self.rest, _rows_of(cache, self.owners))
        return State(prefix, rest)


def _rows_of(cache: object, owner: torch.Tensor) -> object:
    """The cache of one layer with its rows picked, and repeated, by number."""
    picked = copy.copy(cache)
    picked.batch_select_indices(owner.to(picked.keys.device))
    return picked


class Seen:
    """The states of one sweep, kept for the next one over the same rows, in which a search has
    dropped one layer more: all before that layer, and all behind it that the next sets share, are
    not run again. room: bytes that they may take; where they would not fit, none is kept."""

    def __init__(self, room: int = ROOM) -> None:
        self.room, self.taken = room, 0
        self.states: dict[int, dict[Kept, State]] = defaultdict(dict)  # by batch

    def step(self, batch: int, path: Kept, make: Callable[[], State]) -> State:
        """The state of a batch behind these layers, as it was or made now."""
        if path in self.states[batch]:
            return self.states[batch][path]
        state = make()
        self.taken += sum(one.nbytes for one in state if one is not None)
        if self.taken <= self.room:
            self.states[batch][path] = state
        else:
            self.states.clear()
        return state

    def forget(self, prunings: Sequence[Kept]) -> None:
        """What is no beginning of these."""
        alive = {kept[:depth] for kept in prunings for depth in range(1, len(kept) + 1)}
        if self.taken <= self.room:
            self.taken = 0
            for batch, states in self.states.items():
                left = {path: state for path, state in states.items() if path in alive}
                self.states[batch] = left
                found = (one for state in left.values() for one in state if one is not None)
                self.taken += sum(one.nbytes for one in found)


def endings(
    walk: Walk, prunings: Sequence[Kept], seen: Seen | None = None, batch: int = 0
) -> Iterator[tuple[int, State]]:
    """(number of the pruning, state after its last layer), each layer run once for all prunings
    whose kept layers are the same up to it; not at all where its state is `seen`, of this batch.

    Branches are run to their end before the rest goes on, so that few states are alive at once."""

    def step(state: State, path: Kept) -> State:
        if seen is None:
            return walk.step(path[-1], state)
        return seen.step(batch, path, lambda: walk.step(path[-1], state))

    def descend(state: State, depth: int, numbers: list[int]) -> Iterator[tuple[int, State]]:
        while True:
            following: dict[int, list[int]] = defaultdict(list)
            for number in numbers:
                if len(prunings[number]) == depth:
                    yield number, state
                else:
                    following[prunings[number][depth]].append(number)
            if not following:
                return
            *branches, trunk = sorted(following, key=lambda layer: len(following[layer]))
            path = prunings[numbers[0]][:depth]
            for layer in branches:
                yield from descend(step(state, (*path, layer)), depth + 1, following[layer])
            state, numbers, depth = step(state, (*path, trunk)), following[trunk], depth + 1

    yield from descend(walk.start(), 0, list(range(len(prunings))))


def layer_passes(*sweeps: Iterable[Sequence[int]]) -> int:
    """How many layers `endings` runs: the nodes of the tree of kept layers. Of several sweeps, each
    of which has seen the one before: those that are new."""
    found, before = 0, set()
    for prunings in sweeps:
        nodes = {tuple(kept[:depth]) for kept in prunings for depth in range(1, len(kept) + 1)}
        found, before = found + len(nodes - before), nodes
    return found


@torch.inference_mode()
def log_likelihoods(
    model: PreTrainedModel,
    blocks: Sequence[Collection[int]],
    rows: Sequence[Row],
    size: int,
    pad: int,
    name: str,
    journal: Journal | None = None,
    seen: Seen | None = None,
) -> Scores:
    """Score every row under the model without each of the blocks (or sets of layers), `size` rows
    at a time.

    pad: a token to fill batches up with; name: what the progress bar calls this; journal: where
    rows are kept as they are scored, and found again after a kill. One that takes a share of the
    batches leaves the scores of all other rows NaN. seen: the states of an earlier call with the
    same model, rows and size; those of this one are left there for the next.
    An architecture whose layers cannot be replayed, or do not give then what its ordinary forward
    passes give, is run pruning by pruning.

    Raises UserError for a block that the model does not have, for a token that it has no embedding
    of, and where a score is not a number, naming the layer and the row."""
    blocks = [Dropped(block).check(len(layers(model))) for block in blocks]
    check_ids((row.tokens for row in rows), model.config, name)
    way = _trusted_way(model, pad)
    keys = [row_key(row.tokens, row.start) for row in rows] if journal else []
    known = {i: journal.known[key] for i, key in enumerate(keys) if key in journal.known}
    # Made of all rows, also where some are known: what a row is scored beside moves its last digit.
    batches: Sequence[Batch | Rows] = _together(len(rows), size)
    if way is not None:
        batches = make_batches(rows, size, way == "shared", longest_alike(model.config))
    if journal:
        batches = [one for one in journal.share_of(batches) if not known.keys() >= {*one.rows}]
    found = Scores.empty(len(blocks), len(rows))
    scored = {i for one in batches for i in one.rows}
    for i in {*range(len(rows))} - scored:
        found.fill(i, known.get(i, [(math.nan, False)] * len(blocks)))
    shown = f"{name} under {len(blocks)} prunings" if len(blocks) > 1 else name
    shown += ", one by one" if way is None else ""
    initial = len(known.keys() - scored)  # what is known of a batch in part is scored again
    total = initial + len(scored)
    with tqdm(total=total, initial=initial, desc=shown, leave=False, delay=1) as bar:

        def keep(numbers: Sequence[int]) -> None:
            bad = found.log_likelihood[:, numbers].isnan()
            if bad.any():
                block, i = bad.nonzero()[0].tolist()
                raise _not_finite(model, blocks[block], rows[numbers[i]], name)
            if journal:
                journal.add((keys[i], found.of_row(i)) for i in numbers)
            bar.update(len(numbers))

        if way is None:
            _one_by_one(model, blocks, rows, batches, size, pad, found, keep)
        else:
            _replayed(Replay(model), blocks, rows, batches, pad, found, keep, seen)
    return found


class Rows(NamedTuple):
    """Numbers of rows that are scored, and kept, together."""

    rows: range


def _together(count: int, size: int) -> list[Rows]:
    """Some batches' rows at a time."""
    step = TOGETHER * size
    return [Rows(range(first, min(first + step, count))) for first in range(0, count, step)]


def _one_by_one(
    model: PreTrainedModel,
    blocks: Sequence[Collection[int]],
    rows: Sequence[Row],
    together: Sequence[Rows],
    size: int,
    pad: int,
    found: Scores,
    done: Callable[[Sequence[int]], object],
) -> None:
    """Ordinary passes of each pruned model over some rows, and then over the next."""
    for (numbers,) in together:
        mine = slice(numbers.start, numbers.stop)
        for number, block in enumerate(blocks):
            with pruned(model, block):
                one = ordinary(model, rows[mine], size, pad)
            found.log_likelihood[number, mine] = one.log_likelihood
            found.greedy[number, mine] = one.greedy
        done(numbers)


def _replayed(
    replay: Replay,
    blocks: Sequence[Collection[int]],
    rows: Sequence[Row],
    batches: Sequence[Batch],
    pad: int,
    found: Scores,
    done: Callable[[Sequence[int]], object] = lambda numbers: None,
    seen: Seen | None = None,
) -> None:
    """The scores of these batches; `done` is told the numbers of rows as soon as they are in."""
    prunings = [tuple(kept_layers(block, len(replay.layers))) for block in blocks]
    if seen is not None:
        seen.forget(prunings)
    for place, batch in enumerate(batches):
        walk = Walk(replay, batch, pad)
        head = Head(replay, batch, rows, found)
        for number, state in endings(walk, prunings, seen, place):
            head.add(number, state.rest)
        head.flush()
        done(batch.rows)


def _not_finite(model: PreTrainedModel, block: Collection[int], row: Row, name: str) -> UserError:
    """Says where a row that has no score becomes not finite, of a pruning that the configuration
    can express."""
    n_layers, where = len(layers(model)), ""
    tokens = torch.tensor([row.tokens[:-1]], device=model.device)
    kept = kept_layers(block, n_layers)
    with suppress(UserError), pruned(model, block), residual_stream(model, lambda x: x) as stream:
        model(input_ids=tokens, use_cache=False)
        good = [bool(hidden.isfinite().all()) for hidden in stream]
        leaving = ["before the first layer", *(f"leaving layer {layer}" for layer in kept)]
        where = " " + next(
            (w for w, ok in zip(leaving, good, strict=True) if not ok), "in the logits"
        )
    return UserError(
        f"{name}, {in_words(block, n_layers)}: activations are not finite{where}, in a text of "
        f"{len(row.tokens)} tokens that begins with {list(row.tokens[:5])}; try dtype: float32"
    )


_ways: WeakKeyDictionary[PreTrainedModel, str | None] = WeakKeyDictionary()


def _trusted_way(model: PreTrainedModel, pad: int) -> str | None:
    """ "shared" or "whole": whether rows may share prefixes; None: layers may not be replayed.

    Found by trying: a few rows of random tokens, under the whole model and without one layer, the
    nearest to a third of its depth that its configuration can do without. Whatever an architecture
    raises on the way means: not this way."""
    if model in _ways:
        return _ways[model]
    rows = _trial_rows(model.config.get_text_config())
    tried: list[Collection[int]] = [()]
    expected = [ordinary(model, rows, len(rows), pad).log_likelihood]
    count = len(layers(model))
    for layer in sorted(range(count), key=lambda layer: abs(layer - count // 3)):
        with suppress(UserError), pruned(model, (layer,)):
            expected.append(ordinary(model, rows, len(rows), pad).log_likelihood)
            tried.append((layer,))
            break
    tolerance = SAME if model.dtype in (torch.float32, torch.float64) else SAME_16_BIT
    _ways[model] = None
    for way in ("shared", "whole"):
        with suppress(Exception):
            found = Scores.empty(len(tried), len(rows))
            batches = make_batches(rows, len(rows), way == "shared", longest_alike(model.config))
            _replayed(Replay(model), tried, rows, batches, pad, found)
            # Scores that are not numbers are no reason to distrust: they are reported later.
            if torch.allclose(
                found.log_likelihood, torch.cat(expected), atol=tolerance, rtol=0, equal_nan=True
            ):
                _ways[model] = way
                break
    return _ways[model]


def _trial_rows(config: PretrainedConfig) -> list[Row]:
    """Two groups of rows with prefixes of different lengths, and a row alone; shorter where the
    context is."""
    random = torch.Generator().manual_seed(0)
    window = getattr(config, "max_position_embeddings", None) or 4 * SHORTEST_PREFIX

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(config.vocab_size, (count,), generator=random).tolist())

    prompts = [tokens(2 * SHORTEST_PREFIX), tokens(SHORTEST_PREFIX + 1)]
    rows = [(prompt + tokens(n), len(prompt)) for prompt in prompts for n in (2, 4)]
    rows.append((tokens(SHORTEST_PREFIX), 1))
    return [Row(row[:window], min(start, window - 1)) for row, start in rows]
