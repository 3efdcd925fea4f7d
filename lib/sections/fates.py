"""What becomes of each question, and of each sentence, as layers go (the reviewers' question)."""

import re

import numpy as np
import pandas as pd

from lib.evaluation import harness
from lib.experiments.conditions import Condition, main_conditions, unpruned, writes
from lib.experiments.measure import broken
from lib.experiments.opened import OpenStudy
from lib.schema import Task
from lib.sections.tables import answers, record

LONGEST = 24  # letters in a row, on a page
STATES = {"unhealed": False, "healed": True}  # in the order of figures


def curve(opened: OpenStudy, healed: bool) -> list[Condition]:
    """The models that are followed: the unpruned one, then similarity-informed prunings by size."""
    found = [
        one for one in main_conditions(opened) if writes(opened, one) and not broken(opened, one)
    ]
    found.sort(key=lambda one: one.dropped.n)
    if not healed:
        return [one for one in found if not one.healing]
    return [unpruned(opened)] + [one for one in found if one.healing and one.dropped.n]


def question_table(opened: OpenStudy) -> pd.DataFrame:
    """For every task and pruning, healed or not, how many questions the unpruned model and the
    pruned one both answer rightly (kept), only the former (lost), only the latter (gained), or
    neither (wrong). `by_chance`: how many would be kept if both were right independently."""
    rows = []
    for task in opened.study.tasks:
        for name, healed in STATES.items():
            models = curve(opened, healed)
            right = np.array([answers(opened, one, task) for one in models]).astype(bool)
            for one, now in zip(models, right, strict=True):
                rows.append(
                    {"task": task.name, "shots": task.shots, "models": name, "n": one.dropped.n}
                    | {"fraction": opened.fraction(one.dropped.n)}
                    | {"kept": int((right[0] & now).sum()), "lost": int((right[0] & ~now).sum())}
                    | {"gained": int((~right[0] & now).sum())}
                    | {"wrong": int((~right[0] & ~now).sum())}
                    | {"n_questions": right.shape[1]}
                    | {"by_chance": float(right[0].mean() * now.sum())}
                )
    return pd.DataFrame(rows)


def lost_questions(opened: OpenStudy, task: Task, count: int) -> pd.DataFrame:
    """Some questions that the unpruned model answers rightly: those healed prunings lose first,
    those lost in the middle, and those kept longest; with the prompt's end, the right answer, and
    up to which fraction it was given without a miss."""
    models = curve(opened, True)
    right = np.array([answers(opened, one, task) for one in models]).astype(bool)
    fractions = [opened.fraction(one.dropped.n) for one in models]
    until = right.cumprod(axis=0).sum(axis=0)
    known = np.flatnonzero(right[0])
    known = known[np.argsort(until[known], kind="stable")]
    chosen = known[np.linspace(0, len(known) - 1, min(count, len(known))).astype(int)]
    documents = _documents(opened, task)
    return pd.DataFrame(
        {
            "right up to": f"{100 * fractions[until[i] - 1]:.3g}% dropped",
            "question": on_one_line(documents[i][0]),
            "answer": on_one_line(documents[i][1]),
        }
        for i in chosen
    )


def _documents(opened: OpenStudy, task: Task) -> list[tuple[str, str]]:
    """Question and right answer as text, in the order of the recorded answers."""
    found = []
    loaded = harness.load(opened.task_manager, task.name)["tasks"]
    for _, one in sorted(loaded.items()):
        for _, document in one.doc_iterator(limit=task.limit):
            # Either may be the number of a choice.
            chosen = one.config.doc_to_choice is not None
            both = [
                one.doc_to_choice(document)[part] if chosen and isinstance(part, int) else str(part)
                for part in (one.doc_to_text(document), one.doc_to_target(document))
            ]
            found.append(tuple(both))
    return found


def texts_table(opened: OpenStudy) -> pd.DataFrame:
    """What each model writes: prompt, models, n, fraction, text."""
    rows = []
    for name, healed in STATES.items():
        for one in curve(opened, healed):
            found = record(opened, one, opened.study.writing)
            for prompt, text in zip(found["prompts"], found["texts"], strict=True):
                rows.append(
                    {"prompt": prompt, "models": name, "n": one.dropped.n}
                    | {"fraction": opened.fraction(one.dropped.n), "text": text}
                )
    table = pd.DataFrame(rows, columns=["prompt", "models", "n", "fraction", "text"])
    return table.sort_values("prompt", kind="stable", ignore_index=True)


def on_one_line(text: str) -> str:
    """Line breaks shown as such; what a broken model repeats without end may wrap."""
    lines = (" ".join(line.split()) for line in text.strip().split("\n"))
    return re.sub(rf"(\S{{{LONGEST}}})(?=\S)", "\\1\u200b", " ⏎ ".join(lines))


def side_by_side(texts: pd.DataFrame, prompt: str) -> pd.DataFrame:
    """What is written after one prompt: a row per fraction, unhealed and healed."""
    rows = texts[texts["prompt"] == prompt]
    rows = rows.assign(text=rows["text"].map(on_one_line))
    wide = rows.pivot(index="fraction", columns="models", values="text")[list(STATES)]
    wide.index = [f"{100 * fraction:.3g}%" for fraction in wide.index]
    return wide.rename_axis("dropped").rename_axis(columns=None).reset_index()
