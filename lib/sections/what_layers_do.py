"""What layers do to the residual stream, and which of it tells what their removal costs."""

import math

import numpy as np
import pandas as pd

from lib.experiments.conditions import Condition
from lib.experiments.further_conditions import single_layers
from lib.experiments.layer_measures import ALIKE, lens, lens_task, measures
from lib.experiments.opened import OpenStudy
from lib.sections import finding, macro
from lib.sections.columns import DROPPED
from lib.sections.layer_figures import ANGLE, NAMES, OWN, TWIN
from lib.sections.section import Extra, Section, Table
from lib.statistics.ranks import correlated


def conditions(opened: OpenStudy) -> dict[str, list[Condition]]:
    return {"": single_layers(opened)}


def layers(opened: OpenStudy) -> pd.DataFrame:
    """Every measure of every layer, of the model and of its untrained twin."""
    rows = []
    twins = [False, True] if opened.study.controls.untrained else [False]
    for untrained in twins:
        found = measures(opened, untrained)
        about = {"model": TWIN if untrained else OWN}
        sample = {"tokens": found["tokens"], "windows": found["windows"], "width": found["width"]}
        for name, of in found["measures"].items():
            for layer, (value, stderr) in enumerate(zip(of["value"], of["stderr"], strict=True)):
                if value is not None:
                    row = about | {"measure": name, "layer": layer}
                    rows.append(row | {"value": value, "stderr": stderr} | sample)
    return pd.DataFrame(rows, columns=list(LAYERS)).astype({"value": float, "stderr": float})


def looked_through(opened: OpenStudy) -> pd.DataFrame:
    """After each layer the share of questions of which the final answer is ahead."""
    found, rows = lens(opened), []
    task, settled = lens_task(opened), np.array(found["settled"] if found else [])
    for after, ahead in enumerate(found["ahead"] if found else []):
        count = len(settled)
        row = {"task": task.name, "after": after, "ahead": ahead}
        row |= {"ahead_stderr": math.sqrt(ahead * (1 - ahead) / count)}
        share = float((settled <= after).mean())
        row |= {"settled": share, "settled_stderr": math.sqrt(share * (1 - share) / count)}
        rows.append(row | {"n_questions": count, "left_out": found["left_out"]})
    return pd.DataFrame(rows, columns=list(LENS))


def costs(opened: OpenStudy) -> pd.DataFrame:
    """What the model loses without each layer: accuracy, the mean over the tasks that it can do
    whole, and loss."""
    whole, *singles = single_layers(opened)
    answered, rows = macro.Answers(opened), []
    for one in singles:
        loss, error = _dearer(answered, one, whole)
        lost = answered.difference([whole], [one]) or macro.Mean(np.nan, np.nan, 0, 0)
        (layer,) = one.dropped
        row = {"layer": layer, "loss": loss, "loss_stderr": error}
        row |= {"accuracy": lost.value, "stderr": lost.stderr}
        rows.append(row | {"tasks": lost.tasks, "n_questions": lost.questions})
    return pd.DataFrame(rows, columns=list(COSTS))


def _dearer(answered: macro.Answers, one: Condition, whole: Condition) -> tuple[float, float]:
    (without, error), (kept, other) = (answered.loss([side]) for side in (one, whole))
    return without - kept, math.hypot(error, other)


def predictors(opened: OpenStudy) -> pd.DataFrame:
    """Rank correlation of each measure with what a layer's removal costs."""
    lost, measured = costs(opened), layers(opened)
    rows = []
    for name, of in measured[measured["model"] == OWN].groupby("measure", sort=False):
        none = NAMES[name][1]
        values = of.set_index("layer")["value"].reindex(range(opened.n_layers)).to_numpy()
        change = none - values if none == 1 else values  # how much the layer does
        for cost in ("loss", "accuracy") if len(lost) else ():
            found = correlated(change, lost[cost].to_numpy(dtype=float))
            row = {"measure": name, "cost": cost, "rho": found.rho}
            rows.append(row | {"low": found.low, "high": found.high, "layers": found.count})
    return pd.DataFrame(rows, columns=list(PREDICTORS))


def blocks(opened: OpenStudy) -> pd.DataFrame:
    """The block of n layers that each measure of likeness would drop, the angle first."""
    optimal = pd.DataFrame(opened.measure_distances()["optimal"]).set_index("n")
    rows = []
    for size, of in measures(opened)["blocks"].items():
        n = int(size)
        angle, start = 1 - float(optimal.loc[n, "distance"]), int(optimal.loc[n, "start"])
        starts = {ANGLE: (start, angle)}
        for name in ALIKE:
            likeness = np.array([np.nan if value is None else value for value in of[name]])
            if np.isfinite(likeness).any():
                # Ties go to the deepest, as in eq. 7.
                best = len(likeness) - 1 - int(np.nanargmax(likeness[::-1]))
                starts[name] = best, float(likeness[best])
        for name, (begin, value) in starts.items():
            shared = max(0, n - abs(begin - start))
            row = {"measure": name, "n": n, "fraction": opened.fraction(n), "start": begin}
            row |= {"stop": begin + n, "likeness": value, "jaccard": shared / (2 * n - shared)}
            rows.append(row)
    return pd.DataFrame(rows, columns=list(BLOCKS))


