"""What studies would take, against counts by hand; and the tables that say so."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Studies
from run_records import recipe, record, run, write

from lib import paths
from lib import study as studies
from lib.book import jobs, ladder, plan, rates, schedule
from lib.book.estimates import Estimate
from lib.book.fleet import together
from lib.book.memory import memory
from lib.book.rates import Devices, Rate
from lib.book.text_tables import Table, amount, on_page, power_of_ten, size
from lib.evidence.records import spelled
from lib.evidence.store import Store
from lib.schema import Study


@pytest.fixture
def mine(tmp_path: Path, write_study: Studies) -> Study:
    return studies.load(str(write_study(tmp_path, title="Mine | *own*")))


def test_operations_against_a_count_by_hand(mine: Study) -> None:
    estimate = Estimate(mine)
    layer = 4 * 64 * 64 - 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64  # two of four heads for keys, values
    assert set(estimate.shape.by_layer) == {layer}
    found = {piece.name: piece.flops for piece in estimate.measurements}
    tokens = 2 * 4 * 32  # steps, rows, length
    assert found["simple-3-qlora-r4-seed0-healing"] == 2 * layer * 3 * tokens * 3
    assert found["unpruned-qlora-r4-seed0-healing"] == 2 * layer * 3 * tokens * 6
    assert found["distances"] == 2 * layer * 8 * 16 * 6
    questions = plan.task_size(mine, mine.tasks[0])[1]
    assert found["simple-3-qlora-r4-seed0-0"] == 2 * layer * 3 * questions
    assert found["simple-3-qlora-r4-seed0-1"] == 2 * layer * 3 * 8 * 32  # the loss
    assert found["question-free"] == found["cost"] == 0


@pytest.mark.parametrize("name", ["mine", "llama-2-7b"])
def test_jobs_are_those_of_the_graph_and_their_sum_that_of_the_plan(name: str, mine: Study) -> None:
    study = mine if name == "mine" else studies.load(name)
    estimate = Estimate(study)
    opened, per = estimate.opened, 2 * max(estimate.shape.by_layer)
    wanted = plan.work(opened, plan.Speed(per, 3 * per), plan.sizes(study)[0])
    total = sum(one.seconds for one in wanted)  # at an operation a second
    for pieces in (estimate.models, estimate.measurements):
        assert sum(piece.flops for piece in pieces) == pytest.approx(total)
    assert {(one.name, one.needs) for one in estimate.models} == {
        (job.name, job.needs) for job in jobs.by_model(opened)
    }
    assert {(one.name, one.needs) for one in estimate.measurements} == {
        (job.name, job.needs) for job in jobs.by_measurement(opened)
    }


@pytest.mark.parametrize("change", ["full", "lora"])
def test_other_recipes(change: str, mine: Study) -> None:
    healing = mine.healing.model_copy(update={"recipe": change})
    estimate = Estimate(mine.model_copy(update={"healing": healing}))
    split = [piece.name for piece in estimate.measurements if piece.name.endswith("-healing")]
    assert bool(split) == (change == "lora")
    assert bool(estimate.adapters()) == (change == "lora")
    assert estimate.memory["healing"] >= 4 * estimate.shape.total


def test_a_healing_against_a_count_by_hand() -> None:
    estimate = Estimate(studies.load("llama-2-7b"))
    # Four matrices of attention, three of the FFN, two norms; 32 layers; 5,000 steps of 16 rows of
    # 2,048 tokens; two operations forward and four back.
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    whole = 32 * layer * 5000 * 16 * 2048 * 6
    assert whole == 6_366_430_022_860_800_000
    pieces = {piece.name: piece for piece in estimate.measurements}
    assert pieces["unpruned-qlora-r2-seed0-healing"].flops == whole
    (job,) = estimate.scheduled(
        [replace(pieces["unpruned-qlora-r2-seed0-healing"], needs=())], 1e15
    )
    assert (job.seconds, job.saved) == (pytest.approx(6366.43), 600)
    # Distances are measured in one go: 10,000 rows of 2,048 tokens, forward alone.
    assert pieces["distances"].flops == 32 * layer * 10_000 * 2048 * 2
    assert estimate.scheduled([pieces["distances"]], 1e15)[0].saved == math.inf


def test_the_largest_model() -> None:
    estimate = Estimate(studies.load("llama-2-70b"))
    assert estimate.download == estimate.memory["unhealed"] == 2 * 68_976_648_192
    as_planned = memory(estimate.study, estimate.shape)
    assert estimate.memory["healing"] == as_planned["healing"] < 80e9
    short = {piece.name for piece in estimate.models if estimate.holds(piece) > 80e9}
    assert {"distances", "unhealed"} <= short and "unhealed-4bit" not in short
    assert not any("seed" in name for name in short)
    table = ladder.schedule_table(estimate, (1, 512), Devices([]))
    assert "138 GB" in table.notes[0] and f"{len(short)} of the" in table.notes[0]
    work = sum(piece.flops for piece in estimate.models) / (0.4 * 312e12) / 86_400
    days = float(table.rows[0]["GPU days, simulated"])
    assert work <= days <= work * 1.001
    assert table.rows[0]["GPUs in use"] == "100%" and table.rows[1]["GPUs in use"] == "1%"
    assert table.rows[1]["time, simulated"] == table.rows[1]["longest chain, estimated"]


def test_jobs_that_need_too_much_say_how_much() -> None:
    """Where all weights are trained, healing takes more than the whole model: value, gradient and
    two moments in 32 bits, beside activations."""
    study = studies.load("llama-2-13b")
    healing = study.healing.model_copy(update={"recipe": "full"})
    estimate = Estimate(study.model_copy(update={"healing": healing}))
    (note,) = ladder.schedule_table(estimate, (1,), Devices([])).notes
    needed = max(estimate.holds(piece) for piece in estimate.models)
    assert needed > 16 * estimate.shape.total
    assert f"need up to {size(needed)};" in note and "distances" not in note


def test_what_kills_never_let_end_is_said(mine: Study) -> None:
    table = ladder.schedule_table(Estimate(mine), (1,), Devices([], 1.0))
    assert all("not simulated: job " in str(row["with kills, simulated"]) for row in table.rows)


def test_rates_are_operations_over_seconds(
    results_dir: Path, published_dir: Path, mine: Study
) -> None:
    folder = results_dir / mine.name
    (folder / "jobs").mkdir(parents=True)
    (folder / "checkpoint.json").write_text(json.dumps({"file": mine.file}))
    layer = Estimate(mine).shape.by_layer[0]
    value = {"tokens": 1000}

    def healing(start: int, stop: int, made: dict, **changes: Any) -> dict[str, Any]:
        inputs = {"block": [start, stop], "healing": recipe(mine, **changes)}
        return record("healing", f"drop {start}:{stop}", inputs, value, **made)

    cpu = {"processor": "Slow", "threads": 2, "peak_gpu_memory_bytes": None}
    gpu = {"processor": "Fast", "threads": 4, "peak_gpu_memory_bytes": 1}
    found = [
        healing(0, 0, cpu | {"seconds": 3.0}),
        healing(1, 4, cpu | {"seconds": 9.0, "training_seconds": 1.0}),
        healing(1, 4, cpu | {"seconds": 9.0, "training_seconds": None}),  # went on after a kill
        healing(1, 4, cpu | {"seconds": 9.0}, teacher=1.0),
        healing(0, 0, gpu | {"seconds": 0.5}),
        healing(0, 0, cpu | {"seconds": 3.0, "peak_gpu_memory_bytes": 0}),  # beside an idle GPU
        record("loss", "x", {"block": [0, 0], "healing": None}, {"loss": 1}, **cpu, seconds=5.0),
    ]
    pairs = [(mine.name, one) for one in found] + [("gone", found[0])]
    slow, fast = rates.measured_rates(pairs)
    assert slow.flops == pytest.approx(6 * 1000 * layer * (6 + 3 + 6) / (2 * (3.0 + 1.0 + 3.0)))
    assert (slow.healings, slow.hardware, slow.on_gpu) == (3, "Slow, 2 threads", False)
    assert fast.flops == pytest.approx(6 * 1000 * layer * 6 / 0.5)
    assert fast.on_gpu and fast.title == mine.title
    devices = Devices([slow, fast])
    assert devices.flops(mine.name) == (fast.flops, "measured")
    assert devices.flops("other") == (0.4 * 312e12, "assumed")
    assert Devices([slow, fast], 7.0).flops(mine.name) == (7.0, "given")
    assert devices.per_core(mine.name) == slow.flops and devices.per_core("other") is None


def test_the_embedded_models_rate_stands_for_others() -> None:
    one = Rate(paths.DEFAULT_STUDY, "", "Slow", False, 3, 5.0)
    assert Devices([one]).per_core("llama-2-7b") == 5.0


def test_evidence_at_hand_is_the_clones_own_where_there_is_some(
    results_dir: Path, published_dir: Path
) -> None:
    made = {"seconds": 1.0}
    lines = [record("loss", "of before", {"a": i}, {"loss": i}, **made) for i in range(3)]
    for name in ("one", "two"):
        (published_dir / name).mkdir(parents=True)
        text = "".join(spelled(line) + "\n" for line in lines) + "cut off\n"
        (published_dir / name / "evidence.jsonl").write_text(text)
    Store(results_dir / "two").put("loss", "now", {"a": 9}, {"loss": 1.0})
    names = [(name, one["name"]) for name, one in rates.evidence_at_hand()]
    assert names == [("one", "of before")] * 3 + [("two", "now")]


def test_sizes_of_records() -> None:
    qa = [
        record("qa", "a", {}, {"n_questions": n, "correct": "1" * n}, seconds=1) for n in (10, 500)
    ]
    loss = [record("loss", "b" * n, {}, {"loss": 1}) for n in (1, 3)]
    table = record("distances", "c", {}, {"table": {"n": [1, 2, 3]}})
    found = rates.record_bytes(("x", one) for one in [*qa, *loss, table])
    assert found["loss"] == (sum(len(spelled(one)) for one in loss) / 2, 0.0)
    fixed, per = found["qa"]
    assert per == 1.0 and fixed == pytest.approx(len(spelled(qa[0])) - 10, abs=1)
    assert found["distances"] == (pytest.approx(0), len(spelled(table)) / 3)


def test_many_studies_at_once(mine: Study) -> None:
    one = Estimate(mine)
    kinds = {kind for kind, _ in one.records()}
    sizes = [("x", record(kind, "", {}, {"n_questions": 0, "table": {"n": [1]}})) for kind in kinds]
    devices = Devices([], 1e9)
    found = together([(one, 3), (one, 2)], devices, sizes)
    alone = one.scheduled(one.models, 1e9)
    assert len(found.jobs) == 5 * len(alone)
    for i, job in enumerate(found.jobs):  # each needs jobs of its own checkpoint
        own, first = i % len(alone), i - i % len(alone)
        assert job == alone[own]._replace(needs=tuple(first + n for n in alone[own].needs))
    work = 5 * sum(job.start + job.seconds for job in alone)
    plain = schedule.simulate(found.jobs, 4)
    assert plain.gpu_seconds == pytest.approx(work)
    assert plain.makespan >= max(work / 4, max(schedule.until_end(alone)))
    healed = [part for part in one.parts.values() if part.healed]
    assert found.stored.healed == 5 * len(healed)
    expected = [part.conditions[0].healing.rank * 3 * (64 + 128) * 4 for part in healed]
    kept = [6 - part.conditions[0].dropped.n for part in healed]
    assert found.stored.adapters == 5 * sum(a * n for a, n in zip(expected, kept, strict=True))
    assert found.stored.records == 5 * len(list(one.records()))
    assert found.stored.evidence > 0 and found.stored.download == 0
    assert found.files == found.stored.records + 3 * found.stored.healed + len(found.jobs)
    assert together([(one, 1)], devices, []).stored.evidence is None


def test_records_are_as_many_as_a_study_makes(mine: Study) -> None:
    kinds = [kind for kind, _ in Estimate(mine).records()]
    parts = Estimate(mine).parts.values()
    models = sum(len(part.conditions) for part in parts)
    assert kinds.count("loss") == models
    assert kinds.count("healing") == sum(part.healed for part in parts)
    assert kinds.count("distances") == 2  # and the untrained twin's


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--gpus", "0"], "error: --gpus: at least 1, not 0"),
        (["--flops", "nan"], "error: --flops: at least 1, not nan"),
        (["--flops", "0"], "error: --flops: at least 1, not 0.0"),
        (["--study", "nosuch"], "error: unknown study 'nosuch'"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture
) -> None:
    assert ladder.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(says)


def test_the_command_on_one_study(
    results_dir: Path,
    published_dir: Path,
    mine: Study,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    failed = run("section-02", 5.0, ended=f"failed in {tmp_path}")
    write(results_dir / mine.name, run("models-02", 90.0), failed)
    assert ladder.main(["--study", mine.file, "--gpus", "3", "--flops", "1e6"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "/" not in out  # a path would have one
    assert "Mine | *own* on many GPUs" in out and "Open models" not in out
    total = sum(piece.flops for piece in Estimate(mine).models)
    hours = (total / 1e6 + jobs.COST + jobs.FREE) / 3600
    assert f"{amount(hours)} " in out and power_of_ten(total) in out and "given" in out


def test_the_page_includes_every_table(
    tmp_path: Path, results_dir: Path, published_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = studies.load("smollm2-135m")
    monkeypatch.setattr(ladder, "family", lambda base: [small] if base == small.name else [])
    ladder.write(tmp_path / "tables")
    page = (paths.ROOT / "book" / "cost.md").read_text("utf-8")
    included = re.findall(r"\{include\} tables/(\w+)\.md", page)
    assert sorted(included) == sorted(path.stem for path in (tmp_path / "tables").iterdir())
    for path in (tmp_path / "tables").iterdir():
        assert str(paths.ROOT) not in path.read_text("utf-8")
    fleet = (tmp_path / "tables" / "cost_fleet.md").read_text("utf-8")
    assert "| checkpoints | 300 |" in fleet and "nothing at hand" in fleet
    for name in ("operations", "memory", "schedule", "fleet"):  # what is not measured says so
        head = (tmp_path / "tables" / f"cost_{name}.md").read_text("utf-8").partition("\n")[0]
        assert "estimated" in head and ("simulated" in head) == (name in ("schedule", "fleet"))


def test_titles_are_text_on_the_page() -> None:
    rows = [{"study": "a|b <c> *d*\n# e", "n": 1}]
    text = on_page(Table("x", "X", rows, ["of $a_b$"]))
    lines = text.splitlines()
    assert lines[2].count(" | ") == 1 and "\\|" in lines[2] and "\\<c\\>" in lines[2]
    assert lines[-1] == "of \\$a\\_b\\$"


def test_numbers_in_words() -> None:
    assert [amount(x) for x in (0, 0.0123, 1.25, 99.94, 100, 12345.6)] == [
        "0", "0.0123", "1.25", "99.9", "100", "12,300",
    ]  # fmt: skip
    assert [power_of_ten(x) for x in (0, 312e12, 9.96e13, 5e-324)] == [
        "0.0 × 10⁰", "3.1 × 10¹⁴", "1.0 × 10¹⁴", "4.9 × 10⁻³²⁴",
    ]  # fmt: skip
    assert [size(x) for x in (0, 1500, 3.5e6, 138e9, 2e12)] == [
        "0 kB", "1.5 kB", "3.5 MB", "138 GB", "2 TB",
    ]  # fmt: skip
