"""The configuration of Qwen version 1, and what it says about texts beyond `seq_length`."""

import math
from typing import Any

from transformers import PreTrainedConfig

# Without these a config says nothing certain: each is in every config.json of version 1.1.
REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "kv_channels",
    "layer_norm_epsilon",
    "rotary_emb_base",
    "seq_length",
    "use_dynamic_ntk",
    "use_logn_attn",
)


class QWenConfig(PreTrainedConfig):
    """Version 1's `config.json` under its own names; Qwen2's names are aliases.

    `intermediate_size` counts gate and up together: each is half of it."""

    model_type = "qwen"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012
    attribute_map = {  # noqa: RUF012
        "num_key_value_heads": "num_attention_heads",
        "head_dim": "kv_channels",
        "rms_norm_eps": "layer_norm_epsilon",
        "attention_dropout": "attn_dropout_prob",
    }

    vocab_size: int = 151936
    hidden_size: int = 4096
    intermediate_size: int = 22016
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    kv_channels: int = 128
    layer_norm_epsilon: float = 1e-6
    rotary_emb_base: float = 10000
    rotary_pct: float = 1.0
    seq_length: int = 8192
    max_position_embeddings: int = 8192
    use_dynamic_ntk: bool = True
    use_logn_attn: bool = True
    emb_dropout_prob: float = 0.0
    attn_dropout_prob: float = 0.0
    no_bias: bool = True
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Raises ValueError for a config.json without one of `REQUIRED`."""
        if missing := [key for key in REQUIRED if key not in config_dict]:
            raise ValueError(
                f"config.json of a Qwen version 1 without {', '.join(missing)} "
                "(the first revision of Qwen-7B had other names: take a later one)"
            )
        return super().from_dict(config_dict, **kwargs)

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop("auto_map", None)  # names remote code, which no saved copy needs
        super().__post_init__(**kwargs)
        if not self.no_bias:
            raise ValueError("no_bias is false: no published Qwen has these biases")
        if self.kv_channels * self.num_attention_heads != self.hidden_size:
            raise ValueError("kv_channels · num_attention_heads is not hidden_size")
        if self.rotary_width < 4 or self.rotary_width % 2 or self.rotary_width > self.kv_channels:
            raise ValueError("rotary_pct of kv_channels is not an even number of 4 or more")

    @property
    def rotary_width(self) -> int:
        """How many of a head's channels are rotated, from the first on."""
        return int(self.kv_channels * self.rotary_pct)


def ntk_alpha(length: int, seq_length: int) -> int:
    """α for a text of `length` tokens (see `lib.models.qwen`)."""
    return max(2 ** math.ceil(math.log(max(length, 1) / seq_length, 2) + 1) - 1, 1)
