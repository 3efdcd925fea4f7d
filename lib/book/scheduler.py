"""Starting Snakemake on a study's jobs, watching it, and ending it with all that it has started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from rich.console import Console

from lib import paths
from lib.book import ending, graph, progress
from lib.errors import UserError
from lib.files import unwritable


def listing(command: Sequence[str], log: Path) -> int:
    """Have Snakemake list its jobs; what it says beside that goes to the log."""
    with _opened(log) as file:
        code = subprocess.run(command, cwd=paths.ROOT, stderr=file, env=_started()).returncode
    _explain(log, code)
    return code


def watch(study: str, command: Sequence[str], log: Path, patience: float | None = None) -> int:
    """Run Snakemake on the jobs of a study and show how they come along; returns its status.

    On a terminal the state is drawn anew every second; elsewhere a line is printed per job, and one
    a minute. What Snakemake itself says goes to the log. patience: seconds that all of it has to
    end in order when it is stopped; None: as many as it takes."""
    with _opened(log) as file:
        graph.file(study).unlink(missing_ok=True)
        seen, screen = None, progress.Screen(Console(stderr=True, highlight=False))
        # In a session of its own, so that Ctrl-C is passed on once, to all of it.
        process = subprocess.Popen(
            command,
            cwd=paths.ROOT,
            stdout=file,
            stderr=file,
            start_new_session=True,
            env=_started(),
        )
        try:
            while process.poll() is None:
                if seen is not None:
                    with suppress(OSError):  # a terminal that is gone
                        screen.show(seen)
                elif graph.file(study).exists():
                    seen = progress.Watch(graph.load(study))
                time.sleep(progress.EVERY)
        except KeyboardInterrupt:
            with suppress(OSError):
                screen.close()
                print("stopping", file=sys.stderr)
            _stop(process, patience)
            raise
    with suppress(OSError):
        if seen is not None:
            screen.show(seen)
        screen.close()
    return _ended(seen, process.returncode, log)


def _ended(seen: progress.Watch | None, code: int, log: Path) -> int:
    """Say why a run has ended, where that has not been said; the exit status."""
    killed = seen.unended() if seen is not None else []
    for job in killed:
        print(
            f"error: {job.what} was killed (by a signal, a time limit, or for memory); what it had "
            f"measured is kept; its log is {job.log}",
            file=sys.stderr,
        )
    if code < 0:
        how = signal.Signals(-code).name
        print(f"error: Snakemake was killed ({how}); its log is {log}", file=sys.stderr)
        return 128 - code
    if not killed and (seen is None or not seen.failed()):
        _explain(log, code)
    return code


def _opened(log: Path) -> TextIO:
    """Raises UserError where it cannot be written."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return open(log, "w", encoding="utf-8")
    except OSError as error:
        raise unwritable(log, error) from None


def _started() -> dict[str, str]:
    """The environment of what ends with this process."""
    return os.environ | {ending.STARTED_BY: str(os.getpid())}


def _stop(process: subprocess.Popen, patience: float | None) -> None:
    """End Snakemake and its jobs: in order, or, where that takes too long or they are asked twice,
    at once."""
    try:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(patience)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):  # whoever of them is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _explain(log: Path, code: int) -> None:
    """Say why Snakemake ended before there was anything to watch; a user's mistake as UserError."""
    lines = log.read_text("utf-8", "replace").splitlines()
    mistakes = [line for line in lines if line.startswith("error: ")]
    if code and mistakes:
        raise UserError(*(line.removeprefix("error: ") for line in mistakes))
    if code:
        print("\n".join(lines[-20:]), file=sys.stderr)
