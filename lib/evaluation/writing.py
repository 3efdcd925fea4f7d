"""What pruned models write: greedy continuations of the same prompts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

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
    plan = GenerationConfig(
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    rows = [tokenizer(prompt, return_tensors="pt").to(model.device) for prompt in prompts]
    for prompt, row in zip(prompts, rows, strict=True):
        check_ids(row["input_ids"].tolist(), model.config, f"writing after '{prompt[:40]}'")
    for block in blocks:
        texts = []
        with pruned(model, block), _generating(model, plan), torch.inference_mode():
            for row in rows:
                # Token types are no input of a causal model, though some tokenizers make them.
                given = {key: row[key] for key in ("input_ids", "attention_mask")}
                out = model.generate(**given, generation_config=plan)
                new = out[0, row["input_ids"].shape[1] :]
                texts.append(tokenizer.decode(new, skip_special_tokens=True))
        yield {"prompts": list(prompts), "texts": texts}


@contextmanager
def _generating(model: PreTrainedModel, plan: GenerationConfig) -> Iterator[None]:
    """A checkpoint's own settings fill in whatever a plan leaves open, a repetition penalty say."""
    own, model.generation_config = model.generation_config, plan
    try:
        yield
    finally:
        model.generation_config = own
