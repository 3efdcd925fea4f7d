"""Writing a folder whole or not at all."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lib.errors import UserError
from lib.paths import from_home


def free_place(out: Path, folder: Path | None = None) -> Path:
    """The folder to write, as an absolute path, if it is absent or empty and not in `folder`."""
    out = from_home(out).resolve()
    if folder and out.is_relative_to(folder.resolve()):
        raise UserError(f"folder {out}: lies in the checkpoint itself; choose one outside")
    if out.exists() and not out.is_dir():
        raise UserError(f"folder {out}: is a file")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"folder {out}: not empty; nothing is overwritten")
    return out


def check_space(out: Path, size: int) -> None:
    """Raises UserError unless `size` bytes are free where the folder `out` will be."""
    place = next(parent for parent in out.parents if parent.exists())
    free = shutil.disk_usage(place).free
    if free < size:
        raise UserError(
            f"folder {out}: needs {size / 1e9:.2f} GB, {free / 1e9:.2f} GB are free there"
        )


@contextmanager
def whole_or_not_at_all(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that gets its name at the end, on the disk for good; after an
    error it is gone. What an earlier run left there when it was killed is cleared."""
    unfinished = out.parent / f".{out.name}.unfinished"
    unfinished.mkdir(parents=True, exist_ok=True)
    lock = os.open(unfinished, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"folder {out}: another run is writing it") from None
        except OSError:
            pass  # a file system without locks
        try:
            _clear(unfinished)
            yield unfinished
            for folder in [*filter(Path.is_dir, unfinished.iterdir()), unfinished]:
                _sync(folder)
            os.rename(unfinished, out)
        except BaseException:
            with suppress(OSError):
                _clear(unfinished)
                unfinished.rmdir()
            raise
        with suppress(OSError):  # it is there, whole, whether or not a crash may still undo it
            _sync(out.parent)
    finally:
        os.close(lock)


def _clear(folder: Path) -> None:
    # First what makes it loadable: clearing, too, may be killed half way.
    (folder / "config.json").unlink(missing_ok=True)
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
