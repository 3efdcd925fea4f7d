"""Tasks that read local files ask exactly what lm-eval's own tasks of the same names ask."""

import random
import re
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
import yaml
from conftest import write_jsonl
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml
from offline_data import (
    arc,
    as_first_published,
    as_on_the_hub,
    as_queries,
    boolq,
    cmmlu,
    gsm8k,
    hellaswag,
    lambada,
    mmlu,
    openbookqa,
    piqa,
    super_glue,
    winogrande,
    write_parquet,
)

from lib import paths
from lib import study as studies
from lib.book.check import check
from lib.errors import UserError
from lib.evaluation import harness
from lib.schema import Study, Task

TASKS = paths.ROOT / "tasks"
PACKAGE = Path(lm_eval.tasks.__file__).parent
OWN = {
    "mmlu_anatomy": "mmlu/default/mmlu_anatomy.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "gsm8k": "gsm8k/gsm8k.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "piqa": "piqa/piqa.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "winogrande": "winogrande/default.yaml",
    "cmmlu_agronomy": "cmmlu/cmmlu_agronomy.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
}
# What a model is asked of seven questions: each of their choices, or once.
REQUESTS = dict.fromkeys(OWN, 7 * 4) | {
    **dict.fromkeys(("boolq", "piqa", "winogrande"), 7 * 2),
    **dict.fromkeys(("gsm8k", "lambada_openai"), 7),
    **{"arc_easy": 27, "openbookqa": 27, "arc_challenge": 28},
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "questions"
    folder.mkdir()
    monkeypatch.setenv("PRUNING_DATA", str(folder))
    return folder


def local(name: str) -> Any:
    study = Study(model=".", task_path=str(TASKS), tasks=[Task(name=name)])
    return harness.load(harness.task_manager(study), name)["tasks"][name]


def lm_evals_own(name: str) -> Any:
    """The task as lm-eval ships it, on the same documents, which do not pass through our reader."""
    splits = {
        "mmlu_anatomy": {"dev": mmlu(0, 5), "test": mmlu(5, 7)},
        "boolq": {"train": super_glue(boolq(0, 9)), "validation": super_glue(boolq(9, 7))},
        "gsm8k": {"train": gsm8k(0, 9), "test": gsm8k(9, 7)},
        "hellaswag": {"train": hellaswag(0, 9), "validation": hellaswag(9, 7)},
        "arc_easy": {"train": arc(0, 9), "test": arc(9, 7)},
        "arc_challenge": {"train": arc(100, 9), "test": arc(109, 7)},
        "piqa": {"train": piqa(0, 9), "validation": piqa(9, 7)},
        "openbookqa": {"train": openbookqa(0, 9), "test": openbookqa(9, 7)},
        "winogrande": {"train": winogrande(0, 9), "validation": winogrande(9, 7)},
        "cmmlu_agronomy": {"dev": cmmlu(0, 5), "test": cmmlu(5, 7)},
        "lambada_openai": {"test": lambada(0, 7)},
    }[name]
    settings = load_yaml(PACKAGE / OWN[name])
    settings.pop("tag", None)
    found = {split: Dataset.from_list(rows) for split, rows in splits.items()}
    return ConfigurableTask(config=settings | {"custom_dataset": lambda **_: found})


def asked(task: Any, shots: int) -> list[tuple]:
    """All that a model is asked, in order, and where the right answer is."""
    task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(seed=1234)
    task.build_all_requests(rank=0, world_size=1)
    # Where contexts are chosen from, doc_to_text says which.
    right = task.doc_to_text if task.multiple_input else task.doc_to_target
    return [(one.arguments, str(right(one.doc))) for one in task.instances]


@pytest.mark.parametrize("write", [as_on_the_hub, as_first_published, as_queries])
@pytest.mark.parametrize("name", OWN)
def test_prompts_choices_and_answers_are_lm_evals_own(name, write, data):
    write(data)
    task, own = local(name), lm_evals_own(name)
    for shots in (0, 2, 5):
        found = asked(task, shots)
        assert found == asked(own, shots)
        assert len(found) == REQUESTS[name]


@pytest.mark.parametrize("name", OWN)
def test_answers_are_judged_as_by_lm_evals_own(name, data):
    as_on_the_hub(data)
    task, own = local(name), lm_evals_own(name)
    written = ["#### 18", "#### 30\n#### 20.", "22", "#### 2,4 or so", "####26", "", "It is $30."]
    chances = random.Random(0).sample(range(100), 28)
    verdicts = []
    for one in (task, own):
        one.build_all_requests(rank=0, world_size=1)
        for number, instance in enumerate(one.instances):
            choice = (-float(chances[number]), number % 2 == 0)
            instance.resps = [written[number] if name == "gsm8k" else choice]
        one.apply_filters()
        for filtered in one.instances[0].filtered_resps:
            for document in range(7):
                responses = [i for i in one.instances if i.doc_id == document]
                answers = [i.filtered_resps[filtered] for i in responses]
                found = one.process_results(responses[0].doc, answers)
                verdicts.append((filtered, {key: found[key] for key in task.aggregation()}))
    half = len(verdicts) // 2
    assert verdicts[:half] == verdicts[half:]
    scores = {row["exact_match" if name == "gsm8k" else "acc"] for _, row in verdicts}
    assert scores == {0, 1}


def test_the_group_has_all_subjects_of_lm_evals_own(data):
    own = [load_yaml(path) for path in sorted((PACKAGE / "mmlu/default").glob("mmlu_*.yaml"))]
    for settings in own:
        for split, (first, count) in {"dev": (0, 5), "test": (5, 2)}.items():
            name = f"mmlu/{settings['dataset_name']}/{split}.parquet"
            write_parquet(data / name, mmlu(first, count))
    manager = harness.task_manager(
        Study(model=".", task_path=str(TASKS), tasks=[Task(name="mmlu")])
    )
    found = harness.load(manager, "mmlu")["tasks"]
    assert len(found) == 57 and set(found) == {settings["task"] for settings in own}
    tags = [tag for tag in manager.all_tags if tag.startswith("mmlu")]
    tagged = {(tag, task) for tag in tags for task in manager.load([tag])["tasks"]}
    assert tagged == {(settings["tag"], settings["task"]) for settings in own}
    for settings in own:
        task = found[settings["task"]]
        prompt = task.fewshot_context(task.eval_docs[0], 0)
        assert prompt.startswith(settings["description"] + "Which of these is number 5?")


def test_the_subjects_of_cmmlu_are_lm_evals_own():
    own = [load_yaml(path) for path in sorted((PACKAGE / "cmmlu").glob("cmmlu_*.yaml"))]
    ours = [load_yaml(path) for path in sorted((TASKS / "cmmlu").glob("*.yaml"))]
    subjects = [settings.pop("dataset_name") for settings in own]
    assert len(subjects) == 67 and {one.pop("dataset_path") for one in own} == {"haonan-li/cmmlu"}
    assert [one.pop("dataset_kwargs") for one in ours] == [{"subject": one} for one in subjects]
    assert {one.pop("custom_dataset").__name__ for one in ours} == {"cmmlu"}
    assert ours == own
    assert load_yaml(TASKS / "cmmlu.yaml") == load_yaml(PACKAGE / "cmmlu/_cmmlu.yaml")


def test_examples_are_those_of_dev_in_order(data):
    as_on_the_hub(data)
    task = local("mmlu_anatomy")
    prompt = task.fewshot_context(task.eval_docs[3], 5)
    parts = []
    for row in [*mmlu(0, 5), mmlu(8, 1)[0]]:
        options = [f"{letter}. {text}" for letter, text in zip("ABCD", row["choices"], strict=True)]
        answer = f"Answer: {'ABCD'[row['answer']]}"
        parts.append("\n".join([row["question"].strip(), *options, answer]))
    subject = "The following are multiple choice questions (with answers) about anatomy."
    assert prompt == "\n\n".join([subject, *parts])[:-2]  # the last one's answer is asked for


def test_titles_stand_before_passages_where_they_are_given(data):
    rows = boolq(9, 7)
    for row in rows:
        del row["title"]  # as in the repository google/boolq
    write_parquet(data / "boolq/data/validation-00000-of-00001.parquet", rows)
    found = [row["passage"] for row in local("boolq").eval_docs]
    assert found == [row["passage"] for row in rows]


@pytest.fixture
def own_study(tmp_path: Path, write_study: Any) -> Any:
    """Written with the shipped tasks in place of its own."""

    def load(*names: str) -> Study:
        tasks = [{"name": name, "role": "knowledge"} for name in names]
        return studies.load(str(write_study(tmp_path, task_path=str(TASKS), tasks=tasks)))

    return load


def test_without_examples_questions_are_asked_without(data, own_study):
    for name, rows in {"boolq": boolq(0, 4), "hellaswag": hellaswag(0, 4)}.items():
        write_jsonl(data / f"{name}/validation.jsonl", rows)
    write_jsonl(data / "gsm8k/test.jsonl", gsm8k(0, 4))
    check(own_study("boolq", "gsm8k", "hellaswag"))


def test_where_the_questions_are_has_to_be_said(own_study, monkeypatch):
    for value, words in {None: "is not set", "here": "is 'here'", "/no/such": "no folder"}.items():
        monkeypatch.delenv("PRUNING_DATA", raising=False)
        if value:
            monkeypatch.setenv("PRUNING_DATA", value)
        with pytest.raises(UserError, match=f"'boolq': cannot be loaded: PRUNING_DATA .*{words}"):
            check(own_study("boolq"))


@pytest.mark.parametrize(
    ("name", "path", "rows", "words"),
    [
        ("mmlu_virology", "mmlu/note.jsonl", [{}], "mmlu: no file virology/test or test/virology"),
        ("boolq", "boolq/dev.jsonl", [{"passage": "p", "label": 1}], "no column 'question', only"),
        ("boolq", "boolq/dev.jsonl", [{**boolq(0, 1)[0], "answer": -1}], "'-1' is none of"),
        ("boolq", "boolq/dev.jsonl", [], "boolq/dev.jsonl: is empty"),
        ("gsm8k", "gsm8k/test.jsonl", [*gsm8k(0, 2), {"question": "?"}], "3.: no column 'answer'"),
        ("hellaswag", "hellaswag/validation.jsonl", [{"ctx": "c"}], "no column 'ctx_a', only ctx"),
        ("arc_easy", "ai2_arc/ARC-Easy/test.jsonl", [{**arc(1, 1)[0], "answerKey": "A"}], "'A' is"),
        ("openbookqa", "openbookqa/test.jsonl", arc(0, 1), "no column 'question_stem', only ques"),
        ("piqa", "piqa/validation.jsonl", [{**piqa(0, 1)[0], "label": -1}], "'-1' is none of"),
        ("winogrande", "winogrande/dev.jsonl", [{**winogrande(0, 1)[0], "answer": "0"}], "'0' is"),
        ("winogrande", "winogrande/dev.jsonl", [{"sentence": "A gap."}], "is no _ in the sentence"),
        ("cmmlu_arts", "cmmlu/test/arts.jsonl", [{**cmmlu(0, 1)[0], "Answer": "E"}], "'E' is none"),
        (
            "mmlu_virology",
            "mmlu/test/virology_test.jsonl",
            [{"question": "?", "choices": ["a", "b"], "answer": 0}],
            "virology_test.jsonl, 1.: 2 choices, not 4",
        ),
    ],
)
def test_files_that_will_not_do_are_one_line(name, path, rows, words, data, own_study):
    write_jsonl(data / path, rows)
    with pytest.raises(UserError) as error:
        check(own_study(name))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_the_studies_in_the_guide_can_be_read(tmp_path):
    page = (paths.ROOT / "book" / "offline.md").read_text(encoding="utf-8")
    shown = re.findall(r"```yaml\n(# \S+\.yaml\n.*?)```", page, re.DOTALL)
    assert len(shown) == 2
    for text in shown:
        (tmp_path / "shown.yaml").write_text(text)
        study = studies.load(str(tmp_path / "shown.yaml"))
        names = {task.name for task in study.tasks}
        assert (
            names
            <= harness.local_tasks(study.model_copy(update={"task_path": [str(TASKS)]})).keys()
        )
        assert study.task_path and study.model_is_local
        assert study.validation_text.path and study.healing_text.path
        assert yaml.safe_load(text)["task_path"].endswith("/tasks")
