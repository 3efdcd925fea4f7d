"""Small random causal LMs of every family that we claim, with perturbed weights."""

from pathlib import Path
from typing import Any

import torch
from accelerate import dispatch_model
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 199
SHARED = {"vocab_size": VOCABULARY, "num_hidden_layers": 6, "num_attention_heads": 4}
PLAIN = SHARED | {"hidden_size": 64, "intermediate_size": 128}
GATED = PLAIN | {"num_key_value_heads": 2}
# Where layers can differ in kind, they do: a wrong slice of a per-layer list then shows.
KINDS = ["sliding_attention", "full_attention", "full_attention"] * 2
SLIDING = {"sliding_window": 4, "layer_types": KINDS}
QWEN = GATED | SLIDING | {"use_sliding_window": True}
GEMMA = GATED | SLIDING | {"head_dim": 16, "query_pre_attn_scalar": 16}
FALCON = SHARED | {"hidden_size": 64, "ffn_hidden_size": 128}
# As many layers as the text decoder has: only one of the two stacks is to be found.
VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "original_max_position_embeddings": 64,
    "partial_rotary_factor": 0.75,
    # As many numbers as layers, and none of them a layer's.
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "long_factor": [1.0, 1.2, 1.4, 1.6, 1.8, 2.0],
}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GATED,
    "mistral": GATED | {"sliding_window": 4},
    "mixtral": GATED | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "phi": PLAIN | {"partial_rotary_factor": 0.5},
    "phi3": GATED | {"pad_token_id": 0, "sliding_window": 4},
    "qwen": PLAIN | {"intermediate_size": 256, "kv_channels": 16, "seq_length": 128},
    "qwen2": QWEN,
    "qwen3": QWEN | {"head_dim": 16},
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "gemma3": {
        "text_config": GEMMA,
        "vision_config": VISION,
        "mm_tokens_per_image": 4,
        "image_token_index": 300,
    },
    "olmo2": GATED,
    "smollm3": GATED
    | {
        "pad_token_id": 0,
        "no_rope_layers": [1, 0, 1, 1, 0, 1],
        "use_sliding_window": True,
        "sliding_window": 4,
    },
    "gpt_neox": PLAIN,
    "gpt2": SHARED | {"hidden_size": 64, "n_inner": 128},
    "opt": SHARED
    | {"hidden_size": 64, "ffn_dim": 128, "word_embed_proj_dim": 64}
    | {"max_position_embeddings": 128},
    "falcon": FALCON,
}
# Forms of a family that go other ways through its code.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "gemma2 untied": ("gemma2", {"tie_word_embeddings": False}),
    "gpt2 untied": ("gpt2", {"tie_word_embeddings": False}),
    "phi3 long rope": (
        "phi3",
        {"rope_parameters": LONG, "max_position_embeddings": 128},
    ),
    "gpt_neox sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "falcon alibi": ("falcon", {"alibi": True, "parallel_attn": False, "bias": True}),
    "falcon 40b": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "qwen2 by default": (
        "qwen2",
        {"layer_types": None, "max_window_layers": 3},
    ),
}
FORMS = [*FAMILIES, *VARIANTS]


def random_model(
    family: str, seed: int = 0, settings: dict[str, Any] | None = None, **changes: object
) -> PreTrainedModel:
    """A float32 model in eval mode; norms and biases are perturbed too, so that each one counts.

    `changes` are settings of the text decoder, laid over `settings`, which are those in FAMILIES
    unless given."""
    torch.manual_seed(seed)
    special = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}
    settings = FAMILIES[family] if settings is None else settings
    if "text_config" in settings:
        text = settings["text_config"] | special | changes
        config = CONFIG_MAPPING[family](**settings | {"text_config": text})
    else:
        config = CONFIG_MAPPING[family](**settings | special | changes)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def random_variant(name: str, seed: int = 0, **changes: object) -> PreTrainedModel:
    """A family by its name, or one of `VARIANTS`."""
    family, settings = VARIANTS.get(name, (name, {}))
    return random_model(family, seed, **settings | changes)


def random_tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (rows, length), generator=generator)


def save(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def looped(
    model: PreTrainedModel, stack: str, kept: list[int], tokens: torch.Tensor
) -> torch.Tensor:
    """Logits of a loop over the kept layers, by hand: each is called with the arguments that the
    whole model gave it, and the residual stream of the layer before it in the loop.

    `stack` is the full name of the list of layers."""
    layers, seen = model.get_submodule(stack), {}

    def record(number: int):
        def hook(_: nn.Module, args: tuple, kwargs: dict) -> None:
            seen[number] = args, kwargs

        return hook

    def loop(_: nn.Module, __: tuple, output: object):
        args, kwargs = seen[0]
        stream = args[0] if args else kwargs["hidden_states"]
        for number in kept:
            args, kwargs = seen[number]
            if args:
                found = layers[number].forward(stream, *args[1:], **kwargs)
            else:
                found = layers[number].forward(**kwargs | {"hidden_states": stream})
            stream = found[0] if isinstance(found, tuple) else found
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    hooks = [
        layer.register_forward_pre_hook(record(i), with_kwargs=True)
        for i, layer in enumerate(layers)
    ]
    hooks.append(layers[-1].register_forward_hook(loop))
    with torch.inference_mode():
        logits = model(tokens, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return logits


def logits_of(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(tokens, use_cache=False).logits


def on_several_devices(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """A Llama with every other layer on disk: accelerate's hooks move weights and states, as they
    do between GPUs."""
    others = ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")
    parts = dict.fromkeys(others, "cpu")
    for i in range(model.config.num_hidden_layers):
        parts[f"model.layers.{i}"] = "disk" if i % 2 else "cpu"
    return dispatch_model(model, parts, main_device="cpu", offload_dir=folder)
