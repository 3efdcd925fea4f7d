"""What waiting threads cost when another program is busy: training steps of the embedded model with
OpenMP threads that spin long (the usual default) and that spin shortly (GOMP_SPINCOUNT=1000, as the
sections run), alternately, on a quiet machine and beside one busy loop. And whether one process
with all cores trains as much as a process per core.

    .venv/bin/python benchmarks/threads.py
"""

import os
import statistics
import subprocess
import sys

from lib import paths

PAIRS = 5
WORK = """
import time, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({checkpoint!r}, dtype=torch.float32)
tokens = torch.arange(16 * 128).reshape(16, 128) % model.config.vocab_size
model(tokens, labels=tokens).loss.backward()
start = time.perf_counter()
for _ in range(3):
    model(tokens, labels=tokens).loss.backward()
print((time.perf_counter() - start) / 3)
"""


def seconds(spin: str | None) -> float:
    code = WORK.format(checkpoint=str(paths.ROOT / "almanac" / "checkpoint"))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | ({"GOMP_SPINCOUNT": spin} if spin else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def steps_at_once(processes: int, threads: int) -> float:
    """Training steps per second of so many processes together, with so many threads each."""
    code = WORK.format(checkpoint=str(paths.ROOT / "almanac" / "checkpoint"))
    code = code.replace("range(3)", "range(12)").replace("/ 3", "/ 12")
    env = os.environ | {"GOMP_SPINCOUNT": "1000", "OMP_NUM_THREADS": str(threads)}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return sum(1 / float(one.communicate()[0].split()[-1]) for one in running)


def main() -> None:
    for name, busy in (("quiet", False), ("beside a busy loop", True)):
        loop = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
        try:
            pairs = [(seconds(None), seconds("1000")) for _ in range(PAIRS)]
        finally:
            if loop:
                loop.kill()
        ratios = [default / short for default, short in pairs]
        default, short = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"{name}: default {1000 * default:.0f} ms, short {1000 * short:.0f} ms, "
            f"ratio {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        )
    cores = os.cpu_count() or 1
    together = [(steps_at_once(cores, 1), steps_at_once(1, cores)) for _ in range(PAIRS)]
    ratios = [apart / whole for apart, whole in together]
    print(
        f"steps per second of {cores} processes with a thread each over one with {cores}: "
        f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
    )


if __name__ == "__main__":
    main()
