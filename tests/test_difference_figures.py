"""Figures of paired differences, and verdicts as a matrix."""

import gallery
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib import pyplot as plt
from matplotlib.container import ErrorbarContainer

from lib.sections import difference_figures, matrix


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize(
    ("table", "first", "legend"),
    [
        ("ranks_compared", "A learnt fact", {"rank 8 − rank 2", "rank 32 − rank 2"}),
        ("prompts_compared", "order 1 − order 0", {"unhealed", "healed"}),
        (
            "strategies_compared",
            "A learnt fact",
            {"similarity − simple, unhealed", "similarity − simple, healed"},
        ),
    ],
)
def test_every_difference_is_drawn_in_points(table: str, first: str, legend: set[str]) -> None:
    compared = gallery.table(table)
    (axes,) = difference_figures.forest(compared).axes
    marks = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
    drawn = sorted(one.lines[0].get_xdata()[0] for one in marks)
    assert drawn == pytest.approx(sorted(100 * compared["difference"]))
    assert axes.get_yticklabels()[0].get_text() == first
    assert {*axes.get_legend_handles_labels()[1]} == legend
    ends = {round(x, 6) for one in marks for x in one.lines[2][0].get_segments()[0][:, 0]}
    reach = compared["difference"] + 2 * compared["stderr"]
    assert {round(100 * x, 6) for x in reach} <= ends


def test_nothing_compared_is_said() -> None:
    (axes,) = difference_figures.forest(gallery.table("ranks_compared")[:0]).axes
    assert "nothing to compare" in axes.texts[0].get_text()


def test_a_matrix_has_a_mark_for_each_verdict() -> None:
    wide = pd.DataFrame(
        [["gromov", 1, "A <b>.", "partly", None], ["lu", 2, "B.", "no", "not testable here"]],
        columns=["paper", "claim", "statement", "run", "paper"],  # a run may be called as any
    )
    page = BeautifulSoup(matrix.matrix(wide).data, "html.parser")
    heads = [one.get_text() for one in page.find_all("th", scope="col")]
    assert heads == ["Claim", "run", "paper"]
    rows = [row for row in page.tbody.find_all("tr") if row.find("td")]
    assert [row.th.get_text() for row in rows] == ["1. A <b>.", "2. B."]
    words = [[cell.get_text() for cell in row.find_all("td")] for row in rows]
    assert words == [["partly", ""], ["no", "not testable here"]]
    assert page.find(class_="verdict-not-testable-here")["title"] == "not testable here"
    assert len(page.find(class_="matrix-meaning").find_all("li")) == 3
