"""What runs took: sums of what jobs and measurements have recorded, against sums by hand."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Studies
from run_records import ON_GPU, recipe, run, write

from lib import paths
from lib import study as studies
from lib.book import ladder, spent
from lib.book.estimates import Estimate
from lib.book.text_tables import amount, on_page, on_terminal
from lib.evidence.store import Store
from lib.schema import Study

Written = Callable[..., Path]


@pytest.fixture
def mine(tmp_path: Path, write_study: Studies) -> Study:
    return studies.load(str(write_study(tmp_path, title="Mine | *own*")))


@pytest.fixture
def written(results_dir: Path, published_dir: Path, mine: Study) -> Written:
    """Put records of jobs where a run of the study leaves them."""

    def put(*lines: dict[str, Any] | str) -> Path:
        folder = results_dir / mine.name
        folder.mkdir(parents=True)
        (folder / "checkpoint.json").write_text(json.dumps({"file": mine.file}))
        return write(folder, *lines)

    return put


def test_jobs_are_summed_by_section(written: Written, mine: Study) -> None:
    written(
        run("models-02", 100.0),
        run("models-02", 60.0, ended="stopped", peak_memory_bytes=3 * 10**9),
        run("section-02", 20.0),
        run("models-05", 50.0, **ON_GPU),
        run("section-00", 4.0),
        run("site", 30.0, threads=1),
    )
    (account,) = spent.accounts()
    assert (account.about.title, account.source) == (mine.title, spent.HERE)
    assert account.left_out == []
    assert set(account.sections) == {"00", "02", "05", "site"}
    second = account.sections["02"]
    assert (second.measuring, second.notebook) == (160.0, 20.0)
    assert second.core_seconds == 2 * 180.0 and second.gpu_seconds == 0
    assert (second.memory, second.runs, second.failed) == (3 * 10**9, 3, 1)
    assert account.sections["05"].gpu_seconds == 50.0
    assert account.sections["05"].gpu_memory == 5 * 10**9
    total = account.total
    assert (total.measuring, total.notebook) == (210.0, 54.0)
    assert total.core_seconds == 2 * 180 + 4 * 50 + 2 * 4 + 30
    assert (total.runs, total.failed, total.memory) == (6, 1, 3 * 10**9)
    assert total.hardware == {"Slow, 2 threads", "Slow, 1 thread", "Fast, 4 threads"}


def test_the_table_says_what_the_sums_say(written: Written) -> None:
    written(
        run("models-02", 7200.0),
        run("models-02", 60.0, ended="killed"),
        run("models-05", 3600.0, **ON_GPU),
    )
    whole, sections = ladder.spent_tables()
    (row,) = whole.rows
    assert row["core hours"] == amount((2 * 7260 + 4 * 3600) / 3600) == "8.03"
    assert row["GPU hours"] == "1" and row["measuring"] == "3.0 h"
    assert row["peak memory"] == "1 GB; on the GPU 5 GB"
    assert row["jobs"] == "3, 1 of them not to the end"
    assert row["download, estimated"] == "0 (local)"
    assert [one["section"] for one in sections.rows] == ["02 qa transitions", "05 lora rank"]
    assert sections.rows[0]["jobs"] == "2, 1 of them not to the end"
    assert sections.rows[1]["on"] == "Fast, 4 threads"


@pytest.mark.parametrize("grain", ["models", "measurements"])
def test_every_job_finds_its_section(grain: str, written: Written, mine: Study) -> None:
    estimate = Estimate(mine)
    names = [piece.name for piece in getattr(estimate, grain)]
    written(*(run(name, 1.0) for name in names))
    (account,) = spent.accounts()
    wanted: dict[str, int] = {}
    for name in names:
        parts = [part for part in estimate.parts if re.fullmatch(rf"{part}(-\d+|-healing)?", name)]
        own = {"cost": "09", "question-free": "13"}.get(name, "distances")
        section = estimate.parts[max(parts, key=len)].section if parts else own
        wanted[section] = wanted.get(section, 0) + 1
    assert {key: one.runs for key, one in account.sections.items()} == wanted
    assert {"02", "05", "07", "09", "11", "13", "distances"} == set(wanted)


def test_jobs_of_a_study_that_is_gone_are_kept_apart(
    results_dir: Path, published_dir: Path
) -> None:
    write(results_dir / "gone", run("unhealed-4bit", 1.0), run("simple-2-qlora-r8-seed0", 2.0))
    (account,) = spent.accounts()
    assert account.about.title == "gone"
    assert account.sections[spent.OTHERS].measuring == 2.0
    assert account.sections["02"].measuring == 1.0
    assert next(ladder.spent_tables()).rows[0]["download, estimated"] == "not known"


def test_what_a_study_took_is_shown_where_its_shape_is_not_at_hand(
    tmp_path: Path,
    results_dir: Path,
    published_dir: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    file = tmp_path / "gone.yaml"
    file.write_text("title: Gone\nabout: x\nmodel: ./nowhere\n")
    folder = write(results_dir / "gone", run("models-02", 7200.0), run("simple-1-x", 60.0)).parents[
        1
    ]
    (folder / "checkpoint.json").write_text(json.dumps({"file": str(file)}))
    assert ladder.main(["--study", str(file)]) == 1
    out, err = capsys.readouterr()
    assert "2.0 h" in out and "healed models" in out and "not known" in out
    assert err.startswith("error: model ") and err.count("\n") == 1


def test_damaged_lines_are_left_out_and_said(written: Written) -> None:
    good = json.dumps(run("section-01", 5.0))
    written(
        good,
        good[:40],
        "[]",
        json.dumps({"job": "site"}),
        good.replace("5.0", "-5.0"),
        good.replace("5.0", "Infinity"),
        good.replace("5.0", "true"),
        good.replace("5.0", "1" + "0" * 400),
        json.dumps(run("site", 2.0, processor=["Slow"])),
        "",
        "\x00",
        json.dumps(run("site", 2.0, threads="two")),
        json.dumps(run("site", 2.0, peak_memory_bytes="much")),
        json.dumps(run("site", 2.0) | {"job": 3}),
        good,
    )
    (account,) = spent.accounts()
    assert account.total.runs == 2 and account.total.notebook == 10.0
    (line,) = account.left_out
    assert line.startswith("line 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14 of its record")
    table = next(ladder.spent_tables())
    assert line in table.notes[0] and line in on_terminal(table) and line in on_page(table)


def test_an_empty_record_is_said(written: Written, results_dir: Path) -> None:
    written()
    (account,) = spent.accounts()
    assert account.left_out == ["its record of jobs, which is empty"]
    assert account.total.runs == 0
    (row,) = next(ladder.spent_tables()).rows
    assert row["measuring"] == row["peak memory"] == row["on"] == "–"


def test_a_record_that_cannot_be_read_is_said_once(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, read = written(run("site", 1.0)), Path.read_bytes

    def failing(path: Path) -> bytes:
        if path == file:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    (account,) = spent.accounts()
    assert account.left_out == ["its record of jobs, which cannot be read"]


def test_without_any_run_the_tables_say_so(results_dir: Path, published_dir: Path) -> None:
    assert spent.accounts() == []
    for table in ladder.spent_tables():
        assert "none yet" in on_page(table) and "none yet" in on_terminal(table)


def test_measurements_are_counted_by_what_they_are_of(
    written: Written, results_dir: Path, mine: Study
) -> None:
    written(run("models-02", 1.0))
    store = Store(results_dir / mine.name)
    sections = {
        "02": [None, recipe(mine), recipe(mine, micro_batch=4)],
        "05": [recipe(mine, rank=2)],
        "07": [recipe(mine, seed=7), recipe(mine, seed=8)],
        "11": [recipe(mine, steps=3), recipe(mine, teacher=1.0), recipe(mine, teacher=1.0, seed=7)],
    }
    for healings in sections.values():
        for i, healing in enumerate(healings):
            store.put("loss", f"{i}", {"block": [1, 2], "healing": healing}, {"loss": 1.0})
    store.put("qa", "free", {"block": [0, 0], "healing": None, "question_free": True}, {"a": 1})
    store.put("cost", "cost", {"a": 1}, {"b": 2})
    for name in ("8x16", "untrained 8x16", "letters 8x16"):
        store.put("distances", name, {"text": name}, {"table": {"n": [1]}})
    (account,) = spent.accounts()
    found = {key: one.measurements for key, one in account.sections.items()}
    assert found == {"01": 2, "02": 3, "05": 1, "07": 2, "08": 1, "09": 1, "11": 3, "13": 1}
    broken = next(store.folder.glob("cost/*.json"))
    broken.write_text(broken.read_text()[:-20])
    (account,) = spent.accounts()
    assert account.left_out == ["1 of its measurements, damaged"]
    assert account.total.measurements == 13


def test_distances_that_were_jobs_have_a_row(
    written: Written, results_dir: Path, mine: Study
) -> None:
    written(run("distances", 3.0), run("distances-text-1", 4.0), run("section-01", 1.0))
    Store(results_dir / mine.name).put("distances", "a 8x16", {"a": 1}, {"table": {"n": [1]}})
    (account,) = spent.accounts()
    apart = account.sections["distances"]
    assert (apart.measuring, apart.runs, apart.measurements) == (7.0, 2, 1)


def test_reference_runs_without_records_of_jobs_are_known_by_their_measurements(
    results_dir: Path, published_dir: Path
) -> None:
    """Against sums over the lines of one that is shipped."""
    shipped = paths.ROOT / "published" / "almanac-seed1"
    (published_dir / "older").mkdir(parents=True)
    for name in ("evidence.jsonl", "study.json"):
        shutil.copy(shipped / name, published_dir / "older")
    (account,) = spent.accounts("older")
    lines = (shipped / "evidence.jsonl").read_text("utf-8").splitlines()
    made = [json.loads(line)["provenance"] for line in lines]
    assert account.source == spent.OLDER
    assert account.total.measurements == len(lines)
    assert account.total.measuring == pytest.approx(sum(one["seconds"] or 0 for one in made))
    assert account.total.memory == max(one["peak_memory_bytes"] for one in made)
    assert account.total.notebook == 0 and account.total.runs == 0


def test_published_runs_say_nothing_of_the_machine(
    tmp_path: Path, results_dir: Path, published_dir: Path
) -> None:
    failed = run("models-02", 5.0, ended=f"cannot write {tmp_path}/x", host="node7")
    text = spent.public([run("site", 3.0), failed])
    assert str(tmp_path) not in text and "node7" not in text
    first, second = map(json.loads, text.splitlines())
    assert (first["ended"], second["ended"]) == ("well", "not well")
    assert first["processor"] == "Slow" and first["threads"] == 2 and first["seconds"] == 3.0
    (published_dir / "other").mkdir(parents=True)
    (published_dir / "other" / "runs.jsonl").write_text(text)
    (published_dir / "other" / "evidence.jsonl").write_text("")
    (account,) = spent.accounts()
    assert (account.source, account.left_out) == (spent.PUBLISHED, [])
    assert (account.total.runs, account.total.failed) == (2, 1)
