"""What heals best per token: plain text, instructions, answers of the unpruned model, its
probabilities as targets, and a teacher at the cut, side by side."""

from collections.abc import Iterable
from itertools import combinations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib.experiments.conditions import Condition, asked
from lib.experiments.further_conditions import way_conditions
from lib.experiments.opened import OpenStudy
from lib.experiments.own_answers import answered as answered_itself
from lib.experiments.own_answers import answers_record, every_answered, job, write_answers
from lib.fields import Data
from lib.schema import Task
from lib.sections import finding, looks, macro
from lib.sections.columns import DROPPED, MODEL
from lib.sections.figures import grid, nothing
from lib.sections.looks import GREY
from lib.sections.section import Extra, Section, Table
from lib.sections.tables import columns, loss_table, record, sound

PLAIN = "healing text"
UNANSWERED = {"name": "data", "own_answers": 0, "answer_tokens": 64}
PRUNING = ["strategy", "healing", "n"]
SURE = 2  # standard errors from which on a difference is decided


def way(one: Condition) -> str:
    """What healing reads, and what the loss asks of it, in words."""
    healing = one.healing
    if healing is None:
        return "none"
    share = "" if healing.distillation == 1 else f"{healing.distillation:.0%} "
    how = [f"{share}distilled"] * bool(healing.distillation) + ["taught"] * bool(healing.teacher)
    return " on ".join(filter(None, (" and ".join(how), healing.data or PLAIN)))


def _models(opened: OpenStudy) -> list[Condition]:
    return sound(opened, way_conditions(opened)) if opened.study.ways_of_healing else []


def abilities(opened: OpenStudy) -> dict[str, list[Task]]:
    """The tasks by what they ask for, without those that some model is not asked: strategies
    beside the study's own are asked to choose, and not to write."""
    models = _models(opened)
    found = {
        name: [task for task in tasks if all(task in asked(opened, one) for one in models)]
        for name, tasks in opened.study.by_ability.items()
    }
    every = [task for tasks in found.values() for task in tasks]
    return {name: tasks for name, tasks in ({"all": every} | found).items() if tasks}


def ways(opened: OpenStudy) -> pd.DataFrame:
    """What each model read, its loss, and its mean accuracy over the tasks of each ability that
    the unpruned model can do."""
    models, groups = _models(opened), abilities(opened)
    rows, answered = [], macro.Answers(opened, groups)
    losses = loss_table(opened, models) if models else pd.DataFrame()
    for one, loss in zip(models, losses.itertuples(), strict=True):
        about = columns(opened, one) | {"way": way(one)} | _read(opened, one)
        for ability in groups:
            found = answered.outcome(one, loss, ability)
            if found["tasks"]:
                rows.append(about | {"ability": ability} | found)
    whole = ("seed", "trained", "tokens", "scored_tokens", "unanswered")
    return pd.DataFrame(rows, columns=list(WAYS)).astype(dict.fromkeys(whole, "Int64"))


def _read(opened: OpenStudy, one: Condition) -> dict[str, int | float | None]:
    if one.healing is None:
        return {}
    report = record(opened, one, None)
    own = answered_itself(opened.study, one.healing)
    written = answers_record(opened, own) if own else None
    return {
        "trained": one.healing.steps,
        **{key: report.get(key) for key in ("tokens", "scored_tokens", "epochs")},
        "unanswered": written["empty"] if written else None,
    }


def compared(opened: OpenStudy) -> pd.DataFrame:
    """Every two ways on the same pruning, plain text always as the base; means over the seeds,
    paired over questions."""
    rows, answered = [], macro.Answers(opened, abilities(opened))
    for (strategy, label, n), of in macro.sides(opened, _models(opened), way).items():
        about = {"strategy": strategy, "n": n, "fraction": opened.fraction(n), "healing": label}
        for base, other in combinations(sorted(of, key=lambda name: name != PLAIN), 2):
            about |= {"seeds": min(len(of[other]), len(of[base]))}
            about |= {
                "tokens": _tokens(opened, of[other]),
                "base_tokens": _tokens(opened, of[base]),
            }
            about |= {"own": _own(opened, of[other][0], of[base][0])}
            for found in answered.compared(other, of[other], base, of[base]):
                rows.append(about | {"ability": found.pop("role")} | found)
    return pd.DataFrame(rows, columns=list(COMPARED))


