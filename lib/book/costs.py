"""What studies cost: what runs took, and what a large model would take.

python -m lib.book.costs                                      # the tables of the page on costs
python -m lib.book.costs --study path/to/mine.yaml            # of one study
python -m lib.book.costs --flops 1.2e14 --gpus 16             # on GPUs of your own

An estimate follows from the shape of the model. Each layer takes two operations for each of its
weights and each token that it sees, and three times as many where the gradient goes back through
it. The head counts as so many layers, by its size. Attention between tokens, loading and written
answers are left out.
"""

import argparse
import heapq
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tabulate import tabulate

from lib import study as studies
from lib.book import took
from lib.book.memory import memory
from lib.book.model_tables import PAPER, SMALL, family
from lib.book.plan import (
    BACK,
    Planned,
    asked_passes,
    extras,
    parts,
    training_passes,
)
from lib.book.took import Rows
from lib.errors import UserError
from lib.healing import recipe as recipes
from lib.models import checkpoints
from lib.models.shapes import Shape, planned_config, shape_of
from lib.schema import Study
from lib.words import amount, percent, power_of_ten, size, spoken

# Operations per second that a GPU sustains: 40% of what NVIDIA's data sheet says of an A100 (bf16,
# dense). The page on costs says so too.
FLOPS = 0.4 * 312e12
GPUS = (1, 8, 64, 512)
SHOWN = "llama-2-70b"  # whose schedule the page shows
WORK = ("distances", "unhealed", "healing", "healed")
HEADINGS = {
    "runs": "What runs took",
    "sections": "The same by section and kind of work",
    "hours": "GPU hours, estimated",
    "memory": "Memory and download, estimated",
    "schedule": "On several GPUs, by a schedule on paper",
}


@dataclass(frozen=True)
class Piece:
    """What one GPU does without a break: seconds by kind of work, and jobs that come before it."""

    name: str
    work: dict[str, float]
    needs: frozenset[str] = frozenset()

    @property
    def seconds(self) -> float:
        return sum(self.work.values())


class Estimate:
    """A study as it would run on GPUs that sustain so many operations per second.

    Raises UserError where the shape of its model is not known."""

    def __init__(self, study: Study, flops: float = FLOPS) -> None:
        dtype = "bfloat16" if study.dtype == "auto" else study.dtype
        # Nothing is asked of the device of this machine.
        self.study = study.model_copy(update={"device": "cpu", "dtype": dtype})
        self.flops = flops
        shaped = study.shape is not None  # then no hub is asked
        config = checkpoints.config_of_shape(study) if shaped else planned_config(study)[0]
        self.shape: Shape = shape_of(config, study.adapted)
        self.opened = Planned(self.study, config)

    @cached_property
    def jobs(self) -> list[Piece]:
        """Distances on each text; then each healed model, and the unhealed ones together. All
        models wait for the distances on the first text, which choose the layers to drop."""
        opened = self.opened
        each = 2 * max(self.shape.by_layer) / self.flops  # seconds of a layer and token, forward
        found = [
            Piece(extra.name, {"distances": extra.tokens * opened.n_layers * each})
            for extra, _ in extras(opened).values()
            if extra.tokens
        ]
        first = frozenset([found[0].name])
        for part in parts(opened).values():
            answering = asked_passes(opened, part) * each
            work = {"unhealed": answering}
            if part.healed:
                healing = training_passes(opened, part)
                seconds = (healing.forward + (BACK - 1) * healing.back) * each
                work = {"healing": seconds, "healed": answering}
            found.append(Piece(part.name, work, first))
        return found

    @property
    def seconds(self) -> float:
        return sum(job.seconds for job in self.jobs)

    @property
    def memory(self) -> dict[str, float]:
        """Bytes on a GPU, at most: of the whole model, and of a healing with what follows it."""
        found = memory(self.study, self.shape)
        if self.study.healing is None:
            return found
        # A model healed in 4 bits is evaluated as it is there, which takes less than healing it.
        after = 0.0 if recipes.of(self.study.healing).needs_4bit else found["healed"]
        return {"unhealed": found["unhealed"], "healing": max(found["healing"], after)}


