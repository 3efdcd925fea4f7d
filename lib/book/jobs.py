"""The jobs that measure: which there are, what each takes, and running one.

    python -m lib.book.jobs --study almanac --grain models   # check the study, list its jobs (JSON)

How fine they are is a matter of what they run on (`grain`). On one computer a job measures all
models that a section needs first, in one process. With more processors than that gives jobs, each
model is one: it is healed and asked everything while it is in memory. With more still, healing and
each task are jobs of their own; a healed model is then loaded again from its adapters.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch

from lib import paths
from lib import study as studies
from lib.book.check import check
from lib.book.memory import machine_memory, memory
from lib.book.plan import Speed, distances_passes, measured_speed, sizes, task_size
from lib.book.workload import Part, Planned, Sizes, asked_passes, parts, trained_passes, used
from lib.errors import UserError
from lib.evidence.records import digest
from lib.experiments import costs, measure
from lib.experiments.opened import OpenStudy
from lib.models import checkpoints
from lib.models.shapes import Shape, planned_config, shape_of
from lib.schema import Loss, Study, Task
from lib.sections import controls

Grain = Literal["auto", "sections", "models", "measurements"]
COST, FREE = 30.0, 5.0  # seconds of what is not worked out from the model's shape
PROCESS = 1.5e9  # bytes of a process that has imported everything and loaded nothing
WITHOUT_MODELS = ("01", "08", "09", "14")  # sections that evaluate none
MEASURING = ("02", "05", "07", "11")  # the sections that evaluate models that others have not


@dataclass(frozen=True)
class Job:
    """What one process measures: parts of the workload (`probe`: only one of the things that their
    models are asked, counted from 0, or -1 for none of them, only healing), or the thing that
    `name` says. needs: jobs that come before; seconds: estimated."""

    name: str
    what: str
    parts: tuple[str, ...] = ()
    probe: int | None = None
    needs: tuple[str, ...] = ()
    seconds: float = 0.0


def by_section(opened: OpenStudy) -> list[Job]:
    """A job for the models that each section is the first to need."""
    found = []
    for section in MEASURING:
        own = [part for part in parts(opened).values() if part.section == section]
        if own:
            what = f"models of section {section}"
            names = tuple(part.name for part in own)
            found.append(Job(f"models-{section}", what, names, needs=("section-01",)))
    return found


def by_model(opened: OpenStudy) -> list[Job]:
    """A job for each part of the workload, and for all else that notebooks would measure."""
    found = [Job("distances", "distances")]
    if opened.study.controls.untrained:
        found.append(Job("distances-untrained", "distances of the untrained twin"))
    for i, text in enumerate(opened.study.other_texts, 1):
        found.append(Job(f"distances-text-{i}", f"distances on {text.name}"))
    found.append(Job("cost", "memory, operations and times"))
    found.append(Job("question-free", "choices without their question", needs=("unhealed",)))
    for part in parts(opened).values():
        found.append(Job(part.name, words(part), (part.name,), needs=("distances",)))
    return found


def by_measurement(opened: OpenStudy) -> list[Job]:
    """A job for each healing, and for each thing that a model is asked. Without adapters, where all
    weights are trained, a model cannot be loaded again: there they stay together."""
    found = []
    for job in by_model(opened):
        whole = parts(opened)[job.parts[0]] if job.parts else None
        if whole is None or (whole.healed and whole.conditions[0].healing.recipe == "full"):
            found.append(job)
            continue
        needs = job.needs
        if whole.healed:
            needs = (f"{job.name}-healing",)
            what = f"{job.what}: healing"
            found.append(Job(needs[0], what, job.parts, probe=-1, needs=job.needs))
        for i, probe in enumerate(probes(opened, whole)):
            kind, name = measure.kind_and_name(whole.conditions[0], probe)
            what = f"{job.what}: {name.split(' drop')[0] if kind == 'qa' else kind}"
            found.append(Job(f"{job.name}-{i}", what, job.parts, probe=i, needs=needs))
    names = [job.name for job in found]
    unhealed = tuple(name for name in names if re.fullmatch(r"unhealed-\d+", name))
    return [replace(job, needs=unhealed) if job.needs == ("unhealed",) else job for job in found]


def words(part: Part) -> str:
    """What a part's job is called in a table."""
    if not part.healed:
        weights = "in 4-bit" if part.name.endswith("4bit") else ""
        return f"all prunings {weights}, unhealed".replace(" ,", ",")
    one = part.conditions[0]
    dropped = f"{one.strategy}, {one.dropped.n} layers dropped" if one.dropped.n else "unpruned"
    longer = ", longer" if part.name.endswith("longer") else ""
    return f"{dropped}, {one.recipe}, seed {one.healing.seed}{longer}"


