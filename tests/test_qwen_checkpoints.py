"""Checkpoints in the layout of Qwen version 1: read, pruned, written, refused when damaged."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import qwen_reference as reference
import torch
from qwen_checkpoint import distance, load, logits
from qwen_reference import CONFIG, HIDDEN, tokens, write
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PreTrainedModel

from lib.errors import UserError
from lib.models import checkpoints, qwen
from lib.models.qwen_config import QWenConfig
from lib.pruning.dropped import span
from lib.pruning.surgery import pruned, save_pruned
from lib.schema import Study

qwen.register()


def of(folder: Path, **keys: Any) -> Study:
    return Study(name="mine", model=str(folder), device="cpu", **keys)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bits_load_as_they_are(tmp_path: Path, dtype: str) -> None:
    half = getattr(torch, dtype)
    folder = write(tmp_path / "half", dtype=half)
    model = checkpoints.load_model(of(folder, dtype=dtype))
    assert {weight.dtype for weight in model.parameters()} == {half}
    joint = load_file(folder / "model.safetensors")["transformer.h.1.attn.c_attn.weight"]
    attention = model.model.layers[1].self_attn
    parts = (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight)
    assert torch.equal(torch.cat(parts), joint)
    expected = reference.forward(*reference.read(folder), tokens(20))
    assert distance(logits(model, tokens(20)), expected) < 0.15
    whole = checkpoints.load_model(of(folder, dtype="float32"))
    assert distance(logits(whole, tokens(20)), expected) < 1e-5


def test_a_pruned_copy_is_a_checkpoint_of_version_1(qwen_folder: Path, tmp_path: Path) -> None:
    model, block, text = load(qwen_folder), span(1, 3), tokens(20)
    before = logits(model, text)
    with pruned(model, block):
        in_memory = logits(model, text)
    assert torch.equal(logits(model, text), before)
    save_pruned(model, block, None, tmp_path / "pruned")

    whole, saved = (
        load_file(path / "model.safetensors") for path in (qwen_folder, tmp_path / "pruned")
    )
    kept = {0: 0, 3: 1}
    expected = {name: tensor for name, tensor in whole.items() if ".h." not in name}
    for old, new in kept.items():
        for name, tensor in whole.items():
            if f".h.{old}." in name:
                expected[name.replace(f".h.{old}.", f".h.{new}.")] = tensor
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], expected[name]) for name in saved)

    config = json.loads((tmp_path / "pruned" / "config.json").read_text())
    names = set(CONFIG) - {"auto_map", "transformers_version", "num_hidden_layers"}
    assert {name: config.get(name) for name in names} == {name: CONFIG[name] for name in names}
    assert config["num_hidden_layers"] == 2 and "auto_map" not in config

    reloaded = checkpoints.load_model(of(tmp_path / "pruned"))
    assert torch.equal(logits(reloaded, text), in_memory)
    assert distance(in_memory, reference.forward(saved_as(saved), config, text)) < 1e-5


def saved_as(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.double() for name, tensor in tensors.items()}


def test_shards_load_and_are_written(
    qwen_folder: Path, qwen_model: PreTrainedModel, tmp_path: Path
) -> None:
    qwen_model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    shards = sorted((tmp_path / "shards").glob("model-*.safetensors"))
    assert len(shards) > 2
    index = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == load_file(qwen_folder / "model.safetensors").keys()
    again = checkpoints.load_model(of(tmp_path / "shards")).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in qwen_model.state_dict().items())
    shards[1].unlink()
    with pytest.raises(UserError, match="model-00002"):
        checkpoints.load_model(of(tmp_path / "shards"))


def _tensors(qwen_folder: Path, **changes: torch.Tensor | None) -> None:
    path = qwen_folder / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in changes.items():
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, path, metadata={"format": "pt"})


def _config(qwen_folder: Path, **changes: Any) -> None:
    path = qwen_folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


C_ATTN, W1 = "transformer.h.1.attn.c_attn.weight", "transformer.h.1.mlp.w1.weight"
DAMAGE: dict[str, tuple[Any, list[str]]] = {
    "no joint projection": (
        lambda f: _tensors(f, **{C_ATTN: None}),
        ["missing keys", "(3)", "model.layers.1.self_attn.k_proj.weight"],
    ),
    "no up projection": (
        lambda f: _tensors(f, **{W1: None}),
        ["missing keys", "(1)", "model.layers.1.mlp.up_proj.weight"],
    ),
    "a layer too many": (
        lambda f: _config(f, num_hidden_layers=3),
        ["unexpected keys", "model.layers.3"],
    ),
    "a layer too few": (
        lambda f: _config(f, num_hidden_layers=5),
        ["missing keys", "model.layers.4"],
    ),
    "a wrong shape": (
        lambda f: _tensors(f, **{W1: torch.ones(3, HIDDEN)}),
        ["mismatched keys", "model.layers.1.mlp.up_proj.weight"],
    ),
    "a joint projection of a wrong shape": (
        lambda f: _tensors(f, **{C_ATTN: torch.ones(30, HIDDEN)}),
        ["mismatched keys", "model.layers.1.self_attn."],
    ),
    "an unknown tensor": (
        lambda f: _tensors(f, **{"transformer.novel": torch.ones(1)}),
        ["unexpected keys", "transformer.novel"],
    ),
    "a first revision": (
        lambda f: _config(f, hidden_size=None, n_embd=HIDDEN),
        ["without hidden_size", "take a later one"],
    ),
    "biases": (lambda f: _config(f, no_bias=False), ["no_bias"]),
    "narrow heads": (lambda f: _config(f, kv_channels=4), ["kv_channels"]),
    "rotation of one channel": (lambda f: _config(f, rotary_pct=0.2), ["rotary_pct"]),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_one_line(qwen_folder: Path, tmp_path: Path, kind: str) -> None:
    damaged = shutil.copytree(qwen_folder, tmp_path / "damaged")
    damage, says = DAMAGE[kind]
    damage(damaged)
    with pytest.raises(UserError) as raised:
        checkpoints.load_model(of(damaged))
    message = str(raised.value)
    assert "\n" not in message and len(message) < 500
    assert all(part in message for part in [str(damaged), *says]), message


def test_remote_code_in_the_folder_is_not_run(qwen_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(qwen_folder, tmp_path / "copy")
    for name in ("configuration_qwen.py", "modeling_qwen.py"):
        (copy / name).write_text("raise SystemExit('remote code was run')")
    assert type(AutoConfig.from_pretrained(copy, trust_remote_code=False)) is QWenConfig
    assert type(checkpoints.load_model(of(copy))) is qwen.QWenLMHeadModel
