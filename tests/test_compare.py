"""This run against the published one: what agrees, and that whatever was edited is named."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import yaml

from lib import claims, compare, paths
from lib import study as studies
from lib.book import publish
from lib.book.comparing import edited
from lib.evidence.records import file_of, spelled
from lib.experiments import costs
from lib.experiments.opened import OpenStudy
from lib.sections import controls, tables
from lib.sections.pages import count_verdicts
from lib.statistics import transitions

AGREE = "study mine: this run and the published one agree in all 68 records"
EDITED = "Damaged, edited or out of date"
Change = Callable[[dict[str, Any]], Any]


class Runs(NamedTuple):
    study: str  # its file
    own: Path  # results/mine
    published: Path  # published/mine

    def change(self, side: str, kind: str, change: Change, forged: bool = True) -> str:
        """Change the first record of a kind that is of no healed model, and with `forged` its
        checksum and name too; returns what it was called."""
        own = sorted((self.own / "evidence" / kind).glob("*.json"))
        for path in own if side == "own" else [self.published / "evidence.jsonl"]:
            lines = [path.read_text()] if side == "own" else path.read_text().splitlines()
            for i, record in enumerate(map(json.loads, lines)):
                inputs, name = record["inputs"], record["name"]
                if record["kind"] == kind and not {"rank", "question_free"} & _keys(inputs):
                    lines[i] = _changed(record, change, forged)
                    if side == "own" and forged:
                        path.unlink()
                        path = self.own / "evidence" / file_of(kind, name, inputs)
                    path.write_text("\n".join(lines) + "\n")
                    return name
        raise AssertionError(kind)

    def change_all(self, change: Change) -> None:
        """Change every record of this run, with its checksum."""
        for path in (self.own / "evidence").glob("*/*.json"):
            path.write_text(_changed(json.loads(path.read_text()), change, True))

    def edit(self, side: str, table: str, column: str, value: str, line: int = 4) -> str:
        """Change a cell of a table; returns what stood there."""
        path = (self.own if side == "own" else self.published) / "tables" / f"{table}.csv"
        cells = pd.read_csv(path, dtype=str, keep_default_na=False)
        before, cells.loc[line - 2, column] = cells.loc[line - 2, column], value
        cells.to_csv(path, index=False)
        return before


def _keys(inputs: dict[str, Any]) -> set[str]:
    return inputs.keys() | (inputs.get("healing") or {}).keys()


def _changed(record: dict[str, Any], change: Change, forged: bool) -> str:
    checksum = record.pop("checksum")
    change(record)
    return spelled(record) if forged else json.dumps(record | {"checksum": checksum})


@pytest.fixture(scope="module", autouse=True)
def quick_fits() -> Iterator[None]:
    """Of both sides alike: fits take most of the time, and nothing here is about them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transitions, "RESAMPLES", 5)
        yield


