"""What is remembered of a file's content, and when it is not."""

import hashlib
import os
import random
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib.evidence import records
from lib.evidence.records import file_digest

KNOWN = ("st_size", "st_mtime_ns", "st_ino", "st_mode")


@pytest.fixture
def settled(build_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if files had lain there for long."""
    monkeypatch.setattr(records, "SETTLED", -1)


def weights(path: Path, seed: int, size: int = 3 << 20) -> Path:
    """Others for each seed, with the time that `cp -a`, `tar -x` and reproducible archives keep."""
    path.write_bytes(random.Random(seed).randbytes(size))
    os.utime(path, ns=(1, 1))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("size", [1000, 3 << 20])
def test_another_file_of_the_same_size_and_time_is_another(
    size: int, tmp_path: Path, settled: None
) -> None:
    """Written over the old one, so that the inode, too, is the same."""
    path, states = tmp_path / "weights", []
    for seed in (1, 2):
        weights(path, seed, size)
        states.append([getattr(path.stat(), key) for key in KNOWN])
        assert file_digest(path) == file_digest(path) == sha256(path)
    assert states[0] == states[1]


def test_where_a_file_system_has_no_times_of_change_the_bytes_tell(
    tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.fstat

    def without(handle: int) -> SimpleNamespace:
        given = stat(handle)
        return SimpleNamespace(st_ctime_ns=1, **{key: getattr(given, key) for key in KNOWN})

    monkeypatch.setattr(records.os, "fstat", without)
    for seed in (1, 2):
        assert file_digest(weights(tmp_path / "weights", seed)) == sha256(tmp_path / "weights")


def test_what_changed_a_moment_ago_is_read_again(
    tmp_path: Path, build_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clocks of file systems tick every few milliseconds, or seconds; a big file that has lain for
    a minute is read once."""
    path, read, now = weights(tmp_path / "weights", 1), [], time.time()
    monkeypatch.setattr(records, "sha256", lambda path: read.append(path) or sha256(path))
    assert file_digest(path) == file_digest(path)
    assert len(read) == 2
    monkeypatch.setattr(records.time, "time", lambda: now + 60)
    assert file_digest(path) == file_digest(path)
    assert len(read) == 3


def test_what_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, settled: None, build_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = weights(tmp_path / "weights", 1)

    def slowly(path: Path) -> str:
        found = sha256(path)
        weights(path, 2)
        return found

    monkeypatch.setattr(records, "sha256", slowly)
    file_digest(path)
    assert not (build_dir / "digests").exists()


def test_a_remembered_digest_that_was_damaged_is_not_used(
    tmp_path: Path, settled: None, build_dir: Path
) -> None:
    path = weights(tmp_path / "weights", 1)
    first = file_digest(path)
    (note,) = (build_dir / "digests").iterdir()
    text = note.read_text()
    other = ("1" if text[0] == "0" else "0") + text[1:]
    for wrong in (text[:64], text[:10], other, ""):
        note.write_text(wrong)
        assert file_digest(path) == first == sha256(path)
