"""Everything that can be found wrong with a study without measuring: seconds, before hours.

Each check is a function that raises UserError; what stands on something that is wrong already is
not looked at, so that one mistake gives one line.
"""

import math
import sys
from collections.abc import Callable
from itertools import product

from transformers import PreTrainedModel

from lib import open_sets, paths
from lib.book import memory
from lib.book.cuts import check_cuts
from lib.book.plan import Planned
from lib.errors import UserError
from lib.evaluation import cka, harness, whole_texts
from lib.experiments import costs
from lib.experiments.choosing import check_calibrated, elsewhere
from lib.experiments.conditions import Condition, equal_time_steps
from lib.experiments.opened import OpenStudy
from lib.fields import Calibration, Data, Text
from lib.healing import recipe as recipes
from lib.healing.reading import read
from lib.models import anatomy, checkpoints, corpora, four_bit, prompts, shapes
from lib.models.vocabulary import beyond, check_ids
from lib.open_sets import Adapters, Healing
from lib.pruning.dropped import Dropped, check_n, span
from lib.schema import Distances, Study
from lib.sections import section as sections
from lib.sections.tables import published_title

ENOUGH = 1_000_000  # tokens; a text that has so many is not checked for more

# Runs a check and keeps the mistakes that it finds; whether there were none.
Sound = Callable[..., bool]


def check(study: Study, here: bool = True, section: str | None = None) -> None:
    """Raises UserError with a line for every mistake found. here: what it measures it measures on
    this machine, whose device and memory have to do. section: only this one is to be run, by name;
    what healing alone needs is asked only where it heals something."""
    if not here:
        study = study.model_copy(update={"device": "cpu"})
    lines: list[str] = []

    def sound(step: Callable[..., object], *arguments: object) -> bool:
        try:
            step(*arguments)
        except UserError as error:
            lines.extend(error.lines)
            return False
        return True

    opened = OpenStudy(study)
    device = sound(checkpoints.device, study)
    _check_controls(study, sound)
    strategies = [name for name in opened.every_strategy if sound(opened.strategy, name)]
    tokenizer = False
    readable = sound(checkpoints.check_file, study) and sound(memory.check_dequantised, study)
    if readable and sound(checkpoints.check_config, study):
        tokenizer = sound(checkpoints.check_tokenizer, study)
        if sound(checkpoints.check_tensors, study):
            _note(study, checkpoints.contradiction(study))
            fit = [sound(check_n, n, opened.n_layers) for n in study.pruned_layers or []]
            fit += [sound(_check_choices, opened, strategy) for strategy in strategies]
            for strategy in strategies:
                sound(check_calibrated, study, opened.strategy(strategy))
            fit.append(sound(_check_sampled, opened))
            if all(fit) and strategies == opened.every_strategy:
                opened = _check_needs(opened, section, sound)
            model = anatomy.skeleton(opened.config)
            if device and here:
                sound(_check_device, opened, model)
            if opened.study.healing:
                _check_healing(opened, model, strategies, sound)
            sound(costs.check, opened)
    if tokenizer:
        _note(study, beyond(opened.tokenizer, opened.config))
        sound(prompts.check_chat_template, study, opened.tokenizer)
        _check_lengths(opened, sound)
    _check_texts(opened, sound, tokenizer)
    _check_tasks(opened, sound)
    if lines:
        raise UserError(*lines)


def _check_needs(opened: OpenStudy, section: str | None, sound: Sound) -> OpenStudy:
    """The models that a section evaluates, or all do. The study that is to be looked at further,
    without its healing where none is healed."""
    planned = Planned(opened.study, opened.config)
    found: list[Condition] = []
    timed: list[bool] = []

    def needs(name: str) -> None:
        one = sections.load(name)
        for extra in one.extras(planned):
            timed.append(extra.alone)
            found.extend((*extra.trains, *extra.asks))
        found.extend(model for group in one.conditions(planned).values() for model in group)

    names = sections.names() if section is None else [section]
    if not all([sound(needs, name) for name in names]):
        return opened
    if not any(one.healing or one.weights == "nf4" for one in found):
        opened = OpenStudy(opened.study.model_copy(update={"healing": None}))
    sound(check_cuts, opened, found, any(timed))
    return opened


def _check_sampled(opened: OpenStudy) -> None:
    """Strategies that are scored on samples have to read them."""
    asked = opened.study.on_what
    for name in (*asked.strategies, *asked.searches):
        one = opened.strategy(name)
        if one.by_rule or not one.calibrated:
            raise UserError(
                f"study {opened.study.name}: on_what: strategy {name} reads no calibration text"
            )


