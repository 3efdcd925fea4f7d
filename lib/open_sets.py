"""Open sets: pruning strategies, repairs and healing recipes. Each is one file in a folder of its
own, and its name is the file's. Who adds one has nothing to list anywhere. Its settings stand in a
study beside its name, and are checked as its file says; repairs have none.

Files of strategies and recipes import torch and peft inside functions: a study is read without
them.
"""

import importlib
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from lib import paths
from lib.errors import UserError
from lib.fields import MOST, Fraction, Group, Positive, Rate, Seed

# What the first paper does, where a study says nothing.
DEFAULT_STRATEGIES = ("similarity", "simple")
DEFAULT_RECIPE = "qlora"
# What keeps the last layer and what drops it, as the first paper and the second advise.
LAST_LAYER = ("simple", "reverse-order")
TAKEN = ("none", "given")  # what tables call no choice, and layers that a person names
NO_HEALING = "none"  # in place of the settings of healing: nothing is healed
FRACTIONS = [0.25, 0.5, 0.75]  # at which models are healed

ALL_LINEAR = ["all-linear"]  # adapters on every linear map of the layers, attention's too

# Modules that get adapters, by their last names; None: the FFN's, as the model's family calls them.
Targets = (
    Annotated[
        list[str],
        Field(min_length=1),
        BeforeValidator(lambda given: ALL_LINEAR if [given] == ALL_LINEAR else given),
    ]
    | None
)

FOLDERS = {
    "strategy": "lib.pruning.strategies",
    "repair": "lib.pruning.repairs",
    "recipe": "lib.healing.recipes",
}


@cache
def known(kind: str) -> list[str]:
    """The names in an open set: files as they are called, with dashes in place of underscores."""
    folder = paths.ROOT.joinpath(*FOLDERS[kind].split("."))
    return sorted(path.stem.replace("_", "-") for path in folder.glob("[a-z]*.py"))


@cache
def module(kind: str, name: str) -> ModuleType:
    """Raises UserError, one line that lists what is known, for any other name."""
    if name not in known(kind):
        raise UserError(f"unknown {kind} '{name}'; known are {', '.join(known(kind))}")
    return importlib.import_module(f"{FOLDERS[kind]}.{name.replace('-', '_')}")


