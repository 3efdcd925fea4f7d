"""The jobs of a study: which there are, what each takes, and running one that measures.

    python -m lib.book.jobs --study almanac --options '{"grain": "models"}'  # check it, list them

How fine they are is a matter of what they run on (`grain`). On one computer a job measures all
models that a section is the first to need, in one process, and the notebook whatever else it needs.
Where that would leave processors idle, each model is one: it is healed and asked everything while
it is in memory. All unhealed prunings share one pass, which is split into as many shards.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from lib import paths
from lib import study as studies
from lib.book import ending
from lib.book.check import check
from lib.book.configuration import Configuration, configuration
from lib.book.graph import SITE, Job
from lib.book.memory import machine_memory, memory
from lib.book.plan import Extras, Part, Planned, Speed, extras, parts, speed
from lib.errors import UserError
from lib.evidence.journal import WHOLE
from lib.evidence.records import digest
from lib.experiments import measure, own_answers, probes
from lib.experiments.choosing import passes, samples
from lib.experiments.conditions import Condition, beside
from lib.experiments.opened import OpenStudy
from lib.files import write_atomically
from lib.healing import recipe as recipes
from lib.models import checkpoints
from lib.models.shapes import planned_config, shape_of
from lib.schema import Study
from lib.sections import section

CHOICES = "choices"  # the job that all others wait for
NOTEBOOK = 10.0  # seconds of a notebook that finds everything measured, beside its imports
SITE_SECONDS, SITE_MB = 45.0, 1500
UNEVEN = 600.0  # seconds that slots may stand empty before jobs are made finer
PROCESS = 1.5e9  # bytes of a process that has imported everything and loaded nothing


def listed(
    opened: Planned, pace: Speed, grain: str, slots: int, shards: int | None = None
) -> list[Job]:
    """All jobs, without what each gets; `auto`: as fine as it takes to fill so many slots. shards:
    of a pass that prunings share; None: as many as there are slots."""
    workload, more = parts(opened), extras(opened)
    uneven = grain == "auto" and _uneven(opened, pace, workload, more, slots)
    fine = grain == "models" or uneven
    found = [_choices(opened, pace)]
    found += _models(opened, pace, workload, more if fine else {}, fine, shards or slots)
    if fine:
        found += _extras(opened, pace, more, workload)
    found += _notebooks(opened, pace, workload, more, found)
    pages = tuple(job.name for job in found if job.notebook)
    return [*found, Job(opened.study.name, SITE, "the site", needs=pages, seconds=SITE_SECONDS)]


def _uneven(
    opened: Planned, pace: Speed, workload: dict[str, Part], more: Extras, slots: int
) -> bool:
    """Whether jobs by section would leave slots empty: there are too few of them, or one is much
    longer than its share of all."""
    seconds: dict[str, float] = {}
    for part in workload.values():
        taken = pace.healing(opened, part) + pace.asking(opened, part)
        seconds[part.sections[0]] = seconds.get(part.sections[0], 0.0) + taken
    for extra, owner in more.values():
        if extra.trains:  # others take little
            name = f"the notebook of {owner}"
            seconds[name] = seconds.get(name, 0.0) + pace.extra(opened, extra)
    if len(seconds) < slots:
        return True
    return max(seconds.values(), default=0.0) - sum(seconds.values()) / slots > UNEVEN


def _choices(opened: Planned, pace: Speed) -> Job:
    settings = opened.study.calibration or opened.study.distances
    read = settings.n_sequences * settings.length

    def taken(strategy: str, tokens: int) -> float:
        return passes(opened.strategy(strategy), opened.n_layers, opened.head) * tokens

    asked = sum(taken(one, read) for one in opened.every_strategy)
    asked += sum(taken(strategy, one.read()) for strategy, one in samples(opened.study))
    return Job(
        opened.study.name,
        CHOICES,
        "which layers each strategy drops",
        measures=(CHOICES,),
        code=("experiments.opened",),
        seconds=asked * pace.forward,
    )


def _models(
    opened: Planned,
    pace: Speed,
    workload: dict[str, Part],
    more: Extras,
    fine: bool,
    shards: int,
) -> Iterator[Job]:
    """A job for each part, or for those that a section is the first to need. more: what has jobs
    of its own."""
    groups: dict[str, list[Part]] = {}
    for part in workload.values():
        groups.setdefault(part.name if fine else f"models-{part.sections[0]}", []).append(part)
    for name, group in groups.items():
        conditions = [one for part in group for one in part.conditions]
        asks = [(repr(one), repr(probes.probes(opened, one))) for one in conditions]
        job = Job(
            opened.study.name,
            name,
            group[0].what if fine else f"models of section {_stem(group[0].sections[0])}",
            needs=(CHOICES, *(name for name in _answers(opened, conditions) if name in more)),
            measures=tuple(part.name for part in group),
            asks=digest(asks),
            code=("experiments.measure",),
            seconds=sum(pace.healing(opened, one) + pace.asking(opened, one) for one in group),
        )
        yield from _split(job, shards) if fine and not group[0].healed else [job]


def _answers(opened: Planned, conditions: list[Condition]) -> dict[str, None]:
    """The jobs that write what some of these models are healed on."""
    healings = [step.healing for one in conditions for step in (*one.before, one) if step.healing]
    found = [own_answers.answered(opened.study, healing) for healing in healings]
    return dict.fromkeys(own_answers.job(data) for data in found if data)


def _split(job: Job, shards: int) -> Iterator[Job]:
    """Shards of a job, which share nothing but the checkpoint, and the job that puts together what
    they have scored; what is written, not chosen, is left to that one."""
    names = [f"{job.name}-{number}-of-{shards}" for number in range(1, shards + 1)]
    if shards == 1:
        yield job
        return
    for number, name in enumerate(names, 1):
        what = f"{job.what}, shard {number} of {shards}"
        share, seconds = (number, shards), job.seconds / shards
        yield replace(job, name=name, what=what, share=share, seconds=seconds)
    yield replace(job, needs=(*job.needs, *names), seconds=0.0)


def _extras(opened: Planned, pace: Speed, more: Extras, workload: dict[str, Part]) -> Iterator[Job]:
    for extra, owner in more.values():
        models = [one.name for one in workload.values() if owner in one.sections]
        yield Job(
            opened.study.name,
            extra.name,
            extra.what,
            needs=(CHOICES, *extra.needs, *(models if extra.after_models else ())),
            measures=(extra.name,),
            code=(f"sections.{owner}",),
            seconds=pace.extra(opened, extra),
            alone=extra.alone,
        )


def _notebooks(
    opened: Planned, pace: Speed, workload: dict[str, Part], more: Extras, before: list[Job]
) -> Iterator[Job]:
    """A job for each section. An extra that is no job of its own is measured by the notebook of the
    first section that needs it, and the others wait for that."""
    measured = {name: job.name for job in before for name in job.measures}
    measured |= {
        name: f"section-{owner}" for name, (_, owner) in more.items() if name not in measured
    }
    writers = section.writers()
    for name, path in section.notebooks().items():
        one, own, others = section.load(name), f"section-{name}", section.reads(name)
        needs = [
            CHOICES,
            *(measured[part.name] for part in workload.values() if name in part.sections),
        ]
        needs += [measured[extra.name] for extra in one.extras(opened)]
        needs += [f"section-{other}" for other in others]
        measures = [extra for extra in one.extras(opened) if measured[extra.name] == own]
        yield Job(
            opened.study.name,
            own,
            f"section {path.stem}",
            needs=tuple(need for need in dict.fromkeys(needs) if need != own),
            measures=tuple(extra.name for extra in measures),
            notebook=path.name,
            tables=tuple(table.name for table in one.tables if table.written),
            reads=tuple(table for table, writer in writers.items() if writer in others),
            runs=one.runs,
            seconds=NOTEBOOK + sum(pace.extra(opened, extra) for extra in measures),
            alone=any(extra.alone for extra in measures),
        )


def _stem(name: str) -> str:
    return paths.sections()[name].stem


def run(study: Study, job: Job) -> None:
    """Measure what a job is about; what is recorded already is not measured again."""
    opened = OpenStudy(study)
    more = extras(opened)
    if job.name == CHOICES:
        for strategy in opened.every_strategy:
            opened.chosen(strategy, 1)
        for strategy, sample in samples(study):
            opened.chosen(strategy, 1, sample=sample)
    elif job.name in more:
        more[job.name][0].measure(opened)
    else:
        _measure(opened, job.measures, job.share or WHOLE)


def _measure(opened: OpenStudy, names: Sequence[str], share: tuple[int, int]) -> None:
    """Two strategies may choose one set of layers: then the part that comes first measures it, and
    the other's job has nothing to do."""
    workload = parts(opened)
    # What was planned of a block falls away where a strategy has chosen scattered layers.
    gone = parts(Planned(opened.study, opened.config)).keys() - workload.keys()
    every = [(part.name, one) for part in workload.values() for one in part.conditions]
    owners: dict[str, str] = {}
    for name, one in sorted(every, key=lambda owned: beside(opened, owned[1])):  # asked less
        owners.setdefault(digest(probes.condition_inputs(opened, one)), name)
    todo = [
        one
        for name in names
        for one in (workload[name].conditions if name not in gone else ())
        if owners[digest(probes.condition_inputs(opened, one))] == name
    ]
    measure.measure(opened, todo, share)


