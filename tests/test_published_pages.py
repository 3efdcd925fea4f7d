"""Published runs, opened from their evidence alone, and their pages."""

import json
from pathlib import Path

import pandas as pd
import pytest

from lib import paths, study
from lib.book import notebooks, published_pages
from lib.claims.rules.reading import read
from lib.errors import UserError
from lib.experiments.published import OPEN, PublishedStore, PublishedStudy, agree
from lib.models import checkpoints
from lib.sections import pages, section, tables, verdicts

SMALL, LARGE = "smollm2-135m-instruct", "smollm2-135m-instruct-public"
FITTED = "transitions"  # whose fits ended elsewhere in valleys without a slope when they were made


@pytest.fixture(autouse=True)
def nothing_at_hand(monkeypatch: pytest.MonkeyPatch, results_dir: Path) -> None:
    """Whoever has no checkpoint has no way to look at one."""

    def refuse(*_: object) -> None:
        raise AssertionError("a checkpoint was looked for")

    for name in ("load_config", "load_model", "load_tokenizer", "checkpoint_digest"):
        monkeypatch.setattr(checkpoints, name, refuse)
    monkeypatch.delenv("PRUNING_DATA", raising=False)


@pytest.mark.parametrize("name", [SMALL, LARGE])
def test_its_tables_come_of_its_evidence(name: str, tmp_path: Path) -> None:
    opened = PublishedStudy(study.load(name))
    folder, same = paths.published(name) / "tables", set()
    for one in section.tables().values():
        file = folder / f"{one.name}.csv"
        if not one.published or not file.exists():
            continue
        made = one.make(opened)
        assert made is not None, one.name
        tables.write(tmp_path / "made.csv", made)
        near = {"rtol": 0, "atol": 0.02} if one.name == FITTED else {"rtol": 1e-9}
        pd.testing.assert_frame_equal(read(tmp_path / "made.csv"), read(file), **near)
        same.add(one.name)
    assert {"qa", "loss", "angular_distances", "cost", "untrained_distances"} <= same
    assert not [*paths.results("").glob("*")]  # and nothing is kept


def test_what_it_does_not_hold_is_named_and_never_measured() -> None:
    store = PublishedStore(SMALL)
    record = next(iter(store.records()))

    def measure() -> dict:
        raise AssertionError("measured")

    given = (record["kind"], record["name"])
    assert store.get_or_measure(*given, record["inputs"], measure) == record["value"]
    with pytest.raises(UserError, match=f"published run '{SMALL}' does not hold loss of 'x'"):
        store.get_or_measure("loss", "x", {}, measure)
    with pytest.raises(UserError, match="does not hold"):
        store.get_or_measure(*given, record["inputs"] | {"method": "other"}, measure)


def test_of_two_records_that_agree_none_is_taken() -> None:
    store = PublishedStore(SMALL)
    record = next(one for one in store.records() if "text" in one["inputs"])
    other = record | {"inputs": record["inputs"] | {"text": "another"}, "value": {"a": 1}}
    store.named[record["kind"], record["name"]].append(other)
    open_text = {key: one for key, one in record["inputs"].items() if key != "text"}
    with pytest.raises(UserError, match=r"2 records are '"):
        store.get(record["kind"], record["name"], open_text)
    assert store.get(record["kind"], record["name"], record["inputs"]) == record["value"]


def test_what_is_open_agrees_with_anything_and_what_is_known_with_itself() -> None:
    recorded = {"text": {"sha256": "1"}, "seed": 0, "sample": {"length": 8, "n": [1, 2]}}
    assert agree({"text": OPEN, "sample": {"length": 8}}, recorded)
    assert agree({}, recorded) and agree(recorded, recorded)
    for other in ({"seed": 1}, {"sample": {"length": 9}}, {"sample": OPEN, "more": 1}):
        assert not agree(other, recorded)
    assert not agree({"sample": {"n": [1]}}, recorded)


def test_the_page_says_that_it_is_published_and_what_measuring_took() -> None:
    opened = pages.open_study(f"{study.PUBLISHED}{SMALL}")
    assert "a published run" in pages.sign(opened).data
    assert verdicts.run_times(opened)["measurements"].sum() == sum(
        "seconds" in one["provenance"] for one in opened.store.records()
    )
    with pytest.raises(UserError, match="tokenizer is not at hand"):
        _ = opened.tokenizer


def test_which_runs_have_pages() -> None:
    shown = {one.name for one in map_parts(set())}
    assert {SMALL, LARGE} <= shown
    assert not shown & {"almanac", "almanac-seed1", "almanac-8-layers", "almanac-untrained"}
    assert SMALL not in {one.name for one in map_parts({SMALL})}


def map_parts(run_here: set[str]) -> list:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published_pages, "render", lambda one: {})
        return published_pages.parts(run_here)


def test_pages_are_executed_once_and_a_section_without_records_is_left_out(
    build_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(published_pages, "FOLDER", build_dir / "published")
    wanted = ("at_a_glance", "loss", "controls", "families", "what_layers_do", "teacher")
    few = {name: paths.sections()[name] for name in wanted}
    monkeypatch.setattr(paths, "sections", lambda: few)
    monkeypatch.setattr(section, "names", lambda: [*few])
    done = []

    def execute(source: Path, target: Path, parameters: dict, about: str) -> None:
        done.append((source.stem, parameters["study"]))
        if source.stem == "13_controls":
            raise UserError(f"{about}: it does not hold questions")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps({"cells": []}))

    monkeypatch.setattr(notebooks, "execute", execute)
    one = study.load(SMALL)
    found = published_pages.render(one)
    assert [*found] == ["at_a_glance.ipynb", "03_loss.ipynb"]
    assert all(path.is_file() for path in found.values())
    assert {name for _, name in done} == {f"published/{SMALL}"} and len(done) == 3
    assert "left out: section 13_controls of published run" in capsys.readouterr().out
    assert published_pages.render(one) == found and len(done) == 3
    found["03_loss.ipynb"].unlink()
    assert published_pages.render(one) == found and len(done) == 4
