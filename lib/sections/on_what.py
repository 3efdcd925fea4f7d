"""What layers are chosen on, and what pruned models are healed on (Tables 6, 7 and D of Lu et
al.)."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd

from lib.errors import UserError
from lib.experiments.choosing import Sample, elsewhere, part
from lib.experiments.conditions import Condition
from lib.experiments.further_conditions import data_conditions, distinct
from lib.experiments.opened import OpenStudy
from lib.fields import Data
from lib.sections import finding, macro
from lib.sections.columns import DROPPED, MODEL
from lib.sections.section import Section, Table
from lib.sections.tables import columns, loss_table, record, sound
from lib.sections.which_layers import jaccard

OWN = "calibration text"


def size(opened: OpenStudy) -> int:
    """The number of layers of the sets that are chosen on samples.

    Raises UserError where that is none."""
    study, fraction = opened.study, opened.study.on_what.fractions[0]
    if not (found := opened.healed_ns([fraction])):
        raise UserError(
            f"study {study.name}: on_what.fractions: the first, {fraction:g}, at which samples are "
            f"compared, stands for no layer of {opened.n_layers}"
        )
    return found[0]


def _samples(opened: OpenStudy) -> Iterator[tuple[str, int, int, Condition]]:
    """By strategy, number of windows and draw the pruning that is chosen on them."""
    asked, text = opened.study.on_what, opened.study.calibration
    for strategy in asked.strategies if text else ():
        for count in asked.samples:
            for draw in range(asked.draws):
                yield strategy, count, draw, _chosen(opened, strategy, part(text, count, draw))


def _texts(opened: OpenStudy) -> Iterator[tuple[str, str, Condition]]:
    """By strategy and calibration text the pruning that is chosen on it."""
    asked, text = opened.study.on_what, opened.study.calibration
    for strategy in asked.searches if text else ():
        for name, sample in {OWN: None, **elsewhere(opened.study)}.items():
            yield strategy, name, _chosen(opened, strategy, sample)


def _chosen(opened: OpenStudy, strategy: str, sample: Sample | None) -> Condition:
    dropped = opened.chosen(strategy, size(opened), sample=sample)
    return Condition(strategy, dropped, opened.weights)


def conditions(opened: OpenStudy) -> dict[str, list[Condition]]:
    """Prunings chosen on samples and on texts, unhealed; and those healed on each data set."""
    chosen = [one for *_, one in (*_samples(opened), *_texts(opened))]
    return {"": distinct([*data_conditions(opened), *chosen])}


def sets(opened: OpenStudy) -> pd.DataFrame:
    """Mean accuracy over the tasks that the unpruned model can do, and loss, of every set that is
    chosen on a sample of the calibration text."""
    rows, answered = [], macro.Answers(opened)
    for strategy, count, draw, one in _samples(opened):
        rows.append(
            _of_set(opened, answered, one, {"strategy": strategy, "windows": count, "draw": draw})
        )
    return pd.DataFrame(rows, columns=list(SETS))


def _of_set(opened: OpenStudy, answered: macro.Answers, one: Condition, about: dict) -> dict:
    (loss,) = loss_table(opened, [one]).itertuples()
    dropped = {"n": one.dropped.n, "fraction": opened.fraction(one.dropped.n)}
    dropped["dropped"] = " ".join(map(str, one.dropped))
    return about | dropped | answered.outcome(one, loss)


def sizes(opened: OpenStudy) -> pd.DataFrame:
    """By strategy and number of windows: how alike the sets of two draws are, and how accurate and
    how different the models that lack them."""
    rows, answered = [], macro.Answers(opened)
    for (strategy, count), of in _grouped(opened).items():
        found = [mean for one in of if (mean := answered.accuracy(one))]
        values = np.array([mean.value for mean in found])
        asked = float(np.mean([mean.stderr for mean in found])) if found else np.nan
        drawn = float(values.std(ddof=1)) if found else np.nan
        alike, error = _alike(of)
        rows.append(
            {"strategy": strategy, "n": size(opened), "fraction": opened.fraction(size(opened))}
            | {"windows": count, "draws": len(of), "jaccard": alike, "jaccard_stderr": error}
            | {"different": len({one.dropped for one in of})}
            | {"accuracy": float(values.mean()) if found else np.nan, "drawn": drawn}
            | {"draw_stderr": drawn / len(of) ** 0.5, "stderr": asked}
        )
    return pd.DataFrame(rows, columns=list(SIZES))


def _grouped(opened: OpenStudy) -> dict[tuple[str, int], list[Condition]]:
    found: dict[tuple[str, int], list[Condition]] = {}
    for strategy, count, _, one in _samples(opened):
        found.setdefault((strategy, count), []).append(one)
    return found


def _alike(of: list[Condition]) -> tuple[float, float]:
    """Mean Jaccard index over pairs of draws, with the standard error of a jackknife over draws."""
    count = len(of)
    index = np.array([[jaccard(a.dropped, b.dropped) for b in of] for a in of])
    total = index.sum() - count
    mean = total / (count * (count - 1))
    if count < 3:
        return float(mean), np.nan
    without = (total - 2 * (index.sum(axis=1) - 1)) / ((count - 1) * (count - 2))
    return float(mean), float(np.sqrt((count - 1) * without.var()))


def texts(opened: OpenStudy) -> pd.DataFrame:
    """The sets that each search chooses on each text, with accuracy and loss."""
    rows, answered = [], macro.Answers(opened)
    for strategy, text, one in _texts(opened):
        rows.append(_of_set(opened, answered, one, {"strategy": strategy, "text": text}))
    return pd.DataFrame(rows, columns=list(TEXTS))


def healed_on(opened: OpenStudy) -> pd.DataFrame:
    """Mean accuracy and loss of what is healed on each data set, and not, and what it read."""
    rows, answered = [], macro.Answers(opened)
    models = sound(opened, data_conditions(opened)) if opened.study.recipes_on_data else []
    losses = loss_table(opened, models) if models else pd.DataFrame()
    for one, loss in zip(models, losses.itertuples(), strict=True):
        report = record(opened, one, None) if one.healing else {}
        about = {"data": _data(one), "trained": one.healing.steps if one.healing else None}
        about |= {key: report.get(key) for key in ("tokens", "scored_tokens", "epochs")}
        rows.append(columns(opened, one) | about | answered.outcome(one, loss))
    table = pd.DataFrame(rows, columns=list(HEALED))
    whole = ("seed", "trained", "tokens", "scored_tokens")
    return table.astype(dict.fromkeys(whole, "Int64"))


def _data(one: Condition) -> str:
    return (one.healing.data or "healing text") if one.healing else "none"


def compared(opened: OpenStudy) -> pd.DataFrame:
    """Every two data sets on the same pruning, means over the seeds; paired over questions."""
    rows, answered = [], macro.Answers(opened)
    for (strategy, label, n), of in macro.sides(opened, data_conditions(opened), _data).items():
        about = {"strategy": strategy, "n": n, "fraction": opened.fraction(n), "healing": label}
        for first, second in combinations(of, 2):
            sides = of[first], of[second]
            alike = len({_scored(opened, side[0]) for side in sides}) == 1
            about |= {"seeds": min(map(len, sides)), "masked": "alike" if alike else "otherwise"}
            for found in answered.compared(first, sides[0], second, sides[1]):
                rows.append(about | found)
    return pd.DataFrame(rows, columns=list(COMPARED))


def _scored(opened: OpenStudy, one: Condition) -> str:
    """Which part of a row the loss is taken on. All of a plain text is response."""
    source = opened.study.healing_source(one.healing) if one.healing else None
    return source.scored if isinstance(source, Data) else "response"


def interaction(opened: OpenStudy) -> pd.DataFrame:
    """By how much what one data set gains on another at one number of layers exceeds that at a
    larger one."""
    rows, answered = [], macro.Answers(opened)
    sides = macro.sides(opened, data_conditions(opened), _data)
    for (strategy, label, n), (other, also, m) in combinations(sides, 2):
        if (strategy, label) != (other, also):
            continue
        few, many = sides[strategy, label, n], sides[strategy, label, m]
        for first, second in combinations([one for one in few if one in many], 2):
            found = answered.contrast([few[first], many[second]], [few[second], many[first]])
            if found is not None:
                row = {"strategy": strategy, "healing": label, "n": n, "more": m}
                row |= {"compared": first, "base": second, "interaction": found.value}
                rows.append(row | {"stderr": found.stderr, "n_questions": found.questions})
    return pd.DataFrame(rows, columns=list(INTERACTION))


def read_in_short(healed: pd.DataFrame, by: str = "data") -> pd.DataFrame:
    """What each data set, or another side, gave to read, means over prunings and seeds, for
    reading."""
    of = healed[healed["healing"] != "none"].groupby([by, "healing"], sort=False)
    mean = of[["trained", "tokens", "scored_tokens", "epochs"]].mean()
    for name in ("trained", "tokens", "scored_tokens"):
        mean[name] = [f"{value:,.0f}" if pd.notna(value) else "all" for value in mean[name]]
    names = {"trained": "training steps", "scored_tokens": "of which scored"}
    return mean.reset_index().rename(columns=names)


def leads(compared: pd.DataFrame) -> pd.DataFrame:
    """The differences in points with their standard errors, by role of the tasks, for reading."""
    rows = [
        {"layers": one.strategy, "dropped": one.n, "compared": f"{one.compared} less {one.base}"}
        | {"tasks": one.role, "accuracy, points": macro.points(one.difference, one.stderr)}
        | {"loss / ln V, points": macro.points(one.loss_difference, one.loss_stderr)}
        | {"questions": one.n_questions, "seeds": one.seeds}
        for one in compared.itertuples()
    ]
    return pd.DataFrame(rows)


def texts_in_short(texts: pd.DataFrame) -> pd.DataFrame:
    """For reading."""
    rows = [
        {"search": one.strategy, "text": one.text, "layers dropped": one.dropped}
        | {"accuracy": f"{one.accuracy:.3f} ± {one.stderr:.3f}"}
        | {"loss / ln V": f"{one.normalized_loss:.3f}"}
        for one in texts.itertuples()
    ]
    return pd.DataFrame(rows)


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """How alike the sets are that two samples choose, and whether it matters what is healed on."""
    sizes = finding.rows(made, "calibration_sizes", "windows", "jaccard")
    data = finding.rows(made, "data_compared", "difference", "stderr")
    data, parts = data[data["role"] == "all"], []
    if len(sizes):
        most = sizes[sizes["windows"] == sizes["windows"].max()]
        shared = [f"{one.jaccard:.2f} by {one.strategy}" for one in most.itertuples()]
        windows = finding.counted(most["windows"].iloc[0], "window")
        parts.append(
            f"Two samples of {windows} choose sets of layers whose Jaccard index is "
            f"{finding.listed(shared)} ({most['draws'].min()} draws)."
        )
    if len(data):
        row = data.loc[data["difference"].abs().idxmax()]
        found = finding.lead(row["compared"], row["base"], row["difference"], row["stderr"])
        more = "" if len(data) == 1 else f"; of such pairs, {finding.told(data)}"
        parts.append(f"As text to heal on, {found} on {row['n_questions']} questions{more}.")
    return " ".join(parts)


WINDOWS = {"windows": "number of windows of calibration text on which layers were scored"}
SETS = {
    "strategy": MODEL["strategy"],
    **WINDOWS,
    "draw": "number of the draw; no two have a window in common",
    **DROPPED,
    "dropped": MODEL["dropped"],
    **macro.OUTCOME,
}
SIZES = {
    "strategy": MODEL["strategy"],
    **DROPPED,
    **WINDOWS,
    "draws": "number of draws",
    "different": "number of different sets among them",
    "jaccard": "mean Jaccard index of the sets of two draws",
    "jaccard_stderr": "its standard error, of a jackknife over draws",
    "accuracy": "mean over draws and tasks, unhealed",
    "draw_stderr": "its standard error, of drawing",
    "drawn": "standard deviation of the accuracy over draws",
    "stderr": "standard error of the accuracy of one draw, of its questions",
}
TEXTS = {
    "strategy": MODEL["strategy"],
    "text": "on which layers were scored",
    **DROPPED,
    "dropped": MODEL["dropped"],
    **macro.OUTCOME,
}
DATA = {"data": "what healing read; `none`: not healed"}
HEALED = {
    **MODEL,
    **DATA,
    "trained": "training steps",
    "tokens": "that were read in training",
    "scored_tokens": "of which predicted and scored; empty: all but the first of each row",
    "epochs": "how often a row was read; empty: at most once",
    **macro.OUTCOME,
}
COMPARED = {
    "strategy": MODEL["strategy"],
    **DROPPED,
    "healing": "recipe, without its data",
    "seeds": "number of seeds of healing, of the side that has fewer",
    "masked": "`alike`: the loss was taken on the same part of a row, its response or all, on both "
    "sides; all of a plain text counts as response; else `otherwise`",
    **macro.compared_columns("a data set"),
}
INTERACTION = {
    "strategy": MODEL["strategy"],
    "healing": COMPARED["healing"],
    "n": DROPPED["n"],
    "more": "a larger number of layers",
    "compared": "a data set",
    "base": "another",
    "interaction": "what the first gains on the other in accuracy with the smaller number of "
    "layers dropped, less that with the larger one",
    "stderr": "its standard error, paired over questions, that of seeds included",
    "n_questions": "number of questions",
}
SECTION = Section(
    conditions=conditions,
    tables=(
        Table("calibration_sets", sets, "a set of layers", SETS),
        Table("calibration_sizes", sizes, "a strategy and a number of windows", SIZES),
        Table("calibration_texts", texts, "a search and a text", TEXTS),
        Table("healed_on", healed_on, "a model", HEALED),
        Table("data_compared", compared, "a pruning and two data sets", COMPARED),
        Table(
            "data_interaction", interaction, "two numbers of layers and two data sets", INTERACTION
        ),
    ),
    claims=tuple(f"lu-{number}" for number in range(26, 32)),
    in_short=sentence,
)
