"""The figures of the ablations, and of what healing did step by step."""

from collections.abc import Sequence
from itertools import cycle

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.sections.figures import (
    COLOURS,
    GREY,
    accuracy_levels,
    fraction_axis,
    grid,
    nothing,
    panel_grid,
    shared_legend,
)

MARKS = "os^Dv<>P"
LINES = ["-", "--", "-.", ":"]


def _lines(axes: Axes, rows: pd.DataFrame, by: str, value: str, label: str) -> None:
    """One line per value of a column, each with a shade, mark and dash of its own."""
    found = rows.groupby(by, sort=True)
    shades = sns.color_palette("viridis", found.ngroups)
    for (name, curve), shade, mark, dash in zip(
        found, shades, cycle(MARKS), cycle(LINES), strict=False
    ):
        curve = curve.sort_values("fraction")
        axes.errorbar(
            curve["fraction"],
            curve[value],
            yerr=curve["stderr"],
            color=shade,
            marker=mark,
            linestyle=dash,
            markerfacecolor="white",
            label=label.format(name),
        )


def prompt_panels(prompts: pd.DataFrame) -> Figure:
    """Fig. 7: accuracy for several orders and numbers of examples, unhealed and healed."""
    if prompts.empty:
        return nothing("The prompts of this study have no examples.")
    figure, panels = grid(2, 2, width=4.2, height=3.2)
    for row, healed in enumerate((False, True)):
        state = prompts[(prompts["healing"] != "none") == healed]
        for column, (varied, by, label) in enumerate(
            (("order", "order", "order {}"), ("shots", "shots", "{} in the prompt"))
        ):
            axes = panels[row, column]
            rows = state[state["varied"] == varied]
            _lines(axes, rows, by, "accuracy", label)
            accuracy_levels(axes, prompts[prompts["varied"] == varied])
            words = "orders of the examples" if column == 0 else "numbers of examples"
            axes.set_title(f"{words}, {'healed' if healed else 'unhealed'}", fontsize="medium")
    shared_legend(figure, panels)
    return figure


def seed_panels(seeds: pd.DataFrame, levels: dict[tuple, tuple[float, float]]) -> Figure:
    """Fig. 8: accuracy on every task, and the loss, for several seeds of healing.

    levels: the unpruned model's value and chance by (metric, task, shots), a panel each."""
    if seeds.empty:
        return nothing("This study heals with one seed.")
    figure, panels, spare = panel_grid(len(levels), height=3)
    for axes, (key, level) in zip(panels.flat, levels.items(), strict=False):
        _lines(axes, _of(seeds, key), "seed", "value", "seed {}")
        _name(axes, key, level)
        fraction_axis(axes)
    shared_legend(figure, panels, spare)
    return figure


def teacher_panels(summary: pd.DataFrame, levels: dict[tuple, tuple[float, float]]) -> Figure:
    """Eq. 8: what is reached with and without a teacher, means and standard errors over seeds."""
    if summary.empty:
        return nothing("This study heals nothing with a teacher.")
    figure, panels, spare = panel_grid(len(levels), height=3)
    ways = list(dict.fromkeys(summary["way"]))
    for axes, (key, level) in zip(panels.flat, levels.items(), strict=False):
        rows = _of(summary, key)
        places = {fraction: i for i, fraction in enumerate(sorted(rows["fraction"].unique()))}
        for number, way in enumerate(ways):
            points = rows[rows["way"] == way]
            axes.errorbar(
                points["fraction"].map(places) + 0.18 * (number - 1),
                points["value"],
                yerr=points["stderr"],
                linestyle="none",
                marker="os^"[number],
                color=sns.color_palette("colorblind")[number],
                capsize=3,
                label=way,
            )
        _name(axes, key, level, zoom=key[0] != "accuracy")
        axes.set_xticks(list(places.values()), [f"{100 * f:.3g}%" for f in places])
        axes.set(xlim=(-0.6, len(places) - 0.4))
        if axes.get_subplotspec().is_last_row():
            axes.set_xlabel("Layers dropped")
    shared_legend(figure, panels, spare)
    return figure


def _of(table: pd.DataFrame, key: tuple) -> pd.DataFrame:
    metric, task, shots = key
    rows = table[(table["metric"] == metric) & (table["task"] == task)]
    return rows[rows["shots"] == shots] if shots is not None else rows


def _name(axes: Axes, key: tuple, level: tuple[float, float], zoom: bool = False) -> None:
    """Title, unit and the levels of the unpruned model and of chance."""
    metric, task, shots = key
    axes.axhline(level[0], color="0.6", linewidth=1, label="unpruned, unhealed")
    if metric == "accuracy":
        axes.axhline(level[1], color=GREY, linestyle="-.", linewidth=1, label="chance")
        axes.set(ylabel="Accuracy", ylim=(0, 1.03))
        axes.set_title(f"{task} ({shots}-shot)", fontsize="medium")
        return
    axes.set(ylabel="Loss / ln V")
    if not zoom:
        axes.set_ylim(0, None)
    axes.set_title(f"{task} loss", fontsize="medium")


def healing_curves(curves: pd.DataFrame, strategies: Sequence[str] = tuple(COLOURS)) -> Figure:
    """Training loss of each healing by step, a panel per strategy, shaded by n; with ln V."""
    figure, panels = grid(1, len(strategies), width=4.2, height=3.2)
    shade = mpl.colormaps["viridis"]
    most = max(int(curves["n"].max()), 1)
    for axes, strategy in zip(panels.flat, strategies, strict=True):
        rows = curves[curves["strategy"].isin([strategy, "none"])]
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
            curves["guessing"].iloc[0], color=GREY, linestyle="-.", linewidth=1, label="ln V"
        )
        axes.set(xlabel="Step", ylabel="Training loss\n[nats per token]")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(strategy, fontsize="medium")
    shared_legend(figure, panels)
    return figure


def fate_panels(questions: pd.DataFrame) -> Figure:
    """Shares of the questions kept, lost, gained and wrong at every fraction; a row per task,
    unhealed and healed."""
    tasks = list(questions.groupby(["task", "shots"], sort=False).groups)
    figure, panels = grid(len(tasks), 2, width=4.2, height=2.7)
    shades = sns.color_palette("colorblind")
    kinds = {"kept": (shades[0], ""), "gained": (shades[2], "///")}
    kinds |= {"lost": (shades[1], "..."), "wrong": ("0.85", "")}
    for row, (task, shots) in enumerate(tasks):
        for column, models in enumerate(("unhealed", "healed")):
            axes = panels[row, column]
            rows = questions[(questions["task"] == task) & (questions["shots"] == shots)]
            rows = rows[rows["models"] == models].sort_values("fraction")
            shares = [rows[kind] / rows["n_questions"] for kind in kinds]
            bands = axes.stackplot(
                rows["fraction"],
                shares,
                labels=[f"{kind}" for kind in kinds],
                colors=[shade for shade, _ in kinds.values()],
            )
            for band, (_, hatch) in zip(bands, kinds.values(), strict=True):
                band.set_hatch(hatch)
                band.set_edgecolor("white")
            axes.plot(
                rows["fraction"],
                rows["by_chance"] / rows["n_questions"],
                color="black",
                linestyle="--",
                linewidth=1.2,
                label="kept, if right independently",
            )
            axes.set(ylabel="Share of questions", ylim=(0, 1))
            axes.set_title(f"{task} ({shots}-shot), {models}", fontsize="medium")
            fraction_axis(axes)
            axes.set_xlim(0, rows["fraction"].max())
    shared_legend(figure, panels)
    return figure
