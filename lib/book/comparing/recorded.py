"""A run as it stands: its records, and whether its tables follow from them. Nothing is measured,
and nothing in it is touched: tables are made anew in a folder `scratch`."""

import json
import math
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from lib import claims, paths
from lib.book import publish
from lib.book.comparing import edited
from lib.book.comparing.agreement import PLACE, UNFIT
from lib.book.sources import PLACES, strategies
from lib.errors import UserError
from lib.evaluation import per_question
from lib.evidence import ownership
from lib.evidence.records import Record, digest, in_place, spelled
from lib.evidence.store import Store
from lib.experiments.opened import OpenStudy
from lib.fields import Text
from lib.schema import Study, Task
from lib.sections import controls, tables

# Inputs that no setting decides, but files, the machine and the version of the code.
GIVEN = {"checkpoint", "tokenizer", "untrained", "text", "source", "method", "evaluated", "code"}
GIVEN |= {"imports", "prompt_end"}


@dataclass
class RecordedRun:
    where: str  # results/<study> or published/<study>
    records: list[Record] = field(default_factory=list)  # the sound ones
    faults: list[str] = field(default_factory=list)  # lines: what is wrong with others, and tables
    made: dict[str, pd.DataFrame] = field(default_factory=dict)  # tables anew, verdicts too


def own(study: Study, scratch: Path) -> RecordedRun:
    """This run, as it stands in results/<study>/: its records of the study's checkpoint.

    Raises UserError where there is none, or no checkpoint."""
    folder = paths.results(study.name)
    run = _read(folder, folder, f"results/{study.name}")
    if not run.records and not run.faults:
        raise UserError(f"study {study.name}: nothing measured here to compare; first `make book`")
    opened = OpenStudy(study)
    _ = opened.config  # where there is no checkpoint, this says so
    here = opened.checkpoint
    ownership.check(study, here)
    run.records = [one for one in run.records if here in _checkpoints(one["inputs"])]
    opened.store = _Recorded(scratch / "own", run.records, PLACE, folder)
    _check_tables(run, opened, folder / "tables")
    return run


def _checkpoints(inputs: dict[str, Any]) -> list[Any]:
    """Those that a record is about; of two models side by side both."""
    sides = [one.get("checkpoint") for one in inputs.get("models", ())]
    return [inputs.get("checkpoint"), inputs.get("tokenizer"), *sides]


def published(study: Study, scratch: Path) -> RecordedRun:
    """The reference run of the study's name, as it stands in published/<study>/.

    Raises UserError where there is none."""
    folder = paths.published(study.name)
    if not (folder / "evidence.jsonl").is_file():
        runs = sorted(at.parent.name for at in folder.parent.glob("[!.]*/evidence.jsonl"))
        there = ", ".join(runs)
        raise UserError(f"study {study.name}: no such run in published/; there are {there}")
    run = _read(folder / "evidence.jsonl", folder, f"published/{study.name}")
    settings, count = study, len(run.records) + len(run.faults)
    try:
        about = json.loads((folder / "study.json").read_text("utf-8"))
        here = {key: value for key, value in study if key in PLACES - {"like"}}
        files = {one.name: one.file for one in study.every_strategy}
        for one in strategies(about["settings"]):  # of one's own only the name is there
            one["file"] = one["file"] and files.get(one["name"], one["file"])
        settings = Study(**about["settings"], **here, name=study.name, file=study.file)
        if about["records"] != count:
            run.faults.append(f"{run.where}/evidence.jsonl: {count} of {about['records']} records")
    except (OSError, UserError, *UNFIT):
        run.faults.append(f"{run.where}/study.json: missing, damaged or of other settings")
    opened = _Published(settings)
    # The number format of its own model, which may have been chosen by the device.
    formats = (one["inputs"].get("weights") for one in run.records if one["kind"] == "distances")
    opened.weights = str(next(formats, ""))
    opened.store = _Recorded(scratch / "published", run.records, PLACE | GIVEN, folder)
    _check_tables(run, opened, folder / "tables")
    return run


def _read(place: Path, folder: Path, where: str) -> RecordedRun:
    run, seen = RecordedRun(where), set()
    for label, record, problem in in_place(place):
        problem = problem or _contradiction(record)
        key = (record["kind"], digest(record["inputs"])) if record else label
        if problem or key in seen:
            problem = problem or "of the same inputs as one before it"
            run.faults.append(f"{where}{label.removeprefix(str(folder))}: {problem}")
        else:
            run.records.append(record)
        seen.add(key)
    return run


