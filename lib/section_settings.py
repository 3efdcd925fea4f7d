"""What sections ask for beside the study's own models and questions: keys of a study, one for each
of these sections."""

import math
from typing import Annotated

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from lib.fields import (
    MOST,
    MOST_EXAMPLES,
    Fraction,
    Group,
    Positive,
    Rate,
    Seed,
    Several,
    Shots,
    Task,
)
from lib.open_sets import LAST_LAYER, Chosen, Healing, known, read_healing


class Ranks(Group):
    """The comparison of LoRA ranks: further ones, healed at fewer fractions."""

    ranks: Annotated[list[Positive], Field(min_length=1)] = [2, 32]
    fractions: Annotated[list[Fraction], Field(min_length=1)] = [0.25, 0.5, 0.75]


class Prompts(Group):
    """Prompt ablations (Fig. 7): one task with its examples in several orders, and with several
    numbers of examples. Empty `task`: the study's first one of the role `knowledge`; empty `shots`:
    as many as the study's own tasks of that name have at most, and where that is none there are no
    ablations; empty `numbers`: 0, 1 and `shots`."""

    task: str | None = None
    limit: Positive | None = None
    shots: Annotated[int, Field(ge=1, le=MOST_EXAMPLES)] | None = None
    orders: Annotated[int, Field(ge=2, le=1000)] = 3
    numbers: Annotated[list[Shots], Field(min_length=2)] | None = None

    @model_validator(mode="after")
    def enough_orders(self) -> "Prompts":
        if self.shots and self.orders > math.factorial(self.shots):
            raise ValueError(f"{self.shots} examples have no {self.orders} orders")
        return self


class Seeds(Group):
    """Healing with other seeds (Fig. 8), similarity-informed; with no seeds there is no such
    comparison."""

    seeds: list[Seed] = [1, 2]
    fractions: Annotated[list[Fraction], Field(min_length=1)] = [0.25, 0.5]


class Teacher(Group):
    """Healing with the student–teacher loss of eq. 8, weighted with `weight`, against the study's
    own recipe at equal steps and at equal time; similarity-informed. With no seeds there is no such
    comparison."""

    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    seeds: list[Seed] = [0, 1]
    fractions: Annotated[list[Fraction], Field(min_length=1)] = [0.25, 0.5]


class WhichLayers(Group):
    """Strategies beside the study's own: unhealed at `pruned_layers` (empty: as the study says),
    and healed at `fractions` with the first of `what_to_train.recipes`, else as the study heals;
    those in `healed` alone, by name, where it lists any. Where a strategy draws by chance all draws
    are asked at `fractions`, and the first `healed_draws` healed there. Scores are taken on
    `calibration_draws` samples of the calibration text."""

    strategies: list[Chosen] = []
    pruned_layers: Annotated[list[Positive], Field(min_length=1)] | None = None
    fractions: Annotated[list[Fraction], Field(min_length=1)] = [0.25, 0.5]
    healed: list[str] = []
    healed_draws: Annotated[int, Field(ge=0, le=MOST)] = 0
    calibration_draws: Positive = 3

    @model_validator(mode="after")
    def more_than_one(self) -> "WhichLayers":
        if self.healed_draws == 1:
            raise ValueError("healed_draws: one draw says nothing; 0, or at least 2")
        return self


class WhatToTrain(Group):
    """Recipes side by side, each with settings of its own laid over `healing`. `strategies`: whose
    prunings they heal, by name; empty: those of the study's main one. `unpruned`: the whole model
    is trained with each of them, too. `learning_rates`: tried with each recipe on one pruning, that
    of the first strategy, fraction and seed; its loss is taken on the study's `held_out_text`."""

    recipes: list[Annotated[SerializeAsAny[Healing], BeforeValidator(read_healing)]] = []
    strategies: list[str] = []
    fractions: Annotated[list[Fraction], Field(min_length=1)] = [0.25]
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    unpruned: bool = False
    learning_rates: list[Rate] = []


class LastLayer(Group):
    """A strategy that keeps the last layer against one that drops it, unhealed and healed with some
    of `what_to_train.recipes`, by name; empty: with all."""

    keeps: str = LAST_LAYER[0]
    drops: str = LAST_LAYER[1]
    recipes: list[str] = []
    fractions: Annotated[list[Fraction], Field(min_length=1)] = [0.25, 0.5]
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]


class StepByStep(Group):
    """Pruning in steps against all at once: by each of `strategies`, so many of
    `layers_at_a_time`, healed after each step with the whole of a recipe, one of
    `what_to_train.recipes` by name (empty: the first). `anew`: scored before each step on the model
    as it is by then."""

    strategies: list[str] = []
    recipes: list[str] = []
    layers_at_a_time: Annotated[list[Positive], Field(min_length=1)] = [1]
    fractions: Annotated[list[Fraction], Field(min_length=1)] = [0.125, 0.25, 0.375, 0.5]
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    anew: bool = True


