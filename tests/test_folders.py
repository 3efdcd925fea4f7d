"""Folders that appear whole or not at all, and claims on them."""

import errno
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lib import files, paths
from lib.errors import UserError
from lib.files import (
    claimed,
    copy_new,
    files_below,
    whole_or_not_at_all,
    written_by_others,
)

CLAIM = """
import sys, time
from pathlib import Path
from lib.files import claimed
with claimed(Path(sys.argv[1]), "another process is healing this model; waiting") as held:
    print(held, flush=True)
    time.sleep(60)
"""


def claiming(place: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", CLAIM, place]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=paths.ROOT, stdout=pipe, stderr=pipe, text=True,
        # A shell that starts tests in the background has them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def waiting(one: subprocess.Popen) -> None:
    assert one.stderr.readline() == "another process is healing this model; waiting\n"


def test_a_claim_waits_for_another_and_ends_with_its_process(tmp_path: Path) -> None:
    place = tmp_path / "adapters" / "abc"
    first = claiming(place)
    assert first.stdout.readline() == "True\n"
    second, third = claiming(place), claiming(place)
    waiting(second), waiting(third)
    third.send_signal(signal.SIGINT)
    assert third.communicate()[1].endswith("KeyboardInterrupt\n")
    first.kill()
    first.communicate()
    assert second.stdout.readline() == "True\n"
    second.kill()
    assert second.communicate() == ("", "")
    with claimed(place, "waiting") as held:
        assert held


def test_claims_of_two_threads_follow_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "POLL", 0.01)
    holding, most = [], []

    def hold() -> None:
        with claimed(tmp_path / "a", "waiting"):
            holding.append(1)
            most.append(len(holding))
            time.sleep(0.03)
            holding.pop()

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4
    assert capfd.readouterr().err.count("waiting\n") <= 3
    with claimed(tmp_path / "a", "waiting"), claimed(tmp_path / "b", "waiting"):
        pass  # other paths, other claims
    assert capfd.readouterr().err == ""


def test_without_locks_a_claim_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with claimed(tmp_path / "a", "waiting") as held:
        assert not held
    (tmp_path / "file").write_text("")
    with claimed(tmp_path / "file" / "a", "waiting") as held:
        assert not held


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "weights").write_bytes(bytes(range(256)))
    return folder


def test_a_folder_is_copied_unless_there_is_one(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "deep" / "out"
    assert copy_new(source, out)
    assert (out / "config.json").read_text() == "{}"
    assert (out / "sub" / "weights").read_bytes() == bytes(range(256))
    (source / "config.json").write_text("other")
    assert not copy_new(source, out)
    assert (out / "config.json").read_text() == "{}"
    assert os.listdir(out.parent) == ["out"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_copy_that_fails_is_one_line_and_leaves_nothing(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    copyfile = shutil.copyfile

    def fails(file: Path, copy: Path) -> None:
        copyfile(file, copy)
        if file.name == "weights":
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(shutil, "copyfile", fails)
    out = tmp_path / "adapters" / "out"
    with pytest.raises(UserError, match=r"no space left|cannot copy") as raised:
        copy_new(source, out)
    assert "\n" not in str(raised.value)
    assert os.listdir(out.parent) == []


def test_what_libraries_cannot_write_is_told_in_the_systems_words(tmp_path: Path) -> None:
    full = pytest.raises(UserError, match=rf"^no space left to write {tmp_path}")
    with full, written_by_others(tmp_path):
        raise OSError(errno.ENOSPC, "full")
    gone = pytest.raises(UserError, match=r"^cannot write .*gone: No such file or directory$")
    with gone, written_by_others(tmp_path / "gone"):
        raise RuntimeError("unexpected pos 64 vs 0")
    with pytest.raises(RuntimeError, match="a bug"), written_by_others(tmp_path):
        raise RuntimeError("a bug")
    assert os.listdir(tmp_path) == []


def test_a_folder_comes_to_the_disk_with_every_file_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a file system cannot do that with folders."""
    done, fsync, rename = [], os.fsync, os.rename

    def brought(handle: int) -> None:
        fsync(handle)
        done.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", brought)
    monkeypatch.setattr(os, "rename", lambda old, new: (done.append("named"), rename(old, new)))
    with whole_or_not_at_all(tmp_path / "out") as unfinished:
        (unfinished / "inner").mkdir()
        for name in ("weights", "inner/more"):
            (unfinished / name).write_text(name)
    named = done.index("named")
    assert {"weights", "more", "inner", ".out.unfinished"} <= set(done[:named])
    assert (tmp_path / "out" / "inner" / "more").read_text() == "inner/more"


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_folder_that_cannot_be_brought_to_the_disk_is_one_line(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    with (
        pytest.raises(UserError, match=r"^(cannot write|no space left to write) .*out"),
        whole_or_not_at_all(tmp_path / "out") as unfinished,
    ):
        (unfinished / "weights").write_text("")
        monkeypatch.setattr(os, "fsync", fails)
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"^cannot write .*/file/out: Not a directory$"),
        whole_or_not_at_all(tmp_path / "file" / "out"),
    ):
        pass


def test_files_below_a_folder_are_told_without_what_is_hidden_or_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "inner/b", ".hidden", ".dir/c", "inner/x.pyc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    assert set(files_below(tmp_path)) == {"a", "inner/b", ".dir/c"}
    scandir = os.scandir

    def goes(folder: str) -> object:
        if Path(folder) != tmp_path:  # which has been listed by then
            monkeypatch.setattr(os, "scandir", scandir)
            shutil.rmtree(tmp_path / "inner")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", goes)
    assert set(files_below(tmp_path)) == {"a", ".dir/c"}
    assert files_below(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("system", ["exchanges folders", "does not"])
def test_a_folder_is_replaced_by_one_that_is_whole(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if system == "does not":
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: object())
    out = tmp_path / "out"
    for content in ("old", "new"):
        with whole_or_not_at_all(out, anew=True) as unfinished:
            (unfinished / "sub").mkdir()
            (unfinished / "sub" / content).write_text(content)
            assert content == "old" or os.listdir(out / "sub") == ["old"]
        assert os.listdir(tmp_path) == ["out"] and os.listdir(out / "sub") == [content]
    with (
        pytest.raises(UserError, match="Directory not empty"),
        whole_or_not_at_all(out) as unfinished,
    ):  # unless it is said
        (unfinished / "more").write_text("more")
    assert os.listdir(tmp_path) == ["out"] and os.listdir(out / "sub") == ["new"]
