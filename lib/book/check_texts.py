"""Whether a study's texts are there, can be read, lie apart, and are long enough."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product

from lib.errors import UserError
from lib.experiments.choosing import elsewhere
from lib.experiments.conditions import equal_time_steps
from lib.experiments.opened import OpenStudy
from lib.fields import Calibration, Data, Text
from lib.healing.reading import read
from lib.models import corpora
from lib.models.vocabulary import check_ids
from lib.open_sets import Healing
from lib.pruning.dropped import span
from lib.schema import Distances, Study

# Runs a check and keeps the mistakes that it finds; whether there were none.
Sound = Callable[..., bool]

ENOUGH = 1_000_000  # tokens; a text that has so many is not checked for more


def check_texts(opened: OpenStudy, sound: Sound, tokenizer: bool) -> None:
    """The texts are there and can be read; local ones are long enough, where there is a tokenizer
    to count with."""
    study = opened.study
    validation, healing = study.validation_text, _healing_sources(study)
    calibration = [study.calibration] if study.calibration else []
    # Texts of other_texts that layers are chosen on, too, are read as that one is.
    calibration += [sample.calibration for sample in elsewhere(study).values()]
    held_out = [study.held_out_text] if study.held_out_text and study.healing else []
    every = (validation, *healing, *calibration, *held_out, *study.other_texts)
    readable = [text for text in every if sound(_check_readable, text)]
    losses = (validation, *study.loss_texts)
    for text, source in (
        *product(losses, [*healing, *calibration, *held_out]),
        *product([*calibration, *held_out], healing),
        *product(calibration, held_out),
    ):
        if {text, source} <= {*readable}:
            sound(corpora.check_disjoint, text, source)
    for text in study.other_texts:
        sound(_check_other, study, text.name, text)
    long = [text for text in readable if text.path is not None and tokenizer]
    for text in long:
        if text in healing:
            sound(_check_healing_text, opened, text)
        elif text in calibration:
            sound(_check_windows, opened, text, *_most_windows(study, text))
        elif text in held_out or (sound(_check_windows, opened, text) and text in losses):
            sound(_check_loss_text, opened, text)


def _most_windows(study: Study, text: Text) -> tuple[Calibration | None, str]:
    """Of a text on which layers are scored, as many as its largest draws take together; and which
    part of the study asks for them."""
    own, asked = study.calibration, study.on_what
    if own is None or text != own:
        return own, "calibration" if own else "distances"
    drawn = asked.draws * max(asked.samples, default=0) if asked.strategies else 0
    if drawn <= own.n_sequences:
        return own, "calibration"
    return own.model_copy(update={"n_sequences": drawn}), "on_what, draws times samples"


def _check_readable(text: Text) -> None:
    corpora.source(text)
    corpora.check(text)


def _check_other(study: Study, name: str, text: Text) -> None:
    if study.text_name == name:
        raise UserError(
            f"study {study.name}: other_texts: '{name}' is the name of the validation text"
        )
    if corpora.describe(text) == corpora.describe(study.validation_text):
        raise UserError(f"study {study.name}: other_texts: '{name}' is the validation text itself")


def _check_windows(
    opened: OpenStudy,
    text: Text,
    sample: Distances | Calibration | None = None,
    part: str = "distances",
) -> None:
    sample = sample or opened.study.distances
    count = min(sample.n_sequences, ENOUGH // sample.length)
    with _asked_by(part):
        found = corpora.windows(text, opened.tokenizer, count, sample.length, seed=None)
    check_ids(found.tolist(), opened.config, f"text {corpora.describe(text)}")


def _check_loss_text(opened: OpenStudy, text: Text) -> None:
    with _asked_by("loss"):
        found = opened.documents(text, opened.study.loss)
    check_ids(found, opened.config, f"text {corpora.describe(text)}")


@contextmanager
def _asked_by(part: str) -> Iterator[None]:
    """Say which part of the study asks for more of a text than there is."""
    try:
        yield
    except corpora.TooShort as error:
        raise UserError(f"{error}; so many asks {part}") from None


def _healing_sources(study: Study) -> list[Text]:
    """What is healed on: the healing text, where it is, and all data sets."""
    if study.healing is None:
        return []
    own = [study.healing_text] if any(one.data is None for one in study.every_recipe) else []
    return [*own, *study.healing_data]


def _check_healing_text(opened: OpenStudy, text: Text) -> None:
    """For the recipe that reads most of it, at each length."""
    study, data = opened.study, text.name if isinstance(text, Data) else None
    most: dict[tuple[int, bool], tuple[int, str]] = {}
    for part, one in _readers(opened, data):
        count = min(math.ceil(one.steps * one.batch / one.epochs), ENOUGH // one.length)
        how = (one.length, one.packing)
        if count > most.get(how, (0, ""))[0]:
            most[how] = count, part
    for (length, packing), (count, part) in most.items():
        changes = {"data": data, "length": length, "packing": packing, "epochs": 1}
        with _asked_by(part):
            asked = study.healing.model_copy(update=changes)
            read(study, asked, opened.tokenizer, count, seed=None)


def _readers(opened: OpenStudy, data: str | None) -> Iterator[tuple[str, Healing]]:
    """The recipes that read the healing text, or a data set, and which part of the study has them;
    also how long a healing is that may take as long as one with a teacher."""
    study, steps = opened.study, most_steps(opened)
    yield "healing", study.healing
    if steps > study.healing.steps:
        equal = "teacher, whose control heals for as long as a teacher takes (none with seeds: [])"
        yield equal, study.healing.model_copy(update={"steps": steps})
    for part, recipes in (
        ("what_to_train.recipes", study.recipes),
        ("on_what.recipes", study.recipes_on_data),
    ):
        yield from ((part, one) for one in recipes if one.data == data)


def most_steps(opened: OpenStudy) -> int:
    """Steps of the longest healing: at equal time with a teacher, at most so many, since the block
    is not known before distances are measured."""
    healing, teacher = opened.study.healing, opened.study.teacher
    if not teacher.seeds or not healing.TEACHABLE:
        return healing.steps
    n_layers = opened.n_layers
    deepest = [span(n_layers - n, n_layers) for n in opened.healed_ns(teacher.fractions)]
    steps = [equal_time_steps(opened, healing, block) for block in deepest]
    return max(steps, default=healing.steps)
