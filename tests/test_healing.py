"""QLoRA against the same model with its 4-bit weights written out in float."""

import copy
from functools import partial

import bitsandbytes as bnb
import pytest
import torch
from peft.tuners.lora import LoraLayer
from tiny import random_model

from lib import study as studies
from lib.errors import UserError
from lib.healing import adapters, heal
from lib.models import checkpoints, four_bit
from lib.models.anatomy import layers
from lib.pruning.dropped import simple, span
from lib.pruning.surgery import drop

BLOCK = simple(6, 16)


def parts(healed):
    return healed.model, healed.report


@pytest.fixture(scope="module")
def study():
    return studies.load("smoke")


@pytest.fixture(scope="module")
def tokenizer(study):
    return checkpoints.load_tokenizer(study, checkpoints.load_config(study))


@pytest.fixture(scope="module")
def healed(study, tokenizer):
    return parts(heal.heal(study, study.healing, BLOCK, tokenizer))


@pytest.fixture
def study_of(study, tokenizer, tmp_path):
    """`study_of("falcon")`: the study on a tiny random model of a family."""

    def make(family: str, **changes: object):
        random_model(family, vocab_size=len(tokenizer), **changes).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return study.model_copy(update={"model": str(tmp_path)})

    return make


def adapted_and_reference(study, block):
    """A 4-bit model with adapters, and a float model that should compute the same."""
    model = four_bit.load_4bit(study)
    drop(model, block)
    adapted = adapters.adapt(
        model, study.healing.model_copy(update={"dropout": 0.0}), needs_4bit=True
    )
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02)
    reference = copy.deepcopy(adapted)
    for name, module in list(reference.named_modules()):
        if isinstance(module, bnb.nn.Linear4bit):
            plain = torch.nn.Linear(module.in_features, module.out_features)
            plain.weight.data = four_bit.dequantised(module).clone()
            plain.bias = module.bias
            plain.requires_grad_(False)
            parent, _, child = name.rpartition(".")
            setattr(reference.get_submodule(parent), child, plain)
    for dropout in [*adapted.modules(), *reference.modules()]:
        if isinstance(dropout, torch.nn.Dropout):
            dropout.p = 0.0
    return adapted.train(), reference.train()


def gradients(model, tokens):
    model.zero_grad()
    model(input_ids=tokens, labels=tokens).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def worst(ours, reference):
    assert ours.keys() == reference.keys()
    assert all("lora_" in name for name in ours)
    return max(float((ours[n] - reference[n]).norm() / reference[n].norm()) for n in ours)


@pytest.mark.parametrize("family", [None, "mixtral", "gpt2", "falcon"])
def test_gradients_equal_the_dequantised_reference_also_after_an_evaluation(
    family, study, study_of
):
    block = BLOCK
    if family is not None:
        study, block = study_of(family), span(2, 5)
    adapted, reference = adapted_and_reference(study, block)
    tokens = torch.randint(5, 300, (4, 32), generator=torch.Generator().manual_seed(0))
    before = four_bit.base_digest(adapted)
    assert worst(gradients(adapted, tokens), gradients(reference, tokens)) < 0.02
    plain = adapters.evaluable(adapted.get_base_model(), study, block)
    # The order that silently breaks training on CPUs which repack 4-bit weights for inference.
    with torch.inference_mode():
        adapted.eval()
        logits = adapted(input_ids=tokens).logits
        assert torch.allclose(plain(input_ids=tokens).logits, logits, atol=2e-3)
    adapted.train()
    assert four_bit.base_digest(adapted) == before
    assert worst(gradients(adapted, tokens), gradients(reference, tokens)) < 0.02