def _extras(opened: OpenStudy) -> list[Extra]:
    study = opened.study
    read = study.distances.n_sequences * study.distances.length
    back = 3 * min(study.what_layers_do.gradients, study.distances.n_sequences)
    tokens = read + back * study.distances.length
    found = [Extra("layers", "what layers do", measures, tokens=tokens)]
    if study.controls.untrained:
        what = "what layers of the untrained twin do"
        found.append(Extra("layers-untrained", what, lambda of: measures(of, True), tokens=tokens))
    if lens_task(opened) is not None:
        found.append(Extra("lens", "answers after each layer", lens, seconds=5.0))
    return found


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """Which layer is missed most, and which measure tells best what is lost."""
    costs = finding.rows(made, "layer_costs", "loss", "loss_stderr")
    found = finding.rows(made, "layer_predictors", "rho", "low", "high")
    found, parts = found[found["cost"] == "loss"], []
    if len(costs):
        most = costs.loc[costs["loss"].idxmax()]
        added = finding.with_error(most["loss"], most["loss_stderr"], 2)
        layers = finding.counted(len(costs), "layer")
        parts.append(
            f"Of {layers}, layer {most['layer']:.0f} is missed most: without it the loss rises by "
            f"{added} of ln V."
        )
    if len(found):
        best = found.loc[found["rho"].idxmax()]
        span = f"{best['rho']:.2f} [{best['low']:.2f}, {best['high']:.2f}]"
        sure = finding.of((found["low"] > 0).sum(), len(found), "correlation")
        parts.append(
            f"What a layer costs is told best by {best['measure']}, with a rank correlation of "
            f"{span}; surely above zero are {sure}."
        )
    return " ".join(parts)


LAYERS = {
    "model": f"`{OWN}`, or `{TWIN}`: of the same configuration with random weights",
    "measure": "`angular`, `cosine`, `cka`, `svcca`, `procrustes`, `linear` and `linear_update`: "
    "between what enters and what leaves the layer; `norm` of what enters it; `update`, "
    "`attention`, `ffn`: norms of what is added, over that norm; `dimension` of what enters it; "
    "`gradient`: norm of that of its weights",
    "layer": "counted from 0",
    "value": "of the measure; a layer of which it is not known has no row",
    "stderr": "its standard error: over windows; of `cka`, `svcca` and `procrustes` by a jackknife "
    "over five groups of windows, of `linear` and `linear_update` over these groups, each held out "
    "once; of `gradient` over batches",
    "tokens": "tokens that all but the means are of",
    "windows": "windows that the means are of",
    "width": "of the residual stream",
}
LENS = {
    "task": "name of the task",
    "after": "layers that have been run",
    "ahead": "share of the questions whose final answer is ahead of the others by then",
    "ahead_stderr": "its standard error",
    "settled": "share of the questions whose final answer stays ahead from then on",
    "settled_stderr": "its standard error",
    "n_questions": "number of questions",
    "left_out": "questions with two answers that begin with the same token",
}
COSTS = {
    "layer": "the layer that is left out, counted from 0",
    "loss": "what is added to the loss over ln V",
    "loss_stderr": "its standard error, of two losses side by side",
    "accuracy": "what is lost of the mean accuracy over the tasks that the whole model can do",
    "stderr": "its standard error, paired over questions",
    "tasks": "number of these tasks",
    "n_questions": "number of their questions",
}
PREDICTORS = {
    "measure": "as in `layer_measures`; of likenesses 1 less the value",
    "cost": "`loss` or `accuracy`, as in `layer_costs`",
    "rho": "Spearman's rank correlation over layers",
    "low": "lower end of its 95% interval, of a bootstrap over layers",
    "high": "upper end",
    "layers": "number of layers; of fewer than 8 nothing is said",
}
BLOCKS = {
    "measure": "`angular` as in eq. 7, or another likeness of what enters and leaves the block",
    **DROPPED,
    "start": "first layer of the block that is most alike",
    "stop": "first layer behind it",
    "likeness": "of that block; of `angular` 1 less the distance",
    "jaccard": "index of its layers and those of eq. 7",
}
SECTION = Section(
    conditions=conditions,
    extras=_extras,
    claims=("lu-41",),
    tables=(
        Table("layer_measures", layers, "a measure of a layer of a model", LAYERS),
        Table("logit_lens", looked_through, "a number of layers", LENS),
        Table("layer_costs", costs, "a layer", COSTS),
        Table("layer_predictors", predictors, "a measure and a cost", PREDICTORS),
        Table("layer_blocks", blocks, "a measure of likeness and a number of layers", BLOCKS),
    ),
    in_short=sentence,
)
