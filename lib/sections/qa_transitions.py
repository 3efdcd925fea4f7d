"""Accuracy on questions against the fraction of layers dropped, and where it falls (Fig. 2 and 6 of
Gromov et al.)."""

import math
from itertools import cycle

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib import labels
from lib.claims.rules import reading
from lib.experiments.conditions import Condition, main_conditions, rank_conditions
from lib.experiments.opened import OpenStudy
from lib.healing.recipe import logged_steps
from lib.sections import finding
from lib.sections.columns import CURVE, MODEL, QA
from lib.sections.figures import (
    GREY,
    MARKS,
    SHADES,
    accuracy_levels,
    by_task,
    curves,
    grid,
    nothing,
    panel_grid,
    shared_legend,
)
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
            axes.axvspan(row.low, row.high, color=SHADES[0], alpha=0.15, linewidth=0)
        accuracy_levels(axes, rows)
        axes.set_title(labels.title(*task), fontsize="medium")
    shared_legend(figure, panels, spare)
    return figure


def healing_panels(losses: pd.DataFrame) -> Figure:
    """Training loss of each healing by step, a panel per strategy, shaded by n; with ln V."""
    if losses.empty:
        return nothing("This study heals nothing.")
    names = strategies(losses)
    figure, panels = grid(1, len(names), width=4.2, height=3.2)
    shade = mpl.colormaps["viridis"]
    most = max(int(losses["n"].max()), 1)
    for axes, strategy in zip(panels.flat, names, strict=True):
        rows = losses[losses["strategy"].isin([strategy, "none"])]
        for (n, curve), mark in zip(rows.groupby("n"), cycle(MARKS), strict=False):
            axes.plot(
                curve["step"],
                curve["loss"],
                color=shade(0.92 * n / most),
                marker=mark,
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


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """Where half of what the model knows above chance is gone, first of all and last."""
    qa = finding.rows(made, "qa", "accuracy", "stderr")
    start, pruned = finding.by_state(main_rows(qa[qa["n"] > 0]), "state")
    if pruned.empty:
        return ""
    try:
        tasks = reading.testable_tasks(qa)
    except reading.Untestable as reason:
        return f"There is nothing to lose here: {reason}."
    most = reading.percent(pruned["fraction"].max())
    fitted = main_rows(made["transitions"]).dropna(subset=["fraction"])
    fitted = fitted[fitted["state"] == pruned["state"].iloc[0]].sort_values("fraction")
    if fitted.empty:
        gone = sum(_half_gone(qa, task, pruned["state"].iloc[0]) for task in tasks)
        return (
            f"{start}, with up to {most} of its layers dropped, this model loses more than half of "
            f"what it knows above chance on {finding.of(gone, len(tasks), 'task')} that it can do "
            f"({pruned['n_questions'].min()} questions or more each)."
        )
    asked = pruned.drop_duplicates(["task", "shots"])[["task", "shots", "n_questions"]]
    found = fitted.merge(asked, on=["task", "shots"]).to_dict("records")
    ends = [finding.interval(row["fraction"], row["low"], row["high"]) for row in found]
    text = f"{start}, half of what this model knows above chance is lost"
    if len(found) == 1:
        return f"{text} once {ends[0]} of its layers are gone, {finding.task(found[0])}."
    names = [labels.asked(row["task"], row["shots"]) for row in found]
    first, last = (row["n_questions"] for row in (found[0], found[-1]))
    return (
        f"{text} first on {names[0]}, once {ends[0]} of its layers are gone, and last on "
        f"{names[-1]}, once {ends[-1]} are ({first} and {last} questions; {len(found)} tasks)."
    )


def _half_gone(qa: pd.DataFrame, task: tuple[str, int], state: reading.State) -> bool:
    rows = reading.of_task(qa, task)
    curve = reading.series(rows, strategies(rows)[0], state)["accuracy"]
    return curve.min() < (curve.iloc[0] + rows["chance"].iloc[0]) / 2


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
    in_short=sentence,
)
