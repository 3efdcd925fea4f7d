"""Clones of this repository in which whole runs are started, watched and killed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from lib import paths

# Shorter waits than a real cluster wants, and no GPU.
QUICK = {
    "slurm-init-seconds-before-status-checks": 1,
    "max-status-checks-per-second": 1,
    "latency-wait": 10,
    "jobs": 2,
}
JOBS = {
    "elsewhere": True, "grain": "models", "shards": 2, "threads": 1, "gpus": 0, "flops": 1e10,
}  # fmt: skip
# Not a user's: results go into the clone, and what is imported is compiled once.
OURS = ("RESULTS_DIR", "PYTHONDONTWRITEBYTECODE")


def copied(folder: Path) -> Path:
    """The repository's files as git would hand them over."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=paths.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        if (paths.ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths.ROOT / name, folder / name)
    return folder


def profile(folder: Path) -> Path:
    """The shipped one, quicker."""
    settings = yaml.safe_load((paths.ROOT / "profiles/slurm/config.yaml").read_text())
    folder.mkdir()
    (folder / "jobs.yaml").write_text(yaml.safe_dump(JOBS))
    settings |= QUICK | {"configfile": str(folder / "jobs.yaml")}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def start(clone: Path, env: dict[str, str], *arguments: str) -> subprocess.Popen:
    """`make book` up to section 02, with further arguments of `lib.run`."""
    return subprocess.Popen(
        [sys.executable, "-m", "lib.run", "book", "--sections", "02", *arguments],
        cwd=clone,
        env={key: value for key, value in env.items() if key not in OURS},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes(clone: Path, words: str = "") -> list[int]:
    """Those that work in a clone and whose command, or name, has these words."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            command += (entry / "comm").read_text()
            if (entry / "cwd").resolve() == clone and words in command:
                found.append(int(entry.name))
    return found


def sigkill(found: list[int]) -> None:
    for process in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def records(clone: Path) -> list[Path]:
    return sorted(clone.glob("results/*/evidence/*/*.json"))


def values(clone: Path) -> dict[str, Any]:
    """Every recorded value by the record's file."""
    found = {}
    for path in records(clone):
        record = json.loads(path.read_text())
        found[f"{path.parent.name}/{path.name}"] = [record["inputs"], record["value"]]
    return found
