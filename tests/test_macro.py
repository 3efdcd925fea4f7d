"""Means over tasks and their differences, against sums by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from lib.experiments.conditions import Condition
from lib.pruning import strategy
from lib.pruning.dropped import Dropped, span
from lib.schema import Task
from lib.sections import macro, strips, tables, which_layers

TASKS = [
    Task(name="facts", role="knowledge"),
    Task(name="passages", role="reading"),
    Task(name="lost", role="reading"),  # which the unpruned model cannot do
    Task(name="essays", role="generation"),  # which is written
]
QUESTIONS = 400
ABLE = {
    "none": (0.9, 0.8, 0.26),
    "a": (0.7, 0.6, 0.25),
    "b": (0.5, 0.6, 0.25),
    "floor": (0.25,) * 3,
}


def model(name: str, draw: int = 0) -> Condition:
    return Condition(name, Dropped([draw]) if name != "none" else Dropped(), "float32")


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> macro.Answers:
    """Models that answer with the accuracies of ABLE, each question by chance."""

    def answers(_: object, one: Condition, task: Task) -> np.ndarray:
        seed = sum(map(ord, one.strategy)) + 100 * sum(one.dropped) + 10_000 * TASKS.index(task)
        shares = ABLE[one.strategy]
        return (np.random.default_rng(seed).random(QUESTIONS) < shares[TASKS.index(task)]).astype(
            int
        )

    def record(opened: object, one: Condition, task: Task) -> dict:
        scores = answers(opened, one, task)
        return {"accuracy": scores.mean(), "stderr": 0.02, "guess": 0.25, "constant": 0.2}

    monkeypatch.setattr(macro, "answers", answers)
    monkeypatch.setattr(macro, "record", record)
    monkeypatch.setattr(macro, "unpruned", lambda opened: model("none"))
    return macro.Answers(SimpleNamespace(study=SimpleNamespace(tasks=TASKS)))


def test_only_tasks_of_choices_that_the_unpruned_model_can_do_count(
    answered: macro.Answers,
) -> None:
    assert [task.name for task in answered.chance] == ["facts", "passages"]
    assert answered.mean_chance() == 0.25
    found = answered.accuracy(model("a"))
    scores = [answered.scores(model("a"), task) for task in TASKS[:2]]
    assert found.value == pytest.approx(np.mean([one.mean() for one in scores]))
    errors = [one.std() / math.sqrt(QUESTIONS - 1) for one in scores]
    assert found.stderr == pytest.approx(math.hypot(*errors) / 2)
    assert (found.tasks, found.questions) == (2, 2 * QUESTIONS)


def test_a_difference_is_paired_over_questions(answered: macro.Answers) -> None:
    found = answered.difference([model("a")], [model("b")])
    gaps = [
        answered.scores(model("a"), task).astype(float) - answered.scores(model("b"), task)
        for task in TASKS[:2]
    ]
    errors = [gap.std(ddof=1) / math.sqrt(QUESTIONS) for gap in gaps]
    assert found.value == pytest.approx(np.mean([gap.mean() for gap in gaps]))
    assert found.stderr == pytest.approx(math.hypot(*errors) / 2)
    back = answered.difference([model("b")], [model("a")])
    assert back.value == pytest.approx(-found.value) and back.stderr == pytest.approx(found.stderr)
    alone = answered.difference([model("a")], [model("b")], "knowledge")
    assert alone.value == pytest.approx(gaps[0].mean()) and alone.tasks == 1


def test_a_task_on_which_both_are_at_chance_is_left_out(answered: macro.Answers) -> None:
    assert answered.difference([model("floor")], [model("floor", 1)]) is None
    assert answered.difference([model("floor")], [model("a")]).tasks == 2


def test_the_scatter_of_draws_counts(answered: macro.Answers) -> None:
    draws = [model("b", draw) for draw in range(5)]
    found = answered.difference([model("a")], draws)
    means = [np.mean([answered.scores(one, task).mean() for task in TASKS[:2]]) for one in draws]
    gaps = [
        answered.scores(model("a"), task)
        - np.mean([answered.scores(one, task) for one in draws], axis=0)
        for task in TASKS[:2]
    ]
    of_questions = math.hypot(*(gap.std(ddof=1) / math.sqrt(QUESTIONS) for gap in gaps)) / 2
    assert found.stderr == pytest.approx(math.hypot(of_questions, np.std(means, ddof=1) / 5**0.5))


def test_an_interaction_is_a_difference_of_differences(answered: macro.Answers) -> None:
    a, b, c, d = model("a"), model("b"), model("a", 7), model("b", 7)
    found = answered.contrast([[a], [d]], [[b], [c]])
    first, second = answered.difference([a], [b]), answered.difference([c], [d])
    assert found.value == pytest.approx(first.value - second.value)
    gaps = [
        answered.scores(a, task).astype(float)
        - answered.scores(b, task)
        - answered.scores(c, task)
        + answered.scores(d, task)
        for task in TASKS[:2]
    ]
    errors = [gap.std(ddof=1) / math.sqrt(QUESTIONS) for gap in gaps]
    assert found.stderr == pytest.approx(math.hypot(*errors) / 2)


def test_draws_by_chance() -> None:
    drawn = strategy.shipped("random", draws=50, seed=3)
    few, more = drawn.drawn(4, 16), drawn.drawn(8, 16)
    assert len(few) == 50 and len({*few}) > 40 and all(one.n == 4 for one in few)
    assert all({*one} < {*other} for one, other in zip(few, more, strict=True))
    counts = np.bincount([layer for one in more for layer in one], minlength=16)
    assert counts.sum() == 400 and counts.min() > 10  # 25 each, in the mean
    assert strategy.shipped("random", draws=2, seed=4).drawn(4, 16)[0] == few[1]
    assert Dropped(drawn.choose(None, 4, 16)) == few[0]


def test_the_jaccard_index() -> None:
    assert which_layers.jaccard(span(0, 4), span(2, 6)) == pytest.approx(2 / 6)
    assert which_layers.jaccard(span(0, 4), span(0, 4)) == 1
    assert which_layers.jaccard(span(0, 4), span(4, 8)) == 0


def test_a_task_counts_once(answered: macro.Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    again = TASKS[0].model_copy(update={"shots": 5})
    monkeypatch.setattr(answered.opened.study, "tasks", [*TASKS, again])
    assert [(one.name, one.shots) for one in answered.chance] == [("facts", 0), ("passages", 0)]


def test_a_forest_of_models_shows_draws_as_a_band() -> None:
    rows = [
        {"strategy": "none", "n": 0, "state": "unhealed", "accuracy": 0.9, "normalized_loss": 0.1}
    ]
    rows += [
        {"strategy": name, "n": 4, "state": state, "accuracy": 0.5, "normalized_loss": 0.2}
        | {"healing": "none" if state == "unhealed" else "lora-r8"}
        for name in ("simple", "greedy")
        for state in ("unhealed", "healed")
    ]
    rows += [
        {"strategy": "random", "draw": i, "n": 4, "state": "unhealed", "accuracy": i / 10}
        | {"normalized_loss": 0.3, "healing": "none"}
        for i in range(10)
    ]
    table = pd.DataFrame(rows, columns=list(which_layers.OUTCOMES)).astype({"draw": "Int64"})
    table = table.fillna({"stderr": 0.01, "loss_stderr": 0.01, "chance": 0.25, "healing": "none"})
    figure = strips.forest(table, [4])
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"10 random draws", "unhealed", "healed, lora-r8", "unpruned"} <= labels
    found = strips.among_draws(table)
    assert found["beaten in accuracy"].tolist() == pytest.approx([0.55, 0.55])
    assert tables.strategies(table) == ["simple", "greedy", "random"]
