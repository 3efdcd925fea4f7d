"""Cuts repaired without training, beside the same cuts left as they are, and healed."""

import math
from itertools import combinations
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lib.experiments.conditions import Condition, unpruned
from lib.experiments.further_conditions import repair_conditions
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import repair_record
from lib.sections import finding, looks, macro
from lib.sections.columns import DROPPED, MODEL
from lib.sections.figures import fraction_axis, grid, nothing, shared_legend
from lib.sections.looks import GREY
from lib.sections.section import Section, Table
from lib.sections.tables import columns, loss_table, sound

AS_IT_IS, HEALED, EQUAL = "as it is", "healed", "healed on as many tokens"


def _way(opened: OpenStudy, one: Condition) -> str:
    if one.healing is None:
        return one.repair or AS_IT_IS
    if one.repair:
        return f"{one.repair}, then {HEALED}"
    return HEALED if one.healing == opened.study.healing else EQUAL


def _pruned(opened: OpenStudy) -> list[Condition]:
    return [one for one in sound(opened, repair_conditions(opened)) if one.dropped]


def models(opened: OpenStudy) -> pd.DataFrame:
    """Mean accuracy over the tasks that the unpruned model can do, and loss, by way of repair; and
    what is left of the gap at the cut on the calibration text."""
    found, answered, rows = _pruned(opened), macro.Answers(opened), []
    for one in found and [unpruned(opened), *found]:
        (loss,) = loss_table(opened, [one]).itertuples()
        way = _way(opened, one) if one.dropped else ""
        fit = repair_record(opened, one) if one.repair and one.healing is None else {}
        about = {"way": way} | {key: fit.get(key, math.nan) for key in FIT}
        rows.append(columns(opened, one) | about | answered.outcome(one, loss))
    return pd.DataFrame(rows, columns=list(OUTCOMES)).astype({"seed": "Int64"})


def compared(opened: OpenStudy) -> pd.DataFrame:
    """What each repair, and healing, gains on the cut as it is; repairs on each other and on
    healing with as many tokens; healing of what was repaired on healing alone."""
    of: dict[tuple[str, int], dict[str, Condition]] = {}
    for one in _pruned(opened):
        of.setdefault((one.strategy, one.dropped.n), {})[_way(opened, one)] = one
    answered, rows = macro.Answers(opened), []
    for (strategy, n), ways in of.items():
        about = {"strategy": strategy, "n": n, "fraction": opened.fraction(n)}
        for way, base in pairs(ways):
            found = answered.compared(way, [ways[way]], base, [ways[base]])
            rows += [about | row for row in found]
    return pd.DataFrame(rows, columns=list(COMPARED))


def pairs(ways: dict[str, Condition]) -> list[tuple[str, str]]:
    """What is compared, and with what."""
    repairs = [way for way, one in ways.items() if one.repair and one.healing is None]
    found = [(way, AS_IT_IS) for way in ways if way != AS_IT_IS]
    found += combinations(repairs, 2)
    found += [(way, EQUAL) for way in repairs]
    found += [(way, HEALED) for way, one in ways.items() if one.repair and one.healing]
    return [(way, base) for way, base in found if base in ways]


def panels(table: pd.DataFrame) -> Figure:
    """Accuracy and loss against the fraction dropped, a curve for each way, with two standard
    errors; a column for each strategy."""
    rows = table[table["way"] != ""]
    if rows.empty:
        return nothing("This study repairs nothing without training.")
    whole = table[table["way"] == ""].iloc[0]
    named = list(rows.groupby("strategy", sort=False))
    styles = _styles(list(dict.fromkeys(rows["way"])))
    figure, axes_of = grid(2, len(named), width=7 if len(named) == 1 else 4.4, height=2.7)
    for column, (strategy, of) in enumerate(named):
        for row, (value, error) in enumerate(VALUES):
            axes = axes_of[row, column]
            for number, (way, look) in enumerate(styles.items()):
                points = of[of["way"] == way]
                beside = points["fraction"] + APART * (number - (len(styles) - 1) / 2)
                spread = {"yerr": 2 * points[error], "capsize": 3}
                axes.errorbar(beside, points[value], **spread, **look, label=way)
            axes.axhline(whole[value], color=GREY, linewidth=1, label="unpruned")
            fraction_axis(axes)
        axes_of[0, column].set_title(f"layers by {strategy}", fontsize="medium")
    axes_of[0, 0].set_ylabel("Accuracy")
    axes_of[1, 0].set_ylabel("Loss / ln V")
    shared_legend(figure, axes_of)
    return figure


