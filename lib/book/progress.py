"""For people who watch a run: what there is to do, how far it is, and what went wrong.

The jobs tell by files (`lib.book.graph`), wherever they run: a state, a log, and a note when they
are done. Times left are guesses: the estimates of the plan, scaled by what has been seen so far.
"""

import datetime
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tabulate import tabulate

from lib import paths
from lib.book.graph import Graph, Job, load, log_file, state_file
from lib.book.graph import file as graph_file
from lib.errors import UserError
from lib.words import spoken

EVERY = 1.0  # seconds between looks
QUIET = 60.0  # seconds between lines where nothing can be drawn anew


def only_run() -> TextIO:
    """Hold this clone for as long as the returned file is open; two runs would write the same
    files. Raises UserError where another run holds it."""
    paths.BUILD.mkdir(parents=True, exist_ok=True)
    file = open(paths.BUILD / "lock", "a+", encoding="utf-8")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise UserError(
            f"another run is going on in this clone ({file.read().strip() or 'just started'}); "
            "wait for it, or stop it with Ctrl-C where it runs"
        ) from None
    except OSError:
        pass  # a file system without locks
    file.truncate(0)
    since = datetime.datetime.now().astimezone().isoformat(" ", timespec="minutes")
    file.write(f"process {os.getpid()}, since {since}")
    file.flush()
    return file


def described(graph: Graph) -> str:
    """The pending jobs with what they get and how long they take, as text."""
    todo = graph.pending
    if not todo:
        return f"study {graph.study}: nothing to do, everything is up to date"
    rows = [
        {
            "job": job.what,
            "cores": job.threads,
            "GPUs": job.gpus,
            "memory": f"{job.memory_mb / 1000:.1f} GB",
            "time": spoken(job.seconds),
            "limit": spoken(60 * job.minutes),
        }
        for job in todo
    ]
    sides = ["left", *["right"] * 5]
    table = tabulate(rows, "keys", tablefmt="plain", colalign=sides, disable_numparse=True)
    total = sum(job.seconds for job in todo)
    best = max(graph.until_end().values())
    return (
        f"{table}\nstudy {graph.study}: {len(todo)} jobs; estimated {spoken(total)} one after "
        f"another, {spoken(best)} at best"
    )


