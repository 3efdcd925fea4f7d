"""The figures. Each takes tidy tables and returns a matplotlib figure; no number is made here.

Colour says which strategy or rank, line style what was done after pruning, so that figures read
without colour too. Bars are one standard error.
"""

from collections.abc import Iterable, Sequence
from itertools import cycle, product

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

SHADES = sns.color_palette("colorblind")
COLOURS = {"similarity": SHADES[0], "simple": SHADES[1]}
SHAPES = {"similarity": "o", "simple": "s"}
STYLES = {"healed": "-", "unhealed": "--", "unhealed, 4-bit": ":"}
FRACTION = "Fraction of layers dropped (n / L)"
DASHES = ["--", "-.", (0, (1, 1.5)), (0, (5, 1, 1, 1, 1, 1))]  # of reference runs
GREY = "0.35"


def style() -> None:
    """House style, once per notebook: vector output, text at a size that survives a phone."""
    sns.set_theme(style="whitegrid", palette="colorblind", font_scale=1.05)
    mpl.rcParams.update(
        {
            "svg.hashsalt": "layers",
            "figure.constrained_layout.use": True,
            "axes.edgecolor": "0.6",
            "grid.color": "0.9",
            "legend.frameon": False,
            "lines.markersize": 4.5,
        }
    )
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg")


def accuracy_panels(
    qa: pd.DataFrame, transitions: pd.DataFrame, strategies: Iterable[str] = ("similarity",)
) -> Figure:
    """Fig. 2, 6: accuracy against fraction, a panel per task, with the fitted critical fraction."""
    tasks = list(qa.groupby(["task", "shots"], sort=False).groups)
    figure, panels, spare = panel_grid(len(tasks), height=3.1)
    for axes, task in zip(panels.flat, tasks, strict=False):
        rows = qa[(qa["task"] == task[0]) & (qa["shots"] == task[1])]
        for strategy in strategies:
            curves(axes, rows, "accuracy", strategy)
            fitted = transitions[
                (transitions["task"] == task[0])
                & (transitions["shots"] == task[1])
                & (transitions["strategy"] == strategy)
                & (transitions["healing"] != "none")
            ].dropna(subset=["fraction"])
            for row in fitted.itertuples():
                axes.axvspan(row.low, row.high, color=COLOURS[strategy], alpha=0.15, linewidth=0)
        accuracy_levels(axes, rows)
        axes.set_title(f"{task[0]} ({task[1]}-shot)", fontsize="medium")
    shared_legend(figure, panels, spare)
    return figure


def loss_panel(loss: pd.DataFrame, transitions: pd.DataFrame) -> Figure:
    """Fig. 3: normalised loss against fraction, with where accuracy falls after healing."""
    figure, panels = grid(1, 1, width=7, height=4.4)
    axes = panels[0, 0]
    curves(axes, normalised(loss), "normalized_loss", "similarity")
    fitted = transitions[
        (transitions["strategy"] == "similarity") & (transitions["healing"] != "none")
    ].dropna(subset=["fraction"])
    for row, shade in zip(fitted.itertuples(), SHADES[2:], strict=False):
        axes.axvspan(row.low, row.high, color=shade, alpha=0.12, linewidth=0)
        axes.axvline(
            row.fraction, color=shade, linewidth=1, label=f"{row.task} ({row.shots}-shot) falls"
        )
    loss_levels(axes, loss)
    shared_legend(figure, panels)
    return figure


def strategy_panels(qa: pd.DataFrame, loss: pd.DataFrame) -> Figure:
    """Fig. 5: simple against similarity; a row per evaluation, before and after healing."""
    tasks = list(qa.groupby(["task", "shots"], sort=False).groups)
    figure, panels = grid(len(tasks) + 1, 2, width=4.2, height=2.9)
    for row, column in product(range(len(tasks) + 1), range(2)):
        axes = panels[row, column]
        only = "healed" if column else "unhealed"
        if row < len(tasks):
            name, shots = tasks[row]
            rows = qa[(qa["task"] == name) & (qa["shots"] == shots)]
            for strategy in COLOURS:
                curves(axes, rows, "accuracy", strategy, only, label=strategy)
            accuracy_levels(axes, rows)
            title = f"{name} ({shots}-shot)"
        else:
            for strategy in COLOURS:
                curves(axes, normalised(loss), "normalized_loss", strategy, only, label=strategy)
            loss_levels(axes, loss)
            title = f"{loss['corpus'].iloc[0]} loss"
        axes.set_title(f"{title}, {only}", fontsize="medium")
    shared_legend(figure, panels)
    return figure


