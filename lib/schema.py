"""The schema of a study: every setting with its type, range and default.

`lib.study` loads files into it. Importing this module is cheap (no torch).
"""

import math
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from lib import open_sets
from lib.errors import UserError

# What the first paper does, where a study says nothing.
DEFAULT_STRATEGIES = ("similarity", "simple")
DEFAULT_RECIPE = "qlora"
TAKEN = ("none", "given")  # what tables call no choice, and layers that a person names
NO_HEALING = "none"  # in place of the settings of healing: nothing is healed
FRACTIONS = [0.25, 0.5, 0.75]  # at which models are healed

ALL_LINEAR = ["all-linear"]  # adapters on every linear map of the layers, attention's too

MOST = 1_000_000_000  # of anything that is counted: more is a slip, and counts are multiplied
MOST_EXAMPLES = 1000  # in a prompt


def _on_one_line(text: str) -> str:
    """White space as single spaces. Control characters would end lines of tables and figures."""
    text = " ".join(text.split())
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise PydanticCustomError("line", "Input should have no control characters")
    return text


Fraction = Annotated[float, Field(ge=0, lt=1)]
# Modules that get adapters, by their last names; None: the FFN's, as the model's family calls them.
Targets = (
    Annotated[
        list[str],
        Field(min_length=1),
        BeforeValidator(lambda given: ALL_LINEAR if [given] == ALL_LINEAR else given),
    ]
    | None
)
Positive = Annotated[int, Field(ge=1, le=MOST)]
Several = Annotated[int, Field(ge=2, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # libraries that draw take no larger ones
Shots = Annotated[int, Field(ge=0, le=MOST_EXAMPLES)]
Line = Annotated[str, AfterValidator(_on_one_line)]
Name = Annotated[str, AfterValidator(_on_one_line), Field(min_length=1)]
Sign = Annotated[Name, Field(max_length=40)]


class Group(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Text(Group):
    """Where text comes from: a local file or a folder of such (`lib.models.text_files`), or a
    dataset on the hub."""

    path: str | None = None
    dataset: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None

    @model_validator(mode="after")
    def one_source(self) -> "Text":
        if (self.path is None) == (self.dataset is None):
            raise ValueError("give either path (a local file) or dataset (a hub id)")
        return self


class Data(Text):
    """A data set for healing. `rows`: plain text, or instructions with their responses; of these
    the loss counts the tokens of the response, or all. `template`: what the model is given before
    a response; a paragraph with {input} is left out where a row has none."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
    rows: Literal["text", "instructions"] = "text"
    scored: Literal["response", "all"] = "response"
    template: str = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"

    @model_validator(mode="after")
    def of_instructions(self) -> "Data":
        fields = type(self).model_fields
        given = [key for key in ("scored", "template") if getattr(self, key) != fields[key].default]
        if self.rows == "text" and given:
            raise ValueError(f"{' and '.join(given)}: only with rows: instructions")
        if "{instruction}" not in self.template:
            raise ValueError("template has no {instruction} in it")
        for part in self.template.split("\n\n"):
            if "{instruction}" in part and "{input}" in part:
                raise ValueError(
                    "template has {input} in one paragraph with {instruction}: give it its own, "
                    "which is left out where a row has none"
                )
        return self


class Calibration(Text):
    """Text on which strategies score the layers, apart from all that is evaluated or healed on:
    windows of `length` tokens."""

    n_sequences: Several = 64
    length: Several = 128
    seed: Seed = 0


class Distances(Group):
    """Windows of `length` tokens; the distance is taken at the last token, as in the
    paper, or averaged over all tokens."""

    n_sequences: Several = 128
    length: Several = 256
    tokens: Literal["last", "all"] = "last"
    seed: Seed = 0
    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 1000


class Task(Group):
    """An lm-eval task; `shots` examples in the prompt, `limit` questions (all when empty; of a
    group, of each of its tasks). The score is `acc`, or `exact_match` of generated answers. `role`:
    what the questions ask for, which claims tell apart; a study's file has to say it. `metric`:
    which score tables and figures show of a task that has both; each is recorded.

    `order`: 0 for the examples as the harness gives them, another number for a permutation of
    them with that seed, the same for every question."""

    name: Name
    shots: Shots = 0
    limit: Positive | None = None
    role: Literal["knowledge", "reading", "generation"] | None = None
    metric: Literal["acc", "acc_norm"] = "acc"
    order: Seed = 0


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


class Chosen(Group):
    """A pruning strategy by its name, with its own settings; or a user's own, `file`."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=60)]
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
        if self.file is not None:
            if self.name in open_sets.known("strategy"):
                raise ValueError(f"the name '{self.name}' is that of a shipped strategy")
            if self.settings:
                raise ValueError(f"a strategy of your own has no settings, {[*self.settings]}")
            return self
        of_file("strategy", self.name, self.settings, lambda module: module.Strategy.Settings)
        return self


class Healing(Group):
    """Training after pruning (App. A.1), what all recipes have. Each recipe, a file in
    lib/healing/recipes/, derives its own settings from these. `teacher` is the weight of the
    student–teacher loss at the cut (eq. 8); `data` the name of one of the study's `healing_data`,
    in place of its healing text."""

    TEACHABLE: ClassVar[bool] = True  # something stays frozen, which the teacher consists of

    recipe: str
    teacher: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    data: str | None = None
    steps: Positive = 50
    batch: Positive = 16
    micro_batch: Positive | None = None
    gradient_checkpointing: bool = False
    packing: bool = True
    length: Annotated[int, Field(ge=8, le=MOST)] = 256
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3e-4
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
        return f"{self.label}{data}-teacher" if self.teacher else f"{self.label}{data}"

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
    return _healing(settings)


def _healing(given: Any) -> Healing | None:
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


def of_file(kind: str, name: str, given: dict[str, Any], settings: Callable[[Any], Any]) -> Any:
    """Settings checked as the file of a strategy or recipe says; an error that pydantic reports."""
    try:
        model = settings(open_sets.module(kind, name))
        return model(**given)
    except UserError as error:
        raise PydanticCustomError("open_set", "{words}", {"words": str(error)}) from None
    except ValidationError as error:
        inner = {"model": model, "errors": error.errors(), "kind": kind, "name": name}
        raise PydanticCustomError("settings", "{kind} {name}", inner) from None


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


class NamedText(Text):
    """Another text, on which distances are measured; with `loss` also the loss of every model, of a
    sample of its documents like that of the study's own."""

    name: Name
    loss: bool = False


class Writing(Group):
    """What the model writes, greedily: `tokens` after the first `prompt_tokens` of `n_prompts`
    documents of the validation text, and after each of the study's own `prompts`."""

    n_prompts: Annotated[int, Field(ge=0, le=MOST)] = 3
    prompt_tokens: Positive = 24
    tokens: Positive = 32
    prompts: list[Annotated[str, Field(min_length=1)]] = []
    seed: Seed = 0


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
    weights), measured beside it, and reference runs, whose tables stand under published/."""

    untrained: bool = True
    seed: Seed = 0
    studies: list[str] = []


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
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch: Positive = 32
    task_path: str | None = None
    chat_template: bool = False
    validation_text: Text = Text(dataset="allenai/c4", config="en", split="validation")
    healing_text: Text = Text(dataset="allenai/c4", config="en", split="train")
    healing_data: list[Data] = []
    text_name: Line = ""
    tasks: Annotated[list[Task], Field(min_length=1)] = [
        Task(name="mmlu", shots=0, limit=10, role="knowledge"),
        Task(name="boolq", shots=0, limit=200, role="reading"),
    ]
    distances: Distances = Distances()
    loss: Loss = Loss()
    perplexity: list[Perplexity] = []
    pruned_layers: Annotated[list[Positive], Field(min_length=1)] | None = None
    strategies: Annotated[list[Chosen], Field(min_length=1)] = Field(
        default_factory=lambda: [Chosen(name=name) for name in DEFAULT_STRATEGIES]
    )
    calibration: Calibration | None = None
    healing: Annotated[SerializeAsAny[Healing] | None, BeforeValidator(_healing)] = Field(
        default_factory=lambda: healing()
    )
    lora_rank: Ranks = Ranks()
    prompts: Prompts = Prompts()
    healing_seeds: Seeds = Seeds()
    teacher: Teacher = Teacher()
    other_texts: list[NamedText] = []
    writing: Writing = Writing()
    cost: Cost = Cost()
    controls: Controls = Controls()

    @field_serializer("healing", mode="wrap")
    def none_by_name(self, value: Healing | None, handler: SerializerFunctionWrapHandler) -> Any:
        return NO_HEALING if value is None else handler(value)

    @property
    def fractions(self) -> list[float]:
        """Of the layers dropped: where models are healed; and, where none is, those that are asked
        the same as healed ones."""
        return self.healing.fractions if self.healing else FRACTIONS

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

    @model_validator(mode="after")
    def one_file(self) -> "Study":
        if self.gguf is not None and self.model.endswith(".gguf"):
            raise ValueError("gguf names a file of a model of the hub; model is a file already")
        return self

    @model_validator(mode="after")
    def distinct(self) -> "Study":
        for key, values in {
            "pruned_layers": self.pruned_layers or [],
            "strategies": [strategy.name for strategy in self.strategies],
            "healing.fractions": self.fractions,
            "lora_rank.ranks": self.lora_rank.ranks,
            "tasks": [(task.name, task.shots) for task in self.tasks],
            "perplexity": [one.name for one in self.perplexity],
            "prompts.numbers": self.prompts.numbers or [],
            "healing_seeds.seeds": self.healing_seeds.seeds,
            "teacher.seeds": self.teacher.seeds,
            "healing_data": [data.name for data in self.healing_data],
            "other_texts": [text.name for text in self.other_texts],
            "controls.studies": self.controls.studies,
        }.items():
            if len(set(values)) != len(values):
                raise ValueError(f"{key} lists the same value twice")
        if self.healing:
            self.healing_source(self.healing)
        names = [task.name for task in self.tasks]
        if self.prompts.task is not None and self.prompts.task not in names:
            raise ValueError(f"prompts.task is none of the study's tasks, {', '.join(names)}")
        return self
