"""Families at the limits: layers that cannot be replayed, infinity in a configuration, tokens
beyond the embeddings, experts that are no modules, layers behind the last one."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Checkpoints, Studies, write_jsonl
from safetensors.torch import load_file, save_file
from test_sweep import by_hand, equal, questions
from tiny import FAMILIES, logits_of, looped, random_model, random_tokens
from transformers import AutoModelForCausalLM, AutoTokenizer
from zoo import MORE

from lib import run
from lib import study as studies
from lib.book.check import check
from lib.errors import UserError
from lib.evaluation import sweep, writing
from lib.evaluation.batches import Row
from lib.evaluation.replay import Replay
from lib.evidence.records import digest
from lib.experiments.opened import OpenStudy
from lib.models import anatomy, checkpoints, shards
from lib.models.shapes import shape_of
from lib.models.vocabulary import beyond, check_ids
from lib.pruning import on_disk, surgery
from lib.pruning.dropped import UNPRUNED, span
from lib.pruning.surgery import pruned, save_pruned, slice_config


def refusal(call) -> str:
    with pytest.raises(UserError) as raised:
        call()
    message = str(raised.value)
    assert "\n" not in message and len(message) < 600
    return message


# Layers that cannot be replayed.

FEW = [UNPRUNED, (1, 4)]


@pytest.mark.parametrize("family", ["lfm2", "mamba"])
def test_what_keeps_no_keys_and_values_shares_no_prefixes(family):
    model, rows = random_model(family, settings=MORE[family]), questions()
    found = sweep.log_likelihoods(model, FEW, rows, 8, 0, "rows")
    assert equal(found, by_hand(model, FEW, rows))
    assert sweep._ways[model] == "whole"


@pytest.mark.parametrize("where", ["__init__", "logits"])
def test_an_exception_in_the_trial_means_not_this_way(where, monkeypatch):
    def raises(*_: object, **__: object) -> None:
        raise AttributeError("no such thing")

    model, rows = random_model("llama"), questions()
    monkeypatch.setattr(Replay, where, raises)
    found = sweep.log_likelihoods(model, FEW, rows, 8, 0, "rows")
    assert sweep._ways[model] is None
    assert equal(found, by_hand(model, FEW, rows))
    with torch.no_grad():
        anatomy.layers(model)[4].mlp.down_proj.weight[0, 0] = torch.nan
    says = refusal(lambda: sweep.log_likelihoods(model, [span(1, 3)], rows, 8, 0, "rows"))
    assert "not finite leaving layer 4" in says


# Infinity in a configuration.


@pytest.mark.parametrize("family", ["granitemoehybrid", "mamba2"])
def test_infinity_in_a_configuration(family, tmp_path):
    model, tokens = random_model(family, settings=MORE[family]), random_tokens(1, 12)
    assert math.inf in model.config.time_step_limit
    stack = "backbone.layers" if family == "mamba2" else "model.layers"
    expected = looped(model, stack, [0, 1, 3, 5], tokens)
    with pruned(model, (2, 4)):
        assert torch.equal(logits_of(model, tokens), expected)
    model.save_pretrained(tmp_path / "whole")
    on_disk.prune(tmp_path / "whole", tmp_path / "out", (2, 4))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    assert tuple(again.config.time_step_limit) == (0.0, math.inf)
    assert torch.allclose(logits_of(again.eval(), tokens), expected, atol=1e-5)


@pytest.fixture
def of_family(tiny_checkpoint: Checkpoints, tokenizer: Any):
    """The folder of a small random model with the shipped tokenizer."""

    def make(family: str, **changes: Any) -> str:
        settings = MORE[family] | {"vocab_size": len(tokenizer)} | changes
        return str(tiny_checkpoint(family, **settings))

    return make


def test_distances_of_a_twin_with_infinity_are_recorded(
    tmp_path, write_study: Studies, of_family, results_dir
):
    folder = of_family("granitemoehybrid")
    path = write_study(tmp_path, model=folder, healing="none")
    found = OpenStudy(studies.load(str(path))).measure_untrained_distances()
    assert len(found["table"]["n"]) == 20
    (record,) = (results_dir / "mine" / "evidence" / "distances").glob("untrained*.json")
    inputs = json.loads(record.read_text())["inputs"]
    assert inputs["untrained"]["time_step_limit"] == [0.0, {"__float__": "Infinity"}]


@pytest.mark.parametrize("family", FAMILIES)
def test_finite_configurations_are_recorded_as_they_were(family):
    config = random_model(family).config
    assert digest(json.loads(config.to_json_string(use_diff=False))) == digest(config.to_dict())


@pytest.mark.parametrize("part", ["_read", "skeleton"])
def test_a_family_that_cannot_be_proven_is_one_line(part, monkeypatch):
    def raises(*_: object) -> None:
        raise RuntimeError("meta\ntensors")

    config = random_model("llama", pad_token_id=len(part)).config  # proven by no other test
    monkeypatch.setattr(surgery, part, raises)
    says = refusal(lambda: slice_config(config, [0, 1, 5]))
    assert "cannot drop layers 2–4" in says and "meta tensors" in says


# Tokens beyond the embeddings.


@pytest.fixture
def with_extra(tmp_path: Path, tiny_checkpoint: Checkpoints, tokenizer: Any):
    """A checkpoint whose tokenizer has a special token that the model has no embedding of."""

    def make(**special: str) -> Path:
        folder = tmp_path / "extra"
        model = AutoModelForCausalLM.from_pretrained(
            tiny_checkpoint("llama", vocab_size=len(tokenizer))
        )
        model.save_pretrained(folder)
        own = AutoTokenizer.from_pretrained(tiny_checkpoint("llama"))
        own.add_special_tokens(special or {"additional_special_tokens": ["<image>"]})
        assert len(own) == len(tokenizer) + 1
        own.save_pretrained(folder)
        return folder

    return make


def test_a_special_token_beyond_the_embeddings_is_a_note(
    tmp_path, write_study: Studies, with_extra, tokenizer, results_dir, capfd
):
    path = write_study(tmp_path, model=str(with_extra()))
    assert run.main(["check", "--study", str(path)]) == 0
    note = f"1 token beyond the model's {len(tokenizer)} embeddings (<image> = {len(tokenizer)})"
    assert note in capfd.readouterr().err
    texts = [{"text": f"An <image> of day {i}, and of a cat."} for i in range(90)]
    write_jsonl(tmp_path / "validation.jsonl", texts)
    says = refusal(lambda: check(studies.load(str(path)), section="angular_distances"))
    assert "validation.jsonl" in says and f"token id {len(tokenizer)}" in says


def test_a_padding_token_beyond_the_embeddings_is_not_taken(with_extra, tokenizer):
    study = studies.Study(name="mine", model=str(with_extra(pad_token="<filler>")), device="cpu")
    found = checkpoints.load_tokenizer(study, checkpoints.load_config(study))
    assert found.pad_token_id == tokenizer.eos_token_id


def test_ids_that_texts_make_are_looked_at_wherever_they_are_run(with_extra, tokenizer):
    study = studies.Study(name="mine", model=str(with_extra()), device="cpu")
    model = checkpoints.load_model(study)
    own = checkpoints.load_tokenizer(study, model.config)
    assert beyond(own, model.config) and beyond(tokenizer, model.config) is None
    size = len(tokenizer)
    check_ids([[0, size - 1], []], model.config, "text")
    rows = [Row((1, 5, 6), 1), Row((1, size, 6), 1)]
    says = refusal(lambda: sweep.log_likelihoods(model, [UNPRUNED], rows, 8, 0, "quiz"))
    assert says.startswith("quiz: ") and f"id {size}; the model has {size} embeddings" in says
    given = (model, own, [UNPRUNED], ["An <image>"], 2)
    assert "'An <image>'" in refusal(lambda: list(writing.continuations(*given)))


# Experts that are no modules.

NAMED = {
    "gpt_oss": (["gate_up_proj", "down_proj"], "has no linear modules"),
    "granitemoe": (["input_linear", "output_linear"], "linear modules are gate_up_proj, down_proj"),
    "lfm2": (["gate_proj"], "linear modules are in_proj, out_proj, w1, w3, w2)"),
    "qwen3_moe": (["gate_proj"], "linear modules are gate_up_proj, down_proj"),
}


@pytest.mark.parametrize("family", NAMED)
def test_ffn_that_adapters_do_not_go_on(family):
    model = random_model(family, settings=MORE[family])
    assert shape_of(model.config).total == sum(p.numel() for p in model.parameters())
    names, there = NAMED[family]
    for targets in (None, names):
        says = refusal(lambda targets=targets: anatomy.adapter_modules(model, targets))
        assert f"'{family}'" in says and there in says
        assert "take a recipe without adapters, or healing: none" in says
    if "gate_up_proj" in there:
        assert len(anatomy.adapter_modules(model, ["gate_up_proj", "down_proj"])) == 2 * 6 * 4


def test_a_section_that_heals_nothing_asks_for_no_targets(
    tmp_path, write_study: Studies, of_family
):
    folder = of_family("gpt_oss")
    path = write_study(tmp_path, model=folder)
    study = studies.load(str(path))
    text = (tmp_path / "healing.jsonl").rename(tmp_path / "elsewhere")
    check(study, section="angular_distances")
    text.rename(tmp_path / "healing.jsonl")
    for section in (None, "loss"):
        assert "'gpt_oss'" in refusal(lambda section=section: check(study, section=section))


# Layers behind the last one.


@pytest.fixture
def behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A model of six layers, with one for a further token behind them, as GLM-4.5 has."""
    model = random_model("glm4_moe", settings=MORE["glm4_moe"])
    monkeypatch.setattr(type(model), "_keys_to_ignore_on_load_unexpected", [r"model\.layers\.6.*"])

    def make(number: int = 6) -> tuple[Any, Path]:
        model.save_pretrained(tmp_path / "whole")
        file = tmp_path / "whole" / shards.SINGLE
        tensors = load_file(file)
        for name in [name for name in tensors if name.startswith("model.layers.5.")]:
            tensors[name.replace("layers.5.", f"layers.{number}.")] = tensors[name].clone()
        save_file(tensors, file, metadata={"format": "pt"})
        return model, tmp_path / "whole"

    return make


