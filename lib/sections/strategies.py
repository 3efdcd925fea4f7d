"""Ways to choose the layers, side by side (Fig. 5 of Gromov et al.)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.experiments.conditions import main_conditions
from lib.experiments.opened import OpenStudy
from lib.sections.columns import TASK
from lib.sections.comparisons import DIFFERENCE, by_task_and_shots
from lib.sections.figures import (
    accuracy_levels,
    by_task,
    curves,
    grid,
    loss_levels,
    normalised,
    shared_legend,
)
from lib.sections.section import Section, Table
from lib.sections.tables import by_state, compared_sizes, sound, strategies


def chosen(opened: OpenStudy) -> pd.DataFrame:
    """What each strategy drops, in words, for every n that is evaluated."""
    rows = []
    for n in opened.study.pruned_layers or range(1, opened.n_layers):
        can = [name for name in opened.strategies if n in opened.sizes(name)]
        found = {strategy: opened.chosen(strategy, n) for strategy in can}
        words = {key: dropped.in_words(opened.n_layers) for key, dropped in found.items()}
        rows.append({"n": n, **words, "same": "yes" if len(set(found.values())) == 1 else ""})
    return pd.DataFrame(rows)


def strategies_compared(opened: OpenStudy) -> pd.DataFrame:
    """Every strategy against the one that the study lists last, at the healed fractions; unhealed
    in the study's number format, and healed; paired over questions."""
    models = by_state(opened, sound(opened, main_conditions(opened)))
    sizes = compared_sizes(opened, models)
    parts = []
    for state, conditions in models.items():
        groups: dict[str, list] = {strategy: [] for strategy in opened.strategies}
        for one in conditions:
            if one.dropped.n in sizes:
                groups[one.strategy] += [(one, task) for task in opened.study.tasks]
        found = by_task_and_shots(opened, groups, opened.strategies[-1], by_strategy=False)
        parts.append(found.assign(models=state))
    return pd.concat(parts, ignore_index=True)


def strategy_panels(qa: pd.DataFrame, loss: pd.DataFrame) -> Figure:
    """Fig. 5: the strategies beside each other; a row per evaluation, before and after healing."""
    rows_of = by_task(qa)
    tasks = list(rows_of)
    figure, panels = grid(len(tasks) + 1, 2, width=4.2, height=2.9)
    for (row, column), axes in np.ndenumerate(panels):
        state = ("unhealed", "healed")[column]
        rows = rows_of[tasks[row]] if row < len(tasks) else normalised(loss)
        value = "accuracy" if row < len(tasks) else "normalized_loss"
        for strategy in strategies(rows):
            curves(axes, rows, value, strategy, [state], label=strategy)
        if row < len(tasks):
            accuracy_levels(axes, rows)
            title = f"{tasks[row][0]} ({tasks[row][1]}-shot)"
        else:
            loss_levels(axes, loss)
            title = f"{loss['corpus'].iloc[0]} loss"
        axes.set_title(f"{title}, {state}", fontsize="medium")
    shared_legend(figure, panels)
    return figure


SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    tables=(
        Table(
            "strategies_compared",
            strategies_compared,
            "a task and two strategies, unhealed or healed",
            {**TASK, **DIFFERENCE, "models": "`unhealed` or `healed`"},
        ),
    ),
    claims=("gromov-8", "gromov-9"),
)
