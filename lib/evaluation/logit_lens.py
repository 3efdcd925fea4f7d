"""The logit lens (nostalgebraist, 2020): what the model would answer if it ended after layer ℓ, by
its own final norm and head, at the last token of each prompt.

Of the answers to choose from the first tokens are compared, so questions of which two begin with
the same token are left out, and counted.
"""

from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lib.errors import UserError
from lib.evaluation.batches import Row, make_batches
from lib.evaluation.harness import Questions, SharedPass
from lib.evaluation.replay import Replay
from lib.evaluation.scoring import LOGITS
from lib.models.anatomy import decoder, longest_alike
from lib.pruning.dropped import UNPRUNED
from lib.pruning.geometry import residual_stream
from lib.schema import Task

Prompt = tuple[int, ...]


class _Prompts(SharedPass):
    """Takes the prompts that lm-eval would have answered, and answers none."""

    def answer(self, rows: dict[Any, Row]) -> None:
        self.rows = list(rows.values())
        self.answers |= {key: [(0.0, False)] for key in rows}


def of_task(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    manager: Any,
    batch: int,
    chat_template: bool = False,
) -> dict[str, Any]:
    """`ahead` [layers + 1]: share of the questions of which the answer that is ahead in the end is
    ahead after so many layers. By question after how many it is so for the first time, `reached`,
    and from when on it stays so, `settled`. `left_out`: questions whose answers begin alike.

    Raises UserError for a task without answers to choose from, or where all are left out."""
    questions = Questions(task, manager, chat_template)
    if questions.written or questions.chosen_from:
        raise UserError(f"lm-eval task '{task.name}': no answers follow its prompts to choose from")
    asked = _Prompts(model, tokenizer, [UNPRUNED], batch, task.name, chat_template=chat_template)
    questions.ask(asked.lm(0))
    begins: dict[Prompt, list[int]] = {}
    for row in asked.rows:
        begins.setdefault(row.tokens[: row.start], []).append(row.tokens[row.start])
    apart = {prompt: each for prompt, each in begins.items() if len({*each}) == len(each) > 1}
    if not apart:
        raise UserError(
            f"lm-eval task '{task.name}': the answers to every question begin with the same token"
        )
    found = leading(model, apart, batch, asked.pad)
    final = found == found[-1]
    stays = final.flip(0).cummin(0).values.flip(0)
    return {
        "ahead": final.double().mean(1).tolist(),
        "reached": final.int().argmax(0).tolist(),
        "settled": stays.int().argmax(0).tolist(),
        "left_out": len(begins) - len(apart),
    }


@torch.inference_mode()
def leading(
    model: PreTrainedModel, beginnings: dict[Prompt, list[int]], batch: int, pad: int
) -> torch.Tensor:
    """Which of a prompt's answers is ahead, by its number [layers + 1, prompts]."""
    replay, stack = Replay(model), decoder(model)
    at_once = max(1, LOGITS // replay.config.vocab_size)
    rows = [Row((*prompt, first[0]), len(prompt)) for prompt, first in beginnings.items()]
    answers = list(beginnings.values())
    found = torch.empty(len(replay.layers) + 1, len(rows), dtype=torch.long)
    last: list[int] = []

    def pick(hidden: torch.Tensor) -> torch.Tensor:
        return hidden[range(len(last)), last]

    batches = make_batches(rows, batch, False, longest_alike(model.config))
    for one in tqdm(batches, "logit lens", leave=False, delay=1):
        tokens, _ = one.rests(pad)
        last[:] = [len(given.tokens) - 1 for given in one.inputs]
        with residual_stream(model, pick) as stream:
            stack(input_ids=tokens.to(stack.device), use_cache=False)
        states = torch.stack(stream).flatten(0, 1).split(at_once)  # [(layers + 1) · inputs, D]
        logits = torch.cat([replay.logits(some) for some in states])
        by_layer = logits.unflatten(0, (len(found), -1))
        for i, given in enumerate(one.inputs):
            (number,) = given.rows
            found[:, number] = by_layer[:, i, answers[number]].argmax(-1).cpu()
    return found
