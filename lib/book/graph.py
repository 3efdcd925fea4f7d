"""The graph of a study's jobs: which there are, what each is made from, and what is pending.

A job is done when its note, results/<study>/jobs/<name>.json, names a digest of everything that the
job would be made from now (`lib.book.sources`), and what it wrote is there. So what is out of date
is a question of content, not of times: clocks may differ and files may be touched. Pending is what
is out of date, and all that waits for it. When its turn comes, a job that turns out to be made from
the same things as before has nothing to do. So one round is enough.

`lib.book.jobs` lists the jobs, in a process of its own that imports torch; what it says is kept as
long as the study and the code stay the same. The Snakefile schedules what is pending, and
`lib.book.worker` runs one job. Importing this module is cheap: every job of a cluster reads the
Snakefile anew.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

from lib import paths
from lib import study as studies
from lib.book import sources
from lib.book.configuration import Configuration
from lib.errors import UserError
from lib.evidence import ownership
from lib.evidence.records import digest, file_digest
from lib.files import check_writable, write_atomically
from lib.schema import Study

SITE = "site"


@dataclass(frozen=True)
class Job:
    """One process: it measures, or runs the notebook of a section, or builds the site.

    what: for people; needs: names of jobs that come before.
    share: (2, 4) where it takes the second quarter of the batches of all questions and texts, for
    another job to put together.
    measures: names of parts or of extras (`lib.book.plan`), also of those that a notebook measures
    by itself; asks: a digest of what they are; code: modules that decide what comes out.
    notebook: a file's name; tables: that it writes, where the study has them; reads: tables of
    other sections; runs: whether it reads tables of other studies too.
    alone: it takes times, so nothing runs beside it; seconds: estimated; minutes: time limit."""

    study: str
    name: str
    what: str
    needs: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    share: tuple[int, ...] = ()
    asks: str = ""
    code: tuple[str, ...] = ()
    notebook: str = ""
    tables: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    runs: bool = False
    alone: bool = False
    threads: int = 1
    gpus: int = 0
    memory_mb: int = 0
    minutes: int = 60
    seconds: float = 0.0
    made_from: str = ""

    @property
    def note(self) -> Path:
        """Says what the job was made from when it was done."""
        if self.name == SITE:
            return paths.BUILD / "html" / ".complete"
        return paths.results(self.study) / "jobs" / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """What the job prints."""
        return paths.BUILD / "logs" / self.study / f"{self.name}.log"

    @property
    def status(self) -> Path:
        """How the job stands, for those who watch."""
        return self.log.with_suffix(".json")

    @property
    def ended(self) -> Path:
        """Says that the job has ended well in the run that is going on. It is all that Snakemake
        knows of a job: what it takes for an output it deletes before the job starts."""
        return self.log.with_suffix(".ended")

    @property
    def pages(self) -> list[Path]:
        """What a job leaves for people, beside tables."""
        if self.notebook:
            return [paths.executed(self.study, self.notebook)]
        return [paths.BUILD / "html" / "index.html"] if self.name == SITE else []

    def table(self, name: str) -> Path:
        return paths.tables(self.study) / f"{name}.csv"

    def written(self) -> list[str]:
        """The tables that are there."""
        return [name for name in self.tables if self.table(name).exists()]

    @contextmanager
    def made_anew(self) -> Iterator[None]:
        """Take away the note and the pages, and at the end the tables that were not written anew.
        Until then these stand as they were: another run, in another clone, may read them."""
        for path in (self.note, *self.pages):
            path.unlink(missing_ok=True)
        before = {table: _content(table) for table in map(self.table, self.tables)}
        try:
            yield
        finally:
            for table, was in before.items():
                if was is not None and _content(table) == was:
                    table.unlink(missing_ok=True)

    def done(self, made_from: str) -> bool:
        """Whether it has been made from this, and what it wrote is there."""
        try:
            note = json.loads(self.note.read_text("utf-8"))
            same = note["made_from"] == made_from
            wrote = [self.table(name) for name in note.get("tables", [])]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return same and all(path.exists() for path in [*self.pages, *wrote])


@dataclass(frozen=True)
class Graph:
    """All jobs of a study, by name, in an order in which they can be run. stale: names of those
    that are out of date by themselves."""

    study: str
    file: str
    checkpoint: str
    jobs: dict[str, Job] = field(default_factory=dict)
    stale: tuple[str, ...] = ()

    @cached_property
    def pending(self) -> list[Job]:
        """What is out of date, and all that waits for it."""
        names = set(self.stale)
        for job in self.jobs.values():
            if names.intersection(job.needs):
                names.add(job.name)
        return [job for job in self.jobs.values() if job.name in names]

    def waits_for(self, job: Job) -> list[Job]:
        """What has to end before a job: those of its needs that are pending."""
        return [one for one in self.pending if one.name in job.needs]

    def chains(self, seconds: dict[str, float]) -> dict[str, float]:
        """Seconds from the start of each of these jobs to the end of all that waits for it, however
        many run at once. The most urgent job is the one with the most."""
        found = dict(seconds)
        for job in reversed(self.jobs.values()):  # what waits for a job stands after it
            for before in set(job.needs) & found.keys() if job.name in found else ():
                found[before] = max(found[before], seconds[before] + found[job.name])
        return found

    def until_end(self) -> dict[str, float]:
        """The chains of what is pending."""
        return self.chains({job.name: job.seconds for job in self.pending})


def _content(table: Path) -> tuple[int, int] | None:
    """Which file it is; one that is written anew is another, whatever is in it."""
    try:
        return table.stat().st_ino, table.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def file(study: str) -> Path:
    """Where the graph of a study stands while it runs, for its jobs to read."""
    return paths.BUILD / "graph" / f"{study}.json"


def load(study: str) -> Graph:
    """The graph that the run which is going on has left."""
    found = json.loads(file(study).read_text("utf-8"))
    jobs = _jobs(found.pop("jobs"))
    return Graph(**found | {"stale": tuple(found["stale"])}, jobs={job.name: job for job in jobs})


def save(graph: Graph) -> None:
    """For the jobs to read, and for those who watch."""
    found = asdict(graph) | {"jobs": [asdict(job) for job in graph.jobs.values()]}
    write_atomically(file(graph.study), json.dumps(found, indent=1))


def _jobs(listed: list[dict[str, Any]]) -> list[Job]:
    """As JSON has them, with lists."""
    return [
        Job(**{key: tuple(one) if isinstance(one, list) else one for key, one in job.items()})
        for job in listed
    ]


def build(config: Configuration, cores: int, ready: Callable[[], None] = lambda: None) -> Graph:
    """The jobs of a study, or of some sections and what they need. Checks the study where it, or
    the code, has changed. ready: called before a process is started that imports torch.

    Raises UserError for a mistake in the study, and where results/<study>/ cannot be used."""
    study = studies.load(config.study)
    about = sources.of_study(study)
    check_writable(paths.results(study.name))
    ownership.check(study)
    planned = _planned(study, about, config, cores, ready)
    ownership.check(study, planned["checkpoint"])
    return judged(study, planned["checkpoint"], wanted(_jobs(planned["jobs"]), config), about)


def judged(study: Study, checkpoint: str, jobs: list[Job], about: dict[str, Any]) -> Graph:
    """The graph of these jobs, with what each would be made from now."""
    named = {job.name: job for job in jobs}
    order = TopologicalSorter({job.name: job.needs for job in jobs}).static_order()
    found = {
        name: replace(named[name], made_from=made_from(study, named[name], about)) for name in order
    }
    gone = _of_another(study)
    stale = [
        job.name for job in found.values() if not job.done(job.made_from) or (job.notebook and gone)
    ]
    if SITE in found and SITE not in stale and any(found[name].notebook for name in stale):
        stale.append(SITE)  # it shows pages that will be written anew
    return Graph(study.name, study.file, checkpoint, found, tuple(stale))


def wanted(jobs: list[Job], config: Configuration) -> list[Job]:
    """All, or the sections that are asked for and what they need."""
    if config.sections is None:
        return jobs
    named = {job.name: job for job in jobs}
    todo, names = [f"section-{name}" for name in config.sections], set()
    while todo:
        name = todo.pop()
        if name not in names:
            names.add(name)
            todo += named[name].needs
    return [job for job in jobs if job.name in names]


def made_from(study: Study, job: Job, about: dict[str, Any] | None = None) -> str:
    """The digest of everything that a job would be made from now. about: `sources.of_study`."""
    if job.name == SITE:
        code = sources.helpers(["book.site", "book.reference_list"])
        return digest([study.file, sources.of_site(), code])
    about = about or sources.of_study(study)
    if not job.notebook:
        return digest([about, job.asks, sources.helpers(job.code)])
    tables = {name: job.table(name) for name in job.reads}
    return digest(
        [
            about,
            sources.of_notebook(paths.NOTEBOOKS / job.notebook),
            {name: file_digest(path) for name, path in tables.items() if path.exists()},
            sources.of_other_runs(study) if job.runs else None,
        ]
    )


def _of_another(study: Study) -> bool:
    """Whether the executed notebooks in this clone are of another study of this name, whose results
    lie elsewhere."""
    try:
        about = json.loads(paths.executed(study.name, "study.json").read_text("utf-8"))
        return ownership.another(study, about["file"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _planned(
    study: Study,
    about: dict[str, Any],
    config: Configuration,
    cores: int,
    ready: Callable[[], None],
) -> dict[str, Any]:
    """What `lib.book.jobs` says of a study, in a process of its own: it imports torch."""
    options = config.model_dump(exclude={"study", "sections"}, exclude_none=True)
    notebooks = sorted(path.name for path in paths.NOTEBOOKS.glob("*.ipynb"))
    code = sources.helpers(["book.jobs", *sources.discovered()])
    made_from = [study.name, about, options, cores, [*paths.sections()], notebooks, code]
    note = paths.BUILD / "plans" / f"{study.name}-{digest(made_from)}.json"
    if (known := _plan(note)) is not None:
        return known
    for old in note.parent.glob(f"{study.name}-????????????????.json"):
        old.unlink(missing_ok=True)
    ready()
    command = [sys.executable, "-m", "lib.book.warm", "lib.book.jobs"]
    command += ["--study", study.file, "--out", str(note)]
    command += ["--cores", str(cores), "--options", json.dumps(options)]
    # A user's code may print whatever it likes, so only mistakes are read from what is printed.
    done = subprocess.run(command, cwd=paths.ROOT, text=True, stdout=DEVNULL, stderr=PIPE)
    planned = _plan(note)
    if done.returncode == 0 and planned is not None:
        return planned
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if not lines:
        raise RuntimeError(f"planning the jobs of {study.name} failed:\n{done.stderr}")
    raise UserError(*(line.removeprefix("error: ") for line in lines))


def _plan(note: Path) -> dict[str, Any] | None:
    """What is noted there, if it is whole."""
    try:
        planned = json.loads(note.read_text("utf-8"))
        _jobs(planned["jobs"])
        return planned if isinstance(planned["checkpoint"], str) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def begin(graph: Graph) -> None:
    """Note whose results these are, forget how the jobs ended last time, and leave the graph for
    them to read."""
    study = studies.load(graph.file)
    ownership.take(study, graph.checkpoint)
    if _of_another(study):
        shutil.rmtree(paths.executed(study.name, ""), ignore_errors=True)
    for job in graph.pending:
        for old in (job.ended, job.status, job.log):
            old.unlink(missing_ok=True)
    save(graph)
