"""Safetensors checkpoints as files: what is in them, whether they are whole, and copying a part.

No tensor is ever made: a shard is its header (8 bytes of length, then JSON) and ranges of bytes.
Importing this module is cheap (no torch).

    shards = read(folder)                          # headers only, checked against index and sizes
    stack = layer_stack(shards, n_layers=32)       # "model.layers"
    write(shards, renamed(shards, stack, [0, 1, 31]), target)
"""

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.errors import UserError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
BUFFER = 1 << 20  # bytes held in memory; more is slower, being more than processors keep close
# Bytes of a header or an index. Readers of the format accept 100 MB, but such a one takes gigabytes
# to read, and the largest models have a few MB.
LARGEST_HEADER = 1 << 25
# Bits per element. Types that are not listed here are copied like the rest, their sizes unchecked.
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16}
BITS |= {"F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32}
BITS |= {"F64": 64, "I64": 64, "U64": 64, "C64": 64}
OTHER_TOWERS = ("vision", "visual", "audio")  # in names of layers that are not the decoder's


@dataclass(frozen=True)
class Tensor:
    """One entry of a header. `start` counts from the beginning of the file, in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True)
class Shard:
    """A safetensors file: its free-form metadata, and its tensors in the order of their bytes."""

    path: Path
    metadata: dict[str, str] | None
    tensors: tuple[Tensor, ...]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, as transformers chooses them; none is opened.

    Raises UserError when there are none, and for an unmerged adapter."""
    if (folder / "adapter_config.json").exists():
        raise UserError(f"checkpoint {folder}: holds an adapter: merge it into its model first")
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return [folder / name for name in sorted(set(_index(folder)["weight_map"].values()))]
    pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pth"))
    extra = "; pickled weights are not read, since that runs code: convert them" if pickled else ""
    raise UserError(f"checkpoint {folder}: holds neither {SINGLE} nor {INDEX}{extra}")


def read(folder: Path) -> list[Shard]:
    """Every shard of a checkpoint, from the headers alone.

    Raises UserError for a shard that is missing, cut off or damaged, and when index and shards do
    not name the same tensors."""
    shards = [_shard(path) for path in weight_files(folder)]
    found: dict[str, str] = {}
    for shard in shards:
        for tensor in shard.tensors:
            if tensor.name in found:
                raise UserError(
                    f"checkpoint {folder}: tensor {tensor.name} is in both {found[tensor.name]} "
                    f"and {shard.path.name}"
                )
            found[tensor.name] = shard.path.name
    if shards[0].path.name != SINGLE:
        listed = _index(folder)["weight_map"]
        for name in sorted(found.keys() | listed.keys()):
            if found.get(name) != listed.get(name):
                raise UserError(
                    f"checkpoint {folder}: by {INDEX} tensor {name} is in {listed.get(name)}, "
                    f"by the shards' own headers in {found.get(name)}"
                )
    return shards


def layer_stack(shards: list[Shard], n_layers: int) -> str:
    """The name under which the decoder layers 0 … n_layers−1 stand, such as "model.layers".

    Tensors of base models and of parts of multimodal ones carry other prefixes than the modules
    that they are loaded into, so the names themselves are asked. Towers for images and sound are
    left aside.

    Raises UserError when no list of that length is there, or more than one."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for name in _names(shards):
        prefix, number = _first_number(name)
        if prefix and not any(word in prefix for word in OTHER_TOWERS):
            numbers[prefix].add(number)
    stacks = [prefix for prefix, of in numbers.items() if _complete(of, n_layers)]
    if len(stacks) == 1:
        return stacks[0]
    folder = shards[0].path.parent
    if stacks:
        raise UserError(
            f"checkpoint {folder}: more than one list of {n_layers} layers: {', '.join(stacks)}"
        )
    lengths = [f"{prefix} holds {_spans(of, n_layers)}" for prefix, of in numbers.items()]
    raise UserError(
        f"checkpoint {folder}: its config has {n_layers} layers, its tensors do not: "
        f"{'; '.join(lengths) or 'none is numbered'}"
    )


def without(shards: list[Shard], names: Collection[str]) -> list[Shard]:
    """The shards less the tensors named."""
    return [
        replace(shard, tensors=tuple(t for t in shard.tensors if t.name not in names))
        for shard in shards
    ]


def multi_token(shards: list[Shard], n_layers: int, ignored: Collection[str]) -> list[str]:
    """Tensors that predict further tokens: of layers behind the last one, or under `mtp`.

    ignored: patterns of names that transformers does not load; of no others is this believed."""
    found = []
    for name in _names(shards):
        behind = _first_number(name)[1] >= n_layers or "mtp" in name
        if behind and any(re.search(pattern, name) for pattern in ignored):
            found.append(name)
    return found


def renamed(shards: list[Shard], stack: str, kept: list[int]) -> dict[str, str]:
    """Old name → new name of every tensor that stays: kept[i] becomes layer i."""
    new = {old: number for number, old in enumerate(kept)}
    names = {}
    for name in _names(shards):
        prefix, number = _first_number(name)
        if prefix != stack:
            names[name] = name
        elif number in new:
            names[name] = f"{stack}.{new[number]}{name[len(f'{stack}.{number}') :]}"
    return names


def write(
    shards: list[Shard],
    names: dict[str, str],
    folder: Path,
    advance: Callable[[int], object] = lambda size: None,
) -> None:
    """Copy the tensors named, under their new names, into one shard for each old one that has any,
    and write the index; a single shard goes without. Everything is on the disk at return.

    advance is told every number of bytes as they are copied."""
    parts = []
    for shard in shards:
        tensors = [tensor for tensor in shard.tensors if tensor.name in names]
        # Widest elements first, as writers of the format do: then every tensor stays aligned.
        tensors.sort(key=lambda tensor: -BITS.get(tensor.dtype, 8))
        if tensors:
            parts.append(Shard(shard.path, shard.metadata, tuple(tensors)))
    weight_map = {}
    for i, part in enumerate(parts, 1):
        name = SINGLE if len(parts) == 1 else f"model-{i:05d}-of-{len(parts):05d}.safetensors"
        weight_map |= {names[tensor.name]: name for tensor in part.tensors}
        _write_shard(part, names, folder / name, advance)
    if len(parts) > 1:
        old = _index(shards[0].path.parent)["metadata"]
        metadata = old | {"total_size": kept_bytes(shards, names)}
        if isinstance(old.get("total_parameters"), int):
            # What the whole one counts (tied weights once, buffers not) less what goes.
            gone = (t for s in shards for t in s.tensors if t.name not in names)
            metadata["total_parameters"] -= sum(math.prod(tensor.shape) for tensor in gone)
        text = json.dumps(
            {"metadata": metadata, "weight_map": weight_map}, indent=2, sort_keys=True
        )
        write_file(folder / INDEX, text + "\n")


def kept_bytes(shards: list[Shard], names: dict[str, str]) -> int:
    return sum(tensor.size for s in shards for tensor in s.tensors if tensor.name in names)


def write_file(path: Path, text: str) -> None:
    """Write a text file through to the disk."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes through to the disk."""
    with open(source, "rb") as old, open(target, "wb", buffering=0) as new:
        _copy(old.fileno(), new.fileno(), 0, os.fstat(old.fileno()).st_size, lambda size: None)
        os.fsync(new.fileno())


def _write_shard(
    part: Shard, names: dict[str, str], path: Path, advance: Callable[[int], object]
) -> None:
    header: dict[str, Any] = {"__metadata__": part.metadata} if part.metadata else {}
    end = 0
    runs: list[list[int]] = []  # stretches of the old file: start, size
    for tensor in part.tensors:
        header[names[tensor.name]] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [end, end + tensor.size],
        }
        end += tensor.size
        if runs and sum(runs[-1]) == tensor.start:
            runs[-1][1] += tensor.size
        else:
            runs.append([tensor.start, tensor.size])
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of 8
    with open(part.path, "rb") as old, open(path, "wb") as new:
        new.write(len(text).to_bytes(8, "little") + text)
        new.flush()
        for start, size in runs:
            _copy(old.fileno(), new.fileno(), start, size, advance)
        os.fsync(new.fileno())


