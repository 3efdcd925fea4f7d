"""Figures of what is lost first."""

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.sections.figures import fraction_axis, grid, nothing, panel_grid, shared_legend
from lib.sections.looks import GREY, INK, LINES

LOOK = {"color": INK, "marker": "o"}
FILLS = {"unhealed": "white", "healed": None}  # of markers; None: their own colour
FLUENCY = {
    "repeated": "Repeated runs of four words",
    "distinct": "Distinct words / all words",
    "self_bleu": "Self-BLEU",
    "loss": "Loss of the unpruned model [nats]",
}


def curves(table: pd.DataFrame) -> Figure:
    """A panel for each ability: the share kept above chance against the fraction dropped, with one
    standard error; what the unpruned model cannot do has none."""
    known = table[table["testable"] == "yes"]
    names = list(dict.fromkeys(known["ability"]))
    if not names:
        return nothing("The unpruned model does nothing of what the questions ask for.")
    figure, panels, spare = panel_grid(len(names), height=2.5)
    for axes, name in zip(panels.flat, names, strict=False):
        for which, of in known[known["ability"] == name].groupby("models", sort=False):
            if len(of) > 1:
                _line(axes, of, which, "kept", "kept_stderr")
        axes.axhline(1, color=GREY, linewidth=1)
        axes.axhline(0, color=GREY, linewidth=1, linestyle="-.")
        axes.set_title(name, fontsize="medium")
        fraction_axis(axes)
    for axes in panels[:, 0]:
        axes.set_ylabel("Kept above chance")
    shared_legend(figure, panels, spare)
    return figure


def _line(axes: Axes, of: pd.DataFrame, which: str, value: str, error: str) -> None:
    axes.errorbar(
        of["fraction"],
        of[value],
        yerr=of[error],
        **LOOK,
        markerfacecolor=FILLS[which],
        linestyle=LINES[which],
        label=which,
    )


def forest(halves: pd.DataFrame) -> Figure:
    """After which fraction half of each ability is lost, with 95% intervals; an arrow where it is
    not within what was measured."""
    rows = halves[halves["outcome"] != "not testable"]
    if rows.empty:
        return nothing("No ability of the unpruned model is clearly above chance.")
    first = rows.sort_values(["models", "fraction"], ascending=[False, True], na_position="last")
    names = list(dict.fromkeys(first["ability"]))
    figure, panels = grid(1, 1, width=7, height=0.42 * len(names) + 1.2)
    axes, most = panels[0, 0], float(rows["most"].max())
    for one in rows.itertuples():
        y = names.index(one.ability) + (0.14 if one.models == "healed" else -0.14)
        end = one.high if math.isfinite(one.high) else one.most
        if math.isfinite(one.low):
            axes.plot([one.low, end], [y, y], color=LOOK["color"], linewidth=1.2)
        if math.isfinite(one.fraction):
            axes.plot(
                one.fraction,
                y,
                markerfacecolor=FILLS[one.models],
                label=one.models,
                **LOOK,
                linestyle="",
            )
        if not math.isfinite(one.high):
            axes.plot(one.most, y, color=LOOK["color"], marker=">", linestyle="")
    axes.set_yticks(range(len(names)), names)
    fraction_axis(axes)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, most * 1.04))
    shared_legend(figure, panels)
    return figure


def fluency_panels(table: pd.DataFrame) -> Figure:
    """How fluently models write, a panel for each measure, against the fraction dropped, with one
    standard error."""
    if table.empty:
        return nothing("This study looks at no writing to see how fluent it is.")
    whole = table[table["models"] == ""].iloc[0]
    figure, panels = grid(2, 2, width=4.2, height=2.5)
    for axes, (name, label) in zip(panels.flat, FLUENCY.items(), strict=True):
        for which, of in table[table["models"] != ""].groupby("models", sort=False):
            _line(axes, of, which, name, f"{name}_stderr")
        axes.axhline(whole[name], color=GREY, linewidth=1, label="unpruned")
        axes.set_title(label, fontsize="medium")
        fraction_axis(axes)
    shared_legend(figure, panels)
    return figure
