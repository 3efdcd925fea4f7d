"""Evaluating models: accuracy on questions through lm-eval's own task and metric code, and
next-token loss on documents; of one model, or of many prunings of it in one pass."""

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lib.errors import UserError
from lib.evaluation import per_question, sweep
from lib.evaluation.batches import Row
from lib.evaluation.harness import BESIDE, METRICS, Questions, SharedPass
from lib.evidence.journal import Journal
from lib.models import untouched
from lib.pruning.dropped import UNPRUNED, Dropped
from lib.schema import Task

METHOD = 4  # raise when the code that computes the values changes them
SCORES = tuple(dict.fromkeys(chain.from_iterable(METRICS.values())))


def accuracies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    manager: Any,
    blocks: Sequence[Dropped],
    batch: int,
    question_free: bool = False,
    journal: Journal | None = None,
    chat_template: bool = False,
) -> Iterator[dict[str, Any]]:
    """For each dropped block, in order: accuracy, the mean of lm-eval's `acc`, or of `exact_match`
    or `rougeL` of generated answers by the task's first filter, with the standard error of a mean.

    All blocks share one pass over answers that are given; generation runs pruned models one by
    one. With `question_free` the choices follow the last line of the prompt alone ("Answer:"):
    what the choices give away without a question. `chat_template`: prompts are put into the
    tokenizer's, as lm-eval does it.

    Also: n_questions, per-question scores in order (`correct`, see `per_question`, for paired
    comparisons), by sub-task for groups, the same of what lm-eval has `BESIDE` its score, such as
    `acc_norm`, where all of a task's questions have it, both chance levels (`guess` and `constant`,
    see `chance`; None where they are not known), the number of truncated prompts, and `choices`:
    "prompts" where these are what is chosen from.

    With a journal that takes a share, that is all that is worked on, and nothing comes out.

    Raises UserError for such a task with `question_free`, for one without such a metric, for scores
    that are no numbers from 0 to 1, for data that cannot be read, and where the weights are not the
    same afterwards."""
    before = untouched.of_model(model)
    questions = Questions(task, manager, chat_template)
    if question_free and questions.chosen_from:
        raise UserError(
            f"lm-eval task '{task.name}': its prompts are what is chosen from, and nothing is left "
            "to choose without them"
        )
    choices = {"choices": "prompts"} if questions.chosen_from else {}
    how = question_free, journal, chat_template
    shared = SharedPass(model, tokenizer, blocks, batch, task.name, *how)
    if journal and not journal.whole:
        if not questions.written:  # each pruning writes by itself, when the shares are put together
            questions.ask(shared.lm(0))
        return

    def scores(number: int) -> dict[str, Any]:
        samples = questions.ask(shared.lm(number))
        untouched.check(before, untouched.of_model(model), f"lm-eval task '{task.name}': asking it")
        found = _scores(samples) | questions.levels._asdict()
        return found | {"truncated_prompts": len(shared.truncated)} | choices

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
    chat_template: bool = False,
) -> dict[str, Any]:
    """The same of one model as it is."""
    blocks, how = [UNPRUNED], {"question_free": question_free, "chat_template": chat_template}
    return next(accuracies(model, tokenizer, task, manager, blocks, batch, **how))


def _scores(samples: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    correct: per_question.Correct = {}
    beside: dict[str, per_question.Correct] = {}
    for name in sorted(samples):
        rows = sorted(samples[name], key=lambda row: row["doc_id"])
        rows = [row for row in rows if row["filter"] == rows[0]["filter"]] if rows else []
        key = next((key for key in SCORES if rows and key in rows[0]), None)
        if key is None:
            raise UserError(
                f"lm-eval task '{name}': has none of {', '.join(SCORES)}; only such tasks are read"
            )
        correct[name] = per_question.spelled([_score(name, row, key) for row in rows])
        for other in BESIDE.get(key, ()):
            if other in rows[0]:
                scores = [_score(name, row, other) for row in rows]
                beside.setdefault(other, {})[name] = per_question.spelled(scores)
    found, every = _of_questions(correct), correct.keys()
    return found | {key: _of_questions(of) for key, of in beside.items() if of.keys() == every}


def _of_questions(correct: per_question.Correct) -> dict[str, Any]:
    scores = per_question.of_all_tasks(correct)
    return {
        "accuracy": per_question.mean(scores),
        "stderr": math.sqrt(per_question.variance(scores)),
        "n_questions": len(scores),
        "correct": correct,
    }


def shown(value: dict[str, Any], task: Task) -> dict[str, Any]:
    """A record of answers with the scores that the study wants shown of this task."""
    return value if task.metric == "acc" else value | value[task.metric]


def _score(task: str, row: dict[str, Any], key: str) -> float:
    try:
        score = float(row[key])
    except (TypeError, ValueError):
        score = math.nan
    if not 0 <= score <= 1:
        raise UserError(
            f"lm-eval task '{task}': '{key}' of question {row['doc_id']} is {str(row[key])[:40]}; "
            "only tasks whose scores are numbers from 0 to 1 are read"
        )
    return score


def losses(
    model: PreTrainedModel,
    blocks: Sequence[Dropped],
    sequences: Sequence[Sequence[int]],
    batch: int,
    pad_id: int,
    journal: Journal | None = None,
    seen: sweep.Seen | None = None,
) -> Iterator[dict[str, float]]:
    """For each dropped block, in order: mean loss in nats per predicted token over sequences of
    different lengths, all blocks in one pass.

    Token-weighted: R = Σ lossᵢ / Σ tokensᵢ over sequences i. The sequence is the unit of the
    standard error, √(N/(N−1) Σ (lossᵢ − R tokensᵢ)²) / Σ tokensᵢ: tokens of one text are not
    independent. With a journal that takes a share, nothing comes out. seen: as `log_likelihoods`
    takes it."""
    rows = [Row(tuple(sequence), 1) for sequence in sequences]
    with untouched.untouched(model, "a pass over text"):
        found = sweep.log_likelihoods(model, blocks, rows, batch, pad_id, "loss", journal, seen)
    if journal and not journal.whole:
        return
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
    return ratio(loss, tokens) | {"n_tokens": int(tokens.sum()), "n_sequences": len(loss)}


def ratio(loss: np.ndarray, size: np.ndarray) -> dict[str, float]:
    """Loss per unit of size over texts i, R = Σ lossᵢ / Σ sizeᵢ, with the text as the unit of its
    standard error, √(N/(N−1) Σ (lossᵢ − R sizeᵢ)²) / Σ sizeᵢ."""
    mean, n = loss.sum() / size.sum(), len(loss)
    residual = loss - mean * size
    stderr = math.sqrt(n / (n - 1) * (residual**2).sum()) / size.sum()
    return {"loss": float(mean), "stderr": float(stderr)}