def test_split_experts_compute_what_the_fused_ones_do():
    torch.manual_seed(0)
    fused = layers(random_model("mixtral"))[0].mlp.experts
    split = four_bit.SplitExperts(
        fused, partial(four_bit.nf4, bias=None, compute=torch.float32)
    ).train()
    with torch.no_grad():
        for kind in ("gate_up_proj", "down_proj"):
            for expert, module in enumerate(getattr(split, kind)):
                getattr(fused, kind)[expert] = four_bit.dequantised(module)
    hidden = torch.randn(9, 64)
    chosen = torch.tensor([[0, 3], [3, 0], [2, 0]] * 3)  # no token chooses expert 1
    weights = torch.rand(9, 2)
    found, reference = split(hidden, chosen, weights), fused(hidden, chosen, weights)
    assert torch.allclose(found, reference, atol=1e-5)


@pytest.mark.parametrize("width", [48, 80, 96, 100, 112])
def test_a_width_is_read_right_or_refused(width, study_of):
    """By definition: each run of 64 numbers is a scale times 16 levels, rounded to the nearest."""
    study = study_of("phi", hidden_size=64, intermediate_size=width)
    weight = checkpoints.load_model(study).model.layers[0].mlp.fc2.weight.detach()
    try:
        model = four_bit.load_4bit(study)
    except UserError as error:
        assert f"rows of {width} numbers" in str(error)
        return
    # Where bitsandbytes reads it right, it is used.
    runs = weight.reshape(-1, 64)
    scale = runs.abs().amax(dim=1, keepdim=True)
    module = model.model.layers[0].mlp.fc2
    levels = module.weight.quant_state.code
    nearest = levels[((runs / scale)[..., None] - levels).abs().argmin(dim=-1)] * scale
    assert torch.allclose(four_bit.dequantised(module), nearest.reshape(weight.shape), atol=1e-6)


def test_linear_layers_are_in_4_bit_and_only_ffn_adapters_train(study):
    model = four_bit.load_4bit(study)
    assert len(four_bit.linear4bit(model)) == 7 * len(layers(model))
    kinds = {name.rsplit(".", 1)[1] for name, _ in four_bit.linear4bit(model)}
    assert kinds == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    drop(model, BLOCK)
    adapted = adapters.adapt(model, study.healing, needs_4bit=True)
    trainable = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert trainable and all("lora_" in n and ".mlp." in n for n in trainable)
    assert sum(isinstance(m, LoraLayer) for m in adapted.modules()) == 3 * 10
    config, rank = model.config, study.healing.rank
    expected = 10 * 3 * rank * (config.hidden_size + config.intermediate_size)
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == expected


def test_the_report_counts_what_was_trained(study, healed):
    _, report = healed
    recipe = study.healing
    assert report["linear4bit"] == 7 * 10
    assert report["tokens"] == recipe.steps * recipe.batch * recipe.length
    assert len(report["train_loss"]) == recipe.steps


def test_one_seed_gives_identical_weights_and_another_seed_others(study, tokenizer, healed):
    again, _ = parts(heal.heal(study, study.healing, BLOCK, tokenizer))
    other_seed = study.healing.model_copy(update={"seed": 1})
    other, _ = parts(heal.heal(study, other_seed, BLOCK, tokenizer))
    first, second = healed[0].state_dict(), again.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other.state_dict()[name]) for name in first)


def test_healing_changes_ffn_weights_and_nothing_else(study, healed):
    control = heal.unhealed(study, BLOCK).state_dict()
    changed = {n for n, v in healed[0].state_dict().items() if not torch.equal(v, control[n])}
    assert changed and all(".mlp." in name for name in changed)


def test_the_control_holds_four_bit_values(study):
    plain = heal.unhealed(study, span(0, 0))
    row = plain.model.layers[0].mlp.up_proj.weight[:1, :64]  # one block of 64 shares one scale
    assert len(row.unique()) <= 16


def test_healing_on_more_text_than_there_is_says_so(study, tokenizer):
    endless = study.healing.model_copy(update={"steps": 100_000})
    with pytest.raises(UserError, match="too short"):
        heal.heal(study, endless, BLOCK, tokenizer)


def test_a_rank_above_the_width_is_refused(study):
    model = four_bit.load_4bit(study)
    with pytest.raises(UserError, match="rank 4096"):
        adapters.adapt(model, study.healing.model_copy(update={"rank": 4096}), needs_4bit=True)
