"""Blocks, sets of layers in text and in words, and what surgery refuses. That it is right on every
family stands in test_families."""

import copy

import numpy as np
import pytest
import torch
from tiny import GATED, PLAIN, SHARED, logits_of, looped, random_model, random_tokens
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, LlamaForCausalLM, T5Config

from lib.errors import UserError
from lib.models.anatomy import layers
from lib.pruning.dropped import (
    in_words,
    layers_to_drop,
    most_similar,
    parse_layers,
    ranges,
    simple,
    span,
)
from lib.pruning.surgery import drop, pruned, save_pruned, slice_config


def test_simple_keeps_the_last_layer():
    assert simple(8, 32) == span(23, 31)
    assert simple(31, 32) == span(0, 31)
    assert simple(8, 32).in_words(32) == "drop layers 23–30, keep 0–22 and 31"


@pytest.mark.parametrize("n", [-1, 0, 6, 7])
def test_simple_refuses_n_outside_the_model(n):
    with pytest.raises(UserError, match="allowed are 1 to 5"):
        simple(n, 6)


def test_ties_go_to_the_deepest_start():
    assert most_similar(np.array([0.2, 0.1, 0.3, 0.1])) == 3


def test_fractions_become_whole_layers():
    assert [layers_to_drop(f, 16) for f in (0, 0.03, 0.04, 0.5, 0.99)] == [0, 0, 1, 8, 15]


def test_a_block_is_a_collection_of_its_layers():
    block = span(3, 6)
    assert list(block) == [3, 4, 5] and len(block) == 3
    assert 5 in block and 6 not in block and 2 not in block
    assert list(span(0, 0)) == []


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("21:29", tuple(range(21, 29))),
        ("3,5:8", (3, 5, 6, 7)),
        (" 5:8 , 3 ", (3, 5, 6, 7)),
        ("0", (0,)),
        ("31", (31,)),
        ("0:31", tuple(range(31))),
    ],
)
def test_layers_are_read_from_text(text, layers):
    assert parse_layers(text, 32) == layers


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "neither a layer nor a range"),
        ("3,", "neither a layer nor a range"),
        ("last", "'last' is neither"),
        ("-1", "'-1' is neither"),
        ("1:2:3", "neither"),
        ("3-5", "neither"),
        ("1.5", "neither"),
        ("4:", "neither"),
        ("5:5", "5:5 holds no layer"),
        ("7:5", "7:5 holds no layer"),
        ("32", "0 to 31"),
        ("30:33", "0 to 31"),
        ("0:99999999999999999999", "0 to 31"),
        ("3,2:5", "layer 3: named twice"),
        ("1:5,4:8", "layer 4: named twice"),
        ("0:32", "all 32 layers"),
        ("0:16,16:32", "all 32 layers"),
    ],
)
def test_nonsense_for_layers_is_one_line(text, says):
    with pytest.raises(UserError, match=says) as raised:
        parse_layers(text, 32)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("dropped", "n_layers", "words"),
    [
        ((), 32, "drop nothing, keep 0–31"),
        (span(21, 29), 32, "drop layers 21–28, keep 0–20 and 29–31"),
        (span(3, 4), 5, "drop layer 3, keep 0–2 and 4"),
        (span(0, 3), 4, "drop layers 0–2, keep 3"),
        ((3, 5, 6, 7), 32, "drop layers 3 and 5–7, keep 0–2, 4 and 8–31"),
        ((7, 3, 5, 6), 32, "drop layers 3 and 5–7, keep 0–2, 4 and 8–31"),
        ({1, 3}, 5, "drop layers 1 and 3, keep 0, 2 and 4"),
        ((0, 2, 4), 5, "drop layers 0, 2 and 4, keep 1 and 3"),
    ],
)
def test_drops_in_words(dropped, n_layers, words):
    assert in_words(dropped, n_layers) == words


def test_runs_of_layers():
    assert ranges((7, 3, 5, 6)) == [span(3, 4), span(5, 8)]
    assert ranges(()) == []


@pytest.mark.parametrize(
    "dropped",
    [
        *(span(-1, 2), span(4, 7), span(0, 6)),
        *((-1,), (6,), (1, 1), (0, 1, 2, 3, 4, 5), (1, 2, 2)),
    ],
)
def test_impossible_drops_are_refused_and_change_nothing(dropped):
    model = random_model("gemma2")
    stack, settings = layers(model), dict(vars(model.config))
    with pytest.raises(UserError) as raised, pruned(model, dropped):
        pass
    assert "\n" not in str(raised.value)
    assert layers(model) is stack and vars(model.config) == settings


def test_dropping_nothing_is_the_whole_model():
    model, tokens = random_model("gemma2"), random_tokens(1, 8)
    whole = logits_of(model, tokens)
    for nothing in (span(0, 0), ()):
        with pruned(model, nothing):
            assert torch.equal(logits_of(model, tokens), whole)


def test_drops_can_be_nested():
    model, tokens = random_model("gemma2"), random_tokens(2, 12)
    whole = logits_of(model, tokens)
    reference = looped(model, "model.layers", [0, 3, 5], tokens)
    with pruned(model, (1, 2)), pruned(model, (2,)):  # of 0 3 4 5, the third
        assert torch.equal(logits_of(model, tokens), reference)
    assert torch.equal(logits_of(model, tokens), whole)


def test_what_drop_took_out_can_be_put_back():
    model, tokens = random_model("smollm3"), random_tokens(2, 12)
    whole = logits_of(model, tokens)
    restore = drop(model, {0, 4})
    assert len(layers(model)) == 4
    restore()
    assert torch.equal(logits_of(model, tokens), whole)


