"""Pruning on disk against the model pruned in memory and saved; whole or nothing when killed."""

import copy
import csv
import fcntl
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import FAMILIES, random_model, random_tokens, save
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from lib import paths, pruning, qwen, shards
from lib.blocks import Block
from lib.errors import UserError
from lib.surgery import pruned, save_pruned

CONTIGUOUS, SCATTERED = Block(1, 4), (0, 2, 5)
N_LAYERS = 6


class NoTokenizer:
    def save_pretrained(self, folder: object) -> None:
        pass


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, read by the safetensors library."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                assert name not in found
                found[name] = file.get_tensor(name)
    return found


def assert_same(one: Path, other: Path) -> None:
    """Equal tensors under equal names, bit for bit, and equal configs."""
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name], b[name]), name
    assert (one / "config.json").read_text() == (other / "config.json").read_text()


def load(folder: Path) -> AutoModelForCausalLM:
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype="auto", output_loading_info=True
    )
    assert not any(info.values()), info
    return model.eval()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama in several shards; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("llama") / "whole"
    random_model("llama").save_pretrained(folder, max_shard_size="400KB")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "LICENSE").write_text("free")
    (folder / "README.md").write_text("---\nlicense: mit\nmetrics: [x]\n---\nold card")
    return folder


@pytest.fixture
def copied(llama: Path, tmp_path: Path) -> Path:
    return shutil.copytree(llama, tmp_path / "copied")


@pytest.mark.parametrize("dropped", [CONTIGUOUS, SCATTERED], ids=["contiguous", "scattered"])
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_model_pruned_in_memory(family, dropped, tmp_path):
    model, tokens = random_model(family), random_tokens(2, 12)
    model.save_pretrained(tmp_path / "whole", max_shard_size="100KB")
    save_pruned(model, dropped, NoTokenizer(), tmp_path / "memory")
    pruning.prune(tmp_path / "whole", tmp_path / "disk", dropped)
    assert_same(tmp_path / "disk", tmp_path / "memory")
    with torch.inference_mode(), pruned(model, dropped):
        expected = model(tokens, use_cache=False).logits
        assert torch.equal(load(tmp_path / "disk")(tokens, use_cache=False).logits, expected)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_untied_embeddings_in_half_precision(tied, tmp_path):
    model = random_model("llama", tie_word_embeddings=tied).to(torch.bfloat16)
    save(model, tmp_path / "whole")
    save_pruned(model, SCATTERED, NoTokenizer(), tmp_path / "memory")
    pruning.prune(tmp_path / "whole", tmp_path / "disk", SCATTERED)
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
    pruning.prune(tmp_path / "whole", tmp_path / "disk", CONTIGUOUS)
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
    pruning.prune(tmp_path / "whole", tmp_path / "out", SCATTERED)
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
    save_pruned(model, SCATTERED, NoTokenizer(), tmp_path / "memory")
    pruning.prune(tmp_path / "whole", tmp_path / "disk", SCATTERED)
    assert_same(tmp_path / "disk", tmp_path / "memory")
    assert "qwen.register()" in (tmp_path / "disk" / "README.md").read_text()


def test_index_and_shards(llama, tmp_path):
    before = json.loads((llama / shards.INDEX).read_text())
    pruning.prune(llama, tmp_path / "out", CONTIGUOUS)
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
    save_pruned(model, Block(0, 3), NoTokenizer(), tmp_path / "memory")
    pruning.prune(tmp_path / "whole", tmp_path / "out", Block(0, 3))
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
    pruning.prune(tmp_path / "whole", tmp_path / "single", Block(3, 6))
    assert sorted(p.name for p in (tmp_path / "single").iterdir() if "model" in p.name) == [
        shards.SINGLE
    ]
    assert load(tmp_path / "single").config.num_hidden_layers == 3


def _nbytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def test_small_files_come_along_and_weights_of_other_formats_do_not(llama, copied, tmp_path):
    (copied / "pytorch_model.bin").write_bytes(b"pickle")
    (copied / "additional_chat_templates").mkdir()
    (copied / "additional_chat_templates" / "tools.jinja").write_text("{{ x }}")
    (copied / ".cache").write_text("")
    pruning.prune(copied, tmp_path / "out", CONTIGUOUS)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tokenizer.json", "generation_config.json", "LICENSE", "README.md"} <= names
    assert not {"pytorch_model.bin", ".cache"} & names
    assert (tmp_path / "out/additional_chat_templates/tools.jinja").read_text() == "{{ x }}"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("dropped", [CONTIGUOUS, SCATTERED, (4,), (0, 1), (5,)])
