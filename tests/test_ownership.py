"""Whose results a folder holds: every command that reads or writes them agrees."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Checkpoints, Studies

from lib import compare, export, paths, run, study
from lib.book import graph, jobs, notebooks, publish
from lib.errors import UserError
from lib.evidence import ownership
from lib.evidence.store import Store
from lib.models.checkpoints import checkpoint_digest
from lib.pruning import on_disk
from lib.sections import pages


@pytest.fixture
def taken(tmp_path: Path, results_dir: Path, write_study: Studies) -> study.Study:
    """A study whose results are there: its choice of layers, and the note of whose they are."""
    (tmp_path / "one").mkdir()
    one = study.load(str(write_study(tmp_path / "one")))
    ownership.take(one, checkpoint_digest(one))
    table = paths.tables("mine") / "chosen_layers.csv"
    table.parent.mkdir()
    table.write_text(
        "strategy,n,dropped\n"
        + "".join(f"similarity,{n},{' '.join(map(str, range(n)))}\n" for n in range(1, 6))
    )
    Store(paths.results("mine")).put("loss", "simple n=1", {"n": 1}, {"loss": 1.5})
    return one


def to_section(file: str, out: Path) -> None:
    notebooks.section("01", file, {})


def to_notebook(file: str, out: Path) -> None:
    pages.open_study(file)  # what plain papermill runs, too


def to_book(file: str, out: Path) -> None:
    def here(command: list[str], **_: object) -> subprocess.CompletedProcess:
        """Without importing torch once more."""
        return subprocess.CompletedProcess(command, jobs.main(command[4:]), "", "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph.subprocess, "run", here)
        graph.build(graph.Configuration(study=file), 1)


def to_publish(file: str, out: Path) -> None:
    publish.publish(study.load(file))


def to_compare(file: str, out: Path) -> None:
    compare.own(study.load(file), out)


def to_prune(file: str, out: Path) -> None:
    _raised(on_disk.main([study.load(file).model, str(out), "--study", file, "--similarity", "1"]))


def to_export(file: str, out: Path) -> None:
    _raised(export.main([str(out), "--study", file, "--similarity", "1"]))


def to_verify(file: str, out: Path) -> None:
    _raised(run.main(["verify", "--study", file]))


def to_check(file: str, out: Path) -> None:
    _raised(run.main(["check", "--study", file]))


def _raised(code: int) -> None:
    if code:
        raise UserError("a line was printed")


ALL = (to_section, to_notebook, to_book, to_publish, to_compare, to_prune, to_export, to_check)


@pytest.mark.parametrize("command", ALL, ids=lambda one: one.__name__)
def test_results_of_another_checkpoint_are_left_alone(
    command: Callable[[str, Path], None],
    taken: study.Study,
    tmp_path: Path,
    build_dir: Path,
    tiny_checkpoint: Checkpoints,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = Path(taken.file)
    other = tiny_checkpoint("llama", rms_norm_eps=1e-5)
    file.write_text(file.read_text().replace(taken.model, str(other)))
    before = contents()
    _is_refused(command, str(file), tmp_path, "belongs to another checkpoint", capsys)
    assert contents() == before


@pytest.mark.parametrize("command", [*ALL, to_verify], ids=lambda one: one.__name__)
def test_results_of_another_study_of_the_name_are_left_alone(
    command: Callable[[str, Path], None],
    taken: study.Study,
    tmp_path: Path,
    build_dir: Path,
    write_study: Studies,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the same checkpoint, too: its settings are others."""
    (tmp_path / "two").mkdir()
    file = write_study(tmp_path / "two", pruned_layers=[2])
    before = contents()
    _is_refused(command, str(file), tmp_path, f"another study of this name ({taken.file})", capsys)
    assert contents() == before


def contents() -> dict[str, str]:
    folder = paths.results("mine")
    return {str(path): path.read_text() for path in folder.rglob("*") if path.is_file()}


def _is_refused(
    command: Callable[[str, Path], None],
    file: str,
    folder: Path,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UserError) as raised:
        command(file, folder / "out")
    line = capsys.readouterr().err.splitlines()[-1:]  # of those that print it
    assert says in " ".join([str(raised.value), *line])
    assert "RESULTS_DIR" in " ".join([str(raised.value), *line])
    assert "\n" not in str(raised.value)
    assert not (folder / "out").exists()


def test_a_study_that_was_moved_or_is_the_same_elsewhere_goes_on(
    taken: study.Study, tmp_path: Path, results_dir: Path
) -> None:
    for place in ("copied", "moved"):
        (tmp_path / place).mkdir()
        text = Path(taken.file).read_text().replace("./", f"{tmp_path}/one/")
        (tmp_path / place / "mine.yaml").write_text(text)
    copied = study.load(str(tmp_path / "copied/mine.yaml"))
    assert copied.file != taken.file
    ownership.take(copied, checkpoint_digest(copied))
    assert json.loads((results_dir / "mine/checkpoint.json").read_text())["file"] == copied.file
    shutil.rmtree(tmp_path / "copied")
    moved = tmp_path / "moved/mine.yaml"
    moved.write_text(moved.read_text().replace("batch: 8", "batch: 4"))
    ownership.check(study.load(str(moved)), checkpoint_digest(taken))


def test_a_note_that_cannot_be_read_is_one_line(taken: study.Study, results_dir: Path) -> None:
    (results_dir / "mine/checkpoint.json").write_text('{"checkpoint": "ab')
    with pytest.raises(UserError, match=r"checkpoint\.json cannot be read .*: delete it if"):
        ownership.check(taken)


def test_pages_of_another_study_of_the_name_are_made_again(
    taken: study.Study, tmp_path: Path, build_dir: Path, write_study: Studies
) -> None:
    """Its results lie elsewhere, its pages in this clone."""
    job = graph.Job("mine", "section-loss", "loss", notebook="03_loss.ipynb", made_from="x")
    (page,) = job.pages
    page.parent.mkdir(parents=True)
    page.touch()
    job.note.parent.mkdir()

    def stale() -> tuple[str, ...]:
        made_from = graph.made_from(taken, job)
        job.note.write_text(json.dumps({"made_from": made_from}))
        found = graph.judged(taken, checkpoint_digest(taken), [job], {})
        graph.begin(found)
        return found.stale

    (page.parent / "study.json").write_text(json.dumps({"file": taken.file}))
    assert stale() == () and page.exists()
    (tmp_path / "two").mkdir()
    other = write_study(tmp_path / "two", batch=4)
    (page.parent / "study.json").write_text(json.dumps({"file": str(other)}))
    assert stale() == ("section-loss",) and not page.exists()
