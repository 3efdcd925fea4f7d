"""What layers do, on one pass: against hidden states, sums and gradients by hand, by family."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from tiny import FORMS, random_model, random_tokens, random_variant
from transformers import PreTrainedModel

from lib.errors import UserError
from lib.evaluation import contributions, gradient_norms, layer_states
from lib.evaluation.logit_lens import leading
from lib.experiments.layer_measures import ALIKE, of_states
from lib.models.anatomy import decoder, layers
from lib.pruning import geometry
from lib.pruning.geometry import residual_stream

WINDOWS = random_tokens(10, 24)


def states_of(model: PreTrainedModel, tokens: torch.Tensor) -> torch.Tensor:
    """[layers + 1, windows, length, width]"""
    with torch.inference_mode(), residual_stream(model, torch.clone) as stream:
        decoder(model)(input_ids=tokens, use_cache=False)
        return torch.stack(stream)


def test_positions_end_with_the_last_token() -> None:
    assert layer_states.positions(24, 0).tolist() == [23]
    assert layer_states.positions(24, 3).tolist() == [5, 11, 17, 23]
    assert layer_states.positions(24, 23).tolist() == [*range(24)]
    assert layer_states.positions(24, 31).tolist() == [*range(24)]


@pytest.mark.parametrize("further", [0, 5])
def test_means_are_those_of_states_by_hand(further: int) -> None:
    model = random_model("llama")
    found = layer_states.read(model, WINDOWS, 4, further).means
    where = layer_states.positions(24, further)
    states = states_of(model, WINDOWS)[:, :, where].double()
    for layer, (before, after) in enumerate(pairwise(states)):
        norm, cosine = before.norm(dim=-1), torch.cosine_similarity(before, after, -1)
        by_hand = {
            "norm": norm,
            "cosine": cosine,
            "angular": cosine.clamp(-1, 1).arccos() / torch.pi,
            "update": (after - before).norm(dim=-1) / norm,
        }
        for name, values in by_hand.items():
            of_window = values.mean(-1)
            assert found[name]["value"][layer] == pytest.approx(float(of_window.mean()), rel=1e-5)
            stderr = float(of_window.std()) / len(WINDOWS) ** 0.5
            assert found[name]["stderr"][layer] == pytest.approx(stderr, rel=1e-4)


def test_at_the_last_token_the_angle_is_that_of_the_first_paper() -> None:
    model = random_model("qwen2")
    table = geometry.measure(model, WINDOWS, 4, 10, 0).table
    found = layer_states.read(model, WINDOWS, 4, 0).means["angular"]
    of_one = table[table["n"] == 1]
    assert found["value"] == pytest.approx(of_one["distance"].tolist(), rel=1e-6)
    assert found["stderr"] == pytest.approx(of_one["stderr"].tolist(), rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_attention_and_ffn_are_told_apart_in_every_family(form: str) -> None:
    """Without one of them its layer adds what the other does."""
    model = random_variant(form)
    parts = contributions.parts(model)
    assert parts is not None
    states, where = states_of(model, WINDOWS), torch.arange(24)
    modules = [module for one in parts for module in one]
    with torch.inference_mode(), contributions.outputs(modules, 24, where) as added:
        decoder(model)(input_ids=WINDOWS, use_cache=False)
    for one, before, after in zip(parts, states[:-1], states[1:], strict=True):
        attended, fed = (added[module] for module in one)
        assert torch.allclose(before + attended + fed, after, atol=1e-4, rtol=1e-4)
        # What attention returns of the first token knows of no other one; both know of their own.
        assert not torch.equal(attended, fed)


def test_attention_is_what_mixes_tokens() -> None:
    """Another second token changes the last token's attention in layer 0, and not its FFN input."""
    model = random_model("gpt_neox")  # both read the layer's input
    (first, *_), where = contributions.parts(model), torch.tensor([23])
    other = WINDOWS.clone()
    other[:, 1] = (other[:, 1] + 1) % 100 + 3
    found = []
    for tokens in (WINDOWS, other):
        with torch.inference_mode(), contributions.outputs([*first], 24, where) as added:
            decoder(model)(input_ids=tokens, use_cache=False)
        found.append([added[module] for module in first])
    assert not torch.allclose(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_of_modules_that_multiply_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("llama")
    layer = layers(model)[2]
    handle = layer.register_forward_hook(lambda _m, _a, output: output * 1.5)
    assert contributions.parts(model) is None
    found = layer_states.read(model, WINDOWS, 4, 1).means
    handle.remove()
    assert {"attention", "ffn"}.isdisjoint(found) and "update" in found


def test_more_windows_keep_no_more_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_states, "KEPT", 12)
    model = random_model("llama")
    few, more = (layer_states.read(model, WINDOWS[:n], 4, 1) for n in (6, 10))
    assert torch.equal(few.states, more.states) and few.states.shape[1] == 12
    assert torch.equal(few.window, more.window) and more.n_windows == 10
    expected = states_of(model, WINDOWS[:6])[:, :, layer_states.positions(24, 1)]
    assert torch.allclose(few.states, expected.flatten(1, 2), atol=1e-5)


