"""The pass that unhealed prunings share, split among jobs: whoever takes which shard, and whatever
is killed, the records are those of one job that did everything."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Studies, sentences, write_jsonl
from test_graph import PACE

from lib import study as studies
from lib.book import graph, jobs, plan
from lib.evidence.journal import Journal
from lib.experiments.opened import OpenStudy
from lib.models.checkpoints import load_config


@pytest.fixture(scope="module")
def file(write_study: Studies, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_jsonl(folder / "tales.jsonl", [{"text": text} for text in sentences(20, 500)])
    return write_study(
        folder,
        healing="none",
        batch=2,
        writing={"n_prompts": 2, "tokens": 3},
        other_texts=[{"name": "tales", "path": "./tales.jsonl", "loss": True}],
    )


def listed(file: Path, shards: int, grain: str = "models") -> list[graph.Job]:
    chosen = studies.load(str(file))
    return jobs.listed(plan.Planned(chosen, load_config(chosen)), PACE, grain, 1, shards)


def run(file: Path, found: list[graph.Job]) -> None:
    chosen = studies.load(str(file))
    for job in found:
        if plan.UNHEALED in job.name:
            jobs.run(chosen, job)


def recorded(results: Path) -> dict[str, Any]:
    found = {}
    for path in results.glob("mine/evidence/*/*.json"):
        record = json.loads(path.read_text())
        if record["kind"] in ("qa", "loss", "writing"):
            found[path.name] = record["value"]
    return found


@pytest.fixture(scope="module")
def whole(file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By one job."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULTS_DIR", str(tmp_path_factory.mktemp("whole")))
        run(file, listed(file, 1))
        found = recorded(Path(OpenStudy(studies.load(str(file))).store.folder.parent.parent))
    return found


@pytest.mark.parametrize("count", [1, 4, 7])
def test_shards_give_the_records_of_one_job(
    file: Path, whole: dict[str, Any], results_dir: Path, count: int
) -> None:
    """The second to begin is killed in the middle and started again; the third never begins."""
    found = listed(file, count)
    mine = [job for job in found if job.share]
    assert len(mine) == (count if count > 1 else 0)
    run(file, mine[:2])
    assert not recorded(results_dir)
    if count > 1:
        unfinished = [*results_dir.glob(f"mine/**/*.2-of-{count}")]
        assert len(unfinished) == 3  # of the questions, and of both texts
        for path in unfinished:
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(lines[: len(lines) // 2]) + lines[-1][:30])
        run(file, [mine[1], *mine[3:]])
    run(file, [job for job in found if not job.share])
    assert recorded(results_dir) == whole
    assert not [*results_dir.glob("mine/**/*-of-*")]


def test_the_longest_chain_is_shorter_and_all_else_is_as_it_was(file: Path) -> None:
    one, four = listed(file, 1), listed(file, 4)
    of_shards = [job for job in four if job.share]
    assert [job.share for job in of_shards] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    before, after = ({job.name: job for job in jobs_} for jobs_ in (one, four))
    assert {*after} - {*before} == {job.name for job in of_shards}
    put_together = after[plan.UNHEALED]
    assert {*put_together.needs} - {*before[plan.UNHEALED].needs} == {job.name for job in of_shards}
    assert sum(job.seconds for job in of_shards) == pytest.approx(before[plan.UNHEALED].seconds)
    assert put_together.seconds == 0
    waiting = [job for job in four if {*job.needs} & {one.name for one in of_shards}]
    assert waiting == [put_together]
    assert not [job for job in listed(file, 4, "sections") if job.share]


def test_a_graph_keeps_shares(file: Path, build_dir: Path) -> None:
    found = listed(file, 2)
    chosen = studies.load(str(file))
    graph.save(graph.judged(chosen, "c", found, {}))
    assert {job.name: job.share for job in found} == {
        name: job.share for name, job in graph.load("mine").jobs.items()
    }


def test_a_journal_in_a_folder_with_odd_names(tmp_path: Path) -> None:
    path = tmp_path / "a[1]*" / "journal.jsonl"
    for number, key in ((1, "one"), (3, "two")):
        Journal(path, (number, 3)).add([(key, [(float(number), True)])])
    Journal(path).add([("three", [(3.0, False)])])
    assert Journal(path).known.keys() == {"one", "two", "three"}
    assert Journal(path, (2, 3)).share_of(list(range(8))) == [1, 4, 7]
    Journal(path).finish()
    assert not path.parent.exists()
