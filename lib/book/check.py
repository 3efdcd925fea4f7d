"""Everything that can be found wrong with a study without measuring: seconds, before hours."""

from transformers import PreTrainedModel

from lib import open_sets, paths
from lib.book import memory
from lib.errors import UserError
from lib.evaluation import harness
from lib.experiments import costs
from lib.experiments.conditions import equal_time_steps
from lib.experiments.opened import OpenStudy
from lib.healing import recipe as recipes
from lib.healing.training import check_tensorboard
from lib.models import anatomy, checkpoints, corpora, four_bit, shapes
from lib.pruning.dropped import check_n, span
from lib.schema import Adapters, Study
from lib.sections.tables import published_title

ENOUGH = 1_000_000  # tokens; a text that has so many is not checked for more


def check(study: Study, here: bool = True) -> None:
    """Raises UserError, one line, for the first mistake found. here: what it measures it measures
    on this machine, whose device and memory have to do."""
    if not here:
        study = study.model_copy(update={"device": "cpu"})
    checkpoints.device(study)
    check_tensorboard()
    opened = OpenStudy(study)
    model = anatomy.skeleton(opened.config)
    anatomy.layers(model)
    checkpoints.check_tensors(study)
    if here:
        _check_device(opened, model)
    for n in study.pruned_layers or []:
        check_n(n, opened.n_layers)
    asked = {"healing": study.healing.fractions, "lora_rank": study.lora_rank.fractions}
    asked |= {"healing_seeds": study.healing_seeds.fractions} if study.healing_seeds.seeds else {}
    asked |= {"teacher": study.teacher.fractions} if study.teacher.seeds else {}
    for part, fractions in asked.items():
        if not opened.healed_ns(fractions):
            raise UserError(
                f"study {study.name}: {part}.fractions {fractions} stand for no layer of "
                f"{opened.n_layers}"
            )
    tried = [study.healing]
    if isinstance(study.healing, Adapters):
        tried += [study.healing.model_copy(update={"rank": rank}) for rank in study.lora_rank.ranks]
    for healing in tried:
        recipes.of(healing).check(study, model, healing)
    for strategy in opened.strategies:
        one = opened.strategy(strategy)
        # A rule's choice is known, and checked, beforehand: every one, since a table has them all.
        expected = [one.expected(n, opened.n_layers) for n in range(1, opened.n_layers)]
        if study.healing.teacher and not all(dropped.contiguous for dropped in expected):
            raise UserError(
                f"study {study.name}: healing.teacher goes with blocks of layers; strategy "
                f"{strategy} drops scattered ones"
            )
    if study.healing.micro_batch and study.healing.batch % study.healing.micro_batch:
        raise UserError(f"study {study.name}: healing.micro_batch does not divide healing.batch")
    known = sorted(path.parent.name for path in paths.published("").glob("[!.]*/study.json"))
    for control in study.controls.studies:
        if control not in known:
            raise UserError(
                f"study {study.name}: controls.studies: no run '{control}' in published/; "
                f"there are {', '.join(known) or 'none'}"
            )
    titles = [study.title, *map(published_title, study.controls.studies)]
    if len(set(titles)) < len(titles):
        raise UserError(
            f"study {study.name}: controls.studies: two runs have the same title: {titles}"
        )
    costs.check(opened)
    _check_lengths(opened)
    _check_texts(opened)
    harness.check_tasks(study, opened.task_manager, [*study.tasks, *opened.prompt_tasks])


def _check_device(opened: OpenStudy, model: PreTrainedModel) -> None:
    study = opened.study
    recipe = recipes.of(study.healing)
    reason = four_bit.impossible(model, checkpoints.device(study))
    if recipe.needs_4bit and reason:
        others = [name for name in open_sets.known("recipe") if not recipes.load(name).needs_4bit]
        raise UserError(
            f"model {study.model}: {reason}; these recipes of healing need no 4-bit: "
            f"{', '.join(others)}"
        )
    memory.check_memory(study, shapes.shape_of(opened.config, study.healing.ffn))


def _check_lengths(opened: OpenStudy) -> None:
    study = opened.study
    longest = getattr(opened.config.get_text_config(), "max_position_embeddings", None)
    lengths = {
        f"{part}.length": getattr(study, part).length for part in ("distances", "loss", "healing")
    }
    own = [len(opened.tokenizer(prompt)["input_ids"]) for prompt in study.writing.prompts]
    lengths["writing: prompt and tokens,"] = (
        max([study.writing.prompt_tokens, *own]) + study.writing.tokens
    )
    for name, length in lengths.items():
        if longest is not None and length > longest:
            raise UserError(
                f"study {study.name}: {name} {length} is above the model's context of {longest}"
            )


def _check_texts(opened: OpenStudy) -> None:
    """The texts are there and can be read; local ones are long enough."""
    study, tokenizer = opened.study, opened.tokenizer
    for text in (study.validation_text, study.healing_text, *study.other_texts):
        corpora.source(text)
        next(corpora.documents(text, seed=None))
    corpora.check_disjoint(study.validation_text, study.healing_text)
    for text in study.other_texts:
        if study.text_name == text.name:
            raise UserError(
                f"study {study.name}: other_texts: '{text.name}' is the name of the validation text"
            )
        if corpora.describe(text) == corpora.describe(study.validation_text):
            raise UserError(
                f"study {study.name}: other_texts: '{text.name}' is the validation text itself"
            )
    for text in (study.validation_text, *study.other_texts):
        if text.path is not None:
            distances = study.distances
            count = min(distances.n_sequences, ENOUGH // distances.length)
            corpora.windows(text, tokenizer, count, distances.length, seed=None)
    if study.validation_text.path is not None:
        opened.loss_sequences  # noqa: B018  (raises when there are too few)
    if study.healing_text.path is not None:
        healing = study.healing
        cut = corpora.windows if healing.packing else corpora.document_sequences
        count = min(_most_steps(opened) * healing.batch, ENOUGH // healing.length)
        cut(study.healing_text, tokenizer, count, healing.length, seed=None)


def _most_steps(opened: OpenStudy) -> int:
    """Steps of the longest healing: at equal time with a teacher, at most so many, since the block
    is not known before distances are measured."""
    healing, teacher = opened.study.healing, opened.study.teacher
    if not teacher.seeds or not healing.TEACHABLE:
        return healing.steps
    n_layers = opened.n_layers
    deepest = [span(n_layers - n, n_layers) for n in opened.healed_ns(teacher.fractions)]
    steps = [equal_time_steps(opened, healing, block) for block in deepest]
    return max(steps)
