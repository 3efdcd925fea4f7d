"""The tables of the ablations: prompts (Fig. 7), seeds of healing (Fig. 8), a teacher (eq. 8)."""

import pandas as pd

from lib.experiments.conditions import (
    STRATEGIES,
    Condition,
    main_conditions,
    prompted,
    rank_conditions,
    seed_conditions,
    teacher_conditions,
)
from lib.experiments.measure import healing_provenance
from lib.experiments.opened import OpenStudy
from lib.schema import Task
from lib.sections.comparisons import COLUMNS, compare
from lib.sections.tables import METRIC_COLUMNS, metrics_table, qa_table, sound
from lib.study import prompt_tasks


def _models(conditions: list[Condition]) -> dict[str, list[Condition]]:
    """Pruned ones, healed and not, without the unpruned."""
    pruned = [one for one in conditions if one.strategy != "none"]
    return {
        "unhealed": [one for one in pruned if not one.healing],
        "healed": [one for one in pruned if one.healing],
    }


def prompt_models(opened: OpenStudy) -> list[Condition]:
    """The models that are asked with other prompts too."""
    if not opened.prompt_tasks:
        return []
    return [one for one in main_conditions(opened) if prompted(opened, one)]


def prompts_table(opened: OpenStudy) -> pd.DataFrame:
    """Accuracy by order and by number of examples: `varied`, `order`, and the columns of qa."""
    models = prompt_models(opened)
    if not opened.prompt_tasks:
        return pd.DataFrame(columns=["varied", "task", "shots", "order", "healing"])
    parts = [
        qa_table(opened, models, [task]).assign(varied=varied, order=task.order)
        for varied, tasks in prompt_tasks(opened.study).items()
        for task in tasks
    ]
    table = pd.concat(parts, ignore_index=True)
    first = ["varied", "task", "shots", "order"]
    return table[[*first, *(name for name in table if name not in first)]]


def prompts_compared(opened: OpenStudy) -> pd.DataFrame:
    """Other orders against the harness's own, other numbers against the smallest; means over the
    fractions, unhealed (up to the largest that was healed) and healed, paired over questions."""
    parts = []
    models = _models(sound(opened, prompt_models(opened)))
    sizes = {one.dropped.n for one in models["healed"]}
    models["unhealed"] = [one for one in models["unhealed"] if one.dropped.n in sizes]
    for varied, tasks in prompt_tasks(opened.study).items():
        names = [_prompt_name(varied, task) for task in tasks]
        for kind, conditions in models.items():
            groups = {
                name: [(one, task) for one in conditions]
                for name, task in zip(names, tasks, strict=True)
            }
            found = compare(opened, groups, names[0])
            others = tasks[1:] if len(found) else []
            found["models"], found["varied"] = kind, varied
            found["shots"] = [task.shots for task in others]
            found["order"] = [task.order for task in others]
            parts.append(found)
    none = pd.DataFrame(columns=[*COLUMNS, "models", "varied", "shots", "order"])
    return pd.concat(parts, ignore_index=True) if parts else none


def _prompt_name(varied: str, task: Task) -> str:
    if varied == "order":
        return f"order {task.order}"
    return f"{task.shots} example{'' if task.shots == 1 else 's'}"


def seeds_table(opened: OpenStudy) -> pd.DataFrame:
    """Accuracy and normalised loss by seed of healing."""
    return metrics_table(opened, seed_conditions(opened))


def seeds_compared(opened: OpenStudy) -> pd.DataFrame:
    """Every other seed against the study's own; means over the fractions, paired."""
    healed = [one for one in sound(opened, seed_conditions(opened)) if one.healing]
    own = opened.study.healing.seed
    seeds = sorted({own, *(one.healing.seed for one in healed)})
    groups = {
        f"seed {seed}": [
            (one, task) for one in healed if one.healing.seed == seed for task in opened.study.tasks
        ]
        for seed in seeds
    }
    return _by_task_and_shots(opened, groups, f"seed {own}")


