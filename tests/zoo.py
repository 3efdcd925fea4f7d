"""Families beyond those that we claim and heal: settings of small random ones, six layers each.

Where layers can differ in kind they do, so that a wrong slice of a per-layer list shows.
"""

from typing import Any

from tiny import GATED, GEMMA, KINDS, PLAIN, SHARED, SLIDING

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
}
HEADS = GATED | {"head_dim": 16}
N_EMBD = {"n_embd": 64, "n_layer": 6, "n_head": 4, "n_inner": 128, "n_positions": 128}
STATES = {"hidden_size": 64, "state_size": 8, "num_hidden_layers": 6}
MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "mamba_chunk_size": 8,
}
DELTA = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"] * 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
HYBRID = ["hybrid" if i in (1, 4) else "mamba" for i in range(6)]

MORE: dict[str, dict[str, Any]] = {
    # Attention and FFN, dense.
    "granite": GATED,
    "gemma": HEADS,
    "starcoder2": GATED | {"sliding_window": 4},
    "stablelm": GATED,
    "cohere": GATED,
    "cohere2": GATED | SLIDING,
    "glm": HEADS | {"pad_token_id": 0},
    "glm4": HEADS | {"pad_token_id": 0},
    "olmo": GATED,
    "olmo3": GATED | SLIDING,
    "nemotron": GATED,
    "bloom": SHARED | {"hidden_size": 64},
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 6},
    "gptj": N_EMBD | {"rotary_dim": 8},
    "codegen": N_EMBD | {"rotary_dim": 8},
    "persimmon": PLAIN,
    "exaone4": GATED | SLIDING,
    "ernie4_5": HEADS,
    "seed_oss": HEADS,
    "helium": HEADS,
    "hunyuan_v1_dense": HEADS | {"pad_token_id": 0},
    "arcee": HEADS,
    "apertus": GATED,
    "bitnet": GATED,
    "xglm": SHARED
    | {"d_model": 64, "num_layers": 6, "attention_heads": 4, "ffn_dim": 128}
    | {"max_position_embeddings": 128},
    "biogpt": PLAIN | {"max_position_embeddings": 128},
    "gpt_bigcode": N_EMBD,
    "ministral": HEADS | SLIDING,
    "nanochat": GATED,
    "vaultgemma": GEMMA,
    # Experts.
    "qwen2_moe": GATED | EXPERTS | {"shared_expert_intermediate_size": 32},
    "qwen3_moe": HEADS | EXPERTS,
    "olmoe": GATED | EXPERTS,
    "deepseek_v2": PLAIN | LATENT | ROUTED,
    "deepseek_v3": PLAIN | LATENT | ROUTED,
    "granitemoe": GATED | LOCAL,
    "phimoe": GATED | LOCAL,
    "glm4_moe": HEADS | ROUTED,
    "ernie4_5_moe": GATED | {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32},
    "dots1": GATED | ROUTED | SLIDING,
    "jetmoe": SHARED
    | {"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 2, "kv_channels": 16}
    | LOCAL,
    "flex_olmo": GATED | EXPERTS | {"pad_token_id": 0},
    "llama4_text": HEADS | LOCAL | {"intermediate_size_mlp": 128, "attention_chunk_size": 8},
    "gpt_oss": HEADS | LOCAL | {"sliding_window": 4, "layer_types": KINDS},
    # Convolutions, states and linear attention, alone or between attention layers.
    "lfm2": GATED | {"layer_types": ["conv", "conv", "full_attention"] * 2},
    "jamba": GATED
    | {"attn_layer_period": 3, "attn_layer_offset": 1, "use_mamba_kernels": False}
    | {"expert_layer_period": 3, "expert_layer_offset": 1, "num_experts": 2}
    | {"mamba_d_state": 8},
    "mamba": STATES,
    "mamba2": STATES | {"num_heads": 8, "head_dim": 16, "n_groups": 1, "chunk_size": 8},
    "falcon_mamba": STATES,
    "qwen3_next": HEADS | EXPERTS | DELTA | {"shared_expert_intermediate_size": 32},
    "qwen3_5_text": HEADS | DELTA,
    "granitemoehybrid": GATED
    | LOCAL
    | MAMBA
    | {"layer_types": ["mamba", "attention", "mamba"] * 2, "shared_intermediate_size": 64},
    "bamba": GATED | MAMBA | {"attn_layer_indices": [1, 4]},
    "falcon_h1": GATED | MAMBA | {"mamba_d_ssm": 128},
    "recurrent_gemma": GATED
    | {"lru_width": 64, "attention_window_size": 4}
    | {"block_types": ["recurrent", "recurrent", "attention"]},
    "zamba": PLAIN
    | {"attn_layer_period": 3, "attn_layer_offset": 2, "use_mamba_kernels": False}
    | {"mamba_d_state": 8, "attention_head_dim": 32, "num_key_value_heads": 4},
    "zamba2": PLAIN
    | {"layers_block_type": HYBRID, "mamba_d_state": 8, "n_mamba_heads": 8, "chunk_size": 8}
    | {"num_key_value_heads": 4, "use_mamba_kernels": False},
}
# As deep as the shipped ones, behind whose last layer there is one for a further token.
BEHIND: dict[str, tuple[str, dict[str, Any]]] = {
    "deepseek_v3 and one behind": ("deepseek_v3", {"num_hidden_layers": 61}),
    "glm4_moe and one behind": ("glm4_moe", {"num_hidden_layers": 46}),
}
# Full names of the lists of layers, by hand, where it is not this one.
STACK = "model.layers"
STACKS = {
    "bloom": "transformer.h",
    "mpt": "transformer.blocks",
    "gptj": "transformer.h",
    "codegen": "transformer.h",
    "gpt_bigcode": "transformer.h",
    "biogpt": "biogpt.layers",
    "mamba": "backbone.layers",
    "mamba2": "backbone.layers",
    "falcon_mamba": "backbone.layers",
}
