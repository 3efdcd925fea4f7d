"""The tokenizer of Qwen version 1 against a byte-pair merge by rank, written out."""

import base64
import json
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lib.errors import UserError
from lib.models import checkpoints, qwen
from lib.models.qwen_config import QWenConfig
from lib.schema import Study

qwen.register()

PIECES = regex.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [f"<|extra_{i}|>" for i in range(205)]
LEARNT = """The harbour lay still while the old man mended the nets, and he'd told the children
that they'll never see it again. They're late; I've 12 apples for 345 people, don't you? Größe,
naïve, être Ångström. Москва слезам не верит. 今天天气很好，我们去公园。 今天我们去。
aaaa ababab   spaces

\tdef f(x):
        return x  # 今天天气 people, children, harbour
"""
TEXTS = [
    "",
    "The harbour lay still.",
    "THE harbour'S man, they'LL, I'Ve, don'T 'tis 'twas rock'n'roll",
    "12 apples, 3456789 people, 1.5e-10, ٣٤ and ½ and Ⅷ",
    "Größe naïve Ångström être",
    "Gro\u0308\u00dfe nai\u0308ve A\u030angstro\u0308m e\u0302tre",  # decomposed
    "Москва слезам не верит! Ещё бы…",
    "今天天气很好，我们去公园。明日も晴れ 한국어 ไทย हिन्दी עברית",
    "👩\u200d👩\u200d👧 🙂🙂 \U0001f1e9\U0001f1ea",
    "  two  three   \t tabs\t\tand   ",
    "line\nline\r\nline\n\n\n   indented\n\t\tmore \n ",
    "def f(x):\n        return x  # done!!!\n",
    "a aa aaa aaaa aaaaa aaaaaaaaaaaaaaaaaaaaaaa",
    "ababababa bababab aabaabaab",
    "\x00\x01\x7f \u00a0non\u2003breaking\u3000wide",
    "before<|endoftext|>after <|im_start|>user\nhi<|im_end|>\n<|extra_0|><|extra_204|>",
    "<|extra_205|> <|endoftext> <|ENDOFTEXT|> |endoftext|>",
    "<|endoftext|>\u0338 is not the special token",  # NFC joins the last bracket and the stroke
    "https://example.org/a?b=c&d=[1,2]#e_f-g",
]  # fmt: skip


def learn(merges: int) -> list[bytes]:
    """Tokens by rank: all bytes, in another order than by value, then merges of frequent pairs, and
    some tokens that no merge leads to."""
    tokens = [bytes([(byte + 33) % 256]) for byte in range(256)]
    pieces = [[bytes([b]) for b in piece.encode()] for piece in PIECES.findall(LEARNT)]
    for _ in range(merges):
        pairs = Counter(pair for piece in pieces for pair in pairwise(piece))
        (left, right), _ = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        tokens.append(left + right)
        pieces = [_joined(piece, left, right) for piece in pieces]
    whole = [b" rock", "公园".encode(), b"ing", b"aaaaa", b" people!!!"]
    return tokens + [token for token in whole if token not in tokens]


def _joined(piece: list[bytes], left: bytes, right: bytes) -> list[bytes]:
    out: list[bytes] = []
    for part in piece:
        if out and (out[-1], part) == (left, right):
            out[-1] = left + right
        else:
            out.append(part)
    return out


TOKENS = learn(180)


def encoded(text: str) -> list[int]:
    """Ids by the original's rules."""
    ranks = {token: rank for rank, token in enumerate(TOKENS)}
    special = {token: len(TOKENS) + i for i, token in enumerate(SPECIAL)}
    split = re.split("(" + "|".join(map(re.escape, SPECIAL)) + ")", _nfc(text))
    ids: list[int] = []
    for part in split:
        if part in special:
            ids.append(special[part])
            continue
        for piece in PIECES.findall(part):
            ids += _merged(piece.encode(), ranks)
    return ids


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _merged(piece: bytes, ranks: dict[bytes, int]) -> list[int]:
    if piece in ranks:
        return [ranks[piece]]
    parts = [bytes([byte]) for byte in piece]
    while True:
        unions = [parts[i] + parts[i + 1] for i in range(len(parts) - 1)]
        found = [(ranks[union], i) for i, union in enumerate(unions) if union in ranks]
        if not found:
            return [ranks[part] for part in parts]
        _, at = min(found)
        parts[at : at + 2] = [unions[at]]


