"""Figures of pruning in steps and at once: what steps gain, and how alike both models are."""

import pandas as pd
from matplotlib.figure import Figure

from lib.claims.rules.lu_schedules import LONGER, ONCE
from lib.sections import looks
from lib.sections.figures import fraction_axis, grid, nothing, shared_legend
from lib.sections.looks import GREY

VALUES = (("difference", "stderr"), ("loss_difference", "loss_stderr"))


def panels(compared: pd.DataFrame) -> Figure:
    """What steps gain on all at once against the fraction dropped: accuracy above, loss below,
    where less is better; a column for the training of one step and one for that of all."""
    rows = compared[compared["role"] == "all"]
    if rows.empty:
        return nothing("This study prunes nothing in steps.")
    figure, axes_of = grid(2, 2, width=4.4, height=2.6)
    named = rows.groupby(["strategy", "healing", "each"], sort=False)
    shift = 0.006
    styles = looks.series(range(named.ngroups))
    for number, ((strategy, healing, each), of) in enumerate(named):
        look = styles[number] | {"label": f"{strategy}, {each} at a time, {healing}", "capsize": 3}
        for column, way in enumerate((ONCE, LONGER)):
            points = of[of["base"] == way]
            for row, (value, error) in enumerate(VALUES):
                axes_of[row, column].errorbar(
                    points["fraction"] + shift * (number - named.ngroups / 2),
                    100 * points[value],
                    yerr=200 * points[error],
                    **look,
                )
    for row, label in enumerate(("Accuracy, points", "Loss / ln V, points")):
        axes_of[row, 0].set_ylabel(label)
        for axes in axes_of[row]:
            axes.axhline(0, color=GREY, linewidth=1)
            fraction_axis(axes)
    axes_of[0, 0].set_title("less all at once, as long as one step", fontsize="medium")
    axes_of[0, 1].set_title("less all at once, as many tokens", fontsize="medium")
    shared_legend(figure, axes_of)
    return figure


def alignment_panels(aligned: pd.DataFrame) -> Figure:
    """1 − CKA against the layer: in steps and at once, beside two seeds of healing at once; a panel
    for each schedule, the most layers that it drops."""
    if aligned.empty:
        return nothing("This study prunes nothing in steps.")
    named = list(aligned.groupby(["strategy", "healing", "each"], sort=False))
    figure, axes_of = grid(-(-len(named) // 2), min(2, len(named)), width=4.4, height=2.6)
    for axes, ((strategy, healing, each), of) in zip(axes_of.flat, named, strict=False):
        of = of[of["n"] == of["n"].max()]
        styles = looks.series(of["pair"].unique())
        for what, rows in of.groupby("pair", sort=False):
            mean = rows.groupby("layer")[["cka", "stderr"]].mean()
            axes.errorbar(
                mean.index,
                1 - mean["cka"],
                yerr=mean["stderr"],
                **styles[what],
                label=what,
            )
        axes.set_title(f"{strategy}, {each} at a time, {healing}", fontsize="medium")
        axes.set_xlabel("Layer of the pruned model")
    for axes in axes_of[:, 0]:
        axes.set_ylabel("1 − CKA")
    for axes in axes_of.flat[len(named) :]:
        axes.set_axis_off()
    shared_legend(figure, axes_of)
    return figure
