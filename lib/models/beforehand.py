"""The files of a checkpoint, looked at before a library is handed them: whether they are files at
all, of a size that such files have, and whether their configuration has as many layers as tensors
can make. Libraries believe them, and may build for hours.

Importing this module is cheap (no torch).
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.models import shards

# What libraries read of a checkpoint, and as a whole: settings, which are small wherever they are
# sound, and what makes a tokenizer.
SETTINGS = re.compile(r"((generation_|tokenizer_)?config|special_tokens_map|added_tokens)\.json")
OTHERS = re.compile(r"(tokenizer|vocab|merges|spiece|sentencepiece|model\.safetensors\.index).*")
LARGEST, LARGEST_SETTINGS = 100_000_000, 10_000_000  # bytes; large tokenizers have 40 million
SOON_BUILT = 100  # layers, whatever the tensors say: of some settings a default is left standing
PACKED = 16  # parameters that one number of a quantised checkpoint may stand for
MOST_LAYERS = 1000  # where no tensors are at hand; the deepest models have a few hundred


def look(folder: Path) -> None:
    """Raises UserError for a checkpoint with a file that cannot be what its name says, and for a
    configuration that its tensors contradict by far."""
    try:
        found = [path for path in sorted(folder.iterdir()) if not path.is_dir()]
    except OSError as error:
        raise UserError(f"checkpoint {folder}: cannot be read: {error.strerror}") from None
    settings = {}
    for path in found:
        small = SETTINGS.fullmatch(path.name)
        if small or OTHERS.fullmatch(path.name):
            _check_file(path, LARGEST_SETTINGS if small else LARGEST)
        if small:
            settings[path.name] = _settings(path)
    if "config.json" in settings:
        what = f"checkpoint {folder}: config.json"
        tensors = _tensors(folder)
        check_layers(what, settings["config.json"], None if tensors is None else len(tensors))


def _check_file(path: Path, most: int) -> None:
    what = f"checkpoint {path.parent}: {path.name}"
    if not path.is_file():
        raise UserError(f"{what}: is no file: a pipe, a device, or a link that leads nowhere")
    size = path.stat().st_size
    if size > most:
        raise UserError(
            f"{what}: has {size / 1e6:,.0f} MB; such a file has at most {most / 1e6:.0f}"
        )


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"), parse_constant=_number)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise UserError(
            f"checkpoint {path.parent}: cannot be loaded: {path.name}: {reason}"
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"checkpoint {path.parent}: cannot be loaded: {path.name}: holds no keys")
    return found


def _number(spelt: str) -> float:
    """Some families write infinity, and mean it."""
    if spelt == "NaN":
        raise ValueError("holds NaN, which is no number")
    return float(spelt)


def _tensors(folder: Path) -> list[shards.Tensor] | None:
    """None where they cannot be read, which others report."""
    try:
        return [tensor for shard in shards.read(folder) for tensor in shard.tensors]
    except UserError:
        return None


def check_size(folder: Path, parameters: int) -> None:
    """Raises UserError where a model of the configuration has so many more parameters than the
    checkpoint has numbers that these cannot be its own, packed or not."""
    numbers = sum(math.prod(tensor.shape) for tensor in _tensors(folder) or [])
    if numbers and parameters > PACKED * numbers:
        raise UserError(
            f"checkpoint {folder}: config.json makes a model of {parameters:,} parameters, but its "
            f"tensors hold {numbers:,} numbers"
        )


def check_layers(what: str, settings: dict[str, Any], tensors: int | None = None) -> None:
    """Raises UserError where a number of layers is above that of tensors, of which every layer has
    one, or, where that is not known, above any that a model has."""
    most, because = MOST_LAYERS, f"models have at most {MOST_LAYERS:,}"
    if tensors is not None:
        most, because = max(tensors, SOON_BUILT), f"the checkpoint has {tensors:,} tensors"
    for key, value in _layers(settings):
        if value > most:
            raise UserError(f"{what}: {key} is {value:,}; {because}")


def _layers(settings: Any) -> Iterator[tuple[str, int]]:
    """Every number of layers in a configuration, with its key."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            if type(value) is int and re.search(r"(^|_)layers?$", str(key)):
                yield key, value
            yield from _layers(value)
    elif isinstance(settings, list):
        for value in settings:
            yield from _layers(value)
