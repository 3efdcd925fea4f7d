"""Distances on other texts: what is recorded, the tables, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Studies, sentences, write_jsonl
from matplotlib import pyplot as plt
from scipy.stats import spearmanr
from test_geometry import angle, stream_by_hand

from lib import paths, study
from lib.book.check import check
from lib.errors import UserError
from lib.evidence.records import file_digest
from lib.experiments.opened import OpenStudy
from lib.models import corpora
from lib.pruning import geometry
from lib.sections import other_texts

Open = Callable[..., OpenStudy]


@pytest.fixture
def opened(tmp_path: Path, results_dir: Path, write_study: Studies) -> Open:
    """A opened with another text, "rain": documents of other words than the validation text's."""

    def make(**keys: Any) -> OpenStudy:
        rows = [{"text": f"Rain, rain and {i} drops of rain: {text}"} for i, text in RAIN]
        write_jsonl(tmp_path / "texts" / "rain.jsonl", rows)
        settings = {"other_texts": [{"name": "rain", "path": "./texts/rain.jsonl"}]} | keys
        return OpenStudy(study.load(str(write_study(tmp_path, **settings))))

    return make


RAIN = list(enumerate(sentences(30, 500)))


def test_the_own_text_is_recorded_as_before(opened: Open) -> None:
    opened = opened()
    opened.measure_distances(), opened.measure_distances_on(opened.study.other_texts[0])
    inputs = {
        "checkpoint": opened.checkpoint,
        "method": geometry.METHOD,
        "weights": "float32",
        "text": {"sha256": file_digest(Path(opened.study.validation_text.path))},
        "sample": opened.study.distances.model_dump(),
    }
    own = opened.store.path("distances", "8x16", inputs)
    other = inputs | {"text": {"sha256": file_digest(_rain(opened))}}
    assert {own, opened.store.path("distances", "rain 8x16", other)} == set(
        opened.store.folder.rglob("*.json")
    )
    assert json.loads(own.read_text())["value"] == opened.measure_distances()


def _rain(opened: OpenStudy) -> Path:
    return Path(opened.study.other_texts[0].path)


def test_distances_are_those_of_the_other_text(opened: Open) -> None:
    opened = opened()
    table = other_texts.text_distances(other_texts.measured(opened))
    assert list(table.columns) == ["text", "n", "start", "distance", "stderr", "n_sequences"]
    assert list(table["text"].unique()) == ["sentences", "rain"]
    text = opened.study.other_texts[0]
    streams = [
        stream_by_hand(opened.model, row)[0]
        for row in corpora.windows(text, opened.tokenizer, 8, 16, seed=0)
    ]
    rain = table[table["text"] == "rain"]
    assert len(rain) == 20 and set(rain["n_sequences"]) == {8}
    for row in rain.itertuples():
        each = [angle(x[row.start][-1], x[row.start + row.n][-1]) for x in streams]
        assert row.distance == pytest.approx(np.mean(each), abs=1e-6)
        assert row.stderr == pytest.approx(np.std(each, ddof=1) / np.sqrt(8), abs=1e-6)
    own = table[table["text"] == "sentences"]
    assert (own["distance"].to_numpy() != rain["distance"].to_numpy()).all()


def test_the_same_documents_under_another_name_agree(opened: Open, tmp_path: Path) -> None:
    opened = opened(other_texts=[{"name": "copy", "path": "./copy.jsonl"}])
    (tmp_path / "copy.jsonl").write_bytes((tmp_path / "validation.jsonl").read_bytes())
    found = other_texts.measured(opened)
    assert found["copy"] == found["sentences"]
    blocks = other_texts.text_blocks(found)
    assert (blocks[["regret", "regret_stderr"]] == 0).all(axis=None)
    pair = other_texts.text_pairs(other_texts.text_distances(found), blocks).iloc[0]
    assert pair["same ℓ*"] == 1 and pair["largest shift"] == 0
    assert pair["smallest"] == pytest.approx(1) and pair["beyond 2 standard errors"] == 0


