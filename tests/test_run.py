"""The command line: what is refused before anything starts, each in exactly one line."""

import ast
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Checkpoints, Studies

from lib import paths, run, study
from lib.book import notebooks
from lib.book.check import check
from lib.errors import UserError

SECTIONS = list(paths.sections())


def notebook(name: str) -> dict[str, Any]:
    return json.loads(paths.sections()[name].read_text(encoding="utf-8"))


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as raised:
        call()
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("k=3", 3),
        ("k=[4, 8]", [4, 8]),
        ("k=null", None),
        ("k=", None),
        ("k=0.5", 0.5),
        ("k=[1e-1, 3e-4]", [0.1, 3e-4]),
        ("k='3e-4'", "3e-4"),
        ("k=true", True),
        ("k=a=b", "a=b"),
        ("k=some text", "some text"),
    ],
)
def test_values_are_read_as_yaml(pair: str, value: object) -> None:
    assert notebooks.parse([pair]) == {"k": value}


def test_several_pairs_are_read_and_the_last_counts() -> None:
    assert notebooks.parse(["a=1", "b=2", "a=3"]) == {"a": 3, "b": 2}
    assert notebooks.parse([]) == {}


@pytest.mark.parametrize("pair", ["length", "k=[1", "k={", "k={a: 1, a: 2}", "k=!!int ''"])
def test_what_is_no_pair_is_refused(pair: str) -> None:
    assert pair.split("=")[0] in refusal(lambda: notebooks.parse([pair]))


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_declares_its_study_and_plain_defaults(name: str) -> None:
    declared = notebooks.declared(notebook(name))
    assert declared["study"] == "str"
    cells = [c for c in notebook(name)["cells"] if "parameters" in c["metadata"].get("tags", [])]
    lines = ast.parse("".join(cells[0]["source"])).body
    assert [line.target.id for line in lines] == list(declared)  # nothing but declarations
    defaults = {line.target.id: ast.literal_eval(line.value) for line in lines}
    assert defaults.pop("study") == paths.DEFAULT_STUDY
    assert set(defaults.values()) <= {None}
    notebooks.check_parameters(declared, defaults)


@pytest.mark.parametrize("tags", [[], ["parameters", "parameters"]])
def test_a_notebook_has_exactly_one_parameters_cell(tags: list[str]) -> None:
    cells = [{"metadata": {"tags": [tag]}, "source": ["a: int = 1"]} for tag in tags]
    assert "exactly one cell" in refusal(lambda: notebooks.declared({"cells": cells}))


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("int", [1], [1.5, "1", True, None, [1]]),
        ("int | None", [1, None], ["1", 1.0]),
        ("float", [1.5, 2], ["1.5", None]),
        ("str", ["a", ""], [1, None]),
        ("bool", [True], [1, "true"]),
        ("list[int] | None", [[1, 2], [], None], [[1.5], ["1"], 1, "12"]),
        ("list[float]", [[0.5, 1]], [["0.5"], 0.5]),
    ],
)
def test_values_must_be_of_the_declared_type(annotation: str, good: list, bad: list) -> None:
    for value in good:
        notebooks.check_parameters({"k": annotation}, {"k": value})
    for value in bad:
        message = refusal(
            lambda value=value: notebooks.check_parameters({"k": annotation}, {"k": value})
        )
        assert "parameter k" in message and annotation in message and repr(value) in message


@pytest.mark.parametrize("name", SECTIONS)
def test_an_unknown_parameter_of_a_section_is_refused(name: str) -> None:
    declared = notebooks.declared(notebook(name))
    message = refusal(lambda: notebooks.check_parameters(declared, {"lenght": 3}))
    assert "unknown parameter 'lenght'" in message
    assert all(name in message for name in declared)


