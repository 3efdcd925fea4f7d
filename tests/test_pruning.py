"""Pruning on disk against the model pruned in memory and saved."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sharded import CONTIGUOUS, N_LAYERS, SCATTERED, assert_same, load, tensors
from tiny import FAMILIES, FORMS, random_model, random_tokens, random_variant, save
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from lib import paths
from lib.errors import UserError
from lib.models import qwen, shards
from lib.pruning import on_disk
from lib.pruning.dropped import span
from lib.pruning.surgery import pruned, save_pruned

FORMS_AND_DROPS = [(form, SCATTERED) for form in FORMS] + [(form, CONTIGUOUS) for form in FAMILIES]


@pytest.mark.parametrize(("form", "dropped"), FORMS_AND_DROPS, ids=str)
def test_equals_the_model_pruned_in_memory(form, dropped, tmp_path):
    model, tokens = random_variant(form), random_tokens(2, 12)
    model.save_pretrained(tmp_path / "whole", max_shard_size="100KB")
    save_pruned(model, dropped, None, tmp_path / "memory")
    on_disk.prune(tmp_path / "whole", tmp_path / "disk", dropped)
    assert_same(tmp_path / "disk", tmp_path / "memory")
    with torch.inference_mode(), pruned(model, dropped):
        expected = model(tokens, use_cache=False).logits
        assert torch.equal(load(tmp_path / "disk")(tokens, use_cache=False).logits, expected)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_untied_embeddings_in_half_precision(tied, tmp_path):
    model = random_model("llama", tie_word_embeddings=tied).to(torch.bfloat16)
    save(model, tmp_path / "whole")
    save_pruned(model, SCATTERED, None, tmp_path / "memory")
    on_disk.prune(tmp_path / "whole", tmp_path / "disk", SCATTERED)
    assert_same(tmp_path / "disk", tmp_path / "memory")
    assert ("lm_head.weight" in tensors(tmp_path / "disk")) != tied
    loaded = load(tmp_path / "disk")
    assert loaded.dtype == torch.bfloat16
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_checkpoint_saved_without_its_head_keeps_its_own_names(family, tmp_path):
    """Base models lack the prefix of the causal model: "h.0." instead of "transformer.h.0."."""
    model = random_model(family, tie_word_embeddings=True)
    save(model.base_model, tmp_path / "whole")
    assert not any(name.startswith(model.base_model_prefix) for name in tensors(tmp_path / "whole"))
    on_disk.prune(tmp_path / "whole", tmp_path / "disk", CONTIGUOUS)
    with pruned(model, CONTIGUOUS):
        save(model.base_model, tmp_path / "memory")
    assert tensors(tmp_path / "disk").keys() == tensors(tmp_path / "memory").keys()
    reference, loaded = (AutoModel.from_pretrained(tmp_path / k) for k in ("memory", "disk"))
    for one, other in zip(reference.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, other)


def test_kinds_that_the_config_leaves_unsaid_stay_with_their_layers(tmp_path):
    """Older checkpoints of Gemma-2 do not list layer_types: they follow from the layer's number."""
    model = random_model("gemma2", layer_types=None)
    save(model, tmp_path / "whole")
    path = tmp_path / "whole" / "config.json"
    settings = json.loads(path.read_text())
    kinds = settings.pop("layer_types")
    path.write_text(json.dumps(settings))
    on_disk.prune(tmp_path / "whole", tmp_path / "out", SCATTERED)
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.layer_types == [kinds[1], kinds[3], kinds[4]] != kinds[:3]


def test_qwen_of_version_1_keeps_its_layout(tmp_path):
    qwen.register()
    torch.manual_seed(0)
    sizes = {"vocab_size": 199, "hidden_size": 64, "intermediate_size": 256, "kv_channels": 16}
    config = qwen.QWenConfig(num_hidden_layers=6, num_attention_heads=4, seq_length=64, **sizes)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path / "whole", max_shard_size="100KB")
    assert "transformer.h.5.attn.c_attn.weight" in tensors(tmp_path / "whole")
    save_pruned(model, SCATTERED, None, tmp_path / "memory")
    on_disk.prune(tmp_path / "whole", tmp_path / "disk", SCATTERED)
    assert_same(tmp_path / "disk", tmp_path / "memory")
    assert "qwen.register()" in (tmp_path / "disk" / "README.md").read_text()


