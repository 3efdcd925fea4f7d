"""Ways to make a file of a sound study lie.

A change is made in a folder that `make` has made. Whatever it has somebody execute leaves a file
`ran` in that folder.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from conftest import sentences, write_jsonl, write_task

HUGE = 10**9
DEEP = 100_000
EXPLODES = r"(a|aa)+$|(\w+\s?)+$|([a-zA-Z]+)*$"
NAME = "model.layers.0.mlp.up_proj.weight"

Change = Callable[[Path], object]


def make(folder: Path, checkpoint: Path) -> Path:
    """A sound study, mine.yaml, with all that it reads below its folder; returns its file."""
    shutil.copytree(checkpoint, folder / "checkpoint")
    write_jsonl(folder / "validation.jsonl", [{"text": text} for text in sentences(40)])
    write_jsonl(folder / "healing.jsonl", [{"text": text} for text in sentences(120, 1000)])
    write_task(folder / "tasks", questions=6)
    settings = {
        "model": "./checkpoint",
        "device": "cpu",
        "validation_text": {"path": "./validation.jsonl"},
        "healing_text": {"path": "./healing.jsonl"},
        "task_path": "./tasks",
        "tasks": [{"name": "quiz", "role": "knowledge"}],
        "distances": {"n_sequences": 8, "length": 16, "bootstrap": 100},
        "loss": {"n_sequences": 8, "length": 32},
        "healing": {"recipe": "lora", "rank": 4, "steps": 2, "batch": 4, "length": 32},
        "lora_rank": {"ranks": [2]},
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return path


def put(name: str, text: str | bytes) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    return change


def edit(name: str, **keys: Any) -> Change:
    """Keys laid over those of a JSON file; NaN and infinity are written as Python does."""

    def change(folder: Path) -> None:
        path = folder / name
        old = json.loads(path.read_text("utf-8")) if path.exists() else {}
        path.write_text(json.dumps(old | keys), "utf-8")

    return change


def config(**keys: Any) -> Change:
    return edit("checkpoint/config.json", **keys)


def tokenizer(**keys: Any) -> Change:
    return edit("checkpoint/tokenizer.json", **keys)


def vocabulary(**tokens: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "checkpoint/tokenizer.json"
        found = json.loads(path.read_text("utf-8"))
        found["model"]["vocab"] |= tokens
        path.write_text(json.dumps(found), "utf-8")

    return change


def special(name: str, kind: str) -> Change:
    """In place of a file a pipe, a device, a link to itself or a folder."""

    def change(folder: Path) -> None:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to(path if kind == "loop" else "/dev/zero")

    return change


def large(name: str, size: int) -> Change:
    """So many bytes, of which the disk holds none."""

    def change(folder: Path) -> None:
        with open(folder / name, "ab") as file:
            file.truncate(size)

    return change


def header(alter: Callable[[dict[str, Any]], object], length: int | None = None) -> Change:
    """Another header before the tensors' bytes; length: that it says it has."""

    def change(folder: Path) -> None:
        path = folder / "checkpoint/model.safetensors"
        raw = path.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        entries = json.loads(raw[8 : 8 + size])
        alter(entries)
        text = json.dumps(entries).encode()
        path.write_bytes((length or len(text)).to_bytes(8, "little") + text + raw[8 + size :])

    return change


def entry(**keys: Any) -> Change:
    return header(lambda entries: entries[NAME].update(keys))


def renamed(name: str) -> Change:
    return header(lambda entries: entries.update({name: entries.pop(NAME)}))


def index(**keys: Any) -> Change:
    """An index beside shards, of which the first one is the whole model."""

    def change(folder: Path) -> None:
        source = folder / "checkpoint"
        (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
        names = {NAME: "model-00001-of-00002.safetensors"}
        text = json.dumps({"metadata": {}, "weight_map": names} | keys)
        (source / "model.safetensors.index.json").write_text(text, "utf-8")

    return change


def in_yaml(name: str, **keys: Any) -> Change:
    """Keys of a YAML file, in place of its own or beside them."""

    def change(folder: Path) -> None:
        path = folder / name
        found = yaml.safe_load(path.read_text("utf-8")) | keys
        path.write_text(yaml.safe_dump(found, sort_keys=False), "utf-8")

    return change


def task(**keys: Any) -> Change:
    return in_yaml("tasks/quiz.yaml", **keys)


def study(**keys: Any) -> Change:
    return in_yaml("mine.yaml", **keys)


def hostile(*changes: Change) -> Change:
    """With Python beside the weights that says when somebody runs it."""

    def change(folder: Path) -> None:
        for name in ("modeling_evil", "configuration_evil", "tokenization_evil"):
            path = folder / "checkpoint" / f"{name}.py"
            path.write_text(f"open({str(folder / 'ran')!r}, 'w').close()\n", "utf-8")
        for one in changes:
            one(folder)

    return change


def pickled(folder: Path) -> None:
    """Weights that run a command when they are read."""
    (folder / "checkpoint/model.safetensors").unlink()
    command = f"touch {folder / 'ran'}".encode()
    raw = b"cposix\nsystem\n(S'" + command + b"'\ntR."
    (folder / "checkpoint/pytorch_model.bin").write_bytes(raw)


def million(folder: Path) -> None:
    """A header of 60 MB, all of it well-formed."""
    each = '"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = "{" + ",".join(each % number for number in range(1_000_000)) + "}"
    raw = len(text).to_bytes(8, "little") + text.encode()
    (folder / "checkpoint/model.safetensors").write_bytes(raw)


def both_names(folder: Path) -> None:
    """One tensor twice, in two shards."""
    index()(folder)
    source = folder / "checkpoint"
    shutil.copy(
        source / "model-00001-of-00002.safetensors", source / "model-00002-of-00002.safetensors"
    )
    names = {NAME: "model-00001-of-00002.safetensors", "x": "model-00002-of-00002.safetensors"}
    text = json.dumps({"metadata": {}, "weight_map": names})
    (source / "model.safetensors.index.json").write_text(text, "utf-8")


def laughs(levels: int = 9) -> str:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefghij", "bcdefghijk"[: levels - 1], strict=False):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    return "\n".join(lines) + "\n"


def appended(name: str, text: str) -> Change:
    def change(folder: Path) -> None:
        with open(folder / name, "a", encoding="utf-8") as file:
            file.write(text)

    return change
