"""Healing with other seeds (Fig. 8 of Gromov et al.)."""

import pandas as pd
from matplotlib.figure import Figure

from lib.experiments.conditions import seed_conditions
from lib.experiments.opened import OpenStudy
from lib.sections import finding
from lib.sections.columns import METRIC, TASK
from lib.sections.comparisons import DIFFERENCE, by_task_and_shots
from lib.sections.figures import (
    Levels,
    fraction_axis,
    metric_levels,
    nothing,
    of_metric,
    panel_grid,
    shaded_lines,
    shared_legend,
)
from lib.sections.section import Section, Table
from lib.sections.tables import metrics_table, sound


def seeds_table(opened: OpenStudy) -> pd.DataFrame:
    """Accuracy and normalised loss by seed of healing."""
    return metrics_table(opened, seed_conditions(opened))


def seeds_compared(opened: OpenStudy) -> pd.DataFrame:
    """Every other seed against the study's own; means over the fractions, paired."""
    healed = [one for one in sound(opened, seed_conditions(opened)) if one.healing]
    own = opened.study.healing.seed if opened.study.healing else 0
    seeds = sorted({own, *(one.healing.seed for one in healed)})
    groups = {
        f"seed {seed}": [
            (one, task) for one in healed if one.healing.seed == seed for task in opened.study.tasks
        ]
        for seed in seeds
    }
    return by_task_and_shots(opened, groups, f"seed {own}")


def seed_panels(seeds: pd.DataFrame, levels: Levels) -> Figure:
    """Fig. 8: accuracy on every task, and the loss, for several seeds of healing.

    levels: the unpruned model's value and chance by (metric, task, shots), a panel each."""
    if seeds.empty:
        return nothing("This study heals with one seed.")
    figure, panels, spare = panel_grid(len(levels), height=3)
    for axes, (key, level) in zip(panels.flat, levels.items(), strict=False):
        shaded_lines(axes, of_metric(seeds, key), "seed", "value", "seed {}")
        metric_levels(axes, key, level)
        fraction_axis(axes)
    shared_legend(figure, panels, spare)
    return figure


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """By how much another seed moves accuracy at most."""
    table = finding.rows(made, "healing_seeds_compared", "difference", "stderr")
    if table.empty:
        return ""
    most = table.loc[table["difference"].abs().idxmax()].to_dict()
    size = finding.points(most["difference"], most["stderr"])
    return (
        f"Healing with another seed moves accuracy by at most {size}, {finding.task(most)}; "
        f"{finding.told(table)}."
    )


SECTION = Section(
    conditions=lambda opened: {"": seed_conditions(opened)},
    tables=(
        Table("healing_seeds", seeds_table, "a seed, a metric and a model", METRIC),
        Table(
            "healing_seeds_compared",
            seeds_compared,
            "a task and a seed, against the study's own seed",
            {**TASK, **DIFFERENCE},
        ),
    ),
    claims=("gromov-11",),
    in_short=sentence,
)
