"""Writing small GGUF files as llama.cpp's converter does: its names, and what it changes of the
tensors, by hand and apart from the code that reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedModel

KINDS = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16}
KINDS |= {"bf16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0}
LLAMA = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "post_attention_layernorm": "ffn_norm", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
}  # fmt: skip
GEMMA = LLAMA | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
GPT2 = {
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
OUTSIDE = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "transformer.wte": "token_embd", "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
}  # fmt: skip


def tensors(model: PreTrainedModel, architecture: str) -> dict[str, np.ndarray]:
    """A model's tensors under llama.cpp's names, in its order of rows, with its shifts."""
    layers = {"gpt2": GPT2, "gemma2": GEMMA, "gemma3": GEMMA}.get(architecture, LLAMA)
    config, found = model.config, {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, suffix = name.rpartition(".")
        parts = stem.split(".")
        if "layers" in parts or "h" in parts:
            at = parts.index("layers" if "layers" in parts else "h")
            new = f"blk.{parts[at + 1]}.{layers['.'.join(parts[at + 2 :])]}"
        else:
            new = OUTSIDE[stem]
        array = value.detach().float().numpy()
        if architecture == "llama" and new.endswith(("attn_q", "attn_k")):
            heads = config.num_attention_heads
            heads = heads if new.endswith("attn_q") else config.num_key_value_heads
            # Each head's two halves, which are turned together, are laid side by side.
            halves = array.reshape(heads, 2, -1, *array.shape[1:])
            array = halves.swapaxes(1, 2).reshape(array.shape)
        if architecture.startswith("gemma") and "norm" in new:
            array = array + 1
        if architecture == "gpt2" and suffix == "weight" and array.ndim == 2 and "blk" in new:
            array = array.T
        found[f"{new}.{suffix}"] = np.ascontiguousarray(array)
    return found


def settings(model: PreTrainedModel, architecture: str) -> dict[str, Any]:
    """What a file says of its model."""
    config = model.config
    found = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "attention.head_count": config.num_attention_heads,
    }
    if architecture == "gpt2":
        return found | {
            "feed_forward_length": 4 * config.n_embd,
            "attention.layer_norm_epsilon": config.layer_norm_epsilon,
        }
    rope = config.rope_parameters
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    found |= {
        "feed_forward_length": config.intermediate_size,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": rope.get("full_attention", rope)["rope_theta"],
    }
    if architecture == "llama":
        found |= {"vocab_size": config.vocab_size, "rope.dimension_count": head}
    if architecture in ("qwen3", "gemma2", "gemma3"):
        found |= {"attention.key_length": head, "attention.value_length": head}
    if architecture.startswith("gemma"):
        found["attention.sliding_window"] = config.sliding_window
    if architecture == "gemma2":
        found["attn_logit_softcapping"] = config.attn_logit_softcapping
        found["final_logit_softcapping"] = config.final_logit_softcapping
    return found


def words(tokenizer: Tokenizer, rule: str | None, kind: str = "gpt2") -> dict[str, Any]:
    """What a file says of a tokenizer of BPE."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = {
        token.content: 3 if token.special else 4
        for token in tokenizer.get_added_tokens_decoder().values()
    }
    tokens = [token for token, _ in vocabulary]
    return {
        "model": kind,
        "tokens": tokens,
        "token_type": [special.get(token, 1) for token in tokens],
    } | ({"pre": rule} if rule else {})


def write(
    path: Path,
    architecture: str,
    says: dict[str, Any],
    arrays: dict[str, np.ndarray],
    kind: str = "f32",
) -> dict[str, np.ndarray]:
    """Write a file; says: all but the architecture. Matrices are of a kind, vectors in float32.
    Returns what each tensor is once it is dequantised."""
    writer, found = gguf.GGUFWriter(path, architecture), {}
    for key, value in says.items():
        _say(writer, key, value)
    for name, array in arrays.items():
        one = KINDS[kind] if array.ndim > 1 else KINDS["f32"]
        packed = gguf.quantize(array, one)
        raw = None if one in (KINDS["f32"], KINDS["f16"]) else one
        writer.add_tensor(name, packed, raw_dtype=raw)
        found[name] = gguf.dequantize(packed, one)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


def _say(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, Sequence):
        writer.add_array(key, list(value))
    else:
        raise TypeError(key)
