"""The models of the sections that set strategies and recipes side by side."""

from pathlib import Path

import pytest
from conftest import Studies

from lib import study
from lib.book.memory import memory
from lib.book.plan import Planned, extras, parts
from lib.errors import UserError
from lib.experiments import further_conditions
from lib.experiments.opened import OpenStudy
from lib.models.shapes import shape_of
from lib.sections import last_layer, strips, what_to_train, which_layers

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
