"""Keep the last layer or drop it, healed in several ways or not: where two papers disagree."""

from itertools import combinations
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lib.claims.rules import reading
from lib.experiments.conditions import Condition
from lib.experiments.further_conditions import last_layer_conditions
from lib.experiments.opened import OpenStudy
from lib.sections import finding, looks, macro
from lib.sections.columns import DROPPED
from lib.sections.figures import grid, nothing, shared_legend
from lib.sections.looks import GREY
from lib.sections.section import Section, Table
from lib.sections.tables import sound

Sides = dict[tuple[int, str], dict[str, list[Condition]]]


def _sides(opened: OpenStudy) -> Sides:
    """By number of layers and healing, the models of both strategies; those alone that both have.
    Where a recipe changes the number format, the unhealed ones are in the study's own."""
    settings, found = opened.study.last_layer, {}
    for one in sound(opened, last_layer_conditions(opened)):
        if one.dropped and (one.healing or one.weights == opened.weights):
            of = found.setdefault((one.dropped.n, one.recipe), {})
            of.setdefault(one.strategy, []).append(one)
    both = (settings.keeps, settings.drops)
    return {key: of for key, of in found.items() if all(name in of for name in both)}


def advantage(opened: OpenStudy) -> pd.DataFrame:
    """What keeping the last layer gains on dropping it, by healing."""
    settings, answered, rows = opened.study.last_layer, macro.Answers(opened), []
    for (n, healing), of in _sides(opened).items():
        about = {"n": n, "fraction": opened.fraction(n), "healing": healing}
        one, other = of[settings.keeps], of[settings.drops]
        for found in answered.compared(settings.keeps, one, settings.drops, other):
            rows.append(about | {"seeds": len(one)} | found)
    return pd.DataFrame(rows, columns=list(ADVANTAGE))


def interaction(opened: OpenStudy) -> pd.DataFrame:
    """By how much the advantage under one way of healing exceeds that under another."""
    settings, answered, rows = opened.study.last_layer, macro.Answers(opened), []
    sides, keeps, drops = _sides(opened), settings.keeps, settings.drops
    for n in sorted({n for n, _ in sides}):
        ways = {healing: of for (m, healing), of in sides.items() if m == n}
        for first, second in combinations(ways, 2):
            a, b = ways[first], ways[second]
            for role in answered.groups:
                found = answered.contrast([a[keeps], b[drops]], [a[drops], b[keeps]], role)
                if found is None:
                    continue
                row = {"n": n, "fraction": opened.fraction(n), "role": role}
                row |= {"healing": first, "other": second, "tasks": found.tasks}
                row |= {"n_questions": found.questions, "stderr": found.stderr}
                rows.append(row | {"interaction": found.value})
    return pd.DataFrame(rows, columns=list(INTERACTION))


def panels(advantage: pd.DataFrame) -> Figure:
    """What keeping the last layer gains on dropping it, by healing: accuracy above, loss below,
    where less is better; a mark for each number of layers, with two standard errors."""
    rows = advantage[advantage["role"] == "all"]
    if rows.empty:
        return nothing("This study does not compare keeping the last layer with dropping it.")
    ways = list(dict.fromkeys(rows["healing"]))
    figure, axes_of = grid(2, 1, width=7, height=2.7)
    styles = looks.ordered(rows["n"])
    for axes, value, error, label in (
        (axes_of[0, 0], "difference", "stderr", "Accuracy, points"),
        (axes_of[1, 0], "loss_difference", "loss_stderr", "Loss / ln V, points"),
    ):
        for number, (n, look) in enumerate(styles.items()):
            of = rows[rows["n"] == n]
            shift = 0.16 * (number - (len(styles) - 1) / 2)
            axes.errorbar(
                of["healing"].map(ways.index) + shift,
                100 * of[value],
                yerr=200 * of[error],
                linestyle="none",
                **look,
                capsize=3,
                label=f"{n} layers dropped",
            )
        axes.axhline(0, color=GREY, linewidth=1)
        axes.set_xticks(range(len(ways)), ["not healed" if one == "none" else one for one in ways])
        axes.set(ylabel=label, xlim=(-0.5, len(ways) - 0.5))
    axes_of[0, 0].set_title("Keeping the last layer less dropping it", fontsize="medium")
    shared_legend(figure, axes_of)
    return figure


def in_short(advantage: pd.DataFrame) -> pd.DataFrame:
    """The advantage in points with its standard error, over all tasks, for reading."""
    rows = []
    for one in advantage[advantage["role"] == "all"].itertuples():
        rows.append(
            {"layers dropped": one.n, "healing": one.healing, "seeds": one.seeds}
            | {"accuracy, points": macro.points(one.difference, one.stderr)}
            | {"loss / ln V, points": macro.points(one.loss_difference, one.loss_stderr)}
            | {"questions": one.n_questions}
        )
    return pd.DataFrame(rows)


def interactions_in_short(interaction: pd.DataFrame) -> pd.DataFrame:
    """The interactions in points with their standard errors, over all tasks, for reading."""
    rows = [
        {"layers dropped": one.n, "gain": f"{one.healing} less {one.other}"}
        | {"accuracy, points": macro.points(one.interaction, one.stderr)}
        | {"questions": one.n_questions}
        for one in interaction[interaction["role"] == "all"].itertuples()
    ]
    return pd.DataFrame(rows)


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """Who leads, to keep the last layer or to drop it, and whether healing changes that."""
    table = finding.rows(made, "last_layer", "difference", "stderr")
    table = table[table["role"] == "all"]
    if table.empty:
        return ""
    changes = finding.rows(made, "last_layer_interaction", "interaction", "stderr")
    changes = changes[changes["role"] == "all"]
    sides = ("keeping the last layer", "dropping it")
    text = finding.leads(table, *sides, _healed_how, "in", "comparison")
    text = f"{text[0].upper()}{text[1:]}."
    if changes.empty:
        return text
    clear = sum(map(finding.sure, changes["interaction"], changes["stderr"]))
    pairs = finding.of(clear, len(changes), "pair")
    return f"{text} Of two ways of healing, or none, the gains differ in {pairs}."


def _healed_how(row: dict[str, Any]) -> str:
    how = "unhealed" if row["healing"] == "none" else f"healed with {row['healing']}"
    return f"on {row['n_questions']} questions, {reading.percent(row['fraction'])} dropped, {how}"


ADVANTAGE = {
    **DROPPED,
    "healing": "recipe; `none`: not healed",
    "seeds": "number of seeds of healing",
    **macro.compared_columns("the strategy that keeps the last layer"),
}
INTERACTION = {
    **DROPPED,
    "role": ADVANTAGE["role"],
    "healing": ADVANTAGE["healing"],
    "other": "another way of healing",
    "tasks": "number of tasks",
    "n_questions": "number of their questions",
    "interaction": "advantage in accuracy of keeping the last layer under the one less that "
    "under the other, paired over questions",
    "stderr": "its standard error",
}
SECTION = Section(
    conditions=lambda opened: {"": last_layer_conditions(opened)},
    tables=(
        Table("last_layer", advantage, "a number of layers and a way of healing", ADVANTAGE),
        Table(
            "last_layer_interaction",
            interaction,
            "a number of layers and two ways of healing",
            INTERACTION,
        ),
    ),
    claims=("lu-10",),
    in_short=sentence,
)
