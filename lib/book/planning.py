"""Building a study's graph: which jobs there are, what each is made from, and what it gets.

The study is checked, and its measurements listed, by `lib.book.jobs` in a process of its own, since
that imports torch; what it says is kept for as long as the study and the code that measures stay
the same. Importing this module is cheap.
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from lib import paths
from lib import study as studies
from lib.book import state
from lib.book.configuration import Configuration
from lib.book.graph import Graph, Job, folder, log_file, relative, save, state_file
from lib.errors import UserError
from lib.evidence.records import digest, file_digest
from lib.files import write_atomically
from lib.schema import Study

# Section → the tables that it writes, and the sections whose tables its verdicts read.
VERDICTS = ("01", "02", "03", "04", "05", "06", "07", "08", "09", "11")
WRITES = {
    "01": ("angular_distances", "distances_after_norm", "optimal_blocks"),
    "02": ("qa", "transitions"),
    "03": ("loss",),
    "04": ("strategies_compared",),
    "05": ("lora_rank", "ranks_compared"),
    "06": ("prompts", "prompts_compared"),
    "07": ("healing_seeds", "healing_seeds_compared"),
    "08": ("text_distances", "text_blocks"),
    "09": ("cost",),
    "10": ("questions", "texts"),
    "11": ("teacher",),
    "12": ("families",),
    "13": ("unpruned",),
    "14": ("verdicts",),
}
READS = {
    **{"03": ("02",), "04": ("02", "03"), "12": VERDICTS},
    **dict.fromkeys(("13", "14", "00"), (*VERDICTS, "12")),
}
NOTEBOOK = 10.0  # seconds of a notebook that finds everything measured, beside its imports
SITE = 45.0


def build(config: Configuration, cores: int) -> Graph:
    """The jobs of a study. Checks the study where it, or the code that measures, has changed.

    Raises UserError for a mistake in the study, and where results/<study>/ cannot be used."""
    study = studies.load(config.study)
    about = state.of_study(study)
    _check_folder(study)
    plan = _planned(study, about, config, cores)
    _check_checkpoint(study, plan["checkpoint"])
    jobs = [*_measurements(study, plan, config, cores), *_sections(study, plan, config, cores)]
    jobs = _wanted(jobs, config.sections)
    if config.sections is None:
        jobs.append(_site(jobs))
    named = {job.name: job for job in jobs}
    order = TopologicalSorter({job.name: job.needs for job in jobs}).static_order()
    found = {
        name: replace(named[name], made_from=made_from(study, named[name], about)) for name in order
    }
    return Graph(study.name, study.file, plan["checkpoint"], found)


def made_from(study: Study, job: Job, about: dict[str, Any] | None = None) -> str:
    """The digest of everything that a job would be made from now. about: `state.of_study`."""
    if job.name == "site":
        return digest([study.file, _pages(), state.helpers(["book.site"])])
    about = about or state.of_study(study)
    if job.measures is not None:
        code = state.helpers(
            ["experiments.measure", "book.workload"]
            if job.measures["parts"]
            else ["sections.tables"]
        )
        return digest([about, code, job.measures["parts"], job.measures["probe"]])
    number = job.name.removeprefix("section-")
    found = [about, state.of_notebook(paths.sections()[number])]
    for one in READS.get(number, ()):
        tables = [Path(paths.ROOT, name) for name in _tables(study, one)]
        found.append([file_digest(path) if path.exists() else None for path in tables])
    if number == "12":
        found.append(state.of_other_runs(study))
    return digest(found)


def _planned(study: Study, about: dict, config: Configuration, cores: int) -> dict[str, Any]:
    """What `lib.book.jobs` says of a study, in a process of its own: it imports torch."""
    keys = {"grain", "threads", "gpus", "flops", "elsewhere"}
    options = config.model_dump(include=keys) | {"cores": cores}
    made_from = [study.name, about, options, state.helpers(["book.jobs"])]
    note = paths.BUILD / "plans" / f"{study.name}-{digest(made_from)}.json"
    if note.exists():
        return json.loads(note.read_text("utf-8"))
    command = [sys.executable, "-m", "lib.book.jobs", "--study", study.file]
    for key, value in options.items():
        if value is True:
            command.append(f"--{key}")
        elif value not in (None, False):
            command += [f"--{key}", str(value)]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        if not lines:
            raise RuntimeError(f"planning the jobs of {study.name} failed:\n{done.stderr}")
        raise UserError(lines[-1].removeprefix("error: "))
    for old in note.parent.glob(f"{study.name}-????????????????.json"):
        old.unlink(missing_ok=True)
    write_atomically(note, done.stdout)
    return json.loads(done.stdout)


def _check_folder(study: Study) -> None:
    """Raises UserError where nothing can be written."""
    probe = paths.results(study.name) / ".writable"
    write_atomically(probe, "")
    probe.unlink(missing_ok=True)


def _check_checkpoint(study: Study, checkpoint: str) -> None:
    """Raises UserError where a results folder holds tables of another model: they would be lost."""
    note = paths.results(study.name) / "checkpoint.json"
    if note.exists():
        known = json.loads(note.read_text("utf-8"))
        if known["checkpoint"] != checkpoint:
            raise UserError(
                f"study {study.name}: {note.parent} belongs to another checkpoint "
                f"({known['checkpoint']}, of {known['model']}; this one is {checkpoint}): move "
                "that folder away, give the study another name, or set RESULTS_DIR"
            )


def begin(graph: Graph) -> None:
    """Note whose results these are, take back the notes of what is pending, so that Snakemake sees
    it missing, and leave the graph for its jobs."""
    study = studies.load(graph.file)
    about = {"checkpoint": graph.checkpoint, "model": Path(study.model).name, "file": study.file}
    write_atomically(paths.results(study.name) / "checkpoint.json", json.dumps(about, indent=1))
    for job in graph.pending:
        told = (state_file(graph.study, job.name), log_file(graph.study, job.name))
        for old in (Path(paths.ROOT, job.note), *told):
            old.unlink(missing_ok=True)
    save(graph)


def _resources(config: Configuration, plan: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Of a job that measures for so long. Three times the estimate, and a quarter of an hour."""
    seconds += plan["start_seconds"]
    return {
        "threads": plan["threads"],
        "gpus": plan["gpus"],
        "memory_mb": config.memory_mb or math.ceil(plan["memory_bytes"] / 1e6),
        "minutes": config.minutes or 15 + math.ceil(3 * seconds / 60),
        "seconds": round(seconds, 1),
    }