def _own(opened: OpenStudy, one: Condition, other: Condition) -> str:
    """Which of two sides reads answers of the unpruned model, `compared` or `base`, where all else
    is the same but for how long it takes: the instructions, and what the loss asks."""
    alike = {"data": None, "steps": 1}
    if (
        len({repr(side.healing.model_copy(update=alike | {"seed": 0})) for side in (one, other)})
        > 1
    ):
        return ""
    data = [opened.study.healing_source(side.healing) for side in (one, other)]
    if not all(isinstance(of, Data) for of in data):
        return ""
    written = [of.own_answers > 0 for of in data]
    given = {repr(of.model_copy(update=UNANSWERED)) for of in data}
    if len(given) > 1 or written[0] == written[1]:
        return ""
    return "compared" if written[0] else "base"


def _tokens(opened: OpenStudy, side: Iterable[Condition]) -> float:
    found = [record(opened, one, None)["tokens"] for one in side]
    return sum(found) / len(found)


def _against_plain(compared: pd.DataFrame) -> pd.DataFrame:
    """In points, with what is decided of accuracy."""
    rows = compared[compared["base"] == PLAIN]
    return rows.assign(
        points=100 * rows["difference"],
        error=100 * rows["stderr"],
        decided=rows["difference"].abs() > SURE * rows["stderr"],
        loss_points=100 * rows["loss_difference"],
        loss_error=100 * rows["loss_stderr"],
        loss_decided=rows["loss_difference"].abs() > SURE * rows["loss_stderr"],
    )


def forest(compared: pd.DataFrame) -> Figure:
    """What each way gains on plain text, a column of panels for each ability and one for the loss,
    a row for each pruning; with two standard errors. Filled marks are decided."""
    rows = _against_plain(compared)
    if rows.empty:
        return nothing("This study sets no ways of healing beside healing on plain text.")
    found, names = list(dict.fromkeys(rows["ability"])), list(dict.fromkeys(rows["compared"]))
    prunings = list(rows.groupby(PRUNING, sort=False))
    shape = {"width": 2.5, "height": 0.32 * len(names) + 0.9}
    figure, panels = grid(len(prunings), len(found) + 1, **shape)
    for (_, of), row in zip(prunings, panels, strict=True):
        for axes, ability in zip(row, found, strict=False):
            _marks(axes, of[of["ability"] == ability], names, ("points", "error", "decided"))
            axes.set_title(ability, fontsize="medium")
        keys = ("loss_points", "loss_error", "loss_decided")
        _marks(row[-1], of.drop_duplicates("compared"), names, keys)
        row[-1].set_title("loss / ln V", fontsize="medium")
        row[0].set_yticks(range(len(names)), names)
        row[0].set_ylabel(_dropped(of, rows).replace(" of the layers", ""), fontsize="small")
        for axes in row[1:]:
            axes.tick_params(labelleft=False)
    for axes in panels[-1]:
        axes.set_xlabel("difference, points")
    for column in panels.T:
        reach = max(abs(end) for axes in column for end in axes.get_xlim())
        for axes in column:
            axes.set_xlim(-reach, reach)
    return figure


def _marks(axes: Axes, rows: pd.DataFrame, names: list[str], keys: tuple[str, str, str]) -> None:
    """A mark for each way, at its number among the names."""
    styles = looks.series(names)
    for one in rows.to_dict("records"):
        place, (value, error, decided) = names.index(one["compared"]), (one[key] for key in keys)
        look = {**styles[one["compared"]]}
        face = look["color"] if decided else "white"
        axes.errorbar(
            [value], [place], xerr=[SURE * error], markerfacecolor=face, capsize=3, **look
        )
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(names)))
    axes.set_ylim(len(names) - 0.5, -0.5)


def in_words(compared: pd.DataFrame) -> pd.DataFrame:
    """A sentence for each ability and pruning: which ways are better or worse than plain text at
    the same number of tokens by more than two standard errors, and of which that is not decided."""
    rows = _against_plain(compared)
    found: dict[str, list[str]] = {}
    for (ability, *_), of in rows.groupby(["ability", *PRUNING], sort=False):
        better, worse = of["decided"] & (of["points"] > 0), of["decided"] & (of["points"] < 0)
        parts = [
            f"{words} {_listed(of[which])}"
            for words, which in (
                ("better than plain text:", better),
                ("worse than plain text:", worse),
                ("not decided:", ~of["decided"]),
            )
            if which.any()
        ]
        sentence = f"With {_dropped(of, rows)}, {'; '.join(parts)}."
        found.setdefault(ability, []).append(sentence)
    sentences = {ability: " ".join(of) for ability, of in found.items()}
    return pd.DataFrame(sentences.items(), columns=["ability", "says"])


def _listed(rows: pd.DataFrame) -> str:
    return ", ".join(
        f"{one.compared} ({macro.points(one.difference, one.stderr)} points)"
        for one in rows.itertuples()
    )


