"""Figures of what layers do, and of what is lost without them."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lib.sections import looks
from lib.sections.figures import grid, nothing, shared_legend
from lib.sections.looks import GREY, INK, MARKS
from lib.sections.strips import strips
from lib.statistics.ranks import LEVEL

WIDE = 20  # how many times the smallest value the largest is where scales are logarithmic
SMALL = 0.02  # up to which losses are drawn to scale, and from which on by their logarithm
OWN, TWIN = "the model", "its untrained twin"
ANGLE = "angular"
# What a measure is called in figures, and the value at which a layer changes nothing.
NAMES = {
    ANGLE: ("Angular distance / π", 0.0),
    "cosine": ("Cosine", 1.0),
    "cka": ("Linear CKA", 1.0),
    "svcca": ("SVCCA", 1.0),
    "procrustes": ("Procrustes", 1.0),
    "linear": ("Explained linearly", 1.0),
    "linear_update": ("Update explained linearly", 1.0),
    "norm": ("Norm of the stream", None),
    "update": ("Update / stream", 0.0),
    "attention": ("Attention / stream", 0.0),
    "ffn": ("FFN / stream", 0.0),
    "dimension": ("Intrinsic dimension", None),
    "gradient": ("Gradient norm", None),
}


def panels(table: pd.DataFrame) -> Figure:
    """A panel for each measure, against the layer."""
    names = [name for name in NAMES if name in {*table["measure"]}]
    figure, axes_of = grid(-(-len(names) // 2), 2, width=4.2, height=2.1)
    for axes, name in zip(axes_of.flat, names, strict=False):
        of_measure = table[table["measure"] == name]
        for number, (model, of) in enumerate(of_measure.groupby("model", sort=False)):
            axes.errorbar(
                of["layer"],
                of["value"],
                yerr=of["stderr"],
                color=INK if model == OWN else GREY,
                marker=MARKS[number],
                linestyle="-" if model == OWN else ":",
                label=model,
            )
        label, none = NAMES[name]
        values = of_measure["value"]
        if none is not None:
            axes.axhline(none, color=GREY, linewidth=0.8)
        if none != 1 and values.max() > WIDE * values.min() > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(label, fontsize="medium")
    for axes in axes_of.flat[len(names) :]:
        axes.set_axis_off()
    for axes in axes_of.flat[max(0, len(names) - 2) : len(names)]:
        axes.set_xlabel("Layer")
    shared_legend(figure, axes_of)
    return figure


def lens_panel(table: pd.DataFrame) -> Figure:
    """Shares of questions against the number of layers that have been run."""
    if table.empty:
        return nothing("This study asks no questions that the lens can look at.")
    figure, axes_of = grid(1, 1, width=7, height=3)
    axes = axes_of[0, 0]
    drawn = {"ahead": "is ahead", "settled": "stays ahead"}
    for name, look in looks.series(drawn).items():
        axes.errorbar(
            table["after"],
            table[name],
            yerr=table[f"{name}_stderr"],
            **look,
            label=f"the final answer {drawn[name]}",
        )
    axes.set(xlabel="Layers that have been run", ylabel="Share of the questions", ylim=(0, 1.03))
    shared_legend(figure, axes_of)
    return figure


def cost_panels(table: pd.DataFrame) -> Figure:
    """What is lost without each layer: loss, and accuracy."""
    if table.empty:
        return nothing("This study does not ask its model without each layer in turn.")
    figure, axes_of = grid(1, 2, width=4.2, height=2.7)
    drawn = (("loss", "loss_stderr", "Loss / ln V"), ("accuracy", "stderr", "Accuracy, lost"))
    styles = looks.series(value for value, *_ in drawn)
    for axes, (value, error, label) in zip(axes_of.flat, drawn, strict=True):
        axes.errorbar(
            table["layer"], table[value], yerr=table[error],
            **styles[value], linestyle="none",
        )  # fmt: skip
        axes.axhline(0, color=GREY, linewidth=1)
        axes.set_yscale("symlog", linthresh=SMALL)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="Layer that is left out", ylabel=label, ylim=(-2 * SMALL, 2))
    return figure


def forest(table: pd.DataFrame) -> Figure:
    """Rank correlations with their intervals, a row for each measure."""
    table = table[table["rho"].notna()]
    if table.empty:
        return nothing("This study does not ask its model without each layer in turn.")
    names = [name for name in NAMES if name in {*table["measure"]}]
    figure, axes_of = grid(1, 1, width=7, height=0.36 * len(names) + 1.2)
    axes = axes_of[0, 0]
    styles = looks.series(table["cost"].unique())
    for number, (cost, of) in enumerate(table.groupby("cost", sort=False)):
        rows = of.set_index("measure").loc[[n for n in names if n in {*of["measure"]}]]
        at = [names.index(name) + 0.22 * (number - 0.5) for name in rows.index]
        # Of very skewed resamples the value may lie outside the interval.
        reach = [
            (rows["rho"] - rows["low"]).clip(lower=0),
            (rows["high"] - rows["rho"]).clip(lower=0),
        ]
        axes.errorbar(
            rows["rho"], at, xerr=reach, **styles[cost], linestyle="none", capsize=2, label=cost,
        )  # fmt: skip
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(names)), [NAMES[name][0] for name in names])
    axes.invert_yaxis()
    axes.set(xlabel=f"Spearman's ρ with what is lost, {LEVEL:.0%} interval", xlim=(-1.05, 1.05))
    shared_legend(figure, axes_of)
    return figure


def block_strips(table: pd.DataFrame, n_layers: int) -> Figure:
    """The blocks that the measures would drop, as strips of layers."""
    if table.empty:
        return nothing("No block of this study's fractions has at least two layers.")
    dropped = [
        " ".join(map(str, range(*pair))) for pair in zip(table["start"], table["stop"], strict=True)
    ]
    names = table["measure"].map(lambda name: NAMES[name][0].removesuffix(" / π"))
    sets = pd.DataFrame({"strategy": names, "n": table["n"], "draw": np.nan, "dropped": dropped})
    return strips(sets, n_layers, sorted({*table["n"]}))
