"""Qwen-7B and Qwen-14B (version 1, arXiv 2309.16609), read and run without remote code.

`register()` makes transformers' Auto classes load such checkpoints, and only with the code below.
The architecture is Qwen2's under other names, rotations in float32 whatever the weights' type. It
differs beyond `seq_length`, the longest sequence of the training (8,192 tokens for Qwen-7B, 2,048
for Qwen-14B). With positions counted from 0 and T the length of a text:

- NTK (`use_dynamic_ntk`): the rotary base b becomes b · α^(d / (d − 2)), d the rotated width, with
  α = max(1, 2^⌈log₂(T / seq_length) + 1⌉ − 1): 1 up to seq_length, 3 up to twice, 7 up to four
  times that.
- log-n (`use_logn_attn`): after its rotation the query at position p is multiplied by
  max(1, ln(p + 1) / ln(seq_length)).

Both apply in eval mode only; training sees plain rotary attention at any length.

Cached generation. Keys are cached after their rotation, so one text can have only one α: that of
the first forward, the prompt's, however long the text becomes; log-n goes on with the position. The
cache remembers it (`ntk_alphas`). A text that was begun within seq_length and continued beyond it
from a cache therefore differs from the same text in one forward: nothing may share a prefix unless
all texts stay within seq_length (`lib.evaluation.replay.longest_alike`).

Padding. With an attention mask (batch, length), left or right, T and p count a text's own tokens:
it is computed as if it stood alone. (The original counts p with the padding on the left.) Without a
mask every column is taken for text, as in the original.

Saving writes version 1's layout again, names, joint `c_attn` and config included: a pruned
checkpoint loads here, and in other tools that know version 1. It is not written as Qwen2, which
would load everywhere and be wrong beyond seq_length without a word.
"""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Cache,
    DynamicCache,
    PreTrainedModel,
    Qwen2ForCausalLM,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Chunk, WeightConverter, WeightRenaming
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2Attention,
    Qwen2DecoderLayer,
    Qwen2MLP,
    Qwen2PreTrainedModel,
    Qwen2RMSNorm,
    eager_attention_forward,
)
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from lib.models.qwen_config import QWenConfig, ntk_alpha
from lib.models.qwen_tokenizer import QWenTokenizer

# Version 1's names, in its files → the names of the modules below. w1 is the up projection, w2 the
# gate; the rows of c_attn are q, k, v, a third each.
LAYOUT = [
    WeightRenaming(r"^transformer\.wte\.", "model.embed_tokens."),
    WeightRenaming(r"^transformer\.ln_f\.", "model.norm."),
    WeightRenaming(r"^transformer\.h\.", "model.layers."),
    WeightRenaming(r"\.ln_1\.", ".input_layernorm."),
    WeightRenaming(r"\.ln_2\.", ".post_attention_layernorm."),
    WeightRenaming(r"\.attn\.c_proj\.", ".self_attn.o_proj."),
    WeightRenaming(r"\.mlp\.w1\.", ".mlp.up_proj."),
    WeightRenaming(r"\.mlp\.w2\.", ".mlp.gate_proj."),
    WeightRenaming(r"\.mlp\.c_proj\.", ".mlp.down_proj."),
    WeightConverter(
        ".attn.c_attn.",
        [".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."],
        [Chunk(dim=0)],
    ),
]


def rotary(
    config: QWenConfig, positions: torch.Tensor, alphas: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [rows, length, rotary width] in float32 of positions [1 or rows, length];
    `alphas` has one entry for all rows or one each."""
    width = config.rotary_width
    device = positions.device
    scaled = [config.rotary_emb_base * alpha ** (width / (width - 2)) for alpha in alphas]
    bases = torch.tensor(scaled, dtype=torch.float32, device=device)
    exponents = torch.arange(0, width, 2, device=device).float() / width
    frequencies = 1.0 / bases[:, None] ** exponents  # [1 or rows, width / 2]
    angles = positions[..., None].float() * frequencies[:, None]
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def logn(config: QWenConfig, positions: torch.Tensor) -> torch.Tensor:
    """What the queries at positions [1 or rows, length] are multiplied by, in float32."""
    factors = (positions.double() + 1).log() / math.log(config.seq_length)
    return factors.clamp(min=1).float()


def rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Queries or keys [rows, heads, length, width], their first channels rotated in float32: a
    channel forms a pair with the one half the rotary width further on."""
    turning, rest = states.float().split([cos.shape[-1], states.shape[-1] - cos.shape[-1]], dim=-1)
    first, second = turning.chunk(2, dim=-1)
    turned = turning * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]
    return torch.cat((turned, rest), dim=-1).to(states.dtype)


