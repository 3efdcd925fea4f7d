"""Pruning on disk leaves the whole checkpoint or none, whenever it is stopped."""

import copy
import fcntl
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sharded import CONTIGUOUS, SCATTERED, assert_same, fails
from transformers import PretrainedConfig

from lib.models import shards
from lib.pruning import on_disk, surgery


def in_child(work: Callable[[], object]) -> int:
    """Fork, do the work there, and return the child's process number."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def finished(child: int) -> bool:
    return not os.WIFSIGNALED(os.waitpid(child, 0)[1])


def assert_nothing_half(out: Path, reference: Path) -> bool:
    """The folder is absent or complete; the hidden one beside it, too, or it has no config, without
    which transformers loads nothing. True if the folder is there."""
    hidden = out.parent / f".{out.name}.unfinished"
    for folder in (out, hidden):
        config = folder / "config.json"
        whole = folder.exists() if folder == out else config.exists() and config.stat().st_size
        if whole:
            assert_same(folder, reference)
            names = {path.name for path in reference.iterdir()}
            assert {path.name for path in folder.iterdir()} == names
    return out.exists()


class NoBar:
    """No lock that another thread may hold while a child is forked."""

    def __init__(self, **_: object) -> None:
        pass

    def __enter__(self) -> "NoBar":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: int) -> None:
        pass


@pytest.fixture
def hasty(sharded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the checkpoint and works its config out once only: what comes before writing is not
    what is killed here, and a forked child must not compute with torch, whose threads it lacks."""
    config = on_disk.load_config(sharded)
    slice_config, known = surgery.slice_config, {}

    def sliced(config: PretrainedConfig, kept: list[int]) -> None:
        if tuple(kept) not in known:
            slice_config(config, kept)
            known[tuple(kept)] = copy.deepcopy(vars(config))
        vars(config).update(copy.deepcopy(known[tuple(kept)]))

    monkeypatch.setattr(surgery, "slice_config", sliced)
    monkeypatch.setattr(on_disk, "load_config", lambda _: copy.deepcopy(config))
    monkeypatch.setattr(on_disk, "check_tensors", lambda *_: None)
    monkeypatch.setattr(on_disk, "tqdm", NoBar)


STEPS = ("mkdir", "open", "write", "fsync", "rename", "unlink")


def test_killed_at_every_step_nothing_half_is_left(sharded, hasty, tmp_path):
    """A child kills itself before or after the k-th step that changes something, for every k."""
    reference, out = tmp_path / "reference", tmp_path / "out"
    on_disk.prune(sharded, reference, CONTIGUOUS)
    killed = 0
    while True:
        # Each finds what one that was killed just before its end has left.
        shutil.copytree(reference, tmp_path / ".out.unfinished", dirs_exist_ok=True)

        def work(left: list[int] = [killed]) -> None:  # noqa: B006
            def tick() -> None:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            def counted(call: Callable) -> Callable:
                def step(*arguments: object, **options: object) -> object:
                    tick()
                    answer = call(*arguments, **options)
                    tick()
                    return answer

                return step

            for name in STEPS:
                setattr(os, name, counted(getattr(os, name)))
            on_disk.prune(sharded, out, CONTIGUOUS)

        if finished(in_child(work)):
            break
        killed += 1
        if assert_nothing_half(out, reference):
            shutil.rmtree(out)
    assert killed > 30
    assert assert_nothing_half(out, reference)
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_killed_at_random_moments_nothing_half_is_left(sharded, hasty, tmp_path):
    reference, out = tmp_path / "reference", tmp_path / "out"
    on_disk.prune(sharded, reference, SCATTERED)
    killed, longest, generator = 0, 0.1, random.Random(0)  # seconds
    while killed < 20:
        child = in_child(lambda: on_disk.prune(sharded, out, SCATTERED))
        time.sleep(generator.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        came_through = finished(child)
        killed += not came_through
        longest *= 0.7 if came_through else 1.3  # about as long as a run takes here and now
        if assert_nothing_half(out, reference):
            shutil.rmtree(out)
    on_disk.prune(sharded, out, SCATTERED)  # over whatever the last one left
    assert_same(out, reference)


def test_two_runs_do_not_write_one_folder(sharded, tmp_path, capsys):
    hidden = tmp_path / ".out.unfinished"
    hidden.mkdir()
    lock = os.open(hidden, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert "another run" in fails(capsys, sharded, tmp_path / "out", "--drop", "1:4")
    assert hidden.exists()
    os.close(lock)
    assert on_disk.main([str(sharded), str(tmp_path / "out"), "--drop", "1:4"]) == 0
    assert not hidden.exists()


def test_a_full_disk_leaves_nothing(sharded, tmp_path, capsys, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    line = fails(capsys, sharded, tmp_path / "out", "--drop", "1:4")
    assert "No space left" in line and str(tmp_path / "out") in line
    assert list(tmp_path.iterdir()) == []


def test_stopped_by_hand_it_leaves_nothing(sharded, tmp_path, capsys, monkeypatch):
    def stop(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "copy_file", stop)  # the weights have been written
    assert on_disk.main([str(sharded), str(tmp_path / "out"), "--drop", "1:4"]) == 130
    assert "stopped" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_seen_before_anything_is_written(
    sharded, tmp_path, capsys, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "GB are free" in fails(capsys, sharded, tmp_path / "deep" / "out", "--drop", "1:4")
    assert list(tmp_path.iterdir()) == []
