"""How many questions a task has and how many tokens these are, before anything is asked."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from lib.evaluation import harness
from lib.schema import Study, Task

# Questions, tokens of one and of its answers, of tasks whose data may not be at hand: their
# published test (or validation) sets, at four bytes a token.
KNOWN = {
    "mmlu": (14_042, 113, 4),
    "boolq": (3_270, 158, 2),
    "cmmlu": (11_582, 80, 4),
    "piqa": (1_838, 15, 52),
    "hellaswag": (10_042, 34, 68),
    "arc_easy": (2_376, 34, 27),
    "arc_challenge": (1_172, 39, 33),
    "openbookqa": (500, 15, 21),
    "winogrande": (1_267, 42, 14),
}
TASKS = {"mmlu": 57, "cmmlu": 67}  # in a group
LOOKED_AT = 32  # questions of a task, evenly spaced, to see how long they are
UNKNOWN = "not known without its data"


class Size(NamedTuple):
    """Of a task: its questions, about how many tokens are read for all of them (what prompts share
    is run once), of how many the model's head is asked, and where the numbers are from."""

    questions: int
    read: int
    scored: int
    source: str


def size_of(study: Study, task: Task) -> Size:
    """Counted where the task's data are here, else as published, else nothing."""
    if task.name in harness.local_tasks(study):
        manager = harness.task_manager(study)
        found = harness.load(manager, task.name)["tasks"].values()
        parts = [_counted(one, task) for one in found]
        return Size(*(round(sum(values)) for values in zip(*parts, strict=True)), "counted")
    if task.name not in KNOWN:
        return Size(0, 0, 0, UNKNOWN)
    questions, prompt, answers = KNOWN[task.name]
    if task.limit:
        questions = min(questions, task.limit * TASKS.get(task.name, 1))
    read = prompt * (task.shots + 1) + answers
    return Size(questions, questions * read, questions * answers, "as published")


def _counted(one: Any, task: Task) -> tuple[float, float, float]:
    """Questions of one of a group's tasks, tokens that are read and tokens of answers, from the
    mean of some of them."""
    docs = one.eval_docs
    count = min(len(docs), task.limit or len(docs))
    looked_at = np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(int))
    prompts, answers = np.mean([_lengths(one, docs[int(i)]) for i in looked_at], axis=0)
    examples = task.shots * (prompts + answers / 4)  # an example has one answer
    sampler = getattr(one.config.fewshot_config, "sampler", None)
    every = examples if sampler == "first_n" else examples * count
    return count, every + count * (prompts + answers), count * answers


def _lengths(one: Any, doc: Any) -> tuple[float, float]:
    """Tokens of a question's prompts and answers, at four bytes a token."""
    prompt = one.doc_to_text(doc)
    if one.OUTPUT_TYPE == "loglikelihood_rolling":
        text = [one.doc_to_target(doc)]
        return 0.0, _tokens(text)
    if one.multiple_input:
        return _tokens(one.doc_to_choice(doc)), 2 * _tokens([one.doc_to_target(doc)])
    answers = one.doc_to_choice(doc) if one.OUTPUT_TYPE == "multiple_choice" else []
    return _tokens([prompt]), _tokens(answers)


def _tokens(texts: Iterable[Any]) -> float:
    return sum(1 + len(str(text).encode()) / 4 for text in texts)
