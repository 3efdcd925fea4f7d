"""The matrix: every family that we claim × everything that surgery and healing promise of it."""

import copy
import gc
import math

import bitsandbytes as bnb
import pytest
import torch
from peft.tuners.lora import LoraLayer
from tiny import FAMILIES, FORMS, VARIANTS, logits_of, looped, random_tokens, random_variant
from transformers import AutoModelForCausalLM, PreTrainedModel

from lib import study as studies
from lib.healing import adapters as lora
from lib.healing import heal
from lib.models import anatomy, checkpoints, four_bit
from lib.pruning.dropped import span
from lib.pruning.surgery import drop, pruned, save_pruned

N_LAYERS = 6
DROPS = {"contiguous": span(2, 4), "scattered": (1, 2, 4)}
KEPT = {"contiguous": [0, 1, 4, 5], "scattered": [0, 3, 5]}
# By hand, from each family's modelling code: the list of layers, and the FFN of one layer.
GATED = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
EXPERTS = [f"mlp.experts.{kind}.{e}" for kind in ("gate_up_proj", "down_proj") for e in range(4)]
ANATOMY = {
    "llama": ("model.layers", GATED),
    "mistral": ("model.layers", GATED),
    "mixtral": ("model.layers", EXPERTS),
    "phi": ("model.layers", ["mlp.fc1", "mlp.fc2"]),
    "phi3": ("model.layers", ["mlp.gate_up_proj", "mlp.down_proj"]),
    "qwen": ("model.layers", GATED),
    "qwen2": ("model.layers", GATED),
    "qwen3": ("model.layers", GATED),
    "gemma2": ("model.layers", GATED),
    "gemma3_text": ("model.layers", GATED),
    "gemma3": ("model.language_model.layers", GATED),
    "olmo2": ("model.layers", GATED),
    "smollm3": ("model.layers", GATED),
    "gpt_neox": ("gpt_neox.layers", ["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"]),
    "gpt2": ("transformer.h", ["mlp.c_fc", "mlp.c_proj"]),
    "opt": ("model.decoder.layers", ["fc1", "fc2"]),
    "falcon": ("transformer.h", ["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"]),
}
assert set(ANATOMY) == set(FAMILIES)

forms = pytest.mark.parametrize("form", FORMS)
# A block goes the way of scattered layers, in a variant as in its family.
PAIRS = [
    (form, kind) for form in FORMS for kind in DROPS if form in FAMILIES or kind == "scattered"
]
pruned_forms = pytest.mark.parametrize(("form", "kind"), PAIRS)
# Healing sees weights and biases only: of the variants, those that have others.
HEALED = [("llama", "contiguous"), *((form, "scattered") for form in [*FAMILIES, "falcon alibi"])]
healed_forms = pytest.mark.parametrize(("form", "kind"), HEALED)


def parts(form: str) -> tuple[str, list[str]]:
    return ANATOMY[VARIANTS.get(form, (form, {}))[0]]


@pruned_forms
def test_logits_equal_a_loop_over_the_kept_layers(form: str, kind: str) -> None:
    model, tokens = random_variant(form), random_tokens(2, 12)
    reference = looped(model, parts(form)[0], KEPT[kind], tokens)
    with pruned(model, DROPS[kind]):
        assert torch.equal(logits_of(model, tokens), reference)
    assert not torch.allclose(logits_of(model, tokens), reference, atol=1e-2)


@forms
def test_kinds_of_layers_would_show_a_wrong_slice(form: str) -> None:
    config = random_variant(form).config.get_text_config()
    for key in ("layer_types", "no_rope_layers"):
        if value := getattr(config, key, None):
            for kept in KEPT.values():
                assert [value[i] for i in kept] != value[: len(kept)]
                assert [value[i] for i in kept] != value[-len(kept) :]


@pruned_forms
def test_generation_with_a_cache_equals_without(form: str, kind: str) -> None:
    model, tokens = random_variant(form), random_tokens(2, 12)
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    with pruned(model, DROPS[kind]), torch.inference_mode():
        cached = model.generate(tokens, use_cache=True, **settings)
        plain = model.generate(tokens, use_cache=False, **settings)
    assert cached.shape == (2, 18)
    assert torch.equal(cached, plain)


