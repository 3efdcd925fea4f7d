"""What settings are made of: their types, and where text comes from. `lib.schema` has the rest."""

import unicodedata
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

MOST = 1_000_000_000  # of anything that is counted: more is a slip, and counts are multiplied
MOST_EXAMPLES = 1000  # in a prompt


def _on_one_line(text: str) -> str:
    """White space as single spaces. Control characters would end lines of tables and figures."""
    text = " ".join(text.split())
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise PydanticCustomError("line", "Input should have no control characters")
    return text


Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
Several = Annotated[int, Field(ge=2, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # libraries that draw take no larger ones
Shots = Annotated[int, Field(ge=0, le=MOST_EXAMPLES)]
Line = Annotated[str, AfterValidator(_on_one_line)]
Name = Annotated[str, AfterValidator(_on_one_line), Field(min_length=1)]
Sign = Annotated[Name, Field(max_length=40)]
# One, or a list of them.
Folders = Annotated[
    list[str], BeforeValidator(lambda given: [given] if isinstance(given, str) else given or [])
]


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
    a response; a paragraph with {input} is left out where a row has none. `own_answers`: so many of
    the first rows alone, with responses that the unpruned model itself writes in place of theirs,
    of at most `answer_tokens` tokens."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
    rows: Literal["text", "instructions"] = "text"
    scored: Literal["response", "all"] = "response"
    template: str = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
    own_answers: Annotated[int, Field(ge=0, le=MOST)] = 0
    answer_tokens: Positive = 64

    @model_validator(mode="after")
    def of_instructions(self) -> "Data":
        fields = type(self).model_fields
        of_rows = ("scored", "template", "own_answers", "answer_tokens")
        given = [key for key in of_rows if getattr(self, key) != fields[key].default]
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


class NamedText(Text):
    """Another text, on which distances are measured; with `loss` also the loss of every model, of a
    sample of its documents like that of the study's own."""

    name: Name
    loss: bool = False


class Task(Group):
    """An lm-eval task; `shots` examples in the prompt, `limit` questions (all when empty; of a
    group, of each of its tasks). The score is `acc`, or `exact_match` or `rougeL` of generated
    answers. `role`: what the questions ask for, which claims tell apart; a study's file has to say
    it. `metric`: another score that tables and figures show instead, of a task that has it; each
    is recorded. `label`: what pages and figures call it.

    `order`: 0 for the examples as the harness gives them, another number for a permutation of
    them with that seed, the same for every question."""

    name: Name
    shots: Shots = 0
    limit: Positive | None = None
    role: Literal["knowledge", "reading", "generation"] | None = None
    metric: Literal["acc", "acc_norm", "rouge1", "rouge2"] = "acc"
    label: Annotated[Name, Field(max_length=40)] | None = None
    order: Seed = 0
