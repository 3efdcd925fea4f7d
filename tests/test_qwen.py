"""Qwen version 1 against its equations (tests/qwen_reference.py), within and beyond seq_length."""

import itertools
from pathlib import Path

import pytest
import qwen_reference as reference
import torch
from qwen_checkpoint import distance, load, logits
from qwen_reference import CONFIG, LAYERS, TRAINED, tokens, write
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from lib.models import qwen
from lib.models.anatomy import adapter_modules, layers, longest_alike
from lib.models.qwen_config import QWenConfig, ntk_alpha

qwen.register()


LENGTHS = {1: 1, 7: 1, 8: 1, 9: 3, 16: 3, 17: 7, 32: 7, 33: 15}


@pytest.mark.parametrize("length", LENGTHS)
def test_logits_are_those_of_the_equations(
    qwen_folder: Path, qwen_model: PreTrainedModel, length: int
) -> None:
    text = tokens(length)
    expected = reference.forward(*reference.read(qwen_folder), text)
    assert distance(logits(qwen_model, text), expected) < 1e-5


@pytest.mark.parametrize(("ntk", "logn"), [(True, False), (False, True), (False, False)])
def test_each_scaling_can_be_off(tmp_path: Path, qwen_folder: Path, ntk: bool, logn: bool) -> None:
    changed = write(tmp_path / "changed", use_dynamic_ntk=ntk, use_logn_attn=logn)
    model, text = load(changed), tokens(20)
    assert distance(logits(model, text), reference.forward(*reference.read(changed), text)) < 1e-5
    both = reference.forward(*reference.read(qwen_folder), text)
    assert distance(logits(model, text), both) > 1e-2
    assert distance(logits(model, text)[:1], both[:1]) < 1e-5  # the first token attends to itself


def test_a_part_of_each_head_can_be_rotated(tmp_path: Path) -> None:
    changed = write(tmp_path / "changed", rotary_pct=0.5, rotary_emb_base=500)
    expected = reference.forward(*reference.read(changed), tokens(20))
    assert distance(logits(load(changed), tokens(20)), expected) < 1e-5


def test_the_base_is_scaled_in_steps_of_the_length() -> None:
    assert {length: ntk_alpha(length, TRAINED) for length in LENGTHS} == LENGTHS
    steps = {2048: 1, 2049: 3, 4096: 3, 4097: 7, 8192: 7, 8193: 15, 32768: 31}
    assert {length: ntk_alpha(length, 2048) for length in steps} == steps
    config = QWenConfig(**CONFIG)
    assert longest_alike(config) == 8
    assert longest_alike(QWenConfig(**CONFIG | {"use_dynamic_ntk": False})) is None


