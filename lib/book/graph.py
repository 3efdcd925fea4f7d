"""The graph of a study's jobs: measurements, then sections, then the site.

A job is done when its note, results/<study>/jobs/<name>.json, names a digest of everything that the
job would be made from now (`state`), and its outputs are there. So what is out of date is a
question of content, not of times: clocks may differ and files may be touched. `planning` builds the
graph, the Snakefile schedules what is pending, `worker` runs one job and writes its note.

Importing this module is cheap (no torch): every job of a cluster reads the Snakefile anew.
"""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lib import paths
from lib.files import write_atomically
from lib.schema import Study


@dataclass(frozen=True)
class Job:
    """One process. `what` for people; `note`: the file that says it is done; `outputs`: what else
    has to be there; `needs`: names of jobs; `seconds` estimated; `made_from`: a digest."""

    name: str
    what: str
    note: str
    outputs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    threads: int = 1
    gpus: int = 0
    memory_mb: int = 0
    minutes: int = 60
    seconds: float = 0.0
    measures: dict[str, Any] | None = None  # a `lib.book.jobs.Job`; None: a section, or the site
    made_from: str = ""

    def noted(self) -> str | None:
        """What the job was made from when it was last done."""
        try:
            return json.loads(Path(paths.ROOT, self.note).read_text("utf-8"))["made_from"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def done(self) -> bool:
        present = all(Path(paths.ROOT, file).exists() for file in self.outputs)
        return present and self.noted() == self.made_from


@dataclass(frozen=True)
class Graph:
    """All jobs of a study, by name, in an order in which they can be run."""

    study: str
    file: str
    checkpoint: str
    jobs: dict[str, Job] = field(default_factory=dict)

    @cached_property
    def pending(self) -> list[Job]:
        """What is missing or out of date, as it was when first asked for. The site is, as soon as a
        page of it is."""
        todo = [job for job in self.jobs.values() if not job.done]
        site = self.jobs.get("site")
        return [*todo, site] if todo and site is not None and site not in todo else todo

    def waits_for(self, job: Job) -> list[Job]:
        """What has to end before a job: those of its needs that are pending."""
        names = {one.name for one in self.pending}
        return [self.jobs[name] for name in job.needs if name in names]

    def until_end(self) -> dict[str, float]:
        """Seconds from the start of each pending job to the end of everything that waits for it,
        however many jobs run at once. The most urgent job is the one with the most."""
        todo = self.pending
        found = {job.name: job.seconds for job in todo}
        for job in reversed(todo):  # what waits for a job stands after it
            for before in self.waits_for(job):
                found[before.name] = max(found[before.name], before.seconds + found[job.name])
        return found


def folder(study: Study) -> Path:
    """Where the notes of a study's jobs are."""
    return paths.results(study.name) / "jobs"


def file(name: str) -> Path:
    """Where the graph of a study stands while it runs, for its jobs to read."""
    return paths.BUILD / "graph" / f"{name}.json"


def log_file(study: str, job: str) -> Path:
    """What a job prints."""
    return paths.BUILD / "logs" / study / f"{job}.log"


def state_file(study: str, job: str) -> Path:
    """How a job stands, for those who watch."""
    return paths.BUILD / "logs" / study / f"{job}.json"


def load(name: str) -> Graph:
    """The graph that the run which is going on has left."""
    found = json.loads(file(name).read_text("utf-8"))
    jobs = {job["name"]: Job(**job) for job in found.pop("jobs")}
    return Graph(jobs=jobs, **found)


def save(graph: Graph) -> None:
    """For the jobs to read, and for those who watch."""
    about = {"study": graph.study, "file": graph.file, "checkpoint": graph.checkpoint}
    jobs = [asdict(job) for job in graph.jobs.values()]
    write_atomically(file(graph.study), json.dumps(about | {"jobs": jobs}, indent=1))


def relative(path: Path) -> str:
    """As Snakemake likes it: below the repository without a leading slash, elsewhere absolute."""
    return str(path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path)
