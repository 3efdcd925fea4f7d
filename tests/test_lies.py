"""Files that lie end in one line, soon, in little memory; they run nothing and leave nothing.

Seconds and memory of each are printed by `benchmarks/lies.py`."""

import shutil
from pathlib import Path

import pytest
from conftest import Checkpoints
from lies import LIES
from lying import make

from lib import study
from lib.book import plan
from lib.book.check import check
from lib.errors import UserError
from lib.models import trial
from lib.pruning import on_disk

pytestmark = pytest.mark.usefixtures("own_tasks_alone")
COMMANDS = ("check", "plan", "pruning")
RUNS = [(lie, command) for command in COMMANDS for lie in LIES if command in LIES[lie].of]


def listed(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def ask(command: str, folder: Path) -> None:
    """Raises UserError, as the command of that name prints it."""
    if command == "check":
        check(study.load(str(folder / "mine.yaml")))
    elif command == "plan":
        plan.plan(study.load(str(folder / "mine.yaml")))
    else:
        on_disk.main([str(folder / "checkpoint"), str(folder / "OUT"), "--simple", "2"])


@pytest.mark.parametrize(("name", "command"), RUNS)
def test_a_lie_is_a_line(
    name: str,
    command: str,
    tmp_path: Path,
    tiny_checkpoint: Checkpoints,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(trial, "SECONDS", 2)
    monkeypatch.setattr(trial, "BYTES", 400_000_000)
    monkeypatch.setattr(plan, "measured_speed", lambda *_: plan.Speed(1e-6, 3e-6))
    lie, folder = LIES[name], tmp_path / "study"
    folder.mkdir()
    make(folder, tiny_checkpoint("llama"))
    lie.change(folder)
    before = listed(folder)
    try:
        ask(command, folder)
        said = capsys.readouterr().err.removeprefix("error: ").strip()
    except UserError as error:
        said = str(error)
    assert "\n" not in said and len(said) < 600
    assert (lie.says in said) if lie.says else not said
    if lie.says or command != "pruning":
        assert listed(folder) == before
    assert not (folder / "ran").exists()
    shutil.rmtree(folder)