@pytest.fixture(scope="module")
def whole(ablation_study_opened: OpenStudy, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The small study of the ablations, with its costs, its tables, and published."""
    folder, study = tmp_path_factory.mktemp("compared"), ablation_study_opened.study
    shutil.copytree(ablation_study_opened.store.folder.parent, folder / "results" / "mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESULTS_DIR", str(folder / "results"))
        patch.setattr(paths, "published", lambda name: folder / "published" / name)
        opened = OpenStudy(study)
        costs.cost_table(opened)
        for name, make in (publish.TABLES | {"unpruned": controls.unpruned_table}).items():
            table = make(opened)
            if table is not None:
                tables.save(opened, name, table)
        count_verdicts(opened)
        publish.publish(study)
    return Runs(study.file, folder / "results/mine", folder / "published/mine")


@pytest.fixture
def runs(whole: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build_dir: Path) -> Runs:
    """A copy of both runs, which are where `lib` looks for them."""
    for one in (whole.own, whole.published):
        ignored = shutil.ignore_patterns("adapters")
        shutil.copytree(one, tmp_path / one.parent.name / one.name, ignore=ignored)
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setattr(paths, "published", lambda name: tmp_path / "published" / name)
    return Runs(whole.study, tmp_path / "results/mine", tmp_path / "published/mine")


def outcome(runs: Runs, capsys: pytest.CaptureFixture) -> tuple[int, str]:
    code = compare.main(["--study", runs.study])
    out, err = capsys.readouterr()
    assert err == ""
    return code, out


def part(out: str, title: str) -> list[str]:
    """The lines under one title, each unfolded."""
    (found,) = (block for block in out.split("\n\n") if block.startswith(f"{title}\n"))
    return [line.strip() for line in found.replace("\n        ", " ").splitlines()[1:]]


# What agrees.


def test_a_run_agrees_with_itself_and_neither_side_is_touched(runs, capsys, build_dir, tmp_path):
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}

    for claim in claims.papers()["lu"].claims:
        for name in claim.tables:
            (runs.published / "tables" / f"{name}.csv").unlink(missing_ok=True)
    (runs.published / "tables" / "verdicts.csv").write_text(  # of an older run
        pd.read_csv(runs.published / "tables" / "verdicts.csv")
        .query("paper == 'gromov'")  # which was the only one
        .drop(columns="paper")
        .to_csv(index=False)
    )
    before = files()
    code, out = outcome(runs, capsys)
    assert out.splitlines()[-1] == AGREE
    assert code == 0
    for line in part(out, "Records")[2:8]:
        assert line.split()[2:] == ["–"] * 5  # all are equal
    assert "gromov 1: " in part(out, compare.CLAIMS)[0]
    assert "≠" not in out.replace(compare.CLAIMS, "")
    assert {path: text for path, text in files().items() if path in before} == before
    report = (build_dir / "compare" / "mine.md").read_text()
    assert AGREE in report
    assert "torch" in report
    assert str(tmp_path.parent) not in report
    assert str(Path(runs.study).parent) not in report


def test_healed_models_of_other_threads_are_compared_by_chance(runs, capsys):
    runs.change_all(lambda record: record["provenance"].update(threads=7))
    code, out = outcome(runs, capsys)
    assert code == 0
    assert "compared by chance: 28;" in out  # 9 healed models' losses and answers, prompts too


def test_what_a_machine_decides_is_shown_and_not_judged(runs, capsys):
    def slower(record):
        for part in (record["inputs"], record["value"]):
            part |= {"device": "Other", "threads": 64}
            del part["clock"]  # of before there was one
        for model in record["value"]["models"]:
            model["read"] = [2 * seconds for seconds in model["read"]]

    runs.change("own", "cost", slower)
    (runs.own / "tables" / "cost.csv").unlink()  # as the section would write it anew
    code, out = outcome(runs, capsys)
    assert code == 0
    assert sum("read 2.00, write 1.00" in line for line in out.splitlines()) == 1
    runs.change("own", "cost", lambda record: record["value"]["models"][1].update(bytes=4))
    code, out = outcome(runs, capsys)
    assert code == 1
    assert "models[1].bytes" in part(out, "Records that differ")[0]


# What was edited.


@pytest.mark.parametrize("side", ["own", "published"])
def test_an_edited_record_is_named(side, runs, capsys):
    runs.change(side, "loss", lambda record: record["value"].update(loss=9.25), forged=False)
    code, out = outcome(runs, capsys)
    assert code == 1
    place = "results/mine/evidence/loss/" if side == "own" else "published/mine/evidence.jsonl:"
    lines = part(out, EDITED)
    assert lines[0].startswith(place)
    assert "edited: its checksum does not match" in lines[0]
    assert "tables/loss.csv: does not follow from the records" in lines[1]


@pytest.mark.parametrize("side", ["own", "published"])
def test_cells_of_tables_that_do_not_follow_from_records_are_named(side, runs, capsys):
    edits = [("qa", "accuracy", "0.125"), ("loss", "loss", "0.125"), ("verdicts", "verdict", "yes")]
    before = [runs.edit(side, *edit) for edit in edits]
    code, out = outcome(runs, capsys)
    assert code == 1
    where = "results" if side == "own" else "published"
    for line, (table, column, value), stood in zip(part(out, EDITED), edits, before, strict=True):
        assert line.startswith(f"{where}/mine/tables/{table}.csv line 4 (")
        assert line.endswith(f"): {column} is {value}, its records give {stood}")


def test_verdicts_may_say_the_same_numbers_in_other_words(runs, capsys):
    def reworded(text: str) -> str:
        return f"put otherwise: {text}".replace("by +", "by ").replace("differs", "varies")

    path = runs.published / "tables" / "verdicts.csv"
    table = pd.read_csv(path)
    path.write_text(table.assign(reason=table["reason"].map(reworded)).to_csv(index=False))
    assert outcome(runs, capsys)[0] == 0
    row = table["reason"].str.contains(r"\d").idxmax()
    changed = {"reason": "9.75 more", "margins": table["margins"].iloc[0] + ", open"}
    for column, text in changed.items():
        edited = table.copy()
        edited.loc[row if column == "reason" else 0, column] = text
        path.write_text(edited.to_csv(index=False))
        (line,) = part(outcome(runs, capsys)[1], EDITED)
        assert f": {column} is " in line


def test_only_this_runs_rows_count_where_other_runs_stand_too(runs, capsys):
    with open(runs.own / "tables" / "unpruned.csv", "a") as file:
        file.write("Another run,quiz,0,0.5,0.1,24,0.25,0.25,,\n")
    assert outcome(runs, capsys)[0] == 0
    runs.edit("own", "unpruned", "question_free", "0.99", line=2)
    (line,) = part(outcome(runs, capsys)[1], EDITED)
    assert "unpruned.csv line 2 (run mine, task quiz, shots 0): question_free is 0.99" in line


@pytest.mark.parametrize("side", ["own", "published"])
def test_a_new_checksum_does_not_help(side, runs, capsys):
    def nearer(record):
        record["value"]["table"]["distance"][3] *= 0.999

    def lower(record):
        record["value"]["loss"] *= 1.0001

    def claim_more(record):
        record["value"]["accuracy"] += 0.25

    name = runs.change(side, "loss", lower)
    runs.change(side, "distances", nearer)
    runs.change(side, "qa", claim_more)
    code, out = outcome(runs, capsys)
    assert code == 1
    differ = "\n".join(part(out, "Records that differ"))
    assert f"loss '{name}': loss " in differ
    assert "table.distance[3]" in differ
    faults = "\n".join(part(out, EDITED))
    assert "its own answers give" in faults
    assert "tables/loss.csv line" in faults
    assert "tables/angular_distances.csv line" in faults


def test_records_taken_out_put_in_or_torn_are_named(runs, capsys):
    path = runs.published / "evidence.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[-1], "[1]"]) + "\n")
    code, out = outcome(runs, capsys)
    assert code == 1
    assert [line.removeprefix("published/mine/evidence.jsonl") for line in part(out, EDITED)] == [
        ":69: of the same inputs as one before it",
        ":70: not of schema 1",
        ": 70 of 68 records",
    ]
    path.write_text("\n".join(lines)[:-50])
    (runs.published / "study.json").write_text("{}")
    faults = part(outcome(runs, capsys)[1], EDITED)
    assert faults[0] == "published/mine/evidence.jsonl:68: cut off or not JSON"
    assert faults[1].startswith("published/mine/study.json: missing, damaged")


@pytest.mark.parametrize("side", ["own", "published"])
@pytest.mark.parametrize("forged", [True, False])
def test_odd_parts_of_an_edited_record_break_nothing(side, forged, runs, capsys):
    def edit(record):
        record["provenance"] |= {"processor": 5, "packages": ["torch"]}
        record["value"] = {"loss": "low" if forged else float("nan")}

    for kind in ("loss", "qa", "distances", "cost", "writing"):
        runs.change(side, kind, edit, forged=forged)
    code, out = outcome(runs, capsys)
    assert code == 1
    assert "loss.csv" in "\n".join(part(out, EDITED))


# Another or a shorter run.


def test_records_of_another_checkpoint_are_not_this_studys(runs, capsys, tmp_path):
    old, study = Path(runs.study), tmp_path / "mine.yaml"
    settings = yaml.safe_load(old.read_text())
    for key in ("validation_text", "healing_text"):
        settings[key]["path"] = str((old.parent / settings[key]["path"]).resolve())
    settings["task_path"] = str((old.parent / settings["task_path"]).resolve())
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(settings["model"], checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    study.write_text(yaml.safe_dump(settings | {"model": str(checkpoint)}))
    shutil.rmtree(runs.own / "tables")
    code, out = outcome(runs._replace(study=str(study)), capsys)
    assert code == 1
    assert out.splitlines()[-1].endswith("do not agree (records not measured here: 68)")
    shutil.rmtree(checkpoint)
    assert compare.main(["--study", str(study)]) == 1
    assert "no checkpoint there" in capsys.readouterr().err


def test_what_is_missing_is_counted_and_named_and_long_parts_are_cut(runs, capsys, build_dir):
    shutil.rmtree(runs.own / "tables")
    shutil.rmtree(runs.own / "evidence" / "qa")
    code, out = outcome(runs, capsys)
    assert code == 1
    assert out.splitlines()[-1].endswith("do not agree (records not measured here: 34)")
    assert part(out, "Records not measured here")[-1] == "… and 9 more lines, in the report"
    assert (build_dir / "compare" / "mine.md").read_text().count("\n  qa 'quiz") == 34


def test_where_there_is_nothing_to_compare_one_line_says_so(
    runs, capsys, write_study, tmp_path, monkeypatch
):
    def error(study) -> str:
        assert compare.main(["--study", str(study)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        return err

    other = write_study(tmp_path, stem="other")
    assert error(other) == "error: study other: no such run in published/; there are mine\n"
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "nothing"))
    assert error(runs.study).startswith("error: study mine: nothing measured here to compare")
    assert error("nosuch").startswith("error: unknown study 'nosuch'")
    assert not (tmp_path / "nothing").exists()


def test_a_report_is_no_markup_whatever_texts_say(runs):
    one = compare.Comparison(False, "no", {"Tables": ["text is ```", "# @all <b>"]})
    found = compare.report(studies.load(runs.study), one)
    assert "\n````text\nTables\n  text is ```\n  # @all <b>\n````\n" in found


# What lies, with a checksum that fits.

LIES: dict[str, tuple[str, Change]] = {
    "nothing": ("loss", lambda one: one.update(value={})),
    "words": ("loss", lambda one: one["value"].update(loss="low")),
    "a number without end": ("loss", lambda one: one["value"].update(loss=10**400)),
    "half a letter": ("loss", lambda one: one["value"].update(loss=9) or one.update(name="\ud800")),
    "a list": ("distances", lambda one: one["value"].update(table=[1, 2])),
    "other lengths": ("distances", lambda one: one["value"]["table"]["n"].append(3)),
    "answers of no kind": ("qa", lambda one: one["value"].update(correct={"quiz": 3})),
    "no answers": ("qa", lambda one: one["value"].update(correct="")),
    "inputs": ("qa", lambda one: one.update(inputs={"healing": 3, "checkpoint": [[]]})),
    "provenance": ("qa", lambda one: one.update(provenance={"packages": 3, "when": {}})),
    "costs": ("cost", lambda one: one["value"].update(models=[{}])),
    "times": ("cost", lambda one: one["value"]["models"][0].update(read=["long"])),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_record_that_lies_is_a_line(runs, capsys, lie):
    side = ["own", "published"][list(LIES).index(lie) % 2]
    runs.change(side, *LIES[lie])
    code, out = outcome(runs, capsys)
    assert code == (lie != "provenance"), out
    out.encode()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a leads by -5.3 ± 4.0 points", "b leads by 5.3 ± 4.0 points", True),
        ("a leads by -5.3 ± 4.0 points", "a leads by 5.3 ± 4.0 points", False),
        ("1.0 here, 2.0 there", "2.0 here, 1.0 there", False),
        ("0.1 short", "0.1 spare", False),
        ("1-2", "12", False),
        ("same 0.30", "same 0.3", True),
    ],
)
def test_in_the_same_words_signs_and_order_count(one: str, other: str, same: bool) -> None:
    assert edited._same_numbers(one, other) is same
