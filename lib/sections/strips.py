"""Figures about sets of layers: which ones go, how much two sets share, and what that costs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.sections import looks
from lib.sections.figures import grid, log_axis, nothing, shared_legend
from lib.sections.looks import GREY, LEVEL

ROW = 0.34  # inches of a strategy


def strips(choices: pd.DataFrame, n_layers: int, sizes: Sequence[int]) -> Figure:
    """The layers that each strategy drops, a strip each, and a panel for each number of layers. Of
    a strategy that draws by chance: the share of its draws that drop a layer."""
    if choices.empty:
        return nothing("This study compares no further strategies.")
    names = list(dict.fromkeys(choices["strategy"]))
    figure, panels = grid(len(sizes), 1, width=7, height=ROW * len(names) + 0.9)
    for n, axes in zip(sizes, panels.flat, strict=True):
        rows = choices[choices["n"] == n]
        there = [name for name in names if name in {*rows["strategy"]}]
        share = np.array([_dropped(rows[rows["strategy"] == one], n_layers) for one in there])
        axes.pcolormesh(
            share, cmap=looks.SHARES, vmin=0, vmax=1,
            edgecolor="white", linewidth=1.5,
        )  # fmt: skip
        draws = rows.groupby("strategy")["draw"].count()
        labels = [f"{one} ({draws[one]} draws)" if draws[one] else one for one in there]
        axes.set_yticks(np.arange(len(there)) + 0.5, labels)
        step = 1 if n_layers <= 16 else 2 if n_layers <= 32 else 8
        axes.set_xticks(np.arange(0, n_layers, step) + 0.5, map(str, range(0, n_layers, step)))
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.set_title(f"{n} of {n_layers} layers dropped ({n / n_layers:.0%})", fontsize="medium")
    panels.flat[-1].set_xlabel("Layer, counted from 0")
    return figure


def _dropped(rows: pd.DataFrame, n_layers: int) -> np.ndarray:
    """[layers] The share of the rows that drop each layer."""
    found = np.zeros(n_layers)
    for dropped in rows["dropped"]:
        found[[int(layer) for layer in str(dropped).split()]] += 1 / len(rows)
    return found


def shared(agreement: pd.DataFrame) -> Figure:
    """Jaccard index of the sets that two strategies drop, a panel for each number of layers; on the
    diagonal that of one strategy on several samples of the calibration text."""
    if agreement.empty:
        return nothing("This study compares no further strategies.")
    sizes = sorted({*agreement["n"]})
    names = list(dict.fromkeys([*agreement["strategy"], *agreement["other"]]))
    figure, panels = grid(len(sizes), 1, width=7, height=0.44 * len(names) + 1.6)
    for n, axes in zip(sizes, panels.flat, strict=True):
        rows = agreement[agreement["n"] == n]
        square = pd.DataFrame(np.nan, index=names, columns=names)
        for row in rows.itertuples():
            square.loc[row.other, row.strategy] = row.jaccard
        sns.heatmap(square, ax=axes, vmin=0, vmax=1, cmap=looks.SHARES, cbar=False, linewidths=1)
        for (row, column), value in np.ndenumerate(square):
            shade = "white" if value > looks.TURNS else "0.15"
            words = "" if np.isnan(value) else f"{value:.2f}"
            axes.text(
                column + 0.5, row + 0.5, words, color=shade, ha="center", va="center", fontsize=9.5
            )
        axes.grid(visible=False)
        axes.set_title(f"{n} layers dropped", fontsize="medium")
        axes.tick_params(axis="x", rotation=45)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
    return figure


def forest(models: pd.DataFrame, sizes: Sequence[int]) -> Figure:
    """Accuracy and normalised loss of each strategy's models, a row of panels for each number of
    layers: hollow unhealed, filled healed, with one standard error. Shaded: from the fifth to the
    95th of 100 draws by chance, unhealed; dotted: their mean."""
    if models.empty:
        return nothing("This study compares no further strategies.")
    named = models[models["draw"].isna() & (models["strategy"] != "none")]
    names = list(dict.fromkeys(named["strategy"]))
    figure, panels = grid(len(sizes), 2, width=4.4, height=ROW * len(names) + 0.9)
    whole = models[(models["strategy"] == "none") & (models["state"] == "unhealed")].iloc[0]
    for n, row in zip(sizes, panels, strict=True):
        rows = models[models["n"] == n]
        for axes, value, error, level in (
            (row[0], "accuracy", "stderr", whole["chance"]),
            (row[1], "normalized_loss", "loss_stderr", 1.0),
        ):
            _points(axes, rows, names, value, error)
            draws = rows.loc[rows["draw"].notna() & (rows["state"] == "unhealed"), value]
            if len(draws):
                low, high = np.quantile(draws, [0.05, 0.95])
                band = {"facecolor": "0.88", "edgecolor": LEVEL, "linewidth": 0.8, "zorder": 0}
                axes.axvspan(low, high, **band, label=f"{len(draws)} random draws")
                axes.axvline(draws.mean(), color=GREY, linestyle=":", label="their mean")
            axes.axvline(whole[value], color=LEVEL, linewidth=1, label="unpruned")
            axes.axvline(level, color=GREY, linestyle="-.", linewidth=1, label="chance; ln V")
            axes.set_title(f"{n} layers dropped", fontsize="medium")
        row[1].tick_params(labelleft=False)
        row[1].set_xscale("log")
        log_axis(row[1].xaxis)
    panels[-1, 0].set_xlabel("Accuracy, mean over tasks")
    panels[-1, 1].set_xlabel("Loss / ln V (logarithmic)")
    shared_legend(figure, panels)
    return figure


def _points(axes: Axes, rows: pd.DataFrame, names: list[str], value: str, error: str) -> None:
    """A line for each strategy, top to bottom; each recipe of healing has a colour of its own."""
    recipes = [one for one in dict.fromkeys(rows["healing"]) if one != "none"]
    styles = {"none": {"color": GREY, "marker": "o"}} | looks.series(recipes)
    for recipe, look in styles.items():
        of = rows[(rows["healing"] == recipe) & (rows["state"] != "control") & rows["draw"].isna()]
        of = of[of["strategy"].isin(names)]
        axes.errorbar(
            of[value],
            [names.index(name) for name in of["strategy"]],
            xerr=of[error],
            linestyle="none",
            **look,
            markerfacecolor="white" if recipe == "none" else look["color"],
            label="unhealed" if recipe == "none" else f"healed, {recipe}",
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def ranks(scores: pd.DataFrame) -> Figure:
    """In which order each strategy would drop single layers, as the mean over the samples of the
    calibration text."""
    if scores.empty:
        return nothing("No strategy of this study scores single layers.")
    order = scores.assign(rank=scores.groupby(["strategy", "sample"])["score"].rank())
    square = order.groupby(["strategy", "layer"], sort=False)["rank"].mean().unstack()
    figure, panels = grid(1, 1, width=7, height=ROW * len(square) + 1.3)
    axes = panels[0, 0]
    sns.heatmap(
        square, ax=axes, cmap=looks.SHARES.reversed(), linewidths=1,
        cbar_kws={"label": "Place (1: goes first)"},
    )  # fmt: skip
    axes.collections[0].colorbar.solids.set_rasterized(False)  # its colours change in the dark
    axes.grid(visible=False)
    axes.set(xlabel="Layer, counted from 0", ylabel="")
    return figure


def among_draws(models: pd.DataFrame) -> pd.DataFrame:
    """Of the draws by chance, the share that an unhealed strategy leaves behind, in accuracy and in
    loss; ties count half."""
    rows = []
    unhealed = models[models["state"] == "unhealed"]
    for n, of in unhealed.groupby("n"):
        draws = of[of["draw"].notna()]
        for one in of[of["draw"].isna() & (of["strategy"] != "none")].itertuples():
            if len(draws):
                rows.append(
                    {"n": n, "strategy": one.strategy, "draws": len(draws)}
                    | {"beaten in accuracy": _behind(draws["accuracy"], one.accuracy)}
                    | {"beaten in loss": _behind(-draws["normalized_loss"], -one.normalized_loss)}
                )
    return pd.DataFrame(rows)


def _behind(draws: pd.Series, value: float) -> float:
    return float((draws < value).mean() + (draws == value).mean() / 2)


def sample_panels(sizes: pd.DataFrame, sets: pd.DataFrame) -> Figure:
    """Against the number of windows: how alike the sets of two draws are (left), and how accurate
    the models are that lack them, a small mark for each draw (right)."""
    if sizes.empty:
        return nothing("This study scores layers on no samples of its calibration text.")
    figure, axes_of = grid(1, 2, width=4.4, height=3.0)
    left, right = axes_of[0]
    named = sizes.groupby("strategy", sort=False)
    styles = looks.by_strategy(sizes["strategy"].unique())
    for name, of in named:
        look = styles[name] | {"label": name, "capsize": 3}
        left.errorbar(of["windows"], of["jaccard"], yerr=of["jaccard_stderr"], **look)
        right.errorbar(of["windows"], of["accuracy"], yerr=of["draw_stderr"], **look)
        drawn = sets[sets["strategy"] == name]
        right.scatter(drawn["windows"], drawn["accuracy"], color=look["color"], s=6, alpha=0.4)
    right.axhline(sets["chance"].iloc[0], color=GREY, linestyle="-.", linewidth=1, label="chance")
    left.set(ylabel="Jaccard index of two draws", ylim=(0, 1.05))
    right.set_ylabel("Accuracy, mean over tasks")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="Windows of calibration text")
        log_axis(axes.xaxis)
    shared_legend(figure, axes_of)
    return figure
