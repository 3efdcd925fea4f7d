"""The model of a condition, in memory: pruned in steps, healed, or taken from what was kept.

    with materialised(opened, condition) as model:
        print(model.config)

Prunings that are not healed have none of their own: the sweep asks them all in one pass.
"""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from lib.errors import UserError
from lib.evidence import sums
from lib.experiments.conditions import Condition, not_healed, previous
from lib.experiments.opened import OpenStudy
from lib.experiments.own_answers import with_answers
from lib.experiments.probes import adapters, broken, condition_inputs, healing_record
from lib.files import claimed
from lib.healing import recipe as recipes
from lib.models import checkpoints, four_bit
from lib.pruning import repair as repairs
from lib.pruning.dropped import UNPRUNED, Dropped
from lib.pruning.surgery import save_pruned
from lib.schema import Study

NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # torch's words, on a CPU
HEALING_TAKES = (
    "set healing.micro_batch to a smaller divisor of healing.batch, or "
    "healing.gradient_checkpointing: true; a shorter healing.length is another recipe"
)


@contextmanager
def materialised(opened: OpenStudy, condition: Condition) -> Iterator[PreTrainedModel]:
    """A healed condition's model, which leaves its training report as evidence; for one that was
    repaired, or pruned in steps, the pruned model; for any other the unpruned one in the
    condition's weights."""
    if condition.repair and condition.healing is None:
        yield _repaired(opened, condition)
        return
    if condition.weights != "nf4" and condition.healing is None and not condition.before:
        yield opened.model
        return
    from lib.healing import heal

    opened.release()
    if condition.healing is None:
        with source(opened, condition) as (study, dropped):
            drop = dropped if condition.before else UNPRUNED
            model = heal.unhealed(study, drop, in_4bit=condition.weights == "nf4")
        yield model
        return
    inputs = condition_inputs(opened, condition)
    keep = opened.store.unfinished(inputs).with_suffix("")
    kept = adapters(opened, condition)
    # On a shared folder another process may be at it: a job that is thought lost, or another clone.
    lock = opened.store.folder.parent / "locks" / keep.name
    with claimed(lock, f"{condition.name}: another process is healing this model; waiting"):
        model = _healed(opened, condition, keep, kept)
    yield model
    # What is on the way to the weights goes last: without adapters they are made from it again.
    shutil.rmtree(keep, ignore_errors=True)
    with suppress(OSError):
        keep.parent.rmdir()


def _repaired(opened: OpenStudy, condition: Condition) -> PreTrainedModel:
    """A copy of its own: the unpruned model stays what it is. What the repair found is evidence."""
    study, how = opened.study, repairs.load(condition.repair)
    windows = opened.windows(study.calibration, study.calibration)
    opened.release()
    model = checkpoints.load_model(study)
    report = repairs.repair(model, condition.dropped, windows, study.batch, how)
    opened.store.put("repair", condition.name, condition_inputs(opened, condition), report)
    return model


def _healed(opened: OpenStudy, condition: Condition, keep: Path, kept: Path) -> PreTrainedModel:
    """From what was kept, or trained now. keep: where training leaves its state on the way."""
    from lib.healing import heal

    inputs = condition_inputs(opened, condition)
    with source(opened, condition) as (study, dropped):
        how = (condition.healing, dropped)
        if kept.exists() and healing_record(opened, condition):
            try:
                return heal.reload(study, *how, kept)
            except recipes.Damaged as problem:
                print(f"{condition.name}: {problem}; healed again", file=sys.stderr)
        shutil.rmtree(kept, ignore_errors=True)
        whole = opened.study if study.model != opened.study.model else None
        study = with_answers(opened, study, condition.healing)
        start = time.monotonic()
        with within_memory(opened, condition.name, HEALING_TAKES):
            found = heal.heal(study, *how, opened.tokenizer, keep, kept, whole)
    seconds = {"seconds": round(time.monotonic() - start, 3), "training_seconds": found.seconds}
    opened.store.put("healing", condition.name, inputs, found.report, **seconds)
    return found.model


@contextmanager
def source(opened: OpenStudy, condition: Condition) -> Iterator[tuple[Study, Dropped]]:
    """The study whose checkpoint the last step of a condition starts from, and what that step drops
    by the numbers of its layers: the study's own, or one that is what the steps before left, or
    what a repair did."""
    if condition.repair and condition.healing:
        with going_on(opened, not_healed(opened, condition)) as study:
            yield study, UNPRUNED
        return
    if not condition.before:
        yield opened.study, condition.dropped
        return
    before = previous(opened, condition)
    place = before.dropped.kept(opened.n_layers)
    with going_on(opened, before) as study:
        yield study, Dropped(place.index(layer) for layer in condition.last)


@contextmanager
def going_on(opened: OpenStudy, condition: Condition) -> Iterator[Study]:
    """The study, its model that of a condition: an ordinary checkpoint among what is unfinished,
    made from what is kept if it can be, and gone afterwards. Whoever goes on from the same model
    at the same time waits.

    Raises UserError where the condition's healing broke down."""
    folder = _continued_folder(opened, condition)
    lock = opened.store.folder.parent / "locks" / folder.name
    with claimed(lock, f"{condition.name}: another process goes on from this model; waiting"):
        if not sums.there(folder) or sums.damage(folder):
            shutil.rmtree(folder, ignore_errors=True)
            _write_model(opened, condition, folder)
            sums.write(folder)
        changes: dict[str, Any] = dict.fromkeys(("revision", "gguf", "shape"))
        changes["model"] = str(folder)
        if condition.alone:  # 16 bits would take back most of what small steps have changed
            changes["dtype"] = "float32"
        yield opened.study.model_copy(update=changes)
        shutil.rmtree(folder, ignore_errors=True)


def _continued_folder(opened: OpenStudy, condition: Condition) -> Path:
    return opened.store.unfinished(condition_inputs(opened, condition)).with_suffix(".model")


def _write_model(opened: OpenStudy, condition: Condition, folder: Path) -> None:
    with materialised(opened, condition) as model:
        if broken(opened, condition):
            raise BrokeDown(f"{condition.name}: its healing broke down; nothing goes on from there")
        kept = adapters(opened, condition)
        in_4bit = condition.weights == "nf4" and four_bit.runs_in_4bit(opened.study)
        if condition.healing and in_4bit:
            from lib.healing import heal

            with source(opened, condition) as (study, dropped):
                model = heal.reload(study, condition.healing, dropped, kept, plain=True)
        save_pruned(
            model, UNPRUNED if condition.alone else condition.dropped, opened.tokenizer, folder
        )


class BrokeDown(UserError):
    """An earlier step's healing broke down."""


@contextmanager
def within_memory(opened: OpenStudy, name: str, remedy: str) -> Iterator[None]:
    """Raises UserError with a remedy where memory runs out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # of which torch's own is a kind
        if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or NO_MEMORY in str(error)):
            raise
        device = checkpoints.device(opened.study)
        raise UserError(f"{name}: out of memory on {device}; {remedy}") from None