def rank_panels(ranks: pd.DataFrame, levels: dict[tuple, tuple[float, float]]) -> Figure:
    """Fig. 9: accuracy and normalised loss against fraction for several ranks and strategies.

    `levels`: the unpruned model's value and chance by (metric, task, shots), a row of panels
    each."""
    if ranks.empty:
        return nothing("This study compares no ranks.")
    figure, panels = grid(len(levels), 2, width=4.2, height=2.9)
    shades = sns.color_palette("viridis", ranks["rank"].nunique())
    for (i, (key, level)), (j, strategy) in product(enumerate(levels.items()), enumerate(COLOURS)):
        metric, task, shots = key
        axes = panels[i, j]
        rows = ranks[
            (ranks["metric"] == metric) & (ranks["task"] == task) & (ranks["strategy"] == strategy)
        ]
        rows = rows[rows["shots"] == shots] if shots is not None else rows
        for (rank, curve), shade, mark in zip(
            rows.groupby("rank"), shades, cycle("os^Dv<>"), strict=False
        ):
            curve = curve.sort_values("fraction")
            axes.errorbar(
                curve["fraction"],
                curve["value"],
                yerr=curve["stderr"],
                color=shade,
                marker=mark,
                label=f"rank {rank}",
            )
        whole, chance = level
        axes.axhline(whole, color="0.6", linewidth=1, label="unpruned, unhealed")
        axes.axhline(chance, color=GREY, linestyle="-.", linewidth=1, label="chance (loss: ln V)")
        axes.set(ylabel="Accuracy" if metric == "accuracy" else "Loss / ln V", ylim=(0, 1.03))
        if metric != "accuracy":
            axes.set_ylim(0, max(1.03, rows["value"].max() * 1.05))
        title = f"{task} ({shots}-shot)" if shots is not None else f"{task} loss"
        axes.set_title(f"{title}, {strategy}", fontsize="medium")
        fraction_axis(axes)
    shared_legend(figure, panels)
    return figure


def glance(qa: pd.DataFrame, loss: pd.DataFrame) -> Figure:
    """Fig. 1(d): every accuracy, and the loss, against fraction; similarity-informed pruning."""
    tasks = list(qa.groupby(["task", "shots"], sort=False).groups)
    figure, panels, spare = panel_grid(len(tasks) + 1, height=3.1)
    for axes, (name, shots) in zip(panels.flat, tasks, strict=False):
        rows = qa[(qa["task"] == name) & (qa["shots"] == shots)]
        for only in ("unhealed", "healed"):
            curves(axes, rows, "accuracy", "similarity", only)
        accuracy_levels(axes, rows)
        axes.set_title(f"{name} ({shots}-shot)", fontsize="medium")
    axes = panels.flat[len(tasks)]
    for only in ("unhealed", "healed"):
        curves(axes, normalised(loss), "normalized_loss", "similarity", only)
    loss_levels(axes, loss)
    axes.set_title(f"{loss['corpus'].iloc[0]} loss", fontsize="medium")
    shared_legend(figure, panels, spare)
    return figure


def pruning_panels(
    qa: pd.DataFrame,
    loss: pd.DataFrame,
    qa_references: pd.DataFrame,
    loss_references: pd.DataFrame,
    healed: bool,
) -> Figure:
    """Accuracy and loss against fraction, similarity-informed, with the reference runs' curves."""
    tasks = list(qa.groupby(["task", "shots"], sort=False).groups)
    figure, panels, spare = panel_grid(len(tasks) + 1, height=3)
    for axes, (name, shots) in zip(panels.flat, tasks, strict=False):
        rows, others = (
            table[(table["task"] == name) & (table["shots"] == shots)] if len(table) else table
            for table in (qa, qa_references)
        )
        _thin(axes, others, "accuracy", healed)
        curves(axes, rows, "accuracy", "similarity", "healed" if healed else "unhealed")
        accuracy_levels(axes, rows)
        axes.set_title(f"{name} ({shots}-shot)", fontsize="medium")
    axes = panels.flat[len(tasks)]
    _thin(axes, loss_references, "normalized_loss", healed)
    only = "healed" if healed else "unhealed"
    curves(axes, normalised(loss), "normalized_loss", "similarity", only)
    loss_levels(axes, loss)
    axes.set_title(f"{loss['corpus'].iloc[0]} loss", fontsize="medium")
    shared_legend(figure, panels, spare)
    return figure


def nothing(why: str) -> Figure:
    """In a figure's place where there is nothing to draw."""
    figure, panels = grid(1, 1, width=7, height=0.8)
    panels[0, 0].axis("off")
    panels[0, 0].text(0.5, 0.5, why, ha="center", va="center")
    return figure


def grid(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    figure, panels = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False
    )
    return figure, panels


