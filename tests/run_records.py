"""Records of jobs, for tests of what runs took."""

import json
from pathlib import Path
from typing import Any

ON_CPU = {"processor": "Slow", "threads": 2, "gpus": 0, "peak_gpu_memory_bytes": None}
ON_GPU = {"processor": "Fast", "threads": 4, "gpus": 1, "peak_gpu_memory_bytes": 5_000_000_000}


def run(job: str, seconds: float, ended: str = "well", **more: Any) -> dict[str, Any]:
    """A job's record as `lib.book.worker` leaves it."""
    found = {"job": job, "what": job, "seconds": seconds, "ended": ended, "commit": "unknown"}
    return found | ON_CPU | {"peak_memory_bytes": 10**9, "when": "2026-01-01T00:00:00"} | more


def write(folder: Path, *lines: dict[str, Any] | str) -> Path:
    """The records of jobs of a results folder; text is a line as it is."""
    file = folder / "jobs" / "runs.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    file.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
    return file