class Chosen(Group):
    """A pruning strategy by its name, with its own settings; or a user's own, `file`. `kind`: the
    shipped strategy that it is, where `name` is another, to tell apart two of one kind."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=60)]
    kind: str | None = None
    file: str | None = None
    settings: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def short(cls, given: Any) -> Any:
        """`simple` is short for {name: simple}; what is no key of this is a setting."""
        if isinstance(given, str):
            return {"name": given}
        if not isinstance(given, dict):
            return given
        found = {key: given[key] for key in given if key in cls.model_fields}
        more = {key: given[key] for key in given if key not in cls.model_fields}
        own = found.get("settings", {})
        return found | ({"settings": own | more} if more and isinstance(own, dict) else {})

    @model_validator(mode="after")
    def known(self) -> "Chosen":
        if self.name in TAKEN:
            raise ValueError(f"the name '{self.name}' is taken: tables use it")
        named = self.kind is not None or self.file is not None
        if named and self.name in known("strategy"):
            raise ValueError(f"the name '{self.name}' is that of a shipped strategy")
        if self.file is not None:
            if self.kind is not None:
                raise ValueError("give either kind (a shipped strategy) or file (your own)")
            if self.settings:
                raise ValueError(f"a strategy of your own has no settings, {[*self.settings]}")
            return self
        of_file("strategy", self.shipped, self.settings, lambda module: module.Strategy.Settings)
        return self

    @staticmethod
    def is_rule(name: str) -> bool:
        """Whether it is a shipped strategy that goes by the number of layers alone."""
        if name not in known("strategy"):
            return False
        found = module("strategy", name).Strategy
        return found.by_rule and not found.by_chance

    @property
    def by_chance(self) -> bool:
        """Whether it draws layers."""
        return self.file is None and module("strategy", self.shipped).Strategy.by_chance

    @property
    def shipped(self) -> str:
        """The name of the shipped strategy that it is, where it is one."""
        return self.kind or self.name


class Healing(Group):
    """Training after pruning (App. A.1), what all recipes have. Each recipe, a file in
    lib/healing/recipes/, derives its own settings from these. `teacher` is the weight of the
    student–teacher loss at the cut (eq. 8); `distillation` the share of the loss whose targets are
    the unpruned model's probabilities of the next token; `data` the name of one of the study's
    `healing_data`, in place of its healing text. With `epochs` fewer rows are read, so many times,
    each time in another order."""

    TEACHABLE: ClassVar[bool] = True  # something stays frozen, which the teacher consists of

    recipe: str
    teacher: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    distillation: Annotated[float, Field(ge=0, le=1)] = 0.0
    data: str | None = None
    steps: Positive = 50
    batch: Positive = 16
    micro_batch: Positive | None = None
    epochs: Positive = 1
    gradient_checkpointing: bool = False
    packing: bool = True
    length: Annotated[int, Field(ge=8, le=MOST)] = 256
    learning_rate: Rate = 3e-4
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.02
    seed: Seed = 0
    fractions: Annotated[list[Fraction], Field(min_length=1)] = FRACTIONS

    @model_validator(mode="after")
    def frozen_teacher(self) -> "Healing":
        if self.teacher and not self.TEACHABLE:
            raise ValueError("teacher goes with recipes that leave the model frozen but adapters")
        return self

    @property
    def label(self) -> str:
        """What is trained, in a word that differs where that does."""
        return self.recipe

    @property
    def name(self) -> str:
        """What tables call it."""
        data = f"-on-{self.data}" if self.data else ""
        # In percent, and without a dot: it becomes part of the names of jobs and files.
        percent = f"{100 * self.distillation:g}".replace(".", "-")
        share = "" if self.distillation == 1 else percent
        distilled = f"-distilled{share}" if self.distillation else ""
        return f"{self.label}{data}{distilled}{'-teacher' * bool(self.teacher)}"

    @property
    def adapted(self) -> Targets:
        """Modules that get adapters; an empty list where the recipe trains none."""
        return []


class Adapters(Healing):
    """Of a recipe that trains LoRA adapters. `alpha`: the rank, as in the first paper, unless given
    here. `targets`: modules of the FFN by their last names, in place of the family's own; or
    all-linear, as in the second paper."""

    rank: Positive = 8
    alpha: Positive | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    targets: Targets = None

    @property
    def label(self) -> str:
        alpha = f"-a{self.alpha}" if self.alpha not in (None, self.rank) else ""
        return f"{self.recipe}-r{self.rank}{alpha}{'-all' * (self.targets == ALL_LINEAR)}"

    @property
    def adapted(self) -> Targets:
        return self.targets


def healing(**settings: Any) -> Healing:
    """The settings of healing, as its recipe has them."""
    return read_healing(settings)


def read_healing(given: Any) -> Healing | None:
    if isinstance(given, Healing):
        return given
    if given == NO_HEALING:
        return None
    if not isinstance(given, dict):
        raise PydanticCustomError("mapping", "Expected keys and values, e.g. recipe: lora, or none")
    given = {str(key): value for key, value in given.items()}
    kind = given.setdefault("recipe", DEFAULT_RECIPE)
    if not isinstance(kind, str):
        raise PydanticCustomError("recipe", "Its recipe is a name")
    return of_file("recipe", kind, given, lambda module: module.Settings)


def laid_over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Settings of healing over others. Another recipe takes over what it has, too."""
    kind, before = (one.get("recipe", DEFAULT_RECIPE) for one in (base | own, base))
    if kind != before and kind in known("recipe"):
        settings = module("recipe", kind).Settings
        gone = () if settings.TEACHABLE else ("teacher",)
        base = {
            key: value
            for key, value in base.items()
            if key in settings.model_fields and key not in gone
        }
    return base | own


def of_file(kind: str, name: str, given: dict[str, Any], settings: Callable[[Any], Any]) -> Any:
    """Settings checked as the file of a strategy or recipe says; an error that pydantic reports."""
    try:
        model = settings(module(kind, name))
        return model(**given)
    except UserError as error:
        raise PydanticCustomError("open_set", "{words}", {"words": str(error)}) from None
    except ValidationError as error:
        inner = {"model": model, "errors": error.errors(), "kind": kind, "name": name}
        raise PydanticCustomError("settings", "{kind} {name}", inner) from None
