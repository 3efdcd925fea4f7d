"""From a last layer's output to log-likelihoods of rows, with logits only where they count."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from lib.evaluation.batches import Batch, Row, make_batches
from lib.evaluation.replay import Replay
from lib.evidence.journal import Found
from lib.models.anatomy import longest_alike

LOGITS = 2**25  # numbers in one tensor of logits, at most


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

    def of_row(self, i: int) -> Found:
        values, greedy = self.log_likelihood[:, i].tolist(), self.greedy[:, i].tolist()
        return list(zip(values, greedy, strict=True))

    def fill(self, i: int, found: Found) -> None:
        """Take a row's scores over."""
        values, greedy = zip(*found, strict=True)
        self.log_likelihood[:, i] = torch.tensor(values, dtype=torch.float64)
        self.greedy[:, i] = torch.tensor(greedy)


def ordinary(model: PreTrainedModel, rows: Sequence[Row], size: int, pad: int) -> Scores:
    """The scores [1, rows] of the model as it is, by its own forward passes."""
    found = Scores.empty(1, len(rows))
    for batch in make_batches(rows, size, False, longest_alike(model.config)):
        tokens, _ = batch.rests(pad)
        logits = model(input_ids=tokens.to(model.device), use_cache=False).logits
        for one, of_input in zip(batch.inputs, logits, strict=True):
            log_probabilities = _wide(of_input).log_softmax(-1).cpu()
            for number in one.rows:
                row = rows[number]
                targets = torch.tensor(row.tokens[row.start :])
                at = log_probabilities[row.start - 1 : len(row.tokens) - 1]
                chosen = at.gather(1, targets[:, None])
                found.log_likelihood[0, number] = chosen.double().sum()
                found.greedy[0, number] = bool((at.argmax(-1) == targets).all())
    return found


@dataclass
class Head:
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

    def add(self, number: int, rest: torch.Tensor) -> None:
        """What comes out of a pruning's last layer: [inputs, length, width]."""
        i, at = self.where.to(rest.device).T
        self.pending.append((number, rest[i, at]))
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
            logits = _wide(self.replay.logits(hidden[first : first + self.most]))
            at, token = (index[mine] - first).to(logits.device), tokens[mine].to(logits.device)
            best[mine] = (logits.argmax(-1)[at] == token).cpu()
            chosen, largest = logits[at, token], logits.amax(-1, keepdim=True)
            # log Σ exp, in place: one tensor of that size fewer in memory.
            total = logits.sub_(largest).exp_().sum(-1).log_().add_(largest[:, 0])
            value[mine] = (chosen - total[at]).double().cpu()
        return value, best


def _wide(logits: torch.Tensor) -> torch.Tensor:
    """In 32 bits where they come in fewer."""
    return logits if logits.dtype == torch.float64 else logits.float()
