"""A healed model on disk, from the command line."""

import json
import resource
import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lib import export
from lib import study as studies
from lib.experiments import models
from lib.experiments.conditions import healed
from lib.experiments.opened import OpenStudy
from lib.healing import heal
from lib.pruning.dropped import simple
from lib.pruning.surgery import drop


@pytest.fixture
def path(write_study, tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    return write_study(tmp_path)


def test_what_is_written_is_what_was_evaluated(path, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    opened = OpenStudy(studies.load(str(path)))
    n = opened.n_layers // 2
    condition = next(
        one
        for one in healed(opened, opened.study.healing, [0.5], ["simple"])
        if one.strategy == "simple"
    )
    with models.materialised(opened, condition) as model:
        expected = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr(heal, "heal", None)  # not a second time
    assert export.main([str(out), "--study", str(path), "--simple", str(n)]) == 0
    written = AutoModelForCausalLM.from_pretrained(out)
    assert all(torch.equal(value, expected[name]) for name, value in written.state_dict().items())
    assert AutoTokenizer.from_pretrained(out)("a b")["input_ids"]
    card = (out / "README.md").read_text()
    assert simple(n, opened.n_layers).in_words(opened.n_layers) in card and "qlora-r4" in card
    # The adapters alone fit the pruned model, and say nothing of this machine.
    settings = json.loads((out / "adapter/adapter_config.json").read_text())
    assert "/" not in settings["base_model_name_or_path"]
    assert str(tmp_path) not in "".join(
        file.read_text() for file in out.rglob("*") if file.suffix in {".json", ".md"}
    )
    plain = AutoModelForCausalLM.from_pretrained(opened.study.model)
    drop(plain, simple(n, opened.n_layers))
    PeftModel.from_pretrained(plain, out / "adapter")
    # Nothing is overwritten.
    assert export.main([str(out), "--study", str(path), "--simple", str(n)]) == 1
    assert "not empty" in capsys.readouterr().err


def test_any_block_can_be_healed_with_any_recipe(path, tmp_path):
    full = studies.load(str(path))
    text = path.read_text().replace("  rank: 4\n", "  recipe: full\n")
    path.write_text(text)
    assert studies.load(str(path)).healing.recipe == "full" != full.healing.recipe
    assert export.main([str(tmp_path / "out"), "--study", str(path), "--drop", "1,3"]) == 0
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(full.model)
    drop(plain, [1, 3])
    assert written.config.num_hidden_layers == plain.config.num_hidden_layers
    assert not (tmp_path / "out/adapter").exists()
    changed = [
        name
        for name, value in plain.state_dict().items()
        if not torch.equal(value, written.state_dict()[name])
    ]
    assert any("q_proj" in name for name in changed)


def test_one_of_the_recipes_side_by_side_is_taken_by_its_name(write_study, tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "results"))
    own = {"recipes": [{"recipe": "partial", "layers": 1}], "fractions": [0.5]}
    path = write_study(tmp_path, what_to_train=own)
    command = ["--study", str(path), "--strategy", "reverse-order", "2"]
    wanted = "partial-head-norm-last1"
    assert export.main([str(tmp_path / "out"), *command, "--recipe", wanted]) == 0
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(studies.load(str(path)).model)
    kept = plain.config.num_hidden_layers - 2
    drop(plain, [kept, kept + 1])
    changed = {
        name
        for name, value in plain.state_dict().items()
        if not torch.equal(value, written.state_dict()[name])
    }
    trained = (f"model.layers.{kept - 1}.", "model.norm.", "lm_head.")
    assert changed and all(name.startswith(trained) for name in changed)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--simple", "2", "--recipe", "lora"], "--recipe lora: not one of the study's recipes"),
        (
            ["--strategy", "nosuch", "2"],
            "unknown strategy 'nosuch'; known are block-influence, first,",
        ),
        (["--strategy", "simple", "two"], "'two' is not a number of layers"),
        (["--drop", "0:99"], "layers of this model"),
        (["--simple", "99"], "layers to drop: allowed are"),
    ],
)
def test_bad_input_is_one_line(options, says, path, tmp_path, capsys):
    assert export.main([str(tmp_path / "out"), "--study", str(path), *options]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("error: ") and says in error[-1]
    assert not (tmp_path / "out").exists()


def export_of(path, out):
    return export.main([str(out), "--study", str(path), "--drop", "1:2"])


def one_line(capsys):
    said = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(said) and said[-1].startswith("error: ")
    return said[-1]


def test_a_disk_that_fills_is_one_line_and_leaves_nothing(path, tmp_path, capsys):
    """The library that writes weights hides what the system said."""
    place = tmp_path / "place"
    place.mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limits[1]))
    try:
        assert export_of(path, place / "out") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot write" in (said := one_line(capsys)) and "File too large" in said
    assert list(place.iterdir()) == []
    assert export_of(path, place / "out") == 0


@pytest.mark.parametrize("where", ["out", "results"])
def test_what_cannot_be_written_is_said_before_anything_is_trained(
    where, path, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(heal, "heal", None)
    (tmp_path / "file").write_text("")
    out = tmp_path / "out"
    if where == "out":
        out = tmp_path / "file" / "out"
    else:
        monkeypatch.setenv("RESULTS_DIR", str(tmp_path / "file" / "results"))
    assert export_of(path, out) == 1
    assert one_line(capsys).startswith(f"error: cannot write {tmp_path}/file/")
    assert not out.exists()


def test_a_full_disk_is_said_before_anything_is_trained(path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(heal, "heal", None)
    usage = shutil.disk_usage(tmp_path)._replace(free=20_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    assert export_of(path, tmp_path / "out") == 1
    assert "needs 0.03 GB, 0.02 GB are free there" in one_line(capsys)
    assert not (tmp_path / "out").exists()
