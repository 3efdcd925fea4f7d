"""What the figures of several sections share: style, panels, curves and levels. Figures take tidy
tables and return matplotlib figures; no number is made here.

Colours and marks are those of `looks`. Bars are one standard error.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import cycle

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from lib import labels
from lib.sections import looks
from lib.sections.looks import DASHES, GREY, LEVEL, LINES
from lib.sections.tables import strategies

FRACTION = "Fraction of layers dropped (n / L)"
# Text stays text, to be found and read aloud: in the first of these that the reader has. The second
# is as wide as the first, with which the figures are laid out; most others are narrower.
FONTS = ["DejaVu Sans", "Verdana"]
Levels = dict[tuple, tuple[float, float]]  # (metric, task, shots) → the unpruned model's and chance


def style() -> None:
    """House style, once per notebook: vector output, text at a size that survives a phone."""
    sns.set_theme(style="whitegrid", palette=looks.OTHERS, font_scale=1.05)
    mpl.rcParams.update(
        {
            "svg.hashsalt": "layers",
            "svg.fonttype": "none",
            "font.sans-serif": FONTS,
            "text.parse_math": False,  # names of a study may hold dollar signs
            "figure.constrained_layout.use": True,
            "axes.edgecolor": "0.6",
            "grid.color": "0.9",
            "legend.frameon": False,
            "lines.markersize": 4.5,
        }
    )
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg")


def legend_name(name: str) -> str:
    """A name for a legend, which would leave out those that begin with an underscore."""
    return f"\N{THIN SPACE}{name}" if name.startswith("_") else name


def nothing(why: str) -> Figure:
    """In a figure's place where there is nothing to draw."""
    figure, panels = grid(1, 1, width=7, height=0.8)
    panels[0, 0].axis("off")
    panels[0, 0].text(0.5, 0.5, why, ha="center", va="center")
    return figure


def grid(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    figure, panels = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False
    )
    return figure, panels


