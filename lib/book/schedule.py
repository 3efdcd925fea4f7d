"""When jobs would end on so many GPUs: list scheduling, simulated.

A job takes one GPU. Whenever one is free it gets, of the jobs whose needs have ended, the one with
the longest chain of jobs behind it; that is the order which the Snakefile gives its jobs. A process
that is killed is put back in line with what is left of its work since its last saved state.

A million jobs take seconds. Everything follows from the arguments and the seed.
"""

import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lib.errors import UserError

HOPELESS = 10  # mean times between kills: work without a saved state that is never got through
MOST_KILLS = 10_000_000  # more would take minutes to simulate


class Job(NamedTuple):
    """seconds: of work, undisturbed; needs: positions in the list of jobs; start: seconds before a
    process begins to work, paid again after a kill; saved: seconds of work between two saved
    states (infinite: nothing is kept)."""

    name: str
    seconds: float
    needs: tuple[int, ...] = ()
    start: float = 0.0
    saved: float = math.inf


class Try(NamedTuple):
    """A process: the position of its job, when it began and ended, in seconds, and whether it was
    killed."""

    job: int
    begin: float
    end: float
    killed: bool


@dataclass
class Schedule:
    """What happened: every process, in the order in which they began."""

    gpus: int
    makespan: float = 0.0
    gpu_seconds: float = 0.0  # held by processes, with their starts and what was lost
    tries: list[Try] = field(default_factory=list)

    @property
    def utilisation(self) -> float:
        """Share of the GPUs' time that processes held."""
        whole = self.gpus * self.makespan
        return self.gpu_seconds / whole if whole else 1.0

    @property
    def kills(self) -> int:
        return sum(one.killed for one in self.tries)


def until_end(jobs: Sequence[Job]) -> list[float]:
    """Seconds from the start of each job to the end of all that waits for it, on as many GPUs as
    one likes. Raises ValueError where jobs wait for each other."""
    behind = _behind(jobs)
    left = [len(job.needs) for job in jobs]
    order = [i for i, count in enumerate(left) if not count]
    for i in order:  # grows as it is read
        for after in behind[i]:
            left[after] -= 1
            if not left[after]:
                order.append(after)
    if len(order) < len(jobs):
        raise ValueError("jobs that wait for each other")
    found = [job.start + job.seconds for job in jobs]
    for i in reversed(order):
        found[i] += max((found[after] for after in behind[i]), default=0.0)
    return found


def longest_chain(jobs: Sequence[Job]) -> list[int]:
    """The jobs, one after the other, that no number of GPUs makes shorter."""
    left, behind = until_end(jobs), _behind(jobs)
    chain, following = [], list(range(len(jobs)))
    while following:
        chain.append(max(following, key=lambda i: left[i]))
        following = behind[chain[-1]]
    return chain


def _behind(jobs: Sequence[Job]) -> list[list[int]]:
    """By position, the jobs that wait for each."""
    found: list[list[int]] = [[] for _ in jobs]
    for i, job in enumerate(jobs):
        for before in job.needs:
            found[before].append(i)
    return found


def simulate(
    jobs: Sequence[Job], gpus: int, killed_every: float = math.inf, seed: int = 0
) -> Schedule:
    """Run jobs on so many identical GPUs. killed_every: mean seconds until a process is killed, at
    times drawn with the seed.

    Raises UserError where there is no GPU, and where kills are so many that a job would not end or
    that they cannot be simulated."""
    _check(jobs, gpus, killed_every)
    urgency, behind, draw = until_end(jobs), _behind(jobs), random.Random(seed)
    waits = [len(job.needs) for job in jobs]
    todo = [job.seconds for job in jobs]
    ready = [(-urgency[i], i) for i in range(len(jobs)) if not waits[i]]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []  # end, number of the try
    found, now = Schedule(gpus), 0.0
    while ready or running:
        while ready and len(running) < gpus:
            _, i = heapq.heappop(ready)
            took = jobs[i].start + todo[i]
            kill = draw.expovariate(1 / killed_every) if killed_every < math.inf else math.inf
            one = Try(i, now, now + min(took, kill), kill < took)
            heapq.heappush(running, (one.end, len(found.tries)))
            found.tries.append(one)
            found.gpu_seconds += one.end - now
        now = found.makespan = running[0][0]
        while running and running[0][0] == now:
            one = found.tries[heapq.heappop(running)[1]]
            if one.killed:
                worked = max(0.0, one.end - one.begin - jobs[one.job].start)
                todo[one.job] -= worked - worked % jobs[one.job].saved
                heapq.heappush(ready, (-urgency[one.job], one.job))
                continue
            for after in behind[one.job]:
                waits[after] -= 1
                if not waits[after]:
                    heapq.heappush(ready, (-urgency[after], after))
    return found


def _check(jobs: Sequence[Job], gpus: int, killed_every: float) -> None:
    if gpus < 1:
        raise UserError(f"GPUs: at least 1, not {gpus}")
    for job in jobs:
        if not (0 <= job.seconds < math.inf and 0 <= job.start < math.inf and job.saved > 0):
            raise ValueError(f"job {job.name}: times are finite and not negative")
        if job.start + min(job.seconds, job.saved) > HOPELESS * killed_every:
            raise UserError(f"job {job.name}: would be killed before it has saved anything")
    if sum(job.start + job.seconds for job in jobs) > MOST_KILLS * killed_every:
        raise UserError(f"above {MOST_KILLS:,} kills, too many to simulate")