def test_index_and_shards(sharded, tmp_path):
    before = json.loads((sharded / shards.INDEX).read_text())
    on_disk.prune(sharded, tmp_path / "out", CONTIGUOUS)
    index = json.loads((tmp_path / "out" / shards.INDEX).read_text())
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert files == [
        f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)
    ]
    assert set(index["weight_map"].values()) == set(files)
    for name, file in index["weight_map"].items():
        assert name in load_file(tmp_path / "out" / file)
    reference = random_model("llama")
    with pruned(reference, CONTIGUOUS):
        reference.save_pretrained(tmp_path / "memory", max_shard_size="100KB")
    expected = json.loads((tmp_path / "memory" / shards.INDEX).read_text())["metadata"]
    assert index["metadata"] == expected != before["metadata"]
    with safe_open(tmp_path / "out" / files[0], "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_shards_of_dropped_layers_go_and_one_left_is_a_single_file(tmp_path):
    model = random_model("llama")
    save(model, tmp_path / "whole")
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors(tmp_path / "whole").items():
        layer = re.search(r"layers\.(\d+)\.", name)
        part = f"model-{1 if not layer else 2 + int(layer[1]) // 3:05d}-of-00003.safetensors"
        parts.setdefault(part, {})[name] = tensor
    (tmp_path / "whole" / shards.SINGLE).unlink()
    for part, content in parts.items():
        save_file(content, tmp_path / "whole" / part, metadata={"format": "pt", "note": part})
    weight_map = {name: part for part, content in parts.items() for name in content}
    (tmp_path / "whole" / shards.INDEX).write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    save_pruned(model, span(0, 3), None, tmp_path / "memory")
    on_disk.prune(tmp_path / "whole", tmp_path / "out", span(0, 3))
    assert_same(tmp_path / "out", tmp_path / "memory")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 2
    index = json.loads((tmp_path / "out" / shards.INDEX).read_text())
    assert index["metadata"] == {
        "total_size": sum(map(_nbytes, tensors(tmp_path / "out").values()))
    }

    # With everything else moved into the second shard, dropping the rest leaves one file.
    merged = parts["model-00001-of-00003.safetensors"] | parts["model-00002-of-00003.safetensors"]
    (tmp_path / "whole" / "model-00001-of-00003.safetensors").unlink()
    second = "model-00002-of-00003.safetensors"
    save_file(merged, tmp_path / "whole" / second, metadata={"format": "pt"})
    weight_map |= dict.fromkeys(merged, second)
    (tmp_path / "whole" / shards.INDEX).write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    on_disk.prune(tmp_path / "whole", tmp_path / "single", span(3, 6))
    assert sorted(p.name for p in (tmp_path / "single").iterdir() if "model" in p.name) == [
        shards.SINGLE
    ]
    assert load(tmp_path / "single").config.num_hidden_layers == 3


def _nbytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def test_small_files_come_along_and_weights_of_other_formats_do_not(sharded, copied, tmp_path):
    (copied / "pytorch_model.bin").write_bytes(b"pickle")
    (copied / "additional_chat_templates").mkdir()
    (copied / "additional_chat_templates" / "tools.jinja").write_text("{{ x }}")
    (copied / ".cache").write_text("")
    on_disk.prune(copied, tmp_path / "out", CONTIGUOUS)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tokenizer.json", "generation_config.json", "LICENSE", "README.md"} <= names
    assert not {"pytorch_model.bin", ".cache"} & names
    assert (tmp_path / "out/additional_chat_templates/tools.jinja").read_text() == "{{ x }}"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("dropped", [CONTIGUOUS, SCATTERED, (4,), (0, 1), (5,)])
def test_the_card_says_the_same_in_every_notation(dropped, sharded, tmp_path):
    on_disk.prune(sharded, tmp_path / "out", dropped)
    text = (tmp_path / "out" / "README.md").read_text()
    gone = set(dropped)
    kept = [i for i in range(N_LAYERS) if i not in gone]

    merge = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    assert merge["merge_method"] == "passthrough"
    [*sources] = [source for one in merge["slices"] for source in one["sources"]]
    assert len(sources) == len(merge["slices"])
    assert {source["model"] for source in sources} == {"whole"}
    assert [i for source in sources for i in range(*source["layer_range"])] == kept

    numbers = re.search(r"--prune-layers ([\d,]+) ", text)[1]
    assert [int(number) for number in numbers.split(",")] == sorted(gone)

    rows = dict(re.findall(r"\| (\w+, half-open) \| (.*) \|", text))
    for row, layers in {"dropped, half-open": sorted(gone), "kept, half-open": kept}.items():
        spans = re.findall(r"\[(\d+), (\d+)\)", rows[row])
        assert [i for start, stop in spans for i in range(int(start), int(stop))] == layers

    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "mit"
    assert "metrics" not in front
    assert str(tmp_path) not in text


def test_the_card_in_words(sharded, tmp_path):
    on_disk.prune(sharded, tmp_path / "out", SCATTERED)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "drop layers 0, 2 and 5, keep 1 and 3–4" in text
    assert "3 of its 6 decoder layers dropped" in text
    assert 'from_pretrained("out"' in text


def test_quantised_checkpoints(sharded, copied, tmp_path):
    """Tensors beside a weight move with it, odd sizes included; so do modules named in settings."""
    path = (
        copied
        / json.loads((copied / shards.INDEX).read_text())["weight_map"][
            "model.layers.4.mlp.up_proj.weight"
        ]
    )
    state = load_file(path) | {
        "model.layers.4.mlp.up_proj.weight": torch.arange(77, dtype=torch.uint8),
        "model.layers.4.mlp.up_proj.weight.absmax": torch.rand(5),
    }
    save_file(state, path, metadata={"format": "pt"})
    index = json.loads((copied / shards.INDEX).read_text())
    index["weight_map"]["model.layers.4.mlp.up_proj.weight.absmax"] = path.name
    (copied / shards.INDEX).write_text(json.dumps(index))
    settings = json.loads((copied / "config.json").read_text())
    settings["quantization_config"] = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "llm_int8_skip_modules": ["lm_head", "model.layers.2.mlp", "model.layers.4.self_attn"],
    }
    (copied / "config.json").write_text(json.dumps(settings))
    on_disk.prune(copied, tmp_path / "out", CONTIGUOUS)
    out = tensors(tmp_path / "out")
    for key in ("weight", "weight.absmax"):
        name = f"mlp.up_proj.{key}"
        assert torch.equal(out[f"model.layers.1.{name}"], state[f"model.layers.4.{name}"])
    model = AutoModelForCausalLM.from_pretrained(sharded)
    model.config.quantization_config = settings["quantization_config"]
    with pytest.raises(UserError, match="on disk"):
        save_pruned(model, CONTIGUOUS, None, tmp_path / "memory")
    quantised = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert quantised["llm_int8_skip_modules"] == ["lm_head", "model.layers.1.self_attn"]


