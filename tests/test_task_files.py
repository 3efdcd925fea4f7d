"""What decides a task's questions and prompts, wherever it lies, and however it was put there."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Studies, write_task

from lib import study as studies
from lib.errors import UserError
from lib.evaluation import harness, task_files
from lib.pruning.strategy import Own
from lib.schema import Study

HELPER = """
from datasets import Dataset


def load(**_):
    return {"test": Dataset.from_list([{"question": "A", "choices": ["x", "y"], "answer": 0}])}
"""


@pytest.fixture
def study(tmp_path: Path, write_study: Studies) -> Study:
    return studies.load(str(write_study(tmp_path)))


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python keeps what it has compiled, as it does unless told otherwise."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


def source(study: Study, name: str = "quiz") -> dict[str, Any]:
    task = study.tasks[0].model_copy(update={"name": name})
    return harness.task_source(study, task, harness.task_manager(study))


def documents(study: Study, name: str = "quiz") -> list[dict[str, Any]]:
    (one,) = harness.load(harness.task_manager(study), name)["tasks"].values()
    return list(one.eval_docs)


def replace(path: Path, old: str, new: str) -> None:
    """By something of the same length, with the same time, as `cp -a` and archives do."""
    assert len(old) == len(new) and old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    os.utime(path, (1, 1))


def test_a_task_of_its_folder_alone_has_the_inputs_that_it_always_had(study: Study) -> None:
    assert source(study).keys() == {"harness", "files", "documents"}


def test_folders_side_by_side_decide_for_themselves(tmp_path: Path, study: Study) -> None:
    """What is added to one folder leaves the questions of another what they are."""
    alone = source(study)
    (tmp_path / "more").mkdir()
    write_task(tmp_path / "more", "puzzle")
    both = study.model_copy(update={"task_path": [*study.task_path, str(tmp_path / "more")]})
    assert source(both) == alone and source(both, "puzzle")["files"].keys() == {
        *("puzzle.yaml", "puzzle_dev.jsonl", "puzzle_test.jsonl")
    }
    write_task(tmp_path / "more", "quiz")
    with pytest.raises(UserError, match=r"more: 'quiz' is in .*tasks, too"):
        harness.local_tasks(both)


def test_other_questions_of_the_same_size_and_time_are_read(study: Study) -> None:
    """`datasets` keeps what it has read of a file for any of the same place and time."""
    file = Path(*study.task_path) / "quiz_test.jsonl"
    os.utime(file, (1, 1))
    before = source(study)
    assert documents(study)[0]["question"].startswith("On day 0 Ada")
    replace(file, "On day 0 Ada", "On day 0 Eve")
    assert documents(study)[0]["question"].startswith("On day 0 Eve")
    assert source(study)["documents"] != before["documents"]


def test_another_helper_of_the_same_size_and_time_is_run(study: Study) -> None:
    """Python and lm-eval keep what they have compiled of one."""
    folder = Path(*study.task_path)
    (folder / "helpers.py").write_text(HELPER)
    os.utime(folder / "helpers.py", (1, 1))
    (folder / "own.yaml").write_text(
        "{task: own, custom_dataset: !function helpers.load, test_split: test, "
        "output_type: multiple_choice, doc_to_text: question, doc_to_choice: '{{choices}}', "
        "doc_to_target: answer, metric_list: [{metric: acc}]}"
    )
    assert [one["question"] for one in documents(study, "own")] == ["A"]
    replace(folder / "helpers.py", '"A"', '"B"')
    assert [one["question"] for one in documents(study, "own")] == ["B"]
    assert not (folder / "__pycache__").exists()


def test_another_strategy_of_the_same_size_and_time_is_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def choose(n, n_layers):\n    return [1]\n")
    os.utime(file, (1, 1))
    assert Own("mine", file).expected(1, 4) == (1,)
    replace(file, "[1]", "[2]")
    assert Own("mine", file).expected(1, 4) == (2,)


def test_what_code_says_of_a_document_counts(study: Study) -> None:
    """Whatever it reads, from wherever."""
    folder = Path(*study.task_path)
    aside = folder.parent / "aside"
    aside.mkdir()
    (aside / "template.txt").write_text("Question: ")
    (folder / "text.py").write_text(
        "from pathlib import Path\n\n\ndef text(doc):\n"
        '    name = "template"  # no text in here is the place of a file\n'
        '    place = Path(__file__).parents[1] / "aside" / (name + ".txt")\n'
        '    return place.read_text() + doc["question"]\n'
    )
    (folder / "coded.yaml").write_text(
        "{include: quiz.yaml, task: coded, doc_to_text: !function text.text}"
    )
    before, plain = source(study, "coded"), source(study)
    (aside / "template.txt").write_text("Asked: ")
    after = source(study, "coded")
    assert {key for key in before if before[key] != after[key]} == {"prompts"}
    assert source(study) == plain


def test_what_a_task_of_its_own_class_says_counts(study: Study) -> None:
    folder = Path(*study.task_path)
    (folder / "kind.py").write_text(
        "import os\n\nfrom lm_eval.api.task import ConfigurableTask\n\n\n"
        "class Kind(ConfigurableTask):\n    def __init__(self, config):\n"
        "        super().__init__(config={k: v for k, v in config.items() if k != 'class'})\n\n"
        "    def doc_to_text(self, doc):\n        return os.environ['ASKS'] + doc['question']\n"
    )
    (folder / "classed.yaml").write_text(
        "{include: quiz.yaml, task: classed, class: !function kind.Kind}"
    )
    found = []
    for words in ("Question: ", "Asked: "):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ASKS", words)
            found.append(source(study, "classed"))
    assert {key for key in found[0] if found[0][key] != found[1][key]} == {"prompts"}


def test_questions_that_are_shuffled_as_they_load_have_one_digest(study: Study) -> None:
    folder = Path(*study.task_path)
    (folder / "shuffle.py").write_text(
        "import random\n\n\ndef mix(docs):\n"
        "    return docs.select(random.sample(range(len(docs)), len(docs)))\n"
    )
    (folder / "mixed.yaml").write_text(
        "{include: quiz.yaml, task: mixed, process_docs: !function shuffle.mix}"
    )
    assert source(study, "mixed") == source(study, "mixed")
    assert source(study, "mixed")["documents"] != source(study)["documents"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("include: ../aside/base.yaml", {"../aside/base.yaml"}),
        ("include: [.hidden.yaml, quiz.yaml]", {".hidden.yaml"}),
        ("include: {folder}/aside/base.yaml", {"../aside/base.yaml"}),
        ("include: ../aside/circle.yaml", {"../aside/circle.yaml"}),
        ("include: ../aside/not_there.yaml", set()),
        ("group: [{x: [!function inner.words.f]}]", set()),
        ("x: !function own_task_words.f", {"own_task_words"}),
        ("x: &a {y: *a, z: !function own_package.inner.f}", {"own_package", "own_package.inner"}),
        (
            "x: !function own_task_words.f\ny: !function own_spaced.inner.f",
            {"own_task_words", "own_spaced.inner"},
        ),
        ("x: !function lm_eval.tasks.hellaswag.utils.process_docs", set()),
        ("x: !function json.dumps", set()),
        ("x: !function numpy.mean", set()),
        ("not: [yaml", set()),
        ("just text", set()),
    ],
)
def test_what_a_task_pulls_in(
    text: str, expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "tasks/one.yaml": text.replace("{folder}", str(tmp_path)),
        "tasks/quiz.yaml": "task: quiz",
        "tasks/.hidden.yaml": "description: x",
        "tasks/inner/words.py": "import json, numpy, os.path",
        "aside/base.yaml": "description: x",
        "aside/circle.yaml": "include: circle.yaml",
        "modules/own_task_words.py": "from lib import paths\nimport own_task_words\n",
        "modules/own_spaced/inner.py": "",
        "modules/own_package/__init__.py": "",
        "modules/own_package/inner.py": "from . import absent\nfrom .... import far\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    found = task_files.pulled_in(tmp_path / "tasks", [tmp_path / "tasks/one.yaml"])
    assert set(found) == expected


def test_a_helper_that_fails_is_one_line(study: Study) -> None:
    folder = Path(*study.task_path)
    (folder / "text.py").write_text(
        "def text(doc):\n    return doc['question' if 'Ada' in doc['question'] else 'nothing']\n"
    )
    (folder / "coded.yaml").write_text(
        "{include: quiz.yaml, task: coded, doc_to_text: !function text.text}"
    )
    with pytest.raises(harness.UserError, match=r"^lm-eval task 'coded': cannot be asked: KeyErr"):
        source(study, "coded")
