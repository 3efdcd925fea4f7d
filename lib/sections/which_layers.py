"""Ways to choose the layers, beside layers drawn by chance (Tables 1, A and D of Lu et al.)."""

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from lib.experiments.choosing import passes
from lib.experiments.conditions import Condition
from lib.experiments.further_conditions import layer_conditions
from lib.experiments.opened import OpenStudy
from lib.pruning.dropped import Dropped
from lib.sections import finding, macro
from lib.sections.columns import DROPPED, MODEL
from lib.sections.section import Extra, Section, Table
from lib.sections.tables import columns, loss_table, sound

DRAW = {"draw": "which draw, of a strategy that draws by chance; else empty"}
DRAWS = "mean of the draws"  # of a strategy, as one side of a comparison


def by_draw(opened: OpenStudy) -> Iterator[tuple[int | None, Condition]]:
    """Every sound model of the section, with the draw that it is."""
    for group, conditions in layer_conditions(opened).items():
        draw = int(group.removeprefix("draw-")) if group else None
        for one in sound(opened, conditions):
            yield draw, one


def sizes(opened: OpenStudy) -> list[int]:
    """The numbers of layers at which all strategies are compared."""
    return opened.healed_ns(opened.study.which_layers.fractions)


def choices_made(opened: OpenStudy) -> pd.DataFrame:
    """The layers that every strategy drops, at every n; of those that draw by chance every draw,
    at the numbers that are compared."""
    rows = []
    for name in opened.every_strategy:
        one = opened.strategy(name)
        for n in range(1, one.most(opened.n_layers) + 1):
            about = {"strategy": name, "n": n, "fraction": opened.fraction(n)}
            if not one.by_chance:
                rows.append(about | {"dropped": _listed(opened.chosen(name, n))})
            elif n in sizes(opened):
                for draw, dropped in enumerate(one.drawn(n, opened.n_layers)):
                    rows.append(about | {"draw": draw, "dropped": _listed(dropped)})
    return pd.DataFrame(rows, columns=list(CHOICES)).astype({"draw": "Int64"})


def _listed(dropped: Dropped) -> str:
    return " ".join(map(str, dropped))


def layer_scores(opened: OpenStudy) -> pd.DataFrame:
    """The score of each layer by every strategy that scores single layers, on every sample of the
    calibration text where it needs that; the lowest go first."""
    rows = []
    for name in opened.every_strategy:
        for draw in range(calibration_draws(opened, name)):
            found = opened.scores(name, draw)
            for layer, score in enumerate(found.get("scores", []) if found else []):
                rows.append({"strategy": name, "sample": draw, "layer": layer, "score": score})
    return pd.DataFrame(rows, columns=list(SCORES))


def calibration_draws(opened: OpenStudy, strategy: str) -> int:
    """Samples of the calibration text on which a strategy scores the layers."""
    several = opened.study.calibration and opened.strategy(strategy).calibrated
    return opened.study.which_layers.calibration_draws if several else 1


def agreement(opened: OpenStudy) -> pd.DataFrame:
    """Jaccard index of the sets that two strategies drop, and Kendall's τ of their scores; of one
    strategy, means over pairs of samples of the calibration text."""
    names = [one for one in opened.every_strategy if not opened.strategy(one).by_chance]
    rows = []
    for n in sizes(opened):
        able = [name for name in names if n <= opened.strategy(name).most(opened.n_layers)]
        sets = {name: _samples(opened, name, n) for name in able}
        for first, second in [*combinations(able, 2), *((name, name) for name in able)]:
            of_itself = combinations(range(len(sets[first])), 2)
            pairs = list(of_itself) if first == second else [(0, 0)]
            if not pairs:
                continue
            found = [jaccard(sets[first][i], sets[second][j]) for i, j in pairs]
            orders = [_tau(opened, first, second, i, j) for i, j in pairs]
            rows.append(
                {"n": n, "fraction": opened.fraction(n), "strategy": first, "other": second}
                | {"pairs": len(pairs), "jaccard": np.mean(found), "tau": np.mean(orders)}
            )
    return pd.DataFrame(rows)


