"""One side of a comparison: the records of a run, and whether its tables follow from them.

    with tempfile.TemporaryDirectory() as scratch:
        side = published(study, Path(scratch))
        side.records, side.damaged, side.faults, side.verdicts

Nothing is measured and neither run is touched: tables are made anew in a folder of this process's
own.
"""

import json
import math
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pandas as pd

from lib import claims, paths
from lib.book.edits import cells, edits
from lib.book.publish import LOCAL, TABLES
from lib.errors import UserError
from lib.evidence.listing import device
from lib.evidence.records import FIELDS, Record, digest, file_of, in_place, spelled
from lib.evidence.store import Store
from lib.experiments.opened import OpenStudy
from lib.schema import Study, Task
from lib.sections import controls, families, other_runs, tables

# Of times: on what they were taken. The published run's were taken where it ran.
PLACE = {"device", "threads"}
# Inputs that no setting decides, but files, the machine and the version of the code.
GIVEN = {"checkpoint", "tokenizer", "untrained", "text", "source", "method", "evaluated"}
# What records of another form than today's come to where tables are made of them.
UNFIT = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Damaged(NamedTuple):
    """A record that does not count: where it stands, what is wrong with it, and what can still be
    read of it."""

    label: str
    problem: str
    record: Record


@dataclass
class Side:
    """`records`: the sound ones that the study's settings ask for; `others`: how many more are
    sound. `faults`: a line for each number of a table that does not follow from the records, and
    whatever else is wrong. `made`: tables made anew by name; `tables`: the names of these and of
    those that cannot be made anew but stand there; `verdicts`: what both give."""

    where: str
    records: list[Record] = field(default_factory=list)
    others: int = 0
    damaged: list[Damaged] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    made: dict[str, pd.DataFrame] = field(default_factory=dict)
    tables: set[str] = field(default_factory=set)
    verdicts: pd.DataFrame = field(default_factory=pd.DataFrame)


def own(study: Study, scratch: Path) -> Side:
    """This run, as it stands in results/<study>/.

    Raises UserError where there is none, or no checkpoint of the study."""
    folder = paths.results(study.name)
    side, sound = _read(folder, folder, f"results/{study.name}")
    if not sound and not side.damaged:
        raise UserError(
            f"study {study.name}: nothing measured here to compare; `make book STUDY=…` does that"
        )
    opened = OpenStudy(study)
    _ = opened.config  # where there is no checkpoint, this says so
    opened.store = store = _Recorded(scratch / "own", sound, PLACE, folder)
    whole = _check_tables(side, opened, folder, all_stand=False)
    _check_own_rows(side, opened, folder / "tables")
    if whole:
        side.records = [store.records[path] for path in sorted(store.used)]
    else:  # an unfinished run: whatever is of its checkpoint, or of its untrained twin
        here, keys = opened.checkpoint, ("checkpoint", "tokenizer")
        side.records = [one for one in sound if here in map(one["inputs"].get, keys)]
    side.others = len(sound) - len(side.records)
    return side


def published(study: Study, scratch: Path) -> Side:
    """The reference run of the study's name, as it stands in published/<study>/.

    Raises UserError where there is none."""
    folder = paths.published(study.name)
    if not (folder / "evidence.jsonl").is_file():
        there = sorted(path.parent.name for path in folder.parent.glob("*/evidence.jsonl"))
        raise UserError(
            f"study {study.name}: no run '{study.name}' in published/ to compare with; "
            f"there are {', '.join(there) or 'none'}"
        )
    side, side.records = _read(folder / "evidence.jsonl", folder, f"published/{study.name}")
    count, settings = len(side.records) + len(side.damaged), study
    try:
        about = json.loads((folder / "study.json").read_text("utf-8"))
        here = {key: value for key, value in study if key in LOCAL - {"like"}}
        settings = Study(**about["settings"], **here, name=study.name, file=study.file)
        if about["records"] != count:
            side.faults.append(
                f"{side.where}/evidence.jsonl: has {count:,} records, "
                f"study.json says {about['records']}"
            )
    except (OSError, *UNFIT):
        side.faults.append(f"{side.where}/study.json: missing, damaged or of other settings")
    opened = _Published(settings)
    opened.weights = _weights(side.records)
    opened.store = _Recorded(scratch / "published", side.records, PLACE | GIVEN, folder)
    _check_tables(side, opened, folder, all_stand=True)
    return side


