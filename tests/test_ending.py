"""How a run ends: whatever ends it, nothing that it has started is left, and it says what it was.

Three processes stand for a run, for Snakemake and for a job, connected as the real ones are."""

import fcntl
import hashlib
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lib import paths
from lib.book import progress, scheduler
from lib.errors import UserError
from lib.evidence import records

RUN = """
import sys
from pathlib import Path
from lib import paths, run
from lib.book import scheduler
folder = Path(sys.argv[1])
paths.BUILD = folder / "_build"
command = [sys.executable, folder / "scheduler.py", *sys.argv[2:]]
run.book = lambda *_: scheduler.watch("mine", command, folder / "log", 8.0)
sys.exit(run.main(["book"]))
"""
SCHEDULER = """
import os, subprocess, sys
from pathlib import Path
from lib.book import ending
folder = Path(__file__).parent
starter = ending.with_starter()
os.environ[ending.STARTED_BY] = str(os.getpid())
words = " ".join(sys.argv[1:])
job = subprocess.Popen(["bash", "-c", f"exec {sys.executable} {folder}/job.py {words}"])
(folder / "starter").write_text(str(starter))
(folder / "scheduler").write_text(str(os.getpid()))
try:
    sys.exit(job.wait())
except KeyboardInterrupt:
    job.wait()
    sys.exit(1)
"""
JOB = """
import os, sys, time
from pathlib import Path
from lib.book import ending
folder = Path(__file__).parent
ending.GRACE = 1
ending.with_starter()
with ending.heeded(ending.GRACE):
    (folder / "job").write_text(str(os.getpid()))
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt as stop:
            (folder / "stopped").write_text(str(stop))
            if "deaf" not in sys.argv:
                sys.exit(130)
"""


@dataclass
class Started:
    process: subprocess.Popen
    folder: Path
    terminal: int  # what a terminal's window is to it; -1: it has none

    def pid(self, name: str) -> int:
        return int((self.folder / name).read_text())

    def said(self) -> str:
        return (self.folder / "said").read_text()

    def left(self, seconds: float = 10) -> list[str]:
        """Which of the processes are there when so many seconds have passed, or none is."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.process.poll()
            found = [name for name in ("scheduler", "job") if alive(self.pid(name))]
            found += ["run"] * (self.process.returncode is None)
            if not found:
                return []
            time.sleep(0.05)
        return found


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")  # one whose new parent has not looked after it is not
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """`start("deaf", ignored=signal.SIGINT)`: a run whose job has begun."""
    made: list[Started] = []

    def begin(*words: str, ignored: int | None = None, terminal: bool = False) -> Started:
        for name, text in {"run": RUN, "scheduler": SCHEDULER, "job": JOB}.items():
            (tmp_path / f"{name}.py").write_text(text)

        def given() -> None:
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)
            if terminal:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        window, inside = pty.openpty() if terminal else (-1, os.open(os.devnull, os.O_RDWR))
        out = inside if terminal else os.open(tmp_path / "said", os.O_WRONLY | os.O_CREAT)
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "run.py"), str(tmp_path), *words],
            env=os.environ | {"PYTHONPATH": str(paths.ROOT)},
            stdin=inside, stdout=out, stderr=out, start_new_session=terminal, preexec_fn=given,
        )  # fmt: skip
        for handle in {inside, out}:
            os.close(handle)
        made.append(Started(process, tmp_path, window))
        until = time.monotonic() + 60
        written = [tmp_path / name for name in ("job", "scheduler")]
        while not all(one.exists() and one.read_text() for one in written):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.02)
        return made[-1]

    yield begin
    for one in made:
        for pid in (one.process.pid, one.pid("scheduler"), one.pid("job")):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        one.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_run_that_is_asked_to_end_ends_in_order(
    start: Callable[..., Started], number: signal.Signals
) -> None:
    """Also where Ctrl-C was ignored from the start, as a script's background has it."""
    run = start(ignored=signal.SIGINT)
    assert run.pid("starter") == run.process.pid
    run.process.send_signal(number)
    assert run.left() == []
    assert run.process.returncode == 128 + number
    assert (run.folder / "stopped").read_text() == "SIGINT"  # each is told once, as by Ctrl-C
    assert run.said() == (
        f"stopping\nstopped ({number.name}); everything recorded so far is kept, the next run goes "
        "on\n"
    )


