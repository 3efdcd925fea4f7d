"""Which models a section evaluates: what is dropped and why, in which weights, healed or not."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from lib.experiments.opened import OpenStudy
from lib.healing.teacher import relative_cost
from lib.open_sets import Adapters, Healing
from lib.pruning.dropped import UNPRUNED, Dropped
from lib.schema import Study, Task

ONE_LAYER = "one layer"  # not a strategy: each layer by itself
TEACHING = ("plain, equal steps", "plain, equal time", "with a teacher")


@dataclass(frozen=True)
class Done:
    """An earlier step of a pruning in several: what it dropped, and how it was healed then."""

    dropped: Dropped
    healing: Healing | None


@dataclass(frozen=True)
class Condition:
    """One model to evaluate: everything that is dropped and why, in which weights, healed or not.

    before: the earlier steps, where it was pruned in several; `healing` is that of the last.
    repair: how the cut of a single step was repaired without training, before any healing."""

    strategy: str
    dropped: Dropped
    weights: str
    healing: Healing | None = None
    before: tuple[Done, ...] = ()
    repair: str | None = None

    @property
    def recipe(self) -> str:
        return self.healing.name if self.healing else "none"

    @property
    def name(self) -> str:
        steps = "".join(
            f"drop {step.dropped} {step.healing.name if step.healing else 'none'} then "
            for step in self.before
        )
        repaired = f" repaired {self.repair}" if self.repair else ""
        return f"{steps}drop {self.last} {self.weights} {self.recipe}{repaired}"

    @property
    def last(self) -> Dropped:
        """What the last step drops, by the numbers of the unpruned model."""
        gone = {layer for step in self.before for layer in step.dropped}
        return Dropped(set(self.dropped) - gone)

    @property
    def alone(self) -> bool:
        """Whether it is made for itself, and shares no pass with others: it was healed, repaired,
        or pruned in steps."""
        return self.healing is not None or self.repair is not None or bool(self.before)


def previous(opened: OpenStudy, condition: Condition) -> Condition:
    """The model that the last step of a condition starts from."""
    *earlier, last = condition.before
    gone = {layer for step in condition.before for layer in step.dropped}
    weights = opened.weights_of(last.healing) if last.healing else opened.weights
    return Condition(condition.strategy, Dropped(gone), weights, last.healing, tuple(earlier))


def not_healed(opened: OpenStudy, condition: Condition) -> Condition:
    """What a repaired model is before it is healed."""
    return replace(condition, weights=opened.weights, healing=None)


def unhealed(opened: OpenStudy) -> list[Condition]:
    """The unpruned model and, per strategy, every n (or those that the study lists)."""
    return [unpruned(opened)] + [
        Condition(strategy, opened.chosen(strategy, n), opened.weights)
        for strategy in opened.strategies
        for n in opened.sizes(strategy)
    ]


def unpruned(opened: OpenStudy) -> Condition:
    """The whole model, unhealed, in the study's number format."""
    return Condition("none", UNPRUNED, opened.weights)


def healed(
    opened: OpenStudy,
    recipe: Healing,
    fractions: Iterable[float],
    strategies: Iterable[str] | None = None,
) -> list[Condition]:
    """The unpruned model and, per strategy (all of the study's unless named), the healed fractions,
    all trained with one recipe."""
    weights = opened.weights_of(recipe)
    return [Condition("none", UNPRUNED, weights, recipe)] + [
        Condition(strategy, opened.chosen(strategy, n), weights, recipe)
        for strategy in (opened.strategies if strategies is None else strategies)
        for n in opened.healed_ns(fractions)
    ]


def untrained(conditions: list[Condition]) -> list[Condition]:
    """The controls of healed models: the same weights, not trained."""
    return [replace(condition, healing=None) for condition in conditions]


def main_conditions(opened: OpenStudy) -> list[Condition]:
    """What most sections evaluate: unhealed, in 4-bit, and healed with the study's recipe; of a
    study that heals nothing, unhealed alone."""
    study, plain = opened.study, unhealed(opened)
    if study.healing is None:
        return plain
    trained = healed(opened, study.healing, study.fractions)
    # Where healing leaves the number format alone, the controls are unhealed prunings like others.
    controls = [one for one in untrained(trained) if one not in plain]
    return plain + controls + trained


def rank_conditions(opened: OpenStudy) -> list[Condition]:
    """The study's own rank at the fractions of the rank comparison, and the others; none where
    there are no others, or the recipe has no rank.

    The unpruned, unhealed model, with which they are compared, comes first."""
    study = opened.study
    if not isinstance(study.healing, Adapters):
        return [unpruned(opened)]
    ranks = sorted({*study.lora_rank.ranks, study.healing.rank})
    if len(ranks) < 2:
        return [unpruned(opened)]
    recipes = [study.healing.model_copy(update={"rank": rank}) for rank in ranks]
    return [unpruned(opened)] + [
        condition
        for recipe in recipes
        for condition in healed(opened, recipe, study.lora_rank.fractions)
        if condition.strategy != "none"
    ]


