"""Repairs of a cut: where the answer is known, against their definition, and as checkpoints."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mending import BLOCK, REPAIRS, TOKENS, WINDOWS, close, repaired, replaced, silence
from safetensors import safe_open
from tiny import FORMS, logits_of, looped, random_model, random_tokens, random_variant, save
from transformers import PreTrainedModel

from lib.errors import UserError
from lib.models.anatomy import decoder, layers, layers_and_name
from lib.models.residual import last_writer, weight
from lib.pruning.dropped import Dropped
from lib.pruning.geometry import residual_stream
from lib.pruning.repair import load, repair
from lib.pruning.surgery import pruned

RIDGE = 1e-6  # of the mean of the diagonal
# What these add to the residual stream no linear map writes.
NO_MAP = {"mixtral", "gemma2", "gemma3_text", "gemma3", "olmo2", "gemma2 untied"}
WEIGHTS = "model.safetensors"
PLAIN = """
import sys, torch
from transformers import AutoModelForCausalLM

asked = torch.load("asked.pt")
for folder, expected in asked["expected"].items():
    how = dict(attn_implementation="eager", output_loading_info=True)
    model, found = AutoModelForCausalLM.from_pretrained(folder, **how)
    assert not any(found.values()), found
    with torch.inference_mode():
        assert torch.equal(model.eval()(asked["tokens"], use_cache=False).logits, expected), folder
