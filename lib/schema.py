"""The schema of a study: every setting with its type, range and default. Settings of strategies and
recipes stand in `lib.open_sets`.

`lib.study` loads files into it. Importing this module is cheap (no torch).
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_validator,
)

from lib import consistency
from lib.fields import (
    Calibration,
    Data,
    Folders,
    Group,
    Line,
    Name,
    NamedText,
    Positive,
    Seed,
    Several,
    Sign,
    Task,
    Text,
)
from lib.open_sets import (
    DEFAULT_STRATEGIES,
    FRACTIONS,
    NO_HEALING,
    Chosen,
    Healing,
    Targets,
    healing,
    laid_over,
    read_healing,
)
from lib.section_settings import (
    Controls,
    Cost,
    LastLayer,
    OnWhat,
    Prompts,
    Ranks,
    Repairs,
    Seeds,
    StepByStep,
    Teacher,
    WhatBreaks,
    WhatHeals,
    WhatLayersDo,
    WhatToTrain,
    WhichLayers,
    Writing,
)

BESIDE = ("what_to_train", "on_what", "what_heals")  # keys with recipes laid over `healing`


class Distances(Group):
    """Windows of `length` tokens; the distance is taken at the last token, as in the
    paper, or averaged over all tokens."""

    n_sequences: Several = 128
    length: Several = 256
    tokens: Literal["last", "all"] = "last"
    seed: Seed = 0
    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 1000


class Perplexity(Group):
    """An lm-eval task over whole texts, such as `wikitext`; `limit`: its first documents alone."""

    name: Name
    limit: Several | None = None


class Loss(Group):
    """`sample: random` draws documents with the seed, `first` takes them in order.
    Documents are cut at `length` tokens, special tokens included."""

    n_sequences: Several = 128
    length: Several = 512
    sample: Literal["random", "first"] = "random"
    seed: Seed = 0


class Study(Group):
    """Everything that one run of the book measures. Only `model` is required, or `like`: the study
    whose settings hold wherever this one has none of its own."""

    name: str = Field(default="", exclude=True)
    file: str = Field(default="", exclude=True)
    model: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    gguf: str | None = None
    shape: dict[str, Any] | None = None
    like: str | None = None
    title: Line = ""
    about: Line = ""
    sign: Sign = "a model of your own"
    pretraining_tokens: Annotated[int, Field(ge=1)] | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch: Positive = 32
    task_path: Folders = []
    chat_template: bool = False
    validation_text: Text = Text(dataset="allenai/c4", config="en", split="validation")
    healing_text: Text = Text(dataset="allenai/c4", config="en", split="train")
    held_out_text: Text | None = None
    healing_data: list[Data] = []
    text_name: Line = ""
    tasks: Annotated[list[Task], Field(min_length=1)] = [
        Task(name="mmlu", shots=0, limit=10, role="knowledge"),
        Task(name="boolq", shots=0, limit=200, role="reading"),
    ]
    abilities: dict[Name, Annotated[list[Name], Field(min_length=1)]] = {}
    distances: Distances = Distances()
    loss: Loss = Loss()
    perplexity: list[Perplexity] = []
    pruned_layers: Annotated[list[Positive], Field(min_length=1)] | None = None
    strategies: Annotated[list[Chosen], Field(min_length=1)] = Field(
        default_factory=lambda: [Chosen(name=name) for name in DEFAULT_STRATEGIES]
    )
    calibration: Calibration | None = None
    healing: Annotated[SerializeAsAny[Healing] | None, BeforeValidator(read_healing)] = Field(
        default_factory=lambda: healing()
    )
    lora_rank: Ranks = Ranks()
    prompts: Prompts = Prompts()
    healing_seeds: Seeds = Seeds()
    teacher: Teacher = Teacher()
    which_layers: WhichLayers = WhichLayers()
    what_to_train: WhatToTrain = WhatToTrain()
    last_layer: LastLayer = LastLayer()
    step_by_step: StepByStep = StepByStep()
    on_what: OnWhat = OnWhat()
    what_layers_do: WhatLayersDo = WhatLayersDo()
    what_breaks: WhatBreaks = WhatBreaks()
    repair: Repairs = Repairs()
    what_heals: WhatHeals = WhatHeals()
    other_texts: list[NamedText] = []
    writing: Writing = Writing()
    cost: Cost = Cost()
    controls: Controls = Controls()

    @field_serializer("healing", mode="wrap")
    def none_by_name(self, value: Healing | None, handler: SerializerFunctionWrapHandler) -> Any:
        return NO_HEALING if value is None else handler(value)

    @field_serializer(*BESIDE, mode="wrap")
    def recipes_by_difference(
        self, value: WhatToTrain | OnWhat | WhatHeals, handler: SerializerFunctionWrapHandler
    ) -> Any:
        """As in a file: what is their own, laid over `healing` again when it is read."""
        found = handler(value)
        base = {} if self.healing is None else self.healing.model_dump()
        found["recipes"] = [
            {key: own for key, own in one.items() if key == "recipe" or base.get(key, one) != own}
            for one in found["recipes"]
        ]
        return found

    @property
    def fractions(self) -> list[float]:
        """Of the layers dropped: where models are healed; and, where none is, those that are asked
        the same as healed ones."""
        return self.healing.fractions if self.healing else FRACTIONS

    @property
    def every_task(self) -> list[Task]:
        """Its own tasks, then those that some models alone are asked."""
        return [*self.tasks, *self.what_breaks.tasks]

    @property
    def by_ability(self) -> dict[str, list[Task]]:
        """Every task once, the first of its name, by what its questions ask for: as `abilities`
        say, then by their roles those that none of these names."""
        tasks = {task.name: task for task in reversed(self.every_task)}
        found = {name: [tasks.pop(task) for task in of] for name, of in self.abilities.items()}
        for task in reversed(tasks.values()):
            found.setdefault(task.role or "other", []).append(task)
        return found

    @property
    def every_strategy(self) -> list[Chosen]:
        """Its own strategies, then those beside them."""
        found = {one.name: one for one in (*self.strategies, *self.which_layers.strategies)}
        return list(found.values())

    @property
    def recipes(self) -> list[Healing]:
        """Those side by side, with the fractions at which they heal; none where nothing is
        healed."""
        if self.healing is None:
            return []
        fractions = [*self.what_to_train.fractions]
        fractions += self.which_layers.fractions if self.which_layers.strategies else []
        fractions += self.step_by_step.fractions if self.step_by_step.strategies else []
        own = {"fractions": sorted({*fractions, *self.last_layer.fractions})}
        return [one.model_copy(update=own) for one in self.what_to_train.recipes]

    @property
    def recipes_on_data(self) -> list[Healing]:
        """Those that differ in what they read, with the fractions at which they heal; none where
        nothing is healed."""
        own = {"fractions": self.on_what.fractions}
        return [one.model_copy(update=own) for one in self.on_what.recipes if self.healing]

    @property
    def ways_of_healing(self) -> list[Healing]:
        """Those that differ in what they read and what the loss asks of it, likewise."""
        own = {"fractions": self.what_heals.fractions}
        return [one.model_copy(update=own) for one in self.what_heals.recipes if self.healing]

    @property
    def every_recipe(self) -> list[Healing]:
        """All with which something is healed."""
        beside = [*self.recipes, *self.recipes_on_data, *self.ways_of_healing]
        return [self.healing, *beside] if self.healing else []

    @property
    def adapted(self) -> Targets:
        """As `Healing.adapted`; an empty list where nothing is healed."""
        return self.healing.adapted if self.healing else []

    def healing_source(self, healing: Healing) -> Text:
        """What a recipe's settings read: the healing text, or one of the data sets.

        Raises ValueError for a name that is none of theirs."""
        if healing.data is None:
            return self.healing_text
        known = {data.name: data for data in self.healing_data}
        if healing.data not in known:
            listed = ", ".join(known) or "none"
            raise ValueError(f"healing.data '{healing.data}' is none of healing_data: {listed}")
        return known[healing.data]

    @property
    def loss_texts(self) -> list[NamedText]:
        """Further texts on which the loss of every model is measured."""
        return [text for text in self.other_texts if text.loss]

    @property
    def model_is_local(self) -> bool:
        return Path(self.model).is_absolute()

    @model_validator(mode="before")
    @classmethod
    def laid_over_healing(cls, given: Any) -> Any:
        """Recipes side by side say what is their own alone."""
        base = given.get("healing")
        for key in BESIDE if isinstance(base, dict) else ():
            beside = given.get(key)
            recipes = beside.get("recipes") if isinstance(beside, dict) else None
            if isinstance(recipes, list):
                found = [laid_over(base, own) if isinstance(own, dict) else own for own in recipes]
                given = given | {key: beside | {"recipes": found}}
        return given

    @model_validator(mode="after")
    def one_file(self) -> "Study":
        if self.gguf is not None and self.model.endswith(".gguf"):
            raise ValueError("gguf names a file of a model of the hub; model is a file already")
        return self

    @model_validator(mode="after")
    def consistent(self) -> "Study":
        consistency.check(self)
        return self
