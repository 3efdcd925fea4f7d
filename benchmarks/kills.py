"""A healing that is killed at random moments, against one that is left alone.

    python benchmarks/kills.py --kills 3

Both heal the study `smoke` with more steps in a process of their own, their state kept after
every step; the one is ended by SIGKILL so often, at moments drawn from all of its run time, and
started again. Weights of the adapters, the healing's record and all that is measured on the healed
model have to be the same to the last bit. Exits non-zero if they are not.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HEAL = """
import math
import sys

from lib import study
from lib.experiments import measure
from lib.experiments.conditions import healed
from lib.experiments.opened import OpenStudy
from lib.healing import training

training.SAVE_EVERY, training.SAVING = 0, math.inf
steps = int(sys.argv[1])
one = study.override(study.load("smoke"), healing={"steps": steps, "batch": 8, "micro_batch": 4})
opened = OpenStudy(one)
condition = [c for c in healed(opened, one.healing, [0.5]) if c.strategy == "simple"][0]
print("measuring", flush=True)
measure.measure(opened, [condition])
"""


def start(results: Path, steps: int) -> subprocess.Popen:
    """The process, measuring already."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEAL, str(steps)],
        env=os.environ | {"RESULTS_DIR": str(results)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout.readline() == "measuring\n"
    return process


def found(results: Path) -> dict[str, str]:
    """Digest of every adapter file and the value of every record, by name."""
    kept = {
        str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(results.rglob("adapters/*/*.safetensors"))
    }
    for path in sorted(results.rglob("evidence/*/*.json")):
        record = json.loads(path.read_text())
        kept[str(path.relative_to(results))] = json.dumps([record["inputs"], record["value"]])
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        alone, killed = Path(folder) / "alone", Path(folder) / "killed"
        begun = time.monotonic()
        assert start(alone, options.steps).wait() == 0
        whole = time.monotonic() - begun
        times = []
        for _ in range(options.kills):
            process = start(killed, options.steps)
            moment = moments.uniform(0, 0.8 * whole / options.kills)
            time.sleep(moment)
            ended = process.poll() is not None
            process.send_signal(signal.SIGKILL)
            process.wait()
            states = sorted(path.name for path in killed.rglob("unfinished/*/checkpoint-*"))
            times.append(f"{moment:.1f} s ({'at its end' if ended else ', '.join(states) or '-'})")
        assert start(killed, options.steps).wait() == 0
        first, second = found(alone), found(killed)
    same = first == second and any("adapter" in name for name in first)
    print(f"killed after {'; '.join(times)}; alone it takes {whole:.1f} s with its start")
    print(f"{len(first)} files and records: {'all the same' if same else 'NOT the same'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
