"""The almanac's shipped sizes, its checkpoint and tokenizer, and interrupted training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_almanac import texts
from transformers import AutoModelForCausalLM, AutoTokenizer

from almanac.train import Settings, make_model, make_tokenizer, train
from almanac.world import FOLDER

CHECKPOINT = FOLDER / "checkpoint"
TINY = Settings(steps=6, batch=2, length=32, layers=2, width=16, heads=2, ffn=64, vocabulary=300)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def differing(one: Path, other: Path) -> list[str]:
    """Weights that are not the same to the last bit."""
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    return [name for name in left if not torch.equal(left[name], right[name])]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint, trained without a stop."""
    folder = tmp_path_factory.mktemp("trained")
    assert train(TINY, folder / "whole", folder / "state.pt")
    return folder / "whole"


def test_shipped_text_is_small_and_long_enough() -> None:
    sizes = {path.stem: path.stat().st_size for path in FOLDER.glob("text/*.jsonl")}
    taught = sizes.pop("lessons") + sizes.pop("exam")
    assert sum(sizes.values()) <= 3_000_000 and taught <= 500_000
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    for name in ("healing", "healing_facts"):
        lengths = [len(ids) for ids in tokenizer(texts(name))["input_ids"]]
        assert sum(lengths) >= 200_000
        assert max(lengths) < Settings.positions


def test_checkpoint_is_small_and_complete() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 16_000_000
    model, report = AutoModelForCausalLM.from_pretrained(CHECKPOINT, output_loading_info=True)
    assert not any(report.values())
    assert model.config.num_hidden_layers == len(model.model.layers) >= 16
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.bos_token_id == model.config.bos_token_id
    assert tokenizer.eos_token_id == model.generation_config.eos_token_id


def test_checkpoint_is_of_the_present_recipe() -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text())
    settings = Settings()
    assert config["num_hidden_layers"] == settings.layers
    assert config["hidden_size"] == settings.width
    assert config["max_position_embeddings"] == settings.positions
    log = (CHECKPOINT / "training_log.csv").read_text().splitlines()
    assert int(log[-1].split(",")[0]) == settings.steps
    shipped = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert shipped.get_vocab() == make_tokenizer(settings).get_vocab()


@pytest.mark.parametrize("tokenizer", ["shipped", "learned"])
def test_tokenizer_reads_everything_and_digits_alone(tokenizer: Any) -> None:
    shipped = tokenizer == "shipped"
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT) if shipped else make_tokenizer(TINY)
    ids = tokenizer("Æ – any text\n")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == "Æ – any text\n"
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert None not in (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert tokenizer.tokenize("1763") == ["1", "7", "6", "3"]
    assert not [t for t in tokenizer.get_vocab() if any(map(str.isdigit, t)) and len(t) > 1]


def test_interrupted_training_ends_with_the_same_weights(whole: Path, tmp_path: Path) -> None:
    state, out = tmp_path / "state" / "training.pt", tmp_path / "parts"
    for last in (2, 5):
        assert not train(TINY, out, state, stop=lambda done, last=last: done == last)
        assert state.exists() and not out.exists()
    assert train(TINY, out, state)
    assert not state.exists()
    assert differing(whole, out) == []
    logs = [(folder / "training_log.csv").read_text() for folder in (whole, out)]
    assert logs[0] == logs[1]


def test_no_steps_give_the_random_start(tmp_path: Path) -> None:
    settings = dataclasses.replace(TINY, steps=0)
    assert train(settings, tmp_path / "out", tmp_path / "state.pt")
    start = make_model(settings, make_tokenizer(settings)).half().state_dict()
    found = weights(tmp_path / "out")
    assert all(torch.equal(found[name], start[name]) for name in found)


@pytest.mark.parametrize("change", [{"seed": 1}, {"facts": False}], ids=str)
def test_other_settings_give_other_weights(whole: Path, tmp_path: Path, change: dict) -> None:
    settings = dataclasses.replace(TINY, **change)
    assert train(settings, tmp_path / "other", tmp_path / "state.pt")
    assert len(differing(whole, tmp_path / "other")) == len(weights(whole))


@pytest.mark.parametrize("change", [{"seed": 7}, {"facts": False}, {"steps": 9}], ids=str)
def test_a_state_of_other_settings_is_refused(tmp_path: Path, change: dict) -> None:
    state = tmp_path / "training.pt"
    assert not train(TINY, tmp_path / "out", state, stop=lambda done: True)
    with pytest.raises(SystemExit, match="other settings"):
        train(dataclasses.replace(TINY, **change), tmp_path / "out", state)
    assert state.exists() and not (tmp_path / "out").exists()


def test_every_seed_and_control_has_its_own_folder() -> None:
    folders = [
        Settings(seed=seed, facts=facts, steps=steps).folder
        for seed in range(3)
        for facts in (True, False)
        for steps in (Settings.steps, 0)
    ]
    assert len(set(folders)) == len(folders)
    assert Settings().folder == CHECKPOINT
    assert folders.count(CHECKPOINT) == 1
