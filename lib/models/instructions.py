"""Rows of an instruction and its response, as token ids, and how many of these are not scored.

A row has its prompt in the study's template, then the response and the token that ends a text.
"""

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from lib.errors import UserError
from lib.fields import Data
from lib.models import text_files
from lib.models.prompts import prompt_ids

# What the parts of a row are called in data sets, the first of these that a row has.
INSTRUCTION = ["instruction", "prompt", "question"]
INPUT = ["input", "context"]
RESPONSE = ["response", "output", "answer"]
FIELDS = [*INSTRUCTION, *INPUT, *RESPONSE]


class Row(NamedTuple):
    instruction: str
    input: str
    response: str

    @property
    def document(self) -> str:
        return "\n".join(filter(None, self))


class Tokens(NamedTuple):
    """ids: of a whole row; unscored: how many of its first are not predicted."""

    ids: list[int]
    unscored: int


@dataclass(frozen=True)
class Drawn:
    """Rows in the order in which they are read. rows: different ones there are; passed_over: those
    drawn of which nothing would be scored, as the prompt fills their whole length; epochs: how
    often each is read."""

    sequences: list[Tokens]
    rows: int
    passed_over: int
    epochs: float


def of_row(row: object, what: str, where: str) -> Row:
    """Raises UserError where a part is missing, but the input, or the response is empty."""
    parts = []
    for names in (INSTRUCTION, INPUT, RESPONSE):
        # Of several such columns in a table all but one may be empty.
        given = [
            name for name in names if isinstance(row, dict) and row.get(name) not in (None, "")
        ]
        optional = names is INPUT and not given
        parts.append("" if optional else text_files.field(row, given or names, what, where))
    found = Row(*parts)
    if not found.response.strip():
        raise UserError(f"{what}: {where} has no response")
    return found


def of_files(path: Path) -> Iterator[Row]:
    """Raises UserError as `of_row`, and where there is none."""
    empty = True
    for what, where, row in text_files.rows(path, FIELDS):
        empty = False
        yield of_row(row, what, where)
    if empty:
        raise UserError(f"text {path}: no row in it")


def prompt(row: Row, template: str) -> str:
    """What stands before the response; a paragraph with {input} only where there is one."""
    parts = [part for part in template.split("\n\n") if row.input or "{input}" not in part]
    pieces = "\n\n".join(parts).split("{instruction}")
    return row.instruction.join(piece.replace("{input}", row.input) for piece in pieces)


def tokens(row: Row, data: Data, tokenizer: PreTrainedTokenizerBase, length: int) -> Tokens:
    """A row, cut at `length` tokens."""
    before = prompt_ids(tokenizer, prompt(row, data.template))
    response = tokenizer(row.response, add_special_tokens=False, verbose=False)["input_ids"]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    unscored = len(before) if data.scored == "response" else 0
    return Tokens([*before, *response, *end][:length], unscored)


def drawn(
    rows: Collection[Row],
    data: Data,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    length: int,
    seed: int,
) -> Drawn:
    """`count` rows, shuffled with the seed, and anew each time that all have been read.

    Raises UserError where nothing of any row would be scored."""
    rows, passed, read = list(rows), 0, 0

    def found() -> Iterator[Tokens]:
        nonlocal passed, read
        order, shuffled = list(range(len(rows))), random.Random(seed)
        while True:
            shuffled.shuffle(order)
            before = read - passed
            for number in order:
                read += 1
                row = tokens(rows[number], data, tokenizer, length)
                # The first token is not predicted.
                if len(row.ids) > max(1, row.unscored):
                    yield row
                else:
                    passed += 1
            if read - passed == before:
                raise UserError(
                    f"healing_data {data.name}: nothing of its {len(rows)} rows is scored: each "
                    f"prompt is as long as healing.length, {length} tokens"
                )

    sequences = list(islice(found(), count))
    return Drawn(sequences, len(rows), passed, read / len(rows))
