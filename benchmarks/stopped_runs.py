"""Runs of a small study, each ended by a signal while a notebook is at work, as it was started: on
a terminal, in the background of a script, or with nohup.

    .venv/bin/python benchmarks/stopped_runs.py

A terminal is closed for SIGHUP, and sends SIGINT for Ctrl-C; other signals go to `lib.run` alone.
What a script starts in the background has SIGINT ignored from the start, and with nohup SIGHUP too:
that run has to go on and end by itself. Prints how many processes are left after 20 seconds, how
many of the records that stood then were lost or measured again, and how the next run ended. Exits
non-zero unless all of that is as it should be.
"""

import argparse
import contextlib
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from killed_runs import STUDY, found
from tabulate import tabulate

from lib import paths

sys.path.insert(0, str(paths.ROOT / "tests"))
from clones import copied, processes, sigkill, values

SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
WAYS = ("terminal", "script", "nohup")
LIMIT = 20.0  # seconds in which everything has to be gone
KERNEL = "kernel"  # as `lib.book.kernels` names it


@dataclass
class Started:
    """process: of `lib.run`; window: a terminal's end; ended: its exit status, once it has one."""

    process: int
    window: int | None
    ended: Callable[[], int | None]
    said: bytes = field(default=b"")

    def read(self) -> None:
        """What the terminal shows, so that it is never full."""
        if self.window is not None:
            os.set_blocking(self.window, False)
            with contextlib.suppress(OSError):
                self.said += os.read(self.window, 1 << 16)

    def end(self, how: signal.Signals) -> None:
        if self.window is not None and how == signal.SIGHUP:
            os.close(self.window)
            self.window = None
        elif self.window is not None and how == signal.SIGINT:
            os.write(self.window, b"\x03")
        else:
            os.kill(self.process, how)


def on_a_terminal(clone: Path, command: list[str]) -> Started:
    process, window = pty.fork()
    if not process:
        os.chdir(clone)
        os.execvp(command[0], command)
    statuses: list[int] = []

    def ended() -> int | None:
        if not statuses:
            gone, status = os.waitpid(process, os.WNOHANG)
            statuses.extend([os.waitstatus_to_exitcode(status)] if gone else [])
        return statuses[0] if statuses else None

    return Started(process, window, ended)


def by_a_script(clone: Path, command: list[str], nohup: bool) -> Started:
    line = shlex.join([*(["nohup"] if nohup else []), *command])
    script = f"{line} >said 2>&1 </dev/null & echo $! >pid; wait $!"
    shell = subprocess.Popen(["sh", "-c", script], cwd=clone)
    while not (clone / "pid").exists() or not (clone / "pid").read_text():
        time.sleep(0.05)
    return Started(int((clone / "pid").read_text()), None, shell.poll)


def asking(study: Path) -> list[str]:
    command = [sys.executable, "-m", "lib.run", "book", "--study", str(study)]
    return [*command, "--sections", "01"]


def begun(clone: Path, study: Path, way: str) -> Started:
    """A run from its beginning, when a notebook is at work and something is recorded."""
    for old in ("results", "_build/executed"):
        shutil.rmtree(clone / old, ignore_errors=True)
    for old in ("pid", "said"):
        (clone / old).unlink(missing_ok=True)
    command = asking(study)
    run = (
        on_a_terminal(clone, command)
        if way == "terminal"
        else by_a_script(clone, command, way == "nohup")
    )
    while not processes(clone, KERNEL) or not found(clone):
        run.read()
        if run.ended() is not None:
            raise SystemExit(f"{way}: the run ended before it could be ended")
        time.sleep(0.1)
    time.sleep(1)
    return run


def one(clone: Path, study: Path, way: str, how: signal.Signals, expected: Any) -> dict[str, Any]:
    run = begun(clone, study, way)
    kept, goes_on = found(clone), way == "nohup" and how == signal.SIGHUP
    start = time.monotonic()
    run.end(how)
    while time.monotonic() - start < LIMIT or (goes_on and run.ended() is None):
        run.read()
        if run.ended() is not None and not processes(clone):
            break
        time.sleep(0.1)
    seconds, left = time.monotonic() - start, processes(clone)
    code = run.ended()
    sigkill(left)
    said = run.said.decode() if way == "terminal" else (clone / "said").read_text()
    last = [line for line in said.replace("\r", "\n").splitlines() if line.strip()][-1:]
    again = subprocess.run(asking(study), cwd=clone, capture_output=True)
    stood = found(clone)
    lost = sum(stood.get(path) != moment for path, moment in kept.items())
    same = values(clone) == expected
    row = {
        "started": way,
        "signal": how.name,
        f"processes after {LIMIT:.0f} s": "it goes on, as asked; 0 after its end"
        if goes_on and not left
        else len(left),
        "gone after": f"{seconds:.1f} s",
        "exit": code,
        "records then": len(kept),
        "lost": lost,
        "next run": "ends with all values" if same and not again.returncode else "NO",
        "last line": (last or ["–"])[0].strip()[-90:] if how != signal.SIGKILL else "–",
        "good": not left and not lost and same and again.returncode == 0 and (code == 0) == goes_on,
    }
    print(*row.values(), sep=" | ", flush=True)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    names = [one.name.removeprefix("SIG") for one in SIGNALS]
    parser.add_argument("--signals", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    signals = [signal.Signals[f"SIG{name}"] for name in options.signals]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        study = folder / "stopped.yaml"
        settings = STUDY | {"title": "Stopped", "controls": {"untrained": True}}
        study.write_text(yaml.safe_dump(settings), encoding="utf-8")
        clone = copied(folder / "clone")
        subprocess.run(asking(study), cwd=clone, check=True)
        expected = values(clone)
        rows = [one(clone, study, way, how, expected) for way in options.ways for how in signals]
    good = [row.pop("good") for row in rows]
    print(tabulate(rows, headers="keys", tablefmt="github"))
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