def panel_grid(count: int, height: float) -> tuple[Figure, np.ndarray, list[Axes]]:
    """So many panels, two in a row; also those that are left over."""
    columns = min(2, count)
    width = 4.2 if columns == 2 else 7
    figure, panels = grid(-(-count // columns), columns, width, height)
    return figure, panels, list(panels.flat[count:])


def reference_styles(references: pd.DataFrame) -> list[tuple[str, dict]]:
    """Each reference run's name and how its line is drawn, the same in every figure."""
    names = list(dict.fromkeys(references["run"]))
    shades = sns.color_palette("colorblind")[2:]
    return [
        (name, {"color": shade, "linestyle": dash, "linewidth": 1.1, "label": f"reference: {name}"})
        for name, shade, dash in zip(names, cycle(shades), cycle(DASHES), strict=False)
    ]


def treatment(rows: pd.DataFrame) -> pd.Series:
    """Which of STYLES each row belongs to."""
    unhealed = np.where(rows["weights"] == "nf4", "unhealed, 4-bit", "unhealed")
    return pd.Series(np.where(rows["healing"] != "none", "healed", unhealed), rows.index)


def normalised(loss: pd.DataFrame) -> pd.DataFrame:
    """The loss table with its standard error in units of ln V too."""
    return loss.assign(stderr=loss["stderr"] * loss["normalized_loss"] / loss["loss"])


def curves(
    axes: Axes,
    rows: pd.DataFrame,
    value: str,
    strategy: str,
    only: str | None = None,
    label: str | None = None,
) -> None:
    """A strategy's curves, each from the unpruned model in the same state on."""
    rows = rows[rows["strategy"].isin([strategy, "none"])]
    for state, line in STYLES.items():
        curve = rows[treatment(rows) == state].sort_values("fraction")
        if curve.empty or (only is not None and state != only):
            continue
        axes.errorbar(
            curve["fraction"],
            curve[value],
            yerr=curve["stderr"],
            color=COLOURS[strategy],
            linestyle=line,
            marker=SHAPES[strategy],
            markerfacecolor=COLOURS[strategy] if state == "healed" else "white",
            label=label or state,
        )


def unpruned(rows: pd.DataFrame) -> pd.Series:
    return rows[(rows["strategy"] == "none") & (treatment(rows) == "unhealed")].iloc[0]


def accuracy_levels(axes: Axes, rows: pd.DataFrame) -> None:
    base = unpruned(rows)
    axes.axhline(base["accuracy"], color="0.6", linewidth=1, label="unpruned")
    axes.axhline(base["guess"], color=GREY, linestyle="-.", linewidth=1, label="guessing")
    axes.axhline(
        base["constant"], color=GREY, linestyle=(0, (1, 3)), linewidth=1.4, label="constant answer"
    )
    axes.set(ylabel="Accuracy", ylim=(0, 1.03))
    fraction_axis(axes)


def loss_levels(axes: Axes, loss: pd.DataFrame) -> None:
    axes.axhline(unpruned(loss)["normalized_loss"], color="0.6", linewidth=1, label="unpruned")
    axes.axhline(1, color=GREY, linestyle=(0, (5, 2, 1, 2, 1, 2)), linewidth=1, label="ln V")
    axes.set(ylabel="Loss / ln V")
    axes.set_ylim(bottom=0)
    fraction_axis(axes)


def fraction_axis(axes: Axes) -> None:
    """Fractions in percent; named once per column, at the bottom."""
    axes.set(xlim=(-0.02, 1.0))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    if axes.get_subplotspec().is_last_row() or axes.get_gridspec().nrows == 1:
        axes.set_xlabel(FRACTION)


def shared_legend(figure: Figure, panels: np.ndarray, spare: Sequence[Axes] = ()) -> None:
    """One legend, each entry once: in a spare panel or below all, so that no curve is covered."""
    entries: dict[str, object] = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if spare:
        spare[0].axis("off")
        spare[0].legend(entries.values(), entries.keys(), loc="center left", fontsize="medium")
        panels[-2, 1].set_xlabel(FRACTION)  # nothing stands below this panel
        return
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=2 if panels.shape[1] == 1 else 4,
        fontsize="small",
    )


def _thin(axes: Axes, references: pd.DataFrame, value: str, healed: bool) -> None:
    for run, style in reference_styles(references):
        rows = references[references["run"] == run]
        rows = rows[rows["strategy"].isin(["similarity", "none"])]
        rows = rows[(rows["healing"] != "none") == healed]
        rows = rows[(rows["weights"] == "nf4") == healed].sort_values("fraction")
        axes.plot(rows["fraction"], rows[value], **style)
