"""Figures that set a model beside its controls: the untrained twin and the reference runs.

Reference runs are thin lines, each named in the legend; the study itself is drawn as elsewhere.
"""

from itertools import cycle

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib import plots
from lib.plots import COLOURS, GREY

DASHES = ["--", "-.", (0, (1, 1.5)), (0, (5, 1, 1, 1, 1, 1))]


def distance_panels(
    own: pd.DataFrame, untrained: pd.DataFrame | None, references: pd.DataFrame, title: str
) -> Figure:
    """d(ℓ, ℓ+n) for single layers and for blocks of a quarter and half of the layers."""
    n_layers = int(own["n"].max()) + 1
    sizes = sorted({1, max(1, n_layers // 4), max(1, n_layers // 2)})
    figure, panels = plots.grid(len(sizes), 1, width=7, height=2.7)
    for axes, n in zip(panels.flat, sizes, strict=True):
        for run, style in _runs(references):
            rows = references[(references["run"] == run) & (references["n"] == n)]
            axes.plot(rows["start"], rows["distance"], **style)
        if untrained is not None:
            rows = untrained[untrained["n"] == n]
            axes.plot(rows["start"], rows["distance"], color=GREY, label="untrained twin")
        rows = own[own["n"] == n]
        axes.errorbar(
            rows["start"],
            rows["distance"],
            yerr=rows["stderr"],
            color=COLOURS["similarity"],
            marker="o",
            label=title,
        )
        axes.set(ylabel="d(ℓ, ℓ+n)  [units of π]", ylim=(0, None))
        axes.set_title(f"n = {n}", fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[-1, 0].set_xlabel("Start layer ℓ of the block")
    plots.shared_legend(figure, panels)
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
    figure, panels = plots.grid(-(-(len(tasks) + 1) // 2), 2, width=4.2, height=3)
    for axes, (name, shots) in zip(panels.flat, tasks, strict=False):
        rows, others = (
            table[(table["task"] == name) & (table["shots"] == shots)] if len(table) else table
            for table in (qa, qa_references)
        )
        _thin(axes, others, "accuracy", healed)
        plots.curves(axes, rows, "accuracy", "similarity", "healed" if healed else "unhealed")
        plots.accuracy_levels(axes, rows)
        axes.set_title(f"{name} ({shots}-shot)", fontsize="medium")
    axes = panels.flat[len(tasks)]
    _thin(axes, loss_references, "normalized_loss", healed)
    only = "healed" if healed else "unhealed"
    plots.curves(axes, plots.normalised(loss), "normalized_loss", "similarity", only)
    plots.loss_levels(axes, loss)
    axes.set_title(f"{loss['corpus'].iloc[0]} loss", fontsize="medium")
    for spare in panels.flat[len(tasks) + 1 :]:
        spare.axis("off")
    plots.shared_legend(figure, panels)
    return figure


def _runs(references: pd.DataFrame) -> list[tuple[str, dict]]:
    """Each reference run's name and how its line is drawn, the same in every figure."""
    names = list(dict.fromkeys(references["run"]))
    shades = sns.color_palette("colorblind")[2:]
    return [
        (name, {"color": shade, "linestyle": dash, "linewidth": 1.1, "label": f"reference: {name}"})
        for name, shade, dash in zip(names, cycle(shades), cycle(DASHES), strict=False)
    ]


def _thin(axes: Axes, references: pd.DataFrame, value: str, healed: bool) -> None:
    for run, style in _runs(references):
        rows = references[references["run"] == run]
        rows = rows[rows["strategy"].isin(["similarity", "none"])]
        rows = rows[(rows["healing"] != "none") == healed]
        rows = rows[(rows["weights"] == "nf4") == healed].sort_values("fraction")
        axes.plot(rows["fraction"], rows[value], **style)
