"""Which records' digests move with each key of a study, and with each file that a study touches.

    .venv/bin/python tests/digests.py     # prints both tables

Nothing is measured. Every key of the schema and every file is changed by itself, in a small study
of a tiny random model, and the digests of one record of each kind are compared with those before.
"""

import copy
import shutil
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from digest_world import STUDY, world
from pydantic import BaseModel
from tabulate import tabulate

from lib import open_sets
from lib import study as studies
from lib.evidence.records import digest
from lib.evidence.store import Store
from lib.experiments import (
    costs,
    layer_measures,
    measure,
    own_answers,
    probes,
    schedules,
    written,
)
from lib.experiments.choosing import Asked
from lib.experiments.conditions import Condition
from lib.experiments.opened import OpenStudy
from lib.open_sets import Chosen, Healing
from lib.pruning.dropped import span
from lib.schema import Study

KINDS = {
    "distances": "D", "distances of the twin": "T", "distances of another text": "O",
    "scores of a strategy": "S", "a further choice": "C", "questions": "Q", "with examples": "E",
    "question-free": "F", "loss": "L", "loss on another text": "l", "perplexity": "P",
    "writing": "W", "healing": "H", "loss, healed": "h",
    "loss, repaired": "R", "cost": "M", "cost in 4-bit": "m", "what layers do": "Y",
    "what those of the twin do": "y", "logit lens": "V", "what was written, read": "w",
    "answers to heal on": "A",
}  # fmt: skip
LETTERS = "".join(KINDS.values())


