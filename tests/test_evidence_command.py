"""Listing, verifying and exporting evidence from the command line, and what is mistyped."""

import csv
import json
import os
from pathlib import Path

import pytest
from recorded import content, fill

from lib import paths
from lib.evidence.merging import main
from lib.evidence.records import digest, records, verify


@pytest.fixture
def here(results_dir: Path) -> Path:
    """The results of a study named `here`."""
    return fill(results_dir / "here")


def test_the_list_says_what_is_recorded(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "here"]) == 0
    head, healing, loss, qa, last = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["kind", "name", "numbers"]
    assert "r8" in healing and "train_loss 2…0.5" in healing and " 60.0 " in healing
    assert "drop 1:3 none" in loss and "loss 1.25, stderr 0.5, n_tokens 10" in loss
    assert "1.5" in loss and loss.endswith("2 threads")
    assert "accuracy 0.75" in qa and qa.endswith("1 thread")
    assert last == "3 records: 1 healing, 1 loss, 1 qa; 64 s in all"
    assert main(["list", str(here), "--kind", "qa"]) == 0
    assert "1 record: 1 qa; 2 s in all" in capsys.readouterr().out


def test_what_is_wrong_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "here"]) == 0
    loss, qa = (next(here.glob(f"evidence/{kind}/*.json")) for kind in ("loss", "qa"))
    whole = loss.read_text()
    problems = {
        loss: "edited",
        loss.with_name("copy-0123456789abcdef.json"): "does not fit its inputs",
        qa.with_name(loss.name): "does not fit its inputs",
        qa: "schema 1",
        qa.with_suffix(".damaged"): "set aside",
        loss.with_name("a.12345678.conflict"): "another value",
        loss.with_name("folder.json"): "cannot be read: Is a directory",
        loss.with_name("deep.json"): "not JSON",
    }
    for path in problems.keys() - {loss, qa}:
        path.write_text(whole)
    loss.write_text(whole.replace("1.25", "1.26"))
    qa.write_text(qa.read_text().replace('"schema": 1', '"schema": 7'))
    loss.with_name("folder.json").unlink()
    loss.with_name("folder.json").mkdir()
    loss.with_name("deep.json").write_text("[" * 100_000)
    capsys.readouterr()
    assert main(["verify", "here"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(problems)
    for path, problem in problems.items():
        assert sum(f"{path}: " in line and problem in line for line in said) == 1, path


@pytest.mark.parametrize(
    "line",
    [
        "{}", "[1]", "3", '{"schema": 1}', '{"schema": 1, "value": NaN}', "\xff", "{",
        "[" * 9999,
        *(
            json.dumps(record | {"checksum": digest(record, 64)})
            for record in (
                {"schema": 1},
                {"schema": 1, "kind": "../up", "name": "a", "inputs": {}, "value": {},
                 "provenance": {}},
                {"schema": 1, "kind": "qa", "name": "a", "inputs": {}, "value": 3,
                 "provenance": {}},
            )
        ),
    ],
)  # fmt: skip
def test_a_line_that_is_no_record_is_named(
    here: Path, tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "evidence.jsonl"
    assert main(["export", "here", str(file)]) == 0
    first, *others = file.read_text().splitlines(keepends=True)
    file.write_bytes(first.encode() + line.encode("latin-1") + b"\n\n" + "".join(others).encode())
    found = list(records(file))
    assert [label for label, _, _ in found] == [f"{file}:{number}" for number in (1, 2, 4, 5)]
    assert [problem is None for _, _, problem in found] == [True, False, True, True]
    capsys.readouterr()
    assert main(["verify", str(file)]) == 1
    assert capsys.readouterr().out.startswith(f"evidence {file}:2: ")
    assert main(["list", str(file)]) == 1
    assert "3 records" in capsys.readouterr().out
    target = tmp_path / "target"
    assert main(["merge", str(file), str(target)]) == 1
    assert "1 damaged" in capsys.readouterr().out
    assert content(target) == {k: v for k, v in content(here).items() if "adapters" not in k}


def test_an_export_holds_everything(here: Path, tmp_path: Path) -> None:
    file, again = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    assert main(["export", "here", str(file)]) == 0
    by_path = sorted(here.glob("evidence/*/*.json"))
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        json.loads(path.read_text()) for path in by_path
    ]
    assert main(["merge", str(file), str(tmp_path / "new")]) == 0
    assert content(tmp_path / "new" / "evidence") == content(here / "evidence")
    assert main(["export", str(file), str(again)]) == 0
    assert again.read_bytes() == file.read_bytes()


def test_a_spreadsheet_has_a_row_per_record(here: Path, tmp_path: Path) -> None:
    assert main(["export", "here", str(tmp_path / "a.csv")]) == 0
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["healing", "loss", "qa"]
    assert rows[1]["name"] == "drop 1:3 none" and rows[1]["digest"] == digest({"block": [1, 3]})
    assert rows[1]["value.loss"] == "1.25" and rows[2]["value.accuracy"] == "0.75"
    assert rows[0]["value.loss"] == "" and "value.correct" not in rows[2]
    assert [row["provenance.threads"] for row in rows] == ["4", "2", "1"]
    assert {"provenance.seconds", "provenance.packages.torch"} <= rows[0].keys()


def test_an_export_overwrites_nothing(here: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.csv"
    out.write_text("mine")
    assert main(["export", "here", str(out)]) == 1
    assert out.read_text() == "mine" and set(os.listdir(tmp_path)) == {"a.csv", "results"}


def test_only_the_target_is_written(here: Path, tmp_path: Path) -> None:
    """Sources may lie on a file system that cannot be written."""
    before = {path: path.stat().st_mtime_ns for path in [here, *here.rglob("*")]}
    path = next(here.glob("evidence/qa/*.json"))
    path.write_text("")
    for arguments in (["list", "here"], ["verify", "here"]):
        assert main(arguments) == 1
    assert main(["export", "here", str(tmp_path / "a.csv")]) == 1
    assert main(["merge", "here", str(tmp_path / "target")]) == 1
    after = {path: path.stat().st_mtime_ns for path in [here, *here.rglob("*")]}
    assert after.keys() == before.keys()
    assert {one for one in after if after[one] != before[one]} == {path}


@pytest.mark.parametrize(
    "arguments, says",
    [
        ("list nowhere", "place 'nowhere': no results there"),
        ("verify {tmp}", "no results there"),
        ("verify {tmp}/none.jsonl", "there is no such file"),
        ("list here --kind x", "no records of kind 'x' there; kinds are: healing, loss, qa"),
        ("export here {tmp}/a.txt", "has to end in .jsonl or .csv"),
        ("export here {tmp}/file/a.csv", "cannot write"),
        ("merge here here", "is a source and the target"),
        ("merge here {tmp}/results/here", "is a source and the target"),
        ("merge nowhere here", "place 'nowhere': no results there"),
        ("merge here heer", "no study of this name has results here"),
        ("merge here {tmp}/a.jsonl", "is only read"),
        ("merge here {tmp}/file", "is a file"),
        ("merge here {tmp}/full", "not empty, and no study's results folder"),
        ("merge here {tmp}/file/new", "cannot write"),
    ],
)
def test_a_mistake_is_one_line(
    here: Path, tmp_path: Path, arguments: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("")
    before = content(tmp_path)
    assert main(arguments.format(tmp=tmp_path).split()) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    assert says in said.err
    assert content(tmp_path) == before


@pytest.mark.parametrize("arguments", [[], ["list"], ["merge", "here"], ["tidy", "here"]])
def test_misuse_is_argparse_s(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2


def test_reference_runs_are_whole() -> None:
    published = sorted(paths.published("").glob("*/evidence.jsonl"))
    assert published and [verify(file) for file in published] == [[]] * len(published)