def prepare(study: Study, config: Configuration, cores: int, start: float = 0.0) -> dict[str, Any]:
    """Check a study; its jobs, with the cores, memory, GPUs and time that each gets.

    cores: of this machine; start: seconds that a process takes to begin. Raises UserError for all
    mistakes found."""
    elsewhere, gpus = config.elsewhere, config.gpus
    if not elsewhere:
        check(study)
        gpus = gpus if gpus is not None else int(checkpoints.device(study).type == "cuda")
    else:
        check(study, here=False)
        # As it would be there: nothing is asked of this machine's device.
        there = "bfloat16" if gpus and study.dtype == "auto" else study.dtype
        study = study.model_copy(update={"device": "cpu", "dtype": there})
    model, _ = planned_config(study)
    opened, shape = Planned(study, model), shape_of(model, study.adapted)
    needs = memory(study, shape)
    in_4bit = [recipes.of(one).needs_4bit for one in study.every_recipe]
    if elsewhere and gpus and in_4bit and all(in_4bit):
        del needs["healed"]  # evaluated as it is, in 4-bit, which takes less than healing it
    need = PROCESS + max(needs.values())
    if not elsewhere:
        need = min(need, machine_memory(study))
    threads = config.threads
    if threads is None:
        room = 1 if elsewhere else max(1, int(machine_memory(study) // need))
        threads = min(4, cores) if gpus else max(1, cores // min(cores, room))
    slots = torch.cuda.device_count() if gpus and not elsewhere else cores // threads
    torch.set_num_threads(threads)  # as the jobs will have
    found = listed(opened, speed(study, shape, config.flops), config.grain, slots, config.shards)

    def given(job: Job) -> Job:
        """Time limits: three times the estimate, and a quarter of an hour."""
        if job.name == SITE:
            return replace(job, memory_mb=SITE_MB)
        seconds = job.seconds + start
        return replace(
            job,
            threads=cores if job.alone and not elsewhere else threads,
            gpus=gpus or 0 if job.measures else 0,  # else it finds everything measured
            memory_mb=config.memory_mb or math.ceil(need / 1e6),
            minutes=config.minutes or 15 + math.ceil(3 * seconds / 60),
            seconds=round(seconds, 1),
        )

    jobs = [asdict(given(job)) for job in found]
    return {"checkpoint": checkpoints.checkpoint_digest(study), "jobs": jobs}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.book.jobs", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--study", required=True, help="name or path of a YAML file")
    parser.add_argument("--options", type=json.loads, default={}, help="configuration, as JSON")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, help="a file for them, in place of the terminal")
    given = parser.parse_args(arguments)
    ending.with_starter()
    start = round(time.process_time(), 1)  # of a process until it can begin: its imports
    try:
        config = configuration({"study": given.study} | given.options)
        found = json.dumps(prepare(studies.load(given.study), config, given.cores, start), indent=1)
        if given.out is None:
            print(found)
        else:
            write_atomically(given.out, found)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