def test_a_layer_for_a_further_token_is_left_out_with_a_line(behind, tmp_path, capfd):
    model, whole = behind()
    checkpoints.check_tensors(studies.Study(name="mine", model=str(whole)))
    on_disk.prune(whole, tmp_path / "out", (2, 3))
    said = capfd.readouterr().err
    assert "left out" in said and "model.layers.6." in said and "multi-token" in said
    save_pruned(model, (2, 3), None, tmp_path / "memory")
    here, there = (load_file(tmp_path / name / shards.SINGLE) for name in ("memory", "out"))
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)
    for name in ("memory", "out"):
        written = json.loads((tmp_path / name / "config.json").read_text())
        assert written["num_hidden_layers"] == 4 and written["num_nextn_predict_layers"] == 0
    again, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", attn_implementation="eager", output_loading_info=True
    )
    assert not any(info.values())
    tokens = random_tokens(1, 8)
    expected = looped(model, "model.layers", [0, 1, 4, 5], tokens)
    assert torch.allclose(logits_of(again.eval(), tokens), expected, atol=1e-5)


def test_other_layers_too_many_are_still_refused(behind, tmp_path):
    _, whole = behind(number=7)
    says = refusal(lambda: on_disk.prune(whole, tmp_path / "out", [3]))
    assert "7 is extra" in says


