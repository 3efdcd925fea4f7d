"""Which layers go, as stacks of layers: a column for each number of layers dropped."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from lib.pruning.dropped import ranges
from lib.sections.figures import grid
from lib.sections.looks import GONE, INK, LEVEL

COLUMNS = 40  # in a panel; of more, so many that are spread evenly
WIDE = 0.7  # of a stack, with 1 from one to the next


def by_strategy(sets: pd.DataFrame, n_layers: int) -> Figure:
    """A panel for each strategy. `sets`: strategy, n, dropped."""
    names = list(dict.fromkeys(sets["strategy"]))
    figure, panels = grid(len(names), 1, width=7, height=_height(n_layers))
    for axes, name in zip(panels.flat, names, strict=True):
        rows = sets[sets["strategy"] == name]
        dropped = [[int(layer) for layer in one.split()] for one in rows["dropped"]]
        _draw(axes, dict(zip(rows["n"], dropped, strict=True)), n_layers)
        axes.set_title(name, fontsize="medium")
    panels[-1, 0].set_xlabel("Number of layers dropped n")
    return figure


def blocks(optimal: pd.DataFrame, n_layers: int) -> Figure:
    """The most similar block of each size, and below it the share of resamples in which it starts
    at the same layer."""
    figure, panels = grid(2, 1, width=7, height=0.75 * _height(n_layers))
    panels[0, 0].get_gridspec().set_height_ratios([3, 1.2])
    top, below = panels.flat
    blocks = zip(optimal["n"], optimal["start"], optimal["stop"], strict=True)
    shown = _draw(top, {n: range(start, stop) for n, start, stop in blocks}, n_layers)
    rows = optimal[optimal["n"].isin(shown)]
    below.bar(rows["n"].map(shown.index), rows["support"], width=WIDE, color=LEVEL)
    below.set(ylabel="Support", ylim=(0, 1), xlim=top.get_xlim())
    below.set_xticks(top.get_xticks(), [label.get_text() for label in top.get_xticklabels()])
    below.set_xlabel("Block size n  [layers]")
    below.grid(visible=False, axis="x")
    return figure


def _height(n_layers: int) -> float:
    """Of a panel, in inches."""
    return float(np.clip(0.13 * n_layers + 0.6, 1.6, 5))


def _draw(axes: Axes, dropped: dict[int, Sequence[int]], n_layers: int) -> list[int]:
    """A stack for each number of layers dropped; returns those numbers from left to right."""
    every = sorted(dropped)
    at = np.linspace(0, len(every) - 1, min(COLUMNS, len(every))).round().astype(int)
    shown = [every[i] for i in at]
    columns(axes, {place: dropped[n] for place, n in enumerate(shown)}, n_layers, WIDE)
    axes.set_xlim(-0.6, len(shown) - 0.4)
    step = -(-len(shown) // 20)
    axes.set_xticks(range(0, len(shown), step), shown[::step])
    axes.spines[:].set_visible(False)
    return shown


def columns(
    axes: Axes, dropped: Mapping[float, Sequence[int]], n_layers: int, width: float
) -> None:
    """A stack at each place, with the layers that are dropped hollow."""
    kept, gone = [], []
    for place, layers in dropped.items():
        for some, found in ((layers, gone), (set(range(n_layers)) - {*layers}, kept)):
            for run in ranges(sorted(some)):
                found.append(Rectangle((place - width / 2, run[0] - 0.5), width, run.n))
    axes.add_collection(PatchCollection(kept, facecolor=INK, linewidth=0))
    axes.add_collection(
        PatchCollection(gone, facecolor="white", edgecolor=GONE, linestyle=(0, (2, 1.5)))
    )
    # Between layers, over the stacks: of one shape each, however many layers.
    ends = min(dropped) - width, max(dropped) + width
    axes.hlines(np.arange(n_layers + 1) - 0.5, *ends, color="white", linewidth=1.2)
    axes.set(ylim=(-0.6, n_layers - 0.4), ylabel="Layer")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(visible=False)
