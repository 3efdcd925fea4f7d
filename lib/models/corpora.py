"""Texts → token sequences: windows for distances, documents for loss, packed rows for healing."""

import hashlib
import logging
import random
from array import array
from collections.abc import Collection, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lib.errors import UserError
from lib.fields import Calibration, Data, NamedText, Text
from lib.models import fetched_texts, instructions, text_files
from lib.models.hub import explain
from lib.schema import Loss

DISTINCT = 32  # tokens from which on a document is like no other
SHUFFLE_BUFFER = 10_000  # documents held while a streamed hub dataset is shuffled
# Characters held while local text is shuffled, which is read once more for each so many; a document
# counts as some more than it has.
HELD, EACH = 1 << 28, 200


class TooShort(UserError):
    """A text of which more is asked than it holds."""


def describe(text: Text) -> str:
    return text.path or "/".join(filter(None, [text.dataset, text.config, text.split]))


def source(text: Text) -> dict[str, Any]:
    """What identifies what is read: hashes of files, or a hub dataset at a commit; of instructions
    also how they are put."""
    if isinstance(text, Data) and text.rows == "instructions":
        put = text.model_dump(include={"rows", "scored", "template"})
        return _content(text) | put
    return _content(text)


def _content(text: Text) -> dict[str, Any]:
    if text.path is not None:
        return text_files.source(Path(text.path))
    from huggingface_hub import HfApi

    if (found := fetched_texts.note(text)) is not None:
        commit = found["commit"]
    else:
        try:
            commit = HfApi().dataset_info(text.dataset, revision=text.revision, timeout=10).sha
        except Exception as error:  # many kinds: no network, gated, misspelt
            raise _hub_error(text, error) from None
    return {"dataset": text.dataset, "config": text.config, "split": text.split, "commit": commit}


def documents(
    text: Text, seed: int | None, refused: Collection[bytes] = frozenset()
) -> Iterator[str]:
    """Non-empty documents, shuffled with a seed, or in the file's order when it is None.

    Raises UserError for a text that is missing, unreadable or empty, and for a document with one
    of the fingerprints that are refused."""
    for document in _documents(text, seed):
        _refuse(text, document, refused)
        yield document


def rows(data: Data, refused: Collection[bytes] = frozenset()) -> list[instructions.Row]:
    """All rows of a data set of instructions, in its order. Raises UserError as `documents`."""
    found = list(_rows(data))
    for row in found:
        _refuse(data, row.document, refused)
    return found


def _rows(data: Data) -> Iterator[instructions.Row]:
    if data.path is not None:
        yield from instructions.of_files(Path(data.path))
        return
    for number, row in enumerate(_stream(data, None), 1):
        yield instructions.of_row(row, f"text {describe(data)}", f"row {number}")


def _refuse(text: Text, document: str, refused: Collection[bytes]) -> None:
    if refused and fingerprint(document) in refused:
        raise UserError(
            f"text {describe(text)}: a document of it is in the validation text, or another "
            f"one with loss, too, '{_beginning(document)}'; healing may not see what it is "
            "measured on"
        )


def fingerprint(document: str) -> bytes:
    return hashlib.sha256(document.strip().encode()).digest()


def _beginning(document: str) -> str:
    return " ".join(document.split())[:60]


def _documents(text: Text, seed: int | None) -> Iterator[str]:
    if isinstance(text, Data) and text.rows == "instructions":
        yield from (row.document for row in _rows(text))
        return
    if text.path is not None:
        path = Path(text.path)
        yield from text_files.documents(path) if seed is None else _shuffled(path, seed)
        return
    for row in _stream(text, seed):
        if "text" not in row:
            columns = ", ".join(row)
            raise UserError(f"text {describe(text)}: no column 'text', only {columns}")
        if not isinstance(row["text"], str):
            raise UserError(f"text {describe(text)}: the column 'text' must be text everywhere")
        if row["text"].strip():
            yield row["text"]


def _stream(text: Text, seed: int | None) -> Iterator[dict[str, Any]]:
    """The rows of a data set on the hub, or of what has been fetched of it."""
    found = fetched_texts.note(text)
    try:
        if found is not None:
            stream = fetched_texts.stream(found)
        else:
            where = {"split": text.split, "revision": text.revision}
            stream = _load_dataset(text.dataset, text.config, **where)
        if seed is not None:
            stream = stream.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
        yield from stream
    except (OSError, ValueError, RuntimeError) as error:
        raise _hub_error(text, error) from None


def _shuffled(path: Path, seed: int) -> Iterator[str]:
    """All documents in the order that a list of them is shuffled into, without such a list."""
    lengths = array("Q", map(len, text_files.documents(path)))
    order = array("Q", range(len(lengths)))
    random.Random(seed).shuffle(order)
    end = 0
    while end < len(order):
        wanted, held = {}, 0
        while end < len(order) and (not wanted or held < HELD):
            wanted[order[end]] = ""
            held += lengths[order[end]] + EACH
            end += 1
        for number, document in enumerate(text_files.documents(path)):
            if number in wanted:
                wanted[number] = document
        yield from wanted.values()


def check(text: Text) -> None:
    """Read a local text to its end, and the beginning of one on the hub.

    Raises UserError as `documents` does."""
    for _ in documents(text, seed=None):
        if text.path is None:
            return


