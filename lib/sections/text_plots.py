"""The figures of distances on several texts. Tables name the study's own text first."""

from itertools import cycle, product

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.sections.figures import COLOURS, DASHES, SHADES, grid, shared_legend

SURE = 0.95  # share of resamples that choose a start which is drawn filled


def text_styles(names: list[str]) -> dict[str, dict]:
    """How each text is drawn, the same in every figure; the first is the study's own."""
    styles = {names[0]: {"color": COLOURS["similarity"], "marker": "o", "linestyle": "-"}}
    others = zip(names[1:], cycle(SHADES[2:]), cycle("sD^v<>"), cycle(DASHES), strict=False)
    for name, shade, mark, dash in others:
        styles[name] = {"color": shade, "marker": mark, "linestyle": dash}
    return styles


def block_panels(blocks: pd.DataFrame) -> Figure:
    """ℓ*(n) against n, a panel per text; the study's own is a pale band in each, wide enough to be
    seen under a line that coincides. Hollow marks: fewer than SURE of the resamples agree."""
    styles = text_styles(list(blocks["text"].unique()))
    figure, panels = grid(len(styles), 1, width=7, height=2.1)
    own = blocks[blocks["text"] == next(iter(styles))]
    band = {"color": COLOURS["similarity"], "linewidth": 8, "alpha": 0.3}
    for axes, (name, style) in zip(panels.flat, styles.items(), strict=True):
        axes.plot(own["n"], own["start"], **band)
        rows = blocks[blocks["text"] == name]
        axes.plot(rows["n"], rows["start"], **style, markersize=6, label=name)
        unsure = rows[rows["support"] < SURE]
        hollow = style | {"linestyle": "", "markerfacecolor": "w"}
        axes.plot(unsure["n"], unsure["start"], **hollow, markersize=6)
        axes.set(ylabel="ℓ*(n)  [layer]", ylim=(-0.8, blocks["start"].max() + 0.8))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
    panels[-1, 0].set_xlabel("Block size n  [layers]")
    shared_legend(figure, panels)
    return figure


def distance_lines(distances: pd.DataFrame, differences: pd.DataFrame) -> Figure:
    """d(ℓ, ℓ+n) on every text for single layers and for blocks of a quarter and half of the layers,
    and, beside it, the other texts' less that on the study's own; with one standard error."""
    n_layers = int(distances["n"].max()) + 1
    sizes = sorted({1, max(1, n_layers // 4), max(1, n_layers // 2)})
    sides = [(distances, "distance", "d(ℓ, ℓ+n)  [units of π]")]
    if len(differences):
        sides.append((differences, "difference", "Difference  [units of π]"))
    figure, panels = grid(len(sizes), len(sides), width=7 if len(sides) == 1 else 4.6, height=2.7)
    styles = text_styles(list(distances["text"].unique()))
    for (row, n), (column, (table, value, label)) in product(enumerate(sizes), enumerate(sides)):
        axes = panels[row, column]
        if value == "difference":
            axes.axhline(0, color=COLOURS["similarity"])
        for name, style in styles.items():
            rows = table[(table["n"] == n) & (table["text"] == name)]
            if len(rows):
                at, middle, error = rows["start"], rows[value], rows["stderr"]
                axes.errorbar(at, middle, error, **style, markerfacecolor="w", label=name)
        axes.set(ylabel=label, xlabel="Start layer ℓ of the block" if n == sizes[-1] else "")
        title = f"n = {n}" if value == "distance" else f"n = {n}, less the own text"
        axes.set_title(title, fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if value == "distance":
            axes.set_ylim(bottom=0)
    shared_legend(figure, panels)
    return figure
