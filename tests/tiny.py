"""Small random causal LMs of every family that we claim, with perturbed weights."""

from pathlib import Path

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

SHARED = {"vocab_size": 199, "hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4}
GATED = SHARED | {"intermediate_size": 128, "num_key_value_heads": 2}
PLAIN = SHARED | {"intermediate_size": 128}
# Where layers can differ in kind, they do: a wrong slice of a per-layer list then shows.
KINDS = ["sliding_attention", "full_attention", "full_attention"] * 2
SLIDING = {"sliding_window": 4, "layer_types": KINDS}

FAMILIES: dict[str, dict] = {
    "llama": GATED,
    "mistral": GATED | {"sliding_window": None},
    "qwen2": GATED | SLIDING | {"use_sliding_window": True},
    "qwen3": GATED | SLIDING | {"use_sliding_window": True, "head_dim": 16},
    "gemma2": GATED | SLIDING | {"head_dim": 16},
    "olmo2": GATED,
    "phi": PLAIN | {"partial_rotary_factor": 0.5},
    "phi3": GATED | {"pad_token_id": 0},
    "gpt_neox": PLAIN,
    "opt": SHARED | {"ffn_dim": 128, "word_embed_proj_dim": 64, "max_position_embeddings": 64},
}


def random_model(family: str, seed: int = 0, **changes: object) -> PreTrainedModel:
    """A float32 model in eval mode; norms and biases are perturbed too, so that each one counts."""
    torch.manual_seed(seed)
    settings = FAMILIES[family] | {"bos_token_id": 1, "eos_token_id": 2} | changes
    config = CONFIG_MAPPING[family](**settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def random_tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 199, (rows, length), generator=torch.Generator().manual_seed(seed))


def save(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder
