"""Angular distances across blocks of layers, of the model and of its untrained twin (Fig. 4 of
Gromov et al.)."""

import math
from collections.abc import Iterable

import matplotlib as mpl
import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.claims.rules.gromov_distances import shallow_over_deep
from lib.experiments.opened import OpenStudy
from lib.sections import finding, looks
from lib.sections.columns import BLOCK, DISTANCE, DROPPED, MODEL
from lib.sections.figures import grid
from lib.sections.looks import GREY, INK, MAP, ON_MAP, ORDER, OTHERS
from lib.sections.pages import key_numbers
from lib.sections.section import Extra, Section, Table

CELLS = 300  # of a heat map; one of more is drawn as pixels, and not each cell as a shape
RESCALED = "Distance, rescaled in each row"


def angular_distances(opened: OpenStudy) -> pd.DataFrame:
    """d(ℓ, ℓ+n) for every block: n, start, distance, stderr, n_sequences."""
    return pd.DataFrame(opened.measure_distances()["table"])[list(DISTANCE)]


def distances_after_norm(opened: OpenStudy) -> pd.DataFrame:
    """The same columns for blocks that end with the last layer, its output taken after the final
    norm."""
    return pd.DataFrame(opened.measure_distances()["after_norm"])[list(DISTANCE)]


def optimal_blocks(opened: OpenStudy) -> pd.DataFrame:
    """ℓ*(n): n, start, stop, distance, support."""
    return pd.DataFrame(opened.measure_distances()["optimal"])[list(BLOCK)]


def chosen_layers(opened: OpenStudy) -> pd.DataFrame:
    """What each strategy of the study's own drops: strategy, n, dropped."""
    return pd.DataFrame(
        {"strategy": strategy, "n": n, "dropped": " ".join(map(str, opened.chosen(strategy, n)))}
        for strategy in opened.strategies
        for n in range(1, opened.strategy(strategy).most(opened.n_layers) + 1)
    )


def untrained_distances(opened: OpenStudy) -> pd.DataFrame | None:
    """The distances of the untrained twin; None where the study does without one."""
    if not opened.study.controls.untrained:
        return None
    return pd.DataFrame(opened.measure_untrained_distances()["table"])[list(DISTANCE)]


def how_sure(opened: OpenStudy, distances: pd.DataFrame) -> HTML:
    """How many windows the distances are means over, and how far they can be trusted."""
    final = opened.measure_distances()["commonest_final_token"]
    return key_numbers(
        {
            "windows": f"{distances['n_sequences'].iloc[0]:,}",
            "largest standard error": f"{distances['stderr'].max():.4f}",
            "of the windows end in the commonest final token": f"{100 * final:.0f}%",
        }
    )


def _with_twin(
    distances: pd.DataFrame, untrained: pd.DataFrame | None
) -> list[tuple[str, pd.DataFrame]]:
    """What panels are about, by their titles; one alone needs none."""
    if untrained is None:
        return [("", distances)]
    return [("the model", distances), ("its untrained twin", untrained)]


