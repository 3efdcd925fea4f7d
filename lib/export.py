"""A healed or repaired model to take away: pruned, and healed with the study's recipe, adapters
merged; or repaired without training.

    python -m lib.export OUT --study mine.yaml --similarity 8    # the most similar block
    python -m lib.export OUT --study mine.yaml --simple 8        # deepest 8, last one kept
    python -m lib.export OUT --study mine.yaml --strategy NAME 8  # any strategy
    python -m lib.export OUT --study mine.yaml --drop 21:29      # layers 21–28; or 3,5:8
    python -m lib.export OUT --study mine.yaml --simple 8 --recipe partial-head-norm-last3
    python -m lib.export OUT --study mine.yaml --simple 8 --repair linear-map   # not healed

What the book has healed already is not healed again, and a healing that was stopped goes on. OUT is
an ordinary checkpoint, in float32 where it was healed; OUT/adapter holds the adapters alone, in
peft's format, for the pruned checkpoint that `lib.pruning` writes. It appears whole or not at all.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch

from lib import paths, study
from lib.book.check import check
from lib.errors import UserError
from lib.evidence import ownership, sums
from lib.experiments import models, probes
from lib.experiments.conditions import Condition
from lib.experiments.opened import OpenStudy
from lib.files import (
    check_space,
    check_writable,
    free_place,
    whole_or_not_at_all,
    written_by_others,
)
from lib.healing import heal
from lib.healing import recipe as recipes
from lib.models import checkpoints, four_bit
from lib.models.shapes import shape_of
from lib.open_sets import Healing
from lib.pruning import repair as repairs
from lib.pruning.dropped import Dropped, parse_layers
from lib.pruning.on_disk import SLACK, add_choices, asked_strategy
from lib.schema import Study

LOADING = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH")
tokenizer = AutoTokenizer.from_pretrained("PATH")
```
"""
ADAPTERS = "adapter_config.json"  # by which peft knows a folder of adapters


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.export", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("out", help="the folder to write; it must not exist or be empty")
    parser.add_argument("--study", required=True, help="name or path of a YAML file")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--recipe", help="one of the study's recipes, by what tables call it; else its `healing`"
    )
    how.add_argument("--repair", metavar="NAME", help="repaired without training, and not healed")
    add_choices(parser)
    options = parser.parse_args(arguments)
    try:
        out = free_place(Path(options.out))
        chosen = study.load(options.study)
        check(chosen)
        opened = OpenStudy(chosen)
        ownership.take(chosen, opened.checkpoint)
        condition = _condition(opened, options)
        _check_room(opened, condition, out)
        export(opened, condition, out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the next run goes on with what is trained already", file=sys.stderr)
        return 130
    print(f"{out} is written")
    return 0


def _condition(opened: OpenStudy, options: argparse.Namespace) -> Condition:
    """The model that is asked for, as the sections name it, so that theirs is found."""
    if options.repair is not None:
        return _repaired(opened, options)
    recipe = _recipe(opened.study, options.recipe)
    if recipe is None:
        raise UserError(
            f"study {opened.study.name}: heals nothing (healing: none), so there is no healed "
            "model to write; python -m lib.pruning writes pruned ones"
        )
    strategy, dropped = _dropped(opened, options)
    if options.drop is not None and recipe.teacher and not dropped.contiguous:
        raise UserError(
            f"--drop {options.drop}: healing with a teacher is of one block, as in 21:29"
        )
    return Condition(strategy, dropped, opened.weights_of(recipe), recipe)


def _repaired(opened: OpenStudy, options: argparse.Namespace) -> Condition:
    repairs.load(options.repair)  # else it is known only once layers are chosen
    if opened.study.calibration is None:
        raise UserError(
            f"--repair {options.repair}: study {opened.study.name} has no calibration, the text "
            "that it is fitted on"
        )
    return Condition(*_dropped(opened, options), opened.weights, repair=options.repair)


def _dropped(opened: OpenStudy, options: argparse.Namespace) -> tuple[str, Dropped]:
    """What tables call the strategy, and the layers that go."""
    if options.drop is not None:
        return "given", parse_layers(options.drop, opened.n_layers)
    strategy, n = asked_strategy(options)
    return strategy, opened.chosen(strategy, n)


def _recipe(chosen: Study, name: str | None) -> Healing | None:
    if name is None or chosen.healing is None:
        return chosen.healing
    known = {one.name: one for one in reversed(chosen.every_recipe)}
    if name not in known:
        listed = ", ".join(reversed(known))
        raise UserError(f"--recipe {name}: not one of the study's recipes, which are {listed}")
    return known[name]


def _check_room(opened: OpenStudy, condition: Condition, out: Path) -> None:
    """Raises UserError, before anything is trained, where what comes of it cannot be written."""
    if not probes.adapters(opened, condition).exists():
        check_writable(paths.results(opened.study.name))
    check_writable(out.parent)
    healing = condition.healing
    shape = shape_of(opened.config, healing.adapted if healing else [])
    added = recipes.of(healing).added(shape, healing) if healing else 0
    check_space(out, torch.float32.itemsize * (shape.pruned(condition.dropped) + added) + SLACK)


def export(opened: OpenStudy, condition: Condition, out: Path) -> None:
    """Write the model of a condition as a checkpoint, with its tokenizer, adapters and card.

    Raises UserError when its healing broke down, and when the folder cannot be written."""
    with models.materialised(opened, condition) as model:
        if probes.broken(opened, condition):
            report = probes.healing_record(opened, condition)
            raise UserError(f"{condition.name}: {report['diverged']}; nothing is written")
        kept = probes.adapters(opened, condition)
        in_4bit = condition.weights == "nf4" and four_bit.runs_in_4bit(opened.study)
        if kept.exists() and in_4bit:
            how = (opened.study, condition.healing, condition.dropped)
            model = heal.reload(*how, kept, plain=True)
        with whole_or_not_at_all(out) as unfinished, written_by_others(unfinished):
            if (kept / ADAPTERS).exists():
                (unfinished / "adapter").mkdir()
                for file in {path.name for path in kept.iterdir()} - {"README.md", sums.NAME}:
                    shutil.copyfile(kept / file, unfinished / "adapter" / file)
                _name_base(unfinished / "adapter" / ADAPTERS, opened)
            model.save_pretrained(unfinished)
            checkpoints.save_tokenizer(opened.tokenizer, unfinished)
            card = _repaired_card if condition.repair else _card
            (unfinished / "README.md").write_text(card(opened, condition), encoding="utf-8")


def _name(opened: OpenStudy) -> str:
    model = opened.study.model
    return Path(model).name if opened.study.model_is_local else model


def _name_base(file: Path, opened: OpenStudy) -> None:
    """Peft writes where the base was on this machine; elsewhere only its name helps."""
    settings = json.loads(file.read_text("utf-8"))
    settings["base_model_name_or_path"] = _name(opened)
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _repaired_card(opened: OpenStudy, condition: Condition) -> str:
    dropped, report = condition.dropped, probes.repair_record(opened, condition)
    return f"""---
library_name: transformers
tags: [layer-pruning]
---

# {_name(opened)}, {opened.n_layers - dropped.n} of {opened.n_layers} layers, repaired

| | |
|---|---|
| original | `{_name(opened)}` |
| pruned | {dropped.in_words(opened.n_layers)} (counted from 0) |
| repaired | `{condition.repair}`, without training, on {report["tokens"]:,} tokens |
| squared distance across the cut, before and after | {report["gap"]:.3f}, \
{report["left_elsewhere"]:.3f} of that of the residual stream, on text that it was not fitted on |

{LOADING}"""


def _card(opened: OpenStudy, condition: Condition) -> str:
    recipe, dropped = condition.healing, condition.dropped
    report = probes.healing_record(opened, condition)
    words = dropped.in_words(opened.n_layers) if dropped else "drop none"
    trained = recipes.of(recipe).words(recipe)
    if added := recipes.of(recipe).added(shape_of(opened.config, recipe.adapted), recipe):
        trained += f" (the head was the embeddings; its own are {added:,} parameters more)"
    return f"""---
library_name: transformers
tags: [layer-pruning]
---

# {_name(opened)}, {opened.n_layers - dropped.n} of {opened.n_layers} layers, healed

| | |
|---|---|
| original | `{_name(opened)}` |
| pruned | {words} (counted from 0) |
| healed | `{recipe.name}`: {trained}, {recipe.steps} steps of {recipe.batch} rows, \
{report["tokens"]:,} tokens |
| seed, peak learning rate | {recipe.seed}, {recipe.learning_rate:g} |
| training loss, first and last | {report["train_loss"][0]:.3f}, {report["train_loss"][-1]:.3f} \
nats per token |

The weights are in float32{
        ", with the adapters merged into the 4-bit values that they were trained on"
        if condition.weights == "nf4"
        else ""
    }.

{LOADING}"""


if __name__ == "__main__":
    sys.exit(main())
