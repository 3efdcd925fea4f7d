"""All at once, or step by step (Tables 5 and C and Fig. B of Lu et al.)."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.claims.rules.lu_schedules import LONGER, ONCE, STEPS, TWO_SEEDS, TWO_WAYS
from lib.experiments.conditions import Condition, Done, unpruned
from lib.experiments.further_conditions import distinct
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import broken
from lib.experiments.representations import alignment
from lib.experiments.schedules import Schedule, at_once, carry_out, outcomes, schedules
from lib.healing import recipe as recipes
from lib.sections import looks, macro
from lib.sections.columns import DROPPED, MODEL
from lib.sections.figures import fraction_axis, grid, nothing, shared_legend
from lib.sections.looks import GREY
from lib.sections.section import Extra, Section, Table
from lib.sections.tables import columns, loss_table, sound

ALIGNMENT = "alignment"
Ways = dict[str, list[Condition]]


def conditions(opened: OpenStudy) -> dict[str, list[Condition]]:
    """The unpruned model and what is pruned at once; what is trained for longer is a group for each
    number of steps. Those in steps are not known before their steps are carried out."""
    found = {"": [unpruned(opened)]}
    for one in schedules(opened):
        found[""] += at_once(opened, one)
        for n, longer in zip(one.ns, at_once(opened, one, longer=True), strict=True):
            found.setdefault(f"times-{n // one.each}", []).append(longer)
    return {group: distinct(ones) for group, ones in found.items()}


def _by_way(opened: OpenStudy, one: Schedule) -> dict[int, dict[str, Condition]]:
    """By number of layers the models that are compared, those of which no healing broke down."""
    carry_out(opened, one)
    found: dict[int, dict[str, Condition]] = {n: {} for n in one.ns}
    ways = {
        STEPS: outcomes(opened, one),
        ONCE: at_once(opened, one),
        LONGER: at_once(opened, one, longer=True),
    }
    for way, models in ways.items():
        for model in models:
            if not broken(opened, model):
                found[model.dropped.n][way] = model
    return found


def _models(opened: OpenStudy) -> Iterator[tuple[Schedule, str, Condition]]:
    for one in schedules(opened):
        for ways in _by_way(opened, one).values():
            for way, model in ways.items():
                yield one, way, model


def models(opened: OpenStudy) -> pd.DataFrame:
    """Mean accuracy over the tasks that the unpruned model can do, and loss, by way of pruning."""
    answered, rows = macro.Answers(opened), []
    for one, way, model in _models(opened):
        (loss,) = loss_table(opened, [model]).itertuples()
        times = len(model.before) + 1
        trained = sum(step.healing.steps for step in (*model.before, model) if step.healing)
        about = {
            "strategy": one.strategy,
            "way": way,
            "each": one.each,
            "steps": times,
            "trained": trained,
        }
        about["just_trained"] = _just_trained(opened, model)
        rows.append(columns(opened, model) | about | answered.outcome(model, loss))
    for model in sound(opened, [unpruned(opened)]) if rows else []:
        (loss,) = loss_table(opened, [model]).itertuples()
        rows.append(columns(opened, model) | answered.outcome(model, loss))
    table = pd.DataFrame(rows, columns=list(OUTCOMES))
    return table.astype(dict.fromkeys(("seed", "each", "steps", "trained"), "Int64"))


def _just_trained(opened: OpenStudy, model: Condition) -> float:
    """Of the layers that went after the first step, the share that the step before had trained."""
    gone, later, trained = set(), 0, 0
    for step, following in pairwise([*model.before, Done(model.last, model.healing)]):
        gone |= {*step.dropped}
        went = {*following.dropped}
        if step.healing is not None:
            recipe = recipes.of(step.healing)
            trained += len(went & {*recipe.reached(step.healing, gone, opened.n_layers)})
        later += len(went)
    return trained / later if later else np.nan


def compared(opened: OpenStudy) -> pd.DataFrame:
    """What steps gain on all at once, trained as long as one step or as all; over the seeds."""
    sides: dict[tuple, dict[str, list[Condition]]] = {}
    for one in schedules(opened):
        for n, ways in _by_way(opened, one).items():
            key = (one.strategy, one.recipe.name, one.each, n)
            for way, model in ways.items() if len(ways) == len((STEPS, ONCE, LONGER)) else ():
                sides.setdefault(key, {}).setdefault(way, []).append(model)
    answered, rows = macro.Answers(opened), []
    for (strategy, recipe, each, n), of in sides.items():
        about = {"strategy": strategy, "n": n, "fraction": opened.fraction(n)}
        about |= {"healing": recipe, "each": each, "seeds": len(of[STEPS])}
        about["just_trained"] = float(np.mean([_just_trained(opened, one) for one in of[STEPS]]))
        for way in (ONCE, LONGER):
            for found in answered.compared(STEPS, of[STEPS], way, of[way]):
                rows.append(about | found)
    return pd.DataFrame(rows, columns=list(COMPARED))


def _aligned(opened: OpenStudy) -> list[tuple[Schedule, str, int, tuple[Condition, Condition]]]:
    """Pairs of models of n layers less: in steps and at once, and at once with two seeds."""
    found, by_seed = [], {}
    for one in schedules(opened):
        for n, ways in _by_way(opened, one).items():
            if {STEPS, ONCE} <= ways.keys():
                found.append((one, TWO_WAYS, n, (ways[STEPS], ways[ONCE])))
                first = by_seed.setdefault((one.strategy, one.recipe.name, one.each, n), ways[ONCE])
                if first != ways[ONCE]:
                    found.append((one, TWO_SEEDS, n, (first, ways[ONCE])))
    return found


def aligned(opened: OpenStudy) -> pd.DataFrame:
    """Linear CKA of what enters each layer in two models of as many layers."""
    rows, pairs = [], _aligned(opened)
    values = alignment(opened, ALIGNMENT, [pair for *_, pair in pairs])
    for (one, what, n, pair), found in zip(pairs, values, strict=True):
        about = {"strategy": one.strategy, "n": n, "fraction": opened.fraction(n)}
        about |= {"healing": one.recipe.name, "each": one.each, "pair": what}
        about |= {"seed": pair[1].healing.seed if pair[1].healing else None}
        for layer, (cka, stderr) in enumerate(zip(found["cka"], found["stderr"], strict=True)):
            rows.append(about | {"layer": layer, "cka": cka, "stderr": stderr})
    return pd.DataFrame(rows, columns=list(ALIGNED)).astype({"seed": "Int64"})


def _extras(opened: OpenStudy) -> list[Extra]:
    """A job for each schedule, since its steps wait for each other; then what their models have in
    common."""
    found = [
        Extra(
            f"schedule-{one.name}",
            f"{one.strategy}, {one.each} at a time, {one.recipe.name}, seed {one.recipe.seed}",
            lambda of, one=one: carry_out(of, one),
            trains=steps,
            asks=tuple(model for model in steps if model.dropped.n in one.ns),
        )
        for one in schedules(opened)
        for steps in [_expected(opened, one) if opened.planned else ()]
    ]
    if not found:
        return []
    sample = opened.study.distances
    read = 3 * len(found) * sample.n_sequences * sample.length
    what, needs = "how alike models in steps and at once are", tuple(one.name for one in found)

    alike = Extra(ALIGNMENT, what, aligned, tokens=read, needs=needs, after_models=True)
    return [*found, alike]


def _expected(opened: OpenStudy, one: Schedule) -> tuple[Condition, ...]:
    """For a plan: each step trains one model, of so many layers less."""
    ns = range(one.each, one.ns[-1] + 1, one.each)
    chosen = [opened.chosen(one.strategy, n) for n in ns]
    weights = opened.weights_of(one.recipe)
    return tuple(Condition(one.strategy, dropped, weights, one.recipe) for dropped in chosen)


def panels(compared: pd.DataFrame) -> Figure:
    """What steps gain on all at once against the fraction dropped: accuracy above, loss below,
    where less is better; a column for the training of one step and one for that of all."""
    rows = compared[compared["role"] == "all"]
    if rows.empty:
        return nothing("This study prunes nothing in steps.")
    figure, axes_of = grid(2, 2, width=4.4, height=2.6)
    named = rows.groupby(["strategy", "healing", "each"], sort=False)
    shift = 0.006
    styles = looks.series(range(named.ngroups))
    for number, ((strategy, healing, each), of) in enumerate(named):
        look = styles[number] | {"label": f"{strategy}, {each} at a time, {healing}", "capsize": 3}
        for column, way in enumerate((ONCE, LONGER)):
            points = of[of["base"] == way]
            for row, (value, error) in enumerate(VALUES):
                axes_of[row, column].errorbar(
                    points["fraction"] + shift * (number - named.ngroups / 2),
                    100 * points[value],
                    yerr=200 * points[error],
                    **look,
                )
    for row, label in enumerate(("Accuracy, points", "Loss / ln V, points")):
        axes_of[row, 0].set_ylabel(label)
        for axes in axes_of[row]:
            axes.axhline(0, color=GREY, linewidth=1)
            fraction_axis(axes)
    axes_of[0, 0].set_title("less all at once, as long as one step", fontsize="medium")
    axes_of[0, 1].set_title("less all at once, as many tokens", fontsize="medium")
    shared_legend(figure, axes_of)
    return figure


def alignment_panels(aligned: pd.DataFrame) -> Figure:
    """1 − CKA against the layer: in steps and at once, beside two seeds of healing at once; a panel
    for each schedule, the most layers that it drops."""
    if aligned.empty:
        return nothing("This study prunes nothing in steps.")
    named = list(aligned.groupby(["strategy", "healing", "each"], sort=False))
    figure, axes_of = grid(-(-len(named) // 2), min(2, len(named)), width=4.4, height=2.6)
    for axes, ((strategy, healing, each), of) in zip(axes_of.flat, named, strict=False):
        of = of[of["n"] == of["n"].max()]
        styles = looks.series(of["pair"].unique())
        for what, rows in of.groupby("pair", sort=False):
            mean = rows.groupby("layer")[["cka", "stderr"]].mean()
            axes.errorbar(
                mean.index,
                1 - mean["cka"],
                yerr=mean["stderr"],
                **styles[what],
                label=what,
            )
        axes.set_title(f"{strategy}, {each} at a time, {healing}", fontsize="medium")
        axes.set_xlabel("Layer of the pruned model")
    for axes in axes_of[:, 0]:
        axes.set_ylabel("1 − CKA")
    for axes in axes_of.flat[len(named) :]:
        axes.set_axis_off()
    shared_legend(figure, axes_of)
    return figure


def leads(compared: pd.DataFrame) -> pd.DataFrame:
    """The differences in points with their standard errors, over all tasks, for reading."""
    rows = [
        {"layers": one.strategy, "healing": one.healing, "dropped": one.n, "at a time": one.each}
        | {"less": one.base, "seeds": one.seeds}
        | {"accuracy, points": macro.points(one.difference, one.stderr)}
        | {"loss / ln V, points": macro.points(one.loss_difference, one.loss_stderr)}
        | {"questions": one.n_questions}
        for one in compared[compared["role"] == "all"].itertuples()
    ]
    return pd.DataFrame(rows)


VALUES = (("difference", "stderr"), ("loss_difference", "loss_stderr"))
EACH = {"each": "layers that one step drops"}
JUST = {
    "just_trained": "of the layers that went after the first step, the share that the step before "
    "had trained; empty where there was one step"
}
OUTCOMES = {
    **MODEL,
    "way": f"`{STEPS}`, `{ONCE}` or `{LONGER}` as in all steps; empty: unpruned",
    **EACH,
    "steps": "number of steps in which it was pruned",
    "trained": "training steps, all together",
    **JUST,
    **macro.OUTCOME,
}
COMPARED = {
    "strategy": MODEL["strategy"],
    **DROPPED,
    "healing": "recipe",
    **EACH,
    "seeds": "number of seeds of healing",
    **JUST,
    **macro.compared_columns("a way of pruning"),
}
ALIGNED = {
    "strategy": MODEL["strategy"],
    **DROPPED,
    "healing": "recipe",
    **EACH,
    "pair": f"`{TWO_WAYS}`: two ways of one seed; `{TWO_SEEDS}`: the first and another",
    "seed": "of the second model",
    "layer": "what enters it, by its number in the pruned model; the last: what leaves the last",
    "cka": "linear CKA at the last token of each window",
    "stderr": "its standard error, of a jackknife over windows",
}
SECTION = Section(
    conditions=conditions,
    extras=_extras,
    tables=(
        Table("step_by_step", models, "a model", OUTCOMES),
        Table("steps_compared", compared, "a schedule and what it is set against", COMPARED),
        Table("steps_aligned", aligned, "a layer of two models", ALIGNED),
    ),
    claims=tuple(f"lu-{number}" for number in range(21, 26)),
)
