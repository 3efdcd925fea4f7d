"""Local text: files, compressed ones too, and folders of them, read document by document.

Of every row those fields are read alone that are asked for, whatever stands beside them.
"""

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from lib.errors import UserError
from lib.evidence.records import digest, file_digest

FORMATS = (".jsonl", ".json", ".txt", ".parquet")
PACKED = (".gz", ".zst")  # what may follow them, but not .parquet, which is compressed itself
READ = f"{', '.join(FORMATS)}, or one of the first three followed by {' or '.join(PACKED)}"
ROWS = 1000  # of a .parquet file, at once
# How a .txt file becomes documents: raised when that changes.
PARAGRAPHS = 2
# Other fields may hold numbers of any length.
DECODER = json.JSONDecoder(parse_int=float)
# What readers raise, of a file that is cut off among others, or of a kind of .parquet that Arrow
# does not read.
UNREADABLE = (OSError, EOFError, ValueError, RecursionError, NotImplementedError, zlib.error)


def source(path: Path) -> dict[str, Any]:
    """What identifies the content of a file, or of a folder's files in their order: the bytes.

    Raises UserError as `files` does."""
    parts = [_source(one) for one in files(path)]
    return {"files": digest(parts, 64)} if path.is_dir() else parts[0]


def _source(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = {"sha256": file_digest(path)}
    except OSError as error:
        raise UserError(f"text {path}: cannot be read: {error.strerror}") from None
    return found | ({"paragraphs": PARAGRAPHS} if _format(path) == ".txt" else {})


def files(path: Path) -> list[Path]:
    """The file itself; or those in a folder and the folders below, by their names: all that can be
    read and are not hidden.

    Raises UserError where there is none."""
    if path.is_dir():
        below = sorted(one.relative_to(path) for one in path.rglob("*") if _format(one))
        found = [path / one for one in below if not any(p.startswith(".") for p in one.parts)]
        if found := [one for one in found if one.is_file()]:
            return found
        raise UserError(f"text {path}: no file in this folder ends in {READ}")
    if not _format(path):
        raise UserError(f"text {path}: allowed are folders, and files ending in {READ}")
    if not path.is_file():
        raise UserError(f"text {path}: there is no such file")
    return [path]


def _format(path: Path) -> str | None:
    """The ending that says how it is read, but not how it is compressed; None: not at all."""
    packed = path.suffix in PACKED
    ending = path.with_suffix("").suffix if packed else path.suffix
    return ending if ending in FORMATS[: 3 if packed else None] else None


def documents(path: Path) -> Iterator[str]:
    """Non-empty documents in the order of the files, and in theirs.

    Raises UserError, which names the file and the line or row, for what cannot be read, where the
    text of a row is missing or no text, and where there is no document at all."""
    empty = True
    for what, where, row in rows(path, ["text"]):
        document = field(row, ["text"], what, where)
        if document.strip():
            empty = False
            yield document
    if empty:
        what = "the file is empty" if path.is_file() and not path.stat().st_size else None
        raise UserError(f"text {path}: {what or 'no document in it has any text'}")


def rows(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    """Of each row the file and the place where it stands, for messages, and the row: what it is in
    a file of JSON, with more fields than asked for; of others a mapping.

    Raises UserError for what cannot be read."""
    for file in files(path):
        for where, row in _read(file, fields):
            yield f"text {file}", where, row


def _read(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, Any]]:
    kind = _format(path)
    try:
        if kind == ".parquet":
            yield from _columns(path, fields)
        else:
            with _unpacked(path) as file:
                yield from _paragraphs(file) if kind == ".txt" else _json(file)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"text {path}: cannot be read as {kind}: {reason}") from None


def _unpacked(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return gzip.open(path)
    if path.suffix == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"))
    return open(path, "rb")


def _paragraphs(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    """Lines between blank ones, which may hold blanks."""
    lines: list[str] = []
    number = 0
    for number, line in enumerate(io.TextIOWrapper(file, "utf-8-sig"), 1):
        if line.strip():
            lines.append(line.removesuffix("\n"))
        elif lines:
            yield f"line {number - 1}", {"text": "\n".join(lines)}
            lines = []
    if lines:
        yield f"line {number}", {"text": "\n".join(lines)}


def _json(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    """An object a line; or one list of objects or of texts, which is read as a whole."""
    for number, line in enumerate(file, 1):
        line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if number == 1 and line.lstrip().startswith(b"["):
            items = DECODER.decode((line + file.read()).decode())
            for i, item in enumerate(items, 1):
                yield f"item {i}", {"text": item} if isinstance(item, str) else item
        elif line.strip():
            try:
                row = DECODER.decode(line.decode())
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number}: {error}") from None
            yield f"line {number}", row


def _columns(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, Any]]:
    from pyarrow.parquet import ParquetFile

    with open(path, "rb") as opened, ParquetFile(opened) as file:
        columns = [name for name in file.schema_arrow.names if name in fields]
        if not columns:
            names = ", ".join(file.schema_arrow.names)
            raise UserError(f"text {path}: needs a column {_named(fields)}, there are {names}")
        number = 0
        for batch in file.iter_batches(ROWS, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row


def field(row: Any, names: Sequence[str], what: str, where: str) -> str:
    """The text in the first of these fields that a row has.

    Raises UserError, which says what is read and where, where there is none, or no text in it."""
    name = next((name for name in names if isinstance(row, dict) and name in row), None)
    if name is None:
        raise UserError(f"{what}: lines need a field {_named(names)}; {where} has none")
    text = row[name]
    if not isinstance(text, str):
        raise UserError(f"{what}: the field '{name}' must be text in every line; {where}'s is not")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{what}: {where} holds half a character, \\ud800 or the like") from None
    return text


def _named(names: Sequence[str]) -> str:
    return " or ".join(f"'{name}'" for name in names)
