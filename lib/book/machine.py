"""What this machine has for its jobs: memory, and one GPU each where there are several. A cluster
hands them out by itself."""

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lib import paths

VISIBLE = "CUDA_VISIBLE_DEVICES"


def host_memory() -> int:
    """Bytes of this machine's memory, or of its container's."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    with suppress(OSError, ValueError):  # "max" where there is none
        return min(whole, int(limit.read_text()))
    return whole


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get(VISIBLE)
    if given is not None:
        return [one for one in given.split(",") if one.strip() and one != "-1"]
    with suppress(OSError):
        asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.split()
    return []


@contextmanager
def one_each(gpus: Sequence[str], count: int) -> Iterator[None]:
    """Hold `count` of these GPUs, and have this process and its children see no others. Waits while
    other jobs hold them; a job that is killed lets go of its own."""
    if not count or len(gpus) <= count:
        yield
        return
    held: dict[str, int] = {}
    before = os.environ.get(VISIBLE)
    try:
        while len(held) < count:
            for gpu in gpus:
                if gpu not in held and len(held) < count:
                    lock = _locked(paths.BUILD / "gpus" / f"{gpu}.lock")
                    if lock is not None:
                        held[gpu] = lock
            if len(held) < count:
                time.sleep(0.2)
        os.environ[VISIBLE] = ",".join(held)
        yield
    finally:
        if before is None:
            os.environ.pop(VISIBLE, None)
        else:
            os.environ[VISIBLE] = before
        for lock in held.values():
            os.close(lock)


def _locked(path: Path) -> int | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock
