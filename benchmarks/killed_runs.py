"""Runs of a small study, each killed with SIGKILL at a random moment and started again, against
one that is left alone: the scheduler, a job, or everything at once, on this computer; every fifth
run on a SLURM of two nodes, where a job is killed, or a node loses its power or its daemon for a
while.

    .venv/bin/python benchmarks/killed_runs.py --runs 50

All have to end with the values of the undisturbed run, and no record that stood when the kill came
may have been measured again. Exits non-zero if one does not. Needs Debian's slurm-wlm and munge.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from lib import paths

sys.path.insert(0, str(paths.ROOT / "tests"))
from clones import copied, processes, profile, records, sigkill, start, values
from slurm_cluster import Cluster, two_nodes

STUDY: dict[str, Any] = {
    "like": "almanac",
    "title": "Killed",
    "tasks": [{"name": "almanac_one_hop", "limit": 24}],
    "pruned_layers": [2, 8, 14],
    "distances": {"n_sequences": 16, "length": 32, "bootstrap": 100},
    "loss": {"n_sequences": 16, "length": 64},
    "healing": {"rank": 4, "steps": 4, "batch": 4, "length": 64, "fractions": [0.5]},
    "prompts": {"shots": 2, "orders": 2, "numbers": [0, 2]},
    "writing": {"n_prompts": 1, "tokens": 4},
    "controls": {"untrained": False},
    "other_texts": [],
}
HERE = {"a job": "lib.worker", "the scheduler": "-m snakemake", "everything": ""}
THERE = ("a job there", "a node", "a node's daemon")


def disturbed(clone: Path, study: Path, victim: str, moment: float) -> dict[Path, int]:
    """A run that is killed after so many seconds; what was recorded then, with its time."""
    process = start(clone, dict(os.environ), "--study", str(study))
    end = time.monotonic() + moment
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    sigkill(processes(clone, HERE[victim]))
    kept = {path: path.stat().st_mtime_ns for path in records(clone)}
    if victim == "a job":
        process.communicate()
    else:
        sigkill(processes(clone))
        process.communicate()
    return kept


def on_cluster(
    cluster: Cluster,
    clone: Path,
    study: Path,
    settings: Path,
    victim: str,
    moment: float,
    away: float,
) -> dict[Path, int]:
    """The same on a cluster; a node is away for so many seconds; SLURM notices after about 12.
    Jobs whose node has no daemon go on, and if it is away for longer run twice."""
    arguments = ("--study", str(study), "--profile", str(settings))
    process = start(clone, cluster.env, *arguments)
    end = time.monotonic() + moment
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.1)
    if victim == "a node":
        cluster.kill_node("n1")
    elif victim == "a node's daemon":
        cluster.kill_daemon("n1")
    elif running := list(cluster.running()):
        cluster.kill_job(running[0])
    kept = {path: path.stat().st_mtime_ns for path in records(clone)}
    if victim != "a job there":
        time.sleep(away)
        cluster.start_node("n1")
    process.communicate()
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    drawn = random.Random(options.seed)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        study = folder / "killed.yaml"
        study.write_text(yaml.safe_dump(STUDY), encoding="utf-8")
        alone = copied(folder / "alone")
        began = time.monotonic()
        assert start(alone, dict(os.environ), "--study", str(study)).wait() == 0
        whole = time.monotonic() - began
        expected = values(alone)
        print(f"undisturbed: {len(expected)} records in {whole:.0f} s", flush=True)
        settings = profile(folder / "profile")
        for number in range(options.runs):
            clone = copied(folder / f"run-{number}")
            cluster_too = number % 5 == 4
            victim = drawn.choice(THERE if cluster_too else list(HERE))
            moment = drawn.uniform(0, (4 if cluster_too else 1) * whole)
            if cluster_too:
                with two_nodes(folder / f"c{number}") as cluster:
                    away = drawn.uniform(2, 25)
                    kept = on_cluster(cluster, clone, study, settings, victim, moment, away)
            else:
                kept = disturbed(clone, study, victim, moment)
            again = start(clone, dict(os.environ), "--study", str(study))
            _, stderr = again.communicate()
            counts[victim] += 1
            counts["ended as the undisturbed run"] += values(clone) == expected
            counts["ended badly"] += again.returncode != 0
            counts["recorded before the kill"] += len(kept)
            counts["of these measured again"] += sum(
                not path.exists() or path.stat().st_mtime_ns != moment_of
                for path, moment_of in kept.items()
            )
            print(f"{number}: {victim} after {moment:.1f} s, {len(kept)} recorded", flush=True)
            if again.returncode:
                print(stderr, file=sys.stderr)
    for what, count in counts.items():
        print(f"{what}: {count}")
    good = counts["ended as the undisturbed run"] == options.runs
    return 0 if good and not counts["of these measured again"] else 1


if __name__ == "__main__":
    sys.exit(main())