class QWenAttention(Qwen2Attention):
    """Qwen2's modules; `position_embeddings` is (cos, sin, log-n factors)."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            projection(hidden_states).view(heads).transpose(1, 2)  # [rows, heads, length, width]
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        cos, sin, factors = position_embeddings
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        query = query * factors[:, None, :, None].to(query.dtype)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        mixed, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(mixed.reshape(hidden_states.shape).contiguous()), weights


class QWenDecoderLayer(Qwen2DecoderLayer):
    def __init__(self, config: QWenConfig, layer_idx: int) -> None:
        GradientCheckpointingLayer.__init__(self)
        ffn = SimpleNamespace(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size // 2,
            hidden_act="silu",
        )
        self.self_attn = QWenAttention(config, layer_idx)
        self.mlp = Qwen2MLP(ffn)
        self.input_layernorm = Qwen2RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.post_attention_layernorm = Qwen2RMSNorm(config.hidden_size, config.layer_norm_epsilon)


class QWenPreTrainedModel(Qwen2PreTrainedModel):
    config: QWenConfig
    _no_split_modules = ["QWenDecoderLayer"]  # noqa: RUF012
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": QWenDecoderLayer,
        "attentions": QWenAttention,
    }


class QWenModel(QWenPreTrainedModel):
    def __init__(self, config: QWenConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            QWenDecoderLayer(config, i) for i in range(config.num_hidden_layers)
        )
        self.norm = Qwen2RMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        length = inputs_embeds.shape[1]
        # A mask of more dimensions was prepared by a caller who knows the positions.
        mask = attention_mask if attention_mask is not None and attention_mask.ndim == 2 else None
        if position_ids is None:
            columns = torch.arange(past, past + length, device=inputs_embeds.device)[None]
            position_ids = columns if mask is None else own_positions(mask)[:, -length:]
        alphas = self._ntk_alphas(past, length, mask, past_key_values)
        cos, sin = rotary(self.config, position_ids, alphas)
        if self.config.use_logn_attn and not self.training:
            factors = logn(self.config, position_ids)
        else:
            factors = torch.ones_like(position_ids, dtype=torch.float32)
        causal_mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        hidden_states = nn.functional.dropout(
            inputs_embeds, self.config.emb_dropout_prob, self.training
        )
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                attention_mask=causal_mask,
                position_embeddings=(cos, sin, factors),
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden_states),
            past_key_values=past_key_values if use_cache else None,
        )

    def _ntk_alphas(
        self, past: int, length: int, mask: torch.Tensor | None, cache: Cache | None
    ) -> list[int]:
        """α, one for all rows where they agree, else one for each; noted on the cache that the
        rotated keys go into, and read from it again.

        Raises ValueError for a cache beyond seq_length that this model did not fill."""
        limit = self.config.seq_length
        if self.training or not self.config.use_dynamic_ntk:
            return [1]
        if past:
            if past > limit and not hasattr(cache, "ntk_alphas"):
                raise ValueError("the NTK scale of these cached keys is not known")
            return getattr(cache, "ntk_alphas", [1])
        if mask is None or length <= limit:
            alphas = [ntk_alpha(length, limit)]
        else:
            alphas = [ntk_alpha(own, limit) for own in mask.sum(-1).tolist()]
        if len(set(alphas)) == 1:
            alphas = alphas[:1]
        if cache is not None:
            cache.ntk_alphas = alphas
        return alphas


def own_positions(mask: torch.Tensor) -> torch.Tensor:
    """Position of each token within its text, from a mask [rows, length] of 1 for text."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


class QWenLMHeadModel(QWenPreTrainedModel, Qwen2ForCausalLM):
    """Bears version 1's name in `architectures`, so that a saved config names it too."""

    def __init__(self, config: QWenConfig) -> None:
        PreTrainedModel.__init__(self, config)
        self.loss_type = "ForCausalLM"
        self.model = QWenModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


def register() -> None:
    """Let AutoConfig, AutoModelForCausalLM and AutoTokenizer load version 1: with
    `trust_remote_code` off, registered classes stand in for a checkpoint's own code."""
    AutoConfig.register(QWenConfig.model_type, QWenConfig, exist_ok=True)
    AutoModelForCausalLM.register(QWenConfig, QWenLMHeadModel, exist_ok=True)
    AutoTokenizer.register(QWenConfig, tokenizer_class=QWenTokenizer, exist_ok=True)
    register_checkpoint_conversion_mapping(QWenLMHeadModel.__name__, LAYOUT, overwrite=True)
