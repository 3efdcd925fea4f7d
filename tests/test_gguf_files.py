"""GGUF files as checkpoints: every tensor and every token is the original's."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_writer import settings, tensors, words, write
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaTokenizer,
    PreTrainedModel,
)

from lib import paths
from lib.errors import UserError
from lib.models import gguf_files

SHAPE = {"vocab_size": 1024, "num_hidden_layers": 3, "max_position_embeddings": 128}
SHAPE |= {"hidden_size": 64, "num_attention_heads": 4}
GATED = SHAPE | {"intermediate_size": 96, "num_key_value_heads": 2}
ROLES = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", GATED),
    "llama, its head tied": ("llama", GATED | {"tie_word_embeddings": True}),
    "qwen2": ("qwen2", GATED),
    "qwen3": ("qwen3", GATED | {"head_dim": 32}),
    "gemma2": ("gemma2", GATED | {"head_dim": 32, "query_pre_attn_scalar": 32}),
    # With a layer that attends to everything, which is every sixth.
    "gemma3": (
        "gemma3",
        GATED | {"head_dim": 32, "num_hidden_layers": 7, "query_pre_attn_scalar": 32},
    ),
    "gpt2": ("gpt2", {key: value for key, value in SHAPE.items() if "max" not in key}
             | {"n_positions": 128}),
}  # fmt: skip
TEXTS = (
    "It's 1984 and we'll see 12345678 birds,  two of them\tblue.\n\n  Next: \"don't\"!",
    "Ärger über den Fluß; naïve café, e\u0301 and ﬁ. 你好，世界 42",
    "A<s>B</s> x=3.14_15; THE END'S    ",
)


def model_of(architecture: str, shape: dict[str, Any]) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(gguf_files.MODELS[architecture], **ROLES | shape)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for one in model.parameters():
            one.add_(0.1 * torch.randn_like(one))
    return model


def said(
    model: PreTrainedModel, architecture: str, tokenizer: Tokenizer, **more: Any
) -> dict[str, Any]:
    """All that a file says, with the almanac's tokenizer."""
    own = {f"{architecture}.{key}": one for key, one in settings(model, architecture).items()}
    about = words(tokenizer, "smollm") | {"bos_token_id": 1, "eos_token_id": 2}
    about |= {"padding_token_id": 0, "add_bos_token": True}
    found = own | {
        f"tokenizer.ggml.{key}": value for key, value in (about | merges(tokenizer)).items()
    }
    return {key: value for key, value in (found | more).items() if value is not None}


def merges(tokenizer: Tokenizer) -> dict[str, list[str]]:
    found = json.loads(tokenizer.to_str())["model"]["merges"]
    return {"merges": [" ".join(pair) for pair in found]}


@pytest.fixture
def backend(tokenizer: Any) -> Tokenizer:
    return tokenizer.backend_tokenizer


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A sound file of a small Llama; tests that change it copy it first."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    model = model_of(*MODELS["llama"])
    write(path, "llama", said(model, "llama", tokenizer.backend_tokenizer), tensors(model, "llama"))
    return path


@pytest.mark.parametrize("kind", ["f32", "q8_0"])
@pytest.mark.parametrize("name", MODELS)
def test_every_tensor(
    name: str, kind: str, tmp_path: Path, build_dir: Path, backend: Tokenizer
) -> None:
    architecture, shape = MODELS[name]
    model, path = model_of(architecture, shape), tmp_path / "model.gguf"
    arrays = tensors(model, architecture)
    dequantised = write(path, architecture, said(model, architecture, backend), arrays, kind)
    folder = gguf_files.made(path)
    found = AutoModelForCausalLM.from_pretrained(folder).eval()
    read = tensors(found, architecture)
    assert read.keys() == arrays.keys() == dequantised.keys()
    for one, values in dequantised.items():
        # Norms of Gemma are stored with one added, which costs their last digits.
        shifted = architecture.startswith("gemma") and "norm" in one
        assert np.allclose(read[one], values, rtol=0, atol=2e-7 if shifted else 0), one
    assert found.config.tie_word_embeddings == model.config.tie_word_embeddings
    if kind == "f32":
        ids = torch.arange(40).reshape(2, 20)
        with torch.no_grad():
            assert torch.allclose(found(ids).logits, model(ids).logits, atol=2e-5)


def test_read_once_wherever_it_lies(small: Path, tmp_path: Path, build_dir: Path) -> None:
    folder = gguf_files.made(small)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    moved = shutil.copy(small, tmp_path / "other.gguf")
    assert gguf_files.made(Path(moved)) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    (folder / "config.json").unlink()  # a folder that is not whole is made anew
    assert gguf_files.made(small) == folder
    assert AutoConfig.from_pretrained(folder).num_hidden_layers == 3


