"""Measuring what sections ask for: every accuracy and loss of a list of conditions, recorded.

    bench = Bench(load("almanac"))
    measure(bench, main_conditions(bench))

A healed model costs most, so all that any section asks of it is measured while it is there.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedModel

from lib import evaluation, healing
from lib.bench import Bench, Condition
from lib.blocks import UNPRUNED
from lib.schema import Task
from lib.surgery import pruned


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
        # Fractions only say which blocks are healed. Dropout draws its masks per micro-batch.
        recipe = condition.healing.model_dump(exclude={"fractions"})
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


def _missing(bench: Bench, condition: Condition) -> bool:
    found = [
        bench.store.get("qa", qa_name(condition, task), qa_inputs(bench, condition, task))
        for task in bench.study.tasks
    ]
    found.append(bench.store.get("loss", condition.name, loss_inputs(bench, condition)))
    if condition.healing:
        inputs = condition_inputs(bench, condition)
        found.append(bench.store.get("healing", condition.name, inputs))
    return any(value is None for value in found)


def measure(bench: Bench, conditions: list[Condition]) -> None:
    """See to it that every accuracy and loss of these conditions is recorded."""
    missing = [condition for condition in conditions if _missing(bench, condition)]
    with tqdm(missing, desc="models", unit="model", disable=not missing) as bar:
        for condition in bar:
            bar.set_postfix_str(condition.name)
            if _missing(bench, condition):  # two strategies may choose one block
                _measure_one(bench, condition)


def _measure_one(bench: Bench, condition: Condition) -> None:
    study, store = bench.study, bench.store
    with _materialised(bench, condition) as model:
        for task in study.tasks:
            store.get_or_measure(
                "qa",
                qa_name(condition, task),
                qa_inputs(bench, condition, task),
                lambda task=task: evaluation.accuracy(
                    model, bench.tokenizer, task, bench.task_manager, study.batch
                ),
                batch=study.batch,
            )
        store.get_or_measure(
            "loss",
            condition.name,
            loss_inputs(bench, condition),
            lambda: evaluation.next_token_loss(
                model, bench.loss_sequences, study.batch, bench.tokenizer.pad_token_id
            ),
            batch=study.batch,
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
    """The condition's model in memory; healed ones leave their training report as evidence."""
    if condition.weights != "nf4":
        with pruned(bench.model, condition.block) as model:
            yield model
        return
    bench.release()
    if condition.healing is None:
        yield healing.unhealed_4bit(bench.study, condition.block)
        return
    start = time.monotonic()
    model, report = healing.heal(bench.study, condition.healing, condition.block, bench.tokenizer)
    seconds = round(time.monotonic() - start, 3)
    yield model
    # Last, so that the record stands for a healing whose evaluations are all recorded too.
    inputs = condition_inputs(bench, condition)
    bench.store.put("healing", condition.name, inputs, report, seconds=seconds)
