"""Evaluating a model: accuracy on questions through lm-eval's own task and metric code, and
next-token loss on documents."""

import hashlib
import json
import logging
import math
import os
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lib.errors import UserError
from lib.evidence import file_digest
from lib.schema import Study, Task

QUICK = 5000  # requests
METHOD = 3  # raise when the code that computes the values changes them


@cache
def _harness() -> Any:
    """lm-eval, imported late: it is slow and not needed to check a study of local tasks."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    import lm_eval
    import lm_eval.api.task
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    # A bar per task and model while prompts are put together, for milliseconds of work.
    lm_eval.api.task.tqdm = partial(tqdm, disable=True)
    datasets.disable_progress_bars()

    class CountingLM(HFLM):
        """lm-eval's Hugging Face model, counting the prompts that it has to cut on the left."""

        truncated = 0
        question_free = False

        def loglikelihood(self, requests: list, disable_tqdm: bool = False) -> list:
            if self.question_free:
                for request in requests:
                    prompt, answer = request.arguments
                    request.arguments = (last_line(prompt), answer)
            quick = len(requests) < QUICK  # a bar of its own only where it would be watched
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm or quick)

        def generate_until(self, requests: list, disable_tqdm: bool = False) -> list:
            quick = len(requests) < QUICK
            return super().generate_until(requests, disable_tqdm=disable_tqdm or quick)

        def tok_batch_encode(self, strings: list, **options: Any) -> Any:
            """Prompts of generation, cut on the left to leave room for the answer."""
            room = options.get("left_truncate_len")
            if room:
                lengths = [len(ids) for ids in self.tokenizer(strings)["input_ids"]]
                self.truncated += sum(length > room for length in lengths)
            return super().tok_batch_encode(strings, **options)

        def _loglikelihood_tokens(self, requests: list, **options: Any) -> list:
            room = self.max_length + 1
            # A prompt is asked once per choice and counted once.
            self.truncated += len(
                {tuple(ctx) for _, ctx, cont in requests if len(ctx) + len(cont) > room}
            )
            return super()._loglikelihood_tokens(requests, **options)

    lm_eval.CountingLM = CountingLM
    return lm_eval


def local_tasks(study: Study) -> dict[str, Path]:
    """Names of tasks, groups and tags in the study's `task_path` → the YAML that defines them."""
    if study.task_path is None:
        return {}
    folder = Path(study.task_path)
    if not folder.is_dir():
        raise UserError(f"study {study.name}: task_path {folder}: there is no such folder")
    from lm_eval.tasks._index import TaskIndex

    try:
        index = TaskIndex.build([folder])
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"study {study.name}: task_path {folder}: {reason}") from None
    return {name: entry.yaml_path for name, entry in index.items()}


def task_manager(study: Study) -> Any:
    """lm-eval's task manager; its thousands of own tasks only where the study names one."""
    own = local_tasks(study)
    from lm_eval.tasks import TaskManager

    needs_defaults = any(task.name not in own for task in study.tasks)
    manager = TaskManager(include_path=study.task_path, include_defaults=needs_defaults)
    for task in study.tasks:
        if task.name not in manager.all_tasks:
            nowhere = f"none readable in {study.task_path}" if study.task_path else "none"
            known = ", ".join(sorted(own)) or nowhere
            raise UserError(
                f"study {study.name}: unknown lm-eval task '{task.name}'; "
                f"local tasks: {known}; all others: `lm-eval ls tasks`"
            )
    return manager


def last_line(prompt: str) -> str:
    """What is left of a prompt without its question: the last line, such as "Answer:", or nothing
    where the whole prompt is one line."""
    return prompt.rpartition("\n")[2] if "\n" in prompt else ""


def metric(task: Any) -> str | None:
    """Name of the metric that is read of an lm-eval task: `acc` of multiple choice, `exact_match`
    of generated answers; None for tasks that have neither."""
    wanted = {"multiple_choice": "acc", "generate_until": "exact_match"}.get(task.OUTPUT_TYPE)
    return wanted if wanted in task.aggregation() else None


def check_tasks(study: Study, manager: Any) -> None:
    """The questions of local tasks can be read, and scored."""
    own = local_tasks(study)
    for name in [task.name for task in study.tasks if task.name in own]:
        for task in _loaded(manager, name).values():
            if metric(task) is None:
                raise UserError(
                    f"lm-eval task '{name}': is {task.OUTPUT_TYPE} with "
                    f"{', '.join(task.aggregation())}; read are multiple_choice with acc and "
                    "generate_until with exact_match"
                )


def task_source(study: Study, task: Task, manager: Any) -> dict[str, Any]:
    """What decides a task's questions and prompts: the documents themselves, the files of
    `task_path` for a local task, and the harness version.

    Raises UserError when the questions cannot be loaded."""
    source: dict[str, Any] = {"harness": metadata.version("lm_eval")}
    if task.name in local_tasks(study):
        folder = Path(study.task_path)
        files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".pyc"]
        source["files"] = {str(p.relative_to(folder)): file_digest(p) for p in files}
    documents = hashlib.sha256()
    for name, one in sorted(_loaded(manager, task.name).items()):
        examples = list(one.fewshot_docs()) if task.shots else []
        text = json.dumps([name, list(one.eval_docs), examples], sort_keys=True, default=str)
        documents.update(text.encode())
    return source | {"documents": documents.hexdigest()}


