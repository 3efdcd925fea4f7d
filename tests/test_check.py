"""Everything that is wrong with a study, found in one call: a line for each mistake, and none for
what only follows from another."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Checkpoints, Studies, write_task

from lib import run, study
from lib.book.check import check
from lib.book.jobs import main as list_jobs
from lib.errors import UserError

pytestmark = pytest.mark.usefixtures("own_tasks_alone")

SIX: dict[str, tuple[dict[str, Any], str]] = {
    "layers": ({"pruned_layers": [2, 40]}, "n = 40"),
    "rank": ({"lora_rank": {"ranks": [2, 999]}}, "rank 999"),
    "micro_batch": ({"healing": {"batch": 6, "micro_batch": 4}}, "micro_batch"),
    "length": ({"loss": {"length": 129}}, "loss.length 129"),
    "text": ({"validation_text": {"path": "./none.jsonl"}}, "none.jsonl"),
    "task": ({"tasks": [{"name": "quizz", "role": "reading"}]}, "'quizz'"),
}


def lines(path: Path) -> list[str]:
    with pytest.raises(UserError) as raised:
        check(study.load(str(path)))
    found = str(raised.value).split("\nerror: ")
    assert tuple(found) == raised.value.lines and len(set(found)) == len(found)
    assert not any("\n" in line for line in found)
    return found


def together(kinds: list[str]) -> dict[str, Any]:
    return {key: value for kind in kinds for key, value in SIX[kind][0].items()}


@pytest.mark.parametrize("kinds", [[*SIX], [*SIX][:3], [*SIX][4:], ["rank", "task"]], ids=len)
def test_every_mistake_is_a_line(kinds: list[str], tmp_path: Path, write_study: Studies) -> None:
    found = lines(write_study(tmp_path, **together(kinds)))
    assert len(found) == len(kinds)
    for kind in kinds:
        assert sum(SIX[kind][1] in line for line in found) == 1


def test_the_command_prints_them(
    tmp_path: Path, write_study: Studies, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_study(tmp_path, **together([*SIX]))
    assert run.main(["check", "--study", str(path)]) == 1
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 6
    assert all(line.startswith("error: ") for line in printed.err.splitlines())


def test_so_does_what_comes_before_a_run(
    tmp_path: Path, write_study: Studies, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_study(tmp_path, **together([*SIX]))
    assert list_jobs(["--study", str(path), "--cores", "1"]) == 1
    printed = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert printed == [f"error: {line}" for line in lines(path)]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        # Of what stands on it nothing is said: a study without a model is no long list.
        ({"model": "./none"}, ["no checkpoint there"]),
        ({"task_path": "./none"}, ["no such folder"]),
        (
            {"healing_text": {"path": "./none.jsonl"}, "controls": {"studies": ["nobody"]}},
            ["no run 'nobody'", "none.jsonl"],
        ),
        (
            {"model": "./none", "validation_text": {"path": "./none.jsonl"}},
            ["no checkpoint there", "none.jsonl"],
        ),
    ],
)
def test_what_follows_from_a_mistake_is_no_line(
    keys: dict[str, Any], says: list[str], tmp_path: Path, write_study: Studies
) -> None:
    found = lines(write_study(tmp_path, **keys))
    assert len(found) == len(says)
    assert all(any(part in line for line in found) for part in says)


def test_every_task_and_each_text_is_looked_at(tmp_path: Path, write_study: Studies) -> None:
    names = ("quiz", "short", "nowhere", "gone")
    path = write_study(
        tmp_path,
        tasks=[{"name": name, "role": "reading", "shots": 3} for name in names],
        other_texts=[{"name": name, "path": f"./{name}.jsonl"} for name in ("a", "b")],
    )
    write_task(tmp_path / "tasks", "short", questions=2)
    write_task(tmp_path / "tasks", "gone")
    (tmp_path / "tasks/gone_test.jsonl").unlink()
    found = lines(path)
    for part in ("'short': 3 examples", "unknown lm-eval task 'nowhere'", "'gone'", "a.js", "b.js"):
        assert sum(part in line for line in found) == 1, part
    assert len(found) == 5


def test_a_model_and_its_tokenizer_are_looked_at_both(
    tmp_path: Path, write_study: Studies, tiny_checkpoint: Checkpoints
) -> None:
    folder = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "checkpoint")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"intermediate_size": 96}))
    found = lines(write_study(tmp_path, model=str(folder), pruned_layers=[3, 9]))
    assert len(found) == 2  # how many layers there are is not known then
    assert "tokenizer" in found[0] and "mismatched keys" in found[1]


def test_all_that_the_schema_refuses_is_said(tmp_path: Path, write_study: Studies) -> None:
    path = write_study(
        tmp_path,
        batch=0,
        lenght=3,
        strategies=["nosuch", "simple"],
        healing={"rank": -1, "speed": 3},
        tasks=[{"name": "quiz", "role": "knowing"}, {"shots": 1}],
    )
    with pytest.raises(UserError) as raised:
        study.load(str(path))
    found = raised.value.lines
    for part in (
        "key 'batch'", "'lenght'", "'nosuch'", "'healing.rank'", "'healing.speed'",
        "'tasks.0.role'", "'tasks.1.name' is missing",
    ):  # fmt: skip
        assert sum(part in line for line in found) == 1, part
    assert len(found) == 7 and all(line.startswith("study mine.yaml: ") for line in found)


def test_every_task_without_a_role_is_named(tmp_path: Path, write_study: Studies) -> None:
    path = write_study(tmp_path, tasks=[{"name": "quiz"}, {"name": "quiz", "shots": 1}])
    with pytest.raises(UserError) as raised:
        study.load(str(path))
    first, second = raised.value.lines
    assert "tasks.0.role" in first and "tasks.1.role" in second


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, '{"title": 5}', "[]", '{"titel": "x"}', "\x80"]
)
def test_a_published_run_that_lies_is_a_line(
    text: str, tmp_path: Path, published_dir: Path, write_study: Studies
) -> None:
    file = tmp_path / "published/other/study.json"
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="latin-1")
    found = lines(write_study(tmp_path, controls={"studies": ["other"]}, pruned_layers=[9]))
    assert len(found) == 2 and "'other'" in found[0] and "damaged" in found[0]
