"""Texts that a model goes on from: prompts, as tokens.

Some tokenizers end every text in a special token. That is right behind a document and wrong in a
prompt: the model would be asked what follows an end of text.
"""

from transformers import PreTrainedTokenizerBase

from lib.errors import UserError
from lib.schema import Study


def endings(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many special tokens a tokenizer puts behind every text; mostly none."""
    for letter in "a1的":
        if text := tokenizer.encode(letter, add_special_tokens=False):  # it knows that one
            whole = tokenizer.encode(letter)
            more = len(whole) - len(text)
            before = next((i for i in range(more + 1) if whole[i : i + len(text)] == text), more)
            return more - before
    return 0


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """A prompt's token ids, with what the tokenizer puts before a text, and nothing behind it."""
    found = tokenizer.encode(prompt)
    return found[: len(found) - endings(tokenizer)]


def check_chat_template(study: Study, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises UserError where the study wants a chat template and the tokenizer has none that
    works."""
    if not study.chat_template:
        return
    if not tokenizer.chat_template:
        raise UserError(
            f"study {study.name}: chat_template: the tokenizer of {study.model} has none; leave "
            "the key out, and prompts are plain text"
        )
    turn = [{"role": "user", "content": "a"}]
    try:
        tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"study {study.name}: chat_template: that of {study.model} fails: {reason}"
        ) from None
