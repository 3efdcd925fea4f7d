"""What runs took: the records that jobs leave of themselves.

A job adds a line to results/<study>/jobs/runs.jsonl, however it ended (`lib.book.worker`). What is
published of them stands in published/<study>/runs.jsonl. Importing this module is cheap (no torch).
"""

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lib import paths
from lib.errors import UserError
from lib.evidence.listing import device
from lib.words import size, spoken

Run = dict[str, Any]
Rows = list[dict[str, object]]
WELL = "well"
# What may be published: nothing of the machine but its processor.
PUBLIC = (
    *("job", "what", "packages", "processor", "python", "when", "commit"),
    *("seconds", "threads", "gpus", "peak_memory_bytes", "peak_gpu_memory_bytes"),
)
# How the names of jobs begin that belong to no section. All others are healed models.
KINDS = {
    "choices": "which layers go",
    "distances": "distances",
    "unhealed": "unhealed prunings",
    "cost": "memory and times",
    "question-free": "choices without their question",
    "further-samples": "which layers go",
    "learning-rates": "learning rates",
    "site": "site",
}


def read(path: Path) -> list[Run]:
    """The records of a file. A line that holds none, as of a job that was killed, is left out and
    named. Raises UserError when the file cannot be read."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"runs {path}: cannot be read: {error.strerror}") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            run = json.loads(line)
        except ValueError:
            run = None
        if isinstance(run, dict) and isinstance(run.get("seconds"), int | float) and "job" in run:
            found.append(run)
        else:
            print(f"left out: {path}, line {number}: not the record of a job", file=sys.stderr)
    return found


def public(runs: Iterable[Run]) -> str:
    """Records as they are published, a line each. What went wrong may name files of this machine,
    so the line says only whether something did."""
    lines = []
    for run in runs:
        kept = {key: run[key] for key in PUBLIC if key in run}
        kept["ended"] = WELL if run.get("ended") == WELL else "not well"
        lines.append(json.dumps(kept, sort_keys=True) + "\n")
    return "".join(lines)


def tables(study: str | None = None) -> dict[str, Rows]:
    """`runs`: a row for each run in this clone and each published one, or those of one study.
    `sections`: the same by section and kind of work."""
    runs: Rows = []
    sections: Rows = []
    places = {
        "this clone": paths.results("").glob("*/jobs/runs.jsonl"),
        "published": paths.published("").glob("[!.]*/runs.jsonl"),
    }
    for place, files in places.items():
        for file in sorted(files):
            name = file.parent.name if place == "published" else file.parents[1].name
            if study in (None, name) and (found := read(file)):
                about = {"study": name, "run": place}
                runs.append(about | together(found))
                sections += [about | row for row in by_section(found)]
    return {"runs": runs, "sections": sections}


def by_section(runs: Iterable[Run]) -> Rows:
    """A row for each section and kind of work."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault(section_and_work(run["job"]), []).append(run)
    return [
        {"section": section, "work": work} | together(found[section, work])
        for section, work in sorted(found)
    ]


def section_and_work(job: str) -> tuple[str, str]:
    """By the job's name: its section, or a dash where it belongs to none, and what it does."""
    kind, _, section = job.partition("-")
    if kind in ("section", "models"):
        with suppress(UserError):  # an older run may have had sections that are gone
            section = paths.sections()[paths.section(section)].stem
        return section.replace("_", " "), "notebook" if kind == "section" else "models"
    known = (work for start, work in KINDS.items() if job.startswith(start))
    return "–", next(known, "healed models")


def together(runs: Sequence[Run]) -> dict[str, object]:
    """What these jobs took: times are sums, memory is the most that one of them needed."""
    failed = sum(run.get("ended") != WELL for run in runs)
    cores, gpus = (
        sum(run["seconds"] * (run.get(unit) or 0) for run in runs) for unit in ("threads", "gpus")
    )
    peaks = ("peak_memory_bytes", "peak_gpu_memory_bytes")
    memory, on_gpu = (max(run.get(key) or 0 for run in runs) for key in peaks)
    return {
        "time": spoken(sum(run["seconds"] for run in runs)),
        "core time": spoken(cores),
        "GPU time": spoken(gpus) if gpus else "–",
        "peak memory": size(memory) if memory else "–",
        "on the GPU": size(on_gpu) if on_gpu else "–",
        "jobs": f"{len(runs)}, {failed} of them not to the end" if failed else len(runs),
        "on": "; ".join(sorted({device(run) for run in runs} - {""})) or "–",
    }
