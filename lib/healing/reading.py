"""What a healing reads, as rows of tokens, and which of these are predicted."""

import math
import random
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from lib.fields import Data
from lib.models import instructions
from lib.models.checkpoints import load_config
from lib.models.corpora import describe, document_sequences, measured_on, rows, windows
from lib.models.vocabulary import check_ids
from lib.open_sets import Healing
from lib.schema import Study


@dataclass(frozen=True)
class Read:
    """texts: int32 token ids, a row each; unscored: how many of a row's first tokens are not
    predicted, empty where all are; report: how often data of instructions were read."""

    texts: list[torch.Tensor]
    unscored: list[int] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)


def read(
    study: Study,
    healing: Healing,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    seed: int | None,
    refused: frozenset[bytes] = frozenset(),
) -> Read:
    """So many rows, shuffled with a seed, or in the text's order; in several epochs the same rows
    again, in other orders. refused: as of `refused`.

    Raises UserError for a text that is too short or cannot be read, for ids that the model does
    not know, and for documents that healing may not see."""
    source, once = study.healing_source(healing), math.ceil(count / healing.epochs)
    order = _order(once, healing.epochs, seed)[:count]
    if isinstance(source, Data) and source.rows == "instructions":
        known = rows(source, refused)
        drawn = instructions.drawn(known, source, tokenizer, once, healing.length, seed or 0)
        found = [drawn.sequences[i].ids for i in order]
        unscored = [drawn.sequences[i].unscored for i in order]
        scored = sum(len(ids) - max(1, n) for ids, n in zip(found, unscored, strict=True))
        report = {
            "rows": drawn.rows,
            "passed_over": drawn.passed_over,
            "epochs": round(drawn.epochs * count / once, 3),
            "scored_tokens": scored,
        }
    else:
        cut = windows if healing.packing else document_sequences
        different = cut(source, tokenizer, once, healing.length, seed, refused)
        found = [different[i] for i in order]
        unscored, report = [], {"epochs": count / once} if healing.epochs > 1 else {}
    texts = [torch.as_tensor(row, dtype=torch.int32) for row in found]
    check_ids((text.tolist() for text in texts), load_config(study), f"text {describe(source)}")
    return Read(texts, unscored, report)


def _order(rows: int, epochs: int, seed: int | None) -> list[int]:
    """Of the rows in all epochs; those of the first are in order already."""
    found = list(range(rows))
    for epoch in range(1, epochs):
        again = list(range(rows))
        random.Random(f"{seed or 0}, epoch {epoch}").shuffle(again)
        found += again
    return found


def refused(study: Study, healing: Healing, tokenizer: PreTrainedTokenizerBase) -> frozenset[bytes]:
    """Fingerprints of documents that healing may not read, where the text that they are measured
    on, or its own, is streamed."""
    measured = (study.validation_text, *study.loss_texts)
    local = study.healing_source(healing).path
    streamed = [text for text in measured if not (text.path and local)]
    return frozenset().union(*(measured_on(text, study.loss, tokenizer) for text in streamed))