class Noted(Store):
    """Notes what would be looked up, and finds something."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.last: dict[str, Any] = {}

    def get_or_measure(self, kind: str, name: str, inputs: dict[str, Any], *_: Any, **__: Any):
        self.last = inputs
        return {"layers": [1], "scores": list(range(6)), "acc_norm": {}}


def of(study: Study, config: Any = None) -> dict[str, str]:
    """The digest of one record of each kind, by its letter. config: of a model that is not here."""
    opened = OpenStudy(study)
    opened.store = store = Noted(opened.store.folder.parent)
    if config is not None:
        opened.config = config
    healing, tasks = study.healing, study.tasks
    other = probes.OtherLoss(study.other_texts[0], study.loss)
    plain = Condition("given", span(1, 2), opened.weights)
    healed = Condition("given", span(1, 2), opened.weights_of(healing), healing)
    repaired = Condition("given", span(1, 2), opened.weights, repair="linear-map")
    steps = [schedules.Step("simple", 1, healing), schedules.Step("mine", 1, None)]
    mine = opened.strategy(study.strategies[0].name)

    def noted(look_up: Callable[[], object]) -> dict[str, Any]:
        look_up()
        return store.last

    inputs = {
        "D": noted(opened.measure_distances),
        "T": noted(opened.measure_untrained_distances),
        "O": noted(lambda: opened.measure_distances_on(study.other_texts[0])),
        "S": noted(lambda: mine.scores(Asked(opened))),
        "C": noted(lambda: _further(opened, steps, mine.name)),
        "Q": probes.probe_inputs(opened, plain, tasks[0]),
        "E": probes.probe_inputs(opened, plain, tasks[1]),
        "F": noted(lambda: measure.question_free(opened, tasks[0])),
        "L": probes.probe_inputs(opened, plain, study.loss),
        "l": probes.probe_inputs(opened, plain, other),
        "P": probes.probe_inputs(opened, plain, study.perplexity[0]),
        "W": probes.probe_inputs(opened, plain, study.writing),
        "H": probes.condition_inputs(opened, healed),
        "h": probes.probe_inputs(opened, healed, study.loss),
        "R": probes.probe_inputs(opened, repaired, study.loss),
        "M": noted(lambda: costs._measured(opened, opened.weights)),
        "m": noted(lambda: costs._measured(opened, "nf4")),
        "Y": noted(lambda: layer_measures.measures(opened)),
        "y": noted(lambda: layer_measures.measures(opened, untrained=True)),
        "V": noted(lambda: layer_measures.lens(opened)),
        "w": written.inputs(opened, plain),
        "A": own_answers.answer_inputs(opened, study.healing_data[0]),
    }
    return {letter: digest(found) for letter, found in inputs.items()}


def _further(opened: OpenStudy, steps: list[schedules.Step], strategy: str) -> None:
    first, second = steps
    schedules.resolve(opened, [first, schedules.Step(strategy, second.n, second.healing)])


def moved(before: dict[str, str], after: dict[str, str]) -> str:
    return "".join(letter for letter in LETTERS if before[letter] != after[letter])


def keys(model: type[BaseModel] = Study, prefix: str = "") -> Iterator[str]:
    """Every key of the schema, however deep: `tasks.shots`; those of all recipes as `healing.…`."""
    found: dict[str, None] = {}
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if field.exclude:  # no key of a file
            continue
        if prefix and inner in (Healing, Chosen):  # side by side: what they are is of `healing.…`
            found[prefix + name] = None
        elif inner is Healing:
            for recipe in open_sets.known("recipe"):
                settings = open_sets.module("recipe", recipe).Settings
                found |= dict.fromkeys(keys(settings, f"{prefix}{name}."))
        elif inner is not None:
            found |= dict.fromkeys(keys(inner, f"{prefix}{name}."))
        else:
            found[prefix + name] = None
    yield from found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, typing.get_args(annotation))), None)


# (Shipped strategy, its setting) → another value, and whether it decides the scores.
SETTINGS: dict[tuple[str, str], tuple[Any, bool]] = {
    ("block-influence", "flattened"): (True, True),
    ("magnitude", "p"): (2, True),
    ("random", "draws"): (3, True),  # there are no scores to record
    ("random", "seed"): (1, True),
    ("taylor", "guard"): (True, False),  # only which layers are chosen by them
}

ALL = LETTERS
TEXT, HEALING, ASKED, TASKS = "DTSCLWhRYyw", "CHh", "QEFV", "QEFPV"
TASK = ("name", "shots", "limit", "role", "metric", "label", "order")
SAME = "the same elsewhere"  # a copy, at another place
# Key → another value, and the kinds of records whose digest it moves: none where a key only chooses
# which records there are, where to compute, or what things are called.
KEYS: dict[str, tuple[Any, str]] = {
    "model": (SAME, ""),
    "revision": ("v2", ALL),
    "gguf": ("small.gguf", ALL),
    "shape": ({"hidden_size": 64}, ""),
    "like": ("./like.yaml", ""),
    "pretraining_tokens": (1000, ""),
    "title": ("Other", ""),
    "about": ("another", ""),
    "sign": ("another", ""),
    "device": ("auto", ""),
    "dtype": ("bfloat16", ALL),
    "batch": (7, ""),
    "task_path": (SAME, ""),
    "chat_template": (True, ASKED),
    "validation_text.path": (SAME, ""),
    "validation_text.dataset": ("other/text", TEXT),
    "validation_text.config": ("de", TEXT),
    "validation_text.split": ("test", TEXT),
    "validation_text.revision": ("v2", TEXT),
    "calibration.path": (None, ""),
    "calibration.dataset": ("other/text", "SCR"),
    "calibration.config": ("de", "SCR"),
    "calibration.split": ("test", "SCR"),
    "calibration.revision": ("v2", "SCR"),
    "calibration.n_sequences": (5, "SCR"),
    "calibration.length": (9, "SCR"),
    "calibration.seed": (1, "SCR"),
    "healing_text.path": (SAME, ""),
    "healing_data.name": (None, ""),  # another is asked for
    "healing_data.path": (SAME, ""),
    "healing_data.dataset": ("other/text", HEALING + "A"),
    "healing_data.config": ("de", HEALING + "A"),
    "healing_data.split": ("test", HEALING + "A"),
    "healing_data.revision": ("v2", HEALING + "A"),
    "healing_data.rows": ("text", HEALING + "A"),
    "healing_data.scored": ("all", HEALING),
    "healing_data.template": ("{instruction}", HEALING + "A"),
    "healing_data.own_answers": (3, HEALING + "A"),
    "healing_data.answer_tokens": (9, HEALING + "A"),
    "healing_text.dataset": ("other/text", HEALING),
    "healing_text.config": ("de", HEALING),
    "healing_text.split": ("test", HEALING),
    "healing_text.revision": ("v2", HEALING),
    "held_out_text.path": (None, ""),  # on which a loss is measured, as on another text
    "held_out_text.dataset": ("other/text", ""),
    "held_out_text.config": ("de", ""),
    "held_out_text.split": ("test", ""),
    "held_out_text.revision": ("v2", ""),
    "text_name": ("other", ""),
    "tasks.name": ("other", "QFV"),
    "tasks.shots": (3, "E"),
    "tasks.limit": (3, "QFV"),
    "tasks.role": ("reading", "V"),
    "abilities": ({"facts": ["quiz"]}, ""),
    "tasks.metric": ("acc_norm", ""),
    "tasks.label": ("other", ""),
    "tasks.order": (1, "E"),
    "distances.n_sequences": (5, "DTOSCRYy"),
    "distances.length": (9, "DTOSCRYy"),
    "distances.tokens": ("all", "DTOC"),
    "distances.seed": (1, "DTOSCRYy"),
    "distances.bootstrap": (101, "DTO"),
    "loss.n_sequences": (5, "LlhR"),
    "loss.length": (17, "LlhR"),
    "loss.sample": ("first", "LlhR"),
    "loss.seed": (1, "LlhR"),
    "perplexity.name": ("other", "P"),
    "perplexity.limit": (3, "P"),
    "pruned_layers": ([1], ""),
    "strategies.name": ("ours", "SC"),
    "strategies.kind": (None, ""),  # of one that is shipped, as in SETTINGS
    "strategies.file": (SAME, ""),
    "strategies.settings": (None, ""),  # of some that are shipped, see SETTINGS
    "healing.recipe": ("qlora", HEALING),
    "healing.teacher": (1.0, HEALING),
    "healing.distillation": (0.5, HEALING),
    "healing.steps": (3, HEALING),
    "healing.batch": (4, HEALING),
    "healing.micro_batch": (1, HEALING),
    "healing.epochs": (2, HEALING),
    "healing.gradient_checkpointing": (True, ""),
    "healing.packing": (False, HEALING),
    "healing.length": (17, HEALING),
    "healing.learning_rate": (1e-4, HEALING),
    "healing.warmup": (0.5, HEALING),
    "healing.seed": (1, HEALING),
    "healing.fractions": ([0.5], ""),
    "healing.data": ("taught", HEALING),
    "healing.rank": (3, HEALING),
    "healing.dropout": (0.5, HEALING),
    "healing.alpha": (16, HEALING),
    "healing.targets": (["up_proj"], HEALING),
    "healing.head": (False, HEALING),
    "healing.norm": (False, HEALING),
    "healing.layers": (1, HEALING),
    "healing.at": ("cut", HEALING),
    "lora_rank.ranks": ([3], ""),
    "lora_rank.fractions": ([0.5], ""),
    "prompts.task": ("quiz", ""),
    "prompts.limit": (2, ""),
    "prompts.shots": (3, ""),
    "prompts.orders": (2, ""),
    "prompts.numbers": ([0, 1], ""),
    "healing_seeds.seeds": ([5], ""),
    "healing_seeds.fractions": ([0.5], ""),
    "teacher.weight": (2.0, ""),
    "teacher.seeds": ([5], ""),
    "teacher.fractions": ([0.5], ""),
    "which_layers.strategies": (["simple"], ""),
    "which_layers.pruned_layers": ([1], ""),
    "which_layers.fractions": ([0.5], ""),
    "which_layers.healed": (["mine"], ""),
    "which_layers.healed_draws": (2, ""),
    "which_layers.calibration_draws": (2, ""),
    "what_to_train.recipes": ([{"recipe": "full"}], ""),
    "what_to_train.strategies": (["mine"], ""),
    "what_to_train.fractions": ([0.5], ""),
    "what_to_train.seeds": ([1], ""),
    "what_to_train.unpruned": (True, ""),
    "what_to_train.learning_rates": ([1e-4], ""),
    "last_layer.keeps": ("mine", ""),
    "last_layer.drops": ("mine", ""),
    "last_layer.recipes": (["full"], ""),
    "last_layer.fractions": ([0.5], ""),
    "last_layer.seeds": ([1], ""),
    "step_by_step.strategies": (["mine"], ""),
    "step_by_step.recipes": (["full"], ""),
    "step_by_step.layers_at_a_time": ([2], ""),
    "step_by_step.fractions": ([0.5], ""),
    "step_by_step.seeds": ([1], ""),
    "step_by_step.anew": (False, ""),
    "on_what.samples": ([2], ""),
    "on_what.draws": (3, ""),
    "on_what.strategies": (["simple"], ""),
    "on_what.texts": ([], ""),
    "on_what.searches": (["simple"], ""),
    "on_what.recipes": ([{"recipe": "full"}], ""),
    "on_what.pruned_by": (["mine"], ""),
    "on_what.fractions": ([0.5], ""),
    "on_what.seeds": ([1], ""),
    "what_layers_do.further": (3, "Yy"),
    "what_layers_do.fractions": ([0.5], "Yy"),
    "what_layers_do.gradients": (2, "Yy"),
    "what_layers_do.task": ("quiz", ""),
    "what_layers_do.leave_one_out": (True, ""),
    # As of "tasks", where the base has none; what is written is read.
    **dict.fromkeys((f"what_breaks.tasks.{key}" for key in TASK), (None, "")),
    "what_breaks.fractions": ([0.5], ""),
    "what_breaks.writing.n_prompts": (2, "w"),
    "what_breaks.writing.prompt_tokens": (5, "w"),
    "what_breaks.writing.tokens": (5, "w"),
    "what_breaks.writing.prompts": (["Once"], "w"),
    "what_breaks.writing.seed": (1, "w"),
    "what_heals.recipes": ([{"recipe": "full"}], ""),
    "what_heals.pruned_by": (["mine"], ""),
    "what_heals.fractions": ([0.5], ""),
    "what_heals.seeds": ([1], ""),
    "repair.repairs": (["linear-map"], ""),
    "repair.strategies": (["mine"], ""),
    "repair.fractions": ([0.5], ""),
    "repair.healed": ([0.5], ""),
    "other_texts.name": ("stories", ""),
    "other_texts.loss": (True, ""),
    "other_texts.path": (SAME, ""),
    "other_texts.dataset": ("other/text", "Ol"),
    "other_texts.config": ("de", "Ol"),
    "other_texts.split": ("test", "Ol"),
    "other_texts.revision": ("v2", "Ol"),
    "writing.n_prompts": (2, "W"),
    "writing.prompt_tokens": (5, "W"),
    "writing.tokens": (5, "W"),
    "writing.prompts": (["Once"], "W"),
    "writing.seed": (1, "W"),
    "cost.fractions": ([0, 0.5, 0.75], "Mm"),
    "cost.length": (5, "Mm"),
    "cost.batch": (5, "Mm"),
    "cost.tokens": (5, "Mm"),
    "cost.repeats": (6, "Mm"),
    "controls.untrained": (False, ""),
    "controls.seed": (1, "Ty"),
    "controls.studies": (["almanac-seed1"], ""),
    "controls.from_scratch": (["almanac-8-layers"], ""),
}
PARTIAL = ("healing.head", "healing.norm", "healing.layers", "healing.at")  # keys of that recipe
# File → what is replaced in it (a byte is added where nothing is named), and what that moves. A
# checkpoint is one input of all that is measured on it, and so is a folder of tasks.
FILES: dict[str, tuple[tuple[str, str] | None, str]] = {
    "s.yaml": (("model:", "# a comment\nmodel:"), ""),
    "checkpoint/model.safetensors": (None, ALL),
    "checkpoint/config.json": (("1e-06", "1e-05"), ALL),
    "checkpoint/generation_config.json": (None, ALL),
    "checkpoint/tokenizer.json": (None, ALL),
    "checkpoint/tokenizer_config.json": (None, ALL),
    "checkpoint/special_tokens_map.json": (None, ALL),
    "checkpoint/chat_template.jinja": (None, ALL),
    "checkpoint/vocab.json": (None, ALL),
    "checkpoint/tokenizer.model": (None, ALL),
    "checkpoint/README.md": (None, ""),
    "checkpoint/LICENSE.txt": (None, ""),
    "checkpoint/notes.txt": (None, ""),
    "checkpoint/trainer_state.json": (None, ""),
    "checkpoint/checkpoint-500/optimizer.pt": (None, ""),
    "validation.jsonl": (("Ada", "Eve"), TEXT),
    "healing.jsonl": (("Ada", "Eve"), HEALING),
    "taught.jsonl": (None, "A"),  # which nothing is healed on
    "tales.jsonl": (("Ada", "Eve"), "Ol"),
    "tasks/quiz.yaml": (("acc,", "acc , "), TASKS),
    "tasks/other.yaml": (None, TASKS),
    "tasks/README.md": (None, TASKS),
    "tasks/utils.py": (("rows[4:]", "rows[5:]"), TASKS),
    "tasks/questions.jsonl": (("rained", "poured"), TASKS),
    "tasks/.hidden.yaml": (("Answer", "Reply"), TASKS),
    "tasks/.unused.yaml": (("Never", "Not"), ""),
    "aside/base.yaml": (None, TASKS),
    "aside/deeper.yaml": (None, TASKS),
    "aside/helpers.py": (('+ doc["question"]', '+ " " + doc["question"]'), TASKS),
    "aside/template.txt": (("Question", "Asked"), TASKS),
    "aside/more.jsonl": (("rained", "poured"), TASKS),
    "aside/unused.txt": (None, ""),
    "modules/common_words.py": (None, TASKS),
    "modules/common_package/__init__.py": (None, TASKS),
    "modules/common_package/inner.py": (("?", "!"), TASKS),
    "modules/common_scores.py": (("6", "7"), "SC"),
    "modules/never_imported.py": (None, ""),
    "mine.py": (("of(model)", "of( model)"), "SC"),
    "other.py": (None, ""),
}


def by_key(path: Path) -> dict[str, str]:
    """Key → the kinds of records whose digest it moves."""
    folder, found = path.parent, {}
    settings = yaml.safe_load(STUDY)
    (folder / "like.yaml").write_text(STUDY)
    hub = {"dataset": "some/text", "config": "en"}
    of_hub = settings | {"model": "some/model"}
    bases = {None: settings, "revision": of_hub, "gguf": of_hub}
    for text in ("validation_text", "healing_text"):
        bases[text] = settings | {text: hub}
    taught = [{"name": "taught", "rows": "instructions"} | hub]
    bases["healing_data"] = settings | {
        "healing_data": taught,
        "healing": settings["healing"] | {"data": "taught"},
    }
    answered = [taught[0] | {"own_answers": 5}]
    bases["healing_data.answer_tokens"] = bases["healing_data"] | {"healing_data": answered}
    partial = {"recipe": "partial", "steps": 2, "batch": 2, "length": 16, "layers": 2}
    bases |= dict.fromkeys(PARTIAL, settings | {"healing": partial})
    bases["calibration"] = settings | {"calibration": hub}
    bases["repair"] = bases["calibration"]
    bases["held_out_text"] = settings | {"held_out_text": hub}
    beside = {"held_out_text": hub, "what_to_train": {"recipes": [{"recipe": "full"}]}}
    bases |= dict.fromkeys(("what_to_train", "last_layer", "step_by_step"), settings | beside)
    chosen = {"samples": [3], "strategies": ["mine"], "texts": ["tales"], "searches": ["mine"]}
    bases["on_what"] = settings | {"on_what": chosen}
    bases["other_texts"] = settings | {"other_texts": [{"name": "tales"} | hub]}
    config = OpenStudy(studies.load(str(path))).config

    def digests(changed: dict[str, Any]) -> dict[str, str]:
        path.write_text(yaml.safe_dump(changed))
        return of(studies.load(str(path)), config)

    before = {name: digests(base) for name, base in bases.items()}
    for key, (value, _) in KEYS.items():
        name = key.split(".")[0] if value != SAME else None
        name = key if key in bases else name
        base = name if name in bases and not key.endswith((".path", ".name")) else None
        if value is not None:
            changed = _changed(copy.deepcopy(bases[base]), key, value, folder)
            found[key] = moved(before[base], digests(changed))
    path.write_text(STUDY)
    return found


def _changed(settings: dict[str, Any], key: str, value: Any, folder: Path) -> dict[str, Any]:
    """The settings with another value; of tasks the one with examples where these are meant."""
    *way, last = key.split(".")
    at: Any = settings
    for name in way:
        at = at.setdefault(name, {})
        at = at[1 if last in ("shots", "order") else 0] if isinstance(at, list) else at
    if value == SAME:
        old = folder / at[last]
        new = folder / f"moved {old.name}"
        (shutil.copytree if old.is_dir() else shutil.copy)(old, new)
        value = f"./{new.name}"
    at[last] = value
    return settings


def by_file(path: Path) -> dict[str, str]:
    """File → the kinds of records whose digest a change of it moves."""
    folder, found = path.parent, {}
    before = of(studies.load(str(path)))
    for name, (change, _) in FILES.items():
        file = folder / name
        old = file.read_bytes()
        new = old.replace(*(one.encode() for one in change)) if change else old + b" "
        assert new != old, name
        file.write_bytes(new)
        found[name] = moved(before, of(studies.load(str(path))))
        file.write_bytes(old)
    return found


def main() -> None:
    with world() as path:
        for title, found in (("key", by_key(path)), ("file", by_file(path))):
            rows = [[name, *(x if x in on else "" for x in LETTERS)] for name, on in found.items()]
            print(tabulate(rows, [title, *LETTERS], tablefmt="github"), end="\n\n")
    print("\n".join(f"{letter}  {kind}" for kind, letter in KINDS.items()))


if __name__ == "__main__":
    main()
