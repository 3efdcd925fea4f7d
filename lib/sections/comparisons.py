"""Comparing models that answered the same questions: differences in accuracy, paired."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm

from lib.experiments.conditions import Condition
from lib.experiments.opened import OpenStudy
from lib.schema import Task
from lib.sections.tables import answers
from lib.statistics.paired import paired

DIFFERENCE = {
    "task": "name of the task",
    "compared": "the first of two groups of models",
    "base": "the second, whose accuracy is taken from that of the first",
    "prunings": "number of prunings that both have",
    "n_questions": "number of questions",
    "difference": "mean difference in accuracy, paired over the questions",
    "stderr": "standard error of the difference",
    "p": "two-sided, from the normal distribution",
}
COLUMNS = list(DIFFERENCE)
Asked = tuple[Condition, Task]  # a model, and a task that it was asked


def compare(
    opened: OpenStudy,
    groups: Mapping[str, Sequence[Asked]],
    base: str,
    by_strategy: bool = True,
) -> pd.DataFrame:
    """Each group of answers against the base: task, compared, base, prunings, n_questions,
    difference (mean over the prunings that both have), stderr, p (two-sided, normal).

    groups: by name, (condition, task) pairs. Prunings are of one kind if they have the same size
    and, with `by_strategy`, the same strategy; those that only one group has are left out."""
    rows = []
    for name, group in groups.items():
        if name == base:
            continue
        for task in dict.fromkeys(task.name for _, task in group):
            first, second = (
                _by_kind(opened, groups[key], task, by_strategy) for key in (name, base)
            )
            both = sorted(first.keys() & second.keys())
            if not both:
                continue
            found = [np.stack([side[key] for key in both]) for side in (first, second)]
            difference, stderr = paired(*found)
            rows.append(
                {
                    "task": task,
                    "compared": name,
                    "base": base,
                    "prunings": len(both),
                    "n_questions": found[0].shape[1],
                    "difference": difference,
                    "stderr": stderr,
                    "p": 2 * norm.sf(abs(difference) / stderr) if stderr else float(not difference),
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def by_task_and_shots(
    opened: OpenStudy, groups: dict[str, list], base: str, by_strategy: bool = True
) -> pd.DataFrame:
    """`compare` for each task of the study by itself; a task may be asked with several shots."""
    parts = []
    for task in opened.study.tasks:
        of_task = {
            name: [(one, asked_as) for one, asked_as in group if asked_as == task]
            for name, group in groups.items()
        }
        found = compare(opened, of_task, base, by_strategy)
        found.insert(1, "shots", task.shots)
        parts.append(found)
    return pd.concat(parts, ignore_index=True)


def _by_kind(
    opened: OpenStudy, group: Sequence[Asked], task: str, by_strategy: bool
) -> dict[tuple, np.ndarray]:
    """By n, and strategy: the score of each question."""
    return {
        (condition.dropped.n, condition.strategy if by_strategy else ""): answers(
            opened, condition, asked
        )
        for condition, asked in group
        if asked.name == task
    }
