"""The schema of a study: every setting with its type, range and default. Settings of strategies and
recipes stand in `lib.open_sets`.

`lib.study` loads files into it. Importing this module is cheap (no torch).
"""

import math
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

from lib.fields import (
    MOST,
    MOST_EXAMPLES,
    Calibration,
    Data,
    Fraction,
    Group,
    Line,
    Name,
    NamedText,
    Positive,
    Seed,
    Several,
    Shots,
    Sign,
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
    read_healing,
)


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
    healing: Annotated[SerializeAsAny[Healing] | None, BeforeValidator(read_healing)] = Field(
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
