"""What becomes of each question, and of each sentence, as layers go (the reviewers' question)."""

import re
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from lib import labels
from lib.evaluation import harness
from lib.experiments.conditions import Condition, main_conditions, unpruned, writes
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import broken
from lib.schema import Task
from lib.sections import finding
from lib.sections.columns import DROPPED, TASK
from lib.sections.figures import fraction_axis, grid, shared_legend
from lib.sections.looks import FATES
from lib.sections.pages import show
from lib.sections.section import Section, Table
from lib.sections.tables import answers, record, state

LONGEST = 24  # letters in a row, on a page
STATES = ("unhealed", "healed")  # in the order of figures


def curve(opened: OpenStudy, which: str) -> list[Condition]:
    """The models of a state that are followed: the unpruned one, unhealed, then prunings by size
    with the study's main strategy."""
    found = [
        one
        for one in main_conditions(opened)
        if writes(opened, one) and not broken(opened, one) and state(opened, one) == which
    ]
    pruned = sorted((one for one in found if one.dropped), key=lambda one: one.dropped.n)
    return [unpruned(opened), *pruned]


def question_table(opened: OpenStudy) -> pd.DataFrame:
    """For every task and pruning, healed or not, how many questions the unpruned model and the
    pruned one both answer rightly (kept), only the former (lost), only the latter (gained), or
    neither (wrong). A score between 0 and 1 is so much of a question.

    `by_chance`: how many would be kept if both were right independently; empty for such scores,
    since it assumes that an answer is right or wrong."""
    rows = []
    for task in opened.study.tasks:
        for name in STATES:
            models = curve(opened, name)
            scores = np.array([answers(opened, one, task) for one in models])
            whole, two_valued = scores[0], np.isin(scores, (0, 1)).all()
            for one, now in zip(models, scores, strict=True):
                rows.append(
                    {"task": task.name, "shots": task.shots, "models": name, "n": one.dropped.n}
                    | {"fraction": opened.fraction(one.dropped.n)}
                    | {"kept": _count(np.minimum(whole, now)), "lost": _count(whole - now)}
                    | {"gained": _count(now - whole), "wrong": _count(1 - np.maximum(whole, now))}
                    | {"n_questions": len(whole)}
                    | {"by_chance": float(whole.mean() * now.sum()) if two_valued else None}
                )
    return pd.DataFrame(rows).astype({"by_chance": float})


def _count(share: np.ndarray) -> float:
    """Questions, where a share of each counts; whole ones as whole numbers."""
    found = float(share.clip(0).sum())
    return int(found) if found.is_integer() else found


def lost_questions(opened: OpenStudy, task: Task, count: int) -> pd.DataFrame:
    """Some questions that the unpruned model answers rightly, with a score of 1: those healed
    prunings lose first, those lost in the middle, and those kept longest; with the prompt's end,
    the right answer, and up to which fraction it was given without a miss."""
    models = curve(opened, "healed")
    right = np.array([answers(opened, one, task) for one in models]) == 1
    fractions = [opened.fraction(one.dropped.n) for one in models]
    until = right.cumprod(axis=0).sum(axis=0)
    known = np.flatnonzero(right[0])
    known = known[np.argsort(until[known], kind="stable")]
    chosen = known[np.linspace(0, len(known) - 1, min(count, len(known))).astype(int)]
    documents = dict.fromkeys(chosen, ("not published",) * 2)
    if not opened.published:
        documents = dict(enumerate(_documents(opened, task)))
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
            chosen = one.config.doc_to_choice is not None
            choices = one.doc_to_choice(document) if chosen else []
            both = one.doc_to_text(document), one.doc_to_target(document)
            found.append(tuple(_words(part, choices) for part in both))
    return found


def _words(part: Any, choices: list[str]) -> str:
    """Of a question or an answer, which may be the number of a choice; of several answers each."""
    several = part if isinstance(part, list) else [part]
    return " / ".join(
        choices[one] if choices and isinstance(one, int) else str(one) for one in several
    )


def texts_table(opened: OpenStudy) -> pd.DataFrame:
    """What each model writes: prompt, models, n, fraction, text."""
    rows = []
    for name in STATES:
        for one in curve(opened, name):
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
    wide = rows.pivot(index="fraction", columns="models", values="text")[[*STATES]]
    wide.index = [f"{100 * fraction:.3g}%" for fraction in wide.index]
    return wide.rename_axis("dropped").rename_axis(columns=None).reset_index()


