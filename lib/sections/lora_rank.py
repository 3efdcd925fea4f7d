"""Healing with adapters of several ranks (Fig. 9 of Gromov et al.)."""

from itertools import product

import pandas as pd
from matplotlib.figure import Figure

from lib import labels
from lib.experiments.conditions import rank_conditions
from lib.experiments.opened import OpenStudy
from lib.sections import finding, looks
from lib.sections.columns import METRIC, TASK
from lib.sections.comparisons import DIFFERENCE, by_task_and_shots
from lib.sections.figures import (
    Levels,
    chance_unknown,
    fraction_axis,
    grid,
    nothing,
    of_metric,
    shared_legend,
)
from lib.sections.looks import GREY, LEVEL
from lib.sections.section import Section, Table
from lib.sections.tables import metrics_table, sound, strategies


def rank_table(opened: OpenStudy) -> pd.DataFrame:
    """Accuracy and normalised loss by rank."""
    conditions = rank_conditions(opened)
    ranks = {one.recipe: one.healing.rank for one in conditions if one.healing}
    table = metrics_table(opened, conditions)
    table.insert(0, "rank", table["healing"].map(ranks).astype(int))
    return table


def ranks_compared(opened: OpenStudy) -> pd.DataFrame:
    """Every rank against the lowest; means over strategies and fractions, paired."""
    healed = [one for one in sound(opened, rank_conditions(opened)) if one.healing]
    groups: dict[str, list] = {}
    for one in sorted(healed, key=lambda one: one.healing.rank):
        answered = [(one, task) for task in opened.study.tasks]
        groups.setdefault(f"rank {one.healing.rank}", []).extend(answered)
    return by_task_and_shots(opened, groups, next(iter(groups), ""))


def rank_panels(ranks: pd.DataFrame, levels: Levels) -> Figure:
    """Fig. 9: accuracy and normalised loss against fraction for several ranks, a column of panels
    per strategy.

    `levels`: the unpruned model's value and chance by (metric, task, shots), a row of panels
    each."""
    if ranks.empty:
        return nothing("This study compares no ranks.")
    names = strategies(ranks)
    figure, panels = grid(len(levels), len(names), width=4.2, height=2.9)
    styles = looks.ordered(ranks["rank"])
    for (i, (key, level)), (j, strategy) in product(enumerate(levels.items()), enumerate(names)):
        metric, task, shots = key
        axes = panels[i, j]
        rows = of_metric(ranks[ranks["strategy"] == strategy], key)
        for rank, curve in rows.groupby("rank"):
            curve = curve.sort_values("fraction")
            axes.errorbar(
                curve["fraction"],
                curve["value"],
                yerr=curve["stderr"],
                **styles[rank],
                label=f"rank {rank}",
            )
        whole, chance = level
        axes.axhline(whole, color=LEVEL, linewidth=1, label="unpruned, unhealed")
        if pd.isna(chance):
            chance_unknown(axes)
        else:
            line = {"color": GREY, "linestyle": "-.", "linewidth": 1}
            axes.axhline(chance, label="chance (loss: ln V)", **line)
        axes.set(ylabel="Accuracy" if metric == "accuracy" else "Loss / ln V", ylim=(0, 1.03))
        if metric != "accuracy":
            axes.set_ylim(0, max(1.03, rows["value"].max() * 1.05))
        title = labels.title(task, shots) if shots is not None else f"{task} loss"
        axes.set_title(f"{title}, {strategy}", fontsize="medium")
        fraction_axis(axes)
    shared_legend(figure, panels)
    return figure


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """Whether the highest rank leads the lowest."""
    table = finding.rows(made, "ranks_compared", "difference", "stderr")
    if table.empty:
        return ""
    one, other = table.iloc[-1][["compared", "base"]]
    rows = table[table["compared"] == one]
    return f"Healed, {finding.leads(rows, one, other, finding.task)}."


SECTION = Section(
    conditions=lambda opened: {"": rank_conditions(opened)},
    tables=(
        Table(
            "lora_rank",
            rank_table,
            "a rank, a metric and a model",
            {"rank": "rank of the adapters", **METRIC},
        ),
        Table(
            "ranks_compared",
            ranks_compared,
            "a task and a rank, against the lowest rank",
            {**TASK, **DIFFERENCE},
        ),
    ),
    claims=("gromov-12",),
    in_short=sentence,
)
