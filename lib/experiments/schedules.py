"""Pruning in steps: drop, heal, choose again on the model as it is by then, and so on.

    schedule = [Step("similarity", 2, recipe), Step("similarity", 2, recipe)]
    condition = resolve(opened, schedule)     # heals all but the last step
    measure(opened, [condition])

Each set of layers that is resolved is a record; what is measured afterwards is keyed by the chain
of sets and healings. A schedule that was killed goes on at the step, and in the training, where it
was.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lib.errors import UserError
from lib.experiments.choosing import Asked, by_losses
from lib.experiments.conditions import Condition, Done
from lib.experiments.measure import measure
from lib.experiments.models import BrokeDown, going_on
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import condition_inputs
from lib.open_sets import Healing
from lib.pruning.dropped import UNPRUNED, Dropped


@dataclass(frozen=True)
class Step:
    """Drop n layers by a strategy, and heal. anew: scored on the model as it is by then; else by
    the scores of the unpruned model, of which the next n layers go."""

    strategy: str
    n: int
    healing: Healing | None
    anew: bool = True


@dataclass(frozen=True)
class Schedule:
    """By one strategy, so many layers at a time up to the largest of `ns`, the numbers of layers at
    which it is set against all at once; healed after each step with all of one recipe."""

    strategy: str
    each: int
    recipe: Healing
    ns: tuple[int, ...]
    anew: bool

    @property
    def name(self) -> str:
        return f"{self.strategy}-{self.each}-{self.recipe.name}-seed{self.recipe.seed}"

    def steps(self, n: int) -> list[Step]:
        return [Step(self.strategy, self.each, self.recipe, self.anew)] * (n // self.each)

    def longer(self, n: int) -> Healing:
        """The recipe for all at once, with as many tokens as all steps to n layers train on: the
        same rows, as often as there are steps."""
        times = n // self.each
        changes = {"steps": self.recipe.steps * times, "epochs": self.recipe.epochs * times}
        return self.recipe.model_copy(update=changes)


def schedules(opened: OpenStudy) -> list[Schedule]:
    """Those that the study asks for; numbers of layers that are not so many times one step are left
    out.

    Raises UserError where a step fits none."""
    study, asked = opened.study, opened.study.step_by_step
    names = asked.recipes or [one.name for one in study.recipes[:1]]
    found = []
    for strategy in asked.strategies:
        for each in asked.layers_at_a_time:
            ns = opened.healed_ns(asked.fractions)
            fit = tuple(n for n in ns if n % each == 0 and n > each)
            if ns and not fit:
                raise UserError(
                    f"study {study.name}: step_by_step.layers_at_a_time {each}: no steps of so "
                    f"many sum to {' or '.join(map(str, ns))} layers"
                )
            for recipe in study.recipes if fit else ():
                for seed in asked.seeds if recipe.name in names else ():
                    seeded = recipe.model_copy(update={"seed": seed})
                    found.append(Schedule(strategy, each, seeded, fit, asked.anew))
    return found


def at_once(opened: OpenStudy, one: Schedule, longer: bool = False) -> list[Condition]:
    """What a schedule is set against, in the order of its `ns`: all layers dropped in one step, and
    trained as long as one step, or as all of them."""
    return [
        Condition(one.strategy, opened.chosen(one.strategy, n), opened.weights_of(recipe), recipe)
        for n in one.ns
        for recipe in [one.longer(n) if longer else one.recipe]
    ]


def carry_out(opened: OpenStudy, one: Schedule) -> None:
    """Measure the models that a schedule leads to, as far as no step breaks down."""
    for condition in outcomes(opened, one):
        measure(opened, [condition])


def outcomes(opened: OpenStudy, one: Schedule) -> Iterator[Condition]:
    """The models of n layers less, for each of `ns`; steps on the way are carried out as they are
    needed."""
    for n in one.ns:
        try:
            # Named as what it is set against, so that it is asked the same.
            yield replace(resolve(opened, one.steps(n)), strategy=one.strategy)
        except BrokeDown:
            return


def resolve(opened: OpenStudy, steps: Sequence[Step]) -> Condition:
    """The model that a schedule ends with. Steps before the last are carried out for it, where a
    choice on them is not recorded yet.

    Raises UserError for steps that drop all layers, and for a strategy whose larger choice does not
    contain its smaller one where it is to go on without scoring anew."""
    condition = Condition("none", UNPRUNED, opened.weights)
    name = " then ".join(f"{step.strategy} {step.n}" for step in steps)
    for number, step in enumerate(steps):
        dropped = _next(opened, condition, step) if number else opened.chosen(step.strategy, step.n)
        before = condition.before
        if number:
            before = (*before, Done(condition.last, condition.healing))
        weights = opened.weights_of(step.healing) if step.healing else opened.weights
        both = Dropped({*condition.dropped, *dropped})
        condition = Condition(name, both, weights, step.healing, before)
    return condition


def _next(opened: OpenStudy, so_far: Condition, step: Step) -> Dropped:
    """What a further step drops, by the numbers of the unpruned model; from evidence, or chosen
    now."""
    left = opened.n_layers - so_far.dropped.n
    if not step.anew:
        found = opened.chosen(step.strategy, so_far.dropped.n + step.n)
        if not set(so_far.dropped) <= set(found):
            raise UserError(
                f"strategy {step.strategy}: its {found.n} layers ({found}) do not contain "
                f"{so_far.dropped}; only with anew can it go on from there"
            )
        return Dropped(set(found) - set(so_far.dropped))

    strategy, kept = opened.strategy(step.strategy), so_far.dropped.kept(opened.n_layers)
    if opened.planned or strategy.by_rule:
        return Dropped(kept[layer] for layer in strategy.expected(step.n, left))

    def choose() -> dict[str, list[int]]:
        with going_on(opened, so_far) as study:
            local = strategy.chosen(Asked(OpenStudy(study)), step.n, left)
        return {"layers": [kept[layer] for layer in local]}

    settings = strategy.settings.model_dump()
    settings = {"settings": settings} if settings else {}
    inputs = condition_inputs(opened, so_far) | {
        "choice": strategy.inputs() | settings | by_losses(strategy) | {"n": step.n},
        "text": opened.texts["validation"],
        "sample": opened.study.distances.model_dump(exclude={"bootstrap"}),
    }
    if opened.study.calibration:
        inputs["calibration"] = opened.windows_inputs(opened.study.calibration)
    name = f"{step.strategy} n={step.n} after {so_far.name}"
    return Dropped(opened.store.get_or_measure("choice", name, inputs, choose)["layers"])
