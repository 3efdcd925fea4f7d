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

from lib import ablations, claims, cost, fates, judging, listing, other_texts, paths, spent, tables
from lib.bench import Bench
from lib.conditions import main_conditions, rank_conditions
from lib.errors import UserError
from lib.folders import write_atomically
from lib.records import read
from lib.schema import Study

# Paths of this machine.
LOCAL = {"like", "model", "task_path", "validation_text", "healing_text", "other_texts"}

# Every table that is made from evidence alone; None where the study does without it.
TABLES: dict[str, Callable[[Bench], pd.DataFrame | None]] = {
    "angular_distances": tables.angular_distances,
    "distances_after_norm": tables.distances_after_norm,
    "optimal_blocks": tables.optimal_blocks,
    "untrained_distances": tables.untrained_distances,
    "qa": lambda bench: tables.qa_table(bench, main_conditions(bench)),
    "transitions": lambda bench: tables.transition_table(bench, main_conditions(bench)),
    "loss": lambda bench: tables.loss_table(bench, main_conditions(bench)),
    "lora_rank": lambda bench: tables.rank_table(bench, rank_conditions(bench)),
    "healing": lambda bench: tables.healing_table(
        bench, main_conditions(bench) + rank_conditions(bench)
    ),
    "text_distances": lambda bench: other_texts.text_distances(other_texts.measured(bench)),
    "text_blocks": lambda bench: other_texts.text_blocks(other_texts.measured(bench)),
    "healing_seeds": ablations.seeds_table,
    "healing_seeds_compared": ablations.seeds_compared,
    "prompts": ablations.prompts_table,
    "prompts_compared": ablations.prompts_compared,
    "strategies_compared": ablations.strategies_compared,
    "ranks_compared": ablations.ranks_compared,
    "teacher": ablations.teacher_table,
    "cost": cost.cost_table,
    "questions": fates.question_table,
    "texts": fates.texts_table,
}


def publish(study: Study) -> Path:
    """Write published/<study>/ anew; tables are made here from the evidence that stands in
    results/<study>/, and only the records that they use are published. Returns the folder.

    Raises UserError when the study has not been measured to its end or a record is damaged."""
    bench = Bench(study)
    folder = paths.published(study.name)
    made = {name: make(bench) for name, make in TABLES.items()}
    records = []
    for path in sorted(bench.store.used):
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
    verdicts = claims.verdicts(judging.Tables(folder / "tables"))
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
