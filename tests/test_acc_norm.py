"""The second score of multiple choice, by the length of the answers: recorded beside the first, as
lm-eval has it, and shown where a study asks for it."""

from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from conftest import Checkpoints, Studies
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM

from lib import paths
from lib import study as studies
from lib.errors import UserError
from lib.evaluation import evaluate, harness
from lib.experiments import measure
from lib.experiments.conditions import Condition, unpruned
from lib.experiments.opened import OpenStudy
from lib.pruning.dropped import UNPRUNED, span
from lib.pruning.surgery import pruned
from lib.schema import Study, Task
from lib.sections import tables

TASKS = str(paths.ROOT / "commons" / "tasks")
FORMS = [UNPRUNED, span(1, 3)]


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Checkpoints) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_checkpoint("llama"), dtype=torch.float32)


def test_it_is_that_of_lm_eval_alone(model: Any, tokenizer: Any) -> None:
    task = Task(name="commons_knowledge", limit=40)
    manager = harness.task_manager(Study(model=".", task_path=TASKS, tasks=[task]))
    found = evaluate.accuracies(model, tokenizer, task, manager, FORMS, 8)
    for form, value in zip(FORMS, found, strict=True):
        with pruned(model, form):
            alone = lm_eval.simple_evaluate(
                HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8),
                tasks=[task.name],
                limit=task.limit,
                task_manager=manager,
                bootstrap_iters=2,
            )
        judged = {
            key: "".join(str(int(row[key])) for row in alone["samples"][task.name])
            for key in ("acc", "acc_norm")
        }
        assert judged["acc"] != judged["acc_norm"]
        assert value["correct"] == {task.name: judged["acc"]}
        assert value["acc_norm"]["correct"] == {task.name: judged["acc_norm"]}
        for one, key in ((value, "acc"), (value["acc_norm"], "acc_norm")):
            expected = alone["results"][task.name]
            assert one["accuracy"] == pytest.approx(expected[f"{key},none"])
            assert one["stderr"] == pytest.approx(expected[f"{key}_stderr,none"])
            assert one["n_questions"] == 40


def test_a_study_says_which_is_shown_and_both_are_measured_at_once(
    write_study: Studies, tmp_path: Path, results_dir: Path
) -> None:
    asked = {"name": "commons_knowledge", "limit": 40, "role": "knowledge"}
    shown = {}
    for metric in ("acc", "acc_norm"):
        file = write_study(tmp_path, task_path=TASKS, tasks=[asked | {"metric": metric}])
        opened = OpenStudy(studies.load(str(file)))
        condition: Condition = unpruned(opened)
        if metric == "acc":
            measure.measure(opened, [condition])
        (row,) = tables.qa_table(opened, [condition]).itertuples()
        (task,) = opened.study.tasks
        free = measure.question_free(opened, task)
        shown[metric] = (
            row.accuracy,
            free["correct"],
            tables.answers(opened, condition, task).mean(),
        )
    records = list(results_dir.glob("mine/evidence/qa/*"))
    assert len(records) == 2  # with and without the questions
    assert shown["acc"][0] == shown["acc"][2] != shown["acc_norm"][0] == shown["acc_norm"][2]
    assert shown["acc"][1] != shown["acc_norm"][1]


def test_a_task_without_it_is_a_line_and_its_records_are_as_before(
    write_study: Studies, tmp_path: Path
) -> None:
    chosen = studies.load(str(write_study(tmp_path)))
    (task, *_) = chosen.tasks
    manager = harness.task_manager(chosen)
    assert "metrics" not in harness.task_source(chosen, task, manager)
    harness.check_tasks(chosen, manager, [task])
    with pytest.raises(UserError, match=r"'quiz': has no acc_norm; its metric_list names acc"):
        harness.check_tasks(chosen, manager, [task.model_copy(update={"metric": "acc_norm"})])
