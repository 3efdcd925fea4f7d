"""Means over tasks of what models answered, and their differences, paired over questions:

    D = 1/T Σₜ dₜ,   SE² = 1/T² Σₜ SE(dₜ)² + Σ s²/k

dₜ is the mean over the questions of task t of the difference between two sides. A side may be
several models, such as random draws or seeds of healing: their answers are averaged, and where it
has k of them, s² is the variance of their means.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from lib.evaluation import per_question
from lib.experiments.conditions import Condition, choices, unpruned
from lib.experiments.opened import OpenStudy
from lib.schema import Study, Task
from lib.sections.tables import answers, chance, loss_table, record, sound
from lib.statistics.paired import paired

SURE = 3  # standard errors above chance from which on the unpruned model can do a task
FLOOR = 2  # standard errors above chance up to which a side is at the floor
ROLES = ("knowledge", "reading")
Side = Sequence[Condition]
# By strategy, recipe without its data and number of layers the models of each side, all seeds.
Sides = dict[tuple[str, str, int], dict[str, list[Condition]]]


class Mean(NamedTuple):
    """A mean with its standard error, of so many tasks and questions."""

    value: float
    stderr: float
    tasks: int
    questions: int


def by_role(study: Study) -> dict[str, list[Task]]:
    """The tasks of choices, together and by what they ask for."""
    tasks = choices(study)
    return {"all": tasks} | {role: [one for one in tasks if one.role == role] for role in ROLES}


def sides(
    opened: OpenStudy, models: Iterable[Condition], named: Callable[[Condition], str]
) -> Sides:
    """Healed models, by what is compared of them."""
    found: Sides = {}
    for one in sound(opened, [one for one in models if one.healing]):
        of = found.setdefault((one.strategy, one.healing.label, one.dropped.n), {})
        of.setdefault(named(one), []).append(one)
    return found


class Answers:
    """What the models of a study answered on the tasks that the unpruned one can do."""

    def __init__(self, opened: OpenStudy, groups: dict[str, list[Task]] | None = None) -> None:
        """groups: of tasks over which means are taken, by name; None: as `by_role`."""
        self.opened = opened
        self.groups = by_role(opened.study) if groups is None else groups
        self._scores: dict[tuple[str, Task], np.ndarray] = {}

    @cached_property
    def chance(self) -> dict[Task, float]:
        """By task that the unpruned model can do, each once with the first of its numbers of
        examples; none whose chance is not known."""
        found = {}
        for task in dict.fromkeys(task for tasks in self.groups.values() for task in tasks):
            if task.name in {one.name for one in found}:
                continue  # the same questions with other prompts
            value = record(self.opened, unpruned(self.opened), task)
            level = chance(value)
            if level is not None and value["accuracy"] > level + SURE * value["stderr"]:
                found[task] = level
        return found

    def _levels(self, group: str) -> dict[Task, float]:
        return {task: self.chance[task] for task in self.chance if task in self.groups[group]}

    def mean_chance(self, group: str = "all") -> float:
        levels = [*self._levels(group).values()]
        return float(np.mean(levels)) if levels else math.nan

    def scores(self, one: Condition, task: Task) -> np.ndarray:
        """[questions]"""
        key = (repr(one), task)
        if key not in self._scores:
            self._scores[key] = answers(self.opened, one, task)
        return self._scores[key]

    def accuracy(self, one: Condition, group: str = "all") -> Mean | None:
        """None where the unpruned model can do no task."""
        scores = [self.scores(one, task) for task in self._levels(group)]
        return _over_tasks([(of_task.mean(), _error(of_task), len(of_task)) for of_task in scores])

    def outcome(self, one: Condition, loss: Any, group: str = "all") -> dict[str, Any]:
        """A row of `OUTCOME`; loss: the model's row of a table of losses."""
        found = self.accuracy(one, group)
        mean = (found or Mean(math.nan, math.nan, 0, 0))._asdict()
        return {
            "accuracy": mean["value"],
            "stderr": mean["stderr"],
            "tasks": mean["tasks"],
            "n_questions": mean["questions"],
            "chance": self.mean_chance(group),
            "normalized_loss": loss.normalized_loss,
            "loss_stderr": loss.stderr * loss.normalized_loss / loss.loss,
        }

    def compared(self, first: str, one: Side, second: str, other: Side) -> list[dict[str, Any]]:
        """Rows of `compared_columns`, one for each group of which a task is left."""
        rows = []
        (a, a_error), (b, b_error) = (self.loss(side) for side in (one, other))
        for group in self.groups:
            if (found := self.difference(one, other, group)) is None:
                continue
            rows.append(
                {"role": group, "compared": first, "base": second}
                | {"tasks": found.tasks, "n_questions": found.questions}
                | {"difference": found.value, "stderr": found.stderr}
                | {"loss_difference": a - b, "loss_stderr": float(np.hypot(a_error, b_error))}
                | {"same": "yes" if _models(one) == _models(other) else ""}
            )
        return rows

    def loss(self, side: Side) -> tuple[float, float]:
        """Mean normalised loss of a side, with its standard error: of one text, and over models."""
        table = loss_table(self.opened, list(side))
        values = table["normalized_loss"].to_numpy()
        errors = (table["stderr"] * table["normalized_loss"] / table["loss"]).to_numpy()
        drawn = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
        return float(values.mean()), float(np.hypot(errors.mean(), drawn))

    def difference(self, first: Side, second: Side, group: str = "all") -> Mean | None:
        """Of the first side less the second, over the tasks of a group; without tasks on which both
        are at the floor. None where no task is left."""
        return self.contrast([first], [second], group)

    def contrast(
        self, plus: Sequence[Side], minus: Sequence[Side], group: str = "all"
    ) -> Mean | None:
        """The same of sums of sides, such as a difference of two differences."""
        sides, signs = [*plus, *minus], np.array([1] * len(plus) + [-1] * len(minus))
        parts, means = [], [[] for _ in sides]
        for task, level in self._levels(group).items():
            scores = [np.stack([self.scores(one, task) for one in side]) for side in sides]
            by_question = np.array([of_side.mean(axis=0) for of_side in scores])
            if all(_at_floor(of_side, level) for of_side in by_question):
                continue
            parts.append((*paired(*_sums(by_question, signs)), by_question.shape[1]))
            for of_side, models in zip(means, scores, strict=True):
                of_side.append(models.mean(axis=1))
        found = _over_tasks(parts)
        if found is None:
            return None
        spread = [np.mean(of_side, axis=0) for of_side in means]  # [models] of each side
        drawn = sum(one.var(ddof=1) / len(one) for one in spread if len(one) > 1)
        return found._replace(stderr=float(np.hypot(found.stderr, drawn**0.5)))


