"""Accuracy on questions against the fraction of layers dropped, and where it falls (Fig. 2 and 6 of
Gromov et al.)."""

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.experiments.conditions import Condition, main_conditions, rank_conditions
from lib.experiments.opened import OpenStudy
from lib.healing.recipe import logged_steps
from lib.sections import looks
from lib.sections.columns import CURVE, MODEL, QA
from lib.sections.figures import (
    accuracy_levels,
    by_task,
    curves,
    grid,
    nothing,
    panel_grid,
    shared_legend,
)
from lib.sections.looks import GREY
from lib.sections.section import Section, Table
from lib.sections.tables import (
    columns,
    main_rows,
    qa_table,
    record,
    strategies,
    tidy,
    transition_table,
)

HEALED = {
    **MODEL,
    "linear4bit": "number of modules in 4-bit",
    "trainable_parameters": "number of parameters trained",
    "tokens": "number of tokens trained on",
    "first_loss": "training loss of the first step, in nats per token",
    "last_loss": "training loss of the last step, in nats per token",
    "diverged": "what went wrong, if anything did",
}


def healing_table(opened: OpenStudy, conditions: list[Condition] | None = None) -> pd.DataFrame:
    """What each healing trained: modules in 4-bit, trainable parameters, first and last loss;
    by default of the models of this section."""
    if opened.study.healing is None:
        return pd.DataFrame(columns=[*HEALED])
    rows = []
    for condition in conditions or main_conditions(opened):
        if condition.healing is None:
            continue
        report = record(opened, condition, None)
        keys = ("linear4bit", "trainable_parameters", "tokens")
        rows.append(
            columns(opened, condition)
            | {key: report[key] for key in keys}
            | {"first_loss": report["train_loss"][0], "last_loss": report["train_loss"][-1]}
            | {"diverged": report.get("diverged") or ""}
        )
    return tidy(rows)


def healing_losses(opened: OpenStudy) -> pd.DataFrame:
    """The training loss of each healing by step [nats per token], and what guessing costs."""
    if opened.study.healing is None:
        return pd.DataFrame(columns=[*MODEL, "step", "loss", "guessing"])
    rows = []
    for condition in main_conditions(opened):
        if condition.healing is None:
            continue
        losses = record(opened, condition, None)["train_loss"]
        for step, loss in zip(logged_steps(condition.healing), losses, strict=False):
            rows.append(columns(opened, condition) | {"step": step, "loss": loss})
    return tidy(rows).assign(guessing=math.log(opened.vocab_size))


def accuracy_panels(qa: pd.DataFrame, transitions: pd.DataFrame) -> Figure:
    """Fig. 2, 6: accuracy against fraction, a panel per task, with the fitted critical fraction;
    the study's main strategy."""
    tasks = by_task(qa)
    figure, panels, spare = panel_grid(len(tasks), height=3.1)
    fitted = main_rows(transitions[transitions["state"] == "healed"]).dropna(subset=["fraction"])
    for axes, (task, rows) in zip(panels.flat, tasks.items(), strict=False):
        curves(axes, rows, "accuracy")
        own = fitted[(fitted["task"] == task[0]) & (fitted["shots"] == task[1])]
        for row in own.itertuples():
            axes.axvspan(row.low, row.high, color=looks.STRATEGIES[0], alpha=0.15, linewidth=0)
        accuracy_levels(axes, rows)
        axes.set_title(f"{task[0]} ({task[1]}-shot)", fontsize="medium")
    shared_legend(figure, panels, spare)
    return figure


def healing_panels(losses: pd.DataFrame) -> Figure:
    """Training loss of each healing by step, a panel per strategy, shaded by n; with ln V."""
    if losses.empty:
        return nothing("This study heals nothing.")
    names = strategies(losses)
    figure, panels = grid(1, len(names), width=4.2, height=3.2)
    styles = looks.ordered(losses["n"])
    for axes, strategy in zip(panels.flat, names, strict=True):
        rows = losses[losses["strategy"].isin([strategy, "none"])]
        for n, curve in rows.groupby("n"):
            axes.plot(
                curve["step"],
                curve["loss"],
                **styles[n],
                markersize=3,
                markevery=4,
                linewidth=1.2,
                label=f"n = {n}",
            )
        axes.axhline(
            losses["guessing"].iloc[0], color=GREY, linestyle="-.", linewidth=1, label="ln V"
        )
        axes.set(xlabel="Step", ylabel="Training loss\n[nats per token]")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(strategy, fontsize="medium")
    shared_legend(figure, panels)
    return figure


SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    tables=(
        Table(
            "qa",
            lambda opened: qa_table(opened, main_conditions(opened)),
            "a task and a model",
            QA,
        ),
        Table(
            "transitions",
            lambda opened: transition_table(opened, main_conditions(opened)),
            "a task and a curve",
            CURVE,
        ),
        Table(
            "healing",
            lambda opened: healing_table(opened, main_conditions(opened) + rank_conditions(opened)),
            "a healed model, those of other ranks among them",
            HEALED,
            written=False,  # models of other ranks may not have been healed yet
        ),
    ),
    claims=("gromov-1", "gromov-2", "gromov-17"),
)
