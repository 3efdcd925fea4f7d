"""Many prunings in one pass over the data (§4.1 of Gromov et al., without healing).

A pruned model runs the whole model's layers up to the block, and then those after it. So all
prunings walk down one tree: layers 0 … s−1 are run once for every block that starts at s or later,
and each block [s, t) branches off there to run layers t … L−1 alone. Dropping the deepest n layers
but the last costs one layer per n; all n together cost about two passes instead of L/2.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from lib.batches import SHORTEST_PREFIX, Batch, Row, make_batches
from lib.blocks import UNPRUNED, Block
from lib.replay import Entrance, Replay
from lib.surgery import pruned

Kept = tuple[int, ...]  # the layers of a pruned model, by their numbers in the whole one

LOGITS = 2**25  # numbers in one tensor of logits, at most
# Nats by which a row's log-likelihood may differ between replayed and ordinary passes.
SAME, SAME_16_BIT = 1e-3, 0.5


@dataclass
class State:
    """A batch between two layers: the shared prefixes [groups, length, width], if there are any,
    and the rest of each row, in parts of [rows, length, width]."""

    prefix: torch.Tensor | None
    parts: list[torch.Tensor]


class Walk:
    """One batch on its way through the layers."""

    def __init__(self, replay: Replay, batch: Batch, size: int, pad: int) -> None:
        self.replay = replay
        device = replay.model.device
        rests, owners = batch.rests(pad)
        count = len(rests)
        self.rows = [range(i, min(i + size, count)) for i in range(0, count, size)]
        self.prefix: Entrance | None = None
        self.parts: list[Entrance] = []
        self.owners = [owners[list(rows)].to(device) for rows in self.rows]
        if batch.groups[0].prefix == 0:
            self.parts = [replay.enter(rests[list(rows)].to(device)) for rows in self.rows]
            return
        tokens, mask = batch.prefixes(pad)
        mask, lengths = mask.to(device), mask.sum(1).to(device)
        padded = bool((mask == 0).any())
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        self.prefix = replay.enter(tokens.to(device), mask if padded else None, positions, past=0)
        for rows, owner in zip(self.rows, self.owners, strict=True):
            part = rests[list(rows)].to(device)
            seen = torch.cat([mask[owner], torch.ones_like(part)], dim=1)
            steps = torch.arange(part.shape[1], device=device)
            positions = lengths[owner, None] + steps
            self.parts.append(
                replay.enter(part, seen if padded else None, positions, past=mask.shape[1])
            )

    def start(self) -> State:
        prefix = self.prefix.hidden if self.prefix else None
        return State(prefix, [part.hidden for part in self.parts])

    def step(self, i: int, state: State) -> State:
        """The batch after layer i."""
        if self.prefix is None:
            parts = zip(state.parts, self.parts, strict=True)
            return State(None, [self.replay.step(i, x, part)[0] for x, part in parts])
        prefix, cache = self.replay.step(i, state.prefix, self.prefix)
        outputs = []
        for x, part, owner in zip(state.parts, self.parts, self.owners, strict=True):
            outputs.append(self.replay.step(i, x, part, _rows_of(cache, owner))[0])
        return State(prefix, outputs)


def _rows_of(cache: object, owner: torch.Tensor) -> object:
    """The cache of one layer with its rows picked, and repeated, by number."""
    picked = copy.copy(cache)
    picked.batch_select_indices(owner.to(picked.keys.device))
    return picked


def endings(walk: Walk, prunings: Sequence[Kept]) -> Iterator[tuple[int, State]]:
    """(number of the pruning, state after its last layer), each layer run once for all prunings
    whose kept layers are the same up to it.

    Branches are run to their end before the rest goes on, so that few states are alive at once."""

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
            for layer in branches:
                yield from descend(walk.step(layer, state), depth + 1, following[layer])
            state, numbers, depth = walk.step(trunk, state), following[trunk], depth + 1

    yield from descend(walk.start(), 0, list(range(len(prunings))))


def layer_passes(prunings: Iterable[Kept]) -> int:
    """How many layers `endings` runs: the nodes of the tree of kept layers."""
    return len({kept[:depth] for kept in set(prunings) for depth in range(1, len(kept) + 1)})


@dataclass
class Scores:
    """By pruning and row: log-likelihood of the row's scored tokens in nats, and whether each of
    them was the most likely one. [prunings, rows]"""

    log_likelihood: torch.Tensor
    greedy: torch.Tensor

    @classmethod
    def empty(cls, prunings: int, rows: int) -> "Scores":
        return cls(
            torch.zeros(prunings, rows, dtype=torch.float64),
            torch.ones(prunings, rows, dtype=torch.bool),
        )


@torch.inference_mode()
def log_likelihoods(
    model: PreTrainedModel,
    blocks: Sequence[Block],
    rows: Sequence[Row],
    size: int,
    pad: int,
    name: str,
) -> Scores:
    """Score every row under the model without each of the blocks, `size` rows at a time.

    pad: a token to fill batches up with; name: what the progress bar calls this.
    An architecture whose replayed layers do not give what its ordinary forward passes give is run
    pruning by pruning."""
    replay = Replay(model)
    way = _trusted_way(replay, pad)
    if way is None:
        found = []
        for block in tqdm(blocks, desc=name, unit="pruning", leave=False, delay=1):
            with pruned(model, block):
                found.append(ordinary(model, rows, size, pad))
        return Scores(
            torch.cat([one.log_likelihood for one in found]),
            torch.cat([one.greedy for one in found]),
        )
    shown = f"{name} under {len(blocks)} prunings" if len(blocks) > 1 else name
    with tqdm(total=len(rows), desc=shown, unit="row", leave=False, delay=1) as bar:
        return _replayed(replay, blocks, rows, size, pad, way == "shared", bar.update)


def _replayed(
    replay: Replay,
    blocks: Sequence[Block],
    rows: Sequence[Row],
    size: int,
    pad: int,
    share: bool,
    done: Callable[[int], object] = lambda count: None,
) -> Scores:
    prunings = [tuple(block.kept(len(replay.layers))) for block in blocks]
    found = Scores.empty(len(blocks), len(rows))
    for batch in make_batches(rows, size, share):
        walk = Walk(replay, batch, size, pad)
        head = _Head(replay, batch, rows, found)
        for number, state in endings(walk, prunings):
            head.add(number, walk, state)
        head.flush()
        done(sum(len(one.rows) for one in batch.inputs))
    return found


def ordinary(model: PreTrainedModel, rows: Sequence[Row], size: int, pad: int) -> Scores:
    """The scores [1, rows] of the model as it is, by its own forward passes."""
    found = Scores.empty(1, len(rows))
    for batch in make_batches(rows, size, share=False):
        tokens, _ = batch.rests(pad)
        logits = model(input_ids=tokens.to(model.device), use_cache=False).logits
        for one, of_input in zip(batch.inputs, logits, strict=True):
            log_probabilities = of_input.float().log_softmax(-1).cpu()
            for number in one.rows:
                row = rows[number]
                targets = torch.tensor(row.tokens[row.start :])
                at = log_probabilities[row.start - 1 : len(row.tokens) - 1]
                chosen = at.gather(1, targets[:, None])
                found.log_likelihood[0, number] = chosen.double().sum()
                found.greedy[0, number] = bool((at.argmax(-1) == targets).all())
    return found


_ways: WeakKeyDictionary[PreTrainedModel, str | None] = WeakKeyDictionary()


def _trusted_way(replay: Replay, pad: int) -> str | None:
    """ "shared" or "whole": whether rows may share prefixes; None: layers may not be replayed.

    Found by trying: a few rows of random tokens, under the whole model and one pruning."""
    model = replay.model
    if model in _ways:
        return _ways[model]
    count = len(replay.layers)
    blocks = [UNPRUNED] + ([Block(count // 3, count // 3 + 1)] if count > 1 else [])
    rows = _trial_rows(replay.config.vocab_size)
    expected = []
    for block in blocks:
        with pruned(model, block):
            expected.append(ordinary(model, rows, len(rows), pad).log_likelihood)
    tolerance = SAME if model.dtype in (torch.float32, torch.float64) else SAME_16_BIT
    _ways[model] = None
    for way in ("shared", "whole"):
        found = _replayed(replay, blocks, rows, len(rows), pad, way == "shared")
        if (found.log_likelihood - torch.cat(expected)).abs().max() <= tolerance:
            _ways[model] = way
            break
    return _ways[model]


def _trial_rows(vocabulary: int) -> list[Row]:
    """Two groups of rows with prefixes of different lengths, and a row alone."""
    random = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (count,), generator=random).tolist())

    prompts = [tokens(2 * SHORTEST_PREFIX), tokens(SHORTEST_PREFIX + 1)]
    rows = [Row(prompt + tokens(n), len(prompt)) for prompt in prompts for n in (2, 4)]
    return [*rows, Row(tokens(SHORTEST_PREFIX), 1)]


@dataclass
class _Head:
    """Logits at the scored positions of one batch, for many prunings at a time."""

    replay: Replay
    batch: Batch
    rows: Sequence[Row]
    found: Scores
    pending: list[tuple[int, torch.Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        where: list[tuple[int, int]] = []  # (input of the batch, position in its rest)
        scored: list[tuple[int, int, int]] = []  # (index into `where`, token, row)
        prefixes = [group.prefix for group in self.batch.groups for _ in group.inputs]
        for i, (one, prefix) in enumerate(zip(self.batch.inputs, prefixes, strict=True)):
            base = len(where) - one.first
            where += [(i, at - prefix) for at in range(one.first, len(one.tokens))]
            for number in one.rows:
                row = self.rows[number]
                for at in range(row.start, len(row.tokens)):
                    scored.append((base + at - 1, row.tokens[at], number))
        self.where = torch.tensor(where)
        self.index, self.token, self.row = torch.tensor(scored).T
        vocabulary = self.replay.config.vocab_size
        self.most = max(1, LOGITS // vocabulary)

    def add(self, number: int, walk: Walk, state: State) -> None:
        picked = []
        for rows, part in zip(walk.rows, state.parts, strict=True):
            mine = (self.where[:, 0] >= rows.start) & (self.where[:, 0] < rows.stop)
            i, at = self.where[mine].to(part.device).T
            picked.append(part[i - rows.start, at])
        self.pending.append((number, torch.cat(picked)))
        if sum(len(hidden) for _, hidden in self.pending) >= self.most:
            self.flush()

    def flush(self) -> None:
        if not self.pending:
            return
        hidden = torch.cat([hidden for _, hidden in self.pending])
        of_token = torch.arange(len(self.pending))[:, None] * len(self.where) + self.index
        tokens = self.token.expand(len(self.pending), -1)
        value, best = self._scored(hidden, of_token.flatten(), tokens.flatten())
        for k, (number, _) in enumerate(self.pending):
            mine = slice(k * len(self.index), (k + 1) * len(self.index))
            self.found.log_likelihood[number].index_add_(0, self.row, value[mine])
            wrong = self.row[~best[mine]]
            self.found.greedy[number, wrong] = False
        self.pending = []

    def _scored(
        self, hidden: torch.Tensor, index: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities of tokens at index of hidden, and whether they are the likeliest."""
        value = torch.empty(len(index), dtype=torch.float64)
        best = torch.empty(len(index), dtype=torch.bool)
        for first in range(0, len(hidden), self.most):
            mine = ((index >= first) & (index < first + self.most)).nonzero()[:, 0]
            logits = self.replay.logits(hidden[first : first + self.most]).float()
            at, token = (index[mine] - first).to(logits.device), tokens[mine].to(logits.device)
            chosen = logits[at, token] - logits.logsumexp(-1)[at]
            value[mine] = chosen.double().cpu()
            best[mine] = (logits.argmax(-1)[at] == token).cpu()
        return value, best
