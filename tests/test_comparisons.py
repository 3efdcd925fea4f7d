"""Paired differences against loops over questions, on answers that are made up."""

import math
from itertools import product

import numpy as np
import pytest

from lib.experiments.conditions import Condition
from lib.pruning.dropped import span
from lib.schema import Task
from lib.sections import comparisons
from lib.sections.comparisons import COLUMNS, compare, paired

QUIZ, OTHER = Task(name="quiz"), Task(name="other")


def drawn(seed: int, *shape: int, share: float = 0.7) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < share).astype(int)


def by_loop(first: list[list[int]], second: list[list[int]]) -> tuple[float, float]:
    """A question's differences are averaged over prunings first: it is asked of each of them."""
    questions = []
    for q in range(len(first[0])):
        gaps = [a[q] - b[q] for a, b in zip(first, second, strict=True)]
        questions.append(sum(gaps) / len(gaps))
    mean = sum(questions) / len(questions)
    squares = sum((one - mean) ** 2 for one in questions)
    return mean, math.sqrt(squares / (len(questions) - 1) / len(questions))


@pytest.mark.parametrize("prunings", [1, 4])
def test_the_difference_and_its_error_follow_from_single_questions(prunings):
    first, second = drawn(0, prunings, 50), drawn(1, prunings, 50, share=0.5)
    assert paired(first, second) == pytest.approx(by_loop(first.tolist(), second.tolist()))
    mean, error = paired(second, first)
    assert (-mean, error) == pytest.approx(paired(first, second))


def test_models_that_answer_alike_do_not_differ():
    same = drawn(2, 3, 40)
    assert paired(same, same) == (0, 0)


def test_of_models_that_err_on_the_same_questions_the_difference_is_surer():
    """Than that of two accuracies whose errors are added: that one is right where they err
    independently."""
    first = drawn(3, 1, 400)
    second = first.copy()
    second[0, :12] = 1 - second[0, :12]
    independent = drawn(4, 1, 400)

    def apart(one: np.ndarray, other: np.ndarray) -> float:
        shares = (one.mean(), other.mean())
        return math.hypot(*(math.sqrt(p * (1 - p) / 399) for p in shares))

    assert paired(first, second)[1] < 0.4 * apart(first, second)
    assert paired(first, independent)[1] == pytest.approx(apart(first, independent), rel=0.1)


def test_prunings_of_one_question_are_not_questions_of_their_own():
    """Asking the same again of ten prunings that answer alike makes nothing surer."""
    first, second = drawn(5, 1, 60), drawn(6, 1, 60)
    ten = paired(first.repeat(10, axis=0), second.repeat(10, axis=0))
    assert ten == pytest.approx(paired(first, second))


@pytest.fixture
def asked(monkeypatch):
    """Conditions by (group, strategy, n) with made-up answers, and those answers."""
    known: dict[tuple, np.ndarray] = {}
    groups = {"a": 0.9, "b": 0.5, "c": 0.5}
    for number, (group, strategy, n, task) in enumerate(
        product(groups, ("similarity", "simple"), (1, 2), (QUIZ, OTHER))
    ):
        known[group, strategy, n, task.name] = drawn(
            number, 30 if task is QUIZ else 20, share=groups[group]
        )

    def model(group: str, strategy: str, n: int) -> Condition:
        return Condition(strategy, span(1, 1 + n), group)

    def answers(opened, condition, task):
        return known[condition.weights, condition.strategy, condition.dropped.n, task.name]

    monkeypatch.setattr(comparisons, "answers", answers)
    return known, model


def everything(model, group, tasks=(QUIZ, OTHER)):
    return [
        (model(group, strategy, n), task)
        for strategy in ("similarity", "simple")
        for n in (1, 2)
        for task in tasks
    ]


def test_every_group_is_compared_with_the_base_on_each_task(asked):
    known, model = asked
    groups = {name: everything(model, name) for name in "abc"}
    table = compare(None, groups, "b")
    assert list(table.columns) == COLUMNS
    pairs = table[["task", "compared", "base"]].itertuples(index=False, name=None)
    assert sorted(pairs) == sorted((t, g, "b") for t in ("quiz", "other") for g in "ac")
    for row in table.itertuples():
        sides = [
            [
                known[group, s, n, row.task].tolist()
                for s in ("similarity", "simple")
                for n in (1, 2)
            ]
            for group in (row.compared, "b")
        ]
        assert (row.difference, row.stderr) == pytest.approx(by_loop(*sides))
        assert (row.prunings, row.n_questions) == (4, 30 if row.task == "quiz" else 20)
        # Of a normal distribution.
        assert row.p == pytest.approx(math.erfc(abs(row.difference) / row.stderr / math.sqrt(2)))
    assert (table[table["compared"] == "a"]["p"] < 0.01).all()


def test_prunings_that_only_one_group_has_are_left_out(asked):
    known, model = asked
    groups = {
        "a": [(model("a", "similarity", n), QUIZ) for n in (1, 2)],
        "b": [(model("b", "similarity", 2), QUIZ), (model("b", "simple", 1), QUIZ)],
    }
    (row,) = compare(None, groups, "b").itertuples()
    sides = [[known[group, "similarity", 2, "quiz"].tolist()] for group in "ab"]
    assert row.prunings == 1
    assert (row.difference, row.stderr) == pytest.approx(by_loop(*sides))


def test_strategies_are_compared_at_the_same_size(asked):
    known, model = asked
    groups = {
        strategy: [(model("a", strategy, n), QUIZ) for n in (1, 2)]
        for strategy in ("similarity", "simple")
    }
    assert compare(None, groups, "simple").empty  # of one strategy there is no other
    (row,) = compare(None, groups, "simple", by_strategy=False).itertuples()
    sides = [
        [known["a", strategy, n, "quiz"].tolist() for n in (1, 2)]
        for strategy in ("similarity", "simple")
    ]
    assert (row.compared, row.base, row.prunings) == ("similarity", "simple", 2)
    assert (row.difference, row.stderr) == pytest.approx(by_loop(*sides))


def test_the_order_in_which_models_are_named_does_not_matter(asked):
    _, model = asked
    groups = {name: everything(model, name, (QUIZ,)) for name in "ab"}
    turned = {name: group[::-1] for name, group in groups.items()}
    assert compare(None, groups, "b").equals(compare(None, turned, "b"))


def test_without_a_spread_either_nothing_or_everything_differs(monkeypatch):
    answers = {"a": np.ones(9), "b": np.ones(9), "c": np.zeros(9)}
    monkeypatch.setattr(comparisons, "answers", lambda opened, model, task: answers[model.weights])
    groups = {name: [(Condition("simple", span(1, 2), name), QUIZ)] for name in answers}
    table = compare(None, groups, "b").set_index("compared")
    assert table.loc["a", ["difference", "stderr", "p"]].tolist() == [0, 0, 1]
    assert table.loc["c", ["difference", "stderr", "p"]].tolist() == [-1, 0, 0]


def test_one_group_alone_is_an_empty_table(asked):
    _, model = asked
    table = compare(None, {"a": everything(model, "a")}, "a")
    assert table.empty and list(table.columns) == COLUMNS
