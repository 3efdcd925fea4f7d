"""What is lost first as layers go: abilities that questions ask for, and how fluently models
write."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from lib.evaluation import fluency
from lib.evaluation.per_question import mean, variance
from lib.experiments.conditions import Condition, asked, unpruned
from lib.experiments.further_conditions import breaking_conditions
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import broken
from lib.experiments.written import losses, read_all, writers
from lib.schema import Task
from lib.sections import finding
from lib.sections.columns import DROPPED
from lib.sections.section import Extra, Section, Table
from lib.sections.tables import answers, chance, record, state
from lib.statistics.half_lost import ABOVE_CHANCE, half_lost, share_kept

STATES = ("unhealed", "healed")
RUN = 4  # words, of the runs that a text repeats


def curve(opened: OpenStudy, which: str, tasks: list[Task]) -> list[Condition]:
    """The models of a state that were asked all of these tasks: the unpruned one, unhealed, then
    the main strategy's prunings by size."""
    found = [
        one
        for one in breaking_conditions(opened)
        if one.strategy == opened.strategies[0]
        and state(opened, one) == which
        and not broken(opened, one)
        and all(task in asked(opened, one) for task in tasks)
    ]
    return [unpruned(opened), *sorted(found, key=lambda one: one.dropped.n)]


def _chances(opened: OpenStudy, tasks: list[Task]) -> dict[Task, float]:
    """By task what has to be beaten: nothing where answers are written. Without those of which it
    is not known."""
    found = {}
    for task in tasks:
        level = chance(record(opened, unpruned(opened), task))
        if level is not None or task.role == "generation":
            found[task] = level or 0.0
    return found


def _accuracies(opened: OpenStudy, models: list[Condition], tasks: list[Task]) -> np.ndarray:
    """Mean over tasks, and its standard error, of each model [models, 2]."""
    rows = []
    for one in models:
        scores = [answers(opened, one, task) for task in tasks]
        error = math.sqrt(sum(variance(of) for of in scores)) / len(tasks)
        rows.append((float(np.mean([mean(of) for of in scores])), error))
    return np.array(rows)


def abilities(opened: OpenStudy) -> pd.DataFrame:
    """By ability and pruning the accuracy, and the share of what is above chance that is kept."""
    rows = []
    known = asked(opened, unpruned(opened))
    for name, of in opened.study.by_ability.items():
        if not (levels := _chances(opened, [task for task in of if task in known])):
            continue
        tasks, level = [*levels], float(np.mean([*levels.values()]))
        about = {"ability": name, "tasks": " ".join(task.name for task in tasks)}
        for which in STATES:
            models = curve(opened, which, tasks)
            found = _accuracies(opened, models, tasks)
            kept = share_kept(*found.T, level)
            testable = found[0, 0] > level + ABOVE_CHANCE * found[0, 1]
            for one, (value, error), *share in zip(models, found, *kept, strict=True):
                row = about | {"models": which, "n": one.dropped.n}
                row |= {"fraction": opened.fraction(one.dropped.n)}
                row |= {"accuracy": value, "stderr": error, "chance": level}
                row |= dict(zip(("kept", "kept_stderr"), share, strict=True))
                row |= {"testable": "yes" if testable else ""}
                count = sum(len(answers(opened, one, task)) for task in tasks)
                rows.append(row | {"n_questions": count})
    return pd.DataFrame(rows, columns=list(ABILITIES))


def halves(table: pd.DataFrame) -> pd.DataFrame:
    """After which fraction of layers half of each ability is lost."""
    rows = []
    for (name, which), of in table.groupby(["ability", "models"], sort=False):
        if len(of) < 2:  # nothing of this state was pruned
            continue
        values = (of[key].to_numpy() for key in ("fraction", "accuracy", "stderr"))
        found = half_lost(*values, float(of["chance"].iloc[0]))
        row = {"ability": name, "models": which, "outcome": found.outcome}
        row |= {"fraction": found.fraction, "low": found.low, "high": found.high}
        rows.append(row | {"most": float(of["fraction"].max()), "prunings": len(of) - 1})
    return pd.DataFrame(rows, columns=list(HALVES))


def writing(opened: OpenStudy) -> pd.DataFrame:
    """How fluently each model writes."""
    rows = []
    for one in writers(opened):
        found = record(opened, one, opened.study.what_breaks.writing)
        texts = [text.split() for text in found["texts"]]
        row: dict[str, Any] = {"models": state(opened, one) if one.dropped else ""}
        row |= {"n": one.dropped.n, "fraction": opened.fraction(one.dropped.n)}
        for name, measure in MEASURES.items():
            row[name], row[f"{name}_stderr"] = measure(texts)
        read = [loss for loss in losses(opened, one)["losses"] if loss is not None]
        error = float(np.std(read, ddof=1)) / len(read) ** 0.5 if len(read) > 1 else math.nan
        row |= {"loss": float(np.mean(read)) if read else math.nan, "loss_stderr": error}
        rows.append(row | {"texts": len(texts), "empty": sum(not text for text in texts)})
    return pd.DataFrame(rows, columns=list(WRITING))


def in_short(halves: pd.DataFrame) -> pd.DataFrame:
    """For reading: a row for each ability."""
    rows: dict[str, dict[str, str]] = {}
    for one in halves.to_dict("records"):
        name = one["ability"]
        rows.setdefault(name, {"ability": name})[f"half lost, {one['models']}"] = _words(one)
    return pd.DataFrame([*rows.values()]).fillna("")


