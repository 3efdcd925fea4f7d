"""What pruned models write: greedy continuations of the same prompts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from lib.models.prompts import prompt_ids
from lib.models.untouched import untouched
from lib.models.vocabulary import check_ids
from lib.pruning.dropped import Dropped
from lib.pruning.surgery import pruned

METHOD = 1  # raise when the code that decides the text changes it


def continuations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    blocks: Sequence[Dropped],
    prompts: Sequence[str],
    tokens: int,
) -> Iterator[dict[str, Any]]:
    """For each dropped block, in order: `prompts`, and the `texts` that the model puts after them,
    of at most `tokens` tokens, the likeliest one at each step."""
    plan = greedily(tokenizer, tokens)
    rows = [torch.tensor([prompt_ids(tokenizer, one)], device=model.device) for one in prompts]
    for prompt, row in zip(prompts, rows, strict=True):
        check_ids(row.tolist(), model.config, f"writing after '{prompt[:40]}'")
    for block in blocks:
        texts = []
        with (
            untouched(model, "generation"),
            pruned(model, block),
            generating(model, plan),
            torch.inference_mode(),
        ):
            for row in rows:
                out = model.generate(
                    row, attention_mask=torch.ones_like(row), generation_config=plan
                )
                texts.append(tokenizer.decode(out[0, row.shape[1] :], skip_special_tokens=True))
        yield {"prompts": list(prompts), "texts": texts}


def greedily(tokenizer: PreTrainedTokenizerBase, tokens: int) -> GenerationConfig:
    """The likeliest token at each step, up to the end of a text or so many."""
    return GenerationConfig(
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


@contextmanager
def generating(model: PreTrainedModel, plan: GenerationConfig) -> Iterator[None]:
    """A checkpoint's own settings fill in whatever a plan leaves open, a repetition penalty say."""
    own, model.generation_config = model.generation_config, plan
    try:
        yield
    finally:
        model.generation_config = own
