"""How runs look in figures that hold several, and their legend below the kinds of models."""

from collections.abc import Iterable, Sequence
from itertools import cycle, groupby
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.sections.figures import FRACTION, legend_name
from lib.sections.looks import DASHES, INK, OTHERS

# Numbers of colours (7), dashes and markers without a common divisor: no two studies look alike.
OTHER_MARKERS = ("s", "^", "D", "v", "P")
ENTRIES = 10  # of a legend in a panel's place
LINE = 0.22  # inches of a line of a legend


def line_styles(runs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """How each study's line is drawn, by its title, in the order in which they first appear."""
    own, *others = dict.fromkeys(runs)
    bold = {"color": INK, "linestyle": "-", "marker": "o"}
    found = {own: bold | {"linewidth": 3.0, "markersize": 7, "zorder": 1.9}}
    styles = zip(others, cycle(OTHERS), cycle(DASHES), cycle(OTHER_MARKERS), strict=False)
    for run, colour, dash, marker in styles:
        line = {"color": colour, "linestyle": dash, "linewidth": 1.2}
        found[run] = line | {"marker": marker, "markersize": 4}
    return found


def legend(
    figure: Figure, panels: np.ndarray, shown: pd.DataFrame, spare: Sequence[Axes] = ()
) -> None:
    """Each entry once: levels, then the runs of each sign below it. In a spare panel where there is
    room; else under all panels, where the figure grows by as much, in two columns, as titles may be
    long."""
    handles: dict[str, Any] = {}
    for axes in panels.flat:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    runs = shown[["run", "sign"]].drop_duplicates().itertuples(index=False)
    of_runs = {plain(run): plain(sign) for run, sign in runs}
    signs = dict.fromkeys(handles, "") | of_runs
    order = ["", *dict.fromkeys(of_runs.values())]
    labels = sorted(handles, key=lambda label: order.index(signs[label]))
    for axes in spare:
        axes.axis("off")
        panels[-2, 1].set_xlabel(FRACTION)  # nothing stands below this panel
    column = _below_signs(labels, signs)
    if spare and _height(column) <= ENTRIES:
        columns = [column]
        place, how = spare[0].legend, {"loc": "center left", "fontsize": "medium"}
    else:
        half = -(-len(labels) // 2)
        columns = [_below_signs(part, signs) for part in (labels[:half], labels[half:])]
        figure.set_figheight(figure.get_figheight() + LINE * max(map(_height, columns)))
        place, how = figure.legend, {"loc": "outside lower center", "fontsize": "small"}
    rows = max(map(len, columns))
    filled = [column + [("", True)] * (rows - len(column)) for column in columns]
    entries = [one for column in filled for one in column]
    nothing = Line2D([], [], linestyle="none")
    drawn = place(
        [nothing if heading else handles[label] for label, heading in entries],
        [label for label, _ in entries],
        ncols=len(columns),
        **how,
    )
    for text, (_, heading) in zip(drawn.get_texts(), entries, strict=True):
        text.set_weight("bold" if heading else "normal")


def _below_signs(labels: list[str], signs: dict[str, str]) -> list[tuple[str, bool]]:
    """A column of a legend, with signs as headings: each label, and whether it is one."""
    found: list[tuple[str, bool]] = []
    for sign, group in groupby(labels, signs.__getitem__):
        found += [(sign, True)] * bool(sign) + [(label, False) for label in group]
    return found


def _height(column: list[tuple[str, bool]]) -> int:
    """In lines."""
    return sum(label.count("\n") + 1 for label, _ in column)


def plain(text: str) -> str:
    """Text as it is, in lines of a panel's width."""
    return legend_name(fill(text, 30))