assert not any(name.split(".")[0] == "lib" for name in sys.modules)
"""


def states(
    model: PreTrainedModel, tokens: torch.Tensor, block: Dropped = BLOCK
) -> tuple[np.ndarray, ...]:
    """m, x⁽ˢ⁾ and x⁽ᵗ⁾, each [tokens, width], in 64 bits, of an unpruned model."""
    seen: list[torch.Tensor] = []
    writer = last_writer(model, block.start - 1, tokens[0])
    handle = writer.register_forward_hook(lambda _module, _given, output: seen.append(output))
    with torch.no_grad(), residual_stream(model, torch.clone) as stream:
        decoder(model)(tokens, use_cache=False)
    handle.remove()
    found = seen[0], stream[block.start], stream[block.stop]
    return tuple(one.double().flatten(0, -2).numpy() for one in found)


def by_lstsq(model: PreTrainedModel) -> np.ndarray:
    """T [width, width] such that x⁽ᵗ⁾ ≈ x⁽ˢ⁾ − m + m T, from the explicit design matrix: a row per
    token, and the ridge as further rows."""
    m, entering, leaving = states(model, WINDOWS)
    width = m.shape[1]
    ridge = RIDGE * (m**2).sum() / width
    design = np.vstack([m, np.sqrt(ridge) * np.eye(width)])
    target = np.vstack([leaving - entering, np.zeros((width, width))])
    return np.eye(width) + np.linalg.lstsq(design, target, rcond=None)[0]


def stack_of(model: PreTrainedModel) -> str:
    return layers_and_name(model)[1]


@pytest.mark.parametrize("name", REPAIRS)
def test_a_block_that_does_nothing_needs_no_repair(name: str) -> None:
    model = random_model("llama")
    silence(model)
    expected = logits_of(model, TOKENS)
    report = repaired(model, name)
    assert report["gap"] < 1e-12 and abs(report["left"]) < 1e-12
    close(logits_of(model, TOKENS), expected, 1e-5)


def test_a_block_that_multiplies_is_replaced_by_its_factor() -> None:
    model = random_model("llama", rms_norm_eps=1e-12)
    silence(model)
    with torch.no_grad(), replaced(model.model.layers[3], lambda stream: 1.7 * stream):
        expected = logits_of(model, TOKENS)
        report = repaired(model, "rescale")
    assert report["factor"] == pytest.approx(1.7, rel=1e-6)
    assert report["left"] == pytest.approx(0, abs=1e-12)
    close(logits_of(model, TOKENS), expected, 1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_block_that_is_linear_in_the_ffn_before_it_is_replaced(family: str) -> None:
    model = random_model(family)
    width = model.config.hidden_size
    extra = torch.randn(width, width, generator=torch.Generator().manual_seed(3)) / 8
    writer, kept = last_writer(model, 1, TOKENS[0]), []
    writer.register_forward_hook(lambda _module, _given, output: kept.append(output))
    layers(model)[2].forward = lambda stream, *_args, **_kwargs: stream + kept[-1] @ extra
    layers(model)[3].forward = lambda stream, *_args, **_kwargs: stream
    expected, before = logits_of(model, TOKENS), weight(writer).clone()
    report = repaired(model, "linear-map")
    assert report["left"] < 1e-4 * report["gap"]
    close(weight(writer), before + extra.T @ before, 1e-3)
    close(logits_of(model, TOKENS), expected, 1e-3)


@pytest.mark.parametrize("form", [form for form in FORMS if form not in NO_MAP])
def test_the_map_is_that_of_least_squares_folded_in(form: str) -> None:
    model = random_variant(form)
    t = torch.from_numpy(by_lstsq(model)).float()
    writer = last_writer(model, 1, TOKENS[0])
    bias = None if writer.bias is None else t.T @ writer.bias.detach()
    expected = t.T @ weight(writer).detach()
    with replaced(writer, lambda output: output @ t):
        logits = looped(model, stack_of(model), [0, 1, 4, 5], TOKENS)
    repaired(model, "linear-map")
    close(weight(writer), expected, 1e-5)
    if bias is not None:
        close(writer.bias, bias, 1e-5)
    close(logits_of(model, TOKENS), logits, 1e-4)


@pytest.mark.parametrize("form", [form for form in FORMS if form not in NO_MAP])
def test_the_factor_is_that_of_least_squares_whatever_is_divided_by_it(form: str) -> None:
    model = random_variant(form)
    _, entering, leaving = states(model, WINDOWS)
    factor = (entering * leaving).sum() / (entering**2).sum()

    def multiplied(output: torch.Tensor | tuple) -> torch.Tensor | tuple:
        if isinstance(output, tuple):
            return (factor * output[0], *output[1:])
        return factor * output

    with pruned(model, BLOCK), replaced(layers(model)[1], multiplied):
        expected = logits_of(model, TOKENS)
    assert repaired(model, "rescale")["factor"] == pytest.approx(factor, rel=1e-6)
    close(logits_of(model, TOKENS), expected, 1e-4)


@pytest.mark.parametrize("name", ["linear-map", "rescale"])
@pytest.mark.parametrize("form", sorted(NO_MAP))
def test_a_family_without_such_maps_is_refused_and_left_alone(form: str, name: str) -> None:
    model = random_variant(form)
    before = logits_of(model, TOKENS)
    with pytest.raises(UserError, match=rf"^model {form.split()[0]}: .*layer \d adds[^\n]*$"):
        repaired(model, name)
    assert torch.equal(logits_of(model, TOKENS), before)


def test_plain_transformers_loads_them_bit_for_bit(tmp_path: Path) -> None:
    """In a process of its own, without anything of ours: the same tensors as without a repair, the
    same configuration, the same files, and the logits of the model in memory."""
    expected = {}
    for form in ("llama", "llama tied", "gpt2", "gpt_neox", "opt"):
        model = random_variant(form)
        with pruned(model, BLOCK):
            like = save(model, tmp_path / form)
        for name in REPAIRS:
            model = random_variant(form)
            repaired(model, name)
            folder = save(model, tmp_path / f"{form} {name}")
            assert (folder / "config.json").read_text() == (like / "config.json").read_text()
            files, others = ({path.name for path in one.iterdir()} for one in (folder, like))
            assert files == others
            assert (
                safe_open(folder / WEIGHTS, "pt").keys() == safe_open(like / WEIGHTS, "pt").keys()
            )
            expected[str(folder)] = logits_of(model, TOKENS)
    torch.save({"tokens": TOKENS, "expected": expected}, tmp_path / "asked.pt")
    done = subprocess.run([sys.executable, "-c", PLAIN], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("rows", [2, 24])  # 40 tokens for a map of 64 × 64, and 480
@pytest.mark.parametrize("name", REPAIRS)
def test_on_the_calibration_text_the_error_is_never_above_that_of_nothing(
    name: str, rows: int
) -> None:
    for seed in range(3):
        model, windows = random_model("qwen2", seed), WINDOWS[:rows]
        _, entering, leaving = states(model, windows)
        whole = (leaving**2).sum()
        report = repair(model, BLOCK, windows, 5, load(name))
        assert report["tokens"] == windows.numel()
        assert report["gap"] == pytest.approx(((entering - leaving) ** 2).sum() / whole, rel=1e-6)
        assert report["left"] <= report["gap"]
        with torch.no_grad(), residual_stream(model, torch.clone) as stream:
            decoder(model)(windows, use_cache=False)
        found = stream[2].double().flatten(0, 1).numpy() * report.get("factor", 1)
        error = ((found - leaving) ** 2).sum() / whole
        assert error == pytest.approx(report["left"], rel=1e-4, abs=1e-9)


def test_what_a_factor_leaves_on_other_text_is_tried_on_the_other_half() -> None:
    model = random_model("llama")
    x, y = ([states(model, WINDOWS[half::2])[which] for half in (0, 1)] for which in (1, 2))
    factors = [(a * b).sum() / (a * a).sum() for a, b in zip(x, y, strict=True)]
    left = sum(((factors[1 - i] * x[i] - y[i]) ** 2).sum() for i in (0, 1))
    report = repaired(model, "rescale")
    expected = left / sum((one**2).sum() for one in y)
    assert report["left_elsewhere"] == pytest.approx(expected, rel=1e-6)


def test_a_map_of_too_little_text_is_seen_on_other_text() -> None:
    """Of 40 tokens a map of 64 × 64 makes what it likes; of many it cannot."""
    few, many = (
        repair(random_model("llama"), BLOCK, windows, 5, load("linear-map"))
        for windows in (WINDOWS[:2], random_tokens(400, 20))
    )
    assert few["left"] < 0.01 * few["gap"] < few["left_elsewhere"]
    assert many["left"] < many["left_elsewhere"] < 1.2 * many["left"]


def test_batches_change_nothing() -> None:
    found = []
    for batch in (1, 7, 24):
        model = random_model("phi")
        repair(model, BLOCK, WINDOWS, batch, load("linear-map"))
        found.append(logits_of(model, TOKENS))
    close(found[1], found[0], 1e-4)
    close(found[2], found[0], 1e-4)
