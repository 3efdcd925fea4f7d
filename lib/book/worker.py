"""Running one job of a study's graph: the process that Snakemake starts, here or on a cluster.

    python -m lib.book.worker section-loss --study almanac

A job that is made from the same things as last time, and whose outputs are there, has nothing to
do. What any other prints goes to a file of its own, _build/logs/<study>/<job>.log. How it stands,
for those who watch, is in <job>.json beside it; when it has ended well it leaves its note
(`lib.book.graph`), and in any case a line in results/<study>/jobs/runs.jsonl.
"""

import argparse
import contextlib
import datetime
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib import paths, study
from lib.book import ending, graph, machine, warm
from lib.book.notebooks import ENVIRONMENT
from lib.errors import UserError
from lib.evidence import provenance
from lib.files import claimed, write_atomically
from lib.schema import Study

# What torch and the libraries below it read when they are imported.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
STOPPED = 130


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.book.worker", description=__doc__.split("\n")[0]
    )
    parser.add_argument("job")
    parser.add_argument("--study", required=True, help="the study's name")
    options = parser.parse_args(arguments)
    ending.with_starter()
    try:
        found = graph.load(options.study)
    except OSError:
        print(f"error: study {options.study}: no graph; `make book` makes it", file=sys.stderr)
        return 1
    with ending.heeded(ending.GRACE):  # a cluster says so before a time limit kills
        return work(found, found.jobs[options.job])


def work(found: graph.Graph, job: graph.Job) -> int:
    """Run a job; returns its exit status. A mistake of the user's is one line, on the terminal or
    in the cluster's log too; of anything else the log has the traceback."""
    status = {"what": job.what, "began": _now(), "state": "running"}
    same = False
    try:
        _tell(job, status)
        with _into(job.log) as terminal:
            same, problem, code = _outcome(found, job)
            if problem is not None:
                for stream in (sys.stderr, terminal):
                    print(f"error: {problem}", file=stream, flush=True)
    except KeyboardInterrupt:  # as it began or ended
        problem, code = "stopped", STOPPED
        print("error: stopped", file=sys.stderr)
    ended = {0: "same" if same else "done", STOPPED: "stopped"}.get(code, "failed")
    _tell(job, status | {"state": ended, "ended": _now(), "problem": problem})
    return code


def _outcome(found: graph.Graph, job: graph.Job) -> tuple[bool, str | None, int]:
    """Whether there was nothing to do; what went wrong, in a line, or None; the exit status."""
    start, same, problem, code, made_from = time.monotonic(), False, None, 0, ""
    lock = paths.results(found.study) / "locks" / job.name
    waiting = f"{job.what}: an earlier start of it is still running; waiting for it to end"
    try:
        with claimed(lock, waiting):
            # As things are now: what it reads may have been written since the graph was.
            chosen = study.load(found.file)
            made_from = graph.made_from(chosen, job)
            same = job.done(made_from)
            if not same:
                with machine.one_each(machine.gpus(), job.gpus), job.made_anew():
                    os.environ |= ENVIRONMENT | dict.fromkeys(THREADS, str(job.threads))
                    warm.use(job.threads)
                    _run(chosen, job)
    except KeyboardInterrupt:
        problem, code = "stopped", STOPPED
    except UserError as error:
        problem, code = str(error), 1
    except Exception as error:
        traceback.print_exc()
        words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        problem, code = f"{job.what} failed ({words})", 1
    record = _record(job, time.monotonic() - start) | {"ended": problem or "well"}
    try:
        if not same:
            _append(paths.results(found.study) / "jobs" / "runs.jsonl", record)
        if problem is None and not same:
            note = record | {"made_from": made_from, "tables": job.written()}
            write_atomically(job.note, json.dumps(note, indent=1))
        if problem is None:
            write_atomically(job.ended, "")
    except UserError as error:
        problem, code = problem or str(error), code or 1
    return same, problem, code


def _run(chosen: Study, job: graph.Job) -> None:
    if job.name == graph.SITE:
        from lib.book import site

        if site.build(chosen):
            raise UserError(f"the site could not be built; see {job.log}")
    elif job.notebook:
        from lib.book import notebooks

        notebooks.section(job.notebook, chosen.file, {}, checked=True)
    else:
        from lib.book import jobs

        jobs.run(chosen, job)


def _record(job: graph.Job, seconds: float) -> dict[str, Any]:
    """What a job took. Peak memory: of the process, or of the kernel that it started."""
    unit = 1 if sys.platform == "darwin" else 1024
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    about = provenance.surroundings()
    about["threads"] = job.threads
    about["peak_memory_bytes"] = max(resource.getrusage(one).ru_maxrss for one in who) * unit
    return {
        "job": job.name,
        "what": job.what,
        "seconds": round(seconds, 1),
        "gpus": job.gpus,
    } | about


def _append(path: Path, record: dict[str, Any]) -> None:
    """One line, written at once, so that lines of several jobs do not mix."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(handle, (json.dumps(record, sort_keys=True) + "\n").encode())
        finally:
            os.close(handle)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def _tell(job: graph.Job, status: dict[str, Any]) -> None:
    with contextlib.suppress(UserError):  # what cannot be told need not stop the work
        write_atomically(job.status, json.dumps(status))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def _into(log: Path) -> Iterator[Any]:
    """Everything that this process and its children print goes to a file; yields the terminal."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with open(log, "a", encoding="utf-8") as file:  # an earlier start may still write there
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            with os.fdopen(os.dup(kept[1]), "w") as terminal:
                yield terminal
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, handle in zip((1, 2), kept, strict=True):
                os.dup2(handle, number)
                os.close(handle)


if __name__ == "__main__":
    sys.exit(main())