def _read(place: Path, folder: Path, where: str) -> tuple[Side, list[Record]]:
    side, sound, seen = Side(where), [], set()
    for label, record, problem in in_place(place):
        label = where + label.removeprefix(str(folder))
        key = (record["kind"], digest(record["inputs"])) if problem is None else label
        if problem is None and key in seen:
            problem = "of the same inputs as one before it"
        if problem is None and not _legible(record):
            record, problem = {}, "edited: its provenance is not of the form that is written"
        if problem is None:
            problem = _contradiction(record)
        seen.add(key)
        if problem is None:
            sound.append(record)
        else:
            standing = record or _as_it_stands(folder / label.removeprefix(f"{where}/"))
            side.damaged.append(Damaged(label, problem, standing))
    return side, sound


def _as_it_stands(label: Path) -> Record:
    """What can still be read of a damaged record, in a file or in a line of one."""
    name, _, line = str(label).partition(".jsonl:")
    with suppress(OSError, *UNFIT):
        if line:
            text = Path(f"{name}.jsonl").read_text("utf-8").split("\n")[int(line) - 1]
        else:
            text = label.read_text("utf-8")
        record = json.loads(text)
        if all(isinstance(record.get(key), kind) for key, kind in FIELDS.items()):
            return record if _legible(record) else {}
    return {}


def _legible(record: Record) -> bool:
    """Whether it can be looked up and shown."""
    with suppress(*UNFIT):
        digest(record["inputs"])
        device(record["provenance"])
        return isinstance(record["provenance"].get("packages", {}), dict)
    return False


def _contradiction(record: Record) -> str | None:
    """Accuracies have to be those of the recorded answers."""
    if record["kind"] != "qa":
        return None
    value = record["value"]
    try:
        answers = "".join(value["correct"].values())
        count, share = len(answers), answers.count("1") / len(answers)
        stderr = math.sqrt(share * (1 - share) / max(count - 1, 1))
        given = {"n_questions": count, "accuracy": share, "stderr": stderr}
        for key, says in given.items():
            if not math.isclose(value[key], says, rel_tol=1e-9, abs_tol=1e-12):
                return f"says {key} {value[key]:.6g}, its own answers give {says:.6g}"
    except UNFIT:
        return "edited: without what a record of its kind holds"
    return None


