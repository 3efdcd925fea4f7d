"""Perplexity as lm-eval takes it (`loglikelihood_rolling`): of whole documents, each in windows of
the model's context that do not overlap, the first token of each window after the last of the one
before; of many prunings in one pass."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lib.errors import UserError
from lib.evaluation.evaluate import ratio
from lib.evaluation.harness import Questions, SharedPass, load
from lib.evidence.journal import Journal
from lib.models import untouched
from lib.pruning.dropped import Dropped
from lib.schema import Perplexity, Task

METHOD = 1  # raise when the code that computes the values changes them
METRICS = {"words": "word_perplexity", "bytes": "byte_perplexity"}


def as_task(probe: Perplexity) -> Task:
    """As the harness takes tasks."""
    return Task(name=probe.name, limit=probe.limit)


def check(name: str, manager: Any) -> None:
    """Raises UserError where a task of this name is no perplexity of several documents."""
    for one in load(manager, name)["tasks"].values():
        there = list(one.aggregation())
        if one.OUTPUT_TYPE != "loglikelihood_rolling" or not {*METRICS.values()} <= {*there}:
            raise UserError(
                f"perplexity: lm-eval task '{name}' is {one.OUTPUT_TYPE} with {', '.join(there)}; "
                f"read are those of loglikelihood_rolling with {' and '.join(METRICS.values())}"
            )
        if len(one.eval_docs) < 2:
            raise UserError(
                f"perplexity: lm-eval task '{name}' has {len(one.eval_docs)} document; a standard "
                "error takes two"
            )


def perplexities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    probe: Perplexity,
    manager: Any,
    blocks: Sequence[Dropped],
    batch: int,
    journal: Journal | None = None,
) -> Iterator[dict[str, Any]]:
    """For each dropped block, in order: loss in nats per token, per byte and per word, with bytes
    and words as the task counts them, so that lm-eval's word_perplexity is exp of the last.

    The document is the unit of the standard error (`evaluate.ratio`). With a journal that takes a
    share, nothing comes out.

    Raises UserError where a loss is not finite, and where weights are not the same afterwards."""
    before, name = untouched.of_model(model), f"lm-eval task '{probe.name}'"
    questions = Questions(as_task(probe), manager)
    shared = SharedPass(model, tokenizer, blocks, batch, probe.name, journal=journal)
    if journal and not journal.whole:
        questions.ask(shared.lm(0))
        return
    for number in range(len(blocks)):
        samples = questions.ask(shared.lm(number))
        untouched.check(before, untouched.of_model(model), f"{name}: asking it")
        yield _losses(samples, shared.lm(number))


def _losses(samples: dict[str, list[dict[str, Any]]], lm: Any) -> dict[str, Any]:
    rows = [row for name in sorted(samples) for row in _in_order(samples[name])]
    loss = np.array([-row[METRICS["words"]][0] for row in rows])
    if not np.isfinite(loss).all():
        raise UserError("the model's loss is not finite on some text; try dtype: float32")
    sizes = {key: np.array([row[metric][1] for row in rows]) for key, metric in METRICS.items()}
    sizes["tokens"] = np.array([len(lm.tok_encode(row["arguments"][0][0])) for row in rows])
    found: dict[str, Any] = {"n_documents": len(rows), "documents": loss.tolist()}
    for unit, size in sizes.items():
        found[unit] = ratio(loss, size) | {"count": int(size.sum())}
    return found


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row["doc_id"])