RULES: dict[str, tuple[Any, ...]] = {
    "gpt-2": (pre_tokenizers.ByteLevel(add_prefix_space=False),),
    "smollm": (pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "qwen2": (
        pre_tokenizers.Split(
            Regex(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
                r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
            "isolated",
        ),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ),
    "llama-bpe": (
        pre_tokenizers.Split(
            Regex(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
                r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
            "isolated",
        ),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ),
}


def trained(rule: str) -> Tokenizer:
    """A tokenizer of some family's kind, trained on a little text."""
    one = Tokenizer(models.BPE(ignore_merges=rule == "llama-bpe"))
    one.pre_tokenizer = pre_tokenizers.Sequence(list(RULES[rule]))
    one.normalizer = normalizers.NFC() if rule == "qwen2" else None
    one.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<s>", "</s>"],  # which Qwen2's class needs
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    one.train_from_iterator(
        [*TEXTS, *TEXTS, "the birds and the birds, it's the river's end"], trainer
    )
    return one


@pytest.mark.parametrize("rule", RULES)
def test_the_original_tokenizer(rule: str, tmp_path: Path, build_dir: Path) -> None:
    original, architecture = trained(rule), "qwen2" if rule == "qwen2" else "llama"
    size = original.get_vocab_size()
    model = model_of(architecture, GATED | {"vocab_size": size})
    about = words(original, rule) | merges(original) | {"bos_token_id": 1, "eos_token_id": 2}
    says = {f"{architecture}.{key}": one for key, one in settings(model, architecture).items()}
    says |= {f"tokenizer.ggml.{key}": value for key, value in about.items()}
    path = tmp_path / "model.gguf"
    write(path, architecture, says, tensors(model, architecture))
    found = AutoTokenizer.from_pretrained(gguf_files.made(path))
    begin = [1] if rule == "llama-bpe" else []  # where the file is silent
    for text in TEXTS:
        expected = original.encode(text, add_special_tokens=False).ids
        assert found(text)["input_ids"] == begin + expected
        assert found.decode(expected) == original.decode(expected, skip_special_tokens=False)
    assert (found.bos_token_id, found.eos_token_id) == (1, 2)
    assert len(found) == size


def test_a_sentencepiece_tokenizer(tmp_path: Path, build_dir: Path) -> None:
    pieces = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    pieces.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))],
        show_progress=False,
    )
    pieces.train_from_iterator([*TEXTS, "the birds and the birds, it's the river's end"], trainer)
    pairs = [tuple(pair) for pair in json.loads(pieces.to_str())["model"]["merges"]]
    original = LlamaTokenizer(vocab=pieces.get_vocab(), merges=pairs)
    size = pieces.get_vocab_size()
    model = model_of("llama", GATED | {"vocab_size": size})
    ranks = {"".join(pair): -float(i) for i, pair in enumerate(pairs)}
    about = words(pieces, None, "llama") | {"bos_token_id": 1, "eos_token_id": 2}
    about["scores"] = [ranks.get(token, -1e9) for token in about["tokens"]]
    about |= {"unknown_token_id": 0}
    says = {f"llama.{key}": value for key, value in settings(model, "llama").items()}
    says |= {f"tokenizer.ggml.{key}": value for key, value in about.items()}
    path = tmp_path / "model.gguf"
    write(path, "llama", says, tensors(model, "llama"))
    found = AutoTokenizer.from_pretrained(gguf_files.made(path))
    for text in TEXTS:
        assert found(text)["input_ids"] == [1, *original.encode(text, add_special_tokens=False)]


@pytest.mark.parametrize(
    ("flags", "before", "after"),
    [
        ({"add_bos_token": True, "add_eos_token": True}, [1], [2]),
        ({"add_bos_token": False, "add_eos_token": True}, [], [2]),
        ({"add_bos_token": None}, [], []),
    ],
)
def test_texts_begin_and_end_as_the_file_says(
    flags: dict[str, Any], before: list[int], after: list[int],
    tmp_path: Path, build_dir: Path, backend: Tokenizer,
) -> None:  # fmt: skip
    model, path = model_of(*MODELS["llama"]), tmp_path / "model.gguf"
    more = {f"tokenizer.ggml.{key}": value for key, value in flags.items()}
    more["tokenizer.chat_template"] = "{% for m in messages %}{{ m['content'] }}!{% endfor %}"
    write(path, "llama", said(model, "llama", backend, **more), tensors(model, "llama"))
    found = AutoTokenizer.from_pretrained(gguf_files.made(path))
    plain = backend.encode("two birds", add_special_tokens=False).ids
    assert found("two birds")["input_ids"] == before + plain + after
    turn = [{"role": "user", "content": "hello"}]
    assert found.apply_chat_template(turn, tokenize=False) == "hello!"


