"""What runs took and what studies would take, against sums and counts by hand."""

import json
import random
from pathlib import Path

import pytest
from conftest import Studies
from run_records import ON_GPU, run, write

from lib import study as studies
from lib.book import costs, took
from lib.book.costs import Estimate, Piece, schedule, sharded
from lib.schema import Study


@pytest.fixture
def mine(tmp_path: Path, write_study: Studies) -> Study:
    return studies.load(str(write_study(tmp_path)))


def test_jobs_are_summed_by_section_and_kind_of_work(
    results_dir: Path, published_dir: Path, capsys: pytest.CaptureFixture
) -> None:
    write(
        results_dir / "mine",
        run("models-02", 7200.0),
        run("models-02", 1800.0, ended="stopped", peak_memory_bytes=3 * 10**9),
        '{"job": "cut o',
        run("section-02", 20.0),
        run("models-05", 3600.0, **ON_GPU),
        run("simple-3-qlora-r4-seed0", 30.0),
    )
    found = took.tables()
    assert f"{results_dir}/mine/jobs/runs.jsonl, line 3: not the" in capsys.readouterr().err
    (whole,) = found["runs"]
    assert whole == {
        "study": "mine",
        "run": "this clone",
        "time": "3.5 h",  # 7200 + 1800 + 20 + 3600 + 30 = 12,650 s
        "core time": "9.0 h",  # 2 · (7200 + 1800 + 20 + 30) + 4 · 3600 = 32,500 s
        "GPU time": "60.0 min",
        "peak memory": "3 GB",
        "on the GPU": "5 GB",
        "jobs": "5, 1 of them not to the end",
        "on": "Fast, 4 threads; Slow, 2 threads",
    }
    rows = {(row["section"], row["work"]): row for row in found["sections"]}
    assert {key: (row["time"], row["jobs"]) for key, row in rows.items()} == {
        ("02 qa transitions", "models"): ("2.5 h", "2, 1 of them not to the end"),
        ("02 qa transitions", "notebook"): ("20 s", 1),
        ("05 lora rank", "models"): ("60.0 min", 1),
        ("–", "healed models"): ("30 s", 1),
    }
    assert took.tables("another") == {"runs": [], "sections": []}


def test_published_runs_say_nothing_of_the_machine(
    tmp_path: Path, results_dir: Path, published_dir: Path
) -> None:
    failed = run("models-02", 5.0, ended=f"cannot write {tmp_path}/x", host="node7")
    text = took.public([run("site", 3.0), failed])
    assert str(tmp_path) not in text and "node7" not in text
    assert [json.loads(line)["ended"] for line in text.splitlines()] == ["well", "not well"]
    (published_dir / "other").mkdir(parents=True)
    (published_dir / "other" / "runs.jsonl").write_text(text)
    (row,) = took.tables()["runs"]
    assert (row["study"], row["run"], row["time"]) == ("other", "published", "8 s")


def test_a_small_study_against_a_count_by_hand(mine: Study) -> None:
    estimate = Estimate(mine, 1.0)  # an operation a second
    layer = 4 * 64 * 64 - 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64  # two of four heads for keys, values
    jobs = {job.name: job for job in estimate.jobs}
    assert jobs["distances"].seconds == 2 * layer * 8 * 16 * 6  # rows, length, layers
    trained = 2 * 4 * 32  # steps, rows, length
    size, text = estimate.opened.size(mine.tasks[0]), 8 * 32
    head = 2 * estimate.opened.vocab_size * 64
    healed = jobs["simple-3-qlora-r4-seed0"]
    assert healed.work["healing"] == pytest.approx((2 * layer * 3 * 3 + 2 * head) * trained)
    asked = 2 * layer * 3 * (size.read + text) + head * (size.scored + text)
    assert healed.work["healed"] == pytest.approx(asked)
    assert healed.needs == {"distances"}


@pytest.mark.parametrize("gpus", [1, 64])
def test_a_large_model_against_a_count_by_hand(gpus: int) -> None:
    estimate = Estimate(studies.load("llama-2-7b"), 1e15)
    # Four matrices of attention, three of the FFN, two norms; 32 layers; 5,000 steps of 16 rows of
    # 2,048 tokens; two operations forward and four back.
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    whole = 32 * layer * 5000 * 16 * 2048 * 6
    assert whole == 6_366_430_022_860_800_000
    jobs = {job.name: job for job in estimate.jobs}
    head = 32_000 * 4096 * 5000 * 16 * 2048 * 4  # forward, and back to what it reads
    healing = jobs["unpruned-qlora-r2-seed0"].work["healing"]
    assert healing == pytest.approx((whole + head) / 1e15) == pytest.approx(6452.33)
    # The whole model in 16 bits: embeddings and head beside the layers, and the last norm.
    total = 32 * layer + 2 * 32_000 * 4096 + 4096
    assert estimate.memory["unhealed"] == 2 * total
    (row,) = costs.schedule_table(estimate, [gpus])
    if gpus == 1:
        assert row["GPUs in use"] == "100%"
    else:  # the distances, then the longest job, which for unhealed prunings is a shard
        first = jobs["distances"].seconds
        split = sharded(estimate.jobs, gpus)
        assert sum(job.seconds for job in split) == pytest.approx(estimate.seconds)
        for name, given in (("without shards", estimate.jobs), ("time", split)):
            longest = max(job.seconds for job in given if job.needs)
            assert row[name] == f"{(first + longest) / 3600:,.1f} h"


def jobs(*seconds: float) -> list[Piece]:
    return [Piece(str(i), {"work": one}) for i, one in enumerate(seconds)]


def test_the_longest_job_comes_first() -> None:
    # 5 3 on one GPU, 4 3 3 on the other.
    assert schedule(jobs(3, 3, 4, 3, 5), 2) == 10
    assert [schedule(jobs(*[5] * 12), gpus) for gpus in (1, 5, 12, 99)] == [60, 15, 5, 5]
    assert schedule([], 3) == 0
    chain = [Piece("b", {"": 2.0}, frozenset("a")), Piece("a", {"": 1.0}), Piece("c", {"": 2.5})]
    assert [schedule(chain, gpus) for gpus in (1, 2, 3)] == [5.5, 3.0, 3.0]


def test_a_schedule_keeps_the_bound_of_every_list_schedule() -> None:
    draw = random.Random(1)
    for gpus in (2, 3, 8):
        first, *others = jobs(*(draw.uniform(0, 50) for _ in range(60)))
        others = [Piece(one.name, one.work, frozenset([first.name])) for one in others]
        work = sum(job.seconds for job in [first, *others])
        chain = first.seconds + max(job.seconds for job in others)
        found = schedule([first, *others], gpus)
        assert max(chain, work / gpus) <= found <= work / gpus + (1 - 1 / gpus) * chain + 1e-9


def test_the_command_on_one_study(
    results_dir: Path, published_dir: Path, mine: Study, capsys: pytest.CaptureFixture
) -> None:
    write(results_dir / mine.name, run("models-02", 7200.0))
    assert costs.main(["--study", mine.file, "--gpus", "3", "--flops", "1e6"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "2.0 h" in out and "1.0 × 10⁶" in out
    assert all(heading in out for heading in costs.HEADINGS.values())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--gpus", "0"], "error: --gpus: at least 1, not 0"),
        (["--flops", "nan"], "error: --flops: a number above 0, not nan"),
        (["--flops", "-1"], "error: --flops: a number above 0, not -1.0"),
        (["--study", "nosuch"], "error: unknown study 'nosuch'"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture
) -> None:
    assert costs.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(says)
