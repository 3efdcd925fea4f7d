"""Everything that can be found wrong with a study without measuring: seconds, before hours.

Each check is a function that raises UserError; what stands on something that is wrong already is
not looked at, so that one mistake gives one line.
"""

import sys
from collections.abc import Callable

from transformers import PreTrainedModel

from lib import open_sets, paths
from lib.book import memory
from lib.book.check_texts import Sound, check_texts
from lib.book.cuts import check_cuts
from lib.book.plan import Planned
from lib.errors import UserError
from lib.evaluation import cka, harness, whole_texts
from lib.experiments import costs
from lib.experiments.choosing import check_calibrated
from lib.experiments.conditions import Condition
from lib.experiments.opened import OpenStudy
from lib.healing import recipe as recipes
from lib.models import anatomy, checkpoints, four_bit, prompts, shapes
from lib.models.vocabulary import beyond
from lib.open_sets import Adapters, Healing
from lib.pruning.dropped import Dropped, check_n
from lib.schema import Study
from lib.sections import section as sections
from lib.sections.tables import published_title


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
    check_texts(opened, sound, tokenizer)
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
    written = {"writing": study.writing}
    if study.what_breaks.fractions:
        written["what_breaks.writing"] = study.what_breaks.writing
    for key, one in written.items():
        own = [len(prompts.prompt_ids(opened.tokenizer, prompt)) for prompt in one.prompts]
        lengths[f"{key}: prompt and tokens,"] = max([one.prompt_tokens, *own]) + one.tokens

    def check_length(name: str, length: int) -> None:
        if longest is not None and length > longest:
            raise UserError(
                f"study {study.name}: {name} {length} is above the model's context of {longest}"
            )

    for name, length in lengths.items():
        sound(check_length, name, length)


def _check_tasks(opened: OpenStudy, sound: Sound) -> None:
    study = opened.study
    asked = [*study.every_task, *opened.prompt_tasks]
    if not sound(harness.try_local_tasks, study):
        return
    if not sound(lambda: opened.task_manager):
        # Those of the study's own folder are read all the same.
        own = harness.local_tasks(study)
        asked = [task for task in asked if task.name in own]
        left = {
            "tasks": [t for t in study.tasks if t.name in own],
            "what_breaks": study.what_breaks.model_copy(
                update={"tasks": [t for t in study.what_breaks.tasks if t.name in own]}
            ),
            "perplexity": [t for t in study.perplexity if t.name in own],
        }
        study = study.model_copy(update=left)
    manager = harness.task_manager(study)
    for name in dict.fromkeys(task.name for task in asked):
        alike = [task for task in asked if task.name == name]
        sound(harness.check_tasks, study, manager, alike)
    for one in study.perplexity:
        sound(whole_texts.check, one.name, manager)