@pytest.mark.parametrize("family", ["deepseek_v3", "glm4_moe"])
def test_transformers_says_which_layers_it_does_not_load(family):
    behind = {"deepseek_v3": "61", "glm4_moe": "46"}[family]
    patterns = on_disk._ignored(random_model(family, settings=MORE[family]).config)
    assert any(re.search(one, f"model.layers.{behind}.mlp.gate.weight") for one in patterns)


def test_heads_for_further_tokens_under_a_name_of_their_own():
    tensors = [
        shards.Tensor(name, "F32", (), 0, 4)
        for name in ("model.layers.0.w", "model.layers.1.w", "mtp.layers.0.w", "lm_head.w")
    ]
    found = [shards.Shard(Path("x"), None, tuple(tensors))]
    assert shards.multi_token(found, 2, ["^mtp.*"]) == ["mtp.layers.0.w"]
    assert shards.multi_token(found, 2, []) == []
    assert shards.multi_token(found, 1, [r"layers\.1"]) == ["model.layers.1.w"]
    left = shards.without(found, ["mtp.layers.0.w"])
    assert [tensor.name for tensor in left[0].tensors] == [
        "model.layers.0.w", "model.layers.1.w", "lm_head.w"
    ]  # fmt: skip


# Cuts that a configuration cannot express.


def test_check_says_which_cuts_are_possible(tmp_path, write_study: Studies, of_family):
    # Attention in layers 2 and 5: of the deepest without the last, only three can go.
    folder = of_family("jamba", attn_layer_offset=2)
    path = write_study(tmp_path, model=folder, healing="none", writing={"n_prompts": 1})
    says = refusal(lambda: check(studies.load(str(path))))
    assert "jamba" in says and "would differ" in says and "these fractions can go: 0.5 (3" in says
    check(studies.load(str(path)), section="angular_distances")
    path = write_study(tmp_path, model=folder, healing="none", writing={"n_prompts": 0})
    check(studies.load(str(path)), section="loss")  # answers are had without making the models
    for section in (None, "what_it_saves"):
        says = refusal(lambda section=section: check(studies.load(str(path)), section=section))
        assert "cost.fractions" in says and "these fractions can go: 0.5 (3" in says