def _note(study: Study, text: str | None) -> None:
    if text:
        print(f"note: model {study.model}: {text}", file=sys.stderr)


def _check_windows_compared(study: Study) -> None:
    if study.distances.n_sequences < cka.FEWEST:
        raise UserError(
            f"study {study.name}: distances.n_sequences {study.distances.n_sequences}: with "
            f"step_by_step at least {cka.FEWEST}, on which models are compared"
        )


def _check_micro_batch(study: Study, healing: Healing) -> None:
    if healing.micro_batch and healing.batch % healing.micro_batch:
        raise UserError(f"study {study.name}: healing.micro_batch does not divide healing.batch")


def _check_controls(study: Study, sound: Sound) -> None:
    known = sorted(path.parent.name for path in paths.published("").glob("[!.]*/study.json"))

    def check_known(control: str) -> None:
        if control not in known:
            raise UserError(
                f"study {study.name}: controls.studies: no run '{control}' in published/; "
                f"there are {', '.join(known) or 'none'}"
            )
        published_title(control)

    def check_titles(titles: list[str]) -> None:
        if len(set(titles)) < len(titles):
            raise UserError(
                f"study {study.name}: controls.studies: two runs have the same title: {titles}"
            )

    found = [control for control in study.controls.studies if sound(check_known, control)]
    sound(check_titles, [study.title, *map(published_title, found)])


def _check_choices(opened: OpenStudy, strategy: str) -> list[Dropped]:
    """A rule's choice is known, and checked, beforehand: every one, since a table has them all."""
    one, n_layers = opened.strategy(strategy), opened.n_layers
    return [one.expected(n, n_layers) for n in range(1, one.most(n_layers) + 1)]


def _check_taught(opened: OpenStudy, strategy: str) -> None:
    if not all(dropped.contiguous for dropped in _check_choices(opened, strategy)):
        raise UserError(
            f"study {opened.study.name}: healing.teacher goes with blocks of layers; strategy "
            f"{strategy} drops scattered ones"
        )


def _check_healing(
    opened: OpenStudy, model: PreTrainedModel, strategies: list[str], sound: Sound
) -> None:
    study = opened.study
    sound(recipes.check_tensorboard)
    for healing in study.every_recipe:
        sound(_check_micro_batch, study, healing)
    beside = [study.healing, *study.recipes, *study.recipes_on_data]
    taught = [*strategies] if any(one.teacher for one in beside) else []
    if any(one.teacher for one in study.ways_of_healing):
        taught += study.what_heals.pruned_by or opened.strategies[:1]
    for strategy in dict.fromkeys(taught):
        sound(_check_taught, opened, strategy)

    def check_fractions(part: str, fractions: list[float]) -> None:
        if not opened.healed_ns(fractions):
            raise UserError(
                f"study {study.name}: {part}.fractions {fractions} stand for no layer of "
                f"{opened.n_layers}"
            )

    asked = {"healing": study.fractions, "lora_rank": study.lora_rank.fractions}
    asked |= {"healing_seeds": study.healing_seeds.fractions} if study.healing_seeds.seeds else {}
    asked |= {"teacher": study.teacher.fractions} if study.teacher.seeds else {}
    if study.which_layers.strategies:
        asked["which_layers"] = study.which_layers.fractions
    if study.recipes:
        asked["what_to_train"] = study.what_to_train.fractions
        asked["last_layer"] = study.last_layer.fractions
    if study.step_by_step.strategies:
        asked["step_by_step"] = study.step_by_step.fractions
        sound(_check_windows_compared, study)
    if study.recipes_on_data:
        asked["on_what"] = study.on_what.fractions
    if study.ways_of_healing:
        asked["what_heals"] = study.what_heals.fractions
    for part, fractions in asked.items():
        sound(check_fractions, part, fractions)
    tried = [study.healing]
    if isinstance(study.healing, Adapters):
        tried += [study.healing.model_copy(update={"rank": rank}) for rank in study.lora_rank.ranks]
    for healing in (*tried, *study.every_recipe[1:]):
        sound(recipes.of(healing).check, study, model, healing)


def _check_device(opened: OpenStudy, model: PreTrainedModel) -> None:
    study = opened.study
    if any(recipes.of(one).needs_4bit for one in study.every_recipe):
        reason = four_bit.impossible(model, checkpoints.device(study))
        if reason:
            others = [one for one in open_sets.known("recipe") if not recipes.load(one).needs_4bit]
            raise UserError(
                f"model {study.model}: {reason}; these recipes of healing need no 4-bit: "
                f"{', '.join(others)}"
            )
    memory.check_memory(study, shapes.shape_of(opened.config, study.adapted))


