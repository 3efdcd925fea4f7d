"""Damaged checkpoints are refused in one line before anything is written."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sharded import N_LAYERS, fails, tensors

from lib.models import shards


def a_shard(folder: Path, tensor: str = "model.layers.3.mlp.up_proj.weight") -> Path:
    return folder / json.loads((folder / shards.INDEX).read_text())["weight_map"][tensor]


def cut(folder: Path) -> None:
    os.truncate(a_shard(folder), a_shard(folder).stat().st_size - 1)


def cut_header(folder: Path) -> None:
    os.truncate(a_shard(folder), 20)


def grow(folder: Path) -> None:
    with open(a_shard(folder), "ab") as file:
        file.write(b"\0")


def scribble(folder: Path) -> None:
    with open(a_shard(folder), "r+b") as file:
        file.seek(8)
        file.write(b"\xff\xfe{")


def huge_header(folder: Path) -> None:
    with open(a_shard(folder), "r+b") as file:
        file.write((1 << 60).to_bytes(8, "little"))


def wrong_shape(folder: Path) -> None:
    rewrite(folder, lambda state: state, "[128,64]", "[128,63]")


def lose_shard(folder: Path) -> None:
    a_shard(folder).unlink()


def lose_index(folder: Path) -> None:
    (folder / shards.INDEX).unlink()


def break_index(folder: Path) -> None:
    (folder / shards.INDEX).write_text('{"weight_map": {')


def list_metadata(folder: Path) -> None:
    index = json.loads((folder / shards.INDEX).read_text())
    (folder / shards.INDEX).write_text(json.dumps(index | {"metadata": []}))


def nest_header(folder: Path) -> None:
    header = b"[" * 100_000
    a_shard(folder).write_bytes(len(header).to_bytes(8, "little") + header)


def lose_quantised(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(settings))
    lose_tensor(folder)


def leave_folder(folder: Path) -> None:
    (folder / shards.INDEX).write_text('{"weight_map": {"x": "../model.safetensors"}}')


def lose_listed(folder: Path) -> None:
    rewrite(folder, lambda state: without(state, "model.layers.3.mlp.up_proj.weight"))


def lose_tensor(folder: Path) -> None:
    rewrite(folder, lambda state: without(state, "model.layers.3.mlp.up_proj.weight"))
    relist(folder)


def lose_layer(folder: Path) -> None:
    for name in [name for name in tensors(folder) if "layers.5." in name]:
        path = a_shard(folder, name)
        state = without(load_file(path), name)
        save_file(state, path, metadata={"format": "pt"})
    relist(folder)


def lose_norm(folder: Path) -> None:
    path = a_shard(folder, "model.norm.weight")
    save_file(without(load_file(path), "model.norm.weight"), path, metadata={"format": "pt"})
    relist(folder)


def add_tensor(folder: Path) -> None:
    rewrite(folder, lambda state: state | {"model.layers.3.mlp.more.weight": torch.ones(2)})
    relist(folder)


def add_layer(folder: Path) -> None:
    rewrite(folder, lambda state: state | {"model.layers.6.mlp.up_proj.weight": torch.ones(2)})
    relist(folder)


def add_stack(folder: Path) -> None:
    more = {f"draft.layers.{i}.weight": torch.ones(2) for i in range(N_LAYERS)}
    rewrite(folder, lambda state: state | more)
    relist(folder)


def repeat_tensor(folder: Path) -> None:
    other = a_shard(folder, "model.norm.weight")
    save_file(load_file(a_shard(folder)) | load_file(other), other, metadata={"format": "pt"})


def mismatched(folder: Path) -> None:
    name = "model.layers.3.mlp.up_proj.weight"
    rewrite(folder, lambda state: state | {name: torch.ones(3, 3)})


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def pickled(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def lose_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "lla')


def unknown_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "nobody-knows"}')


def without(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if key != name}


def rewrite(folder: Path, change: Callable, old: str = "", new: str = "") -> None:
    path = a_shard(folder)
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    if old:
        assert old.encode() in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old.encode(), new.encode(), 1))


def relist(folder: Path) -> None:
    """Write the index anew, so that it agrees with the shards."""
    files = sorted(folder.glob("*.safetensors"))
    weight_map = {name: path.name for path in files for name in load_file(path)}
    (folder / shards.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "cut off"),
        (cut_header, "header"),
        (grow, "instead of"),
        (scribble, "header"),
        (huge_header, "header"),
        (wrong_shape, "size of its shape"),
        (lose_shard, "missing"),
        (lose_index, "holds neither"),
        (break_index, "is damaged"),
        (leave_folder, "is damaged"),
        (list_metadata, "is damaged"),
        (nest_header, "header"),
        (lose_quantised, "no tensor of model.layers.3.mlp.up_proj"),
        (lose_listed, "model.layers.3.mlp.up_proj.weight"),
        (lose_tensor, "missing keys in the checkpoint (1), e.g. model.layers.3.mlp.up_proj.weight"),
        (lose_layer, "5 is missing"),
        (lose_norm, "missing keys in the checkpoint (1), e.g. model.norm.weight"),
        (add_tensor, "unexpected keys in the checkpoint (1), e.g. model.layers.3.mlp.more.weight"),
        (add_layer, "6 is extra"),
        (add_stack, "more than one list of 6 layers"),
        (repeat_tensor, "is in both"),
        (
            mismatched,
            "mismatched keys in the checkpoint (1), e.g. model.layers.3.mlp.up",
        ),
        (adapter, "adapter"),
        (pickled, "pickled"),
        (lose_config, "no config.json"),
        (break_config, "config.json"),
        (unknown_model, "config.json"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_damaged_checkpoints_are_refused(damage, message, copied, tmp_path, capsys):
    damage(copied)
    assert message in fails(capsys, copied, tmp_path / "out", "--drop", "1:4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copied"]