def _loaded(manager: Any, name: str) -> dict[str, Any]:
    """The tasks, by name, that a task's or group's name stands for."""
    _harness()
    try:
        return manager.load([name])["tasks"]
    except Exception as error:  # data files, templates and Python helpers fail in many ways
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"lm-eval task '{name}': cannot be loaded: {reason}") from None


def accuracy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    manager: Any,
    batch: int,
    question_free: bool = False,
) -> dict[str, Any]:
    """Accuracy (lm-eval's `acc`, or `exact_match` of generated answers by the task's first filter)
    with its binomial standard error √(p(1−p)/(N−1)).

    With `question_free` the choices follow the last line of the prompt alone ("Answer:"): what the
    choices give away without a question.

    Also: n_questions, per-question correctness in order (a string of 0 and 1, for paired
    comparisons), by sub-task for groups, both chance levels (`guess`: one over the number of
    choices, 0 for generation; `constant`: the share of the commonest answer, summed over
    sub-tasks), and the number of truncated prompts.

    Raises UserError for a task without such a metric and for data that cannot be read."""
    harness = _harness()
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    lm = harness.CountingLM(
        pretrained=model, tokenizer=tokenizer, batch_size=batch, max_length=window
    )
    lm.question_free = question_free
    try:
        found = harness.simple_evaluate(
            lm,
            tasks=[task.name],
            num_fewshot=task.shots,
            limit=task.limit,
            task_manager=manager,
            bootstrap_iters=0,
            log_samples=True,
            verbosity="ERROR",
        )
    except (OSError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"lm-eval task '{task.name}': cannot be run: {reason}") from None
    return _scores(task, found["samples"]) | {"truncated_prompts": lm.truncated}


def _scores(task: Task, samples: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    correct: dict[str, str] = {}
    guess: list[float] = []
    commonest = 0
    for name in sorted(samples):
        rows = sorted(samples[name], key=lambda row: row["doc_id"])
        rows = [row for row in rows if row["filter"] == rows[0]["filter"]] if rows else []
        key = next((key for key in ("acc", "exact_match") if rows and key in rows[0]), None)
        if key is None:
            raise UserError(
                f"lm-eval task '{name}': has neither 'acc' nor 'exact_match'; only such tasks "
                "are read"
            )
        correct[name] = "".join(str(int(row[key])) for row in rows)
        guess += [1 / len(row["arguments"]) if key == "acc" else 0.0 for row in rows]
        answers = [_right_choice(row) if key == "acc" else str(row["target"]) for row in rows]
        commonest += max(answers.count(answer) for answer in set(answers))
    joined = "".join(correct.values())
    count, hits = len(joined), joined.count("1")
    share = hits / count
    return {
        "accuracy": share,
        "stderr": math.sqrt(share * (1 - share) / max(count - 1, 1)),
        "n_questions": count,
        "guess": sum(guess) / count,
        "constant": commonest / count,
        "correct": correct,
    }


def _right_choice(row: dict[str, Any]) -> str:
    """The text of the right answer; its position may be the same for all questions of a task."""
    target = str(row["target"])
    return row["arguments"][int(target)][1] if target.isdigit() else target


@torch.inference_mode()
def next_token_loss(
    model: PreTrainedModel, sequences: list[list[int]], batch: int, pad_id: int
) -> dict[str, float]:
    """Mean loss in nats per predicted token over sequences of different lengths.

    Token-weighted: R = Σ lossᵢ / Σ tokensᵢ over sequences i. The sequence is the unit of the
    standard error, √(N/(N−1) Σ (lossᵢ − R tokensᵢ)²) / Σ tokensᵢ: tokens of one text are not
    independent."""
    sums, counts = [], []
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    for first in range(0, len(order), batch):
        rows = [sequences[i] for i in order[first : first + batch]]
        width = len(rows[0])
        tokens = torch.full((len(rows), width), pad_id)
        mask = torch.zeros_like(tokens)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        tokens, mask = tokens.to(model.device), mask.to(model.device)
        logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        losses = functional.cross_entropy(
            logits[:, :-1].float().transpose(1, 2), tokens[:, 1:], reduction="none"
        )
        sums += (losses.double() * mask[:, 1:]).sum(1).tolist()
        counts += mask[:, 1:].sum(1).tolist()
    loss, tokens_seen = np.array(sums), np.array(counts)
    if not np.isfinite(loss).all():
        raise UserError("the model's loss is not finite on some text; try dtype: float32")
    mean = loss.sum() / tokens_seen.sum()
    residual = loss - mean * tokens_seen
    n = len(loss)
    stderr = math.sqrt(n / (n - 1) * (residual**2).sum()) / tokens_seen.sum()
    return {
        "loss": float(mean),
        "stderr": float(stderr),
        "n_tokens": int(tokens_seen.sum()),
        "n_sequences": n,
    }
