"""Measurements on disk: one small JSON file each, kept for ever, measured once.

A record's name carries a digest of everything that decides its value (`inputs`), so a value is
found again exactly when it would come out the same. What does not decide it (device, batch size,
date) stands beside it as provenance. Records are written whole or not at all, and each carries a
checksum of its own content: one that is cut off, edited or of another schema is named, set aside
and measured again.

    store = Store(paths.results("almanac"))
    value = store.get_or_measure("loss", "simple n=4", inputs, lambda: {...})
"""

import datetime
import errno
import hashlib
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from lib import paths
from lib.errors import UserError

SCHEMA = 1
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "lm_eval", "numpy")


def canonical(value: Any) -> str:
    """One spelling per value; refuses NaN, which JSON cannot carry."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any, size: int = 16) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:size]


class Store:
    """The evidence of one study. `get_or_measure` is all that sections need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "evidence"
        self.used: set[Path] = set()  # the records that were asked for and found

    def path(self, kind: str, name: str, inputs: dict[str, Any]) -> Path:
        readable = re.sub(r"[^A-Za-z0-9.=-]+", "_", name).strip("_")[:80]
        return self.folder / kind / f"{readable}-{digest(inputs)}.json"

    def unfinished(self, inputs: Any) -> Path:
        """Where to keep what is found on the way to values with these inputs."""
        return self.folder.parent / "unfinished" / f"{digest(inputs)}.jsonl"

    def get(self, kind: str, name: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
        """The recorded value, or None. A damaged record is set aside and counts as none."""
        inputs = json.loads(canonical(inputs))  # tuples become lists, as they are read back
        path = self.path(kind, name, inputs)
        if not path.exists():
            return None
        record, problem = read(path)
        if problem is None and record["inputs"] != inputs:
            problem = "its inputs are not those its name stands for"
        if problem is not None:
            aside = path.with_suffix(".damaged")
            os.replace(path, aside)
            print(f"evidence {path.name}: {problem}; set aside, measuring again", file=sys.stderr)
            return None
        self.used.add(path)
        return record["value"]

    def put(
        self, kind: str, name: str, inputs: dict[str, Any], value: dict[str, Any], **provenance: Any
    ) -> Path:
        inputs, value = json.loads(canonical(inputs)), json.loads(canonical(value))
        path = self.path(kind, name, inputs)
        record = {
            "schema": SCHEMA,
            "kind": kind,
            "name": name,
            "inputs": inputs,
            "value": value,
            "provenance": surroundings() | provenance,
        }
        record["checksum"] = digest(record, 64)
        write_atomically(path, json.dumps(record, indent=1, sort_keys=True, allow_nan=False))
        return path

    def get_or_measure(
        self,
        kind: str,
        name: str,
        inputs: dict[str, Any],
        measure: Callable[[], dict[str, Any]],
        **provenance: Any,
    ) -> dict[str, Any]:
        """The recorded value, or else `measure()`, recorded."""
        found = self.get(kind, name, inputs)
        if found is not None:
            return found
        start = time.monotonic()
        value = json.loads(canonical(measure()))
        seconds = round(time.monotonic() - start, 3)
        self.put(kind, name, inputs, value, seconds=seconds, **provenance)
        return value


def read(path: Path) -> tuple[dict[str, Any], str | None]:
    """A record and what is wrong with it (None: nothing)."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"evidence {path}: cannot be read: {error.strerror}") from None
    except ValueError:
        return {}, "cut off or not JSON"
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        return {}, f"not of schema {SCHEMA}"
    checksum = record.pop("checksum", None)
    if checksum != digest(record, 64):
        return {}, "edited: its checksum does not match its content"
    return record, None


def verify(folder: Path) -> list[str]:
    """One line for every damaged record below a folder."""
    problems = []
    for path in sorted(folder.rglob("evidence/*/*.json")):
        record, problem = read(path)
        if problem is None and not path.stem.endswith(digest(record["inputs"])):
            problem = "its name does not fit its inputs"
        if problem is not None:
            problems.append(f"evidence {path}: {problem}")
    return problems


def write_atomically(path: Path, text: str) -> None:
    """Temporary file, fsync, rename: readers see the old content or the new, never a part.

    Raises UserError when the disk is full or the folder cannot be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space left to write {path}: free some (or set RESULTS_DIR) and run again; "
                "everything recorded so far is kept"
            ) from None
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def file_digest(path: Path) -> str:
    """SHA-256 of a file, remembered by its size, time and inode, so that big ones are read once."""
    stat = path.stat()
    key = digest([str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino])
    note = paths.BUILD / "digests" / key
    if note.exists() and len(known := note.read_text().strip()) == 64:
        return known
    with open(path, "rb") as file:
        value = hashlib.file_digest(file, "sha256").hexdigest()
    write_atomically(note, value)
    return value


@cache
def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


@cache
def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(paths.ROOT), "rev-parse", "HEAD"], capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def surroundings() -> dict[str, Any]:
    """Provenance: when, on what, with which versions. Peak memory is the process's so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_available()
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": torch.cuda.get_device_name() if on_gpu else processor(),
        "threads": torch.get_num_threads() if torch is not None else None,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "python": platform.python_version(),
        "packages": _versions(),
        "commit": _commit(),
    }


@cache
def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