def distance_curves(
    distances: pd.DataFrame, optimal: pd.DataFrame, untrained: pd.DataFrame | None = None
) -> Figure:
    """Fig. 1(c): distance against start layer, one curve per n, with ℓ*(n) marked; below it the
    untrained twin's."""
    tables = _with_twin(distances, untrained)
    figure, panels = grid(len(tables), 1, width=7, height=4.4 if len(tables) == 1 else 3.7)
    most = int(distances["n"].max())
    scale = BoundaryNorm(np.arange(0.5, most + 1), looks.STEPS)  # whole numbers
    for axes, (title, table) in zip(panels.flat, tables, strict=True):
        for n, curve in table.groupby("n"):
            axes.plot(curve["start"], curve["distance"], color=ORDER(scale(n)), linewidth=1.3)
        axes.set(ylabel="Angular distance\nd(ℓ, ℓ+n)  [units of π]", ylim=(0, None))
        axes.set_title(title, fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0, 0].plot(
        optimal["start"], optimal["distance"], "k.", markersize=6, label="ℓ*(n), the most similar"
    )
    panels[0, 0].legend(loc="upper right")
    panels[-1, 0].set_xlabel("Start layer ℓ of the block")
    mappable = mpl.cm.ScalarMappable(scale, ORDER)
    bar = figure.colorbar(mappable, ax=list(panels.flat), label="Block size n  [layers]")
    bar.set_ticks(range(1, most + 1, max(1, most // 8)))
    bar.ax.minorticks_off()
    bar.solids.set_rasterized(False)  # its colours change in the dark
    return figure


def distance_map(
    distances: pd.DataFrame, optimal: pd.DataFrame, untrained: pd.DataFrame | None = None
) -> Figure:
    """Fig. 4: one row per n, each shifted and rescaled to [0, 1], with ℓ*(n) marked; below it the
    untrained twin's."""
    tables = _with_twin(distances, untrained)
    figure, panels = grid(len(tables), 1, width=7, height=4.6)
    for axes, (title, table) in zip(panels.flat, tables, strict=True):
        heat_map(axes, table)
        distance_bar(figure, [axes])
        axes.set(xlabel="", ylabel="Block size n  [layers]")
        axes.set_title(title, fontsize="medium")
    mark(panels[0, 0], optimal)
    panels[0, 0].legend(loc="upper right")
    panels[-1, 0].set_xlabel("Start layer ℓ of the block")
    return figure


def last_layer(distances: pd.DataFrame, after_norm: pd.DataFrame) -> Figure:
    """Claim 7 both ways: the distance across the last n layers, with the last layer's output before
    and after the final norm, and across the n layers just before the last one."""
    last = int(distances["n"].max()) + 1
    stop = distances["start"] + distances["n"]
    own = {"marker": "o", "color": INK}
    lines = [
        ("without the last layer", distances[stop == last - 1], {"marker": "s", "color": GREY}),
        ("with it, before the final norm", distances[stop == last], own),
        # Dashed and hollow: the two often coincide.
        (
            "with it, after the final norm",
            after_norm,
            {"marker": "o", "color": OTHERS[1], "linestyle": "--", "markerfacecolor": "w"},
        ),
    ]
    figure, panels = grid(1, 1, width=7, height=3.6)
    axes = panels[0, 0]
    for label, rows, style in lines:
        if rows.empty:  # after the norm, where the decoder projects to another width
            continue
        axes.errorbar(rows["n"], rows["distance"], yerr=rows["stderr"], label=label, **style)
    axes.set(xlabel="Block size n  [layers]", ylabel="Angular distance  [units of π]")
    axes.set_ylim(0, None)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(title="The n deepest layers")
    return figure


def heat_map(axes: Axes, distances: pd.DataFrame, labels: int = 16) -> None:
    """Fig. 4 of one model, drawn into given axes: a row per n, shifted and rescaled to [0, 1];
    about `labels` numbers on each axis."""
    wide = distances.pivot(index="n", columns="start", values="distance")
    low, high = wide.min(axis=1), wide.max(axis=1)
    rescaled = wide.sub(low, axis=0).div((high - low).replace(0, 1), axis=0)
    pixels = len(distances) > CELLS
    axes.pcolormesh(rescaled, cmap=MAP, norm=Normalize(0, 1), rasterized=pixels)
    every = max(1, len(wide) // labels)
    for axis, values in ((axes.xaxis, wide.columns[::every]), (axes.yaxis, wide.index[::every])):
        axis.set_ticks(values - values[0] + 0.5, labels=values)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def distance_bar(figure: Figure, panels: Iterable[Axes], **options: object) -> None:
    """What the colours of heat maps say. `options` go to matplotlib's colorbar."""
    shades = mpl.cm.ScalarMappable(Normalize(0, 1), MAP)
    bar = figure.colorbar(shades, ax=list(panels), label=RESCALED, **options)
    bar.outline.set_visible(False)


def mark(axes: Axes, optimal: pd.DataFrame, size: float = 6) -> None:
    """A cross on ℓ*(n) in each row of a heat map."""
    look = {"color": ON_MAP, "marker": "x", "linestyle": "none", "markersize": size}
    axes.plot(optimal["start"] + 0.5, optimal["n"] - 0.5, **look, label="ℓ*(n)")


def extras(opened: OpenStudy) -> list[Extra]:
    settings = opened.study.distances
    tokens = settings.n_sequences * settings.length
    found = [Extra("distances", "distances", lambda opened: opened.measure_distances(), tokens)]
    if opened.study.controls.untrained:
        what = "distances of the untrained twin"
        found.append(
            Extra(
                "distances-untrained",
                what,
                lambda opened: opened.measure_untrained_distances(),
                tokens,
            )
        )
    return found


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """Whether deep blocks are more alike than shallow ones, and which block is most alike."""
    table, twin = (
        finding.rows(made, name, "distance", "stderr")
        for name in ("angular_distances", "untrained_distances")
    )
    optimal = made["optimal_blocks"]
    n = max(1, (table["n"].max() + 1) // 4) if len(table) else 0
    if n not in set(optimal["n"]):
        return ""
    start, stop = optimal.set_index("n").loc[n, ["start", "stop"]].astype(int)
    block = f"of layers {start} to {stop - 1}" if n > 1 else f"of layer {start}"
    (ratio, error), (other, its) = map(_contrast, (table, twin))
    found = f"The most similar block of {finding.counted(n, 'layer')} is that {block}."
    if not math.isfinite(ratio):
        return found
    more = "more" if ratio > 1 else "less"
    clear = finding.sure(ratio - 1, error)
    head = f"are {more} alike than shallow ones" if clear else "and shallow ones are about as alike"
    there = "in the untrained twin"
    if math.isfinite(other) and clear and ratio > 1:
        so = "and more" if ratio - other > finding.SURE * math.hypot(error, its) else "but no more"
        head, there = f"{head}, {so} so than {there}", "there"
    beside = f", {there} {finding.with_error(other, its, 2)}" if math.isfinite(other) else ""
    return (
        f"Deep layers {head}: shallow blocks turn the stream {finding.with_error(ratio, error, 2)} "
        f"times as far as deep ones{beside} ({table['n_sequences'].iloc[0]} windows). {found}"
    )


def _contrast(table: pd.DataFrame) -> tuple[float, float]:
    """How many times as far shallow blocks turn the stream as deep ones, with its error."""
    ratio, relative = shallow_over_deep(table) if len(table) else (math.nan, math.nan)
    return ratio, ratio * relative


SECTION = Section(
    extras=extras,
    tables=(
        Table("angular_distances", angular_distances, "a block", DISTANCE),
        Table(
            "distances_after_norm",
            distances_after_norm,
            "a block that ends with the last layer, whose output is taken after the final norm",
            DISTANCE,
        ),
        Table("optimal_blocks", optimal_blocks, "a number of layers", BLOCK),
        Table(
            "chosen_layers",
            chosen_layers,
            "a strategy and a number of layers",
            {
                "strategy": "how the layers are chosen",
                "n": DROPPED["n"],
                "dropped": MODEL["dropped"],
            },
        ),
        Table(
            "untrained_distances",
            untrained_distances,
            "a block of the untrained twin",
            DISTANCE,
        ),
    ),
    claims=("gromov-6", "gromov-7"),
    in_short=sentence,
)
