"""Qwen version 1 by its equations: one text at a time, plain float64 torch, a checkpoint's tensors
under their own names. Rotations are complex products, attention a loop over queries and heads.

    write(folder)                                    a small random checkpoint
    forward(tensors, config, tokens)                 a whole text
    cache = Cache(); forward(…, prompt, cache); forward(…, more, cache)     a text in parts
"""

import cmath
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

HIDDEN, HEADS, FFN, LAYERS, VOCABULARY, TRAINED = 32, 4, 24, 4, 61, 8
CONFIG: dict[str, Any] = {
    "architectures": ["QWenLMHeadModel"],
    "auto_map": {
        "AutoConfig": "configuration_qwen.QWenConfig",
        "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel",
    },
    "attn_dropout_prob": 0.0,
    "bf16": False,
    "emb_dropout_prob": 0.0,
    "fp16": False,
    "fp32": False,
    "hidden_size": HIDDEN,
    "intermediate_size": 2 * FFN,
    "initializer_range": 0.02,
    "kv_channels": HIDDEN // HEADS,
    "layer_norm_epsilon": 1e-6,
    "max_position_embeddings": 64,
    "model_type": "qwen",
    "no_bias": True,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "onnx_safe": None,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "scale_attn_weights": True,
    "seq_length": TRAINED,
    "tie_word_embeddings": False,
    "tokenizer_class": "QWenTokenizer",
    "transformers_version": "4.32.0",
    "use_cache": True,
    "use_dynamic_ntk": True,
    "use_flash_attn": "auto",
    "use_logn_attn": True,
    "vocab_size": VOCABULARY,
}
GENERATION = {
    "chat_format": "raw",
    "eos_token_id": 60,
    "pad_token_id": 60,
    "stop_words_ids": [[60]],
    "max_new_tokens": 512,
    "do_sample": True,
    "top_k": 0,
    "top_p": 0.8,
}