def _dropped(of: pd.DataFrame, among: pd.DataFrame) -> str:
    """What is dropped in some rows, and of several strategies and recipes by and with which."""
    one = of.iloc[0]
    by = f" by {one['strategy']}" if among["strategy"].nunique() > 1 else ""
    recipe = f", {one['healing']}" if among["healing"].nunique() > 1 else ""
    return f"{one['fraction']:.0%} of the layers dropped{by}{recipe}"


def leads(compared: pd.DataFrame) -> pd.DataFrame:
    """The differences in points with their standard errors, for reading."""
    rows = [
        {"dropped": one.n, "compared": f"{one.compared} less {one.base}", "ability": one.ability}
        | {"accuracy, points": macro.points(one.difference, one.stderr)}
        | {"loss / ln V, points": macro.points(one.loss_difference, one.loss_stderr)}
        | {"tokens, of the base's": f"{one.tokens / one.base_tokens:.1%}"}
        | {"questions": one.n_questions, "seeds": one.seeds}
        for one in compared.itertuples()
    ]
    return pd.DataFrame(rows)


def _extras(opened: OpenStudy) -> list[Extra]:
    """What the unpruned model has to write before others are healed on it."""
    longest = max((one.length for one in opened.study.every_recipe), default=0)

    def of(data: Data) -> Extra:
        tokens = data.own_answers * (longest + data.answer_tokens)
        what = f"answers of the unpruned model, {data.name}"
        return Extra(job(data), what, lambda one: write_answers(one, data), tokens=tokens)

    return [of(data) for data in every_answered(opened.study)]


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """Which ways are better than healing on plain text, and which worse, of the first pruning."""
    rows = _against_plain(finding.rows(made, "ways_compared", "difference", "stderr"))
    rows = rows[rows["ability"] == "all"]
    if rows.empty:
        return ""
    rows = rows[(rows[PRUNING] == rows[PRUNING].iloc[0]).all(axis=1)]
    better, worse = (rows[rows["decided"] & (sign * rows["points"] > 0)] for sign in (1, -1))
    parts = [
        f"{one.compared} is {word} by {finding.points(one.difference, one.stderr)}"
        for word, of in (("better", better), ("worse", worse))
        for one in of.sort_values("points", key=abs, ascending=False)[:2].itertuples()
    ]
    count = f"{len(better)} of {len(rows)} ways are better and {len(worse)} worse"
    beside = f": {finding.listed(parts)}" if parts else ""
    return (
        f"With {finding.dropped(rows['fraction'].iloc[0])}, and at as many tokens as plain"
        f" text, {count}{beside} ({rows['n_questions'].iloc[0]} questions, "
        f"{finding.counted(rows['seeds'].min(), 'seed')})."
    )


WAY = (
    "what healing read, and how: `distilled`, with the unpruned model's probabilities as targets; "
    "`taught`, with eq. 8; `none`: not healed"
)
ABILITY = "what its tasks ask for, as the study says, or else their role"
WAYS = {
    **MODEL,
    "way": WAY,
    "trained": "training steps",
    "tokens": "that were read in training",
    "scored_tokens": "of which predicted and scored; empty: all but the first of each row",
    "epochs": "how often a row was read; empty: at most once",
    "unanswered": "number of rows left out, to which the unpruned model wrote nothing; empty: it "
    "wrote none of what was read",
    "ability": ABILITY,
    **macro.OUTCOME,
    "accuracy": "mean over the tasks of the ability that the unpruned model can do",
    "chance": "mean over these tasks",
}
COMPARED = {
    "strategy": MODEL["strategy"],
    **DROPPED,
    "healing": "recipe, without its data",
    "seeds": "number of seeds of healing, of the side that has fewer",
    "tokens": "that the first side read, mean over its seeds",
    "base_tokens": "that the other read",
    "own": "`compared` or `base`: the one of the two that reads answers of the unpruned model, "
    "where the other reads those that stand in the data to the same instructions; else empty",
    "ability": f"{ABILITY}; without tasks that the unpruned model cannot do, and without those on "
    "which both are at chance",
    **{key: words for key, words in macro.compared_columns("a way").items() if key != "role"},
}
SECTION = Section(
    conditions=lambda opened: {"": way_conditions(opened)},
    claims=("lu-32",),
    extras=_extras,
    tables=(
        Table("ways_of_healing", ways, "a model and an ability", WAYS),
        Table("ways_compared", compared, "a pruning, two ways and an ability", COMPARED),
    ),
    in_short=sentence,
)