def test_what_is_not_finite_is_said_with_its_layer_and_window() -> None:
    model = random_model("llama")
    with torch.no_grad():
        layers(model)[3].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="entering layer 4 in window 0 are not finite"):
        layer_states.read(model, WINDOWS, 4, 1)


def test_everything_derived_has_a_value_for_each_layer_and_block() -> None:
    model = random_model("llama")
    found = of_states(layer_states.read(model, random_tokens(60, 24), 10, 7), [2, 4])
    assert found["tokens"] == 480 and found["windows"] == 60 and found["width"] == 64
    for name, one in found["measures"].items():
        assert len(one["value"]) == len(one["stderr"]) == 6, name
    assert {n: {name: len(v) for name, v in of.items()} for n, of in found["blocks"].items()} == {
        "2": dict.fromkeys(ALIKE, 5),
        "4": dict.fromkeys(ALIKE, 3),
    }
    one = of_states(layer_states.read(model, random_tokens(60, 24), 10, 7), [1])
    for name in ALIKE:
        value = one["measures"][name]["value"]
        assert one["blocks"]["1"][name] == pytest.approx(value, abs=1e-6), name


def norm_of_gradients(layer: torch.nn.Module) -> float:
    found = [one.grad.double().flatten() for one in layer.parameters() if one.grad is not None]
    return float(torch.cat(found).norm())


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_gradient_norms_are_those_of_autograd(family: str) -> None:
    model = random_model(family)
    found = gradient_norms.of_layers(model, WINDOWS, 5)
    assert all(one.grad is None and one.requires_grad for one in model.parameters())
    norms = []
    for some in WINDOWS.split(5):
        model.zero_grad()
        model(input_ids=some, labels=some).loss.backward()
        norms.append([norm_of_gradients(layer) for layer in layers(model)])
    by_hand = torch.tensor(norms, dtype=torch.float64)
    assert found["value"] == pytest.approx(by_hand.mean(0).tolist(), rel=1e-4)
    assert found["stderr"] == pytest.approx((by_hand.std(0) / 2**0.5).tolist(), rel=1e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_logit_lens_is_norm_and_head_on_each_state(family: str) -> None:
    model = random_model(family)
    norm = model.model.norm if family == "llama" else model.transformer.ln_f
    prompts = {tuple(random_tokens(1, n, n)[0].tolist()): [5, 9, 40, n] for n in range(7, 15)}
    found = leading(model, prompts, 3, 0)
    for number, (prompt, answers) in enumerate(prompts.items()):
        states = states_of(model, torch.tensor([prompt]))[:, 0, -1]
        with torch.inference_mode():
            logits = model.lm_head(norm(states))[:, answers]
        assert found[:, number].tolist() == logits.argmax(-1).tolist()
    with torch.inference_mode():
        whole = [model(input_ids=torch.tensor([p])).logits[0, -1, a] for p, a in prompts.items()]
    assert found[-1].tolist() == [int(one.argmax()) for one in whole]


def test_shapes_of_a_pass_are_plain() -> None:
    empty = SimpleNamespace(
        means={}, states=torch.zeros(7, 40, 8), window=torch.arange(40), n_windows=40
    )
    found = of_states(empty, [])
    assert all(x != x for x in found["measures"]["cka"]["value"])  # nothing varies