def _samples(opened: OpenStudy, strategy: str, n: int) -> list[Dropped]:
    return [opened.chosen(strategy, n, i) for i in range(calibration_draws(opened, strategy))]


def jaccard(first: Dropped, second: Dropped) -> float:
    """Of two sets, what both have over what either has."""
    return len({*first} & {*second}) / len({*first} | {*second})


def _tau(opened: OpenStudy, first: str, second: str, i: int, j: int) -> float:
    """NaN where one of them has no score for each layer."""
    found = [opened.scores(first, i), opened.scores(second, j)]
    scores = [one.get("scores") if one else None for one in found]
    return float(kendalltau(*scores).statistic) if all(scores) else np.nan


def outcomes(opened: OpenStudy) -> pd.DataFrame:
    """Mean accuracy over the tasks that the unpruned model can do, and loss, of every model."""
    answered, models = macro.Answers(opened), list(by_draw(opened))
    losses = loss_table(opened, [one for _, one in models])
    rows = [
        columns(opened, one) | {"draw": draw} | answered.outcome(one, loss)
        for (draw, one), loss in zip(models, losses.itertuples(), strict=True)
    ]
    return pd.DataFrame(rows).astype({"draw": "Int64", "seed": "Int64"})


def compared(opened: OpenStudy) -> pd.DataFrame:
    """Every two strategies at the healed fractions, unhealed and healed, and each against the mean
    of the draws; paired over questions, by role of the tasks."""
    sides = _sides(opened, {*sizes(opened)})
    answered = macro.Answers(opened)
    rows = [
        {"n": n, "fraction": opened.fraction(n), "models": state} | row
        for (n, state), of in sides.items()
        for first, second in combinations(of, 2)
        for row in answered.compared(first, of[first], second, of[second])
    ]
    return pd.DataFrame(rows, columns=list(COMPARED))


def _sides(opened: OpenStudy, ns: set[int]) -> dict[tuple[int, str], dict[str, list[Condition]]]:
    """By number of layers and state, the models of each strategy; of one that draws, all draws."""
    found: dict[tuple[int, str], dict[str, list[Condition]]] = {}
    for draw, one in by_draw(opened):
        n, healed = one.dropped.n, one.healing is not None
        if n not in ns or (not healed and one.weights != opened.weights):
            continue
        name = one.strategy if draw is None else f"{one.strategy}, {DRAWS}"
        of = found.setdefault((n, "healed" if healed else "unhealed"), {})
        of.setdefault(name, []).append(one)
    return found


def _extras(opened: OpenStudy) -> list[Extra]:
    """Scores on further samples of the calibration text."""
    if not opened.study.which_layers.strategies or opened.study.calibration is None:
        return []
    more = [(name, calibration_draws(opened, name) - 1) for name in opened.every_strategy]
    more = [(name, draws) for name, draws in more if draws]
    sample = opened.study.calibration
    read = sum(
        draws * passes(opened.strategy(name), opened.n_layers, 1.0) / opened.n_layers
        for name, draws in more
    )

    def measure(of: OpenStudy) -> None:
        for name, draws in more:
            for draw in range(1, draws + 1):
                of.scores(name, draw)

    what = "scores of layers on further samples of the calibration text"
    tokens = round(read * sample.n_sequences * sample.length)
    return [Extra("further-samples", what, measure, tokens=tokens)] if more else []


