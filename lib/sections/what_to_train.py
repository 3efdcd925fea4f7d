"""What healing trains: recipes side by side (Tables 2, 3, 4 and B of Lu et al.)."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.evaluation import evaluate
from lib.experiments.conditions import Condition, healed
from lib.experiments.further_conditions import plainly, recipe_conditions
from lib.experiments.models import materialised
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import (
    OtherLoss,
    broken,
    healing_provenance,
    kind_and_name,
    probe_inputs,
    recorded,
)
from lib.fields import NamedText
from lib.healing import recipe as recipes
from lib.models.shapes import shape_of
from lib.sections import finding, looks, macro
from lib.sections.columns import DROPPED, MODEL
from lib.sections.figures import grid, log_axis, nothing, shared_legend
from lib.sections.looks import GREY, LEVEL
from lib.sections.section import Extra, Section, Table
from lib.sections.tables import columns, loss_table, record, sound


def outcomes(opened: OpenStudy) -> pd.DataFrame:
    """Mean accuracy over the tasks that the unpruned model can do, and loss, of every model."""
    rows, answered = [], macro.Answers(opened)
    models = sound(opened, recipe_conditions(opened)) if opened.study.recipes else []
    losses = loss_table(opened, models) if models else pd.DataFrame()
    for one, loss in zip(models, losses.itertuples(), strict=True):
        rows.append(columns(opened, one) | answered.outcome(one, loss))
    return pd.DataFrame(rows, columns=list(OUTCOMES)).astype({"seed": "Int64"})


def costs(opened: OpenStudy) -> pd.DataFrame:
    """What each recipe trains and takes, predicted from shapes and measured. Predicted times count
    products of matrices, and are relative to the first recipe on the same pruning."""
    rows: list[dict] = []
    shape, first = shape_of(opened.config, opened.study.adapted), {}
    for one in sound(opened, recipe_conditions(opened)) if opened.study.recipes else ():
        if one.healing is None:
            continue
        healing, recipe = one.healing, recipes.of(one.healing)
        report, took = record(opened, one, None), healing_provenance(opened, one)
        of_recipe = replace(shape, targets=healing.adapted)
        found = recipe.passes(healing, one.dropped, shape.n_layers, shape.head_in_layers)
        again = found.forward if healing.gradient_checkpointing else 0.0
        passes = (found.forward + again + found.back) * healing.batch * healing.length
        passes *= healing.steps
        before = first.setdefault((one.strategy, one.dropped, healing.seed), passes)
        row = {
            "learning_rate": healing.learning_rate,
            "predicted_parameters": recipe.trainable(of_recipe, healing, one.dropped),
            "trained_parameters": report["trainable_parameters"],
            "tokens": report["tokens"],
            "pretraining_tokens": opened.study.pretraining_tokens,
            "predicted_time": passes / before,
            "seconds": took.get("training_seconds"),
            "peak_memory_gb": (took.get("peak_memory_bytes") or np.nan) / 1e9,
            "peak_gpu_memory_gb": (took.get("peak_gpu_memory_bytes") or np.nan) / 1e9,
        }
        rows.append(columns(opened, one) | row)
    whole = dict.fromkeys(("seed", "tokens", "pretraining_tokens"), "Int64")
    return pd.DataFrame(rows, columns=list(COSTS)).astype(whole)


def compared(opened: OpenStudy) -> pd.DataFrame:
    """Every two recipes on the same prunings, means over the seeds; paired over questions."""
    sides: dict[tuple[str, int], dict[str, list[Condition]]] = {}
    for one in sound(opened, recipe_conditions(opened)) if opened.study.recipes else ():
        if one.healing:
            of = sides.setdefault((one.strategy, one.dropped.n), {})
            of.setdefault(one.recipe, []).append(one)
    rows, answered = [], macro.Answers(opened)
    for (strategy, n), of in sides.items():
        about = {"strategy": strategy, "n": n, "fraction": opened.fraction(n)}
        last = opened.n_layers - 1 in next(iter(of.values()))[0].dropped
        about["keeps_last"] = "" if last else "yes"
        for first, second in combinations(of, 2):
            for found in answered.compared(first, of[first], second, of[second]):
                rows.append(about | {"seeds": len(of[first])} | found)
    return pd.DataFrame(rows, columns=list(COMPARED))


def leads(compared: pd.DataFrame) -> pd.DataFrame:
    """The differences in points with their standard errors, over all tasks, for reading."""
    rows = [
        {"layers": one.strategy, "dropped": one.n, "compared": f"{one.compared} less {one.base}"}
        | {"accuracy, points": macro.points(one.difference, one.stderr)}
        | {"loss / ln V, points": macro.points(one.loss_difference, one.loss_stderr)}
        | {"questions": one.n_questions, "seeds": one.seeds}
        for one in compared[compared["role"] == "all"].itertuples()
    ]
    return pd.DataFrame(rows)


def costs_in_short(costs: pd.DataFrame) -> pd.DataFrame:
    """By recipe and number of layers, means over strategies and seeds, for reading."""
    of = costs.groupby(["n", "healing"], sort=False)
    mean = of[["trained_parameters", "predicted_time", "seconds", "peak_memory_gb"]].mean()
    mean["trained_parameters"] = [f"{round(count):,}" for count in mean["trained_parameters"]]
    return mean.reset_index()


def rate_conditions(opened: OpenStudy) -> list[Condition]:
    """One pruning, healed with every recipe at every rate that is tried; once with two that train
    the same of it."""
    settings = opened.study.what_to_train
    name = (settings.strategies or opened.strategies)[0]
    found = [
        plainly(opened, one)
        for recipe in opened.study.recipes
        for rate in settings.learning_rates
        for one in healed(
            opened,
            recipe.model_copy(update={"learning_rate": rate, "seed": settings.seeds[0]}),
            settings.fractions[:1],
            [name],
        )[1:]
    ]
    return list({repr(one): one for one in found}.values())


def learning_rates(opened: OpenStudy) -> pd.DataFrame:
    """The loss of that pruning on the held-out text by recipe and rate: the lowest is chosen."""
    rows = []
    for one in rate_conditions(opened):
        if (value := held_out_loss(opened, one)) is None:
            continue
        rows.append(
            columns(opened, one)
            | {"learning_rate": one.healing.learning_rate}
            | {key: value[key] for key in ("loss", "stderr", "n_tokens")}
        )
    table = pd.DataFrame(rows, columns=[key for key in RATES if key not in CHOICE])
    best = table.groupby("healing")["loss"].transform("min") == table["loss"]
    tried = opened.study.what_to_train.learning_rates
    at_edge = table["learning_rate"].isin([min(tried), max(tried)] if tried else [])
    used = {one.name: one.learning_rate for one in opened.study.recipes}
    return table.assign(
        chosen=np.where(best, "yes", ""),
        edge=np.where(best & at_edge, "yes", ""),
        used=np.where(table["healing"].map(used) == table["learning_rate"], "yes", ""),
    ).astype({"seed": "Int64"})


def held_out_loss(opened: OpenStudy, one: Condition) -> dict[str, float] | None:
    """From evidence, or measured now: of this model nothing else is. None: its healing broke
    down."""
    if broken(opened, one):
        return None
    text = NamedText(name="held-out text", **opened.study.held_out_text.model_dump())
    probe = OtherLoss(text, opened.study.loss)
    if (found := recorded(opened, one, probe)) is not None:
        return found
    with materialised(opened, one) as model:
        if broken(opened, one):
            return None
        rows = opened.documents(text, probe.sample)
        batch, pad = opened.study.batch, opened.tokenizer.pad_token_id
        value = evaluate.next_token_loss(model, rows, batch, pad)
    kind, name = kind_and_name(one, probe)
    opened.store.put(kind, name, probe_inputs(opened, one, probe), value, batch=batch)
    return value


def _extras(opened: OpenStudy) -> list[Extra]:
    """What takes training alone is measured as an extra: nothing but a loss is asked."""
    models = rate_conditions(opened)
    if not models:
        return []

    def measure(of: OpenStudy) -> None:
        for one in rate_conditions(of):
            held_out_loss(of, one)

    trained = sum(3 * one.healing.steps * one.healing.batch * one.healing.length for one in models)
    what = f"learning rates, {len(models)} trainings"
    return [Extra("learning-rates", what, measure, tokens=trained)]


def rate_panels(rates: pd.DataFrame) -> Figure:
    """Loss on the held-out text against the learning rate, a line for each recipe; a ring around
    the rate that the study uses."""
    if rates.empty:
        return nothing("This study tries no learning rates.")
    figure, panels = grid(1, 1, width=7, height=3.6)
    axes = panels[0, 0]
    styles = looks.series(rates["healing"].unique())
    for name, of in rates.groupby("healing", sort=False):
        axes.errorbar(
            of["learning_rate"], of["loss"], yerr=of["stderr"], label=name, **styles[name]
        )
        used = of[of["used"] == "yes"]
        ring = {"facecolors": "none", "edgecolors": "black", "zorder": 3}
        axes.scatter(used["learning_rate"], used["loss"], s=110, **ring)
    axes.set(xscale="log", xlabel="Peak learning rate", ylabel="Held-out loss, nats per token")
    log_axis(axes.xaxis)
    shared_legend(figure, panels)
    return figure


def panels(models: pd.DataFrame, by: str = "healing") -> Figure:
    """Accuracy and normalised loss by recipe, or by another column, a row of panels for each
    strategy: a mark for each number of layers dropped, with one standard error."""
    pruned = models[models["strategy"] != "none"]
    if pruned.empty:
        return nothing("This study compares no recipes.")
    names = ["none", *(one for one in dict.fromkeys(pruned[by]) if one != "none")]
    strategies = list(dict.fromkeys(pruned["strategy"]))
    figure, axes_of = grid(len(strategies), 2, width=4.4, height=0.36 * len(names) + 1.0)
    whole = models[(models["strategy"] == "none") & (models["state"] == "unhealed")].iloc[0]
    styles = looks.ordered(pruned["n"])
    for strategy, row in zip(strategies, axes_of, strict=True):
        rows = pruned[(pruned["strategy"] == strategy) & (pruned["state"] != "control")]
        for axes, value, error, level in (
            (row[0], "accuracy", "stderr", whole["chance"]),
            (row[1], "normalized_loss", "loss_stderr", 1.0),
        ):
            for n, of in rows.groupby("n"):
                mean = of.groupby(by, sort=False)[[value, error]].mean()
                axes.errorbar(
                    mean[value],
                    [names.index(name) for name in mean.index],
                    xerr=mean[error],
                    linestyle="none",
                    **styles[n],
                    label=f"{n} layers dropped",
                )
            axes.axvline(whole[value], color=LEVEL, linewidth=1, label="unpruned")
            axes.axvline(level, color=GREY, linestyle="-.", linewidth=1, label="chance; ln V")
            axes.set_yticks(range(len(names)), ["not healed", *names[1:]])
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_title(strategy, fontsize="medium")
        row[1].tick_params(labelleft=False)
    axes_of[-1, 0].set_xlabel("Accuracy, mean over tasks")
    axes_of[-1, 1].set_xlabel("Loss / ln V")
    shared_legend(figure, axes_of)
    return figure


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """Which recipe repairs most, of the fewest layers dropped by the first strategy."""
    table = finding.rows(made, "what_to_train", "n", "accuracy")
    table = table[table["n"] > 0]
    if not (table["state"] == "healed").any():
        return ""
    cut = (table["strategy"] == table["strategy"].iloc[0]) & (table["n"] == table["n"].min())
    unhealed, healed = (table[cut & (table["state"] == one)] for one in ("unhealed", "healed"))
    scores = healed.groupby("healing")["accuracy"].mean().to_dict()
    compared = finding.rows(made, "recipes_compared", "n", "difference", "stderr")
    of = (compared["strategy"] == healed["strategy"].iloc[0]) & (compared["n"] == table["n"].min())
    top, unsure = finding.best(scores, compared[of & (compared["role"] == "all")])
    one = healed[healed["healing"] == top].iloc[0]
    before = f"from {finding.percent(unhealed['accuracy'].mean())} " * bool(len(unhealed))
    after = finding.with_error(100 * scores[top], 100 * one["stderr"])
    return (
        f"With {finding.dropped(one['fraction'])}, {top} repairs most, "
        f"{before}to {after}% right answers ({one['n_questions']} questions)"
        f"{finding.beside(len(scores) - 1, unsure)}."
    )


OUTCOMES = {**MODEL, **macro.OUTCOME}
COSTS = {
    **MODEL,
    "learning_rate": "peak learning rate",
    "predicted_parameters": "parameters that are trained, from the shape of the model",
    "trained_parameters": "parameters that were trained",
    "tokens": "that were read in training, all epochs, without padding",
    "pretraining_tokens": "that the model itself was trained on, as the study says; empty: not "
    "known",
    "predicted_time": "products of matrices in training over those of the first recipe",
    "seconds": "training time; empty where it was interrupted",
    "peak_memory_gb": "largest memory of the process until then, in GB",
    "peak_gpu_memory_gb": "largest memory on the GPU, in GB; empty where it was trained on none",
}
CHOICE = {
    "chosen": "`yes`: the lowest loss of its recipe",
    "edge": "`yes`: chosen, and at the edge of the rates that were tried",
    "used": "`yes`: what the study trains this recipe with",
}
RATES = {
    **MODEL,
    "learning_rate": "peak learning rate",
    "loss": "on the held-out text, in nats per token",
    "stderr": "standard error of the loss",
    "n_tokens": "number of tokens predicted",
    **CHOICE,
}
COMPARED = {
    "strategy": MODEL["strategy"],
    **DROPPED,
    "keeps_last": "`yes`: the last layer stays",
    "seeds": "number of seeds of healing",
    **macro.compared_columns("a recipe"),
}
SECTION = Section(
    conditions=lambda opened: {"": recipe_conditions(opened)},
    extras=_extras,
    tables=(
        Table("what_to_train", outcomes, "a model", OUTCOMES),
        Table("training_costs", costs, "a healed model", COSTS),
        Table("recipes_compared", compared, "a pruning and two recipes", COMPARED),
        Table("learning_rates", learning_rates, "a recipe and a learning rate", RATES),
    ),
    claims=tuple(f"lu-{number}" for number in (*range(12, 21), 34, 36)),
    in_short=sentence,
)
