"""For people who watch a run: what there is to do, how far it is, and what went wrong.

The jobs tell by files (`lib.book.graph`), wherever they run: a status, a log, and what says that
they have ended well. Times left are guesses: estimates of the plan, scaled by what has been seen.
"""

import datetime
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.live import Live
from rich.text import Text
from tabulate import tabulate

from lib import paths
from lib.book.graph import Graph, Job
from lib.errors import UserError
from lib.files import unwritable
from lib.words import spoken

EVERY = 1.0  # seconds between looks
QUIET = 60.0  # seconds between lines where nothing can be drawn anew
# A job that is over its estimate is taken to need a quarter of what it has taken, once more.
MORE = 0.25
BADLY = ("failed", "stopped")  # states of jobs
TRUST = 30.0  # seconds of work that went as estimated, before any is seen
FOUND = 0.1  # of its estimate: a job that takes less found most of its work done by an earlier run
LONGER = 1.25  # times the estimate of all work, above which that is said


def only_run(run: int | None = None) -> FileLock:
    """Hold this clone until the lock is released, or the process ends; two runs would write the
    same files. run: the process that ends the run with its own end, where that is another.

    Raises UserError where another run holds it, or the clone cannot be written."""
    file = paths.BUILD / "lock"
    lock = FileLock(file, preserve_lock_file=True)
    try:
        paths.BUILD.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(paths.BUILD, error) from None
    try:
        lock.acquire(blocking=False)
        since = datetime.datetime.now().astimezone().isoformat(" ", timespec="minutes")
        file.write_text(f"process {run or os.getpid()}, since {since}", "utf-8")
    except Timeout:
        raise UserError(
            f"another run is going on in this clone ({file.read_text('utf-8') or 'just started'}); "
            "wait for it, or stop it: Ctrl-C where it runs, or `kill` with its number"
        ) from None
    except (OSError, NotImplementedError):
        pass  # a file system without locks
    return lock


def described(found: Graph) -> str:
    """The pending jobs with what they get and how long they take, as text."""
    todo = found.pending
    if not todo:
        return f"study {found.study}: nothing to do, everything is up to date"
    rows = [
        {
            "job": job.what,
            "cores": job.threads,
            "GPUs": job.gpus,
            "memory": f"{job.memory_mb / 1000:.1f} GB",
            "time": spoken(job.seconds),
            "limit": spoken(60 * job.minutes),
            "": "" if job.name in found.stale else "if what it needs changes",
        }
        for job in todo
    ]
    sides = ["left", *["right"] * 5, "left"]
    table = tabulate(rows, "keys", tablefmt="plain", colalign=sides, disable_numparse=True)
    total = sum(job.seconds for job in todo)
    best = max(found.until_end().values())
    return (
        f"{table}\nstudy {found.study}: {len(todo)} jobs; estimated {spoken(total)} one after "
        f"another, {spoken(best)} at best"
    )


