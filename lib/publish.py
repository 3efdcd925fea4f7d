"""Reference runs: the tables and evidence of a study that was run here, put under published/.

python -m lib.run publish --study almanac-seed1

published/<study>/study.json       title and settings
published/<study>/tables/*.csv     what the figures of other studies draw as thin lines
published/<study>/evidence.jsonl   every record behind the tables, one per line
"""

import json
import shutil
from pathlib import Path

import pandas as pd

from lib import ablations, claims, cost, evidence, fates, judging, other_texts, paths, tables
from lib.bench import Bench
from lib.conditions import main_conditions, rank_conditions
from lib.errors import UserError
from lib.schema import Study

# Paths of this machine.
LOCAL = {"like", "model", "task_path", "validation_text", "healing_text", "other_texts"}


def publish(study: Study) -> Path:
    """Write published/<study>/ anew; tables are made here from the evidence that stands in
    results/<study>/, and only the records that they use are published. Returns the folder.

    Raises UserError when the study has not been measured to its end or a record is damaged."""
    bench = Bench(study)
    folder = paths.published(study.name)
    made = _tables(bench)
    records = []
    for path in sorted(bench.store.used):
        record, problem = evidence.read(path)
        if problem is not None:
            raise UserError(f"evidence {path}: {problem}")
        records.append(record | {"checksum": evidence.digest(record, 64)})
    shutil.rmtree(folder, ignore_errors=True)
    for name, table in made.items():
        tables.write(folder / "tables" / f"{name}.csv", table)
    verdicts = claims.verdicts(judging.Tables(folder / "tables"))
    tables.write(folder / "tables" / "verdicts.csv", verdicts)
    lines = "".join(json.dumps(record, sort_keys=True) + "\n" for record in records)
    evidence.write_atomically(folder / "evidence.jsonl", lines)
    about = {
        "title": study.title,
        "about": study.about,
        "records": len(records),
        "settings": study.model_dump(exclude=LOCAL),
    }
    evidence.write_atomically(folder / "study.json", json.dumps(about, indent=1) + "\n")
    return folder


def _tables(bench: Bench) -> dict[str, pd.DataFrame]:
    """Every table of the study by name, from evidence alone."""
    main, ranks = main_conditions(bench), rank_conditions(bench)
    made = {
        "angular_distances": tables.angular_distances(bench),
        "distances_after_norm": tables.distances_after_norm(bench),
        "optimal_blocks": tables.optimal_blocks(bench),
        "qa": tables.qa_table(bench, main),
        "transitions": tables.transition_table(bench, main),
        "loss": tables.loss_table(bench, main),
        "lora_rank": tables.rank_table(bench, ranks),
        "healing": tables.healing_table(bench, main + ranks),
    }
    found = other_texts.measured(bench)
    made |= {
        "text_distances": other_texts.text_distances(found),
        "text_blocks": other_texts.text_blocks(found),
        "healing_seeds": ablations.seeds_table(bench),
        "healing_seeds_compared": ablations.seeds_compared(bench),
        "prompts": ablations.prompts_table(bench),
        "prompts_compared": ablations.prompts_compared(bench),
        "strategies_compared": ablations.strategies_compared(bench),
        "ranks_compared": ablations.ranks_compared(bench),
        "teacher": ablations.teacher_table(bench),
        "cost": cost.cost_table(bench),
        "questions": fates.question_table(bench),
        "texts": fates.texts_table(bench),
    }
    untrained = tables.untrained_distances(bench)
    return made if untrained is None else made | {"untrained_distances": untrained}
