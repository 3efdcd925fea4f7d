"""What a sweep has found so far, so that a killed one goes on where it was.

One line of JSON per row with a checksum, appended and synced batch by batch. Several processes may
add to one journal; what cannot be read, such as a last line that was cut off, and what was changed
is measured again. When everything is recorded as evidence, the journal is deleted.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lib.evidence.records import digest
from lib.files import unwritable

Found = list[tuple[float, bool]]  # per pruning: log-likelihood and greedy


class Journal:
    """Rows that have been scored, by a digest of their tokens."""

    def __init__(self, path: Path) -> None:
        """The path has to stand for everything that decides the scores but the row itself."""
        self.path = path
        self.known: dict[str, Found] = {}
        with suppress(FileNotFoundError):
            for line in path.read_bytes().splitlines():
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
        self.path.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.parent.rmdir()


def _checksum(key: str, found: Found) -> str:
    # Scores that are not finite have a spelling in Python's JSON.
    return hashlib.sha256(json.dumps([key, found]).encode()).hexdigest()[:16]


def row_key(tokens: tuple[int, ...], start: int) -> str:
    return digest([tokens, start])
