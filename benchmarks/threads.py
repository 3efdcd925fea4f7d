"""What waiting threads cost when another program is busy: forward passes of the embedded model with
OpenMP threads that spin (the usual default) and that sleep (OMP_WAIT_POLICY=PASSIVE), alternately,
on a quiet machine and beside one busy loop.

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
with torch.inference_mode():
    model(tokens)
    start = time.perf_counter()
    for _ in range(4):
        model(tokens)
print((time.perf_counter() - start) / 4)
"""


def seconds(policy: str) -> float:
    code = WORK.format(checkpoint=str(paths.ROOT / "almanac" / "checkpoint"))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"OMP_WAIT_POLICY": policy},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    for name, busy in (("quiet", False), ("beside a busy loop", True)):
        loop = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
        try:
            pairs = [(seconds("ACTIVE"), seconds("PASSIVE")) for _ in range(PAIRS)]
        finally:
            if loop:
                loop.kill()
        ratios = [active / passive for active, passive in pairs]
        spinning, sleeping = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"{name}: spinning {1000 * spinning:.0f} ms, sleeping {1000 * sleeping:.0f} ms, "
            f"ratio {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        )


if __name__ == "__main__":
    main()
