"""Published runs as parts of the book: their sections, executed from their evidence alone.

Neither a checkpoint nor data are at hand, and nothing is measured. A page is executed anew where
what is published, the notebook or its helpers have changed.
"""

import json
import shutil
from collections.abc import Collection
from pathlib import Path

from lib import paths, study
from lib.book import notebooks, sources
from lib.book.parts import Part
from lib.errors import UserError
from lib.evidence.records import digest, file_digest
from lib.files import files_below, write_atomically
from lib.schema import Study
from lib.sections import section as sections

FOLDER = paths.BUILD / "published"


def parts(run_here: Collection[str]) -> list[Part]:
    """The published runs that have pages of their own, executed where something has changed. Not
    the default study and its controls, which stand in its sections, nor what was run in this clone
    (by name)."""
    default = study.load(paths.DEFAULT_STUDY)
    apart = {default.name, *default.controls.studies, *default.controls.from_scratch, *run_here}
    found = sorted(path.parent.name for path in paths.published("").glob("[!.]*/evidence.jsonl"))
    shipped = [name for name in found if (paths.STUDIES / f"{name}.yaml").is_file()]
    shown = [study.load(name) for name in shipped if name not in apart]
    return [
        Part(one, render(one), paths.published(one.name) / "tables", published=True)
        for one in shown
    ]


def render(one: Study) -> dict[str, Path]:
    """Name of the notebook → executed, of every section of which the run holds something.

    Sections that set runs side by side stand with the study that opens the book, but for the page
    that opens a part."""
    first = sections.names()[0]
    found = {}
    for name, source in paths.sections().items():
        if (sections.load(name).runs and name != first) or _empty(one, name):
            continue
        target = FOLDER / one.name / source.name
        if _up_to_date(one, name, source, target):
            found[source.name] = target
    return found


def _empty(one: Study, section: str) -> bool:
    """Whether the published tables of a section, if it has some, hold no row."""
    folder = paths.published(one.name) / "tables"
    tables = [table.name for table in sections.load(section).tables if table.published]
    files = [folder / f"{name}.csv" for name in tables]
    return bool(tables) and not any(
        file.is_file() and file.read_text("utf-8").count("\n") > 1 for file in files
    )


def _up_to_date(one: Study, name: str, source: Path, target: Path) -> bool:
    """Execute a section where it has changed; whether the run has something to show of it."""
    note, made_from = target.with_suffix(".json"), _made_from(one, name, source)
    if _noted(note).get("made_from") == made_from:
        left_out = _noted(note).get("left_out")
        if left_out or target.is_file():
            return not left_out
    about = f"section {source.stem} of published run {one.name}"
    print(about, flush=True)
    working, left_out = target.with_suffix(".part.ipynb"), ""
    try:
        notebooks.execute(source, working, {"study": f"{study.PUBLISHED}{one.name}"}, about)
        shutil.move(working, target)
    except UserError as reason:
        left_out = str(reason)
        print(f"left out: {left_out}", flush=True)
    write_atomically(note, json.dumps({"made_from": made_from, "left_out": left_out}))
    return not left_out


def _made_from(one: Study, name: str, source: Path) -> str:
    folder = paths.published(one.name)
    return digest(
        [
            {path.name: file_digest(path) for path in files_below(folder).values()},
            file_digest(Path(one.file)),
            sources.of_notebook(source),
            sources.of_other_runs(one) if sections.load(name).runs else None,
        ]
    )


def _noted(note: Path) -> dict[str, str]:
    try:
        return json.loads(note.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
