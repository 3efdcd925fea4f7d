"""Merging evidence of several folders: all that is missing is added, nothing is overwritten."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recorded import LOSS, content, fill, heal

from lib import files, paths
from lib.evidence import merging
from lib.evidence.merging import main, merge
from lib.evidence.records import verify
from lib.evidence.store import Store

MERGE = [sys.executable, "-m", "lib.evidence", "merge"]


@pytest.fixture
def here(results_dir: Path) -> Path:
    """The results of a study named `here`."""
    return fill(results_dir / "here")


def test_merging_adds_what_is_missing(
    here: Path, results_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = results_dir / "there"
    Store(there).put("loss", "drop 2:3 none", {"block": [2, 3]}, LOSS)
    Store(there).put("loss", "drop 1:3 none", {"block": [1, 3]}, LOSS, threads=7)
    (here / "tables").mkdir()
    (here / "tables" / "loss.csv").write_text("")
    (here / "unfinished").mkdir()
    (here / "unfinished" / "a.jsonl").write_text("")
    before, other = content(here), content(there)
    assert main(["merge", "here", "there"]) == 0
    assert "2 records and 1 adapters added; 1 there already" in capsys.readouterr().out
    assert content(here) == before
    parts = ("evidence/", "adapters/")
    added = {name: text for name, text in before.items() if name.startswith(parts)}
    assert content(there) == added | other
    assert main(["merge", "here", "there", str(results_dir / "new")]) == 0
    assert content(results_dir / "new").keys() == content(there).keys()
    assert main(["merge", "there", "here"]) == 0
    assert content(here).keys() == content(there).keys() | before.keys()
    assert main(["merge", "there", "here"]) == 0
    assert "0 records and 0 adapters added; 4 there already" in capsys.readouterr().out
    assert verify(here) == verify(there) == []


def test_a_conflict_is_named_and_the_target_stays(
    here: Path, results_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = results_dir / "there"
    path = Store(there).put(
        "loss", "drop 1:3 none", {"block": [1, 3]}, LOSS | {"loss": 1.5, "stderr": 1.0}, threads=1
    )
    before = path.read_bytes()
    assert main(["merge", "here", "there"]) == 1
    said, last = capsys.readouterr().out.splitlines()
    assert str(path) in said and "loss 1.5 / 1.25 and 1 more" in said
    assert "1 thread / " in said and "2 threads" in said
    assert "1 in conflict, 0 damaged" in last
    assert path.read_bytes() == before and not list(there.rglob("*.conflict"))


def test_adapters_stay_with_their_record(
    here: Path, results_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, orphan = results_dir / "other", results_dir / "orphan"
    shutil.rmtree(heal(other, "other", loss=0.75))  # healed otherwise; its adapters were deleted
    assert main(["merge", "here", "other"]) == 1
    assert "train_loss[1] 0.75 / 0.5" in capsys.readouterr().out
    assert not content(other / "adapters")
    kept = heal(orphan, "orphan")  # killed before its record was written
    shutil.rmtree(orphan / "evidence")
    assert main(["merge", "here", "orphan"]) == 1
    assert "of another training; left out" in capsys.readouterr().out
    assert list(content(kept).values()) == [b"orphan"]
    assert not list(orphan.glob("evidence/healing/*")) and list(orphan.glob("evidence/qa/*"))
    half = results_dir / "half"  # a merge that was killed before the record was written
    shutil.copytree(here / "adapters", half / "adapters")
    assert main(["merge", "here", "half"]) == 0
    assert content(half) == content(here)


def test_what_is_damaged_is_not_copied(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next(here.glob("evidence/healing/*.json"))
    path.write_text(path.read_text()[:100])
    target = tmp_path / "target"
    assert main(["merge", "here", str(target)]) == 1
    said, last = capsys.readouterr().out.splitlines()
    assert str(path) in said and "cut off" in said
    assert last.endswith(
        "2 records and 0 adapters added; 0 there already, 0 in conflict, 1 damaged"
    )
    assert len(content(target)) == 2 and path.exists()
    # A damaged record of the target is replaced.
    broken = next(target.glob("evidence/loss/*.json"))
    broken.write_text("")
    assert main(["merge", "here", str(target)]) == 1
    assert json.loads(broken.read_text())["value"] == LOSS
    assert len(list(target.rglob("*.damaged"))) == 1


def test_a_killed_merge_goes_on(here: Path, tmp_path: Path) -> None:
    store = Store(here)
    for number in range(300):
        store.put("loss", f"record {number}", {"block": [number, 999]}, LOSS)
    target, moments = tmp_path / "target", random.Random(0)
    command = [*MERGE, str(here), str(target)]

    def count() -> int:
        return len(list(target.glob("evidence/*/*.json")))

    for _ in range(4):
        before = count()
        one = subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.DEVNULL)
        while one.poll() is None and count() <= before:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.01))
        one.send_signal(signal.SIGKILL)
        one.wait()
        assert verify(target) == []
        assert before or count() < 303
    left = target / "adapters" / ".abc.0123.copying"
    left.mkdir(parents=True)
    assert subprocess.run(command, cwd=paths.ROOT, stdout=subprocess.DEVNULL).returncode == 0
    assert content(target) == content(here) and not left.exists()


def test_a_full_target_is_one_line(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before, target = content(here), tmp_path / "target"
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        assert main(["merge", "here", str(target)]) == 1
        assert main(["export", "here", str(tmp_path / "a.jsonl")]) == 1
    for line in capsys.readouterr().err.splitlines():
        assert line.startswith("error: no space left to write ")
    assert content(target) == {} and not (tmp_path / "a.jsonl").exists()
    assert main(["merge", "here", str(target)]) == 0
    assert content(target) == content(here) == before


def test_two_merges_into_one_folder(here: Path, results_dir: Path, tmp_path: Path) -> None:
    for number in range(200):
        Store(results_dir / "there").put("loss", f"there {number}", {"there": number}, LOSS)
    target = tmp_path / "target"
    both = [
        subprocess.Popen(
            [*MERGE, str(source), str(target)], cwd=paths.ROOT, stdout=subprocess.DEVNULL
        )
        for source in (here, results_dir / "there")
    ]
    assert [one.wait() for one in both] == [0, 0]
    assert content(target) == content(here) | content(results_dir / "there")


def test_ctrl_c_keeps_what_was_added(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(merging, "copy_new", stopped)
    assert main(["merge", "here", str(tmp_path / "target")]) == 130
    assert "stopped" in capsys.readouterr().err
    monkeypatch.undo()
    merged = merge([here], tmp_path / "target")
    assert (merged.adapters, merged.conflicts, merged.damaged) == (1, [], [])