def _note(study: Study, name: str) -> str:
    return relative(folder(study) / f"{name}.json")


def _measurements(
    study: Study, plan: dict[str, Any], config: Configuration, cores: int
) -> Iterable[Job]:
    for one in plan["jobs"]:
        resources = _resources(config, plan, one["seconds"])
        if one["name"] == "cost" and not config.elsewhere:
            resources["threads"] = cores  # times are taken: nothing runs beside it
        needs = tuple(one["needs"])
        note = _note(study, one["name"])
        yield Job(one["name"], one["what"], note, needs=needs, measures=one, **resources)


def _sections(
    study: Study, plan: dict[str, Any], config: Configuration, cores: int
) -> Iterable[Job]:
    # Unless distances are a job of their own, four notebooks measure by themselves what only they
    # need, and the first one what all others build on.
    by_themselves = all(job["name"] != "distances" for job in plan["jobs"])
    for number, notebook in paths.sections().items():
        needs = [*plan["sections"][number]]
        needs += [f"section-{one}" for one in READS.get(number, ())]
        if by_themselves and number != "01":
            needs.append("section-01")
        alone = plan["notebooks"].get(number, 0.0) if by_themselves else 0.0
        resources = _resources(config, plan, NOTEBOOK + alone)
        if not alone:
            resources["gpus"] = 0  # it finds everything measured
        elif number == "09":
            resources["threads"] = cores  # times are taken: nothing runs beside it
        executed = relative(paths.executed(study.name, notebook.name))
        name = f"section-{number}"
        yield Job(
            name=name,
            what=f"section {notebook.stem}",
            note=_note(study, name),
            outputs=(executed, *_tables(study, number)),
            needs=tuple(dict.fromkeys(needs)),
            **resources,
        )


def _tables(study: Study, number: str) -> list[str]:
    names = [*WRITES.get(number, ())]
    if number == "01" and study.controls.untrained:
        names.append("untrained_distances")
    return [relative(paths.tables(study.name) / f"{name}.csv") for name in names]


def _wanted(jobs: list[Job], sections: list[str] | None) -> list[Job]:
    """All, or these sections and what they need."""
    if sections is None:
        return jobs
    by_name = {job.name: job for job in jobs}
    todo, names = [f"section-{number}" for number in sections], set()
    while todo:
        name = todo.pop()
        if name not in names:
            names.add(name)
            todo += by_name[name].needs
    return [job for job in jobs if job.name in names]


def _site(jobs: list[Job]) -> Job:
    return Job(
        name="site",
        what="the site",
        note=relative(paths.BUILD / "html" / ".complete"),
        outputs=(relative(paths.BUILD / "html" / "index.html"),),
        needs=tuple(job.name for job in jobs if job.name.startswith("section-")),
        memory_mb=1500,
        seconds=SITE,
    )


def _pages() -> dict[str, str]:
    """What the site shows beside executed notebooks."""
    files = [
        *(paths.ROOT / "book").rglob("*"),
        *paths.STUDIES.glob("*.yaml"),
        *paths.published("").rglob("*.json*"),
        *paths.results("").glob("*/jobs/section-*.json"),
        paths.ROOT / "_config.yml",
        paths.ROOT / "_toc.yml",
    ]
    return {str(one): file_digest(one) for one in sorted(files) if one.is_file()}
