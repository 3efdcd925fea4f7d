"""Everything that a study measures, known before anything is measured: how it falls into parts that
can be measured apart from each other, and what each of them takes.

A part is one healed model with all that is asked of it, or all unhealed prunings in one number
format, which share one pass.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PretrainedConfig

from lib.evaluation.sweep import layer_passes
from lib.experiments.conditions import (
    TEACHING,
    Condition,
    main_conditions,
    prompted,
    rank_conditions,
    seed_conditions,
    teacher_conditions,
)
from lib.experiments.opened import OpenStudy
from lib.pruning.dropped import Dropped, check_n, simple, span
from lib.schema import Study

UNHEALED = "questions and loss, unhealed, in one pass"
IN_4BIT = "questions and loss in 4-bit, unhealed"
WITH_TEACHER = "healing with a teacher"
AS_LONG = "plain healing as long as that"


# A model's shape has to be built for it, which takes a second where it is large.
_NEEDED: WeakKeyDictionary[OpenStudy, dict[str, list]] = WeakKeyDictionary()


class Planned(OpenStudy):
    """A study whose model need not be at hand. Where the similar blocks start is not known before
    they are measured: the middle stands for that."""

    def __init__(self, study: Study, config: PretrainedConfig) -> None:
        super().__init__(study)
        self.config = config

    def chosen(self, strategy: str, n: int) -> Dropped:
        check_n(n, self.n_layers)
        if strategy == "simple":
            return simple(n, self.n_layers)
        middle = (self.n_layers - n) // 2
        return span(middle, middle + n)


@dataclass(frozen=True)
class Part:
    """What is measured together: its name, under which heading a plan lists it, the first section
    that needs it, and its models."""

    name: str
    what: str
    section: str
    conditions: tuple[Condition, ...]

    @property
    def healed(self) -> bool:
        return self.conditions[0].healing is not None


def needed(opened: OpenStudy) -> dict[str, list[tuple[str, str, list[Condition]]]]:
    """Section → what it evaluates: an ending for names, a heading, and models. A section that is
    not named needs those of 02, or none."""
    if opened not in _NEEDED:
        _NEEDED[opened] = _needed(opened)
    return _NEEDED[opened]


def _needed(opened: OpenStudy) -> dict[str, list[tuple[str, str, list[Condition]]]]:
    ranks = len({*opened.study.lora_rank.ranks} - {opened.study.healing.rank})
    taught = teacher_conditions(opened)
    own = f"healing, {opened.study.healing.name}"
    plain = "healing, other seeds or fractions"
    headings = (plain, AS_LONG, WITH_TEACHER)
    endings = ("", "-longer", "")
    return {
        "02": [("", own, main_conditions(opened))],
        "05": [("", f"healing at {ranks} other ranks", rank_conditions(opened))],
        "07": [("", plain, seed_conditions(opened))],
        "11": [
            (ending, heading, taught[way])
            for ending, heading, way in zip(endings, headings, TEACHING, strict=True)
        ],
    }


def part_name(opened: OpenStudy, condition: Condition, ending: str = "") -> str:
    """Names a part by what is known on any machine beforehand: so neither by where a similar block
    starts nor by the number format, which depends on the device."""
    if condition.healing is None:
        return "unhealed" if condition.weights == opened.weights else "unhealed-4bit"
    which = f"{condition.strategy}-{condition.dropped.n}" if condition.dropped.n else "unpruned"
    return f"{which}-{condition.recipe}-seed{condition.healing.seed}{ending}"


def parts(opened: OpenStudy) -> dict[str, Part]:
    """All parts by name, each once, in the order of the sections that need them first."""
    found: dict[str, Part] = {}
    for section, groups in needed(opened).items():
        for ending, heading, conditions in groups:
            for one in conditions:
                name = part_name(opened, one, ending)
                before = found.get(name)
                if before is None:
                    plain = UNHEALED if name == "unhealed" else IN_4BIT
                    what = heading if one.healing else plain
                    found[name] = Part(name, what, section, (one,))
                elif one.healing is None and one not in before.conditions:
                    more = (*before.conditions, one)
                    found[name] = Part(name, before.what, before.section, more)
    return found


def used(opened: OpenStudy, section: str) -> set[str]:
    """The names of the parts that a section's notebook reads."""
    groups = needed(opened)
    own = groups.get(section, groups["02"])
    names = {part_name(opened, one, ending) for ending, _, conditions in own for one in conditions}
    return names | {"unhealed"}  # with which everything is compared


@dataclass(frozen=True)
class Sizes:
    """Tokens that a model sees: of all tasks and the text of the loss, and of the other prompts of
    the ablation, where it is asked these."""

    asked: int
    prompts: int


def training_tokens(part: Part) -> int:
    """Tokens that each model of a part is trained on."""
    healing = part.conditions[0].healing
    return healing.steps * healing.batch * healing.length if healing else 0


def trained_passes(opened: OpenStudy, part: Part) -> tuple[int, int]:
    """How often a layer sees a token of the training, forward and back; and a teacher's, forward
    alone."""
    one = part.conditions[0]
    if one.healing is None:
        return 0, 0
    tokens = training_tokens(part)
    kept = opened.n_layers - one.dropped.n
    return tokens * kept, tokens * one.dropped.stop if one.healing.teacher else 0


def asked_passes(opened: OpenStudy, part: Part, sizes: Sizes) -> tuple[int, int]:
    """How often a layer sees a token of the questions and the loss; and of the other prompts."""

    def passes(conditions: Iterable[Condition]) -> int:
        kept: list[Any] = [one.dropped.kept(opened.n_layers) for one in conditions]
        return layer_passes(kept) if kept else 0

    also = [one for one in part.conditions if prompted(opened, one)]
    return sizes.asked * passes(part.conditions), sizes.prompts * passes(also)
