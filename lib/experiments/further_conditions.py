"""The models of sections that set strategies and recipes beside those of the study's own."""

from collections.abc import Iterable
from dataclasses import replace

from lib.experiments.conditions import (
    ONE_LAYER,
    Condition,
    healed,
    main_conditions,
    unpruned,
    untrained,
)
from lib.experiments.opened import OpenStudy
from lib.healing import recipe as recipes
from lib.open_sets import Healing
from lib.pruning.dropped import Dropped
from lib.section_settings import OnWhat, WhatHeals


def layer_conditions(opened: OpenStudy) -> dict[str, list[Condition]]:
    """Every strategy that does not draw by chance, unhealed and healed; and the draws of those that
    do, a group each. Nothing but the unpruned model where the study names no strategies beside its
    own."""
    study, settings = opened.study, opened.study.which_layers
    found = {"": [unpruned(opened)]}
    if not settings.strategies:
        return found
    recipe = next(iter(study.recipes), study.healing)
    sizes = opened.healed_ns(settings.fractions)
    for name in opened.every_strategy:
        if not opened.strategy(name).by_chance:
            ns = {*sizes, *(settings.pruned_layers or opened.sizes(name))}
            trained = recipe if name in (settings.healed or [name]) else None
            found[""] += _of_sizes(opened, name, ns, sizes, trained)
            continue
        for draw in range(len(opened.strategy(name).drawn(1, opened.n_layers))):
            few = recipe if draw < settings.healed_draws else None
            group = f"draw-{draw}"
            drawn = _of_sizes(opened, name, sizes, sizes, few, draw)
            found[group] = found.get(group, []) + drawn
    return found


def _of_sizes(
    opened: OpenStudy,
    strategy: str,
    unhealed: Iterable[int],
    healed: Iterable[int],
    recipe: Healing | None,
    draw: int = 0,
) -> list[Condition]:
    """A strategy's prunings of so many layers, unhealed, and healed where there is a recipe; those
    of more layers than it can drop are left out."""
    most = opened.strategy(strategy).most(opened.n_layers)
    found = {n: opened.chosen(strategy, n, draw) for n in sorted({*unhealed, *healed}) if n <= most}
    trained = [
        Condition(strategy, found[n], opened.weights_of(recipe), recipe)
        for n in healed
        if recipe and n <= most
    ]
    plain = [Condition(strategy, found[n], opened.weights) for n in found]
    return plain + [one for one in untrained(trained) if one not in plain] + trained


def single_layers(opened: OpenStudy) -> list[Condition]:
    """The model without each layer in turn, after the unpruned one; nothing else where the study
    does without."""
    found = [unpruned(opened)]
    if opened.study.what_layers_do.leave_one_out:
        every = range(opened.n_layers)
        found += [Condition(ONE_LAYER, Dropped([layer]), opened.weights) for layer in every]
    return found


def breaking_conditions(opened: OpenStudy) -> list[Condition]:
    """The models of most sections, and the main strategy's prunings at the fractions of what breaks
    first."""
    name = opened.strategies[0]
    ns = opened.healed_ns(opened.study.what_breaks.fractions)
    more = [Condition(name, opened.chosen(name, n), opened.weights) for n in ns]
    return distinct([*main_conditions(opened), *more])


def recipe_conditions(opened: OpenStudy) -> list[Condition]:
    """Prunings healed with each recipe and seed, and the same unhealed, after the unpruned model;
    nothing else where the study names no recipes side by side."""
    settings = opened.study.what_to_train
    names = settings.strategies or opened.strategies[:1]
    found = []
    for recipe in opened.study.recipes:
        for seed in settings.seeds:
            seeded = recipe.model_copy(update={"seed": seed})
            models = healed(opened, seeded, settings.fractions, names)
            found += models if settings.unpruned else models[1:]
    return _with_controls(opened, [plainly(opened, one) for one in found])


def plainly(opened: OpenStudy, one: Condition) -> Condition:
    """Two recipes that train the same of a pruning are one there."""
    found = recipes.of(one.healing).plainly(one.healing, one.dropped, opened.n_layers)
    return replace(one, healing=found)