@dataclass
class Watch:
    """What has been seen of a run's jobs. clock: seconds, here."""

    graph: Graph
    clock: Callable[[], float] = time.monotonic
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)  # by the clock here, not the job's
    taken: dict[str, float] = field(default_factory=dict)  # seconds of jobs that ended well
    widest: int = 1  # jobs seen at once
    share: float = 0.0  # of the work that is done; never falls

    def __post_init__(self) -> None:
        self.todo = self.graph.pending

    def look(self) -> list[tuple[Job, dict[str, Any]]]:
        """What has ended since the last look, with its status."""
        ended = []
        for job in self.todo:
            state = _status(job)
            if state is None or state == self.states.get(job.name):
                continue
            self.states[job.name] = state
            if state["state"] == "running":
                self.since[job.name] = self.clock()
            else:
                ended.append((job, state))
                if state["state"] in ("done", "same"):
                    self.taken[job.name] = took(state)
        self.widest = max(self.widest, len(self.running()))
        self.share = max(self.share, self._share())
        return ended

    def running(self) -> list[Job]:
        return [job for job in self.todo if self._is(job, "running")]

    def _is(self, job: Job, state: str) -> bool:
        return self.states.get(job.name, {}).get("state") == state

    def unended(self) -> list[Job]:
        """Jobs that began and never said how they ended: they were killed."""
        return [job for job in self.running() if not job.ended.exists()]

    def failed(self) -> bool:
        """Whether a job has said that it did not end well."""
        return any(self.states.get(job.name, {}).get("state") in BADLY for job in self.todo)

    def spent(self, job: Job) -> float:
        """Seconds that a running job has been seen running."""
        return self.clock() - self.since[job.name]

    def _scale(self) -> float:
        """How much longer work takes than estimated: of the jobs that are done, and of those that
        run and are over what that makes of their estimate. A job that had nothing to do, or found
        most of it done, says nothing."""
        done = {job: self.taken[job.name] for job in self.todo if self._is(job, "done")}
        seen = {job: seconds for job, seconds in done.items() if seconds >= FOUND * job.seconds}
        scale = _ratio(seen)
        for job in self.running():
            if (1 + MORE) * self.spent(job) > job.seconds * scale:
                seen[job] = (1 + MORE) * self.spent(job)
        return _ratio(seen)

    def _remaining(self) -> dict[str, float]:
        """Seconds that each job still takes, a guess."""
        scale, running = self._scale(), self.running()
        found = {}
        for job in self.todo:
            if job.name not in self.taken:
                spent = self.spent(job) if job in running else 0.0
                found[job.name] = max(job.seconds * scale - spent, MORE * spent, 1.0)
        return found

    def _share(self) -> float:
        """Each job counts as much as it was estimated to take."""
        whole = sum(job.seconds for job in self.todo)
        remaining, past = self._remaining(), 0.0
        for job in self.todo:
            if job.name in self.taken:
                past += job.seconds
            elif job.name in self.since and self._is(job, "running"):
                spent = self.spent(job)
                past += job.seconds * spent / (spent + remaining[job.name])
        return past / whole if whole else 1.0

    def left(self) -> float:
        """Seconds until everything is done, a guess."""
        remaining = self._remaining()
        if not remaining:
            return 0.0
        return max(*self.graph.chains(remaining).values(), sum(remaining.values()) / self.widest)

    def longer(self) -> bool:
        """Whether all work together takes longer than estimated."""
        past = sum(self.taken.values()) + sum(self.spent(job) for job in self.running())
        whole = past + sum(self._remaining().values())
        return whole > LONGER * sum(job.seconds for job in self.todo)

    def summary(self) -> str:
        done = f"{len(self.taken)} of {len(self.todo)} jobs, {int(100 * self.share)}%"
        left = f"about {spoken(self.left())} left{', longer than estimated' * self.longer()}"
        return f"{done}, {left}" if len(self.taken) < len(self.todo) else done


def _ratio(seen: dict[Job, float]) -> float:
    """Seconds over estimated ones, with some trust in the estimates where little has been seen."""
    estimated = sum(job.seconds for job in seen)
    known = estimated + TRUST
    return (sum(seen.values()) + TRUST) / known if known else 1.0


def _status(job: Job) -> dict[str, Any] | None:
    """What a job says of itself in this run; None: it has not begun."""
    try:
        return json.loads(job.status.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def took(state: dict[str, Any]) -> float:
    """Seconds of a job that has ended, by its own clock."""
    began, ended = (datetime.datetime.fromisoformat(state[key]) for key in ("began", "ended"))
    return (ended - began).total_seconds()


def last_line(log: Path) -> str:
    """What a running job shows at the moment: the last thing that it printed or drew."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - 2000))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in re.split(r"[\r\n]|\x1b\[A", text)]
    return next((line for line in reversed(lines) if line), "")


class Screen:
    """Lines that stay, and below them, on a terminal, lines that are drawn anew."""

    def __init__(self, console: Console) -> None:
        self.console, self.last = console, time.monotonic()
        self.live = Live(console=console, auto_refresh=False, transient=True)
        if console.is_terminal:
            self.live.start()

    def close(self) -> None:
        self.live.stop()

    def show(self, seen: Watch) -> None:
        for job, state in seen.look():
            if state["state"] == "done":
                self.line(f"{job.what}: {spoken(took(state))} ({seen.summary()})")
            elif state["state"] == "failed":
                self.line(f"error: {state['problem']}")
            elif state["state"] == "stopped":
                self.line(f"error: {job.what} was told to end (by a signal, or a time limit)")
        if self.console.is_terminal:
            lines = [
                f"  {job.what}, {spoken(seen.spent(job))}: {last_line(job.log)}"
                for job in seen.running()
            ]
            text = Text("\n".join([seen.summary(), *lines]), no_wrap=True, overflow="ellipsis")
            self.live.update(text, refresh=True)
        elif time.monotonic() - self.last >= QUIET:
            self.line(seen.summary())

    def line(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)
        self.last = time.monotonic()
