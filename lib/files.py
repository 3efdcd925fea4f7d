"""Writing files and folders whole or not at all, also where many processes on many machines write
into one folder, and claiming one for a while."""

import ctypes
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout, lock_descriptor

from lib.errors import UserError
from lib.paths import from_home

FULL = {errno.ENOSPC, errno.EDQUOT}
# What file systems without hard links answer.
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
# And what those answer that cannot bring a folder to the disk.
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}
# Of Linux's renameat2 and of macOS's renamex_np.
AT_FDCWD, RENAME_EXCHANGE, RENAME_SWAP = -100, 2, 2
POLL = 0.5  # seconds between two looks at what another process holds


def write_atomically(path: Path, text: str) -> None:
    """Temporary file, fsync, rename: readers see the old content or the new, never a part.

    Raises UserError when the disk is full or the folder cannot be written."""
    with _finished(path, text) as partial:
        os.replace(partial, path)


def write_new(path: Path, text: str) -> bool:
    """The same, unless there is something of that name already: then that stays, and False is
    returned. Of several processes that write at once, one wins.

    Raises UserError as `write_atomically` does."""
    with _finished(path, text) as partial:
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            # Without hard links two that finish in the same moment both pass here, and the second
            # stays; either is whole.
            if path.exists():
                return False
            os.rename(partial, path)
    return True


@contextmanager
def _finished(path: Path, text: str) -> Iterator[Path]:
    """A hidden file beside `path` with this text, on the disk for good; what becomes of its name is
    brought there too, and what is left of it is gone in the end."""
    # Drawn, since processes on two machines may have one number.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            yield partial
            with suppress(OSError):  # not every file system can
                _sync(path.parent)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> UserError:
    """What to say when a file or folder cannot be written."""
    if error.errno in FULL:
        return UserError(
            f"no space left to write {path}: free some (or set RESULTS_DIR) and run again; "
            "everything recorded so far is kept"
        )
    return UserError(f"cannot write {path}: {error.strerror}")


@contextmanager
def written_by_others(folder: Path) -> Iterator[None]:
    """For libraries that write into a folder and hide what the system said to them.

    Raises UserError when the disk is full or the folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise unwritable(folder, error) from None
    except Exception:
        probe = folder / f".{secrets.token_hex(8)}.partial"
        try:
            probe.write_bytes(bytes(1 << 20))
        except OSError as error:
            raise unwritable(folder, error) from None
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
        raise


def copy_new(source: Path, out: Path) -> bool:
    """Copy a folder whole or not at all, unless there is something in `out` already: then that
    stays, and False is returned. A copy that was killed leaves a hidden folder, `.….copying`.

    Raises UserError when the disk is full or either folder cannot be read or written."""
    partial = out.with_name(f".{out.name}.{secrets.token_hex(8)}.copying")
    try:
        partial.mkdir(parents=True)
        for file in sorted(source.rglob("*")):
            if file.is_file():
                copy = partial / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
                _sync(copy)
        _sync(partial)
        try:
            os.rename(partial, out)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        with suppress(OSError):
            _sync(out.parent)
    except OSError as error:
        if error.errno in FULL:
            raise unwritable(out, error) from None
        raise UserError(f"cannot copy {source} to {out}: {error.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def files_below(folder: Path) -> dict[str, Path]:
    """The files in a folder and its folders, by their names from there on, without hidden and
    compiled ones. Passes over what goes meanwhile."""
    found = sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return {
        str(path.relative_to(folder)): path
        for path in found
        if path.suffix != ".pyc" and not path.name.startswith(".") and path.is_file()
    }


@contextmanager
def claimed(path: Path, waiting: str) -> Iterator[bool]:
    """Hold what a path stands for, alone among the processes that claim it; whether anything is
    there does not matter. While another holds it this waits, having printed `waiting` once.

    The claim ends with its process, however that ends; the hidden file `.<name>.lock` beside the
    path stays. A process must not claim a path twice. Yields whether it is really held: where the
    file system has no locks, or cannot be written, things go on without."""
    lock = FileLock(path.with_name(f".{path.name}.lock"), preserve_lock_file=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            print(waiting, file=sys.stderr, flush=True)
            lock.acquire(poll_interval=POLL)
    except (OSError, NotImplementedError):
        pass
    try:
        yield lock.is_locked
    finally:
        lock.release()


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


def check_writable(folder: Path) -> None:
    """Make a folder, if it is absent. Raises UserError where nothing can be written into it."""
    probe = folder / ".writable"
    write_atomically(probe, "")
    probe.unlink(missing_ok=True)


def check_space(out: Path, size: int) -> None:
    """Raises UserError unless `size` bytes are free where the folder `out` will be."""
    place = next(parent for parent in out.parents if parent.exists())
    free = shutil.disk_usage(place).free
    if free < size:
        raise UserError(
            f"folder {out}: needs {size / 1e9:.2f} GB, {free / 1e9:.2f} GB are free there"
        )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from None


@contextmanager
def whole_or_not_at_all(out: Path, anew: bool = False) -> Iterator[Path]:
    """A hidden folder beside `out` that gets its name at the end, on the disk for good; after an
    error it is gone. What an earlier run left there when it was killed is cleared. anew: what
    stands in `out` is replaced; until then it stays as it is.

    Raises UserError when the disk is full or the folder cannot be written."""
    unfinished = out.parent / f".{out.name}.unfinished"
    with _writing(out):
        unfinished.mkdir(parents=True, exist_ok=True)
        lock = os.open(unfinished, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            if not lock_descriptor(lock, blocking=False):
                raise UserError(f"folder {out}: another run is writing it")
        try:
            _clear(unfinished)
            yield unfinished
            synced(unfinished)
            with _writing(out):
                if anew and out.exists():
                    _exchange(unfinished, out)
                    _clear(unfinished)
                    unfinished.rmdir()
                else:
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


def _exchange(one: Path, other: Path) -> None:
    """Each of two folders gets the other's name, in one step where the system has that. Elsewhere a
    kill in between leaves the first with the name of the second, which is under a hidden one."""
    names = [os.fsencode(path) for path in (one, other)]
    libc = ctypes.CDLL(None, use_errno=True)
    with suppress(AttributeError):
        if sys.platform == "darwin":
            done = libc.renamex_np(*names, RENAME_SWAP)
        else:
            done = libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
        if done == 0:
            return
    aside = other.with_name(f".{other.name}.{secrets.token_hex(8)}.before")
    os.rename(other, aside)
    os.rename(one, other)
    os.rename(aside, one)


def _clear(folder: Path) -> None:
    # First what makes it loadable: clearing, too, may be killed half way.
    (folder / "config.json").unlink(missing_ok=True)
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def synced(folder: Path) -> None:
    """Bring a folder and all that is in it to the disk for good.

    Raises UserError when that cannot be done."""
    with _writing(folder):
        for path in [*folder.rglob("*"), folder]:
            _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(handle)
