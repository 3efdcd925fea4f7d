"""What runs took: the records that jobs leave of themselves, by study and section.

A job leaves a line in results/<study>/jobs/runs.jsonl however it ended (`lib.book.worker`); what is
published of them is in published/<study>/runs.jsonl. Reference runs that are older than that have
only what their measurements say of themselves.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from lib import paths
from lib import study as studies
from lib.book.workload import Planned, parts
from lib.errors import UserError
from lib.evidence.listing import device
from lib.evidence.records import Record, in_place
from lib.models import checkpoints
from lib.models.shapes import planned_config
from lib.schema import Study

Run = dict[str, Any]
HERE, PUBLISHED, OLDER = "jobs run here", "jobs, published", "measurements, published"
WELL = "well"
LARGEST = 1e18  # more seconds, threads or bytes than anything takes
NUMBERS = ("seconds", "threads", "gpus", "peak_memory_bytes", "peak_gpu_memory_bytes")
# What may be published: nothing of the machine but its processor.
PUBLIC = ("job", "what", "packages", "processor", "python", "when", "commit", *NUMBERS)
DISTANCES = "distances"  # as jobs of their own, for which a row stands beside the sections'
OTHERS = "healed models"  # whose section is not known, since their study is not at hand


def read(path: Path) -> tuple[list[Run], list[int]]:
    """The records of a file, and the numbers of the lines that hold none.

    Raises UserError when the file cannot be read."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"runs {path}: cannot be read: {error.strerror}") from None
    found, broken = [], []
    for number, line in enumerate(lines, 1):
        run = _parsed(line)
        if run is not None:
            found.append(run)
        elif line.strip():
            broken.append(number)
    return found, broken


def _parsed(line: bytes) -> Run | None:
    try:
        run = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(run, dict) or not isinstance(run.get("job"), str):
        return None
    given = [run[key] for key in NUMBERS if run.get(key) is not None]
    sound = _amount(run.get("seconds")) and all(map(_amount, given))
    return run if sound and isinstance(run.get("processor"), str | None) else None


