"""Measuring what sections ask for: every accuracy and loss of a list of conditions, recorded.

    bench = Bench(load("almanac"))
    measure(bench, main_conditions(bench))

A healed model costs most, so all that any section asks of it is measured while it is there.
"""

import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedModel

from lib import evaluation, healing
from lib.bench import Bench, Condition
from lib.blocks import UNPRUNED, Block
from lib.evidence import digest
from lib.journal import Journal
from lib.schema import Task


def condition_inputs(bench: Bench, condition: Condition) -> dict[str, Any]:
    """Everything about the model itself that decides what is measured on it."""
    inputs: dict[str, Any] = {
        "checkpoint": bench.checkpoint,
        "weights": condition.weights,
        "block": [condition.block.start, condition.block.stop],
        "healing": None,
    }
    if condition.weights == "nf4":
        inputs["compute"] = bench.weights
    if condition.healing:
        # Fractions only say which blocks are healed, and checkpointing trades time for memory.
        # Dropout draws its masks per micro-batch.
        recipe = condition.healing.model_dump(exclude={"fractions", "gradient_checkpointing"})
        if recipe["packing"]:  # what is recorded without this key was packed
            del recipe["packing"]
        recipe["micro_batch"] = recipe["micro_batch"] or recipe["batch"]
        inputs["healing"] = recipe | {
            "method": healing.METHOD,
            "text": bench.texts["healing"],
        }
    return inputs


def qa_inputs(bench: Bench, condition: Condition, task: Task) -> dict[str, Any]:
    return condition_inputs(bench, condition) | {
        "method": evaluation.METHOD,
        "task": task.model_dump(exclude={"role"}),
        "source": bench.task_sources[task.name, task.shots],
    }


def loss_inputs(bench: Bench, condition: Condition) -> dict[str, Any]:
    return condition_inputs(bench, condition) | {
        "method": evaluation.METHOD,
        "text": bench.texts["validation"],
        "sample": bench.study.loss.model_dump(),
    }


def qa_name(condition: Condition, task: Task) -> str:
    return f"{task.name} {task.shots}-shot {condition.name}"


# Of a condition for a task, or, without a task, of its loss:


def _inputs(bench: Bench, condition: Condition, task: Task | None) -> dict[str, Any]:
    return loss_inputs(bench, condition) if task is None else qa_inputs(bench, condition, task)


def _kind_and_name(condition: Condition, task: Task | None) -> tuple[str, str]:
    return ("loss", condition.name) if task is None else ("qa", qa_name(condition, task))


def _value(bench: Bench, condition: Condition, task: Task | None) -> dict[str, Any] | None:
    return bench.store.get(*_kind_and_name(condition, task), _inputs(bench, condition, task))


def _missing(bench: Bench, condition: Condition) -> bool:
    found = [_value(bench, condition, task) for task in (*bench.study.tasks, None)]
    if condition.healing:
        inputs = condition_inputs(bench, condition)
        found.append(bench.store.get("healing", condition.name, inputs))
    return any(value is None for value in found)


def measure(bench: Bench, conditions: list[Condition]) -> None:
    """See to it that every accuracy and loss of these conditions is recorded.

    Prunings that are not healed share one model and one pass over the questions; a healed model
    is its own."""
    missing: dict[str, Condition] = {}  # two strategies may choose one block
    for condition in conditions:
        if _missing(bench, condition):
            missing.setdefault(digest(condition_inputs(bench, condition)), condition)
    groups: dict[str, list[Condition]] = defaultdict(list)
    for key, condition in missing.items():
        groups[key if condition.healing else condition.weights].append(condition)
    with tqdm(total=len(missing), desc="models", unit="model", disable=not missing) as bar:
        for group in groups.values():
            first = group[0].name
            bar.set_postfix_str(first if len(group) == 1 else f"{first} and {len(group) - 1} more")
            _measure(bench, group)
            bar.update(len(group))


def _measure(bench: Bench, conditions: list[Condition]) -> None:
    """Measure conditions that are prunings of one model (or one healed model)."""
    study = bench.study
    with _materialised(bench, conditions[0]) as model:
        for task in (*study.tasks, None):
            todo = [one for one in conditions if _value(bench, one, task) is None]
            blocks = [UNPRUNED if one.healing else one.block for one in todo]
            journal = Journal(bench.store.unfinished([_inputs(bench, one, task) for one in todo]))
            start = time.monotonic()
            found = _values(bench, model, blocks, task, journal)
            for condition, value in zip(todo, found, strict=True):
                # Of what is found together, the time goes to the first.
                seconds, start = round(time.monotonic() - start, 3), time.monotonic()
                kind, name = _kind_and_name(condition, task)
                inputs = _inputs(bench, condition, task)
                bench.store.put(kind, name, inputs, value, seconds=seconds, batch=study.batch)
            journal.finish()


def _values(
    bench: Bench,
    model: PreTrainedModel,
    blocks: list[Block],
    task: Task | None,
    journal: Journal,
) -> Iterable[dict[str, Any]]:
    if not blocks:
        return []
    batch, text = bench.study.batch, bench.tokenizer
    if task is None:
        sequences = bench.loss_sequences
        return evaluation.losses(model, blocks, sequences, batch, text.pad_token_id, journal)
    return evaluation.accuracies(
        model, text, task, bench.task_manager, blocks, batch, journal=journal
    )


def question_free(bench: Bench, task: Task) -> dict[str, Any]:
    """Accuracy of the unpruned model that is shown the choices but no question."""
    condition = Condition("none", UNPRUNED, bench.weights)
    return bench.store.get_or_measure(
        "qa",
        f"question-free {qa_name(condition, task)}",
        qa_inputs(bench, condition, task) | {"question_free": True},
        lambda: evaluation.accuracy(
            bench.model,
            bench.tokenizer,
            task,
            bench.task_manager,
            bench.study.batch,
            question_free=True,
        ),
        batch=bench.study.batch,
    )


@contextmanager
def _materialised(bench: Bench, condition: Condition) -> Iterator[PreTrainedModel]:
    """A healed condition's model, which leaves its training report as evidence; for any other the
    unpruned model in the condition's weights."""
    if condition.weights != "nf4":
        yield bench.model
        return
    bench.release()
    if condition.healing is None:
        yield healing.unhealed_4bit(bench.study, UNPRUNED)
        return
    start = time.monotonic()
    inputs = condition_inputs(bench, condition)
    keep = bench.store.unfinished(inputs).with_suffix("")
    model, report = healing.heal(
        bench.study, condition.healing, condition.block, bench.tokenizer, keep
    )
    seconds = round(time.monotonic() - start, 3)
    yield model
    # Last, so that the record stands for a healing whose evaluations are all recorded too.
    bench.store.put("healing", condition.name, inputs, report, seconds=seconds)
    shutil.rmtree(keep)
    with suppress(OSError):
        keep.parent.rmdir()
