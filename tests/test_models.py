"""Checkpoints: whole ones load, anything else is one line; where layers and FFN modules are."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Checkpoints
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GptOssConfig,
)

from lib.errors import UserError
from lib.models import anatomy, checkpoints, shards
from lib.models.vocabulary import beyond, check_ids
from lib.schema import Study

Copy = Callable[..., Path]


def of(folder: Path | str, **keys: Any) -> Study:
    return Study(name="mine", model=str(folder), device="cpu", **keys)


@pytest.fixture
def copy(tmp_path: Path, tiny_checkpoint: Checkpoints, build_dir: Path) -> Copy:
    """A copy of a tiny checkpoint, to be damaged."""

    def make(family: str = "llama", **config: Any) -> Path:
        return Path(shutil.copytree(tiny_checkpoint(family, **config), tmp_path / family))

    return make


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as raised:
        call()
    message = str(raised.value)
    assert "\n" not in message and len(message) < 500
    return message


def test_a_checkpoint_loads_as_transformers_loads_it(tiny_checkpoint: Checkpoints) -> None:
    folder = tiny_checkpoint("llama")
    study = of(folder)
    model, plain = checkpoints.load_model(study), AutoModelForCausalLM.from_pretrained(folder)
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, plain(tokens).logits)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_study_decides_the_dtype(tiny_checkpoint: Checkpoints) -> None:
    model = checkpoints.load_model(of(tiny_checkpoint("llama"), dtype="bfloat16"))
    assert model.dtype == torch.bfloat16


def test_a_skeleton_has_the_same_modules_and_no_weights(tiny_checkpoint: Checkpoints) -> None:
    study = of(tiny_checkpoint("gpt_neox"))
    skeleton = anatomy.skeleton(checkpoints.load_config(study))
    assert all(parameter.is_meta for parameter in skeleton.parameters())
    model = checkpoints.load_model(study)
    assert anatomy.adapter_modules(skeleton) == anatomy.adapter_modules(model)


def test_named_targets_replace_the_familys_own(tiny_checkpoint: Checkpoints) -> None:
    model = anatomy.skeleton(checkpoints.load_config(of(tiny_checkpoint("llama"))))
    found = anatomy.adapter_modules(model, ["down_proj"])
    assert found == [f"model.layers.{i}.mlp.down_proj" for i in range(6)]


@pytest.mark.parametrize("target", ["c_proj", "proj", "q_proj", "mlp", "lm_head", "up_proj.weight"])
def test_targets_that_are_no_adapter_modules_are_refused(
    tiny_checkpoint: Checkpoints, target: str
) -> None:
    model = anatomy.skeleton(checkpoints.load_config(of(tiny_checkpoint("llama"))))
    message = refusal(lambda: anatomy.adapter_modules(model, ["up_proj", target]))
    assert f"'{target}'" in message and "healing.targets" in message


def test_an_unknown_family_has_to_name_its_targets(tiny_checkpoint: Checkpoints) -> None:
    model = anatomy.skeleton(checkpoints.load_config(of(tiny_checkpoint("llama"))))
    model.config.model_type = "novel"
    message = refusal(lambda: anatomy.adapter_modules(model))
    assert "'novel'" in message and "healing.targets" in message


def test_layers_that_cannot_be_told_apart_are_refused(tiny_checkpoint: Checkpoints) -> None:
    model = anatomy.skeleton(checkpoints.load_config(of(tiny_checkpoint("llama"))))
    model.model.twins = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(6))
    assert "twins" in refusal(lambda: anatomy.layers(model))
    model.config.num_hidden_layers = 7
    assert "none" in refusal(lambda: anatomy.layers(model))


def test_a_list_outside_the_text_decoder_is_not_taken_for_the_layers(
    tiny_checkpoint: Checkpoints,
) -> None:
    model = anatomy.skeleton(checkpoints.load_config(of(tiny_checkpoint("llama"))))
    model.tower = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(6))
    assert anatomy.layers_and_name(model) == (model.model.layers, "model.layers")


@pytest.mark.parametrize("targets", [["gate_up_proj"], ["down_proj"]])
def test_experts_of_another_layout_are_refused(targets: list[str]) -> None:
    settings = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 64}
    config = GptOssConfig(**settings, num_local_experts=2, num_experts_per_tok=1, head_dim=16)
    model = anatomy.skeleton(config)
    assert f"'{targets[0]}'" in refusal(lambda: anatomy.adapter_modules(model, targets))


def _tensors(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return damage


UP = "model.layers.3.mlp.up_proj.weight"


def _cut(folder: Path, keep: Callable[[int], int]) -> None:
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[: keep(len(raw))])


def _shard(folder: Path, drop: bool = True, broken: bool = False) -> None:
    """Split into shards with an index, and lose one or spoil the index."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="300KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    if drop:
        shards[1].unlink()
    if broken:
        (folder / "model.safetensors.index.json").write_text('{"weight_map": ')


def _pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _bert(folder: Path) -> None:
    config = BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)


