"""This run against the published one: what agrees, and that whatever was edited is named."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from compare_runs import Runs, runs, whole  # noqa: F401

from lib import compare
from lib import study as studies

# ruff: noqa: F811 (fixtures are imported)

AGREE = "study mine: this run and the published one agree in all 65 records"


def outcome(runs: Runs, capsys: pytest.CaptureFixture) -> tuple[int, str]:
    code = compare.main(["--study", runs.study])
    out, err = capsys.readouterr()
    assert err == ""
    return code, out


def part(out: str, title: str) -> list[str]:
    """The lines under one title, each unfolded."""
    (found,) = (block for block in out.split("\n\n") if block.startswith(f"{title}\n"))
    assert max(map(len, found.splitlines())) <= 100
    return [line.strip() for line in found.replace("\n      ", " ").splitlines()[1:]]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit_cell(path: Path, row: int, column: str, value: str) -> str:
    """Replace a cell (row 0 is the first one below the header); returns what stood there."""
    with open(path, newline="") as file:
        table = list(csv.reader(file))
    at = table[0].index(column)
    table[row + 1][at], before = value, table[row + 1][at]
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(table)
    return before


def place(runs: Runs, side: str, kind: str, healed: bool) -> int:
    """Where among its kind the first published record of an unhealed or healed model stands."""
    if side == "own":
        paths = sorted((runs.own / "evidence" / kind).glob("*.json"))
        records = [json.loads(path.read_text()) for path in paths]
    else:
        lines = (runs.published / "evidence.jsonl").read_text().splitlines()
        records = [one for one in map(json.loads, lines) if one["kind"] == kind]
    return [
        bool(one["inputs"].get("healing")) == healed and "question_free" not in one["inputs"]
        for one in records
    ].index(True)


# What agrees.


def test_a_run_agrees_with_itself_and_neither_side_is_touched(runs, capsys, build_dir, tmp_path):
    before = files(runs.own) | files(runs.published)
    code, out = outcome(runs, capsys)
    assert code == 0
    assert out.splitlines()[-1] == AGREE
    for line in part(out, "Records")[1:7]:
        _, total, equal, *others = line.split()
        assert total == equal
        assert set(others) == {"–"}
    assert "≠" not in out.replace(compare.CLAIMS, "")
    assert files(runs.own) | files(runs.published) == before
    report = (build_dir / "compare" / "mine.md").read_text()
    assert out.splitlines()[-2] == f"report: {build_dir / 'compare' / 'mine.md'}"
    assert AGREE in report
    assert "torch" in report
    assert str(tmp_path.parent) not in report
    assert str(Path(runs.study).parent) not in report


def test_healed_models_of_other_threads_are_compared_by_chance(runs, capsys):
    def other_threads(record):
        record["provenance"]["threads"] = 7

    runs.change_all(other_threads)
    code, out = outcome(runs, capsys)
    assert code == 0
    assert "of other surroundings" not in out  # equal to the last digit, so there is nothing to say
    assert "comparisons by chance: 28;" in out  # 9 healed models' losses and answers, prompts too
    assert "7 threads (66)" in out


def test_what_a_machine_decides_is_shown_and_not_judged(runs, capsys):
    def slower(record):
        record["inputs"] |= {"device": "Other", "threads": 64}
        record["name"] = f"{record['name'].rsplit(' ', 2)[0]} Other"
        record["value"] |= {"device": "Other", "threads": 64}
        for model in record["value"]["models"]:
            model["read"] = [2 * seconds for seconds in model["read"]]

    for which in (0, 1):
        runs.change("own", "cost", slower, which=which)
    (runs.own / "tables" / "cost.csv").unlink()  # as the section would write it anew
    code, out = outcome(runs, capsys)
    assert code == 0
    assert sum("read 2.00 and write 1.00 times" in line for line in part(out, "Not judged")) == 2

    def heavier(record):
        record["value"]["models"][1]["bytes"] += 4

    runs.change("own", "cost", heavier)
    code, out = outcome(runs, capsys)
    assert code == 1
    assert any("models[1].bytes" in line for line in part(out, "Different: published / this run"))


# What was edited.


@pytest.mark.parametrize("side", ["own", "published"])
def test_an_edited_record_is_named(side, runs, capsys):
    def edit(record):
        record["value"]["loss"] = 9.25

    record = runs.change(side, "loss", edit, forged=False)
    code, out = outcome(runs, capsys)
    assert code == 1
    place = "results/mine/evidence/loss/" if side == "own" else "published/mine/evidence.jsonl:"
    (line,) = part(out, "Damaged or edited")
    assert line.startswith(place)
    assert "edited: its checksum does not match" in line
    assert f"loss '{record['name']}'" in line
    assert "loss 9.25 / " in line
    assert "damaged or edited records: 1" in out.splitlines()[-1]
    assert "Not measured here" not in out


@pytest.mark.parametrize("side", ["own", "published"])
@pytest.mark.parametrize(
    ("name", "column"), [("loss", "loss"), ("qa", "accuracy"), ("verdicts", "verdict")]
)
def test_an_edited_table_is_named(side, name, column, runs, capsys):
    folder = runs.own if side == "own" else runs.published
    value = "reproduced" if name == "verdicts" else "0.125"
    before = edit_cell(folder / "tables" / f"{name}.csv", 2, column, value)
    code, out = outcome(runs, capsys)
    assert code == 1
    (line,) = part(out, "Tables")
    where = "results" if side == "own" else "published"
    assert line.startswith(f"{where}/mine/tables/{name}.csv line 4 (")
    assert line.endswith(f"): {column} is {value}, its records give {before}")
    assert "faults in tables: 1" in out.splitlines()[-1]


def test_only_this_runs_rows_count_where_other_runs_stand_too(runs, capsys):
    path = runs.own / "tables" / "unpruned.csv"
    with open(path, "a") as file:
        file.write("Another run,quiz,0,0.5,0.1,24,0.25,0.25,,\n")
    assert outcome(runs, capsys)[0] == 0
    edit_cell(path, 0, "question_free", "0.99")
    code, out = outcome(runs, capsys)
    assert code == 1
    assert "unpruned.csv line 2 (run mine, task quiz" in part(out, "Tables")[0]
    (free,) = (runs.own / "evidence" / "qa").glob("question-free*.json")
    free.unlink()
    code, out = outcome(runs, capsys)
    assert code == 1
    assert part(out, "Tables") == [
        "results/mine/tables/unpruned.csv: its row for this run does not follow from the records"
    ]


@pytest.mark.parametrize("side", ["own", "published"])
def test_a_new_checksum_does_not_help(side, runs, capsys):
    def lower(record):
        record["value"]["loss"] *= 1.0001

    def nearer(record):
        record["value"]["table"]["distance"][3] *= 0.999

    def claim_more(record):
        record["value"]["accuracy"] += 0.25

    record = runs.change(side, "loss", lower, which=place(runs, side, "loss", healed=False))
    runs.change(side, "distances", nearer)
    runs.change(side, "qa", claim_more)
    code, out = outcome(runs, capsys)
    assert code == 1
    differ = part(out, "Different: published / this run")
    assert len(differ) == 2
    assert any(line.startswith(f"loss '{record['name']}': loss ") for line in differ)
    assert any("table.distance[3]" in line for line in differ)
    (line,) = part(out, "Damaged or edited")
    assert "its own answers give" in line
    tables = "\n".join(part(out, "Tables"))
    assert "tables/loss.csv line" in tables
    assert "tables/angular_distances.csv line" in tables


def test_one_answer_changed_with_all_that_follows_is_named(runs, capsys):
    def cheat(record):
        value = record["value"]
        answers = value["correct"]["quiz"]
        value["correct"]["quiz"] = answers.replace("0", "1", 1)
        share, count = (answers.count("1") + 1) / len(answers), len(answers)
        value |= {"accuracy": share, "stderr": (share * (1 - share) / (count - 1)) ** 0.5}

    runs.change("own", "qa", cheat, which=place(runs, "own", "qa", healed=False))
    code, out = outcome(runs, capsys)
    assert code == 1
    (line,) = part(out, "Different: published / this run")
    assert line.endswith("1 are right in one run only, 0 may be")


def test_records_taken_out_put_in_or_torn_are_named(runs, capsys):
    path = runs.published / "evidence.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[-1]]) + "\n")
    code, out = outcome(runs, capsys)
    assert code == 1
    assert part(out, "Damaged or edited")[0].startswith(
        "published/mine/evidence.jsonl:66: of the same inputs as one before it"
    )
    path.write_text("\n".join(lines[:-1]) + "\n")
    code, out = outcome(runs, capsys)
    assert code == 1
    assert "evidence.jsonl: has 64 records, study.json says 65" in part(out, "Tables")[0]
    path.write_text("\n".join(lines)[:-50])
    code, out = outcome(runs, capsys)
    assert code == 1
    assert part(out, "Damaged or edited") == [
        "published/mine/evidence.jsonl:65: cut off or not JSON"
    ]
    (runs.published / "study.json").write_text("{}")
    assert "study.json: missing, damaged" in "\n".join(part(outcome(runs, capsys)[1], "Tables"))


def test_records_of_another_form_are_named_and_break_nothing(runs, capsys):
    def empty(record):
        record["value"] = {"loss": "low"}

    runs.change("published", "loss", empty)
    code, out = outcome(runs, capsys)
    assert code == 1
    assert len(part(out, "Different: published / this run")) == 1
    assert "loss.csv" in "\n".join(part(out, "Tables"))


@pytest.mark.parametrize("side", ["own", "published"])
@pytest.mark.parametrize(
    ("part_of", "key", "value"),
    [
        ("inputs", "length", float("nan")),
        ("provenance", "processor", 5),
        ("provenance", "packages", ["torch"]),
    ],
)
def test_odd_parts_of_an_edited_record_break_nothing(side, part_of, key, value, runs, capsys):
    def edit(record):
        record[part_of][key] = value
        record["value"]["loss"] = 9.25

    runs.change(side, "loss", edit, forged=False)
    code, out = outcome(runs, capsys)
    assert code == 1
    assert "edited: its checksum does not match" in part(out, "Damaged or edited")[0]
    if part_of == "provenance":
        runs.change(side, "writing", edit)
        assert len(part(outcome(runs, capsys)[1], "Damaged or edited")) == 2


def test_lines_that_are_no_records_are_named(runs, capsys):
    path = runs.published / "evidence.jsonl"
    path.write_text(path.read_text() + "[1]\n")
    code, out = outcome(runs, capsys)
    assert code == 1
    assert part(out, "Damaged or edited") == ["published/mine/evidence.jsonl:66: not of schema 1"]


# Another or a shorter run.


def resettled(runs: Runs, folder: Path) -> tuple[dict, Path]:
    """The settings with whole paths, and where to write them as a study of the same name."""
    settings, old = yaml.safe_load(Path(runs.study).read_text()), Path(runs.study).parent
    for key in ("validation_text", "healing_text"):
        settings[key]["path"] = str((old / settings[key]["path"]).resolve())
    settings["task_path"] = str((old / settings["task_path"]).resolve())
    return settings, folder / "mine.yaml"


def test_records_of_another_checkpoint_are_not_this_studys(runs, capsys, tmp_path):
    settings, study = resettled(runs, tmp_path)
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(settings["model"], checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    study.write_text(yaml.safe_dump(settings | {"model": str(checkpoint)}))
    shutil.rmtree(runs.own / "tables")
    code, out = outcome(runs._replace(study=str(study)), capsys)
    assert code == 1
    assert out.splitlines()[-1].endswith("do not agree (records not measured here: 65)")
    shutil.rmtree(checkpoint)
    assert compare.main(["--study", str(study)]) == 1
    assert "no checkpoint there" in capsys.readouterr().err


def test_a_shifted_loss_of_a_healed_model_is_found_by_numbers_or_by_chance(runs, capsys):
    def shift(factor):
        def change(record):
            record["value"]["loss"] *= factor

        return change

    (runs.own / "tables" / "loss.csv").unlink()  # as it would be written from these
    healed = place(runs, "own", "loss", healed=True)
    slightly = runs.change("own", "loss", shift(1.001), which=healed)
    out = outcome(runs, capsys)[1]
    assert "records that differ: 1" in out

    def other_threads(record):
        record["provenance"]["threads"] = 7

    runs.change_all(other_threads)
    assert "records that differ" not in outcome(runs, capsys)[1]
    runs.change("own", "loss", shift(3), which=healed)
    code, out = outcome(runs, capsys)
    assert code == 1
    (line,) = part(out, "Different: published / this run")
    assert line.startswith(
        f"loss '{slightly['name']}' seed {slightly['inputs']['healing']['seed']}"
    )
    assert line.endswith("beyond chance among 28 comparisons")


def test_what_is_missing_is_counted_and_named(runs, capsys):
    gone = sorted((runs.own / "evidence" / "loss").glob("*.json"))[:2]
    names = [json.loads(path.read_text())["name"] for path in gone]
    for path in gone:
        path.unlink()
    code, out = outcome(runs, capsys)
    assert code == 1
    first, *others = part(out, "Not measured here")
    assert first == "2 loss: `make book STUDY=path/to/mine.yaml` measures them"
    assert [line.split("'")[1] for line in others] == names
    assert "records not measured here: 2" in out.splitlines()[-1]


def test_records_of_other_inputs_are_paired_by_name(runs, capsys, tmp_path):
    settings, study = resettled(runs, tmp_path)
    settings["loss"]["length"] = 24
    study.write_text(yaml.safe_dump(settings))

    def shorter(record):
        if record["kind"] == "loss" and "sample" in record["inputs"]:
            record["inputs"]["sample"]["length"] = 24

    runs.change_all(shorter)
    code, out = outcome(runs._replace(study=str(study)), capsys)
    assert code == 0
    assert part(out, "Of other inputs") == [
        "14 loss, judged by chance where they can be: sample.length"
    ]


def test_where_there_is_nothing_to_compare_one_line_says_so(
    runs, capsys, write_study, tmp_path, monkeypatch
):
    def error(study) -> str:
        assert compare.main(["--study", str(study)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        return err

    other = write_study(tmp_path, stem="other")
    assert error(other) == (
        "error: study other: no run 'other' in published/ to compare with; there are mine\n"
    )
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "nothing"))
    assert error(runs.study) == (
        "error: study mine: nothing measured here to compare; `make book STUDY=…` does that\n"
    )
    assert error("nosuch").startswith("error: unknown study 'nosuch'")
    assert not (tmp_path / "nothing").exists()


def test_a_report_is_no_markup_whatever_texts_say(runs):
    one = compare.Comparison(False, "no", {"Tables": ["text is ```\n# @all <b>"]})
    found = compare.report(studies.load(runs.study), one)
    assert "\n````text\ntext is ```\n# @all <b>\n````\n" in found
