"""A study on a real SLURM of two nodes, beside the same study here: what is killed is made up for,
and the numbers are the same."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Studies
from slurm_cluster import Cluster, missing, two_nodes

from lib import paths

# Shorter waits than a real cluster wants, and no GPU.
QUICK = {
    "slurm-init-seconds-before-status-checks": 1,
    "max-status-checks-per-second": 1,
    "latency-wait": 10,
    "jobs": 2,
}
JOBS = {"elsewhere": True, "grain": "models", "threads": 1, "gpus": 0, "flops": 1e10}


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
    return subprocess.Popen(
        [sys.executable, "-m", "lib.run", "book", "--sections", "02", *arguments],
        cwd=clone,
        env={key: value for key, value in env.items() if key != "RESULTS_DIR"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes(clone: Path, words: str = "") -> list[int]:
    """Those that work in a clone and whose command has these words."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if (entry / "cwd").resolve() == clone and words in command:
                found.append(int(entry.name))
    return found


def sigkill(found: list[int]) -> None:
    for process in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def values(clone: Path) -> dict[str, Any]:
    """Every recorded value by the record's file."""
    found = {}
    for path in (clone / "results/mine/evidence").glob("*/*.json"):
        record = json.loads(path.read_text())
        found[f"{path.parent.name}/{path.name}"] = [record["inputs"], record["value"]]
    return found


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, write_study: Studies) -> Path:
    folder = tmp_path_factory.mktemp("study")
    return write_study(folder, controls={"untrained": False}, writing={"n_prompts": 0})


@pytest.fixture(scope="module")
def undisturbed(clone: Path, study: Path) -> dict[str, Any]:
    """The study's values, measured here in one go."""
    process = start(clone, dict(os.environ), "--study", str(study))
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return values(clone)


def test_a_run_that_is_killed_and_started_again_ends_the_same(
    undisturbed: dict[str, Any], study: Path, tmp_path: Path
) -> None:
    clone, moments = copied(tmp_path / "killed"), random.Random(6)
    kept: dict[Path, int] = {}
    for victim in ("lib.worker", "-m snakemake"):
        process = start(clone, dict(os.environ), "--study", str(study))
        while not processes(clone, "lib.worker models"):
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        time.sleep(moments.uniform(1, 5))
        sigkill(processes(clone, victim))
        if victim == "lib.worker":  # the rest goes on without it
            _, stderr = process.communicate(timeout=120)
            assert process.returncode != 0
            assert "was killed (by a signal, a time limit, or for memory)" in stderr
        else:
            sigkill(processes(clone))
            process.communicate(timeout=60)
        found = clone.glob("results/mine/evidence/*/*.json")
        kept |= {path: path.stat().st_mtime_ns for path in found}
    process = start(clone, dict(os.environ), "--study", str(study))
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert values(clone) == undisturbed
    assert all(path.stat().st_mtime_ns == moment for path, moment in kept.items())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory):
    reason = missing()
    if reason:
        pytest.skip(reason)
    with two_nodes(tmp_path_factory.mktemp("slurm") / "c") as running:
        yield running


def test_two_nodes_give_what_one_computer_gives(
    undisturbed: dict[str, Any], cluster: Cluster, study: Path, tmp_path: Path
) -> None:
    clone = copied(tmp_path / "there")
    arguments = ("--study", str(study), "--profile", str(profile(tmp_path / "profile")))
    process = start(clone, cluster.env, *arguments)
    # One node loses its power in the middle of a job, and comes back.
    cluster.wait_until(lambda: len(values_so_far(clone)) > 2, "some records", 120)
    cluster.kill_node("n1")
    time.sleep(8)
    cluster.start_node("n1")
    _, stderr = process.communicate(timeout=400)
    assert process.returncode == 0, stderr
    assert values(clone) == undisturbed
    ended = cluster.accounted()
    assert {one.node for one in ended if one.state == "COMPLETED"} == {"n0", "n1"}
    jobs = {path.stem for path in (clone / "results/mine/jobs").glob("*.json")}
    assert jobs >= {"distances", "unhealed", "unhealed-4bit", "unpruned-qlora-r4-seed0"}
    records = [
        json.loads(path.read_text()) for path in clone.glob("results/mine/evidence/*/*.json")
    ]
    assert {record["provenance"]["threads"] for record in records} == {1}


def values_so_far(clone: Path) -> list[Path]:
    return list(clone.glob("results/mine/evidence/*/*.json"))
