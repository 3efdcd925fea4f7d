"""What files that lie cost: for each of `tests/lies.py`, and each command that reads it, the line
that it ends in, seconds and peak memory.

    python benchmarks/lies.py                   # prints a table; exits non-zero for one that fails
    python benchmarks/lies.py "10^9 layers"     # some of them

A command fails here if it takes more than 15 seconds or 2 GB, prints anything but one line, runs
what a file holds, or leaves a file that was not there. Seconds are a processor's; beside other
programs it waits for longer. Memory is the most that one of its processes had at once.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from conftest import _CACHE, LLAMA_LIKE, _write_checkpoint  # noqa: E402
from lies import LIES  # noqa: E402
from lying import make  # noqa: E402
from tabulate import tabulate  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

SECONDS, BYTES = 15, 2e9
COMMANDS = {
    "check": ["lib.run", "check", "--study", "mine.yaml"],
    "plan": ["lib.run", "book", "--plan", "--study", "mine.yaml"],
    "pruning": ["lib.pruning", "checkpoint", "OUT", "--simple", "2"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("lies", nargs="*", help="by name; all, where none is named")
    chosen = parser.parse_args().lies or list(LIES)
    rows = []
    with tempfile.TemporaryDirectory(prefix="lies-") as name:
        sound = Path(name) / "sound"
        tokenizer = AutoTokenizer.from_pretrained(ROOT / "almanac/checkpoint")
        settings = {"vocab_size": len(tokenizer), "max_position_embeddings": 128}
        _write_checkpoint(sound, "llama", settings | LLAMA_LIKE)
        tokenizer.save_pretrained(sound)
        for number, lie in enumerate(chosen):
            for command in LIES[lie].of:
                folder = Path(name) / f"{number}-{command}"
                make(folder, sound)
                LIES[lie].change(folder)
                rows.append({"file": lie, "command": command} | measured(folder, command))
                print(*rows[-1].values(), sep=" | ", file=sys.stderr, flush=True)
    shutil.rmtree(_CACHE)
    print(tabulate(rows, "keys", tablefmt="github", floatfmt=".1f"))
    worst = [max(row[key] for row in rows) for key in ("seconds", "MB")]
    failed = [row for row in rows if row["wrong"]]
    print(f"\n{len(rows)} runs, at most {worst[0]:.1f} s and {worst[1]:,} MB; {len(failed)} failed")
    return 1 if failed else 0


def measured(folder: Path, command: str) -> dict[str, object]:
    """The line, seconds, peak memory, and what is wrong with them."""
    elsewhere, cache = folder.parent / f"{folder.name}-tmp", folder.parent / "cache"
    elsewhere.mkdir()
    before = everything(folder)
    words = COMMANDS[command]
    process = subprocess.Popen(
        [sys.executable, "-m", words[0], *words[1:]],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "RESULTS_DIR": str(folder / "results")}
        | {"TMPDIR": str(elsewhere), "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    start = time.monotonic()
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGKILL))
    signal.alarm(8 * SECONDS)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    signal.alarm(0)
    waited, seconds = time.monotonic() - start, usage.ru_utime + usage.ru_stime
    peak = usage.ru_maxrss * 1024
    lines = [line for line in printed.splitlines() if line.strip()]
    sound = bool(lines) and lines[0].startswith("study mine: ") and command == "plan"
    left = everything(folder) - before | everything(elsewhere)
    if not process.returncode:  # a pruned checkpoint is what was asked for
        left = {path for path in left if path.split("/")[0] != "OUT"}
    wrong = {
        "time": seconds > SECONDS or waited > 4 * SECONDS,
        "memory": peak > BYTES,
        "lines": len(lines) != 1 and not sound,
        "traceback": "Traceback" in printed,
        "ran": (folder / "ran").exists(),
        f"left {sorted(left)[:3]}": bool(left),
    }
    return {
        "line": (lines[-1] if lines and not sound else "(the plan)")[:160].replace("|", "/"),
        "seconds": round(seconds, 1),
        "waited": round(waited, 1),
        "MB": round(peak / 1e6),
        "wrong": ", ".join(what for what, bad in wrong.items() if bad),
    }


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


if __name__ == "__main__":
    sys.exit(main())
