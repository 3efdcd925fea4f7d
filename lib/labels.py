"""What tasks are called where people read: `label` of a task in a study, or the name below.

Tables, records and commands keep the names of tasks; figures and pages show labels. Like the style
of figures they are set once, when a page opens its study.
"""

import re
from collections.abc import Iterable

from lib.fields import Task

SHIPPED = {
    "almanac_one_hop": "a learnt fact",
    "almanac_two_hop": "two facts joined",
    "almanac_reading": "reading a passage",
    "almanac_sums": "written sums",
    "ability_arithmetic": "arithmetic",
    "ability_brackets": "closing brackets",
    "ability_context_long": "finding in a long text",
    "ability_context_short": "finding in a short text",
    "ability_copying": "copying",
    "ability_steps": "following steps",
    "arc_challenge": "ARC-Challenge",
    "arc_easy": "ARC-Easy",
    "boolq": "BoolQ",
    "cmmlu": "CMMLU",
    "commons_knowledge": "common knowledge",
    "commons_reading": "short passages",
    "gsm8k": "GSM8K",
    "hellaswag": "HellaSwag",
    "lambada_openai": "LAMBADA",
    "mmlu": "MMLU",
    "openbookqa": "OpenBookQA",
    "piqa": "PIQA",
    "qmsum": "QMSum",
    "wikitext": "WikiText-2",
    "winogrande": "WinoGrande",
}
_labels = dict(SHIPPED)


def use(tasks: Iterable[Task]) -> None:
    """Take up the labels that a study gives its tasks, in place of those of a study before."""
    _labels.clear()
    _labels.update(SHIPPED | {task.name: task.label for task in tasks if task.label})


def of(task: str) -> str:
    """As it stands within a sentence; a task without a label goes by its name."""
    return _labels.get(task, task)


def asked(task: str, shots: int) -> str:
    """With the number of examples, where there are some: written sums, or MMLU (5-shot)."""
    return f"{of(task)} ({shots}-shot)" if shots else of(task)


def title(task: str, shots: int) -> str:
    """The same, to stand above a figure."""
    return capital(asked(task, shots))


def capital(text: str) -> str:
    """With a capital, unless it starts with a name that has its own spelling, as of a file."""
    first = text.split(" ", 1)[0]
    return text if "_" in first or any(map(str.isupper, first)) else text[:1].upper() + text[1:]


def spelt(text: str) -> str:
    """A sentence with labels in place of the names of tasks: where the number of examples stands
    behind a name, and where a name is no word."""
    names = "|".join(re.escape(name) for name in sorted(_labels, key=len, reverse=True))
    counted = re.sub(rf"(?<![\w-])({names}) \((\d+)-shot\)", lambda m: asked(m[1], int(m[2])), text)
    return re.sub(
        rf"(?<![\w-])({names})(?![\w-])",
        lambda m: of(m[1]) if "_" in m[1] or m[1] in SHIPPED else m[1],
        counted,
    )
