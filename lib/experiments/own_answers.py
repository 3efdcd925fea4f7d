"""Answers that the unpruned model itself writes to instructions, for healing to read in place of
those of a data set.

    study = with_answers(opened, opened.study, healing)

They are written once, recorded as evidence, and stand as rows of text in results/<study>/answers/,
so that whoever heals reads an ordinary data set.
"""

import json
from pathlib import Path
from typing import Any

from lib.evaluation import answering
from lib.evidence.records import digest
from lib.experiments.opened import OpenStudy
from lib.fields import Data
from lib.files import claimed, write_atomically
from lib.models import corpora, instructions
from lib.open_sets import Healing
from lib.schema import Study


def answered(study: Study, healing: Healing) -> Data | None:
    """What a recipe's settings read, where the unpruned model writes its answers."""
    source = study.healing_source(healing)
    return source if isinstance(source, Data) and source.own_answers else None


def every_answered(study: Study) -> list[Data]:
    """All such data sets that something is healed on, each once."""
    found = [answered(study, one) for one in study.every_recipe]
    return list(dict.fromkeys(filter(None, found)))


def job(data: Data) -> str:
    """The name of the job that writes the answers."""
    return f"answers-{data.name}"


def answer_inputs(opened: OpenStudy, data: Data) -> dict[str, Any]:
    """Everything that decides the answers."""
    # What of a row is scored in training decides nothing of what is written.
    text = {key: value for key, value in opened.texts[data].items() if key != "scored"}
    return {
        "checkpoint": opened.checkpoint,
        "weights": opened.weights,
        "text": text,
        "answers": data.own_answers,
        "tokens": data.answer_tokens,
        "method": answering.METHOD,
    }


def answers_record(opened: OpenStudy, data: Data) -> dict[str, Any] | None:
    """`answers` in the order of the rows, and how many are `empty`; None: not written yet."""
    return opened.store.get("answers", data.name, answer_inputs(opened, data))


def write_answers(opened: OpenStudy, data: Data) -> dict[str, Any]:
    """As recorded, or written now. Of several processes one writes, and the others wait."""
    inputs = answer_inputs(opened, data)
    lock = opened.store.folder.parent / "locks" / digest(inputs)
    with claimed(lock, f"{data.name}: another process writes the answers; waiting"):
        return opened.store.get_or_measure(
            "answers", data.name, inputs, lambda: _written(opened, data), batch=opened.study.batch
        )


def _written(opened: OpenStudy, data: Data) -> dict[str, Any]:
    prompts = [instructions.prompt(row, data.template) for row in _rows(data)]
    found = answering.answers(
        opened.model, opened.tokenizer, prompts, data.answer_tokens, opened.study.batch
    )
    return {"answers": found, "empty": sum(not one.strip() for one in found)}


def _rows(data: Data) -> list[instructions.Row]:
    return corpora.rows(data)[: data.own_answers]


def with_answers(opened: OpenStudy, study: Study, healing: Healing) -> Study:
    """A study, with the rows that a recipe reads as they are answered by the unpruned model; empty
    answers are left out. The study as it is where the recipe reads others."""
    data = answered(study, healing)
    if data is None:
        return study
    found = write_answers(opened, data)["answers"]
    opened.release()  # its room is needed for what is trained
    path = opened.store.folder.parent / "answers" / f"{digest(answer_inputs(opened, data))}.jsonl"
    _write_rows(path, data, found)
    gone = dict.fromkeys(("dataset", "config", "revision"))
    own = data.model_copy(update=gone | {"path": str(path), "own_answers": 0})
    every = [own if one == data else one for one in study.healing_data]
    return study.model_copy(update={"healing_data": every})


def _write_rows(path: Path, data: Data, answers: list[str]) -> None:
    rows = (
        row._replace(response=answer)._asdict()
        for row, answer in zip(_rows(data), answers, strict=True)
        if answer.strip()
    )
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
