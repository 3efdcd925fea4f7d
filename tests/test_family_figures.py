"""Studies side by side: how they are drawn, and the page of a study that is alone."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Studies
from family_runs import run_of, tables
from matplotlib import pyplot as plt
from matplotlib.legend import Legend

from lib import paths, study
from lib.experiments.conditions import main_conditions
from lib.experiments.measure import measure
from lib.experiments.opened import OpenStudy
from lib.sections import angular_distances, families
from lib.sections import figures as house


def lines(axes: plt.Axes) -> dict[str, plt.Line2D]:
    """The curves of a panel, by their labels."""
    handles, labels = axes.get_legend_handles_labels()
    return {
        label: handle[0]
        for handle, label in zip(handles, labels, strict=True)
        if isinstance(handle, tuple)
    }


@pytest.mark.parametrize("state", ["unhealed", "healed"])
def test_a_panel_holds_the_studies_that_have_its_task(state: str) -> None:
    runs = [
        run_of("own", critical=0.4),
        run_of("same", critical=0.6),
        run_of("other $x$", layers=12, tasks=(("know", 0), ("more", 5))),
    ]
    figure = families.accuracy_by_run(families.table(runs, "qa"), state)
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    shown = {title: set(lines(axes)) for title, axes in panels.items()}
    assert shown == {
        "Know": {"Own", "Same", "Other $X$"},
        "Read": {"Own", "Same"},
        "More (5-shot)": {"Other $X$"},
    }
    qa = runs[1].tables["qa"]
    wanted = qa[(qa["task"] == "read") & qa["strategy"].isin(["none", "similarity"])]
    wanted = wanted[wanted["state"] == state].sort_values("n")
    drawn = lines(panels["Read"])["Same"]
    assert drawn.get_xdata() == pytest.approx(wanted["fraction"].to_numpy())
    assert drawn.get_ydata() == pytest.approx(wanted["accuracy"].to_numpy())
    figure.canvas.draw()
    plt.close(figure)


def test_a_task_that_no_healed_model_was_asked_has_no_panel_among_healed_ones() -> None:
    runs = [run_of("own"), run_of("real", tasks=(("more", 0),), corpus="C4")]
    for name in ("qa", "loss"):
        table = runs[1].tables[name]
        runs[1].tables[name] = table[table["state"] == "unhealed"]
    qa, loss = families.table(runs, "qa"), families.table(runs, "loss")
    titles = {
        state: {axes.get_title() for axes in families.accuracy_by_run(qa, state).axes} - {""}
        for state in ("unhealed", "healed")
    }
    assert titles["unhealed"] - titles["healed"] == {"More"}
    said = {
        axes.get_title(): [text.get_text() for text in axes.texts]
        for axes in families.loss_by_run(loss).axes
    }
    assert said["C4, healed"] == ["no run is healed"] and said["C4, unhealed"] == []
    assert said["text, healed"] == []
    # Where nothing at all is healed, the panels stay, with the levels.
    alone = families.accuracy_by_run(qa[qa["run"] == qa["run"].iloc[-1]], "healed")
    assert "More" in {axes.get_title() for axes in alone.axes}
    plt.close("all")


def test_every_chance_level_is_drawn() -> None:
    runs = [run_of("own"), run_of("other")]
    runs[1].tables["qa"] = runs[1].tables["qa"].assign(constant=0.35)
    figure = families.accuracy_by_run(families.table(runs, "qa"), "healed")
    flat = [
        line.get_ydata()[0]
        for line in figure.axes[0].get_lines()
        if len(set(line.get_ydata())) == 1
    ]
    assert {0.25, 0.3, 0.35} <= set(flat)
    plt.close(figure)


def test_losses_on_different_texts_have_panels_of_their_own() -> None:
    runs = [run_of("own"), run_of("other"), run_of("third", corpus="C4")]
    figure = families.loss_by_run(families.table(runs, "loss"))
    shown = {axes.get_title(): set(lines(axes)) for axes in figure.axes}
    assert shown == {
        "text, unhealed": {"Own", "Other"}, "text, healed": {"Own", "Other"},
        "C4, unhealed": {"Third"}, "C4, healed": {"Third"},
    }  # fmt: skip
    for axes in figure.axes:
        assert any(set(line.get_ydata()) == {1} for line in axes.get_lines())
    # Standard errors in units of ln V too: 0.05 nats over ln 1000.
    bars = figure.axes[0].collections[0].get_segments()
    assert np.ptp(bars[0][:, 1]) == pytest.approx(2 * 0.05 / np.log(1000))
    plt.close(figure)


def test_no_two_studies_look_alike() -> None:
    styles = families.line_styles([f"study {i}" for i in range(40)])
    looks = {
        (style["color"], str(style["linestyle"]), style["marker"]) for style in styles.values()
    }
    assert len(looks) == 40
    eight = list(styles.values())[:8]
    assert len({style["color"] for style in eight}) == 8
    without_colour = {(str(style["linestyle"]), style["marker"]) for style in eight}
    assert len(without_colour) == 8


def test_heat_maps_are_rescaled_row_by_row_and_marked_at_the_minimum() -> None:
    runs = [run_of("own", seed=1), run_of("deep", "a real model", layers=11, seed=2)]
    table = runs[0].tables["angular_distances"]
    table.loc[table["n"] == 3, "distance"] = 0.2  # a tie goes to the deepest start
    optimal = families.most_similar_blocks(runs)
    figure = families.distance_maps(families.table(runs, "angular_distances"), optimal)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["Own\na made-up world", "Deep\na real model"]
    for axes, run in zip(figure.axes, runs, strict=False):
        rows = run.tables["angular_distances"]
        drawn = axes.collections[0].get_array()
        (crosses,) = (line for line in axes.get_lines() if line.get_marker() == "x")
        marked = {y + 0.5: x - 0.5 for x, y in crosses.get_xydata()}
        assert sorted(marked) == list(range(1, run.layers))
        for n in range(1, run.layers):
            row = rows[rows["n"] == n].sort_values("start")
            least = row[row["distance"] == row["distance"].min()]["start"].max()
            assert marked[n] == least
            values, low = row["distance"].to_numpy(), row["distance"].min()
            spread = values.max() - low or 1
            assert np.asarray(drawn[n - 1, : len(values)]) == pytest.approx((values - low) / spread)
    plt.close(figure)


def test_figures_of_many_runs_show_as_many_as_can_be_told_apart(
    capsys: pytest.CaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    tasks = (("know", 0), ("more", 5), ("read", 0))
    runs = [run_of(f"model {i:02}", layers=4 + i // 8, tasks=tasks) for i in range(33)]
    assert families.drawn(runs[:12]) == runs[:12] and capsys.readouterr().out == ""
    shown = families.drawn(runs)
    says = capsys.readouterr().out
    assert (
        len(shown) == 12 and shown[0] is runs[0] and {run.layers for run in shown} == {*range(4, 9)}
    )
    assert "Figures show 12 of 33 runs" in says
    assert all((run.name in says) == (run not in shown) for run in runs)
    house.style()
    qa, loss = (families.table(shown, name) for name in ("qa", "loss"))
    for figure in (families.accuracy_by_run(qa, "healed"), families.loss_by_run(loss)):
        figure.canvas.draw()
        (legend,) = [*figure.legends, *(axes.get_legend() for axes in figure.axes)][:1]
        box = legend.get_window_extent()
        panels = [axes for axes in figure.axes if axes.get_title()]
        assert len(panels) in (2, 3)
        for axes in panels:
            area = axes.get_window_extent()
            assert not area.overlaps(box) and min(area.width, area.height) > 100
        assert {text.get_text() for text in legend.get_texts()} >= {run.title for run in shown}
        plt.close(figure)
    assert not [one for one in recwarn if "constrained_layout" in str(one.message)]


def headings(legend: Legend) -> dict[str, str]:
    """What stands in bold above each entry of a legend, in its column."""
    found, heading, column = {}, "", 0.0
    for text in legend.get_texts():
        box = text.get_window_extent()
        if text.get_text() and box.x0 > column + 1:
            heading, column = "", box.x0
        words = text.get_text().replace("\n", " ").strip("\N{THIN SPACE}")
        if text.get_weight() == "bold":
            heading = words
        else:
            found[words] = heading
    return found


@pytest.mark.parametrize("others", [1, 2, 6])
def test_in_a_legend_runs_stand_below_their_sign(others: int) -> None:
    runs = [run_of("own"), run_of("real", "a real model, 4-bit file")]
    runs += [run_of(f"model {i}", runs[i % 2].sign) for i in range(others)]
    runs += [run_of("mine", "_our own model of $5, after more of it_")]
    signs = {run.title: run.sign for run in runs}
    house.style()
    qa, loss = (families.table(runs, name) for name in ("qa", "loss"))
    levels = {"guessing": "", "constant answer": ""}
    for figure, expected in (
        (families.accuracy_by_run(qa, "healed"), signs | levels),
        (families.loss_by_run(loss), signs | {"ln V": ""}),
    ):
        figure.canvas.draw()
        (legend,) = figure.legends
        assert headings(legend) == expected
        handles = zip(legend.get_texts(), legend.legend_handles, strict=True)
        for text, handle in handles:
            nothing = isinstance(handle, plt.Line2D) and handle.get_linestyle() == "None"
            assert nothing == (text.get_weight() == "bold")
        box = legend.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width
        plt.close(figure)


def test_signs_stand_in_a_legend_in_a_panels_place_too() -> None:
    runs = [run_of("own"), run_of("real", "a real model")]
    for run in runs:
        third = run.tables["qa"].query("task == 'know'").assign(task="third")
        run.tables["qa"] = pd.concat([run.tables["qa"], third])
    figure = families.accuracy_by_run(families.table(runs, "qa"), "healed")
    figure.canvas.draw()
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    above = {
        "Own": "a made-up world",
        "Real": "a real model",
        "guessing": "",
        "constant answer": "",
    }
    assert headings(legend) == above and not figure.legends
    plt.close(figure)


@pytest.mark.parametrize("layers", [8, 126])
def test_a_heat_map_is_small_however_deep_the_model(layers: int) -> None:
    table = run_of("own", layers=layers).tables["angular_distances"]
    optimal = families.most_similar_blocks([run_of("own", layers=layers)])
    figure = angular_distances.distance_map(table, optimal, table)
    file = io.BytesIO()
    figure.savefig(file, format="svg")
    plt.close(figure)
    assert len(file.getvalue()) < 400_000


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, write_study: Studies) -> study.Study:
    """A small study with the evidence behind its main tables."""
    folder = tmp_path_factory.mktemp("families")
    one = study.load(str(write_study(folder, stem="small", title="Small")))
    opened = OpenStudy(one)
    measure(opened, main_conditions(opened))
    return one


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "published", lambda name: tmp_path / "published" / name)
    monkeypatch.setattr(paths, "BUILD", tmp_path / "_build")
    return tmp_path / "published"


def test_a_study_alone_says_so_and_is_drawn(
    measured: study.Study, elsewhere: Path, capsys: pytest.CaptureFixture
) -> None:
    opened = OpenStudy(measured)
    runs = families.every_run(opened)
    assert "No other study has been run in this clone" in capsys.readouterr().out
    assert [(run.name, run.title, run.layers) for run in runs] == [("small", "Small", 6)]
    assert runs[0].parameters == sum(one.numel() for one in opened.model.parameters())
    house.style()
    qa, loss = (families.table(runs, name) for name in ("qa", "loss"))
    figures = [
        families.accuracy_by_run(qa, "healed"),
        families.accuracy_by_run(qa, "unhealed"),
        families.loss_by_run(loss),
        families.distance_maps(
            families.table(runs, "angular_distances"), families.most_similar_blocks(runs)
        ),
    ]
    for figure in figures:
        figure.canvas.draw()
        plt.close(figure)
    assert families.critical_fractions(runs)["own"].all()
    assert len(families.side_by_side(families.critical_fractions(runs))) == 2


def test_titles_that_are_the_same_get_the_studies_names(
    measured: study.Study, elsewhere: Path
) -> None:
    for name, title in {"twin": "Small", "other": "Other"}.items():
        folder = elsewhere / name
        (folder / "tables").mkdir(parents=True)
        for table, rows in tables().items():
            rows.to_csv(folder / "tables" / f"{table}.csv", index=False)
        (folder / "study.json").write_text(json.dumps({"title": title, "settings": {}}))
    runs = families.every_run(OpenStudy(measured))
    assert [run.title for run in runs] == ["Small (small)", "Other", "Small (twin)"]
    assert families.listing(runs)["from"].tolist() == ["this clone", "published", "published"]
    both = families.table(runs, "qa")
    assert list(dict.fromkeys(both["run"])) == [run.title for run in runs]
    assert len(both) == sum(len(run.tables["qa"]) for run in runs)
