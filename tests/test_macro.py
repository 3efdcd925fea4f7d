"""Means over tasks and their differences, against sums by hand; and the models of the sections that
set strategies and recipes side by side."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import Studies

from lib import study
from lib.book.memory import memory
from lib.book.plan import Planned, extras, parts
from lib.errors import UserError
from lib.experiments import further_conditions
from lib.experiments.conditions import Condition
from lib.experiments.opened import OpenStudy
from lib.models.shapes import shape_of
from lib.pruning import strategy
from lib.pruning.dropped import Dropped, span
from lib.schema import Task
from lib.sections import last_layer, macro, strips, tables, what_to_train, which_layers

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
    assert answered.mean_chance == 0.25
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


BESIDE = {
    "strategies": [{"name": "simple"}],
    "which_layers": {
        "strategies": ["reverse-order", {"name": "random", "draws": 3}],
        "pruned_layers": [1],
        "fractions": [0.5],
        "healed_draws": 2,
    },
    "what_to_train": {
        "recipes": [{"recipe": "lora", "alpha": 4}, {"recipe": "partial", "layers": 1}],
        "strategies": ["reverse-order"],
        "fractions": [0.5],
        "seeds": [0, 1],
        "learning_rates": [1e-4, 1e-3],
    },
    "last_layer": {"fractions": [0.5]},
}


@pytest.fixture
def beside(tmp_path: Path, write_study: Studies) -> Planned:
    held_out = {"path": "held_out.jsonl"}
    (tmp_path / "held_out.jsonl").write_text('{"text": "once"}\n')
    one = study.load(str(write_study(tmp_path, held_out_text=held_out, **BESIDE)))
    return Planned(one, OpenStudy(one).config)


def test_models_of_strategies_side_by_side(beside: Planned) -> None:
    found = further_conditions.layer_conditions(beside)
    n = beside.healed_ns([0.5])[0]
    assert list(found) == ["", "draw-0", "draw-1", "draw-2"]
    kinds = [(one.strategy, one.dropped.n, one.recipe) for one in found[""]]
    recipe = beside.study.recipes[0].name
    for name in ("simple", "reverse-order"):
        assert (name, 1, "none") in kinds and (name, n, "none") in kinds
        assert (name, n, recipe) in kinds and (name, 1, recipe) not in kinds
    assert [one.recipe for one in found["draw-0"]] == ["none", recipe]
    assert [one.recipe for one in found["draw-2"]] == ["none"]
    assert all(" " not in name for name in parts(beside))  # they are names of jobs
    drawn = {one.dropped for group in list(found)[1:] for one in found[group]}
    assert drawn == {*beside.strategy("random").drawn(n, beside.n_layers)}


def test_those_alone_are_healed_that_are_listed(beside: Planned) -> None:
    one = beside.study
    asked = one.which_layers.model_copy(update={"healed": ["reverse-order"], "healed_draws": 0})
    few = Planned(one.model_copy(update={"which_layers": asked}), beside.config)
    found = further_conditions.layer_conditions(few)
    trained = [model.strategy for group in found.values() for model in group if model.healing]
    assert trained == ["reverse-order"]
    plain = {model.strategy for group in found.values() for model in group if not model.healing}
    assert plain == {"none", "simple", "reverse-order", "random"}


def test_models_of_recipes_and_of_the_last_layer(beside: Planned) -> None:
    found = further_conditions.recipe_conditions(beside)
    trained = [(one.recipe, one.healing.seed) for one in found if one.healing]
    names = [one.name for one in beside.study.recipes]
    assert trained == [(name, seed) for name in names for seed in (0, 1)]
    assert all(one.strategy == "reverse-order" for one in found if one.healing)
    last = further_conditions.last_layer_conditions(beside)
    assert {one.strategy for one in last} == {"none", "simple", "reverse-order"}
    # What two sections ask for is trained once.
    healed = [part for part in parts(beside).values() if part.healed]
    reverse = [one for one in healed if one.conditions[0].strategy == "reverse-order"]
    own = beside.study.healing.fractions
    assert len(reverse) == len(trained) and len(own) > 0
    asked = parts(beside)["unhealed"].sections
    assert {"which_layers", "what_to_train", "last_layer"} <= {*asked}


def test_rates_are_compared_on_a_loss_alone(beside: Planned) -> None:
    rates = what_to_train.rate_conditions(beside)
    assert [one.healing.learning_rate for one in rates] == [1e-4, 1e-3] * 2
    extra, owner = extras(beside)["learning-rates"]
    assert owner == "what_to_train" and extra.tokens > 0
    asked = {repr(one) for part in parts(beside).values() for one in part.conditions}
    assert not asked & {repr(one) for one in rates}


def test_nothing_is_compared_where_nothing_is_listed(tmp_path: Path, write_study: Studies) -> None:
    opened = OpenStudy(study.load(str(write_study(tmp_path))))
    for section in (which_layers, what_to_train, last_layer):
        for table in section.SECTION.tables:
            made = table.make(opened)
            assert made.empty and [*made] == [*table.columns], table.name
    assert extras(Planned(opened.study, opened.config)).keys().isdisjoint({"learning-rates"})
    empty = {table.name: table.make(opened) for table in which_layers.SECTION.tables}
    for figure in (
        strips.strips(empty["choices_made"], 6, [2]),
        strips.forest(empty["which_layers"], [2]),
        strips.shared(empty["agreement"]),
        strips.ranks(empty["layer_scores"]),
        what_to_train.panels(what_to_train.outcomes(opened)),
        what_to_train.rate_panels(what_to_train.learning_rates(opened)),
        last_layer.panels(last_layer.advantage(opened)),
    ):
        assert "This study" in figure.axes[0].texts[0].get_text() or "No strategy" in (
            figure.axes[0].texts[0].get_text()
        )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"strategies": ["random"]}, "'random' draws layers by chance, and one draw says nothing"),
        ({"which_layers": {"strategies": [{"name": "magnitude", "p": 2}, "magnitude"]}}, "twice"),
        (
            {
                "strategies": ["magnitude"],
                "which_layers": {"strategies": [{"name": "magnitude", "p": 2}]},
            },
            "'magnitude' stands in strategies, too, with other settings",
        ),
        (
            {"which_layers": {"strategies": [{"name": "mine", "kind": "none"}]}},
            "unknown strategy 'none'",
        ),
        (
            {"which_layers": {"strategies": [{"name": "taylor", "kind": "magnitude"}]}},
            "the name 'taylor' is that of a shipped strategy",
        ),
        ({"what_to_train": {"strategies": ["mine"]}}, "'mine' is none of the study's strategies"),
        ({"what_to_train": {"recipes": [{"recipe": "lora"}] * 2}}, "lists the same value twice"),
        ({"what_to_train": {"recipes": ["lora"]}}, "Expected keys and values"),
        ({"last_layer": {"recipes": ["lora-r8"]}}, "of which there are none"),
        ({"what_to_train": {"learning_rates": [1e-3]}}, "go with held_out_text"),
        ({"which_layers": {"healed_draws": 1}}, "one draw says nothing"),
        ({"last_layer": {"keeps": "taylor"}}, "last_layer.keeps: 'taylor' is none of the study's"),
        ({"last_layer": {"drops": "random"}}, "last_layer.drops: 'random' is none of the study's"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    changes: dict, says: str, tmp_path: Path, write_study: Studies
) -> None:
    with pytest.raises(UserError) as error:
        study.load(str(write_study(tmp_path, **changes)))
    assert says.lower() in str(error.value).lower() and "\n" not in str(error.value)


def test_recipes_say_what_is_their_own(tmp_path: Path, write_study: Studies) -> None:
    own = {"recipes": [{"recipe": "lora", "learning_rate": 5e-3}, {"recipe": "full"}]}
    one = study.load(str(write_study(tmp_path, what_to_train=own)))
    lora, full = one.recipes
    assert lora.learning_rate == 5e-3 and lora.rank == one.healing.rank
    assert full.learning_rate == one.healing.learning_rate and full.steps == one.healing.steps
    assert study.override(one, what_to_train={"seeds": [3]}).recipes == one.recipes
    assert study.override(one, healing="none").recipes == []


def test_what_is_like_a_study_heals_otherwise_with_its_recipes(
    tmp_path: Path, write_study: Studies
) -> None:
    own = {"recipes": [{"recipe": "lora", "learning_rate": 5e-3}, {"recipe": "full"}]}
    base = write_study(tmp_path, what_to_train=own, healing={"recipe": "lora", "steps": 2})
    other = f"like: ./{base.name}\nhealing: {{steps: 7, length: 24}}\n"
    (tmp_path / "other.yaml").write_text(other)
    found = study.load(str(tmp_path / "other.yaml"))
    assert [(one.steps, one.length) for one in found.recipes] == [(7, 24)] * 2
    assert found.recipes[0].learning_rate == 5e-3
    changed = study.override(study.load(str(base)), healing={"steps": 9})
    assert [one.steps for one in changed.recipes] == [9, 9]


def test_recipes_of_one_name_are_two_jobs(tmp_path: Path, write_study: Studies) -> None:
    """They differ in what the name does not say."""
    own = {"recipes": [{"recipe": "lora", "learning_rate": 5e-3}], "fractions": [0.5]}
    healing = {"recipe": "lora", "learning_rate": 1e-3, "fractions": [0.5], "steps": 2}
    path = write_study(
        tmp_path, what_to_train=own, healing=healing, last_layer={"fractions": [0.5]}
    )
    opened = OpenStudy(study.load(str(path)))
    opened = Planned(opened.study, opened.config)
    main = opened.strategies[0]
    found = [
        (name, part.conditions[0].healing.learning_rate)
        for name, part in parts(opened).items()
        if part.healed and part.conditions[0].strategy == main and "seed0" in name
    ]
    assert {rate for _, rate in found} == {1e-3, 5e-3} and len({name for name, _ in found}) == len(
        found
    )


def test_layers_at_a_cut_that_are_the_last_are_one_recipe(
    tmp_path: Path, write_study: Studies
) -> None:
    recipes = [{"recipe": "partial", "layers": 1, "at": at} for at in ("last", "cut")]
    own = {"recipes": recipes, "strategies": ["simple", "reverse-order"], "fractions": [0.34]}
    opened = OpenStudy(study.load(str(write_study(tmp_path, what_to_train=own))))
    found = [
        (one.strategy, one.recipe)
        for one in further_conditions.recipe_conditions(Planned(opened.study, opened.config))
        if one.healing
    ]
    # Behind a cut that keeps the last layer lies that layer, and behind one that does not nothing.
    assert sorted(found) == [
        ("reverse-order", "partial-head-norm-last1"),
        ("simple", "partial-head-norm-last1"),
    ]


def test_a_task_counts_once(answered: macro.Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    again = TASKS[0].model_copy(update={"shots": 5})
    monkeypatch.setattr(answered.opened.study, "tasks", [*TASKS, again])
    assert [(one.name, one.shots) for one in answered.chance] == [("facts", 0), ("passages", 0)]


def test_gradients_and_further_recipes_count_in_memory(
    tmp_path: Path, write_study: Studies
) -> None:
    def needs(**changes: object) -> dict[str, float]:
        one = study.load(str(write_study(tmp_path, **changes)))
        return memory(one, shape_of(OpenStudy(one).config, one.adapted))

    plain = needs()
    assert "gradients" not in plain
    assert needs(which_layers={"strategies": ["taylor"]})["gradients"] > plain["unhealed"]
    full = needs(what_to_train={"recipes": [{"recipe": "full"}]})
    assert full["healing"] > plain["healing"]


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


def test_names_of_what_a_study_replaces_are_not_inherited(
    tmp_path: Path, write_study: Studies
) -> None:
    path = write_study(tmp_path, **BESIDE | {"held_out_text": {"path": "held_out.jsonl"}})
    (tmp_path / "held_out.jsonl").write_text('{"text": "once"}\n')
    text = path.read_text().replace("last_layer:\n", "last_layer:\n  recipes: [lora-r4]\n")
    path.write_text(text.replace("alpha: 4", "alpha: null"))
    assert study.load(str(path)).last_layer.recipes == ["lora-r4"]
    (tmp_path / "other.yaml").write_text(f"like: ./{path.name}\nhealing: {{rank: 2}}\n")
    found = study.load(str(tmp_path / "other.yaml"))
    assert found.last_layer.recipes == [] and found.recipes[0].rank == 2
    own = f"like: ./{path.name}\nhealing: {{rank: 2}}\nlast_layer: {{recipes: [lora-r2]}}\n"
    (tmp_path / "own.yaml").write_text(own)
    assert study.load(str(tmp_path / "own.yaml")).last_layer.recipes == ["lora-r2"]
