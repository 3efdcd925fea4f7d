"""The command `python -m lib.pruning`: choices, names, places."""

import csv
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
import yaml
from sharded import CONTIGUOUS, N_LAYERS, assert_same, fails, load
from tiny import random_model

from lib import paths
from lib.pruning import on_disk
from lib.pruning.surgery import save_pruned


@pytest.mark.parametrize(
    ("choice", "kept"),
    [(["--drop", "3,0:2"], [2, 4, 5]), (["--simple", "2"], [0, 1, 2, 5])],
)
def test_the_command_chooses_layers(choice, kept, sharded, tmp_path, capsys):
    (tmp_path / "out").mkdir()  # an empty folder is fine
    assert on_disk.main([str(sharded), str(tmp_path / "out"), *choice]) == 0
    assert "keep" in capsys.readouterr().out
    dropped = [i for i in range(N_LAYERS) if i not in kept]
    save_pruned(random_model("llama"), dropped, None, tmp_path / "memory")
    assert_same(tmp_path / "out", tmp_path / "memory")


def test_the_command_in_a_process_of_its_own(sharded, tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "lib.pruning", str(sharded), *arguments],
            cwd=paths.ROOT,
            capture_output=True,
            text=True,
        )

    done = run(str(tmp_path / "out"), "--drop", "1:4")
    assert (done.returncode, done.stderr) == (0, "")
    assert "drop layers 1–3, keep 0 and 4–5" in done.stdout
    assert load(tmp_path / "out").config.num_hidden_layers == 3
    refused = run(str(sharded / "inside"), "--drop", "1:4")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1


def write_chosen(folder: Path, chosen: dict[str, Collection[Collection[int]]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "chosen_layers.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["strategy", "n", "dropped"])
        for strategy, sets in chosen.items():
            writer.writerows([strategy, len(one), " ".join(map(str, one))] for one in sets)


def test_the_block_that_a_study_found(sharded, tmp_path, results_dir, capsys):
    choice = ["--study", "almanac", "--similarity"]
    line = fails(capsys, sharded, tmp_path / "out", *choice, 2)
    assert "lib.run angular_distances --study almanac" in line
    tables = paths.tables("almanac")
    blocks = [range(1, 1 + n) for n in range(1, 6)]
    write_chosen(tables, {"similarity": blocks, "mine": [range(0, 2 * n, 2) for n in (1, 2, 3)]})
    assert on_disk.main([str(sharded), str(tmp_path / "out"), *choice, "2"]) == 0
    assert "drop layers 1–2" in capsys.readouterr().out
    assert "allowed are 1 to 5" in fails(capsys, sharded, tmp_path / "new", *choice, 6)
    mine = ["--study", "almanac", "--strategy", "mine"]
    assert on_disk.main([str(sharded), str(tmp_path / "scattered"), *mine, "3"]) == 0
    assert "drop layers 0, 2 and 4, keep" in capsys.readouterr().out
    assert "no choice of 4 layers by mine" in fails(capsys, sharded, tmp_path / "new", *mine, 4)
    other = ["--study", "almanac", "--strategy", "other"]
    line = fails(capsys, sharded, tmp_path / "new", *other, 2)
    assert "compares no strategy 'other'; it has similarity, mine" in line
    write_chosen(tables, {"similarity": [range(n) for n in range(1, 8)]})
    assert "8 layers" in fails(capsys, sharded, tmp_path / "new", *choice, 2)
    (tables / "chosen_layers.csv").write_text("n,strategy\n1,x\n")
    assert "damaged" in fails(capsys, sharded, tmp_path / "new", *choice, 2)


def test_a_hub_name_means_the_cached_copy(sharded, tmp_path, capsys, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert "hf download" in fails(capsys, "org/model", tmp_path / "out", "--drop", "1")
    repository = tmp_path / "hub" / "models--org--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "blobs").mkdir()
    (repository / "snapshots" / ("a" * 40)).mkdir(parents=True)
    for path in sharded.iterdir():  # as the hub's client keeps them: links to blobs
        shutil.copy(path, repository / "blobs" / path.name)
        (repository / "snapshots" / ("a" * 40) / path.name).symlink_to(
            repository / "blobs" / path.name
        )
    assert on_disk.main(["org/model", str(tmp_path / "out"), "--drop", "1:4"]) == 0
    save_pruned(random_model("llama"), CONTIGUOUS, None, tmp_path / "memory")
    assert_same(tmp_path / "out", tmp_path / "memory")
    text = (tmp_path / "out" / "README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["base_model"] == "org/model"
    assert "model: org/model" in text
    capsys.readouterr()
    next((repository / "blobs").glob("model-*")).unlink()
    assert "missing" in fails(capsys, "org/model", tmp_path / "new", "--drop", "1:4")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (["--drop", "4:7"], "0 to 5"),
        (["--drop", "0:6"], "all 6 layers"),
        (["--drop", "2:2"], "no layer"),
        (["--drop", "1:3,2"], "overlap"),
        (["--drop", "deep"], "neither a layer nor a range"),
        (["--simple", "0"], "allowed are 1 to 5"),
        (["--simple", "6"], "allowed are 1 to 5"),
        (["--similarity", "1"], "goes with --study X"),
        (
            ["--strategy", "nosuch", "1"],
            "unknown strategy 'nosuch'; known are block-influence, first,",
        ),
        (["--strategy", "simple", "one"], "'one' is not a number of layers"),
        (["--similarity", "1", "--study", "nowhere"], "unknown study"),
    ],
)
def test_impossible_choices_are_refused(choice, message, sharded, tmp_path, capsys):
    assert message in fails(capsys, sharded, tmp_path / "out", *choice)
    assert list(tmp_path.iterdir()) == []


def test_impossible_places_are_refused(sharded, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    drop = ["--drop", "1:4"]
    assert "not empty" in fails(capsys, sharded, tmp_path / "full", *drop)
    assert "is a file" in fails(capsys, sharded, tmp_path / "full" / "notes.txt", *drop)
    assert "in the checkpoint" in fails(capsys, sharded, sharded / "pruned", *drop)
    assert "in the checkpoint" in fails(capsys, sharded, sharded, *drop)
    assert "no such folder" in fails(capsys, tmp_path / "none", tmp_path / "out", *drop)
    assert "a file" in fails(capsys, tmp_path / "full" / "notes.txt", tmp_path / "out", *drop)
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("checkpoint", "out", "more", "says"),
    [
        ("~nobody-here/x", "out", ["--drop", "1"], "names no user's folder"),
        (None, "~nobody-here/x", ["--drop", "1"], "names no user's folder"),
        (None, "out", ["--study", "~nobody-here/x.yaml", "--similarity", "2"], "names no user's"),
        (None, "out", ["--drop", "9" * 5000], "neither a layer nor a range"),
    ],
)
def test_arguments_that_name_nothing_are_one_line(
    checkpoint, out, more, says, sharded, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert says in fails(capsys, checkpoint or sharded, out, *more)
    assert list(tmp_path.iterdir()) == []
