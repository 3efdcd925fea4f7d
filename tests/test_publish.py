"""Reference runs: what is published, and that other studies draw it."""

import errno
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from ablation_study import STUDY
from conftest import Studies

from lib import paths, study
from lib.book import check
from lib.book.publish import publish
from lib.errors import UserError
from lib.evidence.records import digest
from lib.experiments import costs
from lib.experiments.conditions import main_conditions
from lib.experiments.opened import OpenStudy
from lib.models import checkpoints
from lib.sections import controls, tables
from lib.sections.angular_distances import (
    angular_distances,
    optimal_blocks,
    untrained_distances,
)
from lib.statistics import transitions

COST = {"cost": {"fractions": [0, 0.5, 0.75], "length": 16, "tokens": 2, "repeats": 3}}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here is about intervals."""
    monkeypatch.setattr(transitions, "RESAMPLES", 10)


@pytest.fixture(scope="module")
def measured(
    tmp_path_factory: pytest.TempPathFactory, write_study: Studies, ablation_study: Path
) -> study.Study:
    """A small study with every kind of evidence."""
    folder = tmp_path_factory.mktemp("other")
    tasks = {"task_path": str(ablation_study.parent / "tasks")}
    keys = {"title": "Another run", **STUDY, **COST, **tasks}
    one = study.load(str(write_study(folder, stem="other", **keys)))
    opened = OpenStudy(one)
    shutil.copytree(ablation_study.parent / "results/mine", paths.results("other"))
    costs.cost_table(opened)
    tables.save(opened, "qa", tables.qa_table(opened, main_conditions(opened)))
    opened.store.put("loss", "of older settings", {"n": 1}, {"loss": 1.5})
    return one


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "published"
    monkeypatch.setattr(paths, "published", lambda name: folder / name)
    return folder


def test_a_published_run_is_whole_and_says_nothing_of_this_machine(
    measured: study.Study, published: Path
) -> None:
    publish(measured)
    folder = published / "other"
    names = {path.stem for path in (folder / "tables").iterdir()}
    assert {"angular_distances", "untrained_distances", "qa", "loss", "verdicts"} <= names
    assert (folder / "tables/qa.csv").read_bytes() == (
        paths.tables("other") / "qa.csv"
    ).read_bytes()
    for path in folder.rglob("*.*"):
        assert str(Path(measured.file).parent) not in path.read_text("utf-8")
    records = [json.loads(line) for line in (folder / "evidence.jsonl").read_text().splitlines()]
    kinds = {"distances", "qa", "loss", "healing", "writing", "cost", "layers", "lens"}
    assert {record["kind"] for record in records} == kinds
    assert "of older settings" not in {record["name"] for record in records}
    for record in records:
        checksum = record.pop("checksum")
        assert checksum == digest(record, 64)
    about = json.loads((folder / "study.json").read_text())
    assert (about["title"], about["sign"]) == ("Another run", measured.sign)
    assert about["records"] == len(records)
    assert about["settings"]["healing"]["rank"] == measured.healing.rank


def test_what_jobs_took_is_published_with_it(measured: study.Study, published: Path) -> None:
    publish(measured)
    assert not (published / "other/runs.jsonl").exists()  # there were none
    run = {"job": "site", "seconds": 3.5, "threads": 2, "processor": "Slow", "gpus": 0}
    lines = [run | {"ended": "well"}, run | {"ended": f"cannot write {measured.file}"}]
    file = paths.results("other") / "jobs" / "runs.jsonl"
    file.parent.mkdir()
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"job": "cut o')
    publish(measured)
    text = (published / "other/runs.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == [
        run | {"ended": ended} for ended in ("well", "not well")
    ]
    file.unlink()


def test_publishing_again_leaves_nothing_of_before(measured: study.Study, published: Path) -> None:
    publish(measured)
    (published / "other/tables/old.csv").write_text("n\n")
    publish(measured)
    assert not (published / "other/tables/old.csv").exists()


def everything(folder: Path) -> dict[str, bytes]:
    """The files of all published runs, as a reader finds them."""
    found = [path for run in folder.glob("[!.]*") for path in run.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize("at", ["tables/qa.csv", "study.json"])
def test_a_run_that_cannot_be_published_to_its_end_leaves_the_old_one(
    measured: study.Study, published: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    publish(measured)
    (published / "other/tables/old.csv").write_text("n\n")
    before, replace = everything(published), os.replace

    def full(partial: Path, path: Path) -> None:
        if str(path).endswith(at):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(partial, path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(UserError, match="no space left to write"):
            publish(measured)
    assert everything(published) == before
    assert list(published.iterdir()) == [published / "other"]
    publish(measured)
    assert "other/tables/old.csv" not in everything(published)


def test_a_kill_while_publishing_leaves_the_old_run_or_the_new_one(
    measured: study.Study, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(measured)
    whole = everything(published)
    (published / "other/tables/old.csv").write_text("n\n")
    old = everything(published)
    seen = []

    def looking(name: str) -> None:
        original = getattr(os, name)

        def look(*arguments: object, **options: object) -> object:
            seen.append(everything(published))  # what a kill at this moment leaves
            return original(*arguments, **options)

        monkeypatch.setattr(os, name, look)

    for name in ("replace", "rename", "rmdir", "unlink", "fsync"):
        looking(name)
    publish(measured)
    assert everything(published) == whole
    assert old in seen and whole in seen and all(one in (old, whole) for one in seen)


def test_an_unfinished_run_is_refused_and_leaves_the_old_one(
    measured: study.Study, published: Path, tmp_path: Path, write_study: Studies
) -> None:
    publish(measured)
    later = measured.model_copy(
        update={"healing": measured.healing.model_copy(update={"steps": 3})}
    )
    with pytest.raises(UserError, match="has not been measured; `make book`"):
        publish(later)
    assert (published / "other/tables/qa.csv").exists()


def test_reference_runs_are_read_under_their_titles(
    measured: study.Study, published: Path, tmp_path: Path, write_study: Studies
) -> None:
    publish(measured)
    mine = OpenStudy(study.load(str(write_study(tmp_path, controls={"studies": ["other"]}))))
    found = tables.reference_runs(mine, "optimal_blocks")
    assert set(found["run"]) == {"Another run"}
    assert found["start"].tolist() == optimal_blocks(OpenStudy(measured))["start"].tolist()
    own = pd.DataFrame({"n": [1, 2], "start": [3, 4]})
    wide = controls.with_references(mine, "optimal_blocks", own, "start")
    assert list(wide.columns) == ["n", "mine", "Another run"]
    assert wide["mine"].tolist()[:2] == [3, 4]
    alone = OpenStudy(study.load(str(write_study(tmp_path))))
    assert len(tables.reference_runs(alone, "optimal_blocks")) == 0


def test_controls_that_are_not_there_or_cannot_be_told_apart_are_refused(
    measured: study.Study, published: Path, tmp_path: Path, write_study: Studies
) -> None:
    publish(measured)
    absent = study.load(str(write_study(tmp_path, controls={"studies": ["nosuch"]})))
    with pytest.raises(UserError, match=r"no run 'nosuch' in published/; there are other"):
        check.check(absent)
    same = write_study(tmp_path, title="Another run", controls={"studies": ["other"]})
    with pytest.raises(UserError, match="the same title"):
        check.check(study.load(str(same)))


def test_the_untrained_twin_has_other_weights_and_is_always_the_same(
    measured: study.Study,
) -> None:
    opened = OpenStudy(measured)
    trained, twin = angular_distances(opened), untrained_distances(opened)
    assert list(twin.columns) == list(trained.columns)
    assert twin[["n", "start"]].equals(trained[["n", "start"]])
    assert (twin["distance"] - trained["distance"]).abs().max() > 1e-3
    first, second = (checkpoints.untrained_twin(measured).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    without = measured.model_copy(
        update={"controls": measured.controls.model_copy(update={"untrained": False})}
    )
    assert untrained_distances(OpenStudy(without)) is None
