"""Running one job of a study's graph: the process that Snakemake starts, here or on a cluster.

    python -m lib.book.worker models-02 --study almanac

What the job prints goes to a file of its own, _build/logs/<study>/<job>.log. Its state, for those
who watch, is in <job>.json beside it; when it has ended well it leaves its note (`lib.book.graph`),
and in any case a line in results/<study>/jobs/runs.jsonl.
"""

import argparse
import contextlib
import datetime
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib import paths, study
from lib.book import graph, machine, planning
from lib.book.notebooks import ENVIRONMENT
from lib.errors import UserError
from lib.evidence import provenance
from lib.files import claimed, write_atomically

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
    signal.signal(signal.SIGTERM, _interrupt)  # a cluster says so before a time limit kills
    try:
        found = graph.load(options.study)
    except OSError:
        print(f"error: study {options.study}: no graph; `make book` makes it", file=sys.stderr)
        return 1
    return work(found, found.jobs[options.job])


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def work(found: graph.Graph, job: graph.Job) -> int:
    """Run a job; returns its exit status. A mistake of the user's is one line, on the terminal or
    in the cluster's log too; of anything else the log has the traceback."""
    start = time.monotonic()
    state = {"what": job.what, "began": _now(), "state": "running"}
    try:
        _tell(found, job, state)
        with _into(graph.log_file(found.study, job.name)) as terminal:
            problem, code = _outcome(found, job, start)
            if problem is not None:
                for stream in (sys.stderr, terminal):
                    print(f"error: {problem}", file=stream, flush=True)
    except KeyboardInterrupt:  # as it began or ended
        problem, code = "stopped", STOPPED
        print("error: stopped", file=sys.stderr)
    ended = {0: "done", STOPPED: "stopped"}.get(code, "failed")
    _tell(found, job, state | {"state": ended, "ended": _now(), "problem": problem})
    return code


def _outcome(found: graph.Graph, job: graph.Job, start: float) -> tuple[str | None, int]:
    """What went wrong, in a line, or None; and the exit status."""
    problem, code, made_from = None, 0, ""
    lock = paths.results(found.study) / "locks" / job.name
    waiting = f"{job.what}: an earlier start of it is still running; waiting for it to end"
    try:
        with claimed(lock, waiting), machine.one_each(machine.gpus(), job.gpus):
            # As things are now: what a section reads may have been written since the graph was.
            made_from = planning.made_from(study.load(found.file), job)
            os.environ |= ENVIRONMENT | dict.fromkeys(THREADS, str(job.threads))
            _run(found, job)
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
        _append(paths.results(found.study) / "jobs" / "runs.jsonl", record)
        if problem is None:
            note = json.dumps(record | {"made_from": made_from}, indent=1)
            write_atomically(Path(paths.ROOT, job.note), note)
    except UserError as error:
        problem, code = problem or str(error), code or 1
    return problem, code


def _run(found: graph.Graph, job: graph.Job) -> None:
    if job.name == "site":
        from lib.book import site

        log = graph.log_file(found.study, job.name)
        if site.build(study.load(found.file)):
            raise UserError(f"the site could not be built; see {log}")
    elif job.measures is None:
        from lib.book import notebooks

        notebooks.section(job.name.removeprefix("section-"), found.file, {}, checked=True)
    else:
        from lib.book import jobs

        measuring = {key: tuple(v) if isinstance(v, list) else v for key, v in job.measures.items()}
        jobs.run(study.load(found.file), jobs.Job(**measuring))


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


def _tell(found: graph.Graph, job: graph.Job, state: dict[str, Any]) -> None:
    with contextlib.suppress(UserError):  # what cannot be told need not stop the work
        write_atomically(graph.state_file(found.study, job.name), json.dumps(state))


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
