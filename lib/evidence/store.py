"""The evidence of one study: what was measured is found again, what was not is recorded.

A record's name carries a digest of everything that decides its value (`inputs`), so a value is
found again exactly when it would come out the same. What does not decide it (device, batch size,
date) stands beside it as provenance. A record appears whole or not at all, and carries a checksum
of its own content: one that is cut off, edited or of another schema is named, set aside and
measured again.

Many processes on many machines may write into one folder. The first record of a name stays; one
that comes later with another value is kept beside it, and named.

    store = Store(paths.results("almanac"))
    value = store.get_or_measure("loss", "simple n=4", inputs, lambda: {...})
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.evidence.provenance import surroundings
from lib.evidence.records import GONE, SCHEMA, Record, canonical, digest, file_of, read, spelled
from lib.files import write_new


class Store:
    """The evidence of one study. `get_or_measure` is all that sections need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "evidence"
        self.used: set[Path] = set()  # the records that were asked for and found

    def path(self, kind: str, name: str, inputs: dict[str, Any]) -> Path:
        return self.folder / file_of(kind, name, inputs)

    def unfinished(self, inputs: Any) -> Path:
        """Where to keep what is found on the way to values with these inputs."""
        return self.folder.parent / "unfinished" / f"{digest(inputs)}.jsonl"

    def get(self, kind: str, name: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
        """The recorded value, or None. A damaged record is set aside and counts as none."""
        inputs = json.loads(canonical(inputs))  # tuples become lists, as they are read back
        path = self.path(kind, name, inputs)
        record = self._standing(path, inputs)
        if record is None:
            return None
        self.used.add(path)
        return record["value"]

    def put(
        self, kind: str, name: str, inputs: dict[str, Any], value: dict[str, Any], **provenance: Any
    ) -> Path:
        """Record a value, unless one is recorded; another one than that is kept beside it."""
        record = {
            "schema": SCHEMA,
            "kind": kind,
            "name": name,
            "inputs": json.loads(canonical(inputs)),
            "value": json.loads(canonical(value)),
            "provenance": surroundings() | provenance,
        }
        self._keep(record)
        return self.path(kind, name, record["inputs"])

    def get_or_measure(
        self,
        kind: str,
        name: str,
        inputs: dict[str, Any],
        measure: Callable[[], dict[str, Any]],
        **provenance: Any,
    ) -> dict[str, Any]:
        """The recorded value, or else what is recorded once `measure()` is: its value, or that of
        another process that was faster."""
        found = self.get(kind, name, inputs)
        return self._anew(kind, name, inputs, measure, provenance) if found is None else found

    def _anew(
        self,
        kind: str,
        name: str,
        inputs: dict[str, Any],
        measure: Callable[[], dict[str, Any]],
        provenance: dict[str, Any],
    ) -> dict[str, Any]:
        """Measured and recorded."""
        start = time.monotonic()
        value = json.loads(canonical(measure()))
        seconds = round(time.monotonic() - start, 3)
        self.put(kind, name, inputs, value, seconds=seconds, **provenance)
        recorded = self.get(kind, name, inputs)
        return value if recorded is None else recorded

    def records(self) -> Iterator[Record]:
        """All that are sound, by kind and name."""
        for path in sorted(self.folder.glob("*/*.json")):
            record, problem = read(path)
            if problem is None:
                yield record

    def standing(self, record: Record) -> Record | None:
        """What is recorded of these inputs under this name, if anything is."""
        path = self.path(record["kind"], record["name"], record["inputs"])
        return self._standing(path, record["inputs"])

    def add(self, record: Record) -> Record | None:
        """Record this, unless something is recorded under its name: then that stays and is
        returned."""
        path = self.path(record["kind"], record["name"], record["inputs"])
        while (standing := self._standing(path, record["inputs"])) is None:
            if write_new(path, spelled(record, indent=1)):
                return None
        return standing

    def _keep(self, record: Record) -> None:
        standing = self.add(record)
        if standing is None or standing["value"] == record["value"]:
            return
        path = self.path(record["kind"], record["name"], record["inputs"])
        beside = path.with_name(f"{path.stem}.{digest(record['value'], 8)}.conflict")
        write_new(beside, spelled(record, indent=1))
        print(
            f"evidence {path.name}: recorded by another process with another value; that one "
            f"stays, this one is kept as {beside.name}",
            file=sys.stderr,
        )

    def _standing(self, path: Path, inputs: dict[str, Any]) -> Record | None:
        """The sound record of that name, or None. A damaged one is set aside."""
        record, problem = read(path)
        if problem is None and record["inputs"] != inputs:
            problem = "its inputs are not those its name stands for"
        if problem is None:
            return record
        if problem != GONE:
            self._set_aside(path, problem, inputs)
        return None

    def _set_aside(self, path: Path, problem: str, inputs: dict[str, Any]) -> None:
        aside = path.with_name(f"{path.stem}.{secrets.token_hex(4)}.damaged")
        try:
            os.rename(path, aside)
        except FileNotFoundError:  # another process was faster
            return
        except OSError as error:
            raise UserError(
                f"evidence {path}: {problem}; it cannot be set aside: {error.strerror}"
            ) from None
        record, problem_now = read(aside)
        if problem_now is None and record["inputs"] == inputs:
            # Since it was read, others had set it aside and recorded anew: that goes back.
            self._keep(record)
            aside.unlink()
            return
        print(f"evidence {path.name}: {problem}; set aside as {aside.name}", file=sys.stderr)
