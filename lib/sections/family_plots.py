"""The figures of several studies on one page. A study keeps its colour, dash and marker in all of
them; the first one is the page's own, a thick line under the others, so that none hides another.
Bars are one standard error."""

from collections.abc import Iterable, Sequence
from itertools import cycle
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.sections.distance_plots import RESCALED, heat_map, mark
from lib.sections.figures import (
    COLOURS,
    DASHES,
    GREY,
    SHADES,
    SHAPES,
    fraction_axis,
    grid,
    normalised,
    panel_grid,
    shared_legend,
    treatment,
)

# Numbers of colours, dashes and markers without a common divisor: no two studies look alike.
OTHER_COLOURS = [SHADES[i] for i in (1, 2, 4, 3, 9, 5, 7)]
OTHER_MARKERS = ("s", "^", "D", "v", "P")
LIMIT = (0, (5, 2, 1, 2, 1, 2))
LEVELS = {"guess": ("guessing", "-."), "constant": ("constant answer", (0, (1, 3)))}


def accuracy_by_run(qa: pd.DataFrame, healed: bool) -> Figure:
    """Fig. 2, 6: accuracy against fraction, similarity-informed; a panel per task with the studies
    that have it, and every chance level that they differ in."""
    tasks = list(qa.groupby(["task", "shots"], sort=False).groups)
    figure, panels, spare = panel_grid(len(tasks), height=3.3)
    for axes, (name, shots) in zip(panels.flat, tasks, strict=False):
        rows = qa[(qa["task"] == name) & (qa["shots"] == shots)]
        _curves(axes, rows, "accuracy", healed, line_styles(qa["run"]))
        for column, (label, dash) in LEVELS.items():
            for level in sorted(set(rows[column].round(6))):
                axes.axhline(level, color=GREY, linestyle=dash, linewidth=1, label=label)
        axes.set(ylabel="Accuracy", ylim=(-0.01, 1.03))
        fraction_axis(axes)
        axes.set_title(_plain(f"{name} ({shots}-shot)"), fontsize="medium")
    _legend(figure, panels, spare)
    return figure


def loss_by_run(loss: pd.DataFrame) -> Figure:
    """Fig. 3: normalised loss against fraction before healing and after it; a row of panels per
    text, because losses on different texts are not to be compared."""
    texts = list(dict.fromkeys(loss["corpus"]))
    figure, panels = grid(len(texts), 2, width=4.2, height=3.6)
    for row, text in zip(panels, texts, strict=True):
        for axes, healed in zip(row, (False, True), strict=True):
            rows = normalised(loss[loss["corpus"] == text])
            _curves(axes, rows, "normalized_loss", healed, line_styles(loss["run"]))
            axes.axhline(
                1, color=GREY, linestyle=(0, (5, 2, 1, 2, 1, 2)), linewidth=1, label="ln V"
            )
            axes.set(ylabel="Loss / ln V")
            axes.set_ylim(bottom=0)
            fraction_axis(axes)
            state = "healed" if healed else "unhealed"
            axes.set_title(_plain(f"{text}, {state}"), fontsize="medium")
    _legend(figure, panels)
    return figure


def distance_maps(distances: pd.DataFrame, optimal: pd.DataFrame) -> Figure:
    """Fig. 4: a heat map per study, each row n shifted and rescaled to [0, 1], ℓ*(n) marked."""
    runs = list(dict.fromkeys(distances["run"]))
    figure, panels, spare = panel_grid(len(runs), height=3.4)
    for axes, run in zip(panels.flat, runs, strict=False):
        rows = distances[distances["run"] == run]
        # As pixels: a deep model has thousands of cells.
        heat_map(axes, rows, labels=7, cbar=False, rasterized=True)
        mark(axes, optimal[optimal["run"] == run], size=3)
        axes.set(xlabel="Start layer ℓ of the block", ylabel="Block size n  [layers]")
        axes.set_title(_plain(run), fontsize="medium")
    panels[0, 0].legend(loc="upper right")
    for axes in spare:
        axes.axis("off")
    shades = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), "viridis_r")
    figure.colorbar(
        shades, ax=list(panels.flat), label=RESCALED, location="bottom", shrink=0.6, aspect=30
    )
    return figure


def line_styles(runs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """How each study's line is drawn, by its title, in the order in which they first appear."""
    own, *others = dict.fromkeys(runs)
    bold = {"color": COLOURS["similarity"], "linestyle": "-", "marker": SHAPES["similarity"]}
    found = {own: bold | {"linewidth": 3.0, "markersize": 7, "zorder": 1.9}}
    looks = zip(others, cycle(OTHER_COLOURS), cycle(DASHES), cycle(OTHER_MARKERS), strict=False)
    for run, colour, dash, marker in looks:
        line = {"color": colour, "linestyle": dash, "linewidth": 1.2}
        found[run] = line | {"marker": marker, "markersize": 4}
    return found


def _curves(
    axes: Axes, rows: pd.DataFrame, value: str, healed: bool, styles: dict[str, dict[str, Any]]
) -> None:
    """Every study's similarity-informed curve from its unpruned model on; hollow: unhealed."""
    rows = rows[rows["strategy"].isin(["similarity", "none"])]
    rows = rows[treatment(rows) == ("healed" if healed else "unhealed")]
    for run, style in styles.items():
        curve = rows[rows["run"] == run].sort_values("fraction")
        if curve.empty:
            continue
        axes.errorbar(
            curve["fraction"],
            curve[value],
            yerr=curve["stderr"],
            elinewidth=0.8,
            markerfacecolor=style["color"] if healed else "white",
            label=_plain(run),
            **style,
        )


def _legend(figure: Figure, panels: np.ndarray, spare: Sequence[Axes] = ()) -> None:
    """Each entry once; in two columns where the legend stands below, as titles may be long."""
    if spare:
        shared_legend(figure, panels, spare)
        return
    entries: dict[str, Any] = {}
    for axes in panels.flat:
        entries |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=2, fontsize="small"
    )


def _plain(text: str) -> str:
    """Text as it is, in lines of a panel's width; dollar signs would start a formula."""
    return fill(text, 30).replace("$", r"\$")