def _styles(ways: list[str]) -> dict[str, dict[str, Any]]:
    """A colour for each repair and none, a line for not healed, healed and healed little."""
    kinds = {way: way.split(", then ")[0] for way in ways}
    kinds |= dict.fromkeys((HEALED, EQUAL), AS_IT_IS)
    found, styles = {}, looks.series(dict.fromkeys(kinds[one] for one in ways))
    for way in ways:
        line = ":" if way == EQUAL else "--" if HEALED in way else "-"
        found[way] = styles[kinds[way]] | {"linestyle": line}
        found[way] |= {"markerfacecolor": "white"} if line != "-" else {}
    return found


def in_short(compared: pd.DataFrame) -> pd.DataFrame:
    """The gains in points with their standard errors, over all tasks, for reading."""
    rows = [
        {"layers": one.strategy, "dropped": one.n, "gain of": one.compared, "on": one.base}
        | {"accuracy, points": macro.points(one.difference, one.stderr)}
        | {"loss / ln V, points": macro.points(one.loss_difference, one.loss_stderr)}
        | {"questions": one.n_questions}
        for one in compared[compared["role"] == "all"].itertuples()
    ]
    return pd.DataFrame(rows)


def fits(table: pd.DataFrame) -> pd.DataFrame:
    """What the repairs found on the calibration text, for reading."""
    rows = table[table["left"].notna()]
    shown = rows[["strategy", "n", "way", *FIT]]
    return shown.rename(
        columns={"strategy": "layers", "n": "dropped", "left_elsewhere": "on text not fitted"}
    )


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """What each repair gains on the cut as it is, and what healing gains."""
    table = finding.rows(made, "repairs_compared", "difference", "stderr")
    table = table[(table["base"] == AS_IT_IS) & (table["role"] == "all")]
    ways = [one for one in dict.fromkeys(table["compared"]) if HEALED not in one]
    if not ways:
        return ""
    found = [_improves(way, table[table["compared"] == way]) for way in ways]
    healed = table[table["compared"] == HEALED]
    beside = f"; {_improves('healing', healed)}" if len(healed) else ""
    questions = finding.counted(table["n_questions"].max(), "question")
    return f"Without training, {finding.listed(found)}{beside} ({questions})."


def _improves(way: str, rows: pd.DataFrame) -> str:
    clear = rows[rows["difference"].abs() > finding.SURE * rows["stderr"]]
    better, worse = clear[clear["difference"] > 0], clear[clear["difference"] < 0]
    text = f"{way} improves {finding.of(len(better), len(rows), 'cut')}"
    if len(better):
        most = better.loc[better["difference"].idxmax()]
        by = "by" if len(better) == 1 else "by up to"
        text += f", {by} {finding.points(most['difference'], most['stderr'])}"
    return f"{text}, and harms {len(worse)}" if len(worse) else text


APART = 0.008  # of marks at the same fraction
FIT = ("factor", "gap", "left", "left_elsewhere")
VALUES = (("accuracy", "stderr"), ("normalized_loss", "loss_stderr"))
OUTCOMES = {
    **MODEL,
    "way": f"name of the repair; `{AS_IT_IS}`; `{HEALED}` with the study's own recipe, `then "
    f"{HEALED}` after a repair; `{EQUAL}` as the repair read; empty: unpruned",
    "gap": "squared distance of what enters after the cut from what entered before it was made, "
    "over all tokens of the calibration text, as a share of the square of the latter; empty: not "
    "repaired, or healed afterwards",
    "left": "the same once it is repaired",
    "left_elsewhere": "the same on text that it was not fitted on: what each half of the text "
    "says, tried on the other",
    "factor": "by which what enters after the cut is multiplied; empty: by none",
    **macro.OUTCOME,
}
COMPARED = {
    "strategy": MODEL["strategy"],
    **DROPPED,
    **macro.compared_columns("a way, as in `repair.csv`"),
}
SECTION = Section(
    conditions=lambda opened: {"": repair_conditions(opened)},
    tables=(
        Table("repair", models, "a model", OUTCOMES),
        Table("repairs_compared", compared, "a pruning and two ways of repair", COMPARED),
    ),
    in_short=sentence,
)
