"""GGUF files as checkpoints: one is read once, through transformers and the gguf package, and made
into an ordinary folder of safetensors in float32. Everything else then works as with any other.

What a file says and transformers does not read would be left out silently, and the model would be
another. So of each thing that a file says of its model, and of each of its tensors, it is asked
whether the model that is made of it has that.
"""

import json
import math
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.integrations import GGUF_CONFIG_MAPPING
from transformers.integrations.gguf import reader
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)

from lib import paths
from lib.errors import UserError
from lib.evidence.records import digest, file_digest
from lib.files import check_space, claimed, whole_or_not_at_all
from lib.models import gguf_tokenizers
from lib.models.anatomy import skeleton

METHOD = 1  # of making a checkpoint of a file
MODELS = {  # by architecture; of each every tensor is held to the original's in a test
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "gpt2": "gpt2",
}
NEEDED = ("block_count", "context_length", "embedding_length", "attention.head_count")
GEMMA_27B = (46, 62)  # layers of the Gemma 2 and 3 that divide attention by another root
SHARD = 2_000_000_000  # bytes of a file of the folder


def _head(config: PretrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


# What a file may say of its model, and what the configuration made of it has there. Whatever else a
# file says is not read, and so refused.
MEANT: dict[str, Callable[[PretrainedConfig], Any]] = {
    "block_count": lambda config: config.num_hidden_layers,
    "context_length": lambda config: config.max_position_embeddings,
    "embedding_length": lambda config: config.hidden_size,
    "feed_forward_length": lambda config: (
        getattr(config, "intermediate_size", None) or config.n_inner
    ),
    "vocab_size": lambda config: config.vocab_size,
    "attention.head_count": lambda config: config.num_attention_heads,
    "attention.head_count_kv": lambda config: config.num_key_value_heads,
    "attention.key_length": _head,
    "attention.value_length": _head,
    "attention.layer_norm_rms_epsilon": lambda config: config.rms_norm_eps,
    "attention.layer_norm_epsilon": lambda config: config.layer_norm_epsilon,
    "attention.causal": lambda config: True,
    "attention.sliding_window": lambda config: config.sliding_window,
    "attn_logit_softcapping": lambda config: config.attn_logit_softcapping,
    "final_logit_softcapping": lambda config: config.final_logit_softcapping,
    "rope.dimension_count": _head,
    "rope.freq_base": lambda config: _rope(config, "full_attention"),
    "rope.freq_base_swa": lambda config: _rope(config, "sliding_attention"),
    "rope.scaling.type": lambda config: "none",
    "expert_count": lambda config: 0,
    "expert_used_count": lambda config: 0,
    "tensor_data_layout": lambda config: "Meta AI original pth",  # of q and k, as all have them
}


def _rope(config: PretrainedConfig, layers: str) -> float:
    found = config.rope_parameters
    return found.get(layers, found)["rope_theta"]


def identity(path: Path) -> str:
    """Identifies what is made of a file, wherever it lies.

    Raises UserError where it cannot be read."""
    _check_readable(path)
    return digest({"gguf": file_digest(path), "method": METHOD})


def made(path: Path) -> Path:
    """The folder that a file is made into, now or earlier. Several processes may ask at once.

    Raises UserError as `look` does, and where the folder cannot be written."""
    folder = paths.BUILD / "gguf" / identity(path)
    with claimed(folder, f"{path.name}: another process is reading it; waiting"):
        if not (folder / "config.json").is_file():
            _make(path, folder)
    return folder


def numbers(path: Path) -> int:
    """How many numbers a file's tensors hold, by its header."""
    return sum(tensor.count for tensor in _header(path).tensors)


def n_layers(path: Path) -> int:
    """Raises UserError as `look` does."""
    look(path)
    header = _header(path)
    return header.said[f"{header.architecture}.block_count"]


def look(path: Path) -> None:
    """Read all that a file says, but for the values of its tensors. Of a sound file this takes no
    time; one that lies may ask for any: see `lib.models.trial`.

    Raises UserError, one line, for a file that is damaged, cut off, a part of a split one, of a
    model or a tokenizer that is not known here, or that says what is not read."""
    what = f"model {path}"
    _check_readable(path)
    header = _header(path)
    said, names, architecture = header.said, header.names, header.architecture
    if said.get("split.count", 1) > 1:
        raise UserError(
            f"{what}: is part {said.get('split.no', 0) + 1} of {said['split.count']}: join them "
            "with `llama-gguf-split --merge` and give the whole"
        )
    if architecture not in MODELS:
        raise UserError(
            f"{what}: files of architecture '{architecture:.40}' are not read here; "
            f"{', '.join(MODELS)} are. Give the original checkpoint"
        )
    gguf_tokenizers.check(what, said)
    config = _config(what, said, names)
    if config.num_hidden_layers > len(names):
        raise UserError(
            f"{what}: says that it has {config.num_hidden_layers:,} layers; it has {len(names):,} "
            "tensors"
        )
    size = path.stat().st_size
    for tensor in header.tensors:
        end = tensor.begin + tensor.size
        if end > size:
            raise UserError(
                f"{what}: is cut off: its tensor {tensor.name:.60} ends at byte {end:,}, the file "
                f"at byte {size:,}"
            )
    _check_said(what, said, config)


def _check_readable(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            begins = file.read(4)
    except OSError as error:
        raise UserError(f"model {path}: cannot be read: {error.strerror}") from None
    if begins != b"GGUF":
        raise UserError(f"model {path}: is no GGUF file; it begins with {begins!r}")


@dataclass(frozen=True)
class Tensor:
    """Where a tensor is: begin and size in bytes; shape as torch has it."""

    name: str
    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    begin: int
    size: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a file says by key, with a count in place of a list of words; its tensors."""

    said: dict[str, Any]
    tensors: list[Tensor]

    @property
    def architecture(self) -> str:
        return self.said["general.architecture"]

    @property
    def names(self) -> set[str]:
        return {tensor.name for tensor in self.tensors}


def _header(path: Path) -> Header:
    """Read by transformers' parts: its whole knows fewer kinds of quantisation than gguf does."""
    try:
        data = np.memmap(path, mode="r", dtype=np.uint8)
        said, count, place = reader._read_metadata(data, str(path))
        found, place = reader._read_tensor_table(data, count, place)
        align = said.get("general.alignment", 32)
        start = -(-place // align) * align
        return Header(said, [_tensor(start, *one) for one in found])
    except (
        struct.error,
        ValueError,
        ArithmeticError,
        LookupError,
        TypeError,
        MemoryError,
    ) as error:
        reason = " ".join(str(error).replace(str(path), "it").split())[:160]
        raise UserError(f"model {path}: is damaged or cut off: {reason}") from None


def _tensor(start: int, name: str, shape: tuple[int, ...], kind: int, offset: int) -> Tensor:
    one = gguf.GGMLQuantizationType(kind)
    numbers, size = gguf.GGML_QUANT_SIZES[one]
    return Tensor(name, shape, one, start + offset, math.prod(shape) // numbers * size)


def _config(what: str, said: dict[str, Any], names: Collection[str]) -> PretrainedConfig:
    """The configuration, made of what transformers reads; `_check_said` asks after the rest."""
    architecture = said["general.architecture"]
    for key in NEEDED:
        value = said.get(f"{architecture}.{key}")
        if type(value) is not int or value < 1:
            raise UserError(
                f"{what}: says {architecture}.{key} = {value!r:.60}, which is no number"
            )
    try:
        config = AutoConfig.for_model(MODELS[architecture], **_settings(said, names))
        config.architectures = [AutoModelForCausalLM._model_mapping[type(config)].__name__]
    except Exception as error:  # values of wrong types surface as many kinds
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{what}: is no model of its architecture: {reason}") from None
    config.dtype = torch.float32
    return config


def _settings(said: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    architecture = said["general.architecture"]
    read = GGUF_CONFIG_MAPPING[architecture].items()
    found = {to: said.get(f"{architecture}.{key}") for key, to in read if to}
    tokens = GGUF_CONFIG_MAPPING["tokenizer"].items()
    found |= {to: said.get(f"tokenizer.{key}") for key, to in tokens}
    found = {key: value for key, value in found.items() if value is not None}
    found.setdefault("vocab_size", said["tokenizer.ggml.tokens"])
    found["tie_word_embeddings"] = "output.weight" not in names
    # What transformers leaves at a default, or reads under a name that it does not use.
    if architecture == "gpt2":
        found["n_positions"] = found.pop("n_ctx")
        found["n_inner"] = found.pop("feed_forward_length", None)
    if architecture in ("qwen3", "gemma2", "gemma3"):
        found["head_dim"] = said[f"{architecture}.attention.key_length"]
    if architecture.startswith("gemma"):  # as llama.cpp does, since no file says it
        whole = found["num_hidden_layers"] in GEMMA_27B
        head = found["hidden_size"] // found["num_attention_heads"] if whole else found["head_dim"]
        found["query_pre_attn_scalar"] = head
    return found


def _check_said(what: str, said: dict[str, Any], config: PretrainedConfig) -> None:
    prefix = f"{said['general.architecture']}."
    for key, value in said.items():
        if not key.startswith(prefix):
            continue
        meant = MEANT.get(key.removeprefix(prefix))
        try:
            ours = meant(config) if meant else None
        except (AttributeError, KeyError):  # not of this architecture
            meant = None
        if meant is None:
            raise UserError(f"{what}: says {key} = {value!r:.60}, which is not read here")
        if value != ours:
            raise UserError(f"{what}: says {key} = {value!r:.60}; here it is {ours!r:.60}")


def _make(path: Path, folder: Path) -> None:
    """Write the checkpoint."""
    what = f"model {path}"
    look(path)
    header = _header(path)
    config = _config(what, header.said, header.names)
    check_space(folder, 4 * numbers(path))
    with whole_or_not_at_all(folder, anew=True) as partial:
        gguf_tokenizers.write(path, partial)
        _write_tensors(what, path, config, partial)
        config.save_pretrained(partial)


def _write_tensors(what: str, path: Path, config: PretrainedConfig, folder: Path) -> None:
    """Write all tensors under the model's own names, each once, and none left over."""
    shapes = {name: tuple(one.shape) for name, one in skeleton(config).state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    shard: dict[str, torch.Tensor] = {}
    index: dict[str, str] = {}
    for name, values in _tensors(what, path, config):
        if shapes.get(name) != values.shape:
            raise UserError(
                f"{what}: tensor {name} has the shape {list(values.shape)}; the model's is "
                f"{list(shapes.get(name, ()))}"
            )
        shard[name] = torch.from_numpy(np.array(values, dtype=np.float32, order="C"))
        index[name] = ""
        if sum(4 * one.numel() for one in shard.values()) > SHARD:
            _write_shard(folder, shard, index)
    _write_shard(folder, shard, index)
    if missing := sorted(shapes.keys() - index.keys()):
        raise UserError(f"{what}: lacks {len(missing)} of the model's tensors, e.g. {missing[0]}")
    total = {"total_size": sum(4 * int(np.prod(shapes[name])) for name in index)}
    text = json.dumps({"metadata": total, "weight_map": index}, indent=1)
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _write_shard(folder: Path, shard: dict[str, torch.Tensor], index: dict[str, str]) -> None:
    name = f"model-{len(set(index.values())):05d}.safetensors"
    save_file(shard, folder / name, metadata={"format": "pt"})
    index.update(dict.fromkeys(shard, name))
    shard.clear()


def _tensors(what: str, path: Path, config: PretrainedConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of a file under the model's name for it, dequantised, with what llama.cpp
    changes taken back: the order of rows of q and k, a shift of norms, transposes."""
    header = _header(path)
    settings = config.to_dict()
    processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)(config=settings)
    names = get_gguf_hf_weights_map(skeleton(config), processor)
    names.setdefault("output.weight", "lm_head.weight")
    data = np.memmap(path, mode="r", dtype=np.uint8)
    for tensor in tqdm(header.tensors, desc=f"reading {path.name}", leave=False):
        if tensor.name not in names:
            raise UserError(f"{what}: has a tensor {tensor.name:.60}, which is not read here")
        raw = data[tensor.begin : tensor.begin + tensor.size]
        values = gguf.dequantize(raw.reshape(*tensor.shape[:-1], -1), tensor.kind)
        if tensor.name != "output.weight":  # which GPT-2's processor takes for another
            values = processor.process(weights=values, name=tensor.name).weights
        yield names[tensor.name], values