def test_the_card_says_the_same_in_every_notation(dropped, llama, tmp_path):
    pruning.prune(llama, tmp_path / "out", dropped)
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


def test_the_card_in_words(llama, tmp_path):
    pruning.prune(llama, tmp_path / "out", SCATTERED)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "drop layers 0, 2 and 5, keep 1 and 3–4" in text
    assert "3 of its 6 decoder layers dropped" in text
    assert 'from_pretrained("out"' in text


def test_quantised_checkpoints(llama, copied, tmp_path):
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
    pruning.prune(copied, tmp_path / "out", CONTIGUOUS)
    out = tensors(tmp_path / "out")
    for key in ("weight", "weight.absmax"):
        name = f"mlp.up_proj.{key}"
        assert torch.equal(out[f"model.layers.1.{name}"], state[f"model.layers.4.{name}"])
    quantised = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert quantised["llm_int8_skip_modules"] == ["lm_head", "model.layers.1.self_attn"]


def test_names_in_settings_are_renumbered_or_refused():
    def new(value: object) -> object:
        return pruning.renumber(value, "layers", [0, 4, 5])

    assert new({"layers.4": [1, "layers.5"], "model.layers.2.mlp": 8}) == {
        "layers.1": [1, "layers.2"]
    }
    assert new("model.vision_tower.layers.4") == "model.vision_tower.layers.4"
    assert new("model.sublayers.4.x") == "model.sublayers.4.x"
    assert new(["re:.*lm_head", None, 0.5]) == ["re:.*lm_head", 0.5]
    with pytest.raises(UserError, match="pattern"):
        new({"dynamic": {r"+:.*\.4\..*": {"bits": 8}}})


def test_copying_in_pieces_and_after_short_writes(llama, tmp_path, monkeypatch):
    pruning.prune(llama, tmp_path / "whole", SCATTERED)
    monkeypatch.setattr(shards, "BUFFER", 1000)
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:700]))
    pruning.prune(llama, tmp_path / "pieces", SCATTERED)
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
from lib import shards
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


# Whole or not at all


def in_child(work: Callable[[], object]) -> int:
    """Fork, do the work there, and return the child's process number."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def finished(child: int) -> bool:
    return not os.WIFSIGNALED(os.waitpid(child, 0)[1])


def assert_nothing_half(out: Path, reference: Path) -> bool:
    """The folder is absent or complete; the hidden one beside it, too, or it has no config, without
    which transformers loads nothing. True if the folder is there."""
    hidden = out.parent / f".{out.name}.unfinished"
    for folder in (out, hidden):
        config = folder / "config.json"
        whole = folder.exists() if folder == out else config.exists() and config.stat().st_size
        if whole:
            assert_same(folder, reference)
            names = {path.name for path in reference.iterdir()}
            assert {path.name for path in folder.iterdir()} == names
    return out.exists()


@pytest.fixture
def hasty(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the checkpoint once only: what comes before writing is not what is killed here."""
    config = pruning.load_config(llama)
    monkeypatch.setattr(pruning, "load_config", lambda _: copy.deepcopy(config))
    monkeypatch.setattr(pruning, "check_tensors", lambda *_: None)


STEPS = ("mkdir", "open", "write", "fsync", "rename", "unlink")


