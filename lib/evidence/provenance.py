"""Where a measurement came from: when, on what and with which versions it was made.

None of this decides a value, so none of it is part of a record's digest. Nothing names the machine.
"""

import datetime
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from lib import paths

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "lm_eval", "numpy")


def surroundings() -> dict[str, Any]:
    """Provenance: when, on what, with which versions. Peak memory is the process's so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_available()
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": torch.cuda.get_device_name() if on_gpu else processor(),
        "threads": torch.get_num_threads() if torch is not None else None,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "python": platform.python_version(),
        "packages": _versions(),
        "commit": _commit(),
    }


@cache
def processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@cache
def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


@cache
def _commit() -> str:
    """Of this clone; of a copy without one, as in a container, what BOOK_COMMIT says."""
    given = os.environ.get("BOOK_COMMIT") or "unknown"
    try:
        done = subprocess.run(
            ["git", "-C", str(paths.ROOT), "rev-parse", "HEAD"], capture_output=True, text=True
        )
    except OSError:
        return given
    return done.stdout.strip() or given