class OnWhat(Group):
    """What layers are chosen on, and what pruned models are healed on. The layers of `strategies`
    are scored on so many windows of the calibration text, `samples`, in `draws` that share none;
    those of `searches` on it and on each of `texts`, by their names in `other_texts`; all these
    sets are asked unhealed, at the first of `fractions`. `recipes`, which differ in their `data`,
    heal the prunings of `pruned_by` (empty: of the study's main strategy)."""

    samples: list[Positive] = []
    draws: Annotated[int, Field(ge=2, le=MOST)] = 10
    strategies: list[str] = []
    texts: list[str] = []
    searches: list[str] = []
    recipes: list[Annotated[SerializeAsAny[Healing], BeforeValidator(read_healing)]] = []
    pruned_by: list[str] = []
    fractions: Annotated[list[Fraction], Field(min_length=1)] = [0.25, 0.5]
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]


class WhatHeals(Group):
    """Ways of healing side by side: `recipes`, which differ in what they read and in what the loss
    asks of it, heal the prunings of `pruned_by` (empty: of the study's main strategy). With none
    there is no such comparison."""

    recipes: list[Annotated[SerializeAsAny[Healing], BeforeValidator(read_healing)]] = []
    pruned_by: list[str] = []
    fractions: Annotated[list[Fraction], Field(min_length=1)] = [0.25, 0.5]
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0, 1, 2]


class WhatLayersDo(Group):
    """What layers do to the residual stream, on the windows of `distances`: at the last token of
    each and so many `further` ones, all where there are fewer. Blocks of these `fractions` of the
    layers are compared by each measure of likeness. `gradients`: windows that are read backwards,
    too. `task`: on whose questions the logit lens looks; empty: the study's first one of the role
    `knowledge`, without examples. `leave_one_out`: whether the model is asked without each layer
    in turn."""

    further: Annotated[int, Field(ge=0, le=MOST)] = 31
    fractions: Annotated[list[Fraction], Field(min_length=1)] = [0.25]
    gradients: Annotated[int, Field(ge=0, le=MOST)] = 0
    task: str = ""
    leave_one_out: bool = False


class Writing(Group):
    """What the model writes, greedily: `tokens` after the first `prompt_tokens` of `n_prompts`
    documents of the validation text, and after each of the study's own `prompts`."""

    n_prompts: Annotated[int, Field(ge=0, le=MOST)] = 3
    prompt_tokens: Positive = 24
    tokens: Positive = 32
    prompts: list[Annotated[str, Field(min_length=1)]] = []
    seed: Seed = 0


class WhatBreaks(Group):
    """What is lost first, of abilities: the study's own tasks tell, and further `tasks`, which
    prunings by the main strategy are asked at these `fractions`, and what is healed there. These
    models write, too, to see how fluently; with no fractions nothing further is asked."""

    tasks: list[Task] = []
    fractions: list[Fraction] = []
    writing: Writing = Writing(n_prompts=24, tokens=48)


class Repairs(Group):
    """Prunings of `strategies` (empty: of the study's main one) repaired without training in each
    of these ways, by what is summed over the calibration text; with none there is no such
    comparison. At the `healed` ones of the fractions repaired models are healed afterwards, too,
    and pruned ones on as many tokens as the calibration text has."""

    repairs: list[str] = []
    strategies: list[str] = []
    fractions: Annotated[list[Fraction], Field(min_length=1)] = [0.25, 0.5]
    healed: list[Fraction] = []

    @model_validator(mode="after")
    def shipped(self) -> "Repairs":
        for name in self.repairs:
            if name not in known("repair"):
                raise ValueError(f"repairs: '{name}' is none of {', '.join(known('repair'))}")
        return self


class Cost(Group):
    """Memory, FLOPs and time against the fraction dropped (§1, §5): `length` tokens are read in
    `batch` rows at once, then `tokens` are written one at a time; `repeats` of each."""

    fractions: Annotated[list[Fraction], Field(min_length=3)] = [0, 0.25, 0.5, 0.75]
    length: Several = 64
    batch: Positive = 4
    tokens: Positive = 16
    repeats: Annotated[int, Field(ge=3, le=MOST)] = 5


class Controls(Group):
    """What the model is compared with: an untrained twin (the same configuration with random
    weights), measured beside it, and reference runs, whose tables stand under published/. Runs of
    smaller models of its family, trained from scratch, are `from_scratch`, here or published."""

    untrained: bool = True
    seed: Seed = 0
    studies: list[str] = []
    from_scratch: list[str] = []