def test_killed_at_every_step_nothing_half_is_left(llama, hasty, tmp_path):
    """A child kills itself before or after the k-th step that changes something, for every k."""
    reference, out = tmp_path / "reference", tmp_path / "out"
    pruning.prune(llama, reference, CONTIGUOUS)
    killed = 0
    while True:
        # Each finds what one that was killed just before its end has left.
        shutil.copytree(reference, tmp_path / ".out.unfinished", dirs_exist_ok=True)

        def work(left: list[int] = [killed]) -> None:  # noqa: B006
            def tick() -> None:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            def counted(call: Callable) -> Callable:
                def step(*arguments: object, **options: object) -> object:
                    tick()
                    answer = call(*arguments, **options)
                    tick()
                    return answer

                return step

            for name in STEPS:
                setattr(os, name, counted(getattr(os, name)))
            pruning.prune(llama, out, CONTIGUOUS)

        if finished(in_child(work)):
            break
        killed += 1
        if assert_nothing_half(out, reference):
            shutil.rmtree(out)
    assert killed > 30
    assert assert_nothing_half(out, reference)
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_killed_at_random_moments_nothing_half_is_left(llama, hasty, tmp_path):
    reference, out = tmp_path / "reference", tmp_path / "out"
    pruning.prune(llama, reference, SCATTERED)
    killed, longest, generator = 0, 0.1, random.Random(0)  # seconds
    while killed < 20:
        child = in_child(lambda: pruning.prune(llama, out, SCATTERED))
        time.sleep(generator.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        came_through = finished(child)
        killed += not came_through
        longest *= 0.7 if came_through else 1.3  # about as long as a run takes here and now
        if assert_nothing_half(out, reference):
            shutil.rmtree(out)
    pruning.prune(llama, out, SCATTERED)  # over whatever the last one left
    assert_same(out, reference)


def test_two_runs_do_not_write_one_folder(llama, tmp_path, capsys):
    hidden = tmp_path / ".out.unfinished"
    hidden.mkdir()
    lock = os.open(hidden, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert "another run" in fails(capsys, llama, tmp_path / "out", "--drop", "1:4")
    assert hidden.exists()
    os.close(lock)
    assert pruning.main([str(llama), str(tmp_path / "out"), "--drop", "1:4"]) == 0
    assert not hidden.exists()


def test_a_full_disk_leaves_nothing(llama, tmp_path, capsys, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    line = fails(capsys, llama, tmp_path / "out", "--drop", "1:4")
    assert "No space left" in line and str(tmp_path / "out") in line
    assert list(tmp_path.iterdir()) == []


def test_stopped_by_hand_it_leaves_nothing(llama, tmp_path, capsys, monkeypatch):
    def stop(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "copy_file", stop)  # the weights have been written
    assert pruning.main([str(llama), str(tmp_path / "out"), "--drop", "1:4"]) == 130
    assert "stopped" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_seen_before_anything_is_written(llama, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "GB are free" in fails(capsys, llama, tmp_path / "deep" / "out", "--drop", "1:4")
    assert list(tmp_path.iterdir()) == []


# The command


def fails(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line of a command that is refused."""
    assert pruning.main([str(argument) for argument in arguments]) == 1
    out, line = capsys.readouterr()
    assert out == ""
    assert line.startswith("error: ") and line.endswith("\n") and line.count("\n") == 1, line
    return line


@pytest.mark.parametrize(
    ("choice", "kept"),
    [(["--drop", "3,0:2"], [2, 4, 5]), (["--simple", "2"], [0, 1, 2, 5])],
)
def test_the_command_chooses_layers(choice, kept, llama, tmp_path, capsys):
    (tmp_path / "out").mkdir()  # an empty folder is fine
    assert pruning.main([str(llama), str(tmp_path / "out"), *choice]) == 0
    assert "keep" in capsys.readouterr().out
    dropped = [i for i in range(N_LAYERS) if i not in kept]
    save_pruned(random_model("llama"), dropped, NoTokenizer(), tmp_path / "memory")
    assert_same(tmp_path / "out", tmp_path / "memory")


def test_the_command_in_a_process_of_its_own(llama, tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "lib.pruning", str(llama), *arguments],
            cwd=paths.ROOT,
            capture_output=True,
            text=True,
        )

    done = run(str(tmp_path / "out"), "--drop", "1:4")
    assert (done.returncode, done.stderr) == (0, "")
    assert "drop layers 1–3, keep 0 and 4–5" in done.stdout
    assert load(tmp_path / "out").config.num_hidden_layers == 3
    refused = run(str(llama / "inside"), "--drop", "1:4")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1


def write_optimal(folder: Path, rows: Collection[tuple[int, int, int]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "optimal_blocks.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["n", "start", "stop", "distance", "support"])
        writer.writerows([*row, 0.1, 1.0] for row in rows)


def test_the_block_that_a_study_found(llama, tmp_path, results_dir, capsys):
    choice = ["--study", "almanac", "--similarity"]
    line = fails(capsys, llama, tmp_path / "out", *choice, 2)
    assert "lib.run 01 --study almanac" in line
    tables = paths.tables("almanac")
    write_optimal(tables, [(n, 1, 1 + n) for n in range(1, 6)])
    assert pruning.main([str(llama), str(tmp_path / "out"), *choice, "2"]) == 0
    assert "drop layers 1–2" in capsys.readouterr().out
    assert "allowed are 1 to 5" in fails(capsys, llama, tmp_path / "new", *choice, 6)
    write_optimal(tables, [(n, 0, n) for n in range(1, 8)])
    assert "8 layers" in fails(capsys, llama, tmp_path / "new", *choice, 2)
    (tables / "optimal_blocks.csv").write_text("n,start\n1,x\n")
    assert "damaged" in fails(capsys, llama, tmp_path / "new", *choice, 2)


def test_a_hub_name_means_the_cached_copy(llama, tmp_path, capsys, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert "hf download" in fails(capsys, "org/model", tmp_path / "out", "--drop", "1")
    repository = tmp_path / "hub" / "models--org--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    (repository / "blobs").mkdir()
    (repository / "snapshots" / ("a" * 40)).mkdir(parents=True)
    for path in llama.iterdir():  # as the hub's client keeps them: links to blobs
        shutil.copy(path, repository / "blobs" / path.name)
        (repository / "snapshots" / ("a" * 40) / path.name).symlink_to(
            repository / "blobs" / path.name
        )
    assert pruning.main(["org/model", str(tmp_path / "out"), "--drop", "1:4"]) == 0
    save_pruned(random_model("llama"), CONTIGUOUS, NoTokenizer(), tmp_path / "memory")
    assert_same(tmp_path / "out", tmp_path / "memory")
    text = (tmp_path / "out" / "README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["base_model"] == "org/model"
    assert "model: org/model" in text
    capsys.readouterr()
    next((repository / "blobs").glob("model-*")).unlink()
    assert "missing" in fails(capsys, "org/model", tmp_path / "new", "--drop", "1:4")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (["--drop", "4:7"], "0 to 5"),
        (["--drop", "0:6"], "all 6 layers"),
        (["--drop", "2:2"], "no layer"),
        (["--drop", "1:3,2"], "overlap"),
        (["--drop", "deep"], "neither a layer nor a range"),
        (["--simple", "0"], "allowed are 1 to 5"),
        (["--simple", "6"], "allowed are 1 to 5"),
        (["--simple", "1", "--study", "almanac"], "go together"),
        (["--similarity", "1"], "go together"),
        (["--similarity", "1", "--study", "nowhere"], "unknown study"),
    ],
)
def test_impossible_choices_are_refused(choice, message, llama, tmp_path, capsys):
    assert message in fails(capsys, llama, tmp_path / "out", *choice)
    assert list(tmp_path.iterdir()) == []


def test_impossible_places_are_refused(llama, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    drop = ["--drop", "1:4"]
    assert "not empty" in fails(capsys, llama, tmp_path / "full", *drop)
    assert "is a file" in fails(capsys, llama, tmp_path / "full" / "notes.txt", *drop)
    assert "in the checkpoint" in fails(capsys, llama, llama / "pruned", *drop)
    assert "in the checkpoint" in fails(capsys, llama, llama, *drop)
    assert "no such folder" in fails(capsys, tmp_path / "none", tmp_path / "out", *drop)
    assert "a file" in fails(capsys, tmp_path / "full" / "notes.txt", tmp_path / "out", *drop)
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"


def a_shard(folder: Path, tensor: str = "model.layers.3.mlp.up_proj.weight") -> Path:
    return folder / json.loads((folder / shards.INDEX).read_text())["weight_map"][tensor]


def cut(folder: Path) -> None:
    os.truncate(a_shard(folder), a_shard(folder).stat().st_size - 1)


def cut_header(folder: Path) -> None:
    os.truncate(a_shard(folder), 20)


def grow(folder: Path) -> None:
    with open(a_shard(folder), "ab") as file:
        file.write(b"\0")


def scribble(folder: Path) -> None:
    with open(a_shard(folder), "r+b") as file:
        file.seek(8)
        file.write(b"\xff\xfe{")


def huge_header(folder: Path) -> None:
    with open(a_shard(folder), "r+b") as file:
        file.write((1 << 60).to_bytes(8, "little"))


def wrong_shape(folder: Path) -> None:
    rewrite(folder, lambda state: state, "[128,64]", "[128,63]")


def lose_shard(folder: Path) -> None:
    a_shard(folder).unlink()


def lose_index(folder: Path) -> None:
    (folder / shards.INDEX).unlink()


def break_index(folder: Path) -> None:
    (folder / shards.INDEX).write_text('{"weight_map": {')


def leave_folder(folder: Path) -> None:
    (folder / shards.INDEX).write_text('{"weight_map": {"x": "../model.safetensors"}}')


def lose_listed(folder: Path) -> None:
    rewrite(folder, lambda state: without(state, "model.layers.3.mlp.up_proj.weight"))


def lose_tensor(folder: Path) -> None:
    rewrite(folder, lambda state: without(state, "model.layers.3.mlp.up_proj.weight"))
    relist(folder)


def lose_layer(folder: Path) -> None:
    for name in [name for name in tensors(folder) if "layers.5." in name]:
        path = a_shard(folder, name)
        state = without(load_file(path), name)
        save_file(state, path, metadata={"format": "pt"})
    relist(folder)


def lose_norm(folder: Path) -> None:
    path = a_shard(folder, "model.norm.weight")
    save_file(without(load_file(path), "model.norm.weight"), path, metadata={"format": "pt"})
    relist(folder)


def add_tensor(folder: Path) -> None:
    rewrite(folder, lambda state: state | {"model.layers.3.mlp.more.weight": torch.ones(2)})
    relist(folder)


def add_layer(folder: Path) -> None:
    rewrite(folder, lambda state: state | {"model.layers.6.mlp.up_proj.weight": torch.ones(2)})
    relist(folder)


def add_stack(folder: Path) -> None:
    more = {f"draft.layers.{i}.weight": torch.ones(2) for i in range(N_LAYERS)}
    rewrite(folder, lambda state: state | more)
    relist(folder)


def repeat_tensor(folder: Path) -> None:
    other = a_shard(folder, "model.norm.weight")
    save_file(load_file(a_shard(folder)) | load_file(other), other, metadata={"format": "pt"})


def mismatched(folder: Path) -> None:
    name = "model.layers.3.mlp.up_proj.weight"
    rewrite(folder, lambda state: state | {name: torch.ones(3, 3)})


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def pickled(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def lose_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "lla')


def unknown_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "nobody-knows"}')


def without(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if key != name}


def rewrite(folder: Path, change: Callable, old: str = "", new: str = "") -> None:
    path = a_shard(folder)
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    if old:
        assert old.encode() in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old.encode(), new.encode(), 1))


def relist(folder: Path) -> None:
    """Write the index anew, so that it agrees with the shards."""
    files = sorted(folder.glob("*.safetensors"))
    weight_map = {name: path.name for path in files for name in load_file(path)}
    (folder / shards.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "cut off"),
        (cut_header, "header"),
        (grow, "instead of"),
        (scribble, "header"),
        (huge_header, "header"),
        (wrong_shape, "size of its shape"),
        (lose_shard, "missing"),
        (lose_index, "holds neither"),
        (break_index, "is damaged"),
        (leave_folder, "is damaged"),
        (lose_listed, "model.layers.3.mlp.up_proj.weight"),
        (lose_tensor, "missing keys (1), e.g. model.layers.3.mlp.up_proj.weight"),
        (lose_layer, "5 is missing"),
        (lose_norm, "missing keys (1), e.g. model.norm.weight"),
        (add_tensor, "unexpected keys (1), e.g. model.layers.3.mlp.more.weight"),
        (add_layer, "6 is extra"),
        (add_stack, "more than one list of 6 layers"),
        (repeat_tensor, "is in both"),
        (mismatched, "mismatched keys (1), e.g. model.layers.3.mlp.up_proj.weight"),
        (adapter, "adapter"),
        (pickled, "pickled"),
        (lose_config, "no config.json"),
        (break_config, "config.json"),
        (unknown_model, "config.json"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_damaged_checkpoints_are_refused(damage, message, copied, tmp_path, capsys):
    damage(copied)
    assert message in fails(capsys, copied, tmp_path / "out", "--drop", "1:4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copied"]