def leads(compared: pd.DataFrame, strategy: str) -> pd.DataFrame:
    """What every other strategy gains on one, over all tasks, in points of accuracy and of loss."""
    rows = []
    for one in compared[compared["role"] == "all"].to_dict("records"):
        if strategy not in (one["compared"], one["base"]):
            continue
        first = one["base"] == strategy
        sign = 1 if first else -1
        accuracy, loss = (sign * one[key] for key in ("difference", "loss_difference"))
        rows.append(
            {"layers dropped": one["n"], "models": one["models"]}
            | {"strategy": one["compared"] if first else one["base"]}
            | {"accuracy, points": macro.points(accuracy, one["stderr"])}
            | {"loss / ln V, points": macro.points(loss, one["loss_stderr"])}
            | {"questions": one["n_questions"], "same layers": one["same"]}
        )
    return pd.DataFrame(rows)


def _made(
    make: Callable[[OpenStudy], pd.DataFrame], columns: dict[str, str]
) -> Callable[[OpenStudy], pd.DataFrame]:
    """No rows where the study compares no further strategies."""
    return lambda opened: (
        make(opened)
        if opened.study.which_layers.strategies
        else pd.DataFrame(columns=list(columns))
    )


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """Which strategy keeps most at the smallest size that is compared, unhealed."""
    table = finding.rows(made, "which_layers", "n", "accuracy")
    if not (table["n"] > 0).any():
        return ""
    table = table[table["n"] == table.loc[table["n"] > 0, "n"].min()]
    table = table[table["state"] == "unhealed"]
    drawn = table[table["draw"].notna()]
    own = table[table["draw"].isna()].set_index("strategy")
    if own.empty:
        return ""
    compared = finding.rows(made, "layers_compared", "n", "difference", "stderr")
    compared = compared[(compared["n"] == table["n"].iloc[0]) & (compared["role"] == "all")]
    top, unsure = finding.best(
        own["accuracy"].to_dict(), compared[compared["models"] == "unhealed"]
    )
    by_chance = finding.percent(drawn["accuracy"].mean())
    random = f"; layers drawn at random reach {by_chance} ({len(drawn)} draws)" * bool(len(drawn))
    right = finding.with_error(*100 * own.loc[top, ["accuracy", "stderr"]])
    return (
        f"With {finding.dropped(own['fraction'].iloc[0])}, unhealed, {top} "
        f"is the best of {len(own)} strategies with {right}% right answers "
        f"({own.loc[top, 'n_questions']} questions){finding.beside(len(own) - 1, unsure)}{random}."
    )


CHOICES = {
    "strategy": MODEL["strategy"],
    **DRAW,
    **DROPPED,
    "dropped": MODEL["dropped"],
}
SCORES = {
    "strategy": MODEL["strategy"],
    "sample": "number of the sample, 0 of the one by which layers are chosen",
    "layer": "counted from 0",
    "score": "of the layer; the lowest go first",
}
AGREEMENT = {
    **DROPPED,
    "strategy": "how the layers were chosen",
    "other": "another strategy, or the same on other samples of the calibration text",
    "pairs": "number of pairs of samples",
    "jaccard": "mean Jaccard index of the sets that they drop",
    "tau": "mean of Kendall's τ of their scores; empty where one has none",
}
OUTCOMES = {**MODEL, **DRAW, **macro.OUTCOME}
COMPARED = {
    **DROPPED,
    "models": "`unhealed` or `healed`",
    **macro.compared_columns(f"a strategy, or the {DRAWS} of one that draws by chance"),
}
ABOUT = {  # by table: what makes it, what a row is, and its columns
    "choices_made": (choices_made, "a strategy and a number of layers", CHOICES),
    "layer_scores": (layer_scores, "a strategy, a sample of calibration text and a layer", SCORES),
    "agreement": (agreement, "a number of layers and two strategies", AGREEMENT),
    "which_layers": (outcomes, "a model", OUTCOMES),
    "layers_compared": (compared, "a number of layers and two strategies", COMPARED),
}
SECTION = Section(
    conditions=layer_conditions,
    extras=_extras,
    tables=tuple(
        Table(name, _made(make, columns), row, columns)
        for name, (make, row, columns) in ABOUT.items()
    ),
    claims=tuple(f"lu-{number}" for number in (*range(1, 10), 11, 39)),
    in_short=sentence,
)
