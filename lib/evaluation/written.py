"""How likely a model finds what another has written: the loss of a text behind its prompt."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lib.models.prompts import prompt_ids
from lib.models.untouched import untouched

METHOD = 1  # raise when the code that computes the losses changes them


@torch.inference_mode()
def losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    texts: Sequence[str],
) -> list[float | None]:
    """Mean loss (nats per token) of each text behind its prompt; None where there is no text. Both
    are read as one, and what has no part in the prompt's tokens is scored."""
    found: list[float | None] = []
    with untouched(model, "reading what was written"):
        for prompt, text in zip(prompts, texts, strict=True):
            ids = prompt_ids(tokenizer, prompt + text)
            # Where the two meet, a token may hold some of both.
            alike = zip(prompt_ids(tokenizer, prompt), ids, strict=False)
            start = next((i for i, (one, two) in enumerate(alike) if one != two), None)
            begun = len(prompt_ids(tokenizer, prompt)) if start is None else start
            if not 0 < begun < len(ids):
                found.append(None)
                continue
            row = torch.tensor([ids], device=model.device)
            logits = model(input_ids=row, use_cache=False).logits[0, begun - 1 : -1].float()
            found.append(float(torch.nn.functional.cross_entropy(logits, row[0, begun:])))
    return found