def test_training_is_plain_rotary_attention(qwen_folder: Path) -> None:
    model, text = load(qwen_folder).train(), tokens(20)
    plain = reference.forward(*reference.read(qwen_folder), text, training=True)
    assert distance(logits(model, text), plain) < 1e-5
    assert distance(plain, reference.forward(*reference.read(qwen_folder), text)) > 1e-2
    batch = torch.tensor([text])
    model(batch, labels=batch).loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_changes_nothing(qwen_folder: Path, side: str, attention: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(qwen_folder, attn_implementation=attention).eval()
    texts = [tokens(n, seed=n) for n in (5, 20, 12)]
    rows, mask = torch.zeros(3, 20, dtype=torch.long), torch.zeros(3, 20, dtype=torch.long)
    for i, text in enumerate(texts):
        place = slice(20 - len(text), 20) if side == "left" else slice(0, len(text))
        rows[i, place], mask[i, place] = torch.tensor(text), 1
    with torch.no_grad():
        found = model(rows, attention_mask=mask).logits
    for i, text in enumerate(texts):
        alone = reference.forward(*reference.read(qwen_folder), text)
        assert distance(found[i][mask[i].bool()], alone) < 1e-5


def test_without_a_mask_the_padded_length_counts(
    qwen_folder: Path, qwen_model: PreTrainedModel
) -> None:
    padded = tokens(6) + [0] * 6
    expected = reference.forward(*reference.read(qwen_folder), padded)
    assert distance(logits(qwen_model, padded), expected) < 1e-5
    assert distance(logits(qwen_model, padded)[:6], logits(qwen_model, tokens(6))) > 1e-3


@pytest.mark.parametrize(("prompt", "chunk"), [(5, 1), (12, 1), (5, 4)])
def test_cached_keys_stay_as_the_prompt_rotated_them(
    qwen_folder: Path, qwen_model: PreTrainedModel, prompt: int, chunk: int
) -> None:
    """Across seq_length (8) and, from 12, across the next step (16)."""
    text = tokens(21)
    theirs, ours = reference.Cache(), DynamicCache(config=qwen_model.config)
    tensors, config = reference.read(qwen_folder)
    bounds = [0, *range(prompt, 21, chunk), 21]
    for start, stop in itertools.pairwise(bounds):
        part = text[start:stop]
        expected = reference.forward(tensors, config, part, theirs)
        found = logits(qwen_model, part, past_key_values=ours, use_cache=True)
        assert distance(found, expected) < 1e-5
    assert theirs.alpha == reference.alpha_of(prompt, TRAINED)
    assert distance(expected, logits(qwen_model, text)[-len(part) :]) > 1e-3


def test_a_cache_of_unknown_rotation_is_refused(qwen_model: PreTrainedModel) -> None:
    cache = DynamicCache(config=qwen_model.config)
    logits(qwen_model, tokens(9), past_key_values=cache)
    del cache.ntk_alphas
    with pytest.raises(ValueError, match="NTK scale"):
        logits(qwen_model, tokens(1), past_key_values=cache)


def test_generation_follows_the_equations_row_by_row(
    qwen_folder: Path, qwen_model: PreTrainedModel
) -> None:
    """Greedy, in one batch with padding on the left: prompts of 4 and 11 tokens (α 1 and 3), both
    grow across a step."""
    prompts = [tokens(4, seed=1), tokens(11, seed=2)]
    rows = torch.tensor([[0] * 7 + prompts[0], prompts[1]])
    mask = torch.tensor([[0] * 7 + [1] * 4, [1] * 11])
    found = qwen_model.generate(
        rows, attention_mask=mask, max_new_tokens=8, do_sample=False, eos_token_id=None,
        top_k=None, top_p=None,
    )  # fmt: skip
    tensors, config = reference.read(qwen_folder)
    for row, prompt in zip(found, prompts, strict=True):
        cache, part, expected = reference.Cache(), prompt, []
        for _ in range(8):
            part = [int(reference.forward(tensors, config, part, cache)[-1].argmax())]
            expected += part
        assert row[11:].tolist() == expected


def test_a_layer_needs_only_its_arguments(qwen_model: PreTrainedModel) -> None:
    """Sweeping replays layers with what they were given, after the model has seen other texts."""
    seen: list[tuple[tuple, dict, torch.Tensor]] = []
    layer = qwen_model.model.layers[2]
    hook = layer.register_forward_hook(
        lambda _, args, kwargs, output: seen.append((args, kwargs, output)), with_kwargs=True
    )
    for length in (20, 5):
        logits(qwen_model, tokens(length), use_cache=False)
    hook.remove()
    args, kwargs, output = seen[0]
    assert len(args) == 1
    with torch.no_grad():
        assert torch.equal(layer(*args, **kwargs), output)


def test_hidden_states_are_the_layers_inputs_and_the_normed_last(
    qwen_model: PreTrainedModel,
) -> None:
    batch = torch.tensor([tokens(10)])
    with torch.no_grad():
        out = qwen_model(batch, output_hidden_states=True)
        assert len(out.hidden_states) == LAYERS + 1
        assert torch.equal(out.hidden_states[0], qwen_model.model.embed_tokens(batch))
        assert torch.equal(out.logits, qwen_model.lm_head(out.hidden_states[-1]))
    assert qwen_model.get_decoder() is qwen_model.model
    assert layers(qwen_model) is qwen_model.model.layers
    assert [layer.self_attn.layer_idx for layer in qwen_model.model.layers] == [0, 1, 2, 3]


def test_the_paper_s_adapters_on_the_ffn() -> None:
    """Rank 64 on w1, w2 and c_proj of Qwen-7B's FFN: 92.8 million trainable weights."""
    whole = {"hidden_size": 4096, "intermediate_size": 22016, "kv_channels": 128}
    shape = {"num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 151936}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(QWenConfig(**CONFIG | whole | shape))
    names = adapter_modules(model, ["gate_proj", "up_proj", "down_proj"])
    linear = [model.get_submodule(name) for name in names]
    assert len(linear) == 3 * 32
    assert sum(64 * (m.in_features + m.out_features) for m in linear) == 92_798_976
    assert sum(weight.numel() for weight in model.parameters()) == 7_721_324_544  # as published