@dataclass
class Watch:
    """What has been seen of a run's jobs."""

    graph: Graph
    todo: list[Job]
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)  # by the clock here, not the job's
    taken: dict[str, float] = field(default_factory=dict)  # seconds of jobs that ended well
    widest: int = 1  # jobs seen at once

    def look(self) -> list[tuple[Job, dict[str, Any]]]:
        """What has ended since the last look, with its state."""
        ended = []
        for job in self.todo:
            state = self._state(job)
            before = self.states.get(job.name)
            if state is None or state == before:
                continue
            self.states[job.name] = state
            if state["state"] == "running":
                self.since[job.name] = time.monotonic()
            else:
                ended.append((job, state))
                if state["state"] == "done":
                    self.taken[job.name] = took(state)
        self.widest = max(self.widest, len(self.running()))
        return ended

    def _state(self, job: Job) -> dict[str, Any] | None:
        """What the job says of itself in this run; None: it has not begun."""
        try:
            return json.loads(state_file(self.graph.study, job.name).read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def running(self) -> list[Job]:
        return [j for j in self.todo if self.states.get(j.name, {}).get("state") == "running"]

    def unended(self) -> list[Job]:
        """Jobs that began and never said how they ended: they were killed."""
        return [job for job in self.running() if job.noted() is None]

    def spent(self, job: Job) -> float:
        """Seconds that a running job has been seen running."""
        return time.monotonic() - self.since[job.name]

    def _remaining(self) -> list[float]:
        """Seconds that each job still takes, a guess: its estimate, corrected by what the jobs that
        are done took."""
        known = sum(job.seconds for job in self.todo if job.name in self.taken)
        scale = sum(self.taken.values()) / known if known else 1.0
        found = []
        for job in self.todo:
            if job.name not in self.taken:
                spent = self.spent(job) if job in self.running() else 0.0
                found.append(max(job.seconds * scale - spent, spent / 10, 1.0))
        return found

    def left(self) -> float:
        """Seconds until everything is done, a guess."""
        remaining = self._remaining()
        return max(*remaining, sum(remaining) / self.widest) if remaining else 0.0

    def summary(self) -> str:
        past = sum(self.taken.values()) + sum(self.spent(job) for job in self.running())
        whole = past + sum(self._remaining()) or 1.0
        return (
            f"{len(self.taken)} of {len(self.todo)} jobs, {100 * past / whole:.0f}%, "
            f"about {spoken(self.left())} left"
        )


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


def listing(command: Sequence[str], log: Path) -> int:
    """Have Snakemake list its jobs; what it says beside that goes to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        code = subprocess.run(command, cwd=paths.ROOT, stderr=file).returncode
    _explain(log, code)
    return code


def watch(study: str, command: Sequence[str], log: Path) -> int:
    """Run Snakemake on the jobs of a study and show how they come along; returns its status.

    On a terminal the state is drawn anew every second; elsewhere a line is printed per job, and one
    a minute. What Snakemake itself says goes to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    graph_file(study).unlink(missing_ok=True)
    screen, seen = _Screen(sys.stderr), None
    with open(log, "w", encoding="utf-8") as file:
        # In a session of its own, so that Ctrl-C is passed on once, to all of it.
        process = subprocess.Popen(
            command, cwd=paths.ROOT, stdout=file, stderr=file, start_new_session=True
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            while process.poll() is None:
                if seen is not None:
                    _show(seen, screen)
                elif graph_file(study).exists():
                    graph = load(study)
                    seen = Watch(graph, graph.pending)
                time.sleep(EVERY)
        except KeyboardInterrupt:
            screen.clear()
            print("stopping", file=sys.stderr)
            _stop(process)
            raise
    if seen is None:
        _explain(log, process.returncode)
        return process.returncode
    _show(seen, screen)
    screen.clear()
    for job in seen.unended():
        print(
            f"error: {job.what} was killed (by a signal, a time limit, or for memory); what it had "
            f"measured is kept; its log is {log_file(study, job.name)}",
            file=sys.stderr,
        )
    return process.returncode


def _stop(process: subprocess.Popen) -> None:
    """End Snakemake and its jobs: in order, or, where they are asked twice, at once."""
    try:
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _explain(log: Path, code: int) -> None:
    """Say why Snakemake ended before there was anything to watch; a user's mistake as UserError."""
    lines = log.read_text("utf-8", "replace").splitlines()
    mistakes = [line for line in lines if line.startswith("error: ")]
    if code and mistakes:
        raise UserError(mistakes[-1].removeprefix("error: "))
    if code:
        print("\n".join(lines[-20:]), file=sys.stderr)


def _show(seen: Watch, screen: "_Screen") -> None:
    for job, state in seen.look():
        if state["state"] == "done":
            screen.line(f"{job.what}: {spoken(took(state))} ({seen.summary()})")
        elif state["state"] == "failed":
            screen.line(f"error: {state['problem']}")
    lines = [seen.summary()]
    for job in seen.running():
        shows = last_line(log_file(seen.graph.study, job.name))
        lines.append(f"  {job.what}, {spoken(seen.spent(job))}: {shows}")
    screen.draw(lines)


class _Screen:
    """Lines that stay, and below them, on a terminal, lines that are drawn anew."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.live = stream.isatty()
        self.drawn = 0
        self.last = time.monotonic()

    def clear(self) -> None:
        if self.drawn:
            self.stream.write(f"\x1b[{self.drawn}A\x1b[J")
            self.drawn = 0
        self.stream.flush()

    def line(self, text: str) -> None:
        self.clear()
        self.stream.write(text + "\n")
        self.stream.flush()
        self.last = time.monotonic()

    def draw(self, lines: Sequence[str]) -> None:
        if not self.live:
            if time.monotonic() - self.last >= QUIET:
                self.line(lines[0])
            return
        self.clear()
        width = shutil.get_terminal_size().columns
        for line in lines:
            self.stream.write(line[: width - 1] + "\n")
        self.drawn = len(lines)
        self.stream.flush()