DAMAGE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "missing tensor": (_tensors(lambda t: t.pop(UP)), ["missing keys", UP]),
    "extra tensor": (_tensors(lambda t: t.update(a=torch.ones(1))), ["unexpected keys", "e.g. a"]),
    "mismatched": (_tensors(lambda t: t.update({UP: torch.ones(3, 3)})), ["mismatched", UP]),
    "cut off": (lambda f: _cut(f, lambda n: n // 2), ["model.safetensors", "cut off"]),
    "one byte less": (lambda f: _cut(f, lambda n: n - 1), ["model.safetensors", "cut off"]),
    "cut in the header": (lambda f: _cut(f, lambda n: 100), ["model.safetensors", "cut off"]),
    "empty": (lambda f: _cut(f, lambda n: 0), ["model.safetensors", "cut off"]),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), ["holds neither"]),
    "missing shard": (_shard, ["model-00002", "missing", "half-copied"]),
    "broken index": (lambda f: _shard(f, False, True), ["index.json is damaged"]),
    "pickled": (_pickle, ["holds neither", "pickled weights"]),
    "no config": (lambda f: (f / "config.json").unlink(), ["no checkpoint there", "config.json"]),
    "cut-off config": (lambda f: (f / "config.json").write_text("{"), ["cannot be loaded"]),
    "config without type": (lambda f: (f / "config.json").write_text("{}"), ["cannot be loaded"]),
    "unknown type": (
        lambda f: (f / "config.json").write_text('{"model_type": "novel"}'), ["novel"],
    ),
    "encoder-decoder": (
        lambda f: (f / "config.json").write_text('{"model_type": "t5"}'),
        ["'t5' is not a causal language model"],
    ),
    "encoder": (_bert, ["'bert' as BertForMaskedLM is not a causal language model"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_or_unfit_checkpoint_is_refused(
    copy: Copy, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    folder = copy()
    damage, says = DAMAGE[kind]
    damage(folder)
    capfd.readouterr()
    message = refusal(lambda: checkpoints.load_model(of(folder)))
    assert str(folder) in message
    for part in says:
        assert part in message
    assert refusal(lambda: checkpoints.check_tensors(of(folder))) == message
    assert capfd.readouterr().err == ""


def test_a_whole_checkpoint_in_shards_loads(copy: Copy) -> None:
    folder = copy()
    before = checkpoints.load_model(of(folder)).state_dict()
    _shard(folder, drop=False)
    after = checkpoints.load_model(of(folder)).state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    message = refusal(lambda: checkpoints.load_config(of(tmp_path / "none")))
    assert "none" in message and "no checkpoint there" in message


@pytest.mark.parametrize(
    "ask", [checkpoints.load_config, checkpoints.checkpoint_digest, checkpoints.load_model]
)
def test_a_hub_id_without_network_is_one_quick_line(ask: Callable[[Study], object]) -> None:
    start = time.monotonic()
    message = refusal(lambda: ask(of("nobody/no-such-model")))
    assert "nobody/no-such-model" in message and "network" in message
    assert time.monotonic() - start < 5


def test_a_tokenizer_gets_a_padding_token(copy: Copy) -> None:
    folder = copy()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("pad_token", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert AutoTokenizer.from_pretrained(folder).pad_token_id is None
    found = checkpoints.load_tokenizer(of(folder), checkpoints.load_config(of(folder)))
    assert found.pad_token_id == found.eos_token_id is not None


@pytest.mark.parametrize("short", [1, 900])
def test_of_a_tokenizer_with_ids_above_the_embeddings_only_those_that_texts_make_matter(
    copy: Copy, tokenizer: Any, short: int
) -> None:
    count = len(tokenizer) - short
    study = of(copy(vocab_size=count))
    config = checkpoints.load_config(study)
    found = checkpoints.load_tokenizer(study, config)
    assert f"{short} token" in str(beyond(found, config))
    check_ids([[0, count - 1]], config, "text x")
    message = refusal(lambda: check_ids([[0], [count, 1]], config, "text x"))
    assert message.startswith("text x: ") and f"token id {count};" in message
    assert f"{count} embeddings" in message


@pytest.mark.parametrize("spare", [0, 40])
def test_a_tokenizer_with_an_embedding_for_each_id_fits(
    copy: Copy, tokenizer: Any, spare: int
) -> None:
    study = of(copy(vocab_size=len(tokenizer) + spare))
    found = checkpoints.load_tokenizer(study, checkpoints.load_config(study))
    assert found("One dog.")["input_ids"] == tokenizer("One dog.")["input_ids"]


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_missing_or_broken_tokenizer_is_refused(copy: Copy, content: str | None) -> None:
    folder = copy()
    for path in folder.glob("tokenizer*"):
        path.unlink()
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    study = of(folder)
    message = refusal(lambda: checkpoints.load_tokenizer(study, checkpoints.load_config(study)))
    assert "tokenizer" in message and str(folder) in message


def test_cuda_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    study = Study(name="mine", model="x", device="cuda")
    assert "no CUDA device" in refusal(lambda: checkpoints.device(study))
    assert checkpoints.dtype(of("x")) == torch.float32


def test_the_single_file_is_what_is_loaded_and_hashed_beside_an_index(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "both")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "model-00001-of-00001.safetensors"}})
    )
    assert shards.weight_files(folder) == [folder / "model.safetensors"]


def test_an_adapter_in_the_folder_is_refused(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "adapted")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds an adapter"):
        shards.weight_files(folder)


def test_every_settings_file_decides_the_digest(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "same")
    study = Study(model=str(folder))
    before = checkpoints.checkpoint_digest(study)
    (folder / "special_tokens_map.json").write_text('{"eos_token": "</s>"}')
    assert checkpoints.checkpoint_digest(study) != before