@pruned_forms
def test_saved_and_loaded_equals_in_memory(form: str, kind: str, tmp_path) -> None:
    model, tokens = random_variant(form), random_tokens(2, 12)
    save_pruned(model, DROPS[kind], None, tmp_path / "out")
    loaded, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values())
    assert type(loaded) is type(model)
    with pruned(model, DROPS[kind]):
        here, there = model.state_dict(), loaded.state_dict()
        assert here.keys() == there.keys()
        assert all(torch.equal(here[name], there[name]) for name in here)
        assert torch.equal(logits_of(loaded.eval(), tokens), logits_of(model, tokens))
        own, other = model.config.get_text_config(), loaded.config.get_text_config()
        for key in ("layer_types", "no_rope_layers", "rope_parameters", "sliding_window"):
            assert getattr(own, key, None) == getattr(other, key, None)


@pytest.mark.parametrize("form", ["qwen2", "gemma2", "gemma3", "smollm3"])
@pytest.mark.parametrize("gone", ["sliding_attention", "full_attention"])
def test_a_kind_of_layer_may_go_altogether(form: str, gone: str, tmp_path) -> None:
    model, tokens = random_variant(form), random_tokens(2, 12)
    kinds = model.config.get_text_config().layer_types
    dropped = [i for i, kind in enumerate(kinds) if kind == gone]
    kept = [i for i, kind in enumerate(kinds) if kind != gone]
    reference = looped(model, parts(form)[0], kept, tokens)
    with pruned(model, dropped), torch.inference_mode():
        assert torch.equal(logits_of(model, tokens), reference)
        cached = model.generate(tokens, max_new_tokens=6, do_sample=False, use_cache=True)
        plain = model.generate(tokens, max_new_tokens=6, do_sample=False, use_cache=False)
        assert torch.equal(cached, plain)
    save_pruned(model, dropped, None, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    assert torch.equal(logits_of(loaded.eval(), tokens), reference)


@pruned_forms
def test_afterwards_the_model_is_whole_again(form: str, kind: str) -> None:
    model, tokens = random_variant(form), random_tokens(2, 12)
    config = model.config.get_text_config()

    def state():
        numbers = [getattr(module, "layer_idx", None) for module in model.modules()]
        return dict(vars(config)), copy.deepcopy(model.config.to_dict()), numbers

    logits, weights, before = logits_of(model, tokens), dict(model.state_dict()), state()
    modules = list(model.modules())
    with pytest.raises(KeyError), pruned(model, DROPS[kind]):
        assert config.num_hidden_layers == len(KEPT[kind])
        raise KeyError
    assert list(model.modules()) == modules
    assert state() == before
    # The very objects, so that nothing that held one of them is left with another.
    assert all(vars(config)[key] is value for key, value in before[0].items())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(logits_of(model, tokens), logits)


@forms
def test_layers_and_the_ffn_are_found(form: str) -> None:
    model, (stack, ffn) = random_variant(form), parts(form)
    assert anatomy.layers(model) is model.get_submodule(stack)
    names = anatomy.adapter_modules(model)
    assert len(names) == len(set(names))
    assert set(names) == {f"{stack}.{i}.{name}" for i in range(N_LAYERS) for name in ffn}
    assert set(anatomy.adapter_modules(anatomy.skeleton(model.config))) == set(names)
    width = model.config.get_text_config().hidden_size
    for name in names:
        reads = any(kind in name for kind in ("gate", "up", "fc1", "h_to_4h", "c_fc"))
        assert anatomy.linear_weight(model, name).shape[1 if reads else 0] == width


@pytest.fixture(scope="module", autouse=True)
def _collected():
    """Training collects garbage each time; to look through the imported libraries takes 0.3 s."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def smoke():
    study = studies.load("smoke")
    return study, checkpoints.load_tokenizer(study, checkpoints.load_config(study))


@pytest.fixture
def study_of(smoke, tmp_path):
    """`study_of(form)`: a study of that family with the embedded tokenizer and no dropout."""
    study, tokenizer = smoke

    def make(form: str):
        random_variant(form, vocab_size=len(tokenizer)).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        recipe = study.healing.model_copy(update={"dropout": 0.0})
        return study.model_copy(update={"model": str(tmp_path), "healing": recipe})

    return make


def ffn_of(form: str, n_layers: int) -> set[str]:
    stack, ffn = parts(form)
    return {f"{stack}.{i}.{name}" for i in range(n_layers) for name in ffn}


def written_out(plain: PreTrainedModel, name: str, weight: torch.Tensor) -> None:
    """Put a linear map [out, in] where the family keeps it, by hand."""
    head, _, last = name.rpartition(".")
    if last.isdigit():
        experts, _, kind = head.rpartition(".")
        getattr(plain.get_submodule(experts), kind).data[int(last)] = weight
    else:
        module = plain.get_submodule(name)
        transposed = type(module).__name__ == "Conv1D"
        module.weight.data = (weight.T if transposed else weight).clone()


@healed_forms
def test_the_ffn_is_in_4_bit_with_adapters_that_merge(
    form: str, kind: str, study_of, smoke
) -> None:
    study, dropped = study_of(form), DROPS[kind]
    model = four_bit.load_4bit(study)
    drop(model, dropped)
    adapted = lora.adapt(model, study.healing, needs_4bit=True)
    expected = ffn_of(form, len(KEPT[kind]))
    adapters = {
        name.removeprefix("base_model.model."): module
        for name, module in adapted.named_modules()
        if isinstance(module, LoraLayer)
    }
    assert set(adapters) == expected
    torch.manual_seed(1)
    by_hand = checkpoints.load_model(study)
    drop(by_hand, dropped)
    for name, module in four_bit.linear4bit(model):
        quantised = module.weight
        assert isinstance(quantised, bnb.nn.Params4bit) and quantised.dtype == torch.uint8
        assert quantised.numel() == module.in_features * module.out_features / 2
        assert quantised.quant_state.quant_type == "nf4"
        weight = bnb.functional.dequantize_4bit(quantised.data, quantised.quant_state)
        name = name.removesuffix(".base_layer")
        near = anatomy.linear_weight(by_hand, name)
        assert weight.shape == near.shape and 0 < (weight - near).norm() < 0.2 * near.norm()
        if name in adapters:
            a, b = adapters[name].lora_A["default"].weight, adapters[name].lora_B["default"].weight
            b.data.normal_(std=0.02)
            weight = weight + b.detach() @ a.detach()
        written_out(by_hand, name, weight)
    tokens = random_tokens(2, 12)
    reference = logits_of(by_hand, tokens)
    plain = lora.evaluable(adapted.get_base_model(), study, dropped)
    assert torch.allclose(logits_of(plain, tokens), reference, atol=1e-5)
    # bitsandbytes and peft compute the same from the 4-bit weights themselves.
    assert torch.allclose(logits_of(adapted.eval(), tokens), reference, atol=2e-3)


@healed_forms
def test_two_steps_of_healing_train_the_whole_ffn(form: str, kind: str, study_of, smoke) -> None:
    study, dropped = study_of(form), DROPS[kind]
    found = heal.heal(study, study.healing, dropped, smoke[1])
    healed, report = found.model, found.report
    control = heal.unhealed(study, dropped)
    expected = ffn_of(form, len(KEPT[kind]))
    assert report["linear4bit"] >= len(expected)
    assert len(report["train_loss"]) == study.healing.steps == 2
    assert all(map(math.isfinite, report["train_loss"]))
    moved = {
        name
        for name in expected
        if not torch.equal(
            anatomy.linear_weight(healed, name), anatomy.linear_weight(control, name)
        )
    }
    assert moved == expected
    tensors = {
        name
        for name, value in healed.state_dict().items()
        if not torch.equal(value, control.state_dict()[name])
    }
    fused = 4 if "mixtral" in form else 1
    assert len(tensors) == len(expected) / fused
