"""Families at the limits: layers that cannot be replayed, infinity in a configuration, tokens
beyond the embeddings, experts that are no modules, layers behind the last one."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Checkpoints, Studies, write_jsonl
from safetensors.torch import load_file, save_file
from test_sweep import DROPS, by_hand, equal, questions
from tiny import FAMILIES, logits_of, looped, random_model, random_tokens
from transformers import AutoModelForCausalLM, AutoTokenizer
from zoo import HEADS, MORE, ROUTED

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


@pytest.mark.parametrize("family", ["lfm2", "mamba", "qwen3_next"])
def test_what_keeps_no_keys_and_values_shares_no_prefixes(family):
    model, rows = random_model(family, settings=MORE[family]), questions()
    drops = [UNPRUNED, span(2, 4), (1, 4)]
    found = sweep.log_likelihoods(model, drops, rows, 8, 0, "rows")
    assert equal(found, by_hand(model, drops, rows))
    assert sweep._ways[model] == "whole"


@pytest.mark.parametrize("where", ["__init__", "step", "logits"])
def test_an_exception_in_the_trial_means_not_this_way(where, monkeypatch):
    def raises(*_: object, **__: object) -> None:
        raise AttributeError("no such thing")

    model, rows = random_model("llama"), questions()
    monkeypatch.setattr(Replay, where, raises)
    found = sweep.log_likelihoods(model, DROPS, rows, 8, 0, "rows")
    assert sweep._ways[model] is None
    assert equal(found, by_hand(model, DROPS, rows))
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

    def make(family: str) -> str:
        return str(tiny_checkpoint(family, **MORE[family] | {"vocab_size": len(tokenizer)}))

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
    says = refusal(lambda: check(studies.load(str(path))))
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

FUSED = {"gpt_oss": ["gate_up_proj", "down_proj"], "granitemoe": ["input_linear", "output_linear"]}


@pytest.mark.parametrize("family", FUSED)
def test_experts_that_adapters_do_not_go_on(family):
    model = random_model(family, settings=MORE[family])
    assert shape_of(model.config).total == sum(p.numel() for p in model.parameters())
    for targets in (None, FUSED[family]):
        says = refusal(lambda targets=targets: anatomy.ffn_modules(model, targets))
        assert "healing.targets" in says and "healing: none" in says
        assert "a recipe without adapters" in says
    assert ("router" in says or "layer" in says) == (family == "granitemoe")


def test_a_section_that_heals_nothing_asks_for_no_targets(
    tmp_path, write_study: Studies, of_family
):
    folder = of_family("gpt_oss")
    path = write_study(tmp_path, model=folder)
    study = studies.load(str(path))
    (tmp_path / "healing.jsonl").unlink()
    check(study, section="angular_distances")
    for section in (None, "loss"):
        assert "'gpt_oss'" in refusal(lambda section=section: check(study, section=section))


# Layers behind the last one.


def behind(tmp_path: Path, moved: str = "46") -> tuple[Any, Path]:
    """A model of 46 layers, as GLM-4.5 Air, with one for a further token behind them."""
    narrow = {"num_hidden_layers": 46, "n_routed_experts": 2, "num_experts_per_tok": 1}
    narrow |= {"hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 16}
    model = random_model("glm4_moe", settings=HEADS | ROUTED | narrow | {"head_dim": 8})
    model.save_pretrained(tmp_path / "whole")
    file = tmp_path / "whole" / shards.SINGLE
    tensors = load_file(file)
    for name in [name for name in tensors if name.startswith("model.layers.45.")]:
        tensors[name.replace("layers.45.", f"layers.{moved}.")] = tensors[name].clone()
    save_file(tensors, file, metadata={"format": "pt"})
    return model, tmp_path / "whole"


def test_a_layer_for_a_further_token_is_left_out_with_a_line(tmp_path, capfd):
    model, whole = behind(tmp_path)
    checkpoints.check_tensors(studies.Study(name="mine", model=str(whole)))
    on_disk.prune(whole, tmp_path / "out", range(30, 44))
    said = capfd.readouterr().err
    assert "left out" in said and "model.layers.46." in said and "multi-token" in said
    save_pruned(model, range(30, 44), None, tmp_path / "memory")
    here, there = (load_file(tmp_path / name / shards.SINGLE) for name in ("memory", "out"))
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["num_hidden_layers"] == 32 and written["num_nextn_predict_layers"] == 0
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    tokens, kept = random_tokens(1, 8), [*range(30), 44, 45]
    expected = looped(copy.deepcopy(model), "model.layers", kept, tokens)
    assert torch.allclose(logits_of(again.eval(), tokens), expected, atol=1e-5)


def test_other_layers_too_many_are_still_refused(tmp_path):
    _, whole = behind(tmp_path, moved="47")
    says = refusal(lambda: on_disk.prune(whole, tmp_path / "out", [3]))
    assert "47 is extra" in says


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
    folder = of_family("jamba")
    path = write_study(tmp_path, model=folder, healing="none", writing={"n_prompts": 1})
    says = refusal(lambda: check(studies.load(str(path))))
    assert "jamba" in says and "would differ" in says and "these fractions can go: 0.5 (3" in says
    check(studies.load(str(path)), section="angular_distances")
    path = write_study(tmp_path, model=folder, healing="none", writing={"n_prompts": 0})
    check(studies.load(str(path)), section="loss")  # answers are had without making the models
    for section in (None, "what_it_saves"):
        says = refusal(lambda section=section: check(studies.load(str(path)), section=section))
        assert "cost.fractions" in says and "these fractions can go: 0.5 (3" in says
