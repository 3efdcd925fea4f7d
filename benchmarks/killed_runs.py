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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
    "tasks": [{"name": "almanac_one_hop", "role": "knowledge", "limit": 24}],
    "pruned_layers": [2, 8, 14],
    "distances": {"n_sequences": 16, "length": 32, "bootstrap": 100},
    "loss": {"n_sequences": 16, "length": 64},
    "healing": {"rank": 4, "steps": 4, "batch": 4, "length": 64, "fractions": [0.5]},
    "prompts": {"shots": 2, "orders": 2, "numbers": [0, 2]},
    "writing": {"n_prompts": 1, "tokens": 4},
    "controls": {"untrained": False},
    "other_texts": [],
}
HERE = {
    "a job": "lib.book.worker",
    "all jobs, and what they are copies of": "--serve",
    "the scheduler": "-m snakemake",
    "everything": "",
}
THERE = ("a job there", "a node", "a node's daemon")


def disturbed(clone: Path, study: Path, victim: str, moment: float) -> dict[Path, int] | None:
    """A run that is killed after so many seconds; what was recorded then. None: there was nothing
    to kill yet, or any more."""
    process = start(clone, dict(os.environ), "--study", str(study))
    end = time.monotonic() + moment
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    killed = processes(clone, HERE[victim])
    sigkill(killed)
    kept = found(clone)
    if killed and victim != "a job":
        sigkill(processes(clone))
    process.communicate()
    return kept if killed else None


def on_cluster(
    cluster: Cluster,
    clone: Path,
    study: Path,
    settings: Path,
    victim: str,
    moment: float,
    away: float,
) -> dict[Path, int] | None:
    """The same on a cluster; a node is away for so many seconds; SLURM notices after about 12.
    Jobs whose node has no daemon go on, and if it is away for longer run twice."""
    arguments = ("--study", str(study), "--profile", str(settings))
    process = start(clone, cluster.env, *arguments)
    end = time.monotonic() + moment
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.1)
    if process.poll() is not None:
        return None
    if victim == "a node":
        cluster.kill_node("n1")
    elif victim == "a node's daemon":
        cluster.kill_daemon("n1")
    elif running := list(cluster.running()):
        cluster.kill_job(running[0])
    else:
        process.communicate()
        return None
    kept = found(clone)
    if victim != "a job there":
        time.sleep(away)
        cluster.start_node("n1")
    process.communicate()
    return kept


def found(clone: Path) -> dict[Path, int]:
    """Records, each with the time at which it was written."""
    return {path: path.stat().st_mtime_ns for path in records(clone)}


@dataclass
class Runs:
    """What all runs have in common."""

    folder: Path
    study: Path
    expected: dict[str, Any]
    whole: float  # seconds of the undisturbed run

    def one(self, number: int, seed: int) -> Counter[str]:
        """A run that is killed and started again; drawn anew until there was something to kill."""
        drawn, kept, attempt = random.Random(f"{seed} {number}"), None, 0
        cluster_too = number % 5 == 4
        victim = drawn.choice(THERE if cluster_too else list(HERE))
        while kept is None:
            attempt += 1
            clone = copied(self.folder / f"run-{number}-{attempt}")
            moment = drawn.uniform(0, (4 if cluster_too else 1) * self.whole)
            if cluster_too:
                away, place = drawn.uniform(2, 25), self.folder / f"c{number}-{attempt}"
                with two_nodes(place) as cluster:
                    settings = self.folder / "profile"
                    kept = on_cluster(cluster, clone, self.study, settings, victim, moment, away)
            else:
                kept = disturbed(clone, self.study, victim, moment)
        again = start(clone, dict(os.environ), "--study", str(self.study))
        _, stderr = again.communicate()
        stood = found(clone)
        print(f"{number}: {victim} after {moment:.1f} s, {len(kept)} recorded", flush=True)
        if again.returncode:
            print(stderr, file=sys.stderr)
        return Counter(
            {
                f"killed: {victim}": 1,
                "killed with records there and records to come": 0 < len(kept) < len(stood),
                "ended as the undisturbed run": values(clone) == self.expected,
                "ended badly": again.returncode != 0,
                "recorded before the kill": len(kept),
                "of these measured again": sum(
                    stood.get(path) != moment for path, moment in kept.items()
                ),
            }
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        study = folder / "killed.yaml"
        study.write_text(yaml.safe_dump(STUDY), encoding="utf-8")
        profile(folder / "profile")
        alone = copied(folder / "alone")
        began = time.monotonic()
        assert start(alone, dict(os.environ), "--study", str(study)).wait() == 0
        runs = Runs(folder, study, values(alone), time.monotonic() - began)
        print(f"undisturbed: {len(runs.expected)} records in {runs.whole:.0f} s", flush=True)
        # Small as the study is, a run keeps one core busy.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            each = [pool.submit(runs.one, i, options.seed) for i in range(options.runs)]
        counts = Counter[str]()
        for one in each:
            counts.update(one.result())
    for what, count in counts.items():
        print(f"{what}: {count}")
    good = counts["ended as the undisturbed run"] == options.runs
    return 0 if good and not counts["of these measured again"] else 1


if __name__ == "__main__":
    sys.exit(main())
