"""One of two runs as it stands: its records, and whether its tables follow from them. Nothing is
measured and the run is not touched: tables are made anew in a folder `scratch`."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from lib import paths
from lib.book import publish
from lib.book.comparing import edited
from lib.book.comparing.agreement import PLACE, UNFIT
from lib.claims import gromov, judging
from lib.errors import UserError
from lib.evidence.records import Record, digest, file_of, in_place, spelled
from lib.evidence.store import Store
from lib.experiments.opened import OpenStudy
from lib.schema import Study, Task
from lib.sections import tables

# Inputs that no setting decides, but files, the machine and the version of the code.
GIVEN = {"checkpoint", "tokenizer", "untrained", "text", "source", "method", "evaluated"}
Make = Callable[[OpenStudy], pd.DataFrame | None]


@dataclass
class RecordedRun:
    """`records`: the sound ones. `damaged`: file or line → what is wrong with a record. `faults`: a
    line for each number of a table that does not follow from the records, and whatever else is
    wrong. `made`: tables made anew, verdicts among them."""

    where: str
    records: list[Record] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    made: dict[str, pd.DataFrame] = field(default_factory=dict)


def own(study: Study, scratch: Path) -> RecordedRun:
    """This run, as it stands in results/<study>/: its records of the study's checkpoint.

    Raises UserError where there is none, or no checkpoint."""
    folder = paths.results(study.name)
    run = _read(folder, folder, f"results/{study.name}")
    if not run.records and not run.damaged:
        raise UserError(
            f"study {study.name}: nothing measured here to compare; `make book STUDY=…` does that"
        )
    opened = OpenStudy(study)
    _ = opened.config  # where there is no checkpoint, this says so
    here, keys = opened.checkpoint, ("checkpoint", "tokenizer")
    run.records = [one for one in run.records if here in map(one["inputs"].get, keys)]
    opened.store = _Recorded(scratch / "own", run.records, PLACE, folder)
    _check_tables(run, opened, folder / "tables", {"unpruned": tables.unpruned_table})
    return run


def published(study: Study, scratch: Path) -> RecordedRun:
    """The reference run of the study's name, as it stands in published/<study>/.

    Raises UserError where there is none."""
    folder = paths.published(study.name)
    if not (folder / "evidence.jsonl").is_file():
        there = sorted(path.parent.name for path in folder.parent.glob("*/evidence.jsonl"))
        raise UserError(
            f"study {study.name}: no run '{study.name}' in published/ to compare with; "
            f"there are {', '.join(there) or 'none'}"
        )
    run = _read(folder / "evidence.jsonl", folder, f"published/{study.name}")
    count, settings = len(run.records) + len(run.damaged), study
    try:
        about = json.loads((folder / "study.json").read_text("utf-8"))
        here = {key: value for key, value in study if key in publish.LOCAL - {"like"}}
        settings = Study(**about["settings"], **here, name=study.name, file=study.file)
        if about["records"] != count:
            says = f"has {count:,} records, study.json says {about['records']}"
            run.faults.append(f"{run.where}/evidence.jsonl: {says}")
    except (OSError, *UNFIT):
        run.faults.append(f"{run.where}/study.json: missing, damaged or of other settings")
    opened = _Published(settings)
    # The number format of its own model, which may have been chosen by the device.
    formats = (one["inputs"].get("weights") for one in run.records if one["kind"] == "distances")
    opened.weights = str(next(formats, ""))
    opened.store = _Recorded(scratch / "published", run.records, PLACE | GIVEN, folder)
    _check_tables(run, opened, folder / "tables", {})
    for name in run.made:
        if not (folder / "tables" / f"{name}.csv").exists():
            run.faults.append(f"{run.where}/tables/{name}.csv: is missing")
    return run


def _read(place: Path, folder: Path, where: str) -> RecordedRun:
    run, seen = RecordedRun(where), set()
    for label, record, problem in in_place(place):
        problem = problem or _contradiction(record)
        key = (record["kind"], digest(record["inputs"])) if record else label
        if problem or key in seen:
            at = where + label.removeprefix(str(folder))
            run.damaged[at] = problem or "of the same inputs as one before it"
        else:
            run.records.append(record)
        seen.add(key)
    return run


def _contradiction(record: Record) -> str | None:
    """Accuracies have to be those of the recorded answers, and blocks chosen of least distance."""
    value = record["value"]
    try:
        dict(record["provenance"].get("packages", {}))
        if record["kind"] == "qa":
            answers = "".join(value["correct"].values())
            count, share = len(answers), answers.count("1") / len(answers)
            stderr = math.sqrt(share * (1 - share) / max(count - 1, 1))
            for key, says in {"n_questions": count, "accuracy": share, "stderr": stderr}.items():
                if not math.isclose(value[key], says, rel_tol=1e-9, abs_tol=1e-12):
                    return f"says {key} {value[key]:.6g}, its own answers give {says:.6g}"
        if record["kind"] == "distances":
            table = pd.DataFrame(value["table"])
            least = table.loc[table.groupby("n")["distance"].idxmin()]
            least = least.assign(stop=least["start"] + least["n"])
            columns = ["n", "start", "stop", "distance"]
            if not np.array_equal(least[columns], pd.DataFrame(value["optimal"])[columns]):
                return "its most similar blocks are not those of its own distances"
    except UNFIT:
        return "edited: without what a record of its kind holds"
    return None


class _Recorded(Store):
    """The records of one run. None is measured, set aside or added.

    What is asked for is found by its kind, name and inputs but the `free` ones; of several, those
    taken on the machine that the standing table of costs names, then the latest."""

    def __init__(self, scratch: Path, records: list[Record], free: set[str], run: Path) -> None:
        super().__init__(scratch)
        self.free = free
        self.found: dict[str, tuple[Path, Record]] = {}
        machines = set(edited.read(run / "tables" / "cost.csv").get("device", ()))
        orders = [
            (str(one["inputs"].get("device")) in machines, str(one["provenance"].get("when")), i)
            for i, one in enumerate(records)
        ]
        for *_, i in sorted(orders):
            asked = records[i]["kind"], records[i]["name"], records[i]["inputs"]
            path = self.folder / file_of(*asked)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(spelled(records[i]))  # sections read its provenance there
            self.found[self._key(*asked)] = path, records[i]

    def _key(self, kind: str, name: str, inputs: dict[str, Any]) -> str:
        def kept(of: dict[str, Any]) -> dict[str, Any]:
            return {key: value for key, value in of.items() if key not in self.free}

        settings = json.loads(json.dumps(inputs), object_hook=kept)
        return digest([kind, None if kind == "cost" else name, settings])  # that names a machine

    def path(self, kind: str, name: str, inputs: dict[str, Any]) -> Path:
        found = self.found.get(self._key(kind, name, inputs))
        return found[0] if found else super().path(kind, name, inputs)

    def get(self, kind: str, name: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
        found = self.found.get(self._key(kind, name, inputs))
        return found[1]["value"] if found else None

    def get_or_measure(
        self, kind: str, name: str, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> Any:
        found = self.get(kind, name, inputs)
        if found is None:
            raise UserError(f"'{name}' has not been measured")
        return found


class _Published(OpenStudy):
    """Opened without its files: what they decided stands in its records."""

    checkpoint = ""
    weights = ""
    texts: ClassVar = {"validation": {}, "healing": {}}

    def task_source(self, task: Task) -> dict[str, Any]:
        return {}


def _check_tables(
    run: RecordedRun, opened: OpenStudy, folder: Path, shared: dict[str, Make]
) -> None:
    """Make every table anew, then the verdicts, and name where those that stand in `folder` say
    something else. shared: tables that other runs are in, too, of which this run's rows count."""
    anew, basis = (opened.store.folder.parent / name for name in ("anew", "basis"))
    # Verdicts are words: they follow from tables to the last digit, so from standing ones if sound.
    shutil.copytree(folder, basis) if folder.is_dir() else basis.mkdir(parents=True)

    def verdicts(_: OpenStudy) -> pd.DataFrame:
        found = gromov.verdicts(judging.Tables(basis))
        return found.assign(paper=found.get("paper", "gromov"))

    for name, make in (publish.TABLES | shared | {"verdicts": verdicts}).items():
        label, path = f"{run.where}/tables/{name}.csv", folder / f"{name}.csv"
        try:
            table = make(opened)
        except (UserError, *UNFIT) as error:
            reason = str(error) if isinstance(error, UserError) else f"of another form, {error!r}"
            if path.exists():
                run.faults.append(f"{label}: does not follow from the records: {reason}")
            continue
        if table is None:
            continue
        tables.write(anew / path.name, table)
        sides = [edited.read(path), edited.read(anew / path.name)]
        sound = list(sides[0]) == list(sides[1])
        if path.exists():
            if name in shared:
                sides = [side[side["run"] == opened.study.title] for side in sides]
            faults = edited.edits(label, *sides)
            run.faults += faults
            sound = sound and not faults
        if name not in shared:
            run.made[name] = table
            if not sound:
                shutil.copyfile(anew / path.name, basis / path.name)
