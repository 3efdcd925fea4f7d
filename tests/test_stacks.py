"""Stacks of layers, and the fitted steps in figures."""

import gallery
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection

from lib.sections import pages, qa_transitions, stacks
from lib.statistics import transitions


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def boxes(axes: Axes, number: int) -> list[tuple[float, float, float]]:
    """Of the kept (0) or dropped layers (1): the middle of the stack, and from where to where."""
    found = [one for one in axes.collections if isinstance(one, PatchCollection)][number]
    ends = [path.get_extents() for path in found.get_paths()]
    return [(round((e.x0 + e.x1) / 2, 6), e.y0 + 0.5, e.y1 + 0.5) for e in ends]


def test_a_stack_shows_what_goes_and_what_stays() -> None:
    sets = pd.DataFrame(
        {"strategy": ["a", "a", "b"], "n": [1, 3, 1], "dropped": ["2", "0 2 3", "4"]}
    )
    figure = stacks.by_strategy(sets, n_layers=5)
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("a", "b")
    assert boxes(first, 1) == [(0, 2, 3), (1, 0, 1), (1, 2, 4)]
    assert boxes(first, 0) == [(0, 0, 2), (0, 3, 5), (1, 1, 2), (1, 4, 5)]
    assert boxes(second, 1) == [(0, 4, 5)] and boxes(second, 0) == [(0, 0, 4)]
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["1", "3"]


def test_of_many_sizes_so_many_are_shown_that_they_can_be_told_apart() -> None:
    n = np.arange(1, 101)
    optimal = pd.DataFrame({"n": n, "start": 0, "stop": n, "support": n / 100})
    top, below = stacks.blocks(optimal, n_layers=101).axes
    assert len(boxes(top, 1)) == len(below.patches) == stacks.COLUMNS
    assert boxes(top, 1)[-1] == (stacks.COLUMNS - 1, 0, 100)
    assert below.patches[-1].get_height() == 1


def test_the_plateau_of_a_step_is_the_best_one() -> None:
    f = np.linspace(0, 1, 9)
    accuracy = transitions.step(f, 0.25, 0.9, 0.4, 0.05)
    assert transitions.plateau(f, accuracy, 0.25, 0.4, 0.05) == pytest.approx(0.9)
    assert transitions.plateau(f, accuracy + 1, 0.25, 0.4, 0.05) == 1


def test_the_fitted_step_is_drawn_where_there_is_one() -> None:
    qa, fitted = gallery.table("qa"), gallery.table("transitions")
    figure = qa_transitions.accuracy_panels(qa, fitted)
    tasks = list(dict.fromkeys(zip(qa["task"], qa["shots"], strict=True)))
    for axes, (task, shots) in zip(figure.axes, tasks, strict=False):
        lines = {line.get_label(): line for line in axes.get_lines()}
        rows = fitted[(fitted["task"] == task) & (fitted["shots"] == shots)]
        row = rows[(rows["strategy"] == "similarity") & (rows["state"] == "healed")].iloc[0]
        assert ("healed, fitted step" in lines) is bool(pd.notna(row["fraction"]))
        if pd.notna(row["fraction"]):
            assert lines["healed, critical fraction"].get_xdata()[0] == row["fraction"]
            x, y = lines["healed, fitted step"].get_data()
            points = qa[(qa["task"] == task) & (qa["shots"] == shots)]
            chance = points["chance"].iloc[0]
            half = np.interp(row["fraction"], x, y) - chance
            top = y[0] - chance
            assert 0.3 * top < half < 0.75 * top


def test_the_forest_has_an_interval_for_each_step() -> None:
    fitted = gallery.table("transitions")
    left, right = qa_transitions.transition_forest(fitted).axes
    shown = fitted[fitted["state"] != "control"].dropna(subset=["fraction"])
    for axes, column in ((left, "fraction"), (right, "width")):
        marks = [line for line in axes.get_lines() if line.get_marker() != "None"]
        assert sorted(line.get_xdata()[0] for line in marks) == sorted(shown[column])
    assert "no step to fit" in {text.get_text() for text in left.texts}


@pytest.mark.parametrize(
    ("rows", "options", "folded"),
    [(15, {}, False), (16, {}, True), (16, {"words": True}, False), (3, {"behind": True}, True)],
)
def test_long_tables_are_folded(rows: int, options: dict, folded: bool) -> None:
    html = pages.show(pd.DataFrame({"a & b": range(rows)}), **options).data
    assert html.startswith("<details") is folded
    if folded:
        assert f"<summary>Table of {rows} rows: a &amp; b</summary>" in html