def write(folder: Path) -> Path:
    folder.mkdir()
    lines = [f"{base64.b64encode(token).decode()} {i}" for i, token in enumerate(TOKENS)]
    (folder / "qwen.tiktoken").write_text("\n".join(lines) + "\n")
    remote = {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]}
    settings = {"model_max_length": 8192, "tokenizer_class": "QWenTokenizer", "auto_map": remote}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "tokenization_qwen.py").write_text("raise SystemExit('remote code was run')")
    QWenConfig(vocab_size=len(TOKENS) + 300, tokenizer_class="QWenTokenizer").save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tokenizer") / "original")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return load(folder)


def load(folder: Path) -> PreTrainedTokenizerBase:
    study = Study(name="mine", model=str(folder))
    return checkpoints.load_tokenizer(study, checkpoints.load_config(study))


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_the_rules(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert ids == encoded(text)
    assert tokenizer.decode(ids) == _nfc(text)


def test_the_texts_use_merges_and_whole_pieces() -> None:
    """Otherwise the comparison above would say little."""
    used = {i for text in TEXTS for i in encoded(text)}
    assert len([i for i in used if 256 <= i < 436]) > 40
    assert {TOKENS.index(b" rock"), TOKENS.index("公园".encode())} & used


def test_special_tokens_follow_the_others_and_are_skipped(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert tokenizer.convert_tokens_to_ids(SPECIAL) == [len(TOKENS) + i for i in range(208)]
    assert len(tokenizer) == len(TOKENS) + 208
    assert tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.bos_token is None
    ids = tokenizer("one<|im_end|> two<|endoftext|>")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "one two"


def test_a_saved_tokenizer_is_the_same(
    tokenizer: PreTrainedTokenizerBase, folder: Path, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path / "saved")
    shutil.copy(folder / "config.json", tmp_path / "saved")
    assert not (tmp_path / "saved" / "qwen.tiktoken").exists()
    again = load(tmp_path / "saved")
    assert [again(text)["input_ids"] for text in TEXTS] == [encoded(text) for text in TEXTS]
    assert (again.eos_token_id, again.pad_token_id) == (len(TOKENS), len(TOKENS))


def test_other_programs_read_what_was_saved(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Without a class of ours: as transformers takes a class that it does not know."""
    tokenizer.save_pretrained(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert "auto_map" not in settings
    settings["tokenizer_class"] = "Unheard"
    (tmp_path / "saved" / "tokenizer_config.json").write_text(json.dumps(settings))
    plain = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert type(plain) is not type(tokenizer)
    assert [plain(text)["input_ids"] for text in TEXTS] == [encoded(text) for text in TEXTS]


DAMAGE: dict[str, tuple[Callable[[list[str]], object], str]] = {
    "a cut line": (lambda lines: lines.__setitem__(300, lines[300][:3]), "line 301"),
    "no base64": (lambda lines: lines.__setitem__(300, "§§ 300"), "line 301"),
    "no number": (lambda lines: lines.__setitem__(300, lines[300] + "x"), "line 301"),
    "a rank left out": (lambda lines: lines.pop(300), "ranks are not 0 to"),
    "a rank twice": (lambda lines: lines.__setitem__(300, lines[300][:-3] + "299"), "ranks"),
    "cut off": (lambda lines: lines.__delitem__(slice(200, None)), "no token for the byte"),
    "empty": (lambda lines: lines.clear(), "no token for the byte 0"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_one_line(folder: Path, tmp_path: Path, kind: str) -> None:
    damaged = Path(shutil.copytree(folder, tmp_path / "damaged"))
    lines = (damaged / "qwen.tiktoken").read_text().splitlines()
    damage, says = DAMAGE[kind]
    damage(lines)
    (damaged / "qwen.tiktoken").write_text("\n".join(lines))
    with pytest.raises(UserError) as raised:
        load(damaged)
    message = str(raised.value)
    assert "\n" not in message and "qwen.tiktoken is damaged" in message and says in message


def test_a_missing_file_is_one_line(folder: Path, tmp_path: Path) -> None:
    empty = Path(shutil.copytree(folder, tmp_path / "empty"))
    (empty / "qwen.tiktoken").unlink()
    with pytest.raises(UserError, match=r"qwen\.tiktoken"):
        load(empty)
