"""What the graph costs over calling the sections one after another on one core, and what a second
core saves. Two copies of the repository measure the same study from nothing: one through the graph
on one core, one section by section on the other core, at the same time; then a third through the
graph with both cores.

    .venv/bin/python benchmarks/graph.py --study smoke
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lib import paths

sys.path.insert(0, str(paths.ROOT / "tests"))
from clones import copied

THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def start(folder: Path, core: int | None, commands: list[list[str]]) -> subprocess.Popen:
    """Run commands one after another in a copy, on one core; None: on all."""
    script = " && ".join(" ".join([sys.executable, "-m", *command]) for command in commands)
    before = [] if core is None else ["taskset", "--cpu-list", str(core)]
    env = {key: value for key, value in os.environ.items() if key != "RESULTS_DIR"}
    one = THREADS | {"GOMP_SPINCOUNT": "1000"}
    with open(folder / "log", "w", encoding="utf-8") as log:
        return subprocess.Popen(
            [*before, "sh", "-c", script], cwd=folder, env=env | one, stdout=log, stderr=log
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--study", default="smoke")
    study = ["--study", parser.parse_args().study]
    # The opening page, which shows what others have measured, goes last.
    first, *others = paths.sections()
    by_hand = [["lib.run", "check", *study]]
    by_hand += [["lib.run", name, *study, "--checked"] for name in (*others, first)]
    by_hand += [["lib.book.site", *study]]
    graph = ["lib.run", "book", *study]
    with tempfile.TemporaryDirectory() as place:
        folders = [copied(Path(place) / name) for name in ("graph", "sections", "both")]
        one = folders[0] / "profile"
        shutil.copytree(folders[0] / "profiles" / "default", one)
        settings = (one / "config.yaml").read_text("utf-8")
        (one / "config.yaml").write_text(settings.replace("cores: all", "cores: 1"), "utf-8")
        began = time.monotonic()
        running = {
            "graph, one core": start(folders[0], 0, [[*graph, "--profile", str(one)]]),
            "section by section, one core": start(folders[1], 1, by_hand),
        }
        took: dict[str, float] = {}
        while len(took) < len(running):
            time.sleep(0.1)
            for name, process in running.items():
                if name not in took and process.poll() is not None:
                    took[name] = time.monotonic() - began
        both = start(folders[2], None, [graph])
        began = time.monotonic()
        both.wait()
        took["graph, both cores"] = time.monotonic() - began
        for name, process in (running | {"graph, both cores": both}).items():
            if process.returncode:
                print(f"{name} failed", file=sys.stderr)
                for folder in folders:
                    print((folder / "log").read_text("utf-8")[-2000:], file=sys.stderr)
                return 1
    for name, seconds in took.items():
        print(f"{name}: {seconds:.0f} s")
    graph_one, by_one = took["graph, one core"], took["section by section, one core"]
    speedup = graph_one / took["graph, both cores"]
    print(f"graph over sections {graph_one / by_one:.3f}; one core over both {speedup:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
