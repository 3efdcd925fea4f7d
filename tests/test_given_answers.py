"""WinoGrande, whose prompts are what is chosen from, and LAMBADA, whose one answer is given: the
pass that all prunings share judges both as lm-eval does by itself."""

from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Checkpoints, sentences, write_jsonl
from lm_eval.models.huggingface import HFLM
from offline_data import winogrande
from transformers import AutoModelForCausalLM

from lib import paths
from lib import study as studies
from lib.errors import UserError
from lib.evaluation import evaluate, harness
from lib.experiments import measure
from lib.experiments.conditions import unpruned
from lib.experiments.opened import OpenStudy
from lib.pruning.dropped import UNPRUNED, span
from lib.pruning.surgery import pruned
from lib.schema import Study, Task
from lib.sections import controls

TASKS = str(paths.ROOT / "tasks")
FORMS = [UNPRUNED, span(2, 1), span(1, 3)]


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Checkpoints) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_checkpoint("llama"), dtype=torch.float32)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Any, tokenizer: Any) -> Path:
    """Questions of both. Every third last word is the one that a form of the model would write."""
    monkeypatch.setenv("PRUNING_DATA", str(tmp_path))
    for split, (first, count) in {"train": (0, 9), "validation": (9, 12)}.items():
        rows = winogrande(first, count)
        for row in rows:  # the shorter, the less float32 rounds
            row["sentence"] = row["sentence"].partition("_")[0] + "_ left."
        write_jsonl(tmp_path / f"winogrande/{split}.jsonl", rows)
    rows = []
    for i, text in enumerate(sentences(24)):
        with torch.inference_mode(), pruned(model, FORMS[i % 3]):
            logits = model(torch.tensor([tokenizer.encode(text)])).logits[0, -1]
        word = tokenizer.decode(logits.argmax()).strip() if i % 2 else ""
        rows.append({"text": f"{text} {word or 'home'}"})
    write_jsonl(tmp_path / "lambada_openai/test.jsonl", rows)
    return tmp_path


def answered(samples: list[dict[str, Any]]) -> tuple[list[list[tuple[str, str]]], list, list]:
    """What was asked, log-likelihoods and judgements, question by question."""
    rows = sorted(samples, key=lambda row: row["doc_id"])
    values = [[response[0] for (response,) in row["resps"]] for row in rows]
    asked = [[tuple(one) for one in row["arguments"]] for row in rows]
    return asked, values, [row["acc"] for row in rows]


@pytest.mark.parametrize(
    ("name", "shots"), [("winogrande", 0), ("winogrande", 2), ("lambada_openai", 0)]
)
def test_all_prunings_are_judged_as_by_lm_eval_alone(name, shots, data, model, tokenizer):
    task = Task(name=name, shots=shots)
    study = Study(model=".", task_path=TASKS, tasks=[task])
    manager = harness.task_manager(study)
    harness.check_tasks(study, manager, [task])
    found = list(evaluate.accuracies(model, tokenizer, task, manager, FORMS, 8))
    questions = harness.Questions(task, manager)
    shared = harness.SharedPass(model, tokenizer, FORMS, 8, name)
    verdicts = ""
    for number, form in enumerate(FORMS):
        asked, values, judged = answered(questions.ask(shared.lm(number))[name])
        with pruned(model, form):
            alone = lm_eval.simple_evaluate(
                HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8),
                tasks=[name],
                num_fewshot=shots,
                task_manager=manager,
                bootstrap_iters=0,
            )
        expected = answered(alone["samples"][name])
        assert (asked, judged) == (expected[0], expected[2])
        assert np.abs(np.subtract(values, expected[1])).max() < 1e-5
        assert found[number]["correct"][name] == "".join(str(int(one)) for one in judged)
        assert found[number]["accuracy"] == pytest.approx(alone["results"][name]["acc,none"])
        verdicts += found[number]["correct"][name]
    assert set(verdicts) == {"0", "1"}


def test_of_two_contexts_one_is_guessed(data, model, tokenizer):
    task = Task(name="winogrande")
    manager = harness.task_manager(Study(model=".", task_path=TASKS, tasks=[task]))
    value = evaluate.accuracy(model, tokenizer, task, manager, 8)
    assert (value["guess"], value["choices"]) == (0.5, "prompts")
    assert value["constant"] == 1 / 12  # no two contexts are alike
    with pytest.raises(UserError, match="'winogrande': its prompts are what is chosen from, and"):
        evaluate.accuracy(model, tokenizer, task, manager, 8, question_free=True)


def test_controls_leave_out_what_cannot_be_asked(data, write_study, results_dir):
    tasks = [{"name": name, "role": "reading"} for name in ("winogrande", "lambada_openai")]
    opened = OpenStudy(studies.load(str(write_study(data, task_path=TASKS, tasks=tasks))))
    measure.measure(opened, [unpruned(opened)])
    table = controls.unpruned_table(opened)
    assert list(table["guess"]) == [0.5, 0]
    assert all(map(pd.isna, table["question_free"]))