def seed_conditions(opened: OpenStudy) -> list[Condition]:
    """The study's own seed of healing and the others, by its main strategy, after the unpruned,
    unhealed model; none where there are no others."""
    study = opened.study
    if study.healing is None:
        return [unpruned(opened)]
    seeds = sorted({*study.healing_seeds.seeds, study.healing.seed})
    if len(seeds) < 2:
        return [unpruned(opened)]
    recipes = [study.healing.model_copy(update={"seed": seed}) for seed in seeds]
    return [unpruned(opened)] + [
        condition
        for recipe in recipes
        for condition in healed(
            opened, recipe, study.healing_seeds.fractions, opened.strategies[:1]
        )
        if condition.strategy != "none"
    ]


def teacher_conditions(opened: OpenStudy) -> dict[str, list[Condition]]:
    """Plain healing, plain healing for as long as a teacher would take, and healing with a teacher
    (eq. 8), by these names: every seed and fraction, by the main strategy. None of them where the
    recipe leaves nothing frozen that could be a teacher, nor where scattered layers are dropped."""
    study, groups = opened.study, {name: [] for name in TEACHING}
    if study.healing is None or not study.healing.TEACHABLE:
        return groups
    for seed in study.teacher.seeds:
        plain = study.healing.model_copy(update={"seed": seed, "teacher": 0.0})
        for condition in healed(opened, plain, study.teacher.fractions, opened.strategies[:1])[1:]:
            if not condition.dropped.contiguous:
                continue
            longer = {"steps": equal_time_steps(opened, plain, condition.dropped)}
            for name, change in zip(
                TEACHING, ({}, longer, {"teacher": study.teacher.weight}), strict=True
            ):
                recipe = plain.model_copy(update=change)
                groups[name].append(replace(condition, healing=recipe))
    return groups


def equal_time_steps(opened: OpenStudy, recipe: Healing, block: Dropped) -> int:
    """Steps of plain healing that take as long as the recipe's steps would with a teacher."""
    factor = relative_cost(opened.config, block, recipe.gradient_checkpointing)
    return round(recipe.steps * factor)


def prompted(opened: OpenStudy, condition: Condition) -> bool:
    """Whether a model is asked the prompts of the ablation: those of its main strategy,
    unhealed or healed with the study's own recipe."""
    if condition.strategy not in ("none", opened.strategies[0]):
        return False
    plain = condition.healing is None and condition.weights == opened.weights
    return plain or condition.healing == opened.study.healing


def beside(opened: OpenStudy, condition: Condition) -> bool:
    """Whether a model is repaired, or of a strategy beside the study's own. It is asked to choose,
    not to write, and its loss is taken on the study's own text alone."""
    if condition.repair:
        return True
    study = opened.study
    named = [one.name for one in study.which_layers.strategies]
    named += [*study.what_to_train.strategies, study.last_layer.keeps, study.last_layer.drops]
    named += [*study.step_by_step.strategies, *study.on_what.pruned_by]
    named += [*study.on_what.strategies, *study.on_what.searches, *study.repair.strategies]
    named += study.what_heals.pruned_by
    named.append(ONE_LAYER)
    return condition.strategy in named and condition.strategy not in opened.strategies


def choices(study: Study) -> list[Task]:
    """The tasks whose answers are chosen, not written."""
    return [task for task in study.tasks if task.role != "generation"]


def asked(opened: OpenStudy, condition: Condition) -> list[Task]:
    """The questions that a model is asked: the study's tasks, and the prompts of the ablation."""
    if beside(opened, condition):
        return choices(opened.study)
    tasks = opened.study.tasks
    more = [*opened.prompt_tasks] if prompted(opened, condition) else []
    more += opened.study.what_breaks.tasks if breaking(opened, condition) else []
    return [*tasks, *(task for task in more if task not in tasks)]


def breaking(opened: OpenStudy, condition: Condition) -> bool:
    """Whether a model is asked the further tasks of what breaks first, and how fluently it
    writes: prunings by the main strategy, unhealed or healed with the study's own recipe."""
    settings, whole = opened.study.what_breaks, condition.strategy == "none"
    if not settings.fractions or not (whole or condition.strategy == opened.strategies[0]):
        return False
    if condition.repair or condition.before:
        return False
    if not (whole or condition.dropped.n in opened.healed_ns(settings.fractions)):
        return False
    if condition.healing is None:
        return condition.weights == opened.weights
    return not whole and condition.healing == opened.study.healing


def writes(opened: OpenStudy, condition: Condition) -> bool:
    """Whether a model is asked to write: those of one strategy and recipe, side by side."""
    study = opened.study
    if condition.strategy not in ("none", opened.strategies[0]):
        return False
    if condition.healing is not None:
        return condition.healing == study.healing
    ns = [0, *opened.healed_ns(study.fractions)]
    return condition.weights == opened.weights and condition.dropped.n in ns