class _Recorded(Store):
    """The records of one side. None is measured, set aside or added.

    What is asked for is found by its kind, name and inputs but the `free` ones; of several, those
    taken on the machine that the standing table of costs names, then the latest."""

    def __init__(self, scratch: Path, records: list[Record], free: set[str], run: Path) -> None:
        super().__init__(scratch)
        self.free = free
        self.records: dict[Path, Record] = {}
        self.by_settings: dict[str, Path] = {}
        on = _timed_on(run / "tables" / "cost.csv")
        for record in sorted(records, key=lambda one: (_machine(one) == on, _when(one))):
            kind, name, inputs = record["kind"], record["name"], record["inputs"]
            path = self.folder / file_of(kind, name, inputs)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(spelled(record), encoding="utf-8")  # sections read its provenance there
            self.records[path] = record
            self.by_settings[self._key(kind, name, inputs)] = path

    def _key(self, kind: str, name: str, inputs: dict[str, Any]) -> str:
        kept = {key: value for key, value in inputs.items() if key not in self.free}
        if isinstance(kept.get("healing"), dict):
            recipe = kept["healing"].items()
            kept["healing"] = {key: value for key, value in recipe if key not in self.free}
        return digest([kind, None if kind == "cost" else name, kept])  # that names a machine

    def path(self, kind: str, name: str, inputs: dict[str, Any]) -> Path:
        found = self.by_settings.get(self._key(kind, name, inputs))
        return found or super().path(kind, name, inputs)

    def get(self, kind: str, name: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
        path = self.path(kind, name, inputs)
        if path not in self.records:
            return None
        self.used.add(path)
        return self.records[path]["value"]

    def get_or_measure(
        self, kind: str, name: str, inputs: dict[str, Any], *_: Any, **__: Any
    ) -> dict[str, Any]:
        found = self.get(kind, name, inputs)
        if found is None:
            raise UserError(f"'{name}' has not been measured")
        return found


def _machine(record: Record) -> tuple[str, str] | None:
    inputs = record["inputs"]
    return (str(inputs.get("device")), str(inputs.get("threads"))) if "device" in inputs else None


def _when(record: Record) -> str:
    return str(record["provenance"].get("when", ""))


def _timed_on(path: Path) -> tuple[str, str] | None:
    header, *rows = cells(path) or [[]]
    first = dict(zip(header, rows[0], strict=False)) if rows else {}
    return (first["device"], first["threads"]) if {"device", "threads"} <= first.keys() else None


class _Published(OpenStudy):
    """Opened without its files: what they decided stands in its records."""

    checkpoint = ""
    weights = ""
    texts: ClassVar = {"validation": {}, "healing": {}}

    def task_source(self, task: Task) -> dict[str, Any]:
        return {}


def _weights(records: list[Record]) -> str:
    """The number format that a run's own model was in, which may have been chosen by the device."""
    found = (one["inputs"].get("weights") for one in records if one["kind"] == "distances")
    return str(next(found, ""))


def _check_tables(side: Side, opened: OpenStudy, folder: Path, all_stand: bool) -> bool:
    """Make every table anew and name where those that stand say something else; with `all_stand`
    those that are missing, too. Returns whether all could be made."""
    anew = opened.store.folder.parent / "tables"
    anew.mkdir(parents=True)
    unmade: dict[str, list[str]] = {}
    for name, make in TABLES.items():
        try:
            table = make(opened)
        except UserError as error:
            reason = str(error).removesuffix("; `make book`")
            unmade.setdefault(reason, []).append(name)
        except UNFIT as error:
            unmade.setdefault(f"records of another form ({error!r})", []).append(name)
        else:
            if table is not None:
                side.made[name] = table
                tables.write(anew / f"{name}.csv", table)
    standing = {path.stem: path for path in sorted((folder / "tables").glob("*.csv"))}
    for name in standing.keys() - side.made.keys():
        shutil.copyfile(standing[name], anew / f"{name}.csv")
    side.tables = standing.keys() | side.made.keys()
    try:
        side.verdicts = claims.verdicts(claims.Tables(anew))
        tables.write(anew / "verdicts.csv", side.verdicts)
    except UNFIT as error:
        side.faults.append(f"{side.where}/tables: no verdicts follow from them ({error!r})")
    for name in sorted({*side.made, "verdicts"}):
        label = f"{side.where}/tables/{name}.csv"
        if name in standing:
            side.faults += edits(label, standing[name], anew / f"{name}.csv")
        elif all_stand:
            side.faults.append(f"{label}: is missing")
    for reason, names in unmade.items():
        there = ", ".join(f"{name}.csv" for name in names if name in standing)
        if there:
            side.faults.append(f"{side.where}/tables: cannot be made anew: {there}: {reason}")
    return not unmade


def _check_own_rows(side: Side, opened: OpenStudy, folder: Path) -> None:
    """The same of what this run put into tables that hold numbers of other runs, too."""
    study, anew = opened.study, opened.store.folder.parent / "own rows"
    with suppress(UserError, *UNFIT):
        table = controls.unpruned_table(opened)
        tables.write(anew / "unpruned.csv", table[table["run"] == study.title])
    with suppress(UserError, *UNFIT):
        size, made = other_runs.parameters(study), {"transitions": side.made["transitions"]}
        run = other_runs.Run(study.name, study.title, opened.n_layers, size, folder, made)
        tables.write(anew / "families.csv", families.critical_fractions([run]))
    for name, of in {"unpruned": ("run", study.title), "families": ("study", study.name)}.items():
        stands, gives = folder / f"{name}.csv", anew / f"{name}.csv"
        label = f"{side.where}/tables/{name}.csv"
        if stands.exists() and gives.exists():
            side.faults += edits(label, stands, gives, of)
        elif any(of[1] in row for row in cells(stands)):
            side.faults.append(f"{label}: its row for this run does not follow from the records")