def strategies_compared(opened: OpenStudy) -> pd.DataFrame:
    """Similarity-informed against simple, at the healed fractions; unhealed in the study's number
    format, and healed; paired over questions."""
    models = _models(sound(opened, main_conditions(opened)))
    sizes = {one.dropped.n for one in models["healed"]}
    parts = []
    for kind, conditions in models.items():
        groups: dict[str, list] = {strategy: [] for strategy in STRATEGIES}
        for one in conditions:
            if one.dropped.n in sizes and (one.healing or one.weights == opened.weights):
                groups[one.strategy] += [(one, task) for task in opened.study.tasks]
        found = _by_task_and_shots(opened, groups, "simple", by_strategy=False)
        parts.append(found.assign(models=kind))
    return pd.concat(parts, ignore_index=True)


def ranks_compared(opened: OpenStudy) -> pd.DataFrame:
    """Every rank against the lowest; means over strategies and fractions, paired."""
    healed = [one for one in sound(opened, rank_conditions(opened)) if one.healing]
    groups: dict[str, list] = {}
    for one in sorted(healed, key=lambda one: one.healing.rank):
        answered = [(one, task) for task in opened.study.tasks]
        groups.setdefault(f"rank {one.healing.rank}", []).extend(answered)
    return _by_task_and_shots(opened, groups, next(iter(groups), ""))


def _by_task_and_shots(
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


def teacher_table(opened: OpenStudy) -> pd.DataFrame:
    """Accuracy and normalised loss of healing with and without a teacher: `way`, `steps` and
    training `seconds` (empty where it was interrupted), then the columns of `metrics_table`."""
    parts = []
    for way, conditions in teacher_conditions(opened).items():
        for one in sound(opened, conditions):
            seconds = healing_provenance(opened, one).get("training_seconds")
            found = metrics_table(opened, [one])
            parts.append(found.assign(way=way, steps=one.healing.steps, seconds=seconds))
    first = ["way", "steps", "seconds"]
    if not parts:
        return metrics_table(opened, []).reindex(columns=[*first, *METRIC_COLUMNS])
    table = pd.concat(parts, ignore_index=True)
    return table[[*first, *(name for name in table if name not in first)]]


def teacher_summary(table: pd.DataFrame) -> pd.DataFrame:
    """By fraction, way and metric the mean over seeds with the standard error over seeds."""
    keys = ["metric", "task", "shots", "n", "fraction", "way", "steps"]
    found = table.groupby(keys, sort=False, dropna=False)
    return pd.DataFrame(
        {
            "seeds": found["value"].count(),
            "value": found["value"].mean(),
            "stderr": found["value"].sem(),
            "seconds": found["seconds"].mean(),
        }
    ).reset_index()


def ways_side_by_side(summary: pd.DataFrame) -> pd.DataFrame:
    """A row per evaluation and fraction, a column per way of healing; last their steps and time."""
    rows = []
    for (metric, task, shots, fraction), found in summary.groupby(
        ["metric", "task", "shots", "fraction"], sort=False, dropna=False
    ):
        name = f"{task} ({shots}-shot)" if metric == "accuracy" else f"{task}, loss / ln V"
        digits = 3 if metric == "accuracy" else 4
        rows.append(
            {"": name, "dropped": f"{100 * fraction:.3g}%"}
            | {r.way: _with_error(r.value, r.stderr, digits) for r in found.itertuples()}
        )
    for fraction, found in summary.drop_duplicates(["fraction", "way"]).groupby("fraction"):
        rows.append(
            {"": "steps; seconds", "dropped": f"{100 * fraction:.3g}%"}
            | {
                r.way: f"{r.steps}; {'–' if pd.isna(r.seconds) else f'{r.seconds:.0f}'}"
                for r in found.itertuples()
            }
        )
    return pd.DataFrame(rows)


def _with_error(value: float, stderr: float, digits: int) -> str:
    """Of one seed there is no error."""
    error = "" if pd.isna(stderr) else f" ± {stderr:.{digits}f}"
    return f"{value:.{digits}f}{error}"