@pytest.mark.parametrize("victim", ["run", "scheduler"])
def test_what_a_killed_process_had_started_ends_with_it(
    start: Callable[..., Started], victim: str
) -> None:
    run = start()
    os.kill(run.process.pid if victim == "run" else run.pid("scheduler"), signal.SIGKILL)
    assert run.left() == []
    if victim == "scheduler":
        assert run.process.returncode == 128 + signal.SIGKILL
        assert run.said() == f"error: Snakemake was killed (SIGKILL); its log is {run.folder}/log\n"


def test_a_terminal_that_is_closed_ends_the_run(start: Callable[..., Started]) -> None:
    run = start(terminal=True)
    os.close(run.terminal)
    assert run.left() == []
    assert (run.folder / "stopped").read_text() == "SIGINT"


def test_a_run_that_nohup_started_outlives_its_terminal(start: Callable[..., Started]) -> None:
    run = start(ignored=signal.SIGHUP, terminal=True)
    os.close(run.terminal)
    assert run.left(1.5) == ["scheduler", "job", "run"]
    run.process.send_signal(signal.SIGTERM)
    assert run.left() == []


def test_a_job_that_does_not_end_when_told_is_killed(start: Callable[..., Started]) -> None:
    run = start("deaf")
    run.process.send_signal(signal.SIGTERM)
    assert run.left() == [] and (run.folder / "stopped").exists()


WATCHED = """
import json, sys, time
from pathlib import Path
from lib import paths
from lib.book import graph
paths.BUILD = Path(sys.argv[1])
job = graph.Job("mine", "a", "job a", seconds=5, made_from="x")
graph.save(graph.Graph("mine", "mine.yaml", "c", {"a": job}, ("a",)))
state = {"what": "job a", "began": "2001-01-01T00:00:00+00:00", "state": "running"}
job.status.parent.mkdir(parents=True, exist_ok=True)
if sys.argv[2] != "given up":
    job.status.write_text(json.dumps(state))
time.sleep(2)
if sys.argv[2] == "well":
    job.ended.touch()
    state |= {"state": "done", "ended": "2001-01-01T00:00:03+00:00", "problem": None}
    job.status.write_text(json.dumps(state))
    sys.exit(0)
sys.exit("the reason")
"""


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("well", "job a: 3 s (1 of 1 jobs, 100%"),
        ("killed", "error: job a was killed (by a signal"),
        ("given up", "the reason"),  # by Snakemake, before the job began
    ],
)
def test_a_run_is_watched_to_its_end_and_says_why(
    how: str, says: str, tmp_path: Path, build_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", WATCHED, str(build_dir), how]
    code = scheduler.watch("mine", command, tmp_path / "snakemake.log")
    assert code == (how != "well")
    said = capfd.readouterr().err
    assert says in said and ("the reason" in said) == (how == "given up")


def test_what_goes_wrong_before_any_job_is_one_line(tmp_path: Path, build_dir: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('some words\\nerror: a mistake')"]
    with pytest.raises(UserError, match=r"^a mistake$"):
        scheduler.watch("mine", command, tmp_path / "snakemake.log")


def test_a_clone_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is only remembered there does not stop those who read it."""
    (tmp_path / "file").write_text("text")
    monkeypatch.setattr(paths, "BUILD", tmp_path / "file" / "_build")
    log = paths.BUILD / "logs" / "snakemake.log"
    for call in (
        lambda: scheduler.watch("mine", ["true"], log),
        lambda: scheduler.listing(["true"], log),
        progress.only_run,
    ):
        with pytest.raises(UserError, match=r"^cannot write .*file/_build.*: Not a directory$"):
            call()
    digest = records.file_digest(tmp_path / "file")
    assert digest == hashlib.sha256(b"text").hexdigest()
