"""What counts as a change: content, never dates; code of helpers, not their comments."""

import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import Checkpoints, Studies

from lib import paths
from lib import study as studies
from lib.book import sources


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lib of its own: top imports middle, middle imports bottom inside a function."""
    written = {
        "bottom": "VALUE = 1  # one\n",
        "middle": "def f():\n    from lib.bottom import VALUE\n    return VALUE\n",
        "top": "from lib import middle\n",
        "apart": "VALUE = 2\n",
    }
    for name, source in written.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setattr(sources, "LIB", tmp_path)
    _forget()
    yield tmp_path
    _forget()


def _forget() -> None:
    sources.modules.cache_clear()
    sources._module.cache_clear()


def test_helpers_are_followed_to_the_end(helpers: Path) -> None:
    assert set(sources.helpers(["top"])) == {"top", "middle", "bottom"}
    assert set(sources.helpers(["apart"])) == {"apart"}


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("VALUE = 1  # another comment\n\n\n", False),
        ("VALUE = (1)\n", False),
        ("VALUE = 2  # one\n", True),
        ('"""Says something."""\nVALUE = 1\n', True),
    ],
)
def test_a_helper_changes_by_its_code(helpers: Path, source: str, changed: bool) -> None:
    before = sources.helpers(["top"])
    (helpers / "bottom.py").write_text(source)
    _forget()
    after = sources.helpers(["top"])
    assert (before != after) == changed
    assert {name for name in before if before[name] != after[name]} <= {"bottom"}


def test_every_notebook_uses_some_helpers_and_leaves_others_alone() -> None:
    found = {name: sources.of_notebook(path)["helpers"] for name, path in paths.sections().items()}
    for used in found.values():
        assert {"study", "evidence.records", "sections.pages"} <= set(used)
        assert not {"run", "export", "book.worker", "book.site", "book.publish"} & set(used)
    plots = [name for name, used in found.items() if "sections.other_texts" in used]
    assert plots == ["other_texts"]


def test_modules_that_no_import_names_are_found_by_their_places(
    helpers: Path, write_study: Studies, tmp_path: Path
) -> None:
    for name in ("sections/mine", "pruning/strategies/mine", "healing/recipes/qlora", "book/mine"):
        (helpers / name).parent.mkdir(parents=True, exist_ok=True)
        (helpers / f"{name}.py").write_text("VALUE = 1\n")
    _forget()
    assert set(sources.discovered()) == {
        "sections.mine", "pruning.strategies.mine", "healing.recipes.qlora",
    }  # fmt: skip
    study = studies.load(str(write_study(tmp_path)))
    before = sources.of_study(study)
    assert set(before["code"]) == {"healing.recipes.qlora"}
    (helpers / "healing/recipes/qlora.py").write_text("VALUE = 2\n")
    _forget()
    assert sources.of_study(study) != before


def test_a_comment_in_a_notebook_is_a_change_of_it(tmp_path: Path) -> None:
    path = shutil.copy(paths.sections()["loss"], tmp_path)
    before = sources.of_notebook(Path(path))
    notebook = json.loads(Path(path).read_text())
    notebook["cells"][-1]["source"] = "".join(notebook["cells"][-1]["source"]) + "\n# so"
    Path(path).write_text(json.dumps(notebook))
    after = sources.of_notebook(Path(path))
    assert before["notebook"] != after["notebook"] and before["helpers"] == after["helpers"]


def test_dates_and_places_of_files_do_not_count(tmp_path: Path, write_study: Studies) -> None:
    (tmp_path / "a").mkdir()
    first = write_study(tmp_path / "a")
    before = sources.of_study(studies.load(str(first)))
    for path in (tmp_path / "a").rglob("*"):
        os.utime(path, (1, 1))
    assert sources.of_study(studies.load(str(first))) == before
    moved = shutil.move(tmp_path / "a", tmp_path / "b")
    for path in Path(moved).rglob("*"):
        if path.is_file():  # its tasks name their files by absolute paths
            path.write_text(path.read_text().replace(str(tmp_path / "a"), str(moved)))
    found = sources.of_study(studies.load(str(Path(moved) / "mine.yaml")))
    assert {key: found[key] for key in found if key != "tasks"} == {
        key: before[key] for key in before if key != "tasks"
    }


@pytest.fixture
def with_checkpoint(tmp_path: Path, write_study: Studies, tiny_checkpoint: Checkpoints) -> Path:
    """A study whose checkpoint lies beside it."""
    shutil.copytree(tiny_checkpoint("llama"), tmp_path / "model")
    return write_study(tmp_path, model="./model")


def test_only_what_a_model_is_made_of_is_read(with_checkpoint: Path) -> None:
    """A trainer leaves gigabytes of states beside it, and people leave notes."""
    study, model = studies.load(str(with_checkpoint)), with_checkpoint.parent / "model"
    before = sources.of_study(study)
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= before["model"].keys()
    for name in ("checkpoint-500/optimizer.pt", "notes.txt", "trainer_state.json", "LICENSE.txt"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("1")
    assert sources.of_study(study) == before
    with open(model / "model.safetensors", "ab") as file:
        file.write(b"1")
    assert sources.of_study(study) != before


def test_files_that_go_meanwhile_are_passed_over(
    with_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, folder = studies.load(str(with_checkpoint)), with_checkpoint.parent
    before = sources.of_study(study)
    listed = {"tasks": "quiz_dev.jsonl", "model": "tokenizer.json"}
    digest = sources.file_digest

    def goes(path: Path) -> str:
        for place, name in listed.items():
            if path.parent.name == place:
                (folder / place / name).unlink(missing_ok=True)
        return digest(path)

    monkeypatch.setattr(sources, "file_digest", goes)
    found = sources.of_study(study)
    assert all(found[place][name] == "missing" for place, name in listed.items())
    assert {key: found[key] for key in found if key not in listed} == {
        key: before[key] for key in before if key not in listed
    }


def test_what_tasks_and_strategies_pull_in_from_elsewhere_counts(
    tmp_path: Path, write_study: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "aside/base.yaml": "process_results: !function helpers.judge",
        "aside/helpers.py": "import own_words\nWORDS = 'words.txt'\n",
        "aside/words.txt": "some",
        "aside/data.jsonl": "{}",
        "modules/own_words.py": "",
        "modules/own_scores.py": "",
        "mine.py": "import own_scores\ndef choose(n, n_layers): return range(n)",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    path = write_study(tmp_path, strategies=[{"name": "mine", "file": "./mine.py"}])
    task = tmp_path / "tasks" / "quiz.yaml"
    task.write_text(f"include: ../aside/base.yaml\nmore: {tmp_path}/aside/data.jsonl\n")
    study = studies.load(str(path))
    before = sources.of_study(study)
    for name in files:
        (tmp_path / name).write_text(files[name] + "\n")
        assert sources.of_study(study) != before, name
        (tmp_path / name).write_text(files[name])
    assert sources.of_study(study) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "validation.jsonl").write_text('{"text": "Other."}'),
        lambda folder: (folder / "tasks/quiz_test.jsonl").write_text("{}"),
        lambda folder: (folder / "tasks/more.yaml").write_text("task: more"),
        lambda folder: _edit(folder / "mine.yaml", "batch: 8", "batch: 4"),
    ],
    ids=["text", "questions", "a new task", "a setting"],
)
def test_content_counts(change, tmp_path: Path, write_study: Studies) -> None:
    path = write_study(tmp_path)
    before = sources.of_study(studies.load(str(path)))
    change(tmp_path)
    assert sources.of_study(studies.load(str(path))) != before


def _edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