OUTCOME = {
    "accuracy": "mean over the tasks of choices that the unpruned model can do",
    "stderr": "its standard error",
    "tasks": "number of these tasks",
    "n_questions": "number of their questions",
    "chance": "mean over these tasks",
    "normalized_loss": "loss over ln V",
    "loss_stderr": "standard error of the normalised loss",
}


def compared_columns(what: str) -> dict[str, str]:
    """Columns of `Answers.compared`, whose sides are each such a thing."""
    return {
        "role": "of the tasks: `knowledge`, `reading` or `all`; without tasks that the unpruned "
        "model cannot do, and without those on which both are at chance",
        "compared": what,
        "base": "another, whose accuracy is taken from that of the first",
        "tasks": "number of tasks",
        "n_questions": "number of their questions",
        "difference": "mean over the tasks of the difference in accuracy, paired over questions",
        "stderr": "standard error of the difference, that of several draws or seeds included",
        "loss_difference": "difference in normalised loss",
        "loss_stderr": "standard error of that, of two losses side by side",
        "same": "`yes`: both are the same models",
    }


def points(difference: float, stderr: float) -> str:
    """In hundredths, for reading."""
    return f"{100 * difference:+.1f} ± {100 * stderr:.1f}".replace("-", "\N{MINUS SIGN}")


def _models(side: Side) -> set[str]:
    return {repr((one.dropped, one.weights, one.healing, one.before, one.repair)) for one in side}


def _sums(by_question: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the sides that count as plus and of those that count as minus, [1, questions] each."""
    return tuple(by_question[signs == sign].sum(axis=0, keepdims=True) for sign in (1, -1))


def _over_tasks(parts: list[tuple[float, float, int]]) -> Mean | None:
    if not parts:
        return None
    values, errors, questions = map(np.array, zip(*parts, strict=True))
    error = np.sqrt((errors**2).sum()) / len(parts)
    return Mean(float(values.mean()), float(error), len(parts), int(questions.sum()))


def _at_floor(scores: np.ndarray, level: float) -> bool:
    return bool(scores.mean() <= level + FLOOR * _error(scores))


def _error(scores: np.ndarray) -> float:
    return math.sqrt(per_question.variance(scores))
