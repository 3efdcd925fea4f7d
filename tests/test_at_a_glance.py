"""The first screen: its sentence follows from the tables, and its picture draws what they hold."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection

from lib import paths
from lib.claims.rules.reading import read
from lib.sections import at_a_glance

ALMANAC = paths.ROOT / "published" / "almanac" / "tables"
OPENED = SimpleNamespace(
    strategies=["similarity", "simple"], n_layers=16, study=SimpleNamespace(title="A <b>model")
)


@pytest.fixture
def qa() -> pd.DataFrame:
    return read(ALMANAC / "qa.csv")


@pytest.fixture
def loss() -> pd.DataFrame:
    return read(ALMANAC / "loss.csv")


def said(qa: pd.DataFrame) -> str:
    return re.sub(r"</?(em|strong|p)[^>]*>", "", at_a_glance.finding(OPENED, qa).data)


def at(qa: pd.DataFrame, task: str, state: str, n: int) -> pd.Series:
    rows = qa[(qa["task"] == task) & (qa["state"] == state) & (qa["n"] == n) & (qa["shots"] == 0)]
    return rows[rows["strategy"].isin(["similarity", "none"])].iloc[0]


def test_the_sentence_says_what_the_table_says(qa):
    text = said(qa)
    assert text.startswith("With 4 of its 16 layers cut out, healed briefly, A &lt;b&gt;model ")
    for task, words in (("almanac_reading", "reading a passage"), ("almanac_sums", "written sums")):
        whole, left = at(qa, task, "unhealed", 0), at(qa, task, "healed", 4)
        numbers = (
            f"{100 * left['accuracy']:.0f}\u00a0±\u00a0{100 * left['stderr']:.0f}% right, "
            f"{100 * whole['accuracy']:.0f}% before; {left['n_questions']}\u00a0questions"
        )
        assert f"{words} ({numbers})" in text
    assert "two facts joined" not in text  # the unpruned model cannot do it


@pytest.mark.parametrize(
    ("left", "how"),
    [
        (1.0, "is still about as good at"),
        (0.96, "is still about as good at"),
        (0.75, "has got worse at"),
        (0.52, "has lost"),
    ],
)
def test_how_well_it_still_does_follows_from_the_numbers(qa, left, how):
    changed = qa.copy()
    changed.loc[(qa["task"] == "almanac_reading") & (qa["n"] == 4), "accuracy"] = left
    before = said(changed).partition("reading a passage")[0]
    hows = [one for one in at_a_glance.HOW_WELL if one in before]
    assert hows[-1] == how
    if left == 0.75:
        few = changed.assign(stderr=0.1)
        assert "is not surely worse at" in at_a_glance.finding(OPENED, few).data


def test_a_model_that_can_do_nothing_and_one_that_is_not_healed_have_a_sentence_too(qa):
    unhealed = qa[qa["state"] == "unhealed"]
    text = said(unhealed)
    assert "cut out, and nothing healed," in text
    assert f"{100 * at(qa, 'almanac_sums', 'unhealed', 4)['accuracy']:.0f}\u00a0±" in text
    guessing = said(unhealed.assign(accuracy=unhealed["chance"]))
    assert "cannot do more than guess at" in guessing and "nan" not in guessing
    unknown = said(unhealed.assign(chance=np.nan))
    assert "nan" not in unknown
    assert said(unhealed[unhealed["n"] == 0]) == ""


def test_the_picture_shows_the_layers_that_go(qa, loss):
    figure = at_a_glance.picture(qa, loss, 16)
    kept, gone = (one for one in figure.axes[0].collections if isinstance(one, PatchCollection))
    rows = loss[loss["strategy"].isin(["similarity", "none"]) & (loss["state"] == "unhealed")]
    for row in rows.itertuples():
        dropped = [int(layer) for layer in str(row.dropped).split() if layer != "nan"]
        assert layers_at(gone, row.fraction) == dropped
        assert layers_at(kept, row.fraction) == sorted({*range(16)} - {*dropped})
    plt.close(figure)


def layers_at(boxes: PatchCollection, place: float) -> list[int]:
    ends = [path.get_extents() for path in boxes.get_paths()]
    here = [one for one in ends if (one.x0 + one.x1) / 2 == pytest.approx(place)]
    return sorted(n for one in here for n in range(round(one.y0 + 0.5), round(one.y1 + 0.5)))


def values(axes: Axes) -> list[tuple[float, ...]]:
    return [tuple(np.round(np.asarray(line.get_ydata(), float), 9)) for line in axes.get_lines()]


def test_its_curves_are_those_of_the_tables_and_names_lie_apart(qa, loss):
    figure = at_a_glance.picture(qa, loss, 16)
    accuracies, losses = figure.axes[1:3]
    drawn = values(accuracies)
    for task, shots in at_a_glance.chosen_tasks(qa):
        rows = qa[(qa["task"] == task) & (qa["shots"] == shots)]
        for state in ("unhealed", "healed"):
            curve = rows[rows["strategy"].isin(["similarity", "none"]) & (rows["state"] == state)]
            assert tuple(curve.sort_values("fraction")["accuracy"].round(9)) in drawn
    healed = loss[loss["strategy"].isin(["similarity", "none"]) & (loss["state"] == "healed")]
    wanted = tuple(healed.sort_values("fraction")["loss"].round(9))
    assert wanted in values(losses)
    heights = sorted(
        text.get_position()[1] for text in accuracies.texts if text.get_weight() == "bold"
    )
    assert min(np.diff(heights)) >= at_a_glance.APART - 1e-9
    plt.close(figure)


def test_counts_by_run_are_those_of_the_tables(monkeypatch):
    verdicts = read(ALMANAC / "verdicts.csv")
    opened = SimpleNamespace(study=SimpleNamespace(name="x", title="T<i>", sign="a made-up world"))
    monkeypatch.setattr(at_a_glance, "keep_verdicts", lambda opened: verdicts)
    text = at_a_glance.counts_by_run(opened).data
    own = text.partition("</tr>")[2].partition("</tr>")[0]
    assert "T&lt;i&gt;" in own
    for (_, verdict), count in verdicts.groupby(["paper", "verdict"]).size().items():
        assert f">{count} {verdict}<" in own or f">{count} answered {verdict}<" in own
    assert "A small model that contradicts a paper does not refute it." in text
    shown, folded = text.split("<details>")
    assert "SmolLM2" in shown and "SmolLM2" not in folded and "Almanac, 8" in folded
