"""Studies side by side: which runs are found, what is made of their tables, how they are drawn."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Checkpoints, Studies
from matplotlib import pyplot as plt
from transformers import AutoModelForCausalLM

from lib import families, family_plots, paths, plots, section, study
from lib.bench import Bench
from lib.conditions import main_conditions
from lib.families import Run
from lib.measure import measure

NAMES = ("angular_distances", "qa", "loss", "transitions", "verdicts")
HEALED = (0.25, 0.5, 0.75)
Write = Callable[..., Path]


def distances(layers: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"n": n, "start": start, "distance": rng.uniform(0.01, 0.5), "stderr": 0.001,
         "n_sequences": 16}
        for n in range(1, layers)
        for start in range(layers - n + 1)
    )  # fmt: skip


def evaluated(layers: int) -> list[dict]:
    """What the rows of qa and loss say of the model that they are about."""
    some = [round(fraction * layers) for fraction in HEALED]
    rows = []
    for weights, healing, ns in (
        ("bf16", "none", range(1, layers)),
        ("nf4", "none", some),
        ("nf4", "qlora-r8", some),
    ):
        of = {"healing": healing, "weights": weights, "seed": None if healing == "none" else 0}
        rows.append({"strategy": "none", "n": 0, "fraction": 0.0, **of})
        rows += [
            {"strategy": strategy, "n": n, "fraction": n / layers, **of}
            for strategy in ("similarity", "simple")
            for n in ns
        ]
    return rows


def tables(
    layers: int = 8,
    critical: float = 0.4,
    tasks: tuple[tuple[str, int], ...] = (("know", 0), ("read", 0)),
    corpus: str = "text",
    vocabulary: int = 1000,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:
    models = evaluated(layers)
    qa = pd.DataFrame(
        {"task": task, "shots": shots, **model, "stderr": 0.02, "n_questions": 400, "guess": 0.25,
         "constant": 0.3, "chance": 0.3, "role": "knowledge",
         "accuracy": 0.3 + 0.6 / (1 + np.exp((model["fraction"] - critical) / 0.03))}
        for task, shots in tasks
        for model in models
    )  # fmt: skip
    loss = pd.DataFrame(
        {"corpus": corpus, **model, "normalized_loss": 0.3 + model["fraction"] / 2,
         "loss": (0.3 + model["fraction"] / 2) * np.log(vocabulary), "stderr": 0.05}
        for model in models
    )  # fmt: skip
    keys = ["task", "shots", "strategy", "healing", "weights"]
    transitions = qa[qa["strategy"] != "none"][keys].drop_duplicates().assign(
        fraction=critical, low=critical - 0.05, high=critical + 0.05, width=0.1
    )  # fmt: skip
    verdicts = pd.DataFrame(
        {"claim": [1, 2], "statement": ["Flat.", "Sharp."], "verdict": ["reproduced", "partly"]}
    )
    return {
        "angular_distances": distances(layers, seed),
        "qa": qa,
        "loss": loss,
        "transitions": transitions,
        "verdicts": verdicts,
    }


def run_of(name: str, **world: object) -> Run:
    made = tables(**world)
    layers = int(made["angular_distances"]["n"].max()) + 1
    return Run(name, name.title(), layers, None, Path("results", name, "tables"), made)


@pytest.fixture
def write(
    tmp_path: Path, results_dir: Path, build_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Write:
    """`write("name", title="Title", layers=6)`: a run's tables in results/, with its study; with
    `published=True` in published/. Returns the folder of tables."""
    monkeypatch.setattr(paths, "published", lambda name: tmp_path / "published" / name)

    def make(
        name: str, title: str = "", published: bool = False, shape: object = None, **world: object
    ) -> Path:
        base = paths.published(name) if published else paths.results(name)
        (base / "tables").mkdir(parents=True)
        for table, rows in tables(**world).items():
            rows.to_csv(base / "tables" / f"{table}.csv", index=False, float_format="%.10g")
        if published:
            about = {"title": title or name, "settings": {"shape": shape}}
            (base / "study.json").write_text(json.dumps(about))
        else:
            file = tmp_path / f"{name}.yaml"
            file.write_text(json.dumps({"model": "./nowhere", "title": title or name}))
            note = paths.executed(name, "study.json")
            note.parent.mkdir(parents=True)
            note.write_text(json.dumps({"file": str(file)}))
        return base / "tables"

    return make


def test_runs_are_found_once_and_the_shallowest_first(write: Write) -> None:
    write("deep", "Deep", layers=12)
    write("both", "Run here", layers=6)
    write("both", "Published", published=True, layers=6)
    write("far", "Elsewhere", published=True, layers=8)
    write("own", "The page's study")
    found = families.others("own")
    assert [run.title for run in found] == ["Run here", "Elsewhere", "Deep"]
    assert [run.layers for run in found] == [6, 8, 12]
    assert [run.name for run in found] == ["both", "far", "deep"]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_table_leaves_a_run_out(
    write: Write, name: str, capsys: pytest.CaptureFixture
) -> None:
    write("whole")
    (write("half") / f"{name}.csv").unlink()
    assert [run.name for run in families.others("own")] == ["whole"]
    said = capsys.readouterr().out.splitlines()
    assert said == [f"left out: half (run here): {name}.csv is missing: not run to its end"]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "verdicts"])
def test_a_table_cut_off_anywhere_leaves_a_run_out(
    write: Write, name: str, capsys: pytest.CaptureFixture
) -> None:
    """At the end of any line, or within one."""
    path = write("cut", layers=4) / f"{name}.csv"
    text = path.read_text()
    ends = [i + 1 for i, letter in enumerate(text) if letter == "\n"][:-1]
    within = [end - 20 for end in ends[1:]]
    for end in [0, *ends, *within]:
        path.write_text(text[:end])
        assert families.others("own") == [], text[:end]
        assert capsys.readouterr().out.startswith("left out: cut (run here): ")
    path.write_text(text)
    assert len(families.others("own")) == 1


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("qa", "accuracy", "score", "qa.csv has no column 'accuracy'"),
        ("qa", "0.02", "a little", "qa.csv is damaged in column 'stderr'"),
        ("loss", "0.3,", "inf,", "loss.csv is damaged in column 'normalized_loss'"),
        ("transitions", "0.4,", "none,", "transitions.csv is damaged in column 'fraction'"),
        ("verdicts", "1,Flat", "one,Flat", "verdicts.csv is damaged in column 'claim'"),
        ("verdicts", "2,Sharp", "1,Sharp", "verdicts.csv names a claim twice"),
        ("angular_distances", "\n1,", "\n900000000,", "angular_distances.csv does not hold every"),
        ("angular_distances", "\n1,1,", "\n1,2,", "angular_distances.csv does not hold every"),
        ("qa", "\n", "\x00\xff\n", "qa.csv"),
    ],
)
def test_a_damaged_table_leaves_a_run_out_and_says_why(
    write: Write, name: str, old: str, new: str, reason: str, capsys: pytest.CaptureFixture
) -> None:
    path = write("damaged") / f"{name}.csv"
    assert len(families.others("own")) == 1
    path.write_bytes(path.read_text().replace(old, new, 1).encode("latin-1"))
    assert families.others("own") == []
    assert f"left out: damaged (run here): {reason}" in capsys.readouterr().out


def test_tables_of_another_depth_leave_a_run_out(
    write: Write, capsys: pytest.CaptureFixture
) -> None:
    folder = write("mixed", layers=8)
    tables(layers=10)["angular_distances"].to_csv(folder / "angular_distances.csv", index=False)
    assert families.others("own") == []
    assert "qa.csv is of a model that has not 10 layers" in capsys.readouterr().out


def test_of_a_damaged_run_the_published_one_stands(
    write: Write, capsys: pytest.CaptureFixture
) -> None:
    (write("both", "Run here") / "qa.csv").write_text("task\n")
    write("both", "Published", published=True)
    assert [run.title for run in families.others("own")] == ["Published"]
    assert capsys.readouterr().out.startswith("left out: both (run here): ")


@pytest.mark.parametrize(
    "about", ["", "[]", "{}", '{"title": 3, "settings": {}}', '{"title": "x", "settings": []}']
)
def test_without_a_sound_note_of_what_it_is_a_published_run_is_left_out(
    write: Write, about: str, capsys: pytest.CaptureFixture
) -> None:
    (write("noteless", published=True).parent / "study.json").write_text(about)
    assert families.others("own") == []
    assert "noteless (published): study.json" in capsys.readouterr().out


def test_a_run_whose_study_is_gone_is_left_out_without_naming_a_path(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write("gone")
    (tmp_path / "gone.yaml").unlink()
    assert families.others("own") == []
    said = capsys.readouterr().out
    assert "gone (run here): study.json or the study it names is missing" in said
    assert str(tmp_path) not in said


SHAPE = {"model_type": "llama", "num_hidden_layers": 8, "hidden_size": 64, "vocab_size": 100,
         "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
         "tie_word_embeddings": True}  # fmt: skip


def test_parameters_are_counted_where_the_shape_is_known(
    write: Write, tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    write("shaped", published=True, shape=SHAPE)
    write("unknown", published=True)
    write("here")
    folder = tiny_checkpoint("phi", num_hidden_layers=4)
    (tmp_path / "here.yaml").write_text(json.dumps({"model": str(folder)}))
    found = {run.name: run.parameters for run in families.others("own")}
    # Embeddings, shared with the head; attention (k and v half as wide), FFN and two norms a
    # layer; the last norm.
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64
    assert found["shaped"] == 100 * 64 + 8 * layer + 64
    assert found["unknown"] is None
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert found["here"] == sum(one.numel() for one in model.parameters())


def test_critical_fractions_are_those_of_the_similarity_strategy() -> None:
    runs = [
        run_of("own", layers=8, critical=0.4),
        run_of("deep", layers=12, critical=0.6, tasks=(("know", 5),)),
    ]
    runs[1].tables["transitions"].loc[
        lambda rows: rows["healing"] != "none", ["fraction", "low", "high"]
    ] = np.nan
    runs[0].tables["transitions"].loc[
        lambda rows: rows["strategy"] == "simple", "fraction"
    ] = 0.9  # fmt: skip
    found = families.critical_fractions(runs)
    assert list(found) == [
        "study", "run", "layers", "parameters", "task", "shots", "healing", "weights",
        "fraction", "low", "high", "own",
    ]  # fmt: skip
    own, deep = found[found["own"]], found[~found["own"]]
    assert set(own["run"]) == {"Own"} and set(deep["study"]) == {"deep"}
    # A row per task and curve: unhealed, its control in 4-bit, healed.
    assert len(own) == 2 * 3 and len(deep) == 3
    assert (own["fraction"] == 0.4).all() and (own["layers"] == 8).all()
    healed = deep["healing"] != "none"
    assert deep[healed]["fraction"].isna().all() and (deep[~healed]["fraction"] == 0.6).all()
    assert (deep["layers"] == 12).all() and found["parameters"].isna().all()
    shown = families.side_by_side(found).set_index(["run", ""])
    assert shown.loc[("Own", "healed"), "know (0-shot)"] == "0.40 [0.35, 0.45]"
    assert shown.loc[("Deep", "healed"), "know (5-shot)"] == "–"
    assert shown.loc[("Deep", "unhealed"), "know (5-shot)"] == "0.60 [0.55, 0.65]"
    assert shown.loc[("Deep", "unhealed"), "know (0-shot)"] == ""
    assert len(shown) == 4


def test_the_listing_says_what_differs(write: Write) -> None:
    write("own", published=True)
    runs = [run_of("own"), run_of("other", corpus="C4", vocabulary=32000, layers=12)]
    shown = families.listing(runs)
    assert list(shown["vocabulary"]) == ["1,000", "32,000"]
    assert list(shown["text of the loss"]) == ["text", "C4"]
    assert list(shown["layers"]) == [8, 12]


def test_verdicts_stand_side_by_side() -> None:
    runs = [run_of("own"), run_of("other"), run_of("<i>third</i>")]
    runs[2].tables["verdicts"] = runs[2].tables["verdicts"].iloc[:1]
    own = pd.DataFrame(
        {"claim": [1, 2, 16], "statement": ["Flat.", "Sharp.", "Deep."], "verdict": ["x", "y", "z"]}
    )
    found = families.verdicts(runs, own)
    assert list(found) == ["claim", "statement", "Own", "Other", "<I>Third</I>"]
    assert found["Own"].tolist() == ["x", "y", "z"]
    assert found["Other"].fillna("").tolist() == ["reproduced", "partly", ""]
    assert found["<I>Third</I>"].fillna("").tolist() == ["reproduced", "", ""]
    page = section.show(found, words=True).data
    assert "&lt;I&gt;" in page and "<I>" not in page and "NaN" not in page


def test_the_papers_own_statements_are_marked_as_such() -> None:
    found = families.paper()
    assert len(found) == 7 and set(found["source"]) == {"Gromov et al., §4.1, Fig. 2"}
    named = {f"{row.family} {row.model}" for row in found.itertuples()}
    for one in ("llama-2-7b", "llama-2-13b", "llama-2-70b", "qwen-7b", "qwen-14b"):
        loaded = study.load(one)
        assert loaded.title in named
        layers = found[(found["family"] + " " + found["model"]) == loaded.title]["layers"]
        assert layers.item() == loaded.shape["num_hidden_layers"]


def lines(axes: plt.Axes) -> dict[str, plt.Line2D]:
    """The curves of a panel, by their labels."""
    handles, labels = axes.get_legend_handles_labels()
    return {
        label: handle[0]
        for handle, label in zip(handles, labels, strict=True)
        if isinstance(handle, tuple)
    }


@pytest.mark.parametrize("healed", [True, False])
def test_a_panel_holds_the_studies_that_have_its_task(healed: bool) -> None:
    runs = [
        run_of("own", critical=0.4),
        run_of("same", critical=0.6),
        run_of("other $x$", layers=12, tasks=(("know", 0), ("more", 5))),
    ]
    figure = family_plots.accuracy_by_run(families.table(runs, "qa"), healed)
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    shown = {title: set(lines(axes)) for title, axes in panels.items()}
    assert shown == {
        "know (0-shot)": {"Own", "Same", r"Other \$X\$"},
        "read (0-shot)": {"Own", "Same"},
        "more (5-shot)": {r"Other \$X\$"},
    }
    qa = runs[1].tables["qa"]
    wanted = qa[(qa["task"] == "read") & qa["strategy"].isin(["none", "similarity"])]
    state = (wanted["healing"] != "none") if healed else (wanted["weights"] == "bf16")
    wanted = wanted[state].sort_values("n")
    drawn = lines(panels["read (0-shot)"])["Same"]
    assert drawn.get_xdata() == pytest.approx(wanted["fraction"].to_numpy())
    assert drawn.get_ydata() == pytest.approx(wanted["accuracy"].to_numpy())
    figure.canvas.draw()
    plt.close(figure)


def test_every_chance_level_is_drawn() -> None:
    runs = [run_of("own"), run_of("other")]
    runs[1].tables["qa"] = runs[1].tables["qa"].assign(constant=0.35)
    figure = family_plots.accuracy_by_run(families.table(runs, "qa"), True)
    flat = [
        line.get_ydata()[0]
        for line in figure.axes[0].get_lines()
        if len(set(line.get_ydata())) == 1
    ]
    assert {0.25, 0.3, 0.35} <= set(flat)
    plt.close(figure)


def test_losses_on_different_texts_have_panels_of_their_own() -> None:
    runs = [run_of("own"), run_of("other"), run_of("third", corpus="C4")]
    figure = family_plots.loss_by_run(families.table(runs, "loss"))
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
    styles = family_plots.line_styles([f"study {i}" for i in range(40)])
    looks = {
        (style["color"], str(style["linestyle"]), style["marker"]) for style in styles.values()
    }
    assert len(looks) == 40
    eight = list(styles.values())[:8]
    assert len({style["color"] for style in eight}) == 8
    without_colour = {(str(style["linestyle"]), style["marker"]) for style in eight}
    assert len(without_colour) == 8


def test_heat_maps_are_rescaled_row_by_row_and_marked_at_the_minimum() -> None:
    runs = [run_of("own", seed=1), run_of("deep", layers=11, seed=2)]
    table = runs[0].tables["angular_distances"]
    table.loc[table["n"] == 3, "distance"] = 0.2  # a tie goes to the deepest start
    optimal = families.most_similar_blocks(runs)
    figure = family_plots.distance_maps(families.table(runs, "angular_distances"), optimal)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["Own", "Deep"]
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


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, write_study: Studies) -> study.Study:
    """A small study with the evidence behind its main tables."""
    folder = tmp_path_factory.mktemp("families")
    one = study.load(str(write_study(folder, stem="small", title="Small")))
    bench = Bench(one)
    measure(bench, main_conditions(bench))
    return one


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "published", lambda name: tmp_path / "published" / name)
    monkeypatch.setattr(paths, "BUILD", tmp_path / "_build")
    return tmp_path / "published"


def test_a_study_alone_says_so_and_is_drawn(
    measured: study.Study, elsewhere: Path, capsys: pytest.CaptureFixture
) -> None:
    bench = Bench(measured)
    runs = families.families(bench)
    assert "No other study has been run in this clone" in capsys.readouterr().out
    assert [(run.name, run.title, run.layers) for run in runs] == [("small", "Small", 6)]
    assert runs[0].parameters == sum(one.numel() for one in bench.model.parameters())
    plots.style()
    qa, loss = (families.table(runs, name) for name in ("qa", "loss"))
    figures = [
        family_plots.accuracy_by_run(qa, True),
        family_plots.accuracy_by_run(qa, False),
        family_plots.loss_by_run(loss),
        family_plots.distance_maps(
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
    runs = families.families(Bench(measured))
    assert [run.title for run in runs] == ["Small (small)", "Other", "Small (twin)"]
    assert families.listing(runs)["from"].tolist() == ["this clone", "published", "published"]
    both = families.table(runs, "qa")
    assert list(dict.fromkeys(both["run"])) == [run.title for run in runs]
    assert len(both) == sum(len(run.tables["qa"]) for run in runs)
