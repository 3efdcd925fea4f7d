"""What a model answers to many prompts, greedily: what it heals on where it is its own teacher."""

from collections.abc import Sequence

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lib.evaluation.writing import generating, greedily
from lib.models.prompts import prompt_ids
from lib.models.untouched import untouched
from lib.models.vocabulary import check_ids

METHOD = 1  # raise when the code that decides the text changes it


def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    tokens: int,
    batch: int,
) -> list[str]:
    """Of each prompt the likeliest token at each step, up to the end of the text, at most `tokens`;
    nothing where the prompt leaves no room for them in the model's context.

    Prompts of one length are answered together, so many at once, which needs no padding.

    Raises UserError for ids that the model does not know."""
    ids = [prompt_ids(tokenizer, one) for one in prompts]
    check_ids(ids, model.config, "prompts that are answered")
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    by_length: dict[int, list[int]] = {}
    for number, row in enumerate(ids):
        if longest is None or len(row) + tokens <= longest:
            by_length.setdefault(len(row), []).append(number)
    together = [of[i : i + batch] for of in by_length.values() for i in range(0, len(of), batch)]
    found, end = [""] * len(ids), tokenizer.eos_token_id
    plan = greedily(tokenizer, tokens)
    with untouched(model, "generation"), generating(model, plan), torch.inference_mode():
        for numbers in tqdm(together, desc="answers", unit="batch", leave=False):
            rows = torch.tensor([ids[number] for number in numbers], device=model.device)
            out = model.generate(rows, attention_mask=torch.ones_like(rows), generation_config=plan)
            for number, written in zip(numbers, out[:, rows.shape[1] :].tolist(), strict=True):
                stop = written.index(end) if end in written else None  # padding follows
                found[number] = tokenizer.decode(written[:stop], skip_special_tokens=True)
    return found