def written(texts: pd.DataFrame) -> HTML:
    """What the models write, a table per prompt."""
    if texts.empty:
        return HTML("")
    parts = (
        f"<p>After <em>{escape(on_one_line(prompt))}</em> the models go on:</p>"
        + show(side_by_side(texts, prompt), words=True).data
        for prompt in texts["prompt"].unique()
    )
    return HTML(f'<div class="written mathjax_ignore">{"".join(parts)}</div>')


def question_panels(questions: pd.DataFrame) -> Figure:
    """Shares of the questions kept, lost, gained and wrong at every fraction; a row per task,
    unhealed and healed."""
    tasks = list(questions.groupby(["task", "shots"], sort=False).groups)
    figure, panels = grid(len(tasks), 2, width=4.2, height=2.7)
    for row, (task, shots) in enumerate(tasks):
        for column, models in enumerate(STATES):
            axes = panels[row, column]
            rows = questions[(questions["task"] == task) & (questions["shots"] == shots)]
            rows = rows[rows["models"] == models].sort_values("fraction")
            shares = [rows[kind] / rows["n_questions"] for kind in FATES]
            bands = axes.stackplot(
                rows["fraction"],
                shares,
                labels=list(FATES),
                colors=[shade for shade, _ in FATES.values()],
            )
            for band, (_, hatch) in zip(bands, FATES.values(), strict=True):
                band.set_hatch(hatch)
                band.set_edgecolor("white")
            axes.plot(
                rows["fraction"],
                rows["by_chance"] / rows["n_questions"],
                color="black",
                linestyle="--",
                linewidth=1.2,
                label="kept, if right independently",
            )
            axes.set(ylabel="Share of questions", ylim=(0, 1))
            axes.set_title(f"{labels.title(task, shots)}, {models}", fontsize="medium")
            fraction_axis(axes)
            axes.set_xlim(0, rows["fraction"].max() if len(rows) else 1)
    shared_legend(figure, panels)
    return figure


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """Of which task fewest right answers are kept with a quarter of the layers dropped, of which
    most."""
    table = finding.rows(made, "questions", "n", "kept", "lost")
    table = table[(table["n"] > 0) & (table["kept"] + table["lost"] > 0)]
    start, table = finding.by_state(table)
    if table.empty:
        return ""
    at = finding.nearest(table["fraction"], 0.25)
    found = []
    for row in table[table["fraction"] == at].to_dict("records"):
        right = row["kept"] + row["lost"]
        name = labels.asked(row["task"], row["shots"])
        found.append((*finding.wilson(row["kept"], right), f"{right:.0f}", name))
    (*least, knew, least_on), (*most, also, most_on) = min(found), max(found)
    text = f"{start}, with {finding.dropped(at)}, the model keeps "
    if len(found) == 1:
        return f"{text}{finding.interval(*least)} of its {knew} right answers on {least_on}."
    clear = all(least[2] < low for _, low, *_ in sorted(found)[1:])
    return (
        f"{text}fewest of its right answers, guesses among them, {finding.interval(*least)} of "
        f"{knew} on {least_on}, and most, {finding.interval(*most)}, of {also} on {most_on}"
        f"{'' if clear else '; of which it keeps fewest cannot be told'}."
    )


MODELS = {"models": "`unhealed` or `healed`", **DROPPED}
SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    tables=(
        Table(
            "questions",
            question_table,
            "a task and a model",
            {
                **TASK,
                **MODELS,
                "kept": "number of questions that this and the unpruned model answer rightly",
                "lost": "number that only the unpruned model answers rightly",
                "gained": "number that only this model answers rightly",
                "wrong": "number that neither answers rightly",
                "n_questions": "number of all questions",
                "by_chance": "number that would be kept if both were right independently; empty "
                "where scores lie between 0 and 1",
            },
        ),
        Table(
            "texts",
            texts_table,
            "a prompt and a model",
            {"prompt": "what the model goes on from", **MODELS, "text": "what it writes"},
        ),
    ),
    in_short=sentence,
)