def probes(opened: OpenStudy, part: Part) -> list[measure.Probe]:
    """Everything that the models of a part are asked, each once."""
    found: list[measure.Probe] = []
    for one in part.conditions:
        found += [probe for probe in measure.probes(opened, one) if probe not in found]
    return found


def listed(opened: OpenStudy, grain: Grain, slots: int) -> list[Job]:
    """The study's jobs; `auto`: as fine as it takes to fill so many slots."""
    coarse = by_section(opened)
    if grain == "sections" or (grain == "auto" and slots <= len(coarse)):
        return coarse
    return by_measurement(opened) if grain == "measurements" else by_model(opened)


def section_needs(opened: OpenStudy, jobs: Sequence[Job]) -> dict[str, list[str]]:
    """Section → the jobs whose measurements its notebook reads."""
    texts = {f"distances-text-{i}" for i, _ in enumerate(opened.study.other_texts, 1)}
    own = {"01": {"distances-untrained"}, "08": texts, "09": {"cost"}, "13": {"question-free"}}
    found = {}
    for section in paths.sections():
        wanted = {"distances"} | own.get(section, set())
        models_of = set() if section in WITHOUT_MODELS else used(opened, section)
        found[section] = [
            job.name for job in jobs if job.name in wanted or models_of.intersection(job.parts)
        ]
    return found


def seconds(opened: OpenStudy, job: Job, speed: Speed, asked: Sizes) -> float:
    """Estimated, without starting the process."""
    if not job.parts:
        own = {"cost": COST, "question-free": FREE}
        return own.get(job.name, distances_passes(opened)[1] * speed.forward)
    total, everything = 0.0, parts(opened)
    for name in job.parts:
        part = everything[name]
        trained, taught = trained_passes(opened, part)
        if job.probe in (None, -1):
            total += trained * speed.training + taught * speed.forward
        asking = sum(asked_passes(opened, part, asked)) * speed.forward
        if job.probe is None:
            total += asking
        elif job.probe >= 0:
            total += asking * _share(opened, part, job.probe, asked)
    return total


def _share(opened: OpenStudy, part: Part, number: int, asked: Sizes) -> float:
    """Of the tokens that a part's models see when they are asked, those of one probe."""
    probe = probes(opened, part)[number]
    whole = asked.asked + asked.prompts
    if isinstance(probe, Task):
        return task_size(opened.study, probe)[1] / whole
    if isinstance(probe, Loss):
        return probe.n_sequences * probe.length / whole
    return 0.0  # what is written is little


def run(study: Study, job: Job) -> None:
    """Measure what a job is about; what is recorded already is not measured again."""
    opened = OpenStudy(study)
    name = job.name
    if name.startswith("distances"):
        if name == "distances":
            opened.measure_distances()
        elif name == "distances-untrained":
            opened.measure_untrained_distances()
        else:
            opened.measure_distances_on(study.other_texts[int(name.rpartition("-")[2]) - 1])
    elif name == "cost":
        costs.cost_table(opened)
    elif name == "question-free":
        controls.unpruned_table(opened)
    else:
        _measure(opened, job)