def last_layer_conditions(opened: OpenStudy) -> list[Condition]:
    """Prunings that keep the last layer and such that drop it, unhealed and healed with each of the
    recipes that are set against them, after the unpruned model."""
    settings = opened.study.last_layer
    found = [
        one
        for recipe in opened.study.recipes
        if not settings.recipes or recipe.name in settings.recipes
        for seed in settings.seeds
        for one in healed(
            opened,
            recipe.model_copy(update={"seed": seed}),
            settings.fractions,
            [settings.keeps, settings.drops],
        )[1:]
    ]
    return _with_controls(opened, found)


def data_conditions(opened: OpenStudy) -> list[Condition]:
    """Prunings healed on each data set, and the same unhealed, after the unpruned model."""
    return _side_by_side(opened, opened.study.recipes_on_data, opened.study.on_what)


def way_conditions(opened: OpenStudy) -> list[Condition]:
    """Prunings healed in each way, likewise; with a teacher only those that lack one block."""
    study = opened.study
    found = _side_by_side(opened, study.ways_of_healing, study.what_heals)
    return [
        one for one in found if not (one.healing and one.healing.teacher) or one.dropped.contiguous
    ]


def _side_by_side(
    opened: OpenStudy, ways: Iterable[Healing], settings: OnWhat | WhatHeals
) -> list[Condition]:
    """The prunings that a section names, healed with each recipe and seed, with their controls."""
    found = [
        one
        for recipe in ways
        for seed in settings.seeds
        for one in healed(
            opened,
            recipe.model_copy(update={"seed": seed}),
            settings.fractions,
            settings.pruned_by or opened.strategies[:1],
        )[1:]
    ]
    return _with_controls(opened, found)


def repair_conditions(opened: OpenStudy) -> list[Condition]:
    """Prunings as they are and repaired in each way, after the unpruned model; and healed with the
    study's own recipe, where the study heals them anyway or is to here. There the repaired ones are
    healed, too, and pruned ones on as many tokens as repairs read. Blocks alone that a layer stands
    before can be repaired; others are left out."""
    study, settings, found = opened.study, opened.study.repair, [unpruned(opened)]
    anyway = opened.healed_ns(study.fractions) if study.healing else []
    wanted = opened.healed_ns(settings.healed) if study.healing else []
    for strategy in (settings.strategies or opened.strategies[:1]) if settings.repairs else []:
        for n in opened.healed_ns(settings.fractions):
            plain = Condition(strategy, opened.chosen(strategy, n), opened.weights)
            if not plain.dropped.contiguous or plain.dropped.start == 0:
                continue
            repaired = [replace(plain, repair=name) for name in settings.repairs]
            found += [plain, *repaired]
            if n in wanted:
                few = study.healing.model_copy(update={"steps": equal_data_steps(opened)})
                found += [_healed(opened, one, study.healing) for one in (plain, *repaired)]
                found.append(_healed(opened, plain, few))
            elif n in anyway and strategy in opened.strategies:
                found.append(_healed(opened, plain, study.healing))
    return distinct(found)


def equal_data_steps(opened: OpenStudy) -> int:
    """Steps in which the study's own recipe reads as many tokens as repairs do."""
    text, recipe = opened.study.calibration, opened.study.healing
    return max(1, round(text.n_sequences * text.length / (recipe.batch * recipe.length)))


def _healed(opened: OpenStudy, one: Condition, recipe: Healing) -> Condition:
    return replace(one, weights=opened.weights_of(recipe), healing=recipe)


def _with_controls(opened: OpenStudy, trained: list[Condition]) -> list[Condition]:
    """Healed models, after the unpruned one and what they are without training, unhealed in the
    study's number format and in that of the recipe."""
    plain = [Condition(one.strategy, one.dropped, opened.weights) for one in trained]
    return distinct([unpruned(opened), *plain, *untrained(trained), *trained])


def distinct(conditions: Iterable[Condition]) -> list[Condition]:
    """Each once, in order."""
    return list({repr(one): one for one in conditions}.values())
