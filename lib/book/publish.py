"""Reference runs: the tables and evidence of a study that was run here, put under published/.

python -m lib.run publish --study almanac-seed1

published/<study>/study.json       title, sign and settings
published/<study>/tables/*.csv     what the figures of other studies draw as thin lines
published/<study>/evidence.jsonl   every record behind the tables, one per line
published/<study>/runs.jsonl       what its jobs took, one per line
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib import claims, paths
from lib.book import took
from lib.book.sources import PLACES, strategies
from lib.errors import UserError
from lib.evidence import listing, ownership
from lib.evidence.records import read
from lib.experiments.opened import OpenStudy
from lib.files import unwritable, whole_or_not_at_all, write_atomically
from lib.schema import Study
from lib.sections import section, tables

# By name, what makes each table that follows from a study's own evidence.
TABLES = {name: one.make for name, one in section.tables().items() if one.published}


def publish(study: Study) -> Path:
    """Write published/<study>/ anew, whole or not at all. Tables are made here from the evidence
    that stands in results/<study>/, and only the records that they use are published. Returns the
    folder.

    Raises UserError when the study has not been measured to its end or a record is damaged."""
    opened = OpenStudy(study)
    ownership.check(study, opened.checkpoint)
    folder = paths.published(study.name)
    made = {name: make(opened) for name, make in TABLES.items()}
    records = []
    for path in sorted(opened.store.used):
        record, problem = read(path)
        if problem is not None:
            raise UserError(f"evidence {path}: {problem}")
        records.append(record)
    jobs = paths.results(study.name) / "jobs" / "runs.jsonl"
    runs = took.read(jobs) if jobs.is_file() else []
    with _replaced(folder) as new:
        for name, table in made.items():
            if table is not None:
                tables.write(new / "tables" / f"{name}.csv", table)
        verdicts = claims.verdicts(claims.Tables(new / "tables"))
        tables.write(new / "tables" / "verdicts.csv", verdicts)
        write_atomically(new / "evidence.jsonl", listing.lines(records))
        if runs:
            write_atomically(new / "runs.jsonl", took.public(runs))
        settings = study.model_dump(exclude=PLACES)  # paths of this machine
        for one in strategies(settings):  # of one's own the content is in the records
            one["file"] = one["file"] and Path(one["file"]).name
        about = {
            "title": study.title,
            "about": study.about,
            "sign": study.sign,
            "records": len(records),
            "settings": settings,
        }
        write_atomically(new / "study.json", json.dumps(about, indent=1) + "\n")
    return folder


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """The folder to write, in place of the other at its end. Raises UserError when it cannot be."""
    try:
        with whole_or_not_at_all(folder, anew=True) as new:
            yield new
    except OSError as error:
        raise unwritable(folder, error) from None
