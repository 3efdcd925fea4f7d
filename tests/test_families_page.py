"""Studies side by side: which runs are found, and what is made of their tables."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Checkpoints
from family_runs import NAMES, Write, run_of, tables
from transformers import AutoModelForCausalLM

from lib import paths, study
from lib.sections import families, other_runs, pages


@pytest.fixture
def write(
    tmp_path: Path, results_dir: Path, build_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Write:
    """`write("name", title="Title", layers=6)`: a run's tables in results/, with its study; with
    `published=True` in published/. Returns the folder of tables."""
    monkeypatch.setattr(paths, "published", lambda name: tmp_path / "published" / name)

    def make(
        name: str,
        title: str = "",
        published: bool = False,
        shape: object = None,
        sign: object = None,
        **world: object,
    ) -> Path:
        base = paths.published(name) if published else paths.results(name)
        (base / "tables").mkdir(parents=True)
        for table, rows in tables(**world).items():
            rows.to_csv(base / "tables" / f"{table}.csv", index=False, float_format="%.10g")
        known = {"title": title or name} | ({} if sign is None else {"sign": sign})
        if published:
            about = known | {"settings": {"shape": shape}}
            (base / "study.json").write_text(json.dumps(about))
        else:
            file = tmp_path / f"{name}.yaml"
            file.write_text(json.dumps({"model": "./nowhere"} | known))
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
    found = other_runs.others("own")
    assert [run.title for run in found] == ["Run here", "Elsewhere", "Deep"]
    assert [run.layers for run in found] == [6, 8, 12]
    assert [run.name for run in found] == ["both", "far", "deep"]


def test_signs_are_the_studies_own(write: Write) -> None:
    """Runs that were published before there were signs have those of the shipped studies."""
    write("here", sign="mine")
    write("silent")
    write("away", published=True, sign="theirs")
    write("unknown", published=True)
    write("almanac-seed1", published=True)
    write("almanac-seed2", published=True, sign="its own")
    assert {run.name: run.sign for run in other_runs.others("own")} == {
        "here": "mine",
        "silent": "a model of your own",
        "away": "theirs",
        "unknown": "a model of your own",
        "almanac-seed1": "a made-up world",
        "almanac-seed2": "its own",
    }


@pytest.mark.parametrize("sign", [3, "", "x" * 41, "a\x07b", ["x"]])
def test_a_sign_that_is_none_leaves_a_run_out(
    write: Write, sign: object, capsys: pytest.CaptureFixture
) -> None:
    write("odd", published=True, sign=sign)
    assert other_runs.others("own") == []
    assert "left out: odd (published): study.json" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_table_leaves_a_run_out(
    write: Write, name: str, capsys: pytest.CaptureFixture
) -> None:
    write("whole")
    (write("half") / f"{name}.csv").unlink()
    assert [run.name for run in other_runs.others("own")] == ["whole"]
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
        assert other_runs.others("own") == [], text[:end]
        assert capsys.readouterr().out.startswith("left out: cut (run here): ")
    path.write_text(text)
    assert len(other_runs.others("own")) == 1


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("qa", "accuracy", "score", "qa.csv has no column 'accuracy'"),
        ("qa", "0.02", "a little", "qa.csv is damaged in column 'stderr'"),
        ("loss", "0.3,", "inf,", "loss.csv is damaged in column 'normalized_loss'"),
        ("transitions", "0.4,", "none,", "transitions.csv is damaged in column 'fraction'"),
        ("verdicts", "gromov,1,", "gromov,one,", "verdicts.csv is damaged in column 'claim'"),
        ("verdicts", "gromov,2,", "gromov,1,", "verdicts.csv names a claim twice"),
        ("angular_distances", "\n1,", "\n900000000,", "angular_distances.csv does not hold every"),
        ("angular_distances", "\n1,1,", "\n1,2,", "angular_distances.csv does not hold every"),
        ("qa", "\n", "\x00\xff\n", "qa.csv"),
    ],
)
def test_a_damaged_table_leaves_a_run_out_and_says_why(
    write: Write, name: str, old: str, new: str, reason: str, capsys: pytest.CaptureFixture
) -> None:
    path = write("damaged") / f"{name}.csv"
    assert len(other_runs.others("own")) == 1
    path.write_bytes(path.read_text().replace(old, new, 1).encode("latin-1"))
    assert other_runs.others("own") == []
    assert f"left out: damaged (run here): {reason}" in capsys.readouterr().out


def test_tables_of_another_depth_leave_a_run_out(
    write: Write, capsys: pytest.CaptureFixture
) -> None:
    folder = write("mixed", layers=8)
    tables(layers=10)["angular_distances"].to_csv(folder / "angular_distances.csv", index=False)
    assert other_runs.others("own") == []
    assert "qa.csv is of a model that has not 10 layers" in capsys.readouterr().out


def test_of_a_damaged_run_the_published_one_stands(
    write: Write, capsys: pytest.CaptureFixture
) -> None:
    (write("both", "Run here") / "qa.csv").write_text("task\n")
    write("both", "Published", published=True)
    assert [run.title for run in other_runs.others("own")] == ["Published"]
    assert capsys.readouterr().out.startswith("left out: both (run here): ")


@pytest.mark.parametrize(
    "about", ["", "[]", "{}", '{"title": 3, "settings": {}}', '{"title": "x", "settings": []}']
)
def test_without_a_sound_note_of_what_it_is_a_published_run_is_left_out(
    write: Write, about: str, capsys: pytest.CaptureFixture
) -> None:
    (write("noteless", published=True).parent / "study.json").write_text(about)
    assert other_runs.others("own") == []
    assert "noteless (published): study.json" in capsys.readouterr().out


def test_a_run_whose_study_is_gone_is_left_out_without_naming_a_path(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write("gone")
    (tmp_path / "gone.yaml").unlink()
    assert other_runs.others("own") == []
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
    found = {run.name: run.parameters for run in other_runs.others("own")}
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
        "study", "run", "layers", "parameters", "task", "shots", "state", "healing", "weights",
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
    assert shown.loc[("Own", "healed"), "know"] == "0.40 [0.35, 0.45]"
    assert shown.loc[("Deep", "healed"), "know (5-shot)"] == "–"
    assert shown.loc[("Deep", "unhealed"), "know (5-shot)"] == "0.60 [0.55, 0.65]"
    assert shown.loc[("Deep", "unhealed"), "know"] == ""
    assert len(shown) == 4


def test_the_listing_says_what_differs(write: Write) -> None:
    write("own", published=True)
    runs = [
        run_of("own"),
        run_of("other", "a <b>real</b> model", corpus="C4", vocabulary=32000, layers=12),
    ]
    shown = families.listing(runs)
    assert list(shown["kind"]) == ["a made-up world", "a <b>real</b> model"]
    assert "a &lt;b&gt;real&lt;/b&gt; model" in pages.show(shown).data
    assert list(shown["vocabulary"]) == ["1,000", "32,000"]
    assert list(shown["text of the loss"]) == ["text", "C4"]
    assert list(shown["layers"]) == [8, 12]


def test_verdicts_stand_side_by_side() -> None:
    runs = [run_of("own"), run_of("other"), run_of("<i>third</i>")]
    runs[2].tables["verdicts"] = runs[2].tables["verdicts"].iloc[:1]
    own = pd.DataFrame(
        {"paper": "gromov", "claim": [1, 2, 16], "statement": ["Flat.", "Sharp.", "Deep."]}
        | {"verdict": ["x", "y", "z"]}
    )
    found = families.verdicts(runs, own)
    assert list(found) == ["paper", "claim", "statement", "Own", "Other", "<I>Third</I>"]
    assert found["Own"].tolist() == ["x", "y", "z"]
    assert found["Other"].fillna("").tolist() == ["reproduced", "partly", ""]
    assert found["<I>Third</I>"].fillna("").tolist() == ["reproduced", "", ""]
    page = pages.show(found, words=True).data
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
