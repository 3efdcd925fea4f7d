"""Records of measurements as they stand on disk: their spelling, their names, and reading them.

A record is found in one of two places: in a study's results folder, where each is a file of its own
(results/<study>/evidence/<kind>/<name>-<digest>.json), or in an evidence.jsonl file, one per line.

    for label, record, problem in records("almanac"):
        ...
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lib import paths
from lib.errors import UserError
from lib.evidence import sums
from lib.evidence.sums import sha256
from lib.files import write_atomically

SCHEMA = 1
FIELDS = {"kind": str, "name": str, "inputs": dict, "value": dict, "provenance": dict}
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # of a study
SMALL = 1 << 20  # bytes; what is smaller is read as fast as a note about it
SAMPLES, SAMPLE = 64, 256  # pieces of a file, and bytes of each
SETTLED = 10  # seconds; the coarsest clocks of file systems tick every two
PARTS = ("evidence", "adapters", "unfinished")  # by which a results folder is known
GONE = "is no longer there"
LEFT = {
    ".damaged": "a damaged record that was set aside; delete it when you have seen it",
    ".conflict": "another value of what had been recorded; delete it when you have seen it",
}

Record = dict[str, Any]


def canonical(value: Any) -> str:
    """One spelling per value; refuses NaN, which JSON cannot carry."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any, size: int = 16) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:size]


def file_digest(path: Path) -> str:
    """SHA-256 of a file. That of a big one is remembered, so that it is read once: by its place,
    size, times and inode, and by a sample of its bytes. Of the times, that of the last change tells
    files apart to which a copy gave the time of modification, and where a file system has none, the
    sample does. What has changed a moment ago is not remembered: a further change may get the same
    time."""
    if path.stat().st_size < SMALL:
        return sha256(path)
    state = _state(path)
    settled = time.time() - path.stat().st_ctime > SETTLED
    note = paths.BUILD / "digests" / digest(state)
    if note.exists():
        known, _, check = note.read_text().partition(" ")
        if check == digest([state, known]):
            return known
    value = sha256(path)
    if settled and _state(path) == state:
        with suppress(UserError):  # a clone that is only read: it is worked out anew each time
            write_atomically(note, f"{value} {digest([state, value])}")
    return value


