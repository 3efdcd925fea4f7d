"""A study on a real SLURM of two nodes, beside the same study here: what is killed is made up for,
and the numbers are the same."""

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from clones import copied, processes, profile, records, sigkill, start, values
from conftest import Studies
from slurm_cluster import Cluster, missing, two_nodes


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, write_study: Studies) -> Path:
    folder = tmp_path_factory.mktemp("study")
    # Of models that are healed alike, one of each kind: each is a job, that starts from nothing.
    seeds, teacher = {"seeds": [1], "fractions": [0.5]}, {"seeds": [0], "fractions": [0.5]}
    return write_study(folder, strategies=["similarity"], healing_seeds=seeds, teacher=teacher)


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
    for victim in ("lib.book.worker", "-m snakemake"):
        process = start(clone, dict(os.environ), "--study", str(study))
        while not processes(clone, "lib.book.worker models"):
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        time.sleep(moments.uniform(0.2, 1))  # while jobs are at work, which are quick
        sigkill(processes(clone, victim))
        if victim == "lib.book.worker":  # the rest goes on without it
            _, stderr = process.communicate(timeout=120)
            assert process.returncode != 0
            assert "was killed (by a signal, a time limit, or for memory)" in stderr
        else:
            sigkill(processes(clone))
            process.communicate(timeout=60)
        kept |= {path: path.stat().st_mtime_ns for path in records(clone)}
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
    cluster.wait_until(lambda: len(records(clone)) > 2, "some records", 300)
    cluster.kill_node("n1")
    time.sleep(8)
    cluster.start_node("n1")
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    assert values(clone) == undisturbed
    ended = cluster.accounted()
    assert {one.node for one in ended if one.state == "COMPLETED"} == {"n0", "n1"}
    jobs = {path.stem for path in (clone / "results/mine/jobs").glob("*.json")}
    assert jobs >= {"choices", "unhealed", "unhealed-4bit", "unpruned-qlora-r4-seed0"}
    found = [json.loads(path.read_text()) for path in records(clone)]
    assert {record["provenance"]["threads"] for record in found} == {1}