def _amount(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value < LARGEST


def used_gpu(provenance: Mapping[str, Any]) -> bool:
    """Whether a measurement was made on a GPU: where there is one it may still use the CPU."""
    return bool(provenance.get("peak_gpu_memory_bytes"))


def public(runs: Iterable[Run]) -> str:
    """Run records as they are published, a line each. What went wrong may name files of this
    machine, so only whether something did is said."""
    found = []
    for run in runs:
        kept = {key: run[key] for key in PUBLIC if key in run}
        kept["ended"] = WELL if run.get("ended") == WELL else "not well"
        found.append(json.dumps(kept, sort_keys=True) + "\n")
    return "".join(found)


@dataclass
class Spent:
    """What a section of a study took, or all of them. Seconds are summed over processes, those
    that were interrupted or repeated too."""

    measuring: float = 0.0
    notebook: float = 0.0
    core_seconds: float = 0.0
    gpu_seconds: float = 0.0
    memory: int = 0
    gpu_memory: int = 0
    runs: int = 0
    failed: int = 0
    measurements: int = 0
    hardware: set[str] = field(default_factory=set)

    def add(self, run: Mapping[str, Any], notebook: bool = False) -> None:
        seconds = run["seconds"]
        if notebook:
            self.notebook += seconds
        else:
            self.measuring += seconds
        self.core_seconds += seconds * (run.get("threads") or 0)
        self.gpu_seconds += seconds * (run.get("gpus") or 0)
        self.memory = max(self.memory, run.get("peak_memory_bytes") or 0)
        self.gpu_memory = max(self.gpu_memory, run.get("peak_gpu_memory_bytes") or 0)
        self.hardware |= {device(dict(run))} - {""}


@dataclass(frozen=True)
class About:
    """What is known of a run's study: its file, if that is at hand, its title, its own healing."""

    study: Study | None
    title: str
    healing: dict[str, Any] | None


@dataclass
class Account:
    """A study's run: what is known of the study, where the run is known from, what it took in all
    and by section, and what was left out."""

    about: About
    source: str
    total: Spent = field(default_factory=Spent)
    sections: dict[str, Spent] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def of(self, section: str) -> tuple[Spent, Spent]:
        """What a section's costs are added to."""
        return self.total, self.sections.setdefault(section, Spent())


def about(name: str) -> About:
    """The study of a results folder: a shipped one, the file that the folder was claimed for, or
    what was published of it."""
    try:
        shipped = (paths.STUDIES / f"{name}.yaml").is_file()
        note = paths.results(name) / "checkpoint.json"
        study = studies.load(name if shipped else _json(note)["file"])
        return About(study, study.title, study.healing.model_dump())
    except (UserError, OSError, ValueError, KeyError, TypeError):
        pass
    try:
        known = _json(paths.published(name) / "study.json")
        return About(None, known["title"], known["settings"]["healing"])
    except (OSError, ValueError, KeyError, TypeError):
        return About(None, name, None)


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def accounts(study: str | None = None) -> list[Account]:
    """Every run in this clone and every one that is published, or those of one study."""
    found = []
    for folder in sorted(paths.results("").glob("*/")):
        runs = folder / "jobs" / "runs.jsonl"
        if runs.is_file() and study in (None, folder.name):
            found.append(_of_jobs(folder.name, HERE, runs, folder))
    for folder in sorted(paths.published("").glob("*/")):
        runs, evidence = folder / "runs.jsonl", folder / "evidence.jsonl"
        if study not in (None, folder.name):
            continue
        if runs.is_file():
            found.append(_of_jobs(folder.name, PUBLISHED, runs, evidence))
        else:
            found.append(_of_measurements(folder.name, evidence))
    return found


def _of_jobs(name: str, source: str, file: Path, evidence: Path) -> Account:
    account = Account(about(name), source)
    runs: list[Run] = []
    try:
        runs, broken = read(file)
        if broken:
            which = ", ".join(map(str, broken))
            account.left_out.append(f"line {which} of its record of jobs, not readable")
        elif not runs:
            account.left_out.append("its record of jobs, which is empty")
    except UserError:
        account.left_out.append("its record of jobs, which cannot be read")
    section = _sections_of_jobs(account.about.study)
    for run in runs:
        job = run["job"]
        for spent in account.of(section(job)):
            spent.add(run, notebook=job == "site" or job.startswith("section-"))
            spent.runs += 1
            spent.failed += run.get("ended") != WELL
    apart = DISTANCES in account.sections
    for record in _evidence(account, evidence):
        own = DISTANCES if apart and record["kind"] == DISTANCES else ""
        for spent in account.of(own or section_of(record, account.about.healing)):
            spent.measurements += 1
    return account


def _of_measurements(name: str, evidence: Path) -> Account:
    """What measurements say: the time of each, but not that of loading and of notebooks."""
    account = Account(about(name), OLDER)
    for record in _evidence(account, evidence):
        made = record["provenance"]
        for spent in account.of(section_of(record, account.about.healing)):
            spent.measurements += 1
            if _amount(made.get("seconds")):
                spent.add(made | {"gpus": int(used_gpu(made))})
    return account


def _evidence(account: Account, place: Path) -> list[Record]:
    try:
        found = list(in_place(place))
    except UserError:
        account.left_out.append("its measurements, which cannot be read")
        return []
    broken = sum(problem is not None for _, _, problem in found)
    if broken:
        account.left_out.append(f"{broken} of its measurements, damaged")
    return [record for _, record, problem in found if problem is None]


def section_of(record: Record, own: dict[str, Any] | None) -> str:
    """Where a measurement belongs, by what it is of; own: the study's healing."""
    if record["kind"] == "cost":
        return "09"
    if record["kind"] == DISTANCES:
        return "01" if record["name"].rpartition(" ")[0] in ("", "untrained") else "08"
    if record["inputs"].get("question_free"):
        return "13"
    healing = record["inputs"].get("healing")
    if healing is None:
        return "02"
    if own is None:
        return OTHERS
    if any(healing.get(key) != own.get(key) for key in ("steps", "teacher") if key in healing):
        return "11"
    if healing.get("seed") != own.get("seed"):
        return "07"
    return "05" if healing.get("rank") != own.get("rank") else "02"


def _sections_of_jobs(study: Study | None) -> Callable[[str], str]:
    """From a job's name to its section, or to what stands for itself."""
    names = {"cost": "09", "question-free": "13", "site": "site"}
    healed = cache(lambda: _sections_of_parts(study))

    def section(job: str) -> str:
        if match := re.fullmatch(r"(?:section|models)-(\d\d)", job):
            return match[1]
        if job.startswith(DISTANCES):
            return DISTANCES
        if job.startswith("unhealed"):
            return "02"
        if job in names:
            return names[job]
        return healed().get(re.sub(r"-(\d+|healing)$", "", job), OTHERS)

    return section


def _sections_of_parts(study: Study | None) -> dict[str, str]:
    """The section of every healed model of a study; none where its shape is not at hand."""
    if study is None:
        return {}
    try:
        opened = Planned(study, config_at_hand(study))
    except UserError:
        return {}
    return {part.name: part.section for part in parts(opened).values()}


def config_at_hand(study: Study) -> PretrainedConfig:
    """What the study says of its model's shape, so that no hub is asked; else the model's own.

    Raises UserError where there is neither."""
    return checkpoints.config_of_shape(study) if study.shape else planned_config(study)[0]
