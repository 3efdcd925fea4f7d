"""Distances measured on other texts than the study's own (footnote 10 of Gromov et al.).

`measured` sees to the evidence; everything else makes tables and figures of it. The study's own
validation text is the first of the texts everywhere.
"""

from html import escape
from itertools import combinations, cycle, product
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.experiments.opened import OpenStudy
from lib.sections import finding
from lib.sections.columns import BLOCK, DISTANCE
from lib.sections.figures import grid, legend_name, shared_legend
from lib.sections.looks import DASHES, INK, OTHERS
from lib.sections.section import Extra, Section, Table

SURE = 0.95  # share of resamples that choose a start which is drawn filled
Measured = dict[str, dict[str, Any]]  # by text, what `OpenStudy.distances` holds


def measured(opened: OpenStudy) -> Measured:
    """Distances on the study's own text and on each of its other texts, from evidence or measured
    now: windows of the same number and length."""
    own = {opened.study.text_name: opened.measure_distances()}
    return own | {text.name: opened.measure_distances_on(text) for text in opened.study.other_texts}


def introduce(opened: OpenStudy) -> HTML:
    """Which texts are compared; where the study names none but its own, that there are none."""
    own, others = opened.study.text_name, [text.name for text in opened.study.other_texts]
    if not others:
        return HTML(
            '<p class="mathjax_ignore">This study names no <code>other_texts</code>, so what '
            "follows shows its own text, "
            f"<em>{escape(own)}</em>, alone.</p>"
        )
    listed = ", ".join(f"<em>{escape(name)}</em>" for name in others)
    return HTML(
        f'<p class="mathjax_ignore">Own text: <em>{escape(own)}</em>. Other texts: {listed}.</p>'
    )


def text_distances(found: Measured) -> pd.DataFrame:
    """d(ℓ, ℓ+n) for every block on every text: text, n, start, distance, stderr, n_sequences."""
    parts = [
        pd.DataFrame(record["table"])[[*DISTANCE]].assign(text=text)
        for text, record in found.items()
    ]
    return pd.concat(parts, ignore_index=True)[["text", *DISTANCE]]


def text_differences(distances: pd.DataFrame) -> pd.DataFrame:
    """Distances on each other text less those on the study's own: text, n, start, difference,
    stderr (of windows of two texts, which are independent)."""
    own, keys = distances["text"].iloc[0], ["n", "start"]
    pairs = distances[distances["text"] != own].merge(
        distances[distances["text"] == own], on=keys, suffixes=("", "_own")
    )
    return pairs[["text", *keys]].assign(
        difference=pairs["distance"] - pairs["distance_own"],
        stderr=np.hypot(pairs["stderr"], pairs["stderr_own"]),
    )


def text_blocks(found: Measured) -> pd.DataFrame:
    """The block that each text would choose: text, n, start, stop, distance (on that text), support
    (share of resamples of its windows that choose the same start), regret, regret_stderr.

    regret: on the study's own text, the distance of that block less the smallest of its size, ≥ 0.
    Its standard error takes the two distances as independent. They come from the same windows, of
    which only the mean is kept: where the two rise and fall together, it is too large."""
    first = next(iter(found.values()))
    own = pd.DataFrame(first["table"]).set_index(["n", "start"])
    best = pd.DataFrame(first["optimal"]).set_index("n")["start"]
    parts = []
    for text, record in found.items():
        table = pd.DataFrame(record["optimal"]).assign(text=text)
        n, start = table["n"].to_numpy(), table["start"].to_numpy()
        least = best.loc[n].to_numpy()
        chosen, smallest = own.loc[zip(n, start, strict=True)], own.loc[zip(n, least, strict=True)]
        stderr = np.hypot(chosen["stderr"].to_numpy(), smallest["stderr"].to_numpy())
        table["regret"] = chosen["distance"].to_numpy() - smallest["distance"].to_numpy()
        table["regret_stderr"] = np.where(start == least, 0.0, stderr)
        parts.append(table)
    columns = ["text", "n", "start", "stop", "distance", "support", "regret", "regret_stderr"]
    return pd.concat(parts, ignore_index=True)[columns]


def text_pairs(distances: pd.DataFrame, blocks: pd.DataFrame) -> pd.DataFrame:
    """How alike two texts are, a row per pair, for reading.

    same ℓ*: share of block sizes at which both choose the same start; largest shift: layers between
    their choices; rank correlation (Spearman) of the distances of all starts, one per n ≤ L/2: mean
    and smallest; beyond 2 standard errors: share of all blocks whose distances differ by more than
    twice the standard error of their difference, as one in twenty would by chance."""
    starts = blocks.pivot(index="n", columns="text", values="start")
    wide = distances.pivot(index=["n", "start"], columns="text", values=["distance", "stderr"])
    ranks = wide["distance"].groupby(level="n").rank()
    small = ranks[ranks.index.get_level_values("n") <= (starts.index.max() + 1) / 2]
    rows = []
    for one, other in combinations(distances["text"].unique(), 2):
        shift = (starts[one] - starts[other]).abs()
        alike = [of_n[one].corr(of_n[other]) for _, of_n in small.groupby(level="n")]
        difference = (wide["distance", one] - wide["distance", other]).abs()
        stderr = np.hypot(wide["stderr", one], wide["stderr", other])
        rows.append(
            {
                "text": one,
                "and": other,
                "block sizes": len(starts),
                "same ℓ*": (shift == 0).mean(),
                "largest shift": shift.max(),
                "rank correlation": np.mean(alike),
                "smallest": np.min(alike),
                "beyond 2 standard errors": (difference > 2 * stderr).mean(),
            }
        )
    return pd.DataFrame(rows)


