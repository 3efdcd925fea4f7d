"""What a sweep has found so far, so that a killed one goes on where it was.

One line of JSON per row with a checksum, appended and synced batch by batch. Several processes may
add to one journal; what cannot be read, such as a last line that was cut off, and what was changed
is measured again. When everything is recorded as evidence, the journal is deleted.

A sweep may be split into shares, which other machines work on at the same time: each takes every
so manieth batch and has a file of its own beside the journal, where whoever puts them together
finds it.
"""

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lib.evidence.records import digest
from lib.files import unwritable

Found = list[tuple[float, bool]]  # per pruning: log-likelihood and greedy
WHOLE = (1, 1)


class Journal:
    """Rows that have been scored, by a digest of their tokens."""

    def __init__(self, path: Path, share: tuple[int, int] = WHOLE) -> None:
        """The path has to stand for everything that decides the scores but the row itself. share:
        (2, 4) is the second of four."""
        self.share, self._all = share, path
        number, count = share
        self.path = path if share == WHOLE else path.with_name(f"{path.name}.{number}-of-{count}")
        self.known: dict[str, Found] = {}
        for file in self._files():
            with suppress(FileNotFoundError):
                self._read(file)

    @property
    def whole(self) -> bool:
        return self.share == WHOLE

    def share_of(self, batches: Sequence[Any]) -> Sequence[Any]:
        """Those of all batches that are scored here."""
        number, count = self.share
        return batches[number - 1 :: count]

    def _files(self) -> list[Path]:
        """Its own and those of shares."""
        return [self._all, *self._all.parent.glob(f"{glob.escape(self._all.name)}.*-of-*")]

    def _read(self, file: Path) -> None:
        for line in file.read_bytes().splitlines():
            with suppress(ValueError, TypeError):  # cut off, or two lines in one
                key, found, check = json.loads(line)
                if check == _checksum(key, found):
                    self.known[key] = [(value, greedy) for value, greedy in found]

    def add(self, entries: Iterable[tuple[str, Found]]) -> None:
        """Keep some rows for good.

        Raises UserError when the disk is full or the folder cannot be written."""
        lines = "".join(
            json.dumps([key, found, _checksum(key, found)]) + "\n" for key, found in entries
        ).encode()
        try:
            handle = self._open()
            try:
                # After a kill the file may end within a line.
                size = os.fstat(handle).st_size
                broken = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
                # In one write at the end of the file, so that lines of two processes do not mix.
                left = b"\n" * broken + lines
                while left:  # more than once only where a disk fills
                    left = left[os.write(handle, left) :]
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise unwritable(self.path, error) from None

    def _open(self) -> int:
        for left in reversed(range(10)):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                return os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            except FileNotFoundError:  # taken away by another process that has finished
                if not left:
                    raise

    def finish(self) -> None:
        for file in self._files():
            file.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.parent.rmdir()


def _checksum(key: str, found: Found) -> str:
    # Scores that are not finite have a spelling in Python's JSON.
    return hashlib.sha256(json.dumps([key, found]).encode()).hexdigest()[:16]


def row_key(tokens: tuple[int, ...], start: int) -> str:
    return digest([tokens, start])