def test_a_folder_with_content_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        save_pruned(random_model("llama"), span(1, 4), None, tmp_path)


def test_only_lists_with_an_entry_per_layer_are_sliced():
    config = random_model("gemma2").config
    kinds = list(config.layer_types)
    config.eos_token_id = [1, 2, 3, 4, 5, 6]
    config.architectures = ["A", "B", "C", "D", "E", "F"]
    config.strengths = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    config.pair = (7, 8, 9, 10, 11, 12)
    config.short = [1, 2, 3]
    slice_config(config, [0, 3, 5])
    assert config.num_hidden_layers == 3
    assert config.layer_types == [kinds[0], kinds[3], kinds[5]]
    assert config.eos_token_id == [1, 2, 3, 4, 5, 6]
    assert config.architectures == ["A", "B", "C", "D", "E", "F"]
    assert config.strengths == [0.0, 0.3, 0.5]
    assert tuple(config.pair) == (7, 10, 12)
    assert config.short == [1, 2, 3]


def test_the_text_part_of_a_composite_config_is_sliced():
    config = random_model("gemma3").config
    kinds, image = list(config.text_config.layer_types), copy.deepcopy(config.vision_config)
    slice_config(config, [0, 3, 5])
    assert config.text_config.num_hidden_layers == 3
    assert config.text_config.layer_types == [kinds[0], kinds[3], kinds[5]]
    assert config.vision_config.to_dict() == image.to_dict()


MOE = GATED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
DEEPSEEK = PLAIN | {
    "num_key_value_heads": 4, "first_k_dense_replace": 2, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 32,
    "kv_lora_rank": 16, "q_lora_rank": 16,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16, "n_shared_experts": 1,
}  # fmt: skip
GPT2 = SHARED | {"hidden_size": 64, "scale_attn_by_inverse_layer_idx": True}
GEMMA3N = GATED | {
    "head_dim": 16, "num_kv_shared_layers": 2, "vocab_size_per_layer_input": 199,
    "hidden_size_per_layer_input": 8, "laurel_rank": 4, "sliding_window": 4,
    "intermediate_size": [128] * 6, "activation_sparsity_pattern": [0.0] * 6,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
}  # fmt: skip
# family, settings, what is refused and why, and what is not.
INEXPRESSIBLE = {
    "layers listed by number": ("qwen3_moe", MOE | {"mlp_only_layers": [0, 4]}, (1,), "mlp", (5,)),
    "every second layer": ("qwen3_moe", MOE | {"decoder_sparse_step": 2}, (2,), "mlp", (2, 3)),
    "a boundary": ("deepseek_v3", DEEPSEEK, (0, 3), "layer 2 would differ", (3,)),
    "scaled by depth": ("gpt2", GPT2, (2,), "layer 3 would differ: attn.scaling", (4, 5)),
    "inputs per layer": ("gemma3n_text", GEMMA3N, (1,), "depends on the number of layers", None),
    "a period": (
        "jamba",
        GATED | {"attn_layer_period": 3, "attn_layer_offset": 1, "use_mamba_kernels": False},
        (0,),
        "layer",
        None,
    ),
}


@pytest.mark.parametrize("case", INEXPRESSIBLE)
def test_what_a_config_cannot_express_is_refused(case):
    family, settings, refused, says, allowed = INEXPRESSIBLE[case]
    config = CONFIG_MAPPING[family](**settings)
    before = config.to_dict()
    with pytest.raises(UserError, match=says) as raised:
        slice_config(config, [i for i in range(6) if i not in refused])
    message = str(raised.value)
    assert "\n" not in message and family in message and in_words(refused, 6) in message
    assert config.to_dict() == before
    if allowed is not None:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        tokens = random_tokens(2, 8)
        kept = [i for i in range(6) if i not in allowed]
        stack = "transformer.h" if family == "gpt2" else "model.layers"
        reference = looped(model, stack, kept, tokens)
        with pytest.raises(UserError, match=says), pruned(model, refused):
            pass
        with pruned(model, allowed):
            assert torch.equal(logits_of(model, tokens), reference)


def test_encoder_decoders_and_settings_by_layer_number_are_refused():
    with pytest.raises(UserError, match="encoder-decoder"):
        slice_config(T5Config(num_layers=6), [0, 1])
    config = CONFIG_MAPPING["llama"](**GATED, per_layer_config={3: {"intermediate_size": 64}})
    with pytest.raises(UserError, match="by layer number"):
        slice_config(config, [0, 1])


def _share(stack):
    stack[4].mlp = stack[1].mlp


def _count_twice(stack):
    for number, layer in enumerate(stack):
        layer.self_attn.layer_idx = 2 * number


@pytest.mark.parametrize(
    ("change", "kept", "says"),
    [
        (_share, [0, 1, 5], "layers 1 and 4 share weights"),
        (_count_twice, [0, 1, 5], "layer 5 would differ: self_attn.layer_idx is 10, and 4"),
    ],
)
def test_layers_that_share_weights_or_count_otherwise_are_refused(monkeypatch, change, kept, says):
    original = LlamaForCausalLM.__init__

    def changed(self, config):
        original(self, config)
        if config.num_hidden_layers == 6 or change is _count_twice:
            change(self.model.layers)

    monkeypatch.setattr(LlamaForCausalLM, "__init__", changed)
    # A configuration of its own: what was proven of another test's is remembered.
    config = CONFIG_MAPPING["llama"](**GATED, bos_token_id=len(change.__name__))
    with pytest.raises(UserError, match=says):
        slice_config(config, kept)