def text_regrets(found: Measured, blocks: pd.DataFrame) -> pd.DataFrame:
    """What choosing by each text would cost on the study's own, a row per text, for reading.

    support: mean over n of the share of resamples that choose the text's own ℓ*(n). The mean regret
    comes with the mean of its standard errors, since all n share their windows, and as a share of
    the mean distance of the blocks that the own text chooses."""
    best = blocks[blocks["text"] == next(iter(found))]["distance"].mean()
    rows = []
    for text, of_text in blocks.groupby("text", sort=False):
        largest = of_text.loc[of_text["regret"].idxmax()]
        mean = of_text["regret"].mean()
        rows.append(
            {
                "text": text,
                "windows": found[text]["table"]["n_sequences"][0],
                "commonest final token": f"{100 * found[text]['commonest_final_token']:.0f}%",
                "support": of_text["support"].mean(),
                "mean regret": _with_error(mean, of_text["regret_stderr"].mean()),
                "of the distance": f"{100 * mean / best:.1f}%",
                "largest regret": _with_error(largest["regret"], largest["regret_stderr"]),
                "at n": largest["n"],
            }
        )
    return pd.DataFrame(rows)


def _with_error(value: float, stderr: float) -> str:
    return f"{value:.4f} ± {stderr:.4f}"


def text_styles(names: list[str]) -> dict[str, dict]:
    """How each text is drawn, the same in every figure; the first is the study's own."""
    styles = {names[0]: {"color": INK, "marker": "o", "linestyle": "-"}}
    others = zip(names[1:], cycle(OTHERS), cycle("sD^v<>"), cycle(DASHES), strict=False)
    for name, shade, mark, dash in others:
        styles[name] = {"color": shade, "marker": mark, "linestyle": dash}
    return styles


def block_panels(blocks: pd.DataFrame) -> Figure:
    """ℓ*(n) against n, a panel per text; the study's own is a pale band in each, wide enough to be
    seen under a line that coincides. Hollow marks: fewer than SURE of the resamples agree."""
    styles = text_styles(list(blocks["text"].unique()))
    figure, panels = grid(len(styles), 1, width=7, height=2.1)
    own = blocks[blocks["text"] == next(iter(styles))]
    band = {"color": INK, "linewidth": 8, "alpha": 0.3}
    for axes, (name, style) in zip(panels.flat, styles.items(), strict=True):
        axes.plot(own["n"], own["start"], **band)
        rows = blocks[blocks["text"] == name]
        axes.plot(rows["n"], rows["start"], **style, markersize=6, label=legend_name(name))
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
            axes.axhline(0, color=INK)
        for name, style in styles.items():
            rows = table[(table["n"] == n) & (table["text"] == name)]
            if len(rows):
                at, middle, error = rows["start"], rows[value], rows["stderr"]
                axes.errorbar(
                    at, middle, error, **style, markerfacecolor="w", label=legend_name(name)
                )
        axes.set(ylabel=label, xlabel="Start layer ℓ of the block" if n == sizes[-1] else "")
        title = f"n = {n}" if value == "distance" else f"n = {n}, less the own text"
        axes.set_title(title, fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if value == "distance":
            axes.set_ylim(bottom=0)
    shared_legend(figure, panels)
    return figure


def extras(opened: OpenStudy) -> list[Extra]:
    settings = opened.study.distances
    return [
        Extra(
            f"distances-text-{i}",
            f"distances on {text.name}",
            lambda opened, text=text: opened.measure_distances_on(text),
            settings.n_sequences * settings.length,
        )
        for i, text in enumerate(opened.study.other_texts, 1)
    ]


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """How often another text would choose another block, and what that costs at most."""
    blocks = finding.rows(made, "text_blocks", "n", "start", "support", "regret")
    if blocks["text"].nunique() < 2:
        return ""
    own, *others = blocks["text"].unique()
    starts, support = (
        blocks.pivot(index="n", columns="text", values=key) for key in ("start", "support")
    )
    differ = starts[others].ne(starts[own], axis=0)
    firm = differ & (support[others] >= SURE) & (support[[own]] >= SURE).to_numpy()
    if not differ.any(axis=None):
        return f"All texts choose the same block as {own}, at all {len(differ)} sizes."
    most, sizes = differ.sum().idxmax(), len(differ)
    worst = blocks.loc[blocks["regret"].idxmax()]
    cost = finding.with_error(worst["regret"], worst["regret_stderr"], 3)
    among = f", the most of {len(others)} other texts" if len(others) > 1 else ""
    return (
        f"Chosen on {most} instead of {own}, the most similar block is another one at "
        f"{finding.of(differ[most].sum(), sizes, 'size')}, for sure at {firm[most].sum()}{among}. "
        f"On {own}, the worst choice by another text is {cost} π farther apart than the best."
    )


TEXT = {"text": "name of the text; the study's own comes first"}
SECTION = Section(
    extras=extras,
    tables=(
        Table(
            "text_distances",
            lambda opened: text_distances(measured(opened)),
            "a text and a block",
            {**TEXT, **DISTANCE},
        ),
        Table(
            "text_blocks",
            lambda opened: text_blocks(measured(opened)),
            "a text and a number of layers",
            {
                **TEXT,
                **BLOCK,
                "regret": "on the study's own text, the distance of this block less the smallest "
                "of its size",
                "regret_stderr": "its standard error",
            },
        ),
    ),
    claims=("gromov-15",),
    in_short=sentence,
)