def panel_grid(count: int, height: float) -> tuple[Figure, np.ndarray, list[Axes]]:
    """So many panels, two in a row; also those that are left over."""
    columns = min(2, count)
    width = 4.2 if columns == 2 else 7
    figure, panels = grid(-(-count // columns), columns, width, height)
    return figure, panels, list(panels.flat[count:])


def evaluation_panels(
    qa: pd.DataFrame, loss: pd.DataFrame, draw: Callable[[Axes, str, tuple | None], None]
) -> Figure:
    """A panel per task for accuracy, and one for the loss. draw(axes, column, task and shots, None
    for the loss) puts curves into them, under the levels of the unpruned model and of chance."""
    tasks = by_task(qa)
    figure, panels, spare = panel_grid(len(tasks) + 1, height=3.1)
    for axes, (task, rows) in zip(panels.flat, tasks.items(), strict=False):
        draw(axes, "accuracy", task)
        accuracy_levels(axes, rows)
        axes.set_title(labels.title(*task), fontsize="medium")
    axes = panels.flat[len(tasks)]
    draw(axes, "normalized_loss", None)
    loss_levels(axes, loss)
    axes.set_title(f"{loss['corpus'].iloc[0]} loss", fontsize="medium")
    shared_legend(figure, panels, spare)
    return figure


def by_task(table: pd.DataFrame) -> dict[tuple[str, int], pd.DataFrame]:
    """The rows of each (task, shots), in the order of the table."""
    return dict(list(table.groupby(["task", "shots"], sort=False)))


def reference_styles(references: pd.DataFrame) -> list[tuple[str, dict]]:
    """Each reference run's name and how its line is drawn, the same in every figure."""
    names = list(dict.fromkeys(references["run"]))
    return [
        (name, {"color": shade, "linestyle": dash, "linewidth": 1.1, "label": f"reference: {name}"})
        for name, shade, dash in zip(names, cycle(looks.OTHERS), cycle(DASHES), strict=False)
    ]


def normalised(loss: pd.DataFrame) -> pd.DataFrame:
    """The loss table with its standard error in units of ln V too."""
    return loss.assign(stderr=loss["stderr"] * loss["normalized_loss"] / loss["loss"])


def curves(
    axes: Axes,
    rows: pd.DataFrame,
    value: str,
    strategy: str | None = None,
    states: Iterable[str] = tuple(LINES),
    label: str | None = None,
    joined: bool = True,
) -> None:
    """A strategy's curves (None: those of the main one), each from the unpruned model in the same
    state on. label: in place of the state; joined: with lines from point to point."""
    strategy = strategy or strategies(rows)[0]
    look = looks.by_strategy(strategies(rows))[strategy]
    rows = rows[rows["strategy"].isin([strategy, "none"])]
    for state in states:
        curve = rows[rows["state"] == state].sort_values("fraction")
        if curve.empty:
            continue
        control = state == "control"
        words = f"unhealed, {curve['weights'].iloc[0]}" if control else state
        axes.errorbar(
            curve["fraction"],
            curve[value],
            yerr=curve["stderr"],
            **look | ({"marker": "x"} if control else {}),
            linestyle=LINES[state] if joined else "none",
            markerfacecolor=look["color"] if state == "healed" else "white",
            label=label or words,
        )


def shaded_lines(axes: Axes, rows: pd.DataFrame, by: str, value: str, label: str) -> None:
    """One line per value of a column, each with a shade, mark and dash of its own."""
    found = rows.groupby(by, sort=True)
    styles = looks.series(sorted(rows[by].unique())).values()
    dashes = cycle(["-", *DASHES])
    for (name, curve), look, dash in zip(found, styles, dashes, strict=False):
        curve = curve.sort_values("fraction")
        axes.errorbar(
            curve["fraction"],
            curve[value],
            yerr=curve["stderr"],
            **look,
            linestyle=dash,
            markerfacecolor="white",
            label=label.format(name),
        )


def accuracy_levels(axes: Axes, rows: pd.DataFrame) -> None:
    base = _unpruned(rows)
    axes.axhline(base["accuracy"], color=LEVEL, linewidth=1, label="unpruned")
    if pd.isna(base["guess"]):
        chance_unknown(axes)
    else:
        constant = {"linestyle": (0, (1, 3)), "linewidth": 1.4, "label": "constant answer"}
        axes.axhline(base["guess"], color=GREY, linestyle="-.", linewidth=1, label="guessing")
        axes.axhline(base["constant"], color=GREY, **constant)
    axes.set(ylabel="Accuracy", ylim=(0, 1.03))
    fraction_axis(axes)


def chance_unknown(axes: Axes) -> None:
    """In place of the line that a task whose chance is not known cannot have."""
    axes.text(0.03, 0.03, "chance is not known", transform=axes.transAxes, fontsize="small")


def loss_levels(axes: Axes, loss: pd.DataFrame) -> None:
    axes.axhline(_unpruned(loss)["normalized_loss"], color=LEVEL, linewidth=1, label="unpruned")
    axes.axhline(1, color=GREY, linestyle=(0, (5, 2, 1, 2, 1, 2)), linewidth=1, label="ln V")
    axes.set(ylabel="Loss / ln V")
    axes.set_ylim(bottom=0)
    fraction_axis(axes)


def _unpruned(rows: pd.DataFrame) -> pd.Series:
    return rows[(rows["strategy"] == "none") & (rows["state"] == "unhealed")].iloc[0]


def of_metric(table: pd.DataFrame, key: tuple) -> pd.DataFrame:
    """The rows of a table of metrics for one of `Levels`."""
    metric, task, shots = key
    rows = table[(table["metric"] == metric) & (table["task"] == task)]
    return rows[rows["shots"] == shots] if shots is not None else rows


def metric_levels(axes: Axes, key: tuple, level: tuple[float, float], zoom: bool = False) -> None:
    """Title, unit, and the levels of the unpruned model and of chance. zoom: a loss not from 0."""
    metric, task, shots = key
    axes.axhline(level[0], color=LEVEL, linewidth=1, label="unpruned, unhealed")
    if metric == "accuracy":
        if pd.isna(level[1]):
            chance_unknown(axes)
        else:
            axes.axhline(level[1], color=GREY, linestyle="-.", linewidth=1, label="chance")
        axes.set(ylabel="Accuracy", ylim=(0, 1.03))
        axes.set_title(labels.title(task, shots), fontsize="medium")
        return
    axes.set(ylabel="Loss / ln V")
    if not zoom:
        axes.set_ylim(0, None)
    axes.set_title(f"{task} loss", fontsize="medium")


def fraction_axis(axes: Axes) -> None:
    """Fractions in percent; named once per column, at the bottom."""
    axes.set(xlim=(-0.02, 1.0))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    if axes.get_subplotspec().is_last_row() or axes.get_gridspec().nrows == 1:
        axes.set_xlabel(FRACTION)


def log_axis(axis: Axis) -> None:
    """Logarithmic, with plain numbers at 1, 2 and 5 of each power of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def shared_legend(figure: Figure, panels: np.ndarray, spare: Sequence[Axes] = ()) -> None:
    """One legend, each entry once: in a spare panel or below all, so that no curve is covered."""
    entries: dict[str, object] = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if spare:
        spare[0].axis("off")
        spare[0].legend(entries.values(), entries.keys(), loc="center left", fontsize="medium")
        panels[-2, 1].set_xlabel(FRACTION)  # nothing stands below this panel
        return
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=2 if panels.shape[1] == 1 else 4,
        fontsize="small",
    )