def made(distances: dict[tuple[int, int], float], stderr: float, support: float) -> dict[str, Any]:
    """What is measured on a text, with these distances by (n, start) of a model of three layers."""
    rows = [
        {"n": n, "start": start, "distance": d, "stderr": stderr, "n_sequences": 9}
        for (n, start), d in distances.items()
    ]
    best = [min((d, start) for (m, start), d in distances.items() if m == n) for n in (1, 2)]
    optimal = [
        {"n": n, "start": start, "stop": start + n, "distance": d, "support": support}
        for n, (d, start) in zip((1, 2), best, strict=True)
    ]
    table, optimal = (pd.DataFrame(part).to_dict("list") for part in (rows, optimal))
    return {"table": table, "optimal": optimal, "commonest_final_token": 0.25}


CELLS = [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
FOUND = {
    "own": made(dict(zip(CELLS, [0.30, 0.10, 0.20, 0.35, 0.45], strict=True)), 0.03, 1.0),
    "other": made(dict(zip(CELLS, [0.31, 0.22, 0.15, 0.31, 0.40], strict=True)), 0.04, 0.6),
}


def test_regret_is_what_the_others_choice_costs_on_the_own_text() -> None:
    blocks = other_texts.text_blocks(FOUND)
    columns = ["text", "n", "start", "stop", "distance", "support", "regret", "regret_stderr"]
    assert list(blocks.columns) == columns
    # For n = 1 the other text starts at 2, where the own text has 0.20 instead of 0.10; for n = 2
    # both start at 0.
    expected = [
        ("own", 1, 1, 2, 0.10, 1.0, 0.0, 0.0),
        ("own", 2, 0, 2, 0.35, 1.0, 0.0, 0.0),
        ("other", 1, 2, 3, 0.15, 0.6, 0.10, 0.03 * np.sqrt(2)),
        ("other", 2, 0, 2, 0.31, 0.6, 0.0, 0.0),
    ]
    for row, wanted in zip(blocks.itertuples(index=False), expected, strict=True):
        assert row[0] == wanted[0] and row[1:] == pytest.approx(wanted[1:])
    regrets = other_texts.text_regrets(FOUND, blocks).set_index("text")
    assert regrets.loc["other", "mean regret"] == "0.0500 ± 0.0212"
    assert regrets.loc["other", "largest regret"] == "0.1000 ± 0.0424"
    assert regrets.loc["other", "at n"] == 1 and regrets.loc["other", "windows"] == 9
    assert regrets.loc["other", "of the distance"] == "22.2%"  # 0.05 of (0.10 + 0.35) / 2
    assert regrets.loc["own", "mean regret"] == "0.0000 ± 0.0000"


def test_a_pair_is_compared_block_by_block() -> None:
    distances = other_texts.text_distances(FOUND)
    pairs = other_texts.text_pairs(distances, other_texts.text_blocks(FOUND))
    assert len(pairs) == 1
    pair = pairs.iloc[0]
    assert (pair["text"], pair["and"], pair["block sizes"]) == ("own", "other", 2)
    assert pair["same ℓ*"] == 0.5 and pair["largest shift"] == 1
    # n ≤ L/2 is n = 1 alone: ranks 3, 1, 2 and 3, 2, 1.
    assert pair["rank correlation"] == pytest.approx(0.5)
    # Twice √(0.03² + 0.04²) is 0.1, which one difference of five exceeds.
    assert pair["beyond 2 standard errors"] == pytest.approx(0.2)
    differences = other_texts.text_differences(distances)
    assert list(differences["text"].unique()) == ["other"]
    assert list(differences["difference"]) == pytest.approx([0.01, 0.12, -0.05, -0.04, -0.05])
    assert list(differences["stderr"]) == pytest.approx([0.05] * 5)


def test_rank_correlation_is_spearmans(opened: Open) -> None:
    found = other_texts.measured(opened())
    table = other_texts.text_distances(found)
    pair = other_texts.text_pairs(table, other_texts.text_blocks(found)).iloc[0]
    by_n = [
        spearmanr(*(rows[rows["text"] == name]["distance"] for name in found)).statistic
        for n, rows in table.groupby("n")
        if n <= 3
    ]
    assert pair["rank correlation"] == pytest.approx(np.mean(by_n))
    assert pair["smallest"] == pytest.approx(min(by_n))


def test_figures_show_every_text_and_what_is_unsure() -> None:
    blocks = other_texts.text_blocks(FOUND)
    figure = other_texts.block_panels(blocks)
    assert len(figure.axes) == 2
    for axes, name in zip(figure.axes, FOUND, strict=True):
        band, line, hollow = axes.lines
        rows = blocks[blocks["text"] == name]
        assert list(band.get_ydata()) == [1, 0]
        assert list(line.get_ydata()) == list(rows["start"])
        assert len(hollow.get_xdata()) == (rows["support"] < 0.95).sum()
    distances = other_texts.text_distances(FOUND)
    figure = other_texts.distance_lines(distances, other_texts.text_differences(distances))
    assert len(figure.axes) == 2  # a quarter and half of three layers are one layer, too
    styles = other_texts.text_styles([str(i) for i in range(9)])
    without_colour = {(style["marker"], str(style["linestyle"])) for style in styles.values()}
    assert len(without_colour) == 9
    plt.close("all")


def test_a_study_without_other_texts_shows_its_own(opened: Open) -> None:
    opened = opened(other_texts=[], text_name="<b>mine")
    found = other_texts.measured(opened)
    said = other_texts.introduce(opened).data
    assert "no <code>other_texts</code>" in said and "&lt;b&gt;mine" in said and "<b>" not in said
    distances, blocks = other_texts.text_distances(found), other_texts.text_blocks(found)
    assert list(distances["text"].unique()) == ["<b>mine"] and (blocks["regret"] == 0).all()
    assert other_texts.text_pairs(distances, blocks).empty
    assert len(other_texts.block_panels(blocks).axes) == 1
    lines = other_texts.distance_lines(distances, other_texts.text_differences(distances))
    assert len(lines.axes) == 2  # blocks of 1 and 3 of 6 layers
    plt.close("all")


def test_names_are_escaped(opened: Open) -> None:
    opened = opened(other_texts=[{"name": "<i>rain", "path": "./texts/rain.jsonl"}])
    assert "&lt;i&gt;rain" in other_texts.introduce(opened).data


def test_paths_are_relative_to_the_study_that_gives_them(opened: Open, tmp_path: Path) -> None:
    opened = opened()
    expected = str(tmp_path / "texts" / "rain.jsonl")
    assert opened.study.other_texts[0].path == expected
    heir = tmp_path / "elsewhere" / "heir.yaml"
    heir.parent.mkdir()
    heir.write_text("like: ../mine.yaml\n", encoding="utf-8")
    assert study.load(str(heir)).other_texts[0].path == expected
    check(opened.study)


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "missing": ({"path": "./none.jsonl"}, ["none.jsonl", "no such file"]),
    "no field text": ({"path": "./rows.jsonl"}, ["rows.jsonl", "field 'text'"]),
    "too short": ({"path": "./short.jsonl"}, ["short.jsonl", "windows of 16 tokens (asked: 8)"]),
    "hub": ({"dataset": "nobody/none"}, ["nobody/none", "network"]),
    "own name": ({"name": "sentences", "path": "./texts/rain.jsonl"}, ["other_texts", "the name"]),
    "own text": ({"path": "./validation.jsonl"}, ["other_texts", "'odd' is the validation text"]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_check_refuses(kind: str, opened: Open, tmp_path: Path) -> None:
    keys, says = REFUSED[kind]
    write_jsonl(tmp_path / "rows.jsonl", [{"instruction": "Go."}])
    write_jsonl(tmp_path / "short.jsonl", [{"text": "A few words only."}])
    opened = opened(other_texts=[{"name": "odd"} | keys])
    with pytest.raises(UserError) as raised:
        check(opened.study)
    assert "\n" not in str(raised.value)
    for part in says:
        assert part in str(raised.value)


@pytest.mark.parametrize("name", ["almanac", "smoke"])
def test_shipped_texts_are_there(name: str) -> None:
    texts = study.load(name).other_texts
    assert len(texts) >= 2
    assert all(Path(text.path).parent == paths.ROOT / "almanac" / "text" for text in texts)
