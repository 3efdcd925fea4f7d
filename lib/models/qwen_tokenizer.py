"""The tokenizer of Qwen version 1, read from its `qwen.tiktoken` without remote code.

The file holds one token per line, its bytes in base64 and its rank. A text is encoded as follows:
normalise to NFC; cut out the special tokens; split the rest with `PATTERN`; a piece that is a token
is that token; any other starts as single bytes, and of all neighbours whose union is a token those
of the lowest rank are joined, the leftmost first, until none is left. A token's rank is its id, and
the special tokens follow, in the order of `SPECIAL`.

Saved, it is an ordinary `tokenizer.json`, which transformers ≥ 5 loads without this module too.
"""

import base64
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers
from transformers import TokenizersBackend
from transformers.convert_slow_tokenizer import TikTokenConverter

END_OF_TEXT = "<|endoftext|>"
SPECIAL = (END_OF_TEXT, "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"  # English contractions
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"  # letters, after a space or another single sign
    r"|\p{N}"  # one digit at a time
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"  # punctuation
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"  # white space; a last blank belongs to the word after it
)


def read_ranks(path: str | Path) -> dict[bytes, int]:
    """Tokens by their rank.

    Raises ValueError when a line cannot be read, ranks are not 0, 1, 2, … or a byte is missing."""
    ranks: dict[bytes, int] = {}
    name = Path(path).name
    for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise ValueError(
                f"{name} is damaged: line {number} is not a token and a rank"
            ) from None
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(f"{name} is damaged: its ranks are not 0 to {len(ranks) - 1}, each once")
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise ValueError(f"{name} is damaged: no token for the byte {missing[0]}")
    return ranks


class _Converter(TikTokenConverter):
    """transformers' own, whose reader of the file needs the package tiktoken."""

    load_tiktoken_bpe = staticmethod(read_ranks)


def from_tiktoken(path: str | Path) -> Tokenizer:
    """The fast tokenizer that a `qwen.tiktoken` describes. Raises ValueError if it is damaged."""
    tokenizer = _Converter(vocab_file=str(path), pattern=PATTERN).converted()
    tokenizer.normalizer = normalizers.NFC()
    # Normalised: the original looks for special tokens in the text after NFC.
    special = [AddedToken(token, special=True, normalized=True) for token in SPECIAL]
    tokenizer.add_special_tokens(special)
    return tokenizer


class QWenTokenizer(TokenizersBackend):
    """Bears the name that checkpoints of version 1 give in `tokenizer_config.json`, so that
    `AutoTokenizer` finds it. `<|endoftext|>` ends a text and pads, as in the checkpoints'
    `generation_config.json`; the original tokenizer has no such notions."""

    vocab_files_names = {  # noqa: RUF012
        "tokenizer_file": "tokenizer.json",
        "vocab_file": "qwen.tiktoken",
    }

    @classmethod
    def convert_to_native_format(cls, **kwargs: Any) -> dict[str, Any]:
        kwargs.pop("auto_map", None)  # names remote code, which no saved copy needs
        path = kwargs.pop("vocab_file", None)
        if kwargs.get("tokenizer_file") is None:
            if path is None:
                raise ValueError("neither qwen.tiktoken nor tokenizer.json is there")
            kwargs["tokenizer_object"] = from_tiktoken(path)
            kwargs |= {"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
        return super().convert_to_native_format(**kwargs)
