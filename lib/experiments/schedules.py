"""Pruning in steps: drop, heal, choose again on the model as it is by then, and so on.

    schedule = [Step("similarity", 2, recipe), Step("similarity", 2, recipe)]
    condition = resolve(opened, schedule)     # heals all but the last step
    measure(opened, [condition])

Each set of layers that is resolved is a record; what is measured afterwards is keyed by the chain
of sets and healings. A schedule that was killed goes on at the step, and in the training, where it
was.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lib.errors import UserError
from lib.experiments.choosing import Asked, by_losses
from lib.experiments.conditions import Condition, Done
from lib.experiments.models import going_on
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
