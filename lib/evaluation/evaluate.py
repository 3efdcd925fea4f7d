"""Evaluating models: accuracy on questions through lm-eval's own task and metric code, and
next-token loss on documents; of one model, or of many prunings of it in one pass."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lib.errors import UserError
from lib.evaluation import sweep
from lib.evaluation.batches import Row
from lib.evaluation.harness import Questions, SharedPass
from lib.evidence.journal import Journal
from lib.pruning.dropped import UNPRUNED, Dropped
from lib.schema import Task

METHOD = 4  # raise when the code that computes the values changes them


def accuracies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    manager: Any,
    blocks: Sequence[Dropped],
    batch: int,
    question_free: bool = False,
    journal: Journal | None = None,
) -> Iterator[dict[str, Any]]:
    """For each dropped block, in order: accuracy (lm-eval's `acc`, or `exact_match` of generated
    answers by the task's first filter) with its binomial standard error √(p(1−p)/(N−1)).

    All blocks share one pass over multiple-choice questions; generation runs pruned models one by
    one. With `question_free` the choices follow the last line of the prompt alone ("Answer:"):
    what the choices give away without a question.

    Also: n_questions, per-question correctness in order (a string of 0 and 1, for paired
    comparisons), by sub-task for groups, both chance levels (`guess`: one over the number of
    choices, 0 for generation; `constant`: the share of the commonest answer), and the number of
    truncated prompts.

    Raises UserError for a task without such a metric and for data that cannot be read."""
    questions = Questions(task, manager)
    shared = SharedPass(model, tokenizer, blocks, batch, task.name, question_free, journal)

    def scores(number: int) -> dict[str, Any]:
        samples = questions.ask(shared.lm(number))
        return _scores(task, samples) | {"truncated_prompts": len(shared.truncated)}

    found = map(scores, range(len(blocks)))
    first = next(found, None)
    if first is not None:
        # Those of one pass are given out together, so that they are recorded together, as the
        # journal of that pass has them; generated answers as soon as each is there.
        yield from [first, *found] if shared.answers else chain([first], found)


def accuracy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    manager: Any,
    batch: int,
    question_free: bool = False,
) -> dict[str, Any]:
    """The same of one model as it is."""
    found = accuracies(model, tokenizer, task, manager, [UNPRUNED], batch, question_free)
    return next(found)


def _scores(task: Task, samples: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    correct: dict[str, str] = {}
    guess: list[float] = []
    answers: list[str] = []
    for name in sorted(samples):
        rows = sorted(samples[name], key=lambda row: row["doc_id"])
        rows = [row for row in rows if row["filter"] == rows[0]["filter"]] if rows else []
        key = next((key for key in ("acc", "exact_match") if rows and key in rows[0]), None)
        if key is None:
            raise UserError(
                f"lm-eval task '{name}': has neither 'acc' nor 'exact_match'; only such tasks "
                "are read"
            )
        correct[name] = "".join(str(int(row[key])) for row in rows)
        guess += [1 / len(row["arguments"]) if key == "acc" else 0.0 for row in rows]
        answers += [_right_choice(row) if key == "acc" else str(row["target"]) for row in rows]
    joined = "".join(correct.values())
    count, hits = len(joined), joined.count("1")
    share = hits / count
    return {
        "accuracy": share,
        "stderr": math.sqrt(share * (1 - share) / max(count - 1, 1)),
        "n_questions": count,
        "guess": sum(guess) / count,
        "constant": max(Counter(answers).values()) / count,
        "correct": correct,
    }


def _right_choice(row: dict[str, Any]) -> str:
    """The text of the right answer; its position may be the same for all questions of a task."""
    target = str(row["target"])
    return row["arguments"][int(target)][1] if target.isdigit() else target


def losses(
    model: PreTrainedModel,
    blocks: Sequence[Dropped],
    sequences: Sequence[Sequence[int]],
    batch: int,
    pad_id: int,
    journal: Journal | None = None,
) -> Iterator[dict[str, float]]:
    """For each dropped block, in order: mean loss in nats per predicted token over sequences of
    different lengths, all blocks in one pass.

    Token-weighted: R = Σ lossᵢ / Σ tokensᵢ over sequences i. The sequence is the unit of the
    standard error, √(N/(N−1) Σ (lossᵢ − R tokensᵢ)²) / Σ tokensᵢ: tokens of one text are not
    independent."""
    rows = [Row(tuple(sequence), 1) for sequence in sequences]
    found = sweep.log_likelihoods(model, blocks, rows, batch, pad_id, "loss", journal)
    tokens = np.array([len(row.tokens) - 1 for row in rows])
    for of_block in found.log_likelihood:
        yield _mean_loss(-of_block.numpy(), tokens)


def next_token_loss(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], batch: int, pad_id: int
) -> dict[str, float]:
    """The same of one model as it is."""
    return next(losses(model, [UNPRUNED], sequences, batch, pad_id))


def _mean_loss(loss: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
    if not np.isfinite(loss).all():
        raise UserError("the model's loss is not finite on some text; try dtype: float32")
    mean = loss.sum() / tokens.sum()
    residual = loss - mean * tokens
    n = len(loss)
    stderr = math.sqrt(n / (n - 1) * (residual**2).sum()) / tokens.sum()
    return {
        "loss": float(mean),
        "stderr": float(stderr),
        "n_tokens": int(tokens.sum()),
        "n_sequences": n,
    }
