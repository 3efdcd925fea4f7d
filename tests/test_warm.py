"""Copies of a process that has everything imported: each is as a module run by itself, and none is
left when whoever asked for it, or what it is a copy of, is gone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_ending import alive

from lib import paths
from lib.book import warm

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="processes are copied on Linux alone"
)

STARTER = """
import os, sys, time
from lib.book import warm
warm.start(sys.argv[1:])
print(os.environ[warm.ADDRESS], warm._started.pid, flush=True)
time.sleep(600)
"""
ASKED = """
import json, os, signal, sys, time
from pathlib import Path
from lib.book import warm

def main(arguments):
    about = {
        "arguments": arguments, "directory": os.getcwd(),
        "environment": os.environ.get("OF_CLIENT"),
        "process": os.getpid(), "copied": warm.copied, "imported": "colorsys" in sys.modules,
        "read": sys.stdin.read(5),
    }
    Path("about.json").write_text(json.dumps(about))
    print("said", flush=True)
    print("complained", file=sys.stderr)
    if arguments[0] == "wait":
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            return 130
    if arguments[0] == "die":
        os.kill(os.getpid(), signal.SIGTERM)
    return int(arguments[1])
"""

Ask = Callable[..., subprocess.Popen]


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[tuple[subprocess.Popen, dict[str, str], int]]:
    """What starts the process to copy, the environment of those who ask it, and its number."""
    (tmp_path / "asked.py").write_text(ASKED)
    environment = os.environ | {"PYTHONPATH": f"{paths.ROOT}:{tmp_path}"}
    environment.pop(warm.ADDRESS, None)
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, "colorsys"],
        env=environment, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        address, number = process.stdout.readline().split()
        yield process, environment | {warm.ADDRESS: address}, int(number)
        process.kill()
        assert gone(int(number))


@pytest.fixture
def ask(starter: tuple, tmp_path: Path) -> Ask:
    def begin(*arguments: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "lib.book.warm", "asked", *arguments],
            cwd=tmp_path, env=starter[1] | environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup ignores it
        )  # fmt: skip

    return begin


def gone(process: int, seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while alive(process) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(process)


def begun(folder: Path) -> dict:
    """What a copy says of itself, once it has begun."""
    until = time.monotonic() + 30
    while not (folder / "about.json").exists() or not (folder / "about.json").read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    return json.loads((folder / "about.json").read_text())


def test_a_copy_has_what_is_imported_and_all_that_its_asker_has(ask: Ask, tmp_path: Path) -> None:
    process = ask("end", "3", OF_CLIENT="x" * 100_000)  # more than one message holds
    out, err = process.communicate("input")
    about = json.loads((tmp_path / "about.json").read_text())
    number = about.pop("process")
    assert about == {
        "arguments": ["end", "3"],
        "directory": str(tmp_path),
        "environment": "x" * 100_000,
        "copied": True,
        "imported": True,
        "read": "input",
    }
    assert (out, err, process.returncode) == ("said\n", "complained\n", 3)
    assert number != process.pid and gone(number)


@pytest.mark.parametrize(
    "address", ["", f"{warm.OURS}nobody-listens-here", "book-of-another-clone"]
)
def test_where_there_is_nothing_to_copy_the_module_runs_by_itself(
    ask: Ask, tmp_path: Path, address: str
) -> None:
    process = ask("end", "4", **{warm.ADDRESS: address})
    out, err = process.communicate("input")
    about = json.loads((tmp_path / "about.json").read_text())
    assert not about["copied"] and about["process"] == process.pid
    assert (out, err, process.returncode) == ("said\n", "complained\n", 4)


def test_what_cannot_import_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "asked.py").write_text(ASKED)
    environment = os.environ | {"PYTHONPATH": f"{paths.ROOT}:{tmp_path}", warm.ADDRESS: ""}
    script = (
        "import subprocess, sys\nfrom lib.book import warm\nwarm.start(['no_such_module'])\n"
        "command = [sys.executable, '-m', 'lib.book.warm', 'asked', 'end', '5']\n"
        "sys.exit(subprocess.run(command).returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, input="input", text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 5 and not begun(tmp_path)["copied"]


@pytest.mark.parametrize(("name", "taken"), [(f"{warm.OURS}x", True), ("book-x", False)])
def test_what_another_clone_has_imported_is_not_copied(
    name: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run within a run goes on with what is there, unless that is of other code."""
    monkeypatch.setenv(warm.ADDRESS, name)
    monkeypatch.setattr(warm, "_started", None)
    starting = SimpleNamespace(Popen=lambda *_, **__: "new", PIPE=subprocess.PIPE)
    monkeypatch.setattr(warm, "subprocess", starting)
    warm.start()
    assert (warm._started is None) == taken and (os.environ[warm.ADDRESS] == name) == taken


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_are_passed_on(ask: Ask, tmp_path: Path, number: int, status: int) -> None:
    process = ask("wait", "0")
    process.stdin.write("input")
    process.stdin.flush()
    copy = begun(tmp_path)["process"]
    process.send_signal(number)
    assert process.wait(10) == status and gone(copy)


def test_a_copy_that_is_killed_says_so(ask: Ask) -> None:
    process = ask("die", "0")
    process.communicate("input")
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("victim", ["asker", "original", "starter"])
def test_a_copy_ends_with_those_that_it_depends_on(
    ask: Ask, starter: tuple, tmp_path: Path, victim: str
) -> None:
    started, _, original = starter
    process = ask("wait", "0", BOOK_STARTED_BY=str(os.getpid()))
    process.stdin.write("input")
    process.stdin.flush()
    copy = begun(tmp_path)["process"]
    os.kill({"asker": process.pid, "original": original, "starter": started.pid}[victim], 9)
    if victim == "starter":  # what runs is not disturbed; there will be no other copy
        assert not gone(copy, 0.5) and alive(original)
        process.terminate()
    assert gone(copy)
    assert process.wait(10) == {"asker": -9, "original": 137, "starter": 143}[victim]
    assert victim == "asker" or gone(original)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_other_users_are_not_served(ask: Ask, starter: tuple, tmp_path: Path) -> None:
    script = (
        "import os, socket, sys\nos.setuid(65534)\nwith socket.socket(socket.AF_UNIX) as one:\n"
        "    one.connect(chr(0) + sys.argv[1])\n    print(one.recv(4))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, starter[1][warm.ADDRESS]],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "b''\n", done.stderr
    assert ask("end", "0").communicate("input")[0] == "said\n"


FORKED = """
import os, sys, threading
import torch
from lib.book import warm

torch.set_num_threads(2)
row, failed = torch.ones(400_000), 0
row.clone().add_(1)
for _ in range(10):
    copy = os.fork()
    if copy == 0:
        warm.settle()
        together, found = threading.Barrier(8), []

        def read():
            together.wait()
            try:
                row.clone().add_(1)
            except RuntimeError as problem:
                found.append(problem)

        threads = [threading.Thread(target=read) for _ in range(8)]
        for one in threads: one.start()
        for one in threads: one.join()
        os._exit(bool(found))
    failed += os.waitpid(copy, 0)[1] != 0
sys.exit(failed)
"""


def test_threads_of_a_copy_may_all_compute_at_once() -> None:
    """Without `settle` nine copies in ten end with torch's "Invalid thread pool"."""
    done = subprocess.run([sys.executable, "-c", FORKED], cwd=paths.ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-500:]
