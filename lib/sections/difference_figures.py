"""Figures of paired differences."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import labels
from lib.sections import looks
from lib.sections.figures import grid, nothing, shared_legend
from lib.sections.looks import GREY

SURE = 2  # standard errors to each side
ROW = 0.2  # inches of an interval


def forest(compared: pd.DataFrame) -> Figure:
    """Differences in accuracy with two standard errors: a row for each task with a mark for each
    side against the base, or, of prompts, a row for each pair. Hollow: unhealed."""
    if compared.empty:
        return nothing("There is nothing to compare in this study.")
    against = compared["compared"] + " − " + compared["base"]
    if "varied" in compared:
        rows = compared.assign(row=against, side="")
    else:
        asked = zip(compared["task"], compared["shots"], strict=True)
        task = pd.Series([labels.title(*one) for one in asked], compared.index, dtype=object)
        rows = compared.assign(row=task, side=against)
    rows["models"] = compared.get("models", "")
    names, styles = list(dict.fromkeys(rows["row"])), looks.series(dict.fromkeys(rows["side"]))
    height = ROW * rows["row"].value_counts().max() * len(names) + 1.2
    figure, panels = grid(1, 1, width=7, height=height)
    axes = panels[0, 0]
    for place, name in enumerate(names):
        of = rows[rows["row"] == name].to_dict("records")
        for number, one in enumerate(of):
            look = styles[one["side"]]
            axes.errorbar(
                100 * one["difference"],
                place + 0.1 + 0.8 * (number + 0.5) / len(of),
                xerr=100 * SURE * one["stderr"],
                **look,
                markerfacecolor="white" if one["models"] == "unhealed" else look["color"],
                linestyle="none",
                label=", ".join(filter(None, (one["side"], one["models"]))),
            )
    axes.axvline(0, color=GREY, linewidth=1)
    axes.hlines(range(1, len(names)), 0, 1, transform=axes.get_yaxis_transform(), color="0.8")
    axes.set_yticks(np.arange(len(names)) + 0.5, names)
    axes.grid(visible=False, axis="y")
    axes.set(ylim=(len(names), 0), xlabel="Difference in accuracy, points")
    shared_legend(figure, panels)
    return figure