def write(folder: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A random checkpoint in the original layout: weights large enough for attention to be sharp,
    no bias zero, no norm one."""
    config = CONFIG | changes
    hidden = config["hidden_size"]
    shapes = {"wte.weight": (VOCABULARY, hidden), "ln_f.weight": (hidden,)}
    for i in range(config["num_hidden_layers"]):
        shapes |= {
            f"h.{i}.ln_1.weight": (hidden,),
            f"h.{i}.attn.c_attn.weight": (3 * hidden, hidden),
            f"h.{i}.attn.c_attn.bias": (3 * hidden,),
            f"h.{i}.attn.c_proj.weight": (hidden, hidden),
            f"h.{i}.ln_2.weight": (hidden,),
            f"h.{i}.mlp.w1.weight": (FFN, hidden),
            f"h.{i}.mlp.w2.weight": (FFN, hidden),
            f"h.{i}.mlp.c_proj.weight": (hidden, FFN),
        }
    random = torch.Generator().manual_seed(0)
    tensors = {"lm_head.weight": 0.1 * torch.randn(VOCABULARY, hidden, generator=random)}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=random)
        scaled = 1 + 0.2 * noise if ".ln_" in name or name.startswith("ln_") else 0.25 * noise
        tensors[f"transformer.{name}"] = scaled
    folder.mkdir(parents=True)
    save_file(
        {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    return folder


def tokens(length: int, seed: int = 0) -> list[int]:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (length,), generator=random).tolist()


@dataclass
class Cache:
    """Rotated keys and values by layer, and the NTK scale that the keys were rotated with."""

    alpha: float | None = None
    keys: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    values: dict[int, list[torch.Tensor]] = field(default_factory=dict)


def read(folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """A checkpoint's tensors, of all its shards, in float64, and its config."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= {name: tensor.double() for name, tensor in load_file(path).items()}
    return tensors, json.loads((folder / "config.json").read_text())


def alpha_of(length: int, seq_length: int) -> int:
    """1 up to seq_length, then 3, 7, 15, … each for twice the length of the one before."""
    alpha, limit = 1, seq_length
    while length > limit:
        alpha, limit = 2 * alpha + 1, 2 * limit
    return alpha


def rotate(vector: torch.Tensor, position: int, config: dict, alpha: float) -> torch.Tensor:
    """One head's vector [kv_channels]: channels i and i + d/2, as a complex number, are turned by
    position / base^(2i/d)."""
    width = int(config["kv_channels"] * config["rotary_pct"])
    base = config["rotary_emb_base"] * alpha ** (width / (width - 2))
    turned = vector.clone()
    for i in range(width // 2):
        turn = cmath.exp(1j * position / base ** (2 * i / width))
        point = complex(vector[i], vector[i + width // 2]) * turn
        turned[i], turned[i + width // 2] = point.real, point.imag
    return turned


def normalise(states: torch.Tensor, weight: torch.Tensor, config: dict) -> torch.Tensor:
    mean_square = (states**2).mean(-1, keepdim=True)
    return states / (mean_square + config["layer_norm_epsilon"]).sqrt() * weight


def attention(
    queries: torch.Tensor, keys: list[torch.Tensor], values: list[torch.Tensor], config: dict
) -> torch.Tensor:
    """queries [length, heads, width] are the last of the positions that keys and values cover."""
    length, heads, width = queries.shape
    total = len(keys)
    mixed = torch.zeros_like(queries)
    for row in range(length):
        position = total - length + row
        for head in range(heads):
            scores = torch.stack([queries[row, head] @ keys[k][head] for k in range(position + 1)])
            weights = (scores / math.sqrt(width)).softmax(0)
            mixed[row, head] = sum(w * values[k][head] for k, w in enumerate(weights))
    return mixed.reshape(length, heads * width)


def forward(
    tensors: dict[str, torch.Tensor],
    config: dict,
    tokens: list[int],
    cache: Cache | None = None,
    training: bool = False,
) -> torch.Tensor:
    """Logits [length, vocab] of `tokens`, which follow those in the cache."""
    cache = cache if cache is not None else Cache()
    past = len(cache.keys.get(0, []))
    scale_base = config["use_dynamic_ntk"] and not training
    if cache.alpha is None:
        cache.alpha = alpha_of(len(tokens), config["seq_length"]) if scale_base else 1
    heads, width = config["num_attention_heads"], config["kv_channels"]
    states = tensors["transformer.wte.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        part = {
            name.removeprefix(f"transformer.h.{layer}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"transformer.h.{layer}.")
        }
        normal = normalise(states, part["ln_1.weight"], config)
        joint = normal @ part["attn.c_attn.weight"].T + part["attn.c_attn.bias"]
        query, key, value = joint.reshape(len(tokens), 3, heads, width).unbind(1)
        query = query.clone()
        for row in range(len(tokens)):
            position = past + row
            turned = [rotate(key[row, h], position, config, cache.alpha) for h in range(heads)]
            cache.keys.setdefault(layer, []).append(torch.stack(turned))
            cache.values.setdefault(layer, []).append(value[row])
            for head in range(heads):
                query[row, head] = rotate(query[row, head], position, config, cache.alpha)
            if config["use_logn_attn"] and not training and position + 1 > config["seq_length"]:
                query[row] *= math.log(position + 1, config["seq_length"])
        mixed = attention(query, cache.keys[layer], cache.values[layer], config)
        states = states + mixed @ part["attn.c_proj.weight"].T
        normal = normalise(states, part["ln_2.weight"], config)
        gate = normal @ part["mlp.w2.weight"].T
        up = normal @ part["mlp.w1.weight"].T
        states = states + (up * gate * gate.sigmoid()) @ part["mlp.c_proj.weight"].T
    return (
        normalise(states, tensors["transformer.ln_f.weight"], config) @ tensors["lm_head.weight"].T
    )