def _copy(old: int, new: int, start: int, size: int, advance: Callable[[int], object]) -> None:
    """Append bytes start … start+size−1 of one open file to another, through one small buffer.

    Copying inside the kernel (copy_file_range) takes twice as long here: tensors begin anywhere in
    a page, and elsewhere in the new file, which that is slow at, and which also keeps file systems
    from sharing blocks."""
    buffer = memoryview(bytearray(min(BUFFER, size)))
    end = start + size
    while start < end:
        done = os.preadv(old, [buffer[: min(BUFFER, end - start)]], start)
        if not done:
            raise UserError("a file of the checkpoint became shorter while it was copied")
        written = 0
        while written < done:
            written += os.write(new, buffer[written:done])
        start += done
        advance(done)


def _index(folder: Path) -> dict[str, Any]:
    problem = UserError(f"checkpoint {folder}: {INDEX} is damaged")
    try:
        with open(folder / INDEX, encoding="utf-8") as file:
            index = json.loads(file.read(LARGEST_HEADER))
        names = index["weight_map"].values()
        if any(Path(name).name != name for name in names) or not names:
            raise problem
        # transformers, too, reads no index without metadata, which may be empty.
        if not isinstance(index["metadata"], dict):
            raise problem
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise problem from None
    return index


def _shard(path: Path) -> Shard:
    """Raises UserError unless the header is sound and the file exactly as long as it says."""
    what = f"checkpoint {path.parent}: {path.name}"
    if not path.is_file():
        raise UserError(f"{what} is missing (half-copied checkpoint?)")
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if 8 + length <= size and length <= LARGEST_HEADER else b""
    try:
        entries = json.loads(header)
        metadata = entries.pop("__metadata__", None)
        tensors = [_tensor(name, entry, 8 + length) for name, entry in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{what} is cut off or damaged: its header cannot be read") from None
    tensors.sort(key=lambda tensor: (tensor.start, tensor.size))
    end = 8 + length
    for tensor in tensors:
        if tensor.start != end:
            raise UserError(f"{what} is damaged: the bytes of {tensor.name} do not follow on")
        bits = BITS.get(tensor.dtype)
        if bits and tensor.size != math.prod(tensor.shape) * bits // 8:
            raise UserError(f"{what} is damaged: {tensor.name} does not have the size of its shape")
        end += tensor.size
    if size != end:
        raise UserError(f"{what} is cut off or damaged: {size} bytes instead of {end}")
    return Shard(path, metadata, tuple(tensors))


def _tensor(name: str, entry: dict[str, Any], offset: int) -> Tensor:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(isinstance(i, int) and i >= 0 for i in (begin, end - begin, *shape)):
        raise ValueError
    return Tensor(name, str(entry["dtype"]), shape, offset + begin, end - begin)


def _names(shards: list[Shard]) -> list[str]:
    return [tensor.name for shard in shards for tensor in shard.tensors]


def _first_number(name: str) -> tuple[str, int]:
    """What stands before the first whole number in a dotted name, and the number: ("h", 3) for
    "h.3.attn.weight"; ("", 0) where there is none."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isdecimal() and len(part) < 10:
            return ".".join(parts[:i]), int(part)
    return "", 0


def _complete(numbers: set[int], n_layers: int) -> bool:
    return len(numbers) == n_layers and all(0 <= number < n_layers for number in numbers)


def _spans(numbers: set[int], n_layers: int) -> str:
    missing = next((number for number in range(n_layers) if number not in numbers), None)
    extra = min((number for number in numbers if number >= n_layers), default=None)
    parts = [f"{len(numbers)} layers"]
    parts += [f"{missing} is missing"] if missing is not None else []
    parts += [f"{extra} is extra"] if extra is not None else []
    return ", ".join(parts)