def _check_lengths(opened: OpenStudy, sound: Sound) -> None:
    study = opened.study
    longest = getattr(opened.config.get_text_config(), "max_position_embeddings", None)
    parts = ("distances", "loss", "calibration") if study.calibration else ("distances", "loss")
    lengths = {f"{part}.length": getattr(study, part).length for part in parts}
    if study.healing:
        lengths["healing.length"] = max(one.length for one in study.every_recipe)
    own = [len(prompts.prompt_ids(opened.tokenizer, prompt)) for prompt in study.writing.prompts]
    lengths["writing: prompt and tokens,"] = (
        max([study.writing.prompt_tokens, *own]) + study.writing.tokens
    )

    def check_length(name: str, length: int) -> None:
        if longest is not None and length > longest:
            raise UserError(
                f"study {study.name}: {name} {length} is above the model's context of {longest}"
            )

    for name, length in lengths.items():
        sound(check_length, name, length)


def _check_texts(opened: OpenStudy, sound: Sound, tokenizer: bool) -> None:
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
            sound(_check_windows, opened, text, _most_windows(study, text))
        elif text in held_out or (sound(_check_windows, opened, text) and text in losses):
            sound(_check_loss_text, opened, text)


def _most_windows(study: Study, text: Text) -> Calibration | None:
    """Of a text on which layers are scored, as many as its largest draws take together."""
    own, asked = study.calibration, study.on_what
    if own is None or text != own:
        return own
    drawn = asked.draws * max(asked.samples, default=0) if asked.strategies else 0
    return own.model_copy(update={"n_sequences": max(own.n_sequences, drawn)})


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
    opened: OpenStudy, text: Text, sample: Distances | Calibration | None = None
) -> None:
    sample = sample or opened.study.distances
    count = min(sample.n_sequences, ENOUGH // sample.length)
    found = corpora.windows(text, opened.tokenizer, count, sample.length, seed=None)
    check_ids(found.tolist(), opened.config, f"text {corpora.describe(text)}")


def _check_loss_text(opened: OpenStudy, text: Text) -> None:
    found = opened.documents(text, opened.study.loss)
    check_ids(found, opened.config, f"text {corpora.describe(text)}")


def _healing_sources(study: Study) -> list[Text]:
    """What is healed on: the healing text, where it is, and all data sets."""
    if study.healing is None:
        return []
    own = [study.healing_text] if any(one.data is None for one in study.every_recipe) else []
    return [*own, *study.healing_data]


def _check_healing_text(opened: OpenStudy, text: Text) -> None:
    """For the recipe that reads most of it, at each length."""
    study, data = opened.study, text.name if isinstance(text, Data) else None
    own = study.healing.model_copy(update={"data": data, "steps": _most_steps(opened)})
    most: dict[tuple[int, bool], int] = {}
    for one in (own, *(one for one in study.every_recipe if one.data == data)):
        count = min(math.ceil(one.steps * one.batch / one.epochs), ENOUGH // one.length)
        how = (one.length, one.packing)
        most[how] = max(count, most.get(how, 0))
    for (length, packing), count in most.items():
        changes = {"length": length, "packing": packing, "epochs": 1}
        read(study, own.model_copy(update=changes), opened.tokenizer, count, seed=None)


def _most_steps(opened: OpenStudy) -> int:
    """Steps of the longest healing: at equal time with a teacher, at most so many, since the block
    is not known before distances are measured."""
    healing, teacher = opened.study.healing, opened.study.teacher
    if not teacher.seeds or not healing.TEACHABLE:
        return healing.steps
    n_layers = opened.n_layers
    deepest = [span(n_layers - n, n_layers) for n in opened.healed_ns(teacher.fractions)]
    steps = [equal_time_steps(opened, healing, block) for block in deepest]
    return max(steps, default=healing.steps)


def _check_tasks(opened: OpenStudy, sound: Sound) -> None:
    study = opened.study
    asked = [*study.tasks, *opened.prompt_tasks]
    if not sound(harness.try_local_tasks, study):
        return
    if not sound(lambda: opened.task_manager):
        # Those of the study's own folder are read all the same.
        own = harness.local_tasks(study)
        asked = [task for task in asked if task.name in own]
        left = {
            "tasks": [t for t in study.tasks if t.name in own],
            "perplexity": [t for t in study.perplexity if t.name in own],
        }
        study = study.model_copy(update=left)
    manager = harness.task_manager(study)
    for name in dict.fromkeys(task.name for task in asked):
        alike = [task for task in asked if task.name == name]
        sound(harness.check_tasks, study, manager, alike)
    for one in study.perplexity:
        sound(whole_texts.check, one.name, manager)
