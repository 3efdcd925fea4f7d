"""Accuracy on questions against the fraction of layers dropped, and where it falls (Fig. 2 and 6 of
Gromov et al.)."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lib import labels
from lib.claims.rules import reading
from lib.experiments.conditions import Condition, main_conditions, rank_conditions
from lib.experiments.opened import OpenStudy
from lib.healing.recipe import logged_steps
from lib.sections import finding, looks
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
from lib.sections.looks import GREY, LINES
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
from lib.statistics.transitions import TEN_TO_NINETY, plateau, step

BELOW = {"healed": -0.05, "unhealed": -0.11}  # where critical fractions are marked
ROW = 0.19  # inches of an interval
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
        for at, loss in zip(logged_steps(condition.healing), losses, strict=False):
            rows.append(columns(opened, condition) | {"step": at, "loss": loss})
    return tidy(rows).assign(guessing=math.log(opened.vocab_size))


def accuracy_panels(qa: pd.DataFrame, transitions: pd.DataFrame) -> Figure:
    """Fig. 2, 6: accuracy against fraction, a panel per task, with the fitted steps of the healed
    and the unhealed models in place of lines from point to point, and their critical fractions
    below; the study's main strategy."""
    tasks = by_task(qa)
    figure, panels, spare = panel_grid(len(tasks), height=3.3)
    fitted = main_rows(transitions).dropna(subset=["fraction"]).set_index(["task", "shots"])
    for axes, (task, rows) in zip(panels.flat, tasks.items(), strict=False):
        steps = fitted[fitted.index == task].set_index("state")
        for state in LINES:
            stepped = state in BELOW and state in steps.index
            curves(axes, rows, "accuracy", states=[state], joined=not stepped)
            if stepped:
                _step(axes, main_rows(rows), steps.loc[state], state)
        accuracy_levels(axes, rows)
        axes.set_ylim(min(BELOW.values()) - 0.05, 1.03)
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.set_title(labels.title(*task), fontsize="medium")
    shared_legend(figure, panels, spare)
    return figure


def _step(axes: Axes, rows: pd.DataFrame, fitted: pd.Series, state: str) -> None:
    """The fitted step of one state, and its critical fraction with its interval."""
    points = rows[rows["state"] == state]
    known = points["chance"].iloc[0], fitted["fraction"], fitted["width"] / TEN_TO_NINETY
    height = plateau(points["fraction"].to_numpy(), points["accuracy"].to_numpy(), *known)
    f, look = np.linspace(0, points["fraction"].max(), 60), looks.by_strategy(strategies(rows))
    (style,) = look.values()
    axes.plot(
        f, step(f, known[0], height, *known[1:]), color=style["color"], linewidth=1.2,
        linestyle=LINES[state], label=f"{state}, fitted step",
    )  # fmt: skip
    _interval(axes, fitted, BELOW[state], state, {"color": style["color"], "marker": "D"})


def _interval(
    axes: Axes, fitted: pd.Series, y: float, state: str, look: dict, label: str = ""
) -> None:
    """A critical fraction at a height, with its interval; hollow: unhealed."""
    axes.plot([fitted["low"], fitted["high"]], [y, y], color=look["color"], linewidth=1.4)
    face = look["color"] if state == "healed" else "white"
    label = label or f"{state}, critical fraction"
    mark = look | {"markerfacecolor": face, "linestyle": "none", "label": label}
    axes.plot(fitted["fraction"], y, **mark)


def transition_forest(transitions: pd.DataFrame) -> Figure:
    """Critical fractions (left) and widths (right) with their 95% intervals, a row per task: each
    strategy, hollow unhealed and filled healed."""
    tasks = by_task(transitions)
    styles = looks.by_strategy(strategies(transitions))
    lines = [(name, state) for name in styles for state in BELOW]
    height = ROW * len(lines) * len(tasks) + 1.2
    figure, panels = grid(1, 2, width=4.2, height=height)
    kinds = {"": "Critical fraction f₀", "width": "Width of the step"}
    for axes, (kind, words) in zip(panels.flat, kinds.items(), strict=True):
        for place, rows in enumerate(tasks.values()):
            own = rows[rows["state"].isin(BELOW)].dropna(subset=["fraction"])
            for one in own.to_dict("records"):
                offset = (lines.index((one["strategy"], one["state"])) + 0.5) / len(lines)
                ends = {
                    "fraction": one[kind or "fraction"],
                    "low": one[f"{kind}_low".lstrip("_")],
                    "high": one[f"{kind}_high".lstrip("_")],
                }
                look, label = styles[one["strategy"]], f"{one['strategy']}, {one['state']}"
                y = place + 0.1 + 0.8 * offset
                _interval(axes, pd.Series(ends), y, one["state"], look, label)
            if own.empty:
                axes.text(0.02, place + 0.5, "no step to fit", va="center", color=GREY)
        axes.set_yticks(np.arange(len(tasks)) + 0.5, [labels.title(*task) for task in tasks])
        across = axes.get_yaxis_transform()
        axes.hlines(range(1, len(tasks)), 0, 1, color="0.8", linewidth=0.8, transform=across)
        axes.grid(visible=False, axis="y")
        axes.set(ylim=(len(tasks), 0), xlim=(0, None), xlabel=words)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    panels[0, 1].tick_params(labelleft=False)
    shared_legend(figure, panels)
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