def _state(path: Path) -> list[Any]:
    """What is known of a file's content without reading all of it."""
    with open(path, "rb", buffering=0) as file:
        stat = os.fstat(file.fileno())
        places = [stat.st_size * i // SAMPLES for i in range(SAMPLES)]
        sample = b"".join(os.pread(file.fileno(), SAMPLE, at) for at in places)
    of = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    return [str(path), *of, hashlib.sha256(sample).hexdigest()]


def spelled(record: Record, indent: int | None = None) -> str:
    """A record as text, with its checksum."""
    whole = record | {"checksum": digest(record, 64)}
    return json.dumps(whole, indent=indent, sort_keys=True, allow_nan=False)


def file_of(kind: str, name: str, inputs: dict[str, Any]) -> Path:
    """Where a record stands below a study's folder `evidence`."""
    readable = re.sub(r"[^A-Za-z0-9.=-]+", "_", name).strip("_")[:80]
    return Path(kind) / f"{readable}-{digest(inputs)}.json"


def read(path: Path) -> tuple[Record, str | None]:
    """A record, without its checksum, and what is wrong with it (None: nothing).

    Raises UserError when the file cannot be read."""
    try:
        return _read(path)
    except OSError as error:
        raise UserError(f"evidence {path}: cannot be read: {error.strerror}") from None


def _read(path: Path) -> tuple[Record, str | None]:
    try:
        return _parsed(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}, "a link that leads nowhere" if path.is_symlink() else GONE


def _parsed(text: bytes) -> tuple[Record, str | None]:
    try:
        record = json.loads(text)
        if b"\\ud" in text.lower():  # half a character could be neither shown nor written
            json.dumps(record, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return {}, "cut off or not JSON"
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        return {}, f"not of schema {SCHEMA}"
    checksum = record.pop("checksum", None)
    try:
        sound = checksum == digest(record, 64)
    except ValueError:  # NaN
        sound = False
    if not sound:
        return {}, "edited: its checksum does not match its content"
    whole = all(isinstance(record.get(key), kind) for key, kind in FIELDS.items())
    if not whole or not re.fullmatch(r"\w+", record["kind"]):  # it becomes the name of a folder
        return {}, f"not of schema {SCHEMA}"
    return record, None


def locate(place: str | Path) -> Path:
    """The results folder or .jsonl file that a place means: a path to either, or a study's name.

    Raises UserError when there is neither."""
    path = paths.from_home(place)
    if path.suffix == ".jsonl":
        if not path.is_file():
            raise UserError(f"evidence {path}: there is no such file")
        return path
    by_name = re.fullmatch(NAME, str(place))
    for folder in (path, paths.results(str(place))) if by_name else (path,):
        if any((folder / part).is_dir() for part in PARTS):
            return folder
    raise UserError(
        f"place '{place}': no results there; give a study's name, a study's results folder "
        "or an evidence.jsonl file"
    )


def locate_new(place: str | Path) -> Path:
    """The results folder that a place means, to write into. Given by its path, it may be new.

    Raises UserError when it cannot be one."""
    path = paths.from_home(place)
    if path.suffix == ".jsonl":
        raise UserError(f"place '{place}': a .jsonl file is only read; give a results folder")
    with suppress(UserError):
        return locate(place)
    if re.fullmatch(NAME, str(place)):
        raise UserError(
            f"place '{place}': no study of this name has results here; "
            f"a new folder is given by its path, such as {paths.results(str(place))}"
        )
    if path.exists() and not path.is_dir():
        raise UserError(f"folder {path}: is a file")
    # A merge that was killed at once leaves hidden files only.
    if path.exists() and any(not one.name.startswith(".") for one in path.iterdir()):
        raise UserError(f"folder {path}: not empty, and no study's results folder")
    return path


def records(place: str | Path) -> Iterator[tuple[str, Record, str | None]]:
    """Every record of a place: its file or line, the record without its checksum, and what is wrong
    with it (None: nothing; otherwise the record is empty).

    Raises UserError when there is no such place."""
    return in_place(locate(place))


def in_place(path: Path) -> Iterator[tuple[str, Record, str | None]]:
    """The same of a place that was located."""
    return _in_file(path) if path.is_file() else _in_folder(path)


def _in_folder(folder: Path) -> Iterator[tuple[str, Record, str | None]]:
    evidence = folder / "evidence"
    for path in sorted(evidence.glob("*/*.json")):
        try:
            record, problem = _read(path)
        except OSError as error:
            record, problem = {}, f"cannot be read: {error.strerror}"
        if problem is None:
            name = file_of(record["kind"], record["name"], record["inputs"])
            if evidence / name != path:
                record, problem = {}, "its name does not fit its inputs"
        if problem != GONE:  # set aside or deleted since they were listed
            yield str(path), record, problem


def _in_file(path: Path) -> Iterator[tuple[str, Record, str | None]]:
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", *_parsed(line)
    except OSError as error:
        raise UserError(f"evidence {path}: cannot be read: {error.strerror}") from None


def verify(place: Path) -> list[str]:
    """One line for every damaged or misnamed record of a results folder or .jsonl file, for every
    file in it that was set aside, and for adapters that are not as they were kept."""
    found = in_place(place)
    problems = [f"evidence {label}: {problem}" for label, _, problem in found if problem]
    for path in sorted((place / "evidence").glob("*/*")):
        if path.suffix in LEFT:
            problems.append(f"evidence {path}: {LEFT[path.suffix]}")
    for folder in sorted((place / "adapters").glob("[!.]*")):
        try:
            problem = sums.damage(folder)
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
        if problem:
            problems.append(f"adapters {folder}: {problem}")
    return problems