def _words(one: dict[str, Any]) -> str:
    most = f"{one['most']:.0%}"
    if one["outcome"] == "not testable":
        return "the unpruned model is not clearly above chance"
    if one["outcome"] == "not reached":
        return f"not within {most}"
    value, low, high = (
        f"{100 * one[key]:.0f}" if math.isfinite(one[key]) else "…"
        for key in ("fraction", "low", "high")
    )
    found = f"{value}% [{low}, {high}]"
    return found if one["outcome"] == "reached" else f"{found}; undecided within {most}"


def _extras(opened: OpenStudy) -> list[Extra]:
    settings = opened.study.what_breaks
    if not settings.fractions:
        return []
    models = 1 + 2 * len(opened.healed_ns(settings.fractions))
    texts = models * settings.writing.n_prompts
    tokens = texts * (settings.writing.prompt_tokens + settings.writing.tokens)
    what = "what models wrote, read by the unpruned one"
    return [Extra("written", what, read_all, tokens=tokens, after_models=True)]


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """Which ability is half lost first, and which last."""
    table = made["half_lost"]
    start, known = finding.by_state(table[table["outcome"] != "not testable"])
    if known.empty:
        return "" if table.empty else "There is nothing to lose here: this model is at chance."
    lost = known.dropna(subset=["fraction"]).sort_values("fraction")
    most = finding.percent(known["most"].max())
    if lost.empty:
        return (
            f"{start}, none of {len(known)} abilities is half lost with {most} of the layers gone."
        )
    first, last = lost.iloc[0], lost.iloc[-1]
    asked = made["abilities"].groupby("ability")["n_questions"].max()

    def lost_at(one: pd.Series, gone: str) -> str:
        at = finding.interval(one["fraction"], one["low"], one["high"])
        many = f" ({asked[one['ability']]} questions)" if one["ability"] in asked else ""
        return f"half of {one['ability']} is lost once {at} {gone}{many}"

    text = f"{start}, {lost_at(first, 'of the layers are gone')}"
    if len(known) == 1:
        return f"{text}."
    if len(lost) > 1:
        text += f", {lost_at(last, 'are')}"
    near = known.drop(index=first.name)
    near = near[(near["outcome"] != "not reached") & ~(near["low"] > first["high"])]["ability"]
    return f"{text}. " + (
        f"Whether {first['ability']} or {finding.listed(near)} goes first of {len(known)} "
        "abilities is undecided."
        if len(near)
        else f"Of {len(known)} abilities {first['ability']} goes first."
    )


MEASURES: dict[str, Callable[[list[list[str]]], fluency.Measured]] = {
    "repeated": lambda texts: fluency.repeated(texts, RUN),
    "distinct": fluency.distinct,
    "self_bleu": fluency.self_bleu,
}
STATE = {"models": "`unhealed`, or `healed` with the study's own recipe"}
ABILITIES = {
    "ability": "what the questions ask for, as the study says",
    "tasks": "names of the tasks",
    **STATE,
    **DROPPED,
    "accuracy": "mean over the tasks; of summaries their ROUGE",
    "stderr": "its standard error",
    "chance": "what has to be beaten, mean over the tasks; 0 where answers are written",
    "kept": "accuracy above chance, as a share of the unpruned model's; empty: that one's is not "
    "above chance",
    "kept_stderr": "its standard error, that of the unpruned model's accuracy included",
    "testable": "`yes`: the unpruned model is three standard errors above chance, or more",
    "n_questions": "number of questions",
}
HALVES = {
    "ability": ABILITIES["ability"],
    **STATE,
    "outcome": "whether half of what is above chance is lost within the prunings measured: "
    "`reached`, `not reached`, `undecided`; `not testable`: the unpruned model is not three "
    "standard errors above chance",
    "fraction": "of the layers dropped, where half is lost; empty: not as measured",
    "low": "lower end of its 95% interval; empty: beyond the largest fraction",
    "high": "upper end of it; empty: beyond the largest fraction",
    "most": "largest fraction that was measured",
    "prunings": "number of prunings",
}
WRITING = {
    "models": f"{STATE['models']}; empty: the unpruned model",
    **DROPPED,
    "repeated": "share of runs of four words that their own text has had before",
    "repeated_stderr": "its standard error, over texts",
    "distinct": "share of all words that differ from each other",
    "distinct_stderr": "its standard error, a jackknife over texts",
    "self_bleu": "mean BLEU of each text against all others",
    "self_bleu_stderr": "its standard error, a jackknife over texts",
    "loss": "of the unpruned model on what was written, nats per token, mean over texts",
    "loss_stderr": "its standard error, over texts",
    "texts": "number of texts",
    "empty": "number of those without a word",
}
SECTION = Section(
    conditions=lambda opened: {"": breaking_conditions(opened)},
    claims=("lu-35",),
    extras=_extras,
    tables=(
        Table("abilities", abilities, "an ability and a model", ABILITIES),
        Table("half_lost", lambda opened: halves(abilities(opened)), "an ability", HALVES),
        Table("fluency", writing, "a model", WRITING),
    ),
    in_short=sentence,
)
