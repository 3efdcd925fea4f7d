"""What a sweep has found so far, so that a killed one goes on where it was.

One line of JSON per row, appended and synced batch by batch; a last line that was cut off is
measured again. When everything is recorded as evidence, the journal is deleted.
"""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lib.evidence import digest

Found = list[tuple[float, bool]]  # per pruning: log-likelihood and greedy


class Journal:
    """Rows that have been scored, by a digest of their tokens."""

    def __init__(self, path: Path) -> None:
        """The path has to stand for everything that decides the scores but the row itself."""
        self.path = path
        self.known: dict[str, Found] = {}
        with suppress(FileNotFoundError):
            for line in path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):  # cut off
                    key, found = json.loads(line)
                    self.known[key] = [(value, greedy) for value, greedy in found]

    def add(self, entries: Iterable[tuple[str, Found]]) -> None:
        """Keep some rows for good."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            # After a kill the file may end within a line.
            file.write("\n" if file.tell() and not self._ends_well() else "")
            file.writelines(json.dumps(entry) + "\n" for entry in entries)
            file.flush()
            os.fsync(file.fileno())

    def _ends_well(self) -> bool:
        with open(self.path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def finish(self) -> None:
        self.path.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.parent.rmdir()


def row_key(tokens: tuple[int, ...], start: int) -> str:
    return digest([tokens, start])
