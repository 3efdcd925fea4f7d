"""A published run, opened from its evidence alone: neither its checkpoint nor its texts and
questions are needed, and nothing is measured.

What cannot be known without them, such as a digest of a text, is left open when a record is looked
up. The one that agrees in all else is taken; `tests/test_published_pages.py` holds the tables that
come of it to the published ones.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from lib import paths
from lib.errors import UserError
from lib.evidence.records import Record, canonical, records
from lib.evidence.store import Store
from lib.experiments.opened import WEIGHTS, OpenStudy
from lib.schema import Study, Task

OPEN = {"open": "published"}  # in place of what decides a value and is not at hand


class PublishedStore(Store):
    """Finds records by kind, name and what is known of their inputs; takes up nothing new."""

    def __init__(self, name: str) -> None:
        super().__init__(paths.published(name))
        self.name = name
        self.named: dict[tuple[str, str], list[Record]] = defaultdict(list)
        for place, record, problem in records(paths.published(name) / "evidence.jsonl"):
            if problem:
                raise UserError(f"published run '{name}': {place}: {problem}")
            self.named[record["kind"], record["name"]].append(record)

    def records(self) -> Iterator[Record]:
        for found in self.named.values():
            yield from found

    def get(self, kind: str, name: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
        """Raises UserError where several records with different values agree with what is known."""
        given = json.loads(canonical(inputs))
        found = [one for one in self.named[kind, name] if agree(given, one["inputs"])]
        if len({canonical(one["value"]) for one in found}) > 1:
            raise UserError(f"published run '{self.name}': {len(found)} records are '{name}'")
        return found[0]["value"] if found else None

    def _anew(self, kind: str, name: str, *_: Any) -> dict[str, Any]:
        """Nothing is: raises UserError, which names what is not published."""
        raise UserError(f"published run '{self.name}' does not hold {kind} of '{name}'")


def agree(given: Any, recorded: Any) -> bool:
    """Whether all that is known of inputs is as it was recorded."""
    if given == OPEN:
        return True
    if isinstance(given, dict) and isinstance(recorded, dict):
        return all(key in recorded and agree(one, recorded[key]) for key, one in given.items())
    return given == recorded


class Open(dict[Any, dict[str, Any]]):
    """Texts that are not at hand."""

    def __missing__(self, which: Any) -> dict[str, Any]:
        return OPEN


class PublishedStudy(OpenStudy):
    """A published run. Raises UserError where it does not hold what a page needs."""

    published = True

    def __init__(self, study: Study) -> None:
        super().__init__(study)
        self.store = PublishedStore(study.name)

    @property
    def tables(self) -> Path:
        return paths.published(self.study.name) / "tables"

    def recorded(self, key: str) -> Any:
        """What most records have under a key of their inputs."""
        given = [one["inputs"] for one in self.store.records()]
        found = Counter(canonical(one[key]) for one in given if key in one)
        if not found:
            raise UserError(f"published run '{self.study.name}' says nothing of its {key}")
        return json.loads(found.most_common(1)[0][0])

    @cached_property
    def config(self) -> Any:
        """As the record of the untrained twin has it."""
        settings = self.recorded("untrained")
        return AutoConfig.for_model(settings.pop("model_type"), **settings)

    @cached_property
    def texts(self) -> Any:
        return Open()

    @cached_property
    def checkpoint(self) -> str:
        return self.recorded("checkpoint")

    @property
    def weights(self) -> str:
        found = {one["inputs"].get("weights") for one in self.store.records()}
        return next((name for name in WEIGHTS.values() if name in found), self.recorded("weights"))

    @property
    def twin_inputs(self) -> dict[str, Any]:
        return {"untrained": OPEN}

    @cached_property
    def tokenizer(self) -> Any:
        raise UserError(f"published run '{self.study.name}': its tokenizer is not at hand")

    def task_source(self, task: Task) -> dict[str, Any]:
        return OPEN