def test_a_file_that_is_cut_off(small: Path, tmp_path: Path, build_dir: Path) -> None:
    whole, path = small.read_bytes(), tmp_path / "cut.gguf"
    ends = [5, 20, 24, 60, 400, 5_000, 30_000, len(whole) // 2, len(whole) - 100]
    for end in ends:
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"model .*cut\.gguf: is (damaged or )?cut off") as one:
            gguf_files.look(path)
        assert len(one.value.lines) == 1


def test_any_byte_of_what_it_says(small: Path, tmp_path: Path, build_dir: Path) -> None:
    """Whatever is changed, it is read, or there is one line."""
    whole, path = small.read_bytes(), tmp_path / "odd.gguf"
    numbers = np.random.default_rng(0)
    refused = 0
    for place in [*range(24), *numbers.integers(24, 6_000, 150)]:
        odd = bytearray(whole)
        odd[place] = (odd[place] + int(numbers.integers(1, 256))) % 256
        path.write_bytes(odd)
        try:
            gguf_files.look(path)
        except UserError as error:
            refused += 1
            assert len(error.lines) == 1
            assert "\n" not in error.lines[0]
    assert refused > 20


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "of another architecture": (
        {}, {"architecture": "falcon"}, "files of architecture 'falcon' are not read here"),
    "a part": (
        {"split.count": 3, "split.no": 1}, {}, "part 2 of 3: join them with `llama-gguf-split"),
    "no tokens": ({"tokenizer.ggml.tokens": None}, {}, "has no tokenizer"),
    "no kind of tokenizer": ({"tokenizer.ggml.model": None}, {}, "has no tokenizer"),
    "an unknown kind of tokenizer": (
        {"tokenizer.ggml.model": "rwkv"}, {}, "tokenizer is of kind 'rwkv'"),
    "an unknown rule": (
        {"tokenizer.ggml.pre": "poro-chat"}, {}, "cuts text by rule 'poro-chat'"),
    "no rule": ({"tokenizer.ggml.pre": None}, {}, "cuts text by rule None"),
    "scaled positions": (
        {"llama.rope.scaling.type": "yarn"}, {}, "says llama.rope.scaling.type = 'yarn'; here"),
    "what is not read": (
        {"llama.attention.clamp_kqv": 8.0}, {}, "says llama.attention.clamp_kqv = 8.0, which is"),
    "what is of others": (
        {"llama.attn_logit_softcapping": 8.0}, {}, "which is not read here"),
    "experts": ({"llama.expert_count": 8}, {}, "says llama.expert_count = 8; here it is 0"),
    "layers that it lacks": (
        {"llama.block_count": 4}, {}, "lacks 9 of the model's tensors, e.g. model.layers.3."),
    "too many layers": (
        {"llama.block_count": 10**9}, {}, "1,000,000,000 layers; it has 30 tensors"),
    "no number of heads": (
        {"llama.attention.head_count": None}, {}, "says llama.attention.head_count = None"),
    "another width": (
        {"llama.embedding_length": 128}, {}, "has the shape"),
    "a tensor more": (
        {}, {"more": "rope_freqs.weight"}, "has a tensor rope_freqs.weight, which is not read"),
    "a tensor less": (
        {}, {"less": "blk.1.attn_v.weight"}, "lacks 1 of the model's tensors, e.g. model.layers.1"),
    "another shape": (
        {}, {"narrow": "blk.1.ffn_up.weight"}, "up_proj.weight has the shape [95, 64]"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_wrong(
    name: str, tmp_path: Path, build_dir: Path, backend: Tokenizer
) -> None:
    says, how, line = WRONG[name]
    model = model_of(*MODELS["llama"])
    arrays = tensors(model, "llama")
    if "more" in how:
        arrays[how["more"]] = np.ones(8, dtype=np.float32)
    if "less" in how:
        del arrays[how["less"]]
    if "narrow" in how:
        arrays[how["narrow"]] = arrays[how["narrow"]][:-1]
    path = tmp_path / "wrong.gguf"
    write(path, how.get("architecture", "llama"), said(model, "llama", backend, **says), arrays)
    with pytest.raises(UserError) as one:
        gguf_files.made(path)
    assert len(one.value.lines) == 1
    assert line in one.value.lines[0]
    assert one.value.lines[0].startswith(f"model {path}: ")
    assert not list((paths.BUILD / "gguf").glob("[!.]*"))  # nothing is left
