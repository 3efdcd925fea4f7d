"""Reference runs: the tables and evidence of a study that was run here, put under published/.

python -m lib.run publish --study almanac-seed1

published/<study>/study.json       title and settings
published/<study>/tables/*.csv     what the figures of other studies draw as thin lines
published/<study>/evidence.jsonl   every record behind the tables, one per line
published/<study>/runs.jsonl       what its jobs took, one per line
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from lib import claims, paths
from lib.book import spent
from lib.errors import UserError
from lib.evidence import listing
from lib.evidence.records import read
from lib.experiments import costs
from lib.experiments.conditions import main_conditions, rank_conditions
from lib.experiments.opened import OpenStudy
from lib.files import write_atomically
from lib.schema import Study
from lib.sections import ablations, fates, other_texts, tables

# Paths of this machine.
LOCAL = {"like", "model", "task_path", "validation_text", "healing_text", "other_texts"}

# Every table that is made from evidence alone; None where the study does without it.
TABLES: dict[str, Callable[[OpenStudy], pd.DataFrame | None]] = {
    "angular_distances": tables.angular_distances,
    "distances_after_norm": tables.distances_after_norm,
    "optimal_blocks": tables.optimal_blocks,
    "untrained_distances": tables.untrained_distances,
    "qa": lambda opened: tables.qa_table(opened, main_conditions(opened)),
    "transitions": lambda opened: tables.transition_table(opened, main_conditions(opened)),
    "loss": lambda opened: tables.loss_table(opened, main_conditions(opened)),
    "lora_rank": lambda opened: tables.rank_table(opened, rank_conditions(opened)),
    "healing": lambda opened: tables.healing_table(
        opened, main_conditions(opened) + rank_conditions(opened)
    ),
    "text_distances": lambda opened: other_texts.text_distances(other_texts.measured(opened)),
    "text_blocks": lambda opened: other_texts.text_blocks(other_texts.measured(opened)),
    "healing_seeds": ablations.seeds_table,
    "healing_seeds_compared": ablations.seeds_compared,
    "prompts": ablations.prompts_table,
    "prompts_compared": ablations.prompts_compared,
    "strategies_compared": ablations.strategies_compared,
    "ranks_compared": ablations.ranks_compared,
    "teacher": ablations.teacher_table,
    "cost": costs.cost_table,
    "questions": fates.question_table,
    "texts": fates.texts_table,
}


def publish(study: Study) -> Path:
    """Write published/<study>/ anew; tables are made here from the evidence that stands in
    results/<study>/, and only the records that they use are published. Returns the folder.

    Raises UserError when the study has not been measured to its end or a record is damaged."""
    opened = OpenStudy(study)
    folder = paths.published(study.name)
    made = {name: make(opened) for name, make in TABLES.items()}
    records = []
    for path in sorted(opened.store.used):
        record, problem = read(path)
        if problem is not None:
            raise UserError(f"evidence {path}: {problem}")
        records.append(record)
    jobs = paths.results(study.name) / "jobs" / "runs.jsonl"
    runs = spent.read(jobs)[0] if jobs.is_file() else []
    shutil.rmtree(folder, ignore_errors=True)
    for name, table in made.items():
        if table is not None:
            tables.write(folder / "tables" / f"{name}.csv", table)
    verdicts = claims.verdicts(claims.Tables(folder / "tables"))
    tables.write(folder / "tables" / "verdicts.csv", verdicts)
    write_atomically(folder / "evidence.jsonl", listing.lines(records))
    if runs:
        write_atomically(folder / "runs.jsonl", spent.public(runs))
    about = {
        "title": study.title,
        "about": study.about,
        "records": len(records),
        "settings": study.model_dump(exclude=LOCAL),
    }
    write_atomically(folder / "study.json", json.dumps(about, indent=1) + "\n")
    return folder