def _contradiction(record: Record) -> str | None:
    """Accuracies have to be those of the recorded answers."""
    value = record["value"]
    try:
        dict(record["inputs"].get("healing") or {})
        if record["kind"] == "qa":
            answers = per_question.of_all_tasks(value["correct"])
            share, stderr = per_question.mean(answers), math.sqrt(per_question.variance(answers))
            says = [value["n_questions"], value["accuracy"], value["stderr"]]
            if not np.allclose(says, [len(answers), share, stderr], rtol=1e-9, atol=1e-12):
                return f"says {says}, its own answers give {[len(answers), share, stderr]}"
    except UNFIT:
        return "edited: without what a record of its kind holds"
    return None


class _Recorded(Store):
    """The records of one run, found by all inputs but the `free` ones; of several, the one made on
    the machine that the standing table of costs names, then the latest. None is measured."""

    def __init__(self, scratch: Path, records: list[Record], free: set[str], run: Path) -> None:
        super().__init__(scratch)
        self.free = free
        machines = set(edited.read(run / "tables" / "cost.csv").get("device", ()))

        def preferred(one: Record) -> tuple[bool, str]:
            return one["inputs"].get("device") in machines, str(one["provenance"].get("when"))

        for one in sorted(records, key=preferred):
            path = self.path(one["kind"], one["name"], one["inputs"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(spelled(one))

    def path(self, kind: str, name: str, inputs: dict[str, Any]) -> Path:
        def kept(of: dict[str, Any]) -> dict[str, Any]:
            return {key: value for key, value in of.items() if key not in self.free}

        asked = "" if kind == "cost" else name  # which names the machine
        settings = json.loads(json.dumps(inputs), object_hook=kept)
        return self.folder / kind / f"{digest([asked, settings])}.json"

    def get(self, kind: str, name: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
        path = self.path(kind, name, inputs)
        return json.loads(path.read_text("utf-8"))["value"] if path.exists() else None

    def get_or_measure(self, kind: str, name: str, inputs: Any, *_: Any, **__: Any) -> Any:
        if (found := self.get(kind, name, inputs)) is None:
            raise UserError(f"'{name}' has not been measured")
        return found


class _Published(OpenStudy):
    """Opened without its files: what they decided stands in its records."""

    checkpoint = weights = ""
    ends_texts = False
    texts: ClassVar = defaultdict(dict)

    def cut_text(self, which: str | Text) -> dict[str, Any]:
        return {}

    def task_source(self, task: Task) -> dict[str, Any]:
        return {}


def _judged_then(gives: pd.DataFrame, stands: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Verdicts without claims that are newer than the run: it has neither them nor their tables."""
    if not {"paper", "claim", "tables"} <= {*gives}:
        return gives
    known = {*zip(stands.get("paper", ()), stands.get("claim", ()), strict=True)}
    there = [
        (row.paper, row.claim) in known
        or any((folder / f"{name}.csv").exists() for name in row.tables.split(", "))
        for row in gives.itertuples()
    ]
    return gives[there]


def _check_tables(run: RecordedRun, opened: OpenStudy, folder: Path) -> None:
    """Make every table anew, then the verdicts, and name where those in `folder` say otherwise."""
    makes = publish.TABLES | {"unpruned": controls.unpruned_table}
    anew, basis = (opened.store.folder.parent / name for name in ("anew", "basis"))
    # Verdicts are words: they follow from tables to the last digit, so from standing ones if sound.
    shutil.copytree(folder, basis) if folder.is_dir() else basis.mkdir(parents=True)

    def verdicts(_: OpenStudy) -> pd.DataFrame:
        return claims.verdicts(claims.Tables(basis))

    for name, make in (makes | {"verdicts": verdicts}).items():
        label, path = f"{run.where}/tables/{name}.csv", folder / f"{name}.csv"
        try:
            table = make(opened)
        except (UserError, *UNFIT) as error:
            if path.exists():
                run.faults.append(f"{label}: does not follow from the records: {error}")
            continue
        if table is None:
            continue
        run.made[name] = table
        tables.write(anew / path.name, table)
        stands, gives = (edited.read(at, opened.study.title) for at in (path, anew / path.name))
        if name == "verdicts":
            gives = _judged_then(gives, stands, folder)
        faults = edited.edits(label, stands, gives) if path.exists() else []
        run.faults += faults
        if faults or list(stands) != list(gives):
            shutil.copyfile(anew / path.name, basis / path.name)