def test_names_in_settings_are_renumbered_or_refused():
    def new(value: object) -> object:
        return on_disk.renumber(value, "layers", [0, 4, 5])

    assert new({"layers.4": [1, "layers.5"], "model.layers.2.mlp": 8}) == {
        "layers.1": [1, "layers.2"]
    }
    assert new("model.vision_tower.layers.4") == "model.vision_tower.layers.4"
    assert new("model.sublayers.4.x") == "model.sublayers.4.x"
    assert new(["re:.*lm_head", None, 0.5]) == ["re:.*lm_head", 0.5]
    with pytest.raises(UserError, match="pattern"):
        new({"dynamic": {r"+:.*\.4\..*": {"bits": 8}}})


def test_copying_in_pieces_and_after_short_writes(sharded, tmp_path, monkeypatch):
    on_disk.prune(sharded, tmp_path / "whole", SCATTERED)
    monkeypatch.setattr(shards, "BUFFER", 1000)
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:700]))
    on_disk.prune(sharded, tmp_path / "pieces", SCATTERED)
    assert_same(tmp_path / "pieces", tmp_path / "whole")


def test_tensors_stay_aligned_in_whatever_order_they_were_written(tmp_path):
    """Bytes before words: once the five bytes are gone, the words would start at an odd place."""
    words = torch.arange(6, dtype=torch.float32)
    header = {
        "model.layers.0.a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "model.layers.1.a": {"dtype": "U8", "shape": [5], "data_offsets": [3, 8]},
        "model.layers.0.b": {"dtype": "F32", "shape": [2, 3], "data_offsets": [8, 32]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = bytes(range(8)) + words.numpy().tobytes()
    (tmp_path / shards.SINGLE).write_bytes(len(text).to_bytes(8, "little") + text + data)
    assert len(load_file(tmp_path / shards.SINGLE)) == 3
    found = shards.read(tmp_path)
    (tmp_path / "out").mkdir()
    shards.write(found, shards.renamed(found, "model.layers", [0]), tmp_path / "out")
    assert all(t.start % 4 == 0 for t in shards.read(tmp_path / "out")[0].tensors if t.size > 5)
    out = load_file(tmp_path / "out" / shards.SINGLE)
    assert out["model.layers.0.a"].tolist() == [0, 1, 2]
    assert torch.equal(out["model.layers.0.b"], words.reshape(2, 3))


MEMORY = """
import re, sys
from pathlib import Path
from lib.models import shards
found = shards.read(Path(sys.argv[1]))
names = shards.renamed(found, shards.layer_stack(found, 4), [0, 1, 3])
shards.write(found, names, Path(sys.argv[2]))
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_memory_stays_far_below_a_shard(tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    whole.mkdir()
    out.mkdir()
    size = 64 << 20
    entry = {"dtype": "U8", "shape": [size]}
    names = [f"model.layers.{i}.w" for i in range(4)]
    header = json.dumps(
        {n: entry | {"data_offsets": [i * size, (i + 1) * size]} for i, n in enumerate(names)}
    ).encode()
    with open(whole / shards.SINGLE, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * size)  # one shard of 256 MiB, mostly a hole
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(whole), str(out)],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (out / shards.SINGLE).stat().st_size > 3 * size
    assert int(done.stdout) < 48 * 1024
