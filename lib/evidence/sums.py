"""Checksums of a folder's files, kept in the folder: what was put aside for later (adapters, a
state of training) is found again as it was, or not used.

They stand in a file that `sha256sum -c SHA256SUMS` reads.
"""

import hashlib
from pathlib import Path

from lib.files import synced, write_atomically

NAME = "SHA256SUMS"


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(folder: Path) -> None:
    """Bring every file of a folder to the disk for good, and then the sums of all of them: that
    they are there says that the folder was written to its end.

    Raises UserError when the disk is full or the folder cannot be written."""
    synced(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_atomically(folder / NAME, "".join(lines))


def there(folder: Path) -> bool:
    return (folder / NAME).is_file()


def damage(folder: Path) -> str | None:
    """What is wrong with the files of a folder that has sums; None: nothing, or it has none."""
    if not there(folder):
        return None
    for line in (folder / NAME).read_text("utf-8", "replace").splitlines():
        known, _, name = line.partition("  ")
        if len(known) != 64 or not name:
            return f"{NAME} is damaged"
        if not (folder / name).is_file():
            return f"{name} is missing"
        if sha256(folder / name) != known:
            return f"{name} is not what was written"
    return None
