"""What models wrote, as the unpruned model finds it."""

from typing import Any

from lib.errors import UserError
from lib.evaluation import written
from lib.experiments.conditions import Condition, breaking
from lib.experiments.further_conditions import breaking_conditions
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import broken, probe_inputs, recorded


def writers(opened: OpenStudy) -> list[Condition]:
    """The models whose writing is looked at, the unpruned one first; none where the study asks for
    no such comparison."""
    found = [one for one in breaking_conditions(opened) if breaking(opened, one)]
    return [one for one in found if not broken(opened, one)]


def losses(opened: OpenStudy, one: Condition) -> dict[str, Any]:
    """`losses`: of each text that a model wrote (`lib.evaluation.written`), from evidence, or
    measured now.

    Raises UserError where what it wrote is not recorded."""
    asked = opened.study.what_breaks.writing

    def run() -> dict[str, Any]:
        found = recorded(opened, one, asked)
        if found is None:
            raise UserError(f"study {opened.study.name}: '{one.name}' has not written; `make book`")
        given = found["prompts"], found["texts"]
        return {"losses": written.losses(opened.model, opened.tokenizer, *given)}

    return opened.store.get_or_measure("written", one.name, inputs(opened, one), run)


def inputs(opened: OpenStudy, one: Condition) -> dict[str, Any]:
    """Everything that decides what was written, and the losses on it."""
    reader = {"reader": opened.checkpoint, "reader_weights": opened.weights}
    asked = probe_inputs(opened, one, opened.study.what_breaks.writing)
    return asked | reader | {"reading": written.METHOD}


def read_all(opened: OpenStudy) -> None:
    """See to it that all of them are recorded."""
    for one in writers(opened):
        losses(opened, one)
