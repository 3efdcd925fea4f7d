"""What has to hold between the settings of a study, beyond the type and range of each."""

from typing import TYPE_CHECKING

from lib.open_sets import Chosen

if TYPE_CHECKING:
    from lib.schema import Study


def check(study: "Study") -> None:
    """Raises ValueError, naming the keys."""
    _check_lists(study)
    _check_texts(study)
    _check_strategies(study)
    _check_recipes(study)
    _check_used(study)
    names = [task.name for task in study.tasks]
    _check_abilities(study)
    if study.prompts.task is not None and study.prompts.task not in names:
        raise ValueError(f"prompts.task is none of the study's tasks, {', '.join(names)}")
    chosen = list(dict.fromkeys(one.name for one in study.tasks if one.role != "generation"))
    if study.what_layers_do.task and study.what_layers_do.task not in chosen:
        raise ValueError(
            "what_layers_do.task is none of the study's tasks whose answers are chosen, "
            f"{', '.join(chosen) or 'of which there are none'}"
        )


def _check_abilities(study: "Study") -> None:
    names = [task.name for task in study.every_task]
    for task in study.what_breaks.tasks:
        if names.count(task.name) > 1:
            raise ValueError(f"what_breaks.tasks: '{task.name}' stands twice, or in tasks, too")
    named = [task for tasks in study.abilities.values() for task in tasks]
    for task in named:
        if task not in names:
            raise ValueError(
                f"abilities: '{task}' is none of the study's tasks, {', '.join(names)}"
            )
        if named.count(task) > 1:
            raise ValueError(f"abilities: task '{task}' is named twice")


def _check_lists(study: "Study") -> None:
    for key, values in {
        "pruned_layers": study.pruned_layers or [],
        "strategies": [strategy.name for strategy in study.strategies],
        "healing.fractions": study.fractions,
        "lora_rank.ranks": study.lora_rank.ranks,
        "tasks": [(task.name, task.shots) for task in study.tasks],
        "perplexity": [one.name for one in study.perplexity],
        "prompts.numbers": study.prompts.numbers or [],
        "healing_seeds.seeds": study.healing_seeds.seeds,
        "teacher.seeds": study.teacher.seeds,
        "which_layers.strategies": [one.name for one in study.which_layers.strategies],
        "which_layers.healed": study.which_layers.healed,
        "what_to_train.recipes": [one.name for one in study.what_to_train.recipes],
        "what_to_train.strategies": study.what_to_train.strategies,
        "what_to_train.seeds": study.what_to_train.seeds,
        "what_to_train.learning_rates": study.what_to_train.learning_rates,
        "last_layer.recipes": study.last_layer.recipes,
        "last_layer.seeds": study.last_layer.seeds,
        "step_by_step.strategies": study.step_by_step.strategies,
        "step_by_step.recipes": study.step_by_step.recipes,
        "step_by_step.layers_at_a_time": study.step_by_step.layers_at_a_time,
        "step_by_step.seeds": study.step_by_step.seeds,
        "on_what.samples": study.on_what.samples,
        "on_what.strategies": study.on_what.strategies,
        "on_what.texts": study.on_what.texts,
        "on_what.searches": study.on_what.searches,
        "on_what.recipes": [one.name for one in study.on_what.recipes],
        "on_what.pruned_by": study.on_what.pruned_by,
        "on_what.seeds": study.on_what.seeds,
        "what_heals.recipes": [one.name for one in study.what_heals.recipes],
        "what_heals.pruned_by": study.what_heals.pruned_by,
        "what_heals.seeds": study.what_heals.seeds,
        "repair.repairs": study.repair.repairs,
        "repair.strategies": study.repair.strategies,
        "healing_data": [data.name for data in study.healing_data],
        "other_texts": [text.name for text in study.other_texts],
        "controls.studies": study.controls.studies,
        "controls.from_scratch": study.controls.from_scratch,
    }.items():
        if len(set(values)) != len(values):
            raise ValueError(f"{key} lists the same value twice")


def _check_texts(study: "Study") -> None:
    beside = [*study.what_to_train.recipes, *study.on_what.recipes, *study.what_heals.recipes]
    for one in filter(None, [study.healing, *beside]):
        study.healing_source(one)
    if study.what_to_train.learning_rates and study.held_out_text is None:
        raise ValueError(
            "what_to_train.learning_rates go with held_out_text, on which they are compared"
        )
    if study.repair.repairs and study.calibration is None:
        raise ValueError("repair.repairs go with calibration, the text that they are fitted on")


def _check_strategies(study: "Study") -> None:
    own = {one.name: one for one in study.strategies}
    for one in study.which_layers.strategies:
        if own.get(one.name, one) != one:
            raise ValueError(
                f"which_layers.strategies: '{one.name}' stands in strategies, too, with "
                "other settings"
            )
    for one in study.strategies:
        if one.by_chance:
            raise ValueError(
                f"strategies: '{one.name}' draws layers by chance, and one draw says nothing; "
                "it belongs into which_layers.strategies, where many are compared"
            )
    known = [one.name for one in study.every_strategy if not one.by_chance]
    last = study.last_layer
    asked = [("what_to_train.strategies", name) for name in study.what_to_train.strategies]
    asked += [("last_layer.keeps", last.keeps), ("last_layer.drops", last.drops)]
    asked += [("step_by_step.strategies", name) for name in study.step_by_step.strategies]
    asked += [("repair.strategies", name) for name in study.repair.strategies]
    asked += [("what_heals.pruned_by", name) for name in study.what_heals.pruned_by]
    for key in ("strategies", "searches", "pruned_by"):
        asked += [(f"on_what.{key}", name) for name in getattr(study.on_what, key)]
    for key, name in asked:
        if name not in known and not Chosen.is_rule(name):
            raise ValueError(
                f"{key}: '{name}' is none of the study's strategies, {', '.join(known)}, nor "
                "one that goes by the number of layers alone"
            )


def _check_used(study: "Study") -> None:
    """What would silently not be done."""
    asked, names = study.on_what, [text.name for text in study.other_texts]
    for name in asked.texts:
        if name not in names:
            listed = ", ".join(names) or "of which there are none"
            raise ValueError(f"on_what.texts: '{name}' is none of other_texts, {listed}")
    for key, other in (("samples", "strategies"), ("texts", "searches")):
        given = [bool(getattr(asked, one)) for one in (key, other)]
        if given[0] != given[1] and not (key == "texts" and given[1]):
            raise ValueError(f"on_what.{key} and on_what.{other} go together")
    if study.step_by_step.strategies and study.healing and not study.what_to_train.recipes:
        raise ValueError("step_by_step heals with what_to_train.recipes, of which there are none")
    compared = [one.name for one in study.every_strategy]
    for name in study.which_layers.healed:
        if name not in compared:
            raise ValueError(
                f"which_layers.healed: '{name}' is not compared; there are {', '.join(compared)}"
            )


def _check_recipes(study: "Study") -> None:
    recipes = [one.name for one in study.what_to_train.recipes]
    named = [("last_layer", name) for name in study.last_layer.recipes]
    named += [("step_by_step", name) for name in study.step_by_step.recipes]
    for key, name in named:
        if name not in recipes:
            raise ValueError(
                f"{key}.recipes: '{name}' is none of what_to_train.recipes, "
                f"{', '.join(recipes) or 'of which there are none'}"
            )