def test_a_mistyped_parameter_of_a_real_section_is_refused() -> None:
    declared = notebooks.declared(notebook("angular_distances"))
    assert "'long'" in refusal(lambda: notebooks.check_parameters(declared, {"length": "long"}))
    notebooks.check_parameters(declared, {"length": 64})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["99"], "there is no section '99'; there are at_a_glance, 01_angular_distances, 02_"),
        (["00"], "there is no section '00'"),
        (["01", "--study", "nonesuch"], "unknown study 'nonesuch'"),
        (["01", "-p", "lenght=3"], "unknown parameter 'lenght'"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(arguments: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lib.run", *arguments],
        cwd=paths.ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and says in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n")


def test_a_relative_results_dir_is_one_place_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs and kernels run in the repository, commands anywhere."""
    monkeypatch.setenv("RESULTS_DIR", "out/../out")
    places = set()
    for folder in (tmp_path, paths.ROOT):
        monkeypatch.chdir(folder)
        places.add(paths.results("mine"))
    assert places == {paths.ROOT / "out" / "mine"}
    monkeypatch.setenv("RESULTS_DIR", f"{tmp_path}/out")
    assert paths.results("mine") == tmp_path / "out" / "mine"


def test_evidence_that_is_not_there_is_not_called_whole(
    results_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["verify"]) == 1
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err == (
        f"error: study almanac: {results_dir}/almanac holds no evidence; `make book`\n"
    )
    (results_dir / "almanac/evidence").mkdir(parents=True)
    assert run.main(["verify"]) == 0
    assert capfd.readouterr().out == "every record is whole\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["01", "-p", "length=long"], "parameter length: 'long' is not of type int | None"),
        (["01", "-p", "length"], "KEY=VALUE"),
        (["01", "-p", "study=smoke"], "--study"),
        (["check", "-p", "length=3"], "not with 'check'"),
        (["book", "-p", "length=3"], "not with 'book'"),
        (["book", "--study", "nonesuch"], "unknown study"),
    ],
)
def test_more_mistakes_are_one_line(
    arguments: list[str], says: str, capfd: pytest.CaptureFixture[str], build_dir: Path
) -> None:
    assert run.main(arguments) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ") and says in printed.err
    assert printed.err.count("\n") == 1
    assert not build_dir.exists()


def test_a_mistake_found_by_a_notebook_is_one_line(
    tmp_path: Path, build_dir: Path, capfd: pytest.CaptureFixture[str], write_study: Studies
) -> None:
    folder = tmp_path / "{braces}"
    folder.mkdir()
    path = write_study(folder, model="./none")
    assert run.main(["01", "--study", str(path), "--checked"]) == 1
    printed = capfd.readouterr()
    assert printed.err.startswith("error: section 01_angular_distances of study mine: model ")
    assert "no checkpoint there" in printed.err and printed.err.count("\n") == 1
    assert not list((build_dir / "executed/mine").glob("*.ipynb"))
    (log,) = (build_dir / "logs/mine").glob("01_*.ipynb")
    assert "no checkpoint there" in log.read_text(encoding="utf-8")


def test_a_file_in_a_folder_that_begins_like_studies_is_run_as_itself(
    tmp_path: Path, build_dir: Path, write_study: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    import papermill

    (tmp_path / "studies").mkdir()
    (tmp_path / "studies-of-mine").mkdir()
    monkeypatch.setattr(paths, "STUDIES", tmp_path / "studies")
    path = write_study(tmp_path / "studies-of-mine")
    seen = {}

    def execute(source: str, target: str, parameters: dict, **_: object) -> None:
        seen.update(parameters)
        Path(target).write_text('{"metadata": {}}')

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    final = notebooks.section("01", str(path), {})
    assert seen == {"study": str(path)}
    assert final == build_dir / "executed/mine" / paths.sections()["angular_distances"].name
    assert json.loads((final.parent / "study.json").read_text()) == {"file": str(path)}
    assert final.exists() and not list((build_dir / "logs/mine").iterdir())
    assert {"when", "commit", "packages"} <= json.loads(final.read_text())["metadata"]["run"].keys()
    # With parameters of its own it is a trial: the book's copy goes, and is made again next time.
    trial = notebooks.section("01", str(path), {"length": 5})
    assert seen == {"study": str(path), "length": 5}
    assert trial == build_dir / "trials/mine" / paths.sections()["angular_distances"].name
    assert trial.exists() and not final.exists()


@pytest.mark.parametrize("name", ["t", "t" * 79, "t" * 200])
def test_a_kernel_has_sockets_wherever_temporary_files_go(
    name: str,
    tmp_path: Path,
    build_dir: Path,
    write_study: Studies,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import papermill

    (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    made = []

    def execute(source: str, target: str, config: dict, **_: object) -> None:
        place = Path(config["KernelManager"]["connection_file"])
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(f"{place.with_suffix('')}-ipc-5")  # as jupyter_client names them
        assert place.parent.stat().st_mode & 0o077 == 0  # nobody else's
        made.append(place)
        Path(target).write_text('{"metadata": {}}')

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    notebooks.section("01", str(write_study(tmp_path)), {}, checked=True)
    assert not made[0].parent.exists() and not list((tmp_path / name).iterdir())


def test_a_sound_study_has_nothing_wrong(
    tmp_path: Path, write_study: Studies, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["check", "--study", str(write_study(tmp_path))]) == 0
    printed = capfd.readouterr()
    assert printed.out == "study mine: nothing wrong found\n" and printed.err == ""


def test_the_shipped_default_has_nothing_wrong(capfd: pytest.CaptureFixture[str]) -> None:
    assert run.main(["check"]) == 0
    printed = capfd.readouterr()
    assert paths.DEFAULT_STUDY in printed.out and printed.err == ""


BAD_STUDIES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "n = L": ({"pruned_layers": [2, 6]}, ["n = 6", "1 to 5"]),
    "n > L": ({"pruned_layers": [40]}, ["n = 40", "1 to 5"]),
    "no layer": ({"healing": {"fractions": [0.01]}}, ["healing.fractions", "no layer"]),
    "no layer for ranks": ({"lora_rank": {"fractions": [0.0]}}, ["lora_rank.fractions"]),
    "rank": ({"healing": {"rank": 65}}, ["rank 65", "64"]),
    "ranks": ({"lora_rank": {"ranks": [2, 999]}}, ["rank 999", "64"]),
    "micro_batch": ({"healing": {"batch": 6, "micro_batch": 4}}, ["micro_batch"]),
    "windows": ({"distances": {"length": 129}}, ["distances.length 129", "128"]),
    "documents": ({"loss": {"length": 129}}, ["loss.length 129", "128"]),
    "rows": ({"healing": {"length": 129}}, ["healing.length 129", "128"]),
    "targets": ({"healing": {"targets": ["c_proj"]}}, ["'c_proj'", "healing.targets"]),
    "task": (
        {"tasks": [{"name": "quizz", "role": "reading"}]},
        ["unknown lm-eval task 'quizz'", "quiz"],
    ),
    "task_path": ({"task_path": "./none"}, ["task_path", "no such folder"]),
    "model": ({"model": "./none"}, ["no checkpoint there"]),
    "hub model": ({"model": "nobody/none"}, ["nobody/none", "network"]),
    "text": ({"validation_text": {"path": "./none.jsonl"}}, ["none.jsonl", "no such file"]),
    "empty text": ({"healing_text": {"path": "./empty.txt"}}, ["empty.txt", "empty"]),
    "hub text": ({"healing_text": {"dataset": "nobody/none"}}, ["nobody/none", "network"]),
}


@pytest.mark.parametrize("kind", BAD_STUDIES)
def test_check_finds_the_mistake(
    kind: str, tmp_path: Path, write_study: Studies, capfd: pytest.CaptureFixture[str]
) -> None:
    keys, says = BAD_STUDIES[kind]
    (tmp_path / "empty.txt").touch()
    path = write_study(tmp_path, **keys)
    assert run.main(["check", "--study", str(path)]) == 1
    printed = capfd.readouterr()
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert printed.out == ""
    for part in says:
        assert part in printed.err


@pytest.mark.parametrize("change", [{"vocab_size": 100}, {"num_hidden_layers": 1}])
def test_check_finds_a_model_that_does_not_fit(
    change: dict, tmp_path: Path, write_study: Studies, tiny_checkpoint: Checkpoints
) -> None:
    model = tiny_checkpoint("llama", **change)
    path = write_study(tmp_path, model=str(model), pruned_layers=None)
    with pytest.raises(UserError):
        check(study.load(str(path)))


def _write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def _edit_task(old: str, new: str) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        path = folder / "tasks/quiz.yaml"
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new))

    return edit


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_write("tasks/quiz.yaml", "task: [quiz"), ["'quiz'", "none readable in", "tasks"]),
        (_write("tasks/quiz_test.jsonl", '{"question": "cut o'), ["'quiz'", "cannot be loaded"]),
        (lambda folder: (folder / "tasks/quiz_test.jsonl").unlink(), ["'quiz'", "quiz_test"]),
        (_edit_task("multiple_choice", "generate_until"), ["'quiz'", "is generate_until with acc"]),
        (_edit_task("metric: acc", "metric: exact_match"), ["'quiz'", "exact_match", "with acc"]),
        (_edit_task("{{choices}}", "{{wrong}}"), ["'quiz'", "wrong"]),
        (_write("healing.jsonl", '{"text": "Short."}'), ["too short", "so many asks teacher"]),
        (_write("validation.jsonl", '{"text": "Short."}'), ["too short", "asks distances"]),
    ],
    ids=[
        "task",
        "cut-off questions",
        "no questions",
        "no choices",
        "no acc",
        "template",
        "healing text",
        "text",
    ],
)
def test_check_reads_texts_and_questions(
    damage: Callable[[Path], object], says: list[str], tmp_path: Path, write_study: Studies
) -> None:
    path = write_study(tmp_path)
    damage(tmp_path)
    message = refusal(lambda: check(study.load(str(path))))
    assert all(part in message for part in says)