def sharded(jobs: Sequence[Piece], count: int) -> list[Piece]:
    """The same with the pass that unhealed prunings share in so many shards."""
    found: list[Piece] = []
    for job in jobs:
        shards = range(count if "unhealed" in job.work else 1)
        work = {kind: seconds / len(shards) for kind, seconds in job.work.items()}
        names = [f"{job.name}-{shard}" if len(shards) > 1 else job.name for shard in shards]
        found += [Piece(name, work, job.needs) for name in names]
    return found


def schedule(jobs: Sequence[Piece], gpus: int) -> float:
    """Seconds until all jobs have ended on so many GPUs, a job on each. A free GPU takes the
    longest job whose needs have ended."""
    waiting = sorted(jobs, key=lambda job: -job.seconds)
    running: list[tuple[float, str]] = []  # when each ends
    ended: set[str] = set()
    now = 0.0
    while waiting or running:
        ready = [job for job in waiting if job.needs <= ended]
        for job in ready[: gpus - len(running)]:
            waiting.remove(job)
            heapq.heappush(running, (now + job.seconds, job.name))
        now, name = heapq.heappop(running)
        ended.add(name)
    return now


def hours_table(found: Sequence[Estimate]) -> Rows:
    """GPU hours by kind of work, a row for each study."""
    rows: Rows = []
    for one in found:
        hours = {work: sum(job.work.get(work, 0.0) for job in one.jobs) / 3600 for work in WORK}
        rows.append(
            {
                "model": one.study.title,
                "operations": power_of_ten(one.seconds * one.flops),
                "per second": power_of_ten(one.flops),
                "distances": amount(hours["distances"]),
                "prunings, unhealed": amount(hours["unhealed"]),
                "healing": amount(hours["healing"]),
                "prunings, healed": amount(hours["healed"]),
                "GPU hours in all": "at least " * one.opened.unknown + amount(one.seconds / 3600),
            }
        )
    return rows


def memory_table(found: Sequence[Estimate]) -> Rows:
    """What a GPU has to hold, a row for each study."""
    return [
        {
            "model": one.study.title,
            "whole model": size(one.memory["unhealed"]),
            "healing": size(one.memory["healing"]) if one.study.healing else "none",
            # Of the checkpoint, in 16 bits.
            "download": "none" if one.study.model_is_local else size(2 * one.shape.total),
        }
        for one in found
    ]


def schedule_table(one: Estimate, counts: Sequence[int]) -> Rows:
    """How long the study would take, a row for each number of GPUs."""
    rows: Rows = []
    for gpus in counts:
        jobs = sharded(one.jobs, gpus)
        seconds = schedule(jobs, gpus)
        rows.append(
            {
                "model": one.study.title,
                "jobs": len(jobs),
                "GPUs": gpus,
                "without shards": spoken(schedule(one.jobs, gpus)),
                "time": spoken(seconds),
                "GPUs in use": percent(one.seconds / (gpus * seconds)),
            }
        )
    return rows


def tables(
    study: Study | None = None, flops: float = FLOPS, gpus: Sequence[int] = GPUS
) -> dict[str, Rows]:
    """The estimates of the page, or of one study, by the names in HEADINGS."""
    chosen = [study] if study else [*family(PAPER), *family(SMALL)]
    found = [Estimate(one, flops) for one in chosen]
    shown = next((one for one in found if one.study.name == SHOWN), found[0])
    return {
        "hours": hours_table(found),
        "memory": memory_table(found),
        "schedule": schedule_table(shown, gpus),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m lib.book.costs", description=about)
    parser.add_argument("--study", help="only this one: name or path of a YAML file")
    parser.add_argument("--flops", type=float, help="operations per second that a GPU sustains")
    parser.add_argument("--gpus", type=int, help="how many GPUs there are")
    given = parser.parse_args(arguments)
    try:
        if given.flops is not None and not 0 < given.flops < math.inf:
            raise UserError(f"--flops: a number above 0, not {given.flops}")
        if given.gpus is not None and given.gpus < 1:
            raise UserError(f"--gpus: at least 1, not {given.gpus}")
        study = studies.load(given.study) if given.study else None
        _show(took.tables(study.name if study else None))
        _show(tables(study, given.flops or FLOPS, [given.gpus] if given.gpus else GPUS))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _show(found: dict[str, Rows]) -> None:
    for name, rows in found.items():
        body = tabulate(rows, headers="keys", tablefmt="plain", disable_numparse=True)
        print(f"{HEADINGS[name]}\n\n{body or 'none yet'}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
