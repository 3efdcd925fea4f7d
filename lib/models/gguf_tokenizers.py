"""The tokenizer that a GGUF file describes: its tokens, its merges, and by a name the rule by which
text is cut before they are looked for.

transformers builds it. It takes a rule that it does not know for GPT-2's, and passes over what the
file says about the beginning and the end of texts; here both are as the file says.
"""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from lib.errors import UserError

KINDS = ("gpt2", "llama")  # byte-level BPE; SentencePiece
AS_GPT2 = ("gpt-2", "gpt2")
DIGITS_APART = ("smollm",)  # as GPT-2, and each digit by itself
COMPOSED = ("qwen2",)  # the original composes characters first (NFC), and no file says so
# Take a whole word before its merges, and begin a text where a file does not say whether.
LLAMA_3 = ("llama3", "llama-v3", "llama-bpe", "tekken")
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
RULES = sorted({*AS_GPT2, *DIGITS_APART, *GGUF_PRE_TOKENIZER_SPLITS})


def check(what: str, said: dict[str, Any]) -> None:
    """Raises UserError where a file has no tokenizer, or one of a kind that is not known."""
    kind, rule = said.get("tokenizer.ggml.model"), said.get("tokenizer.ggml.pre")
    if not kind or not said.get("tokenizer.ggml.tokens"):
        raise UserError(f"{what}: has no tokenizer; give the original checkpoint")
    if kind not in KINDS:
        raise UserError(
            f"{what}: its tokenizer is of kind {kind!r:.40}; {' and '.join(KINDS)} are read here"
        )
    if kind == "gpt2" and rule not in RULES:
        raise UserError(
            f"{what}: its tokenizer cuts text by rule {rule!r:.40} (tokenizer.ggml.pre), which is "
            f"not known here; {', '.join(RULES)} are"
        )


def write(path: Path, folder: Path) -> None:
    """Write the tokenizer's files, as transformers reads them."""
    architecture, said, settings = get_gguf_tokenizer(str(path))
    backend, _ = convert_gguf_tokenizer(architecture, said)
    rule = said.get("pre_tokenizer_type")
    if said["tokenizer_type"] == "gpt2":
        _cut(backend, rule)
    roles = {key: token for key in ROLES if (token := settings.get(key)) is not None}
    begins = settings.get("add_bos_token", rule in LLAMA_3)
    _frame(
        backend,
        roles.get("bos_token") if begins else None,
        roles.get("eos_token") if settings.get("add_eos_token") else None,
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
    tokenizer.chat_template = settings.get("chat_template")
    tokenizer.save_pretrained(folder)


def _cut(backend: Tokenizer, rule: str) -> None:
    """What transformers does not know of how text is cut."""
    if rule in DIGITS_APART:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    if rule in COMPOSED:
        backend.normalizer = normalizers.NFC()
    if rule in LLAMA_3:
        backend.model.ignore_merges = True


def _frame(backend: Tokenizer, begin: str | None, end: str | None) -> None:
    """Have every text begin and end with these tokens, or with none."""
    one = [*([begin] if begin else []), "$A", *([end] if end else [])]
    two = [*one, *(part.replace("$A", "$B") for part in one)]
    special = [(token, backend.token_to_id(token)) for token in {begin, end} - {None}]
    backend.post_processor = processors.TemplateProcessing(
        single=one, pair=two, special_tokens=special
    )