def check_disjoint(measured: Text, read: Text) -> None:
    """Raises UserError when what loss is measured on is read otherwise too, to train on or to
    choose layers; or, of calibration text, what is trained on. That is the same source, or, in
    local files, the same document."""
    sources = [describe(text) for text in (measured, read)]
    if sources[0] == sources[1]:
        both = f"{_role(measured, 'validation_text')} and {_role(read, 'healing_text')}"
        raise UserError(f"text {sources[0]}: is both {both}")
    if measured.path is None or read.path is None:
        return
    known = {fingerprint(document) for document in documents(measured, seed=None)}
    found = documents(read, seed=None)
    shared = (_beginning(document) for document in found if fingerprint(document) in known)
    if (first := next(shared, None)) is not None:
        count = 1 + sum(1 for _ in shared)
        why = "healing may not see what it is measured on"
        if any(isinstance(text, Calibration) for text in (measured, read)):
            why = "layers are chosen on text apart from all that is evaluated or healed on"
        raise UserError(
            f"text {sources[1]}: {count} of its documents are in {sources[0]} too, e.g. "
            f"'{first}'; {why}"
        )


def _role(text: Text, otherwise: str) -> str:
    """What a study calls it."""
    if isinstance(text, NamedText):
        return f"one of other_texts with loss, '{text.name}',"
    if isinstance(text, Data):
        return "one of healing_data"
    return "calibration" if isinstance(text, Calibration) else otherwise


@lru_cache(maxsize=8)
def measured_on(text: Text, sample: Loss, tokenizer: PreTrainedTokenizerBase) -> frozenset[bytes]:
    """Fingerprints of the documents on which loss is measured, where they are streamed: files are
    compared as a whole (`check_disjoint`). Without short ones, such as headings, of which two texts
    have the same by chance."""
    found = documents(text, sample.seed if sample.sample == "random" else None)
    used = ((document, _first_ids(tokenizer, document, DISTINCT)) for document in found)
    used = islice((pair for pair in used if _predicts(pair[1])), sample.n_sequences)
    return frozenset(fingerprint(document) for document, ids in used if len(ids) >= DISTINCT)


def _predicts(sequence: list[int]) -> bool:
    """Whether there is a token to predict."""
    return len(sequence) >= 2


def _first_ids(tokenizer: PreTrainedTokenizerBase, document: str, length: int) -> list[int]:
    """Cut here, not by the tokenizer: that may be set up to keep the end, or to put a special token
    in the place of the text's last one."""
    return tokenizer(document, verbose=False)["input_ids"][:length]


def cuts_otherwise(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer would keep other tokens of a document than its first ones. Documents
    were once cut so."""
    document, length = "These are the first words of it, and those that are here the last.", 8
    cut = tokenizer(document, truncation=True, max_length=length)["input_ids"]
    return cut != _first_ids(tokenizer, document, length)


def document_sequences(
    text: Text,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    length: int,
    seed: int | None,
    refused: Collection[bytes] = frozenset(),
) -> list[list[int]]:
    """`count` documents as token ids with their special tokens, cut at `length` tokens.

    Documents of fewer than two tokens have nothing to predict and are passed over."""
    found = documents(text, seed, refused)
    ids = (_first_ids(tokenizer, document, length) for document in found)
    found = list(islice(filter(_predicts, ids), count))
    return _enough(found, count, text, f"documents of at least 2 tokens (asked: {count})")


def windows(
    text: Text,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    length: int,
    seed: int | None,
    refused: Collection[bytes] = frozenset(),
) -> torch.Tensor:
    """[count, length] token ids: documents with their special tokens, end to end, cut into windows.

    Windows end anywhere in a text. Whole documents would nearly all end in a full stop, and a
    distance at the final token would be a statement about full stops."""

    def cut() -> Iterator[list[int]]:
        pending: list[int] = []
        for document in documents(text, seed, refused):
            pending += tokenizer(document, verbose=False)["input_ids"]
            while len(pending) >= length:
                yield pending[:length]
                pending = pending[length:]

    found = list(islice(cut(), count))
    return torch.tensor(_enough(found, count, text, f"windows of {length} tokens (asked: {count})"))


def commonest_share(tokens: torch.Tensor) -> float:
    """Share of the commonest value in a 1-d tensor of token ids."""
    return int(tokens.unique(return_counts=True)[1].max()) / len(tokens)


def _load_dataset(name: str, *arguments: str | None, **options: Any) -> Any:
    """`datasets.load_dataset`, streamed, so that nothing is cached; imported late, as it is slow.

    Quietly: the library also logs what it raises, and one line is enough."""
    from datasets import load_dataset

    logging.getLogger("datasets").setLevel(logging.CRITICAL)
    return load_dataset(name, *arguments, streaming=True, **options)


def _enough(found: list, count: int, text: Text, what: str) -> list:
    if len(found) < count:
        raise TooShort(f"text {describe(text)}: too short, it gives {len(found)} {what}")
    return found


def _hub_error(text: Text, error: Exception) -> UserError:
    reason = explain(error, "dataset", str(text.dataset))
    return UserError(f"text {describe(text)}: {reason}; or give a local file as 'path'")
