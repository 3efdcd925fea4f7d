"""Which models a section evaluates: what is dropped and why, in which weights, healed or not."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from lib.bench import Bench
from lib.blocks import STRATEGIES, UNPRUNED, Block
from lib.schema import Healing, Task
from lib.teacher import relative_cost

TEACHING = ("plain, equal steps", "plain, equal time", "with a teacher")


@dataclass(frozen=True)
class Condition:
    """One model to evaluate: which block is dropped and why, in which weights, healed or not."""

    strategy: str
    block: Block
    weights: str
    healing: Healing | None = None

    @property
    def recipe(self) -> str:
        return self.healing.name if self.healing else "none"

    @property
    def name(self) -> str:
        return f"drop {self.block} {self.weights} {self.recipe}"


def unhealed(bench: Bench) -> list[Condition]:
    """The unpruned model and, per strategy, every n (or those that the study lists)."""
    wanted = bench.study.pruned_layers or range(1, bench.n_layers)
    return [unpruned(bench)] + [
        Condition(strategy, bench.block(strategy, n), bench.weights)
        for strategy in STRATEGIES
        for n in wanted
    ]


def unpruned(bench: Bench) -> Condition:
    """The whole model, unhealed, in the study's number format."""
    return Condition("none", UNPRUNED, bench.weights)


def healed(
    bench: Bench,
    recipe: Healing,
    fractions: Iterable[float],
    strategies: Iterable[str] = STRATEGIES,
) -> list[Condition]:
    """The unpruned model and, per strategy, the healed fractions, all trained with one recipe."""
    weights = "nf4" if recipe.recipe == "qlora" else bench.weights
    return [Condition("none", UNPRUNED, weights, recipe)] + [
        Condition(strategy, bench.block(strategy, n), weights, recipe)
        for strategy in strategies
        for n in bench.healed_ns(fractions)
    ]


def untrained(conditions: list[Condition]) -> list[Condition]:
    """The controls of healed models: the same weights, not trained."""
    return [replace(condition, healing=None) for condition in conditions]


def main_conditions(bench: Bench) -> list[Condition]:
    """All models of sections 02 to 04: unhealed, in 4-bit, and healed with the study's recipe."""
    study = bench.study
    trained = healed(bench, study.healing, study.healing.fractions)
    plain = unhealed(bench)
    # Where healing leaves the number format alone, the controls are unhealed prunings like others.
    controls = [one for one in untrained(trained) if one not in plain]
    return plain + controls + trained


def rank_conditions(bench: Bench) -> list[Condition]:
    """The study's own rank at the fractions of the rank comparison, and the others; none where
    there are no others, or all weights are trained.

    The unpruned, unhealed model, with which they are compared, comes first."""
    study = bench.study
    if study.healing.recipe == "full":
        return [unpruned(bench)]
    ranks = sorted({*study.lora_rank.ranks, study.healing.rank})
    if len(ranks) < 2:
        return [unpruned(bench)]
    recipes = [study.healing.model_copy(update={"rank": rank}) for rank in ranks]
    return [unpruned(bench)] + [
        condition
        for recipe in recipes
        for condition in healed(bench, recipe, study.lora_rank.fractions)
        if condition.strategy != "none"
    ]


def seed_conditions(bench: Bench) -> list[Condition]:
    """The study's own seed of healing and the others, similarity-informed, after the unpruned,
    unhealed model; none where there are no others."""
    study = bench.study
    seeds = sorted({*study.healing_seeds.seeds, study.healing.seed})
    if len(seeds) < 2:
        return [unpruned(bench)]
    recipes = [study.healing.model_copy(update={"seed": seed}) for seed in seeds]
    return [unpruned(bench)] + [
        condition
        for recipe in recipes
        for condition in healed(bench, recipe, study.healing_seeds.fractions, ["similarity"])
        if condition.strategy != "none"
    ]


def teacher_conditions(bench: Bench) -> dict[str, list[Condition]]:
    """Plain healing, plain healing for as long as a teacher would take, and healing with a teacher
    (eq. 8), by these names: every seed and fraction, similarity-informed. None of them where all
    weights are trained: then no teacher stays."""
    study, groups = bench.study, {name: [] for name in TEACHING}
    if study.healing.recipe == "full":
        return groups
    for seed in study.teacher.seeds:
        plain = study.healing.model_copy(update={"seed": seed, "teacher": 0.0})
        for condition in healed(bench, plain, study.teacher.fractions, ["similarity"])[1:]:
            longer = {"steps": equal_time_steps(bench, plain, condition.block)}
            for name, change in zip(
                TEACHING, ({}, longer, {"teacher": study.teacher.weight}), strict=True
            ):
                recipe = plain.model_copy(update=change)
                groups[name].append(replace(condition, healing=recipe))
    return groups


def equal_time_steps(bench: Bench, recipe: Healing, block: Block) -> int:
    """Steps of plain healing that take as long as the recipe's steps would with a teacher."""
    factor = relative_cost(bench.config, block, recipe.gradient_checkpointing)
    return round(recipe.steps * factor)


def prompted(bench: Bench, condition: Condition) -> bool:
    """Whether a model is asked the prompts of the ablation: those similarity-informed, unhealed or
    healed with the study's own recipe."""
    if condition.strategy not in ("none", "similarity"):
        return False
    plain = condition.healing is None and condition.weights == bench.weights
    return plain or condition.healing == bench.study.healing


def asked(bench: Bench, condition: Condition) -> list[Task]:
    """The questions that a model is asked: the study's tasks, and the prompts of the ablation."""
    tasks = bench.study.tasks
    more = bench.prompt_tasks if prompted(bench, condition) else []
    return [*tasks, *(task for task in more if task not in tasks)]


def writes(bench: Bench, condition: Condition) -> bool:
    """Whether a model is asked to write: those of one strategy and recipe, side by side."""
    study = bench.study
    if condition.strategy not in ("none", "similarity"):
        return False
    if condition.healing is not None:
        return condition.healing == study.healing
    ns = [0, *bench.healed_ns(study.healing.fractions)]
    return condition.weights == bench.weights and condition.block.n in ns


def chosen_blocks(bench: Bench) -> pd.DataFrame:
    """What each strategy drops, in words, for every n that is evaluated."""
    rows = []
    for n in bench.study.pruned_layers or range(1, bench.n_layers):
        found = {strategy: bench.block(strategy, n) for strategy in STRATEGIES}
        words = {key: block.in_words(bench.n_layers) for key, block in found.items()}
        rows.append({"n": n, **words, "same": "yes" if len(set(found.values())) == 1 else ""})
    return pd.DataFrame(rows)