def _measure(opened: OpenStudy, job: Job) -> None:
    """Two strategies may choose one block: then the part that comes first measures it, and the
    other's job has nothing to do."""
    everything = parts(opened)
    owners: dict[str, str] = {}
    for part in everything.values():
        for one in part.conditions:
            owners.setdefault(digest(measure.condition_inputs(opened, one)), part.name)
    conditions = [
        one
        for name in job.parts
        for one in everything[name].conditions
        if owners[digest(measure.condition_inputs(opened, one))] == name
    ]
    only = None
    if job.probe is not None:
        found = probes(opened, everything[job.parts[0]])
        only = [] if job.probe < 0 else [found[job.probe]]
    measure.measure(opened, conditions, only)


def prepare(
    study: Study,
    cores: int,
    grain: Grain = "auto",
    threads: int | None = None,
    gpus: int | None = None,
    flops: float | None = None,
    elsewhere: bool = False,
) -> dict:
    """Check a study; its jobs, and what each needs: cores, bytes of memory, GPUs.

    cores: of this machine; elsewhere: jobs run on other machines, so that this one's device and
    memory say nothing; flops: operations per second of a job there, in place of timing a layer
    here. Raises UserError for the first mistake found."""
    if not elsewhere:
        check(study)
        gpus = gpus if gpus is not None else int(checkpoints.device(study).type == "cuda")
    else:
        check(study, here=False)
        # As it would be there: nothing is asked of this machine's device.
        there = "bfloat16" if gpus and study.dtype == "auto" else study.dtype
        study = study.model_copy(update={"device": "cpu", "dtype": there})
    config, _ = planned_config(study)
    opened, shape = Planned(study, config), shape_of(config, study.healing.ffn)
    needs = memory(study, shape)
    if elsewhere and gpus and study.healing.recipe == "qlora":
        del needs["healed"]  # evaluated as it is, in 4-bit, which takes less than healing it
    need = PROCESS + max(needs.values())
    if not elsewhere:
        need = min(need, machine_memory(study))
    if threads is None:
        room = 1 if elsewhere else max(1, int(machine_memory(study) // need))
        threads = min(4, cores) if gpus else max(1, cores // min(cores, room))
    slots = torch.cuda.device_count() if gpus and not elsewhere else cores // threads
    jobs = listed(opened, grain, slots)
    torch.set_num_threads(threads)  # as the jobs will have
    speed = _speed(study, shape, flops)
    asked, _ = sizes(study)
    return {
        "threads": threads,
        "gpus": gpus or 0,
        "memory_bytes": round(need),
        "checkpoint": checkpoints.checkpoint_digest(study),
        "jobs": [
            asdict(job) | {"seconds": round(seconds(opened, job, speed, asked), 1)} for job in jobs
        ],
        "sections": section_needs(opened, jobs),
        "notebooks": _notebooks(opened, speed),
    }


def _notebooks(opened: OpenStudy, speed: Speed) -> dict[str, float]:
    """Seconds, estimated, that notebooks measure by themselves where jobs are by section."""
    texts, passes = distances_passes(opened)
    each, others = passes * speed.forward, len(opened.study.other_texts)
    return {"01": (texts - others) * each, "08": others * each, "09": COST, "13": FREE}


def _speed(study: Study, shape: Shape, flops: float | None) -> Speed:
    """Of one layer per token; three times as long with the backward pass."""
    if flops is None:
        return measured_speed(shape.config, study, max(shape.by_layer))
    each = 2 * max(shape.by_layer) / flops
    return Speed(each, 3 * each)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.book.jobs", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--study", required=True, help="name or path of a YAML file")
    parser.add_argument("--grain", choices=Grain.__args__, default="auto")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    for name, kind in {"threads": int, "gpus": int, "flops": float}.items():
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--elsewhere", action="store_true", help="jobs run on other machines")
    given = vars(parser.parse_args(arguments))
    start = round(time.process_time(), 1)  # of a process until it can begin: its imports
    try:
        found = prepare(studies.load(given.pop("study")), **given)
        print(json.dumps({"start_seconds": start} | found, indent=1))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
