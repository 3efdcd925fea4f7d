"""Tokens beyond a model's embeddings: a tokenizer may have some, as long as no text makes them."""

from collections.abc import Iterable, Sequence

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from lib.errors import UserError

SHOWN = 3  # tokens that a note names


def check_ids(rows: Iterable[Sequence[int]], config: PretrainedConfig, what: str) -> None:
    """Raises UserError where a row of token ids, of `what`, holds one without an embedding."""
    count = config.get_text_config().vocab_size
    highest = max((max(row, default=0) for row in rows), default=0)
    if highest >= count:
        raise UserError(
            f"{what}: its text makes the token id {highest}; the model has {count} embeddings "
            f"(ids 0 to {count - 1})"
        )


def beyond(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> str | None:
    """Which tokens have no embedding, in words; None: all have one."""
    count = config.get_text_config().vocab_size
    found = sorted((i, token) for token, i in tokenizer.get_vocab().items() if i >= count)
    if not found:
        return None
    named = ", ".join(f"{token} = {i}" for i, token in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (
        f"the tokenizer has {len(found)} token{'s' if len(found) > 1 else ''} beyond the model's "
        f"{count} embeddings ({named}{more}); a text that makes one is refused"
    )
