"""Measuring what sections ask for: every accuracy and loss of a list of conditions, recorded.

    opened = OpenStudy(load("almanac"))
    measure(opened, main_conditions(opened))

A healed model costs most, so all that any section asks of it is measured while it is there.
"""

import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from lib.errors import UserError
from lib.evaluation import evaluate, writing
from lib.evidence.journal import Journal
from lib.evidence.records import digest, read
from lib.experiments.conditions import Condition, asked, unpruned, writes
from lib.experiments.opened import OpenStudy
from lib.files import claimed
from lib.healing import heal
from lib.models import checkpoints, four_bit
from lib.pruning.dropped import UNPRUNED, Dropped
from lib.schema import Loss, Task, Writing

Probe = Task | Loss | Writing  # what a model is asked for
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # torch's words, on a CPU
HEALING_TAKES = (
    "set healing.micro_batch to a smaller divisor of healing.batch, or "
    "healing.gradient_checkpointing: true; a shorter healing.length is another recipe"
)


def condition_inputs(opened: OpenStudy, condition: Condition) -> dict[str, Any]:
    """Everything about the model itself that decides what is measured on it."""
    inputs: dict[str, Any] = {
        "checkpoint": opened.checkpoint,
        "weights": condition.weights,
        **condition.dropped.key(),
        "healing": None,
    }
    if condition.weights == "nf4":
        inputs["compute"] = opened.weights
        if four_bit.runs_in_4bit(opened.study):
            inputs["evaluated"] = "in 4-bit"
    if condition.healing:
        # Fractions only say which blocks are healed, and checkpointing trades time for memory.
        # Dropout draws its masks per micro-batch.
        recipe = condition.healing.model_dump(exclude={"fractions", "gradient_checkpointing"})
        recipe["micro_batch"] = recipe["micro_batch"] or recipe["batch"]
        if recipe["recipe"] == "full":  # which has no adapters
            for key in ("rank", "dropout", "targets"):
                del recipe[key]
        # What is recorded without these keys was trained so.
        for key, value in {"packing": True, "recipe": "qlora", "teacher": 0.0}.items():
            if recipe[key] == value:
                del recipe[key]
        inputs["healing"] = recipe | {
            "method": heal.METHOD,
            "text": opened.texts["healing"],
        }
    return inputs


def probe_inputs(opened: OpenStudy, condition: Condition, probe: Probe) -> dict[str, Any]:
    """Everything that decides what a model answers."""
    inputs = condition_inputs(opened, condition)
    if isinstance(probe, Task):
        asked_as = probe.model_dump(exclude={"role"} if probe.order else {"role", "order"})
        source = opened.task_source(probe)
        return inputs | {"method": evaluate.METHOD, "task": asked_as, "source": source}
    inputs["text"] = opened.texts["validation"]
    if isinstance(probe, Loss):
        return inputs | {"method": evaluate.METHOD, "sample": probe.model_dump()}
    return inputs | {"method": writing.METHOD, "writing": probe.model_dump()}


def kind_and_name(condition: Condition, probe: Probe) -> tuple[str, str]:
    """Where a record stands, for people."""
    if isinstance(probe, Task):
        order = f" order {probe.order}" if probe.order else ""
        return "qa", f"{probe.name} {probe.shots}-shot{order} {condition.name}"
    return ("loss" if isinstance(probe, Loss) else "writing"), condition.name


def recorded(opened: OpenStudy, condition: Condition, probe: Probe) -> dict[str, Any] | None:
    """What a model answered, or None where it has not been asked yet."""
    kind, name = kind_and_name(condition, probe)
    return opened.store.get(kind, name, probe_inputs(opened, condition, probe))


def healing_record(opened: OpenStudy, condition: Condition) -> dict[str, Any] | None:
    """The report of a model's healing, or None."""
    return opened.store.get("healing", condition.name, condition_inputs(opened, condition))


def healing_provenance(opened: OpenStudy, condition: Condition) -> dict[str, Any]:
    """When, how long and on what a model was healed; empty where it was not."""
    path = opened.store.path("healing", condition.name, condition_inputs(opened, condition))
    return read(path)[0].get("provenance", {}) if path.exists() else {}


def adapters(opened: OpenStudy, condition: Condition) -> Path:
    """Where the adapters of a healed model are kept, in peft's format."""
    name = digest(condition_inputs(opened, condition))
    return opened.store.folder.parent / "adapters" / name


def probes(opened: OpenStudy, condition: Condition) -> list[Probe]:
    """All that any section asks of a model."""
    writing = [opened.study.writing] if writes(opened, condition) else []
    return [*asked(opened, condition), opened.study.loss, *writing]


def broken(opened: OpenStudy, condition: Condition) -> bool:
    """Whether the loss of a model's healing stopped being finite; there is nothing to ask then, and
    it is not trained again."""
    report = healing_record(opened, condition) if condition.healing else None
    return report is not None and report["train_loss"][-1] is None


def _wanted(opened: OpenStudy, condition: Condition, only: Sequence[Probe] | None) -> list[Probe]:
    found = probes(opened, condition)
    return found if only is None else [probe for probe in found if probe in only]


def _missing(opened: OpenStudy, condition: Condition, only: Sequence[Probe] | None) -> bool:
    if broken(opened, condition):
        return False
    found = [recorded(opened, condition, probe) for probe in _wanted(opened, condition, only)]
    if condition.healing:
        found.append(healing_record(opened, condition))
    return any(value is None for value in found)


def measure(
    opened: OpenStudy, conditions: list[Condition], only: Sequence[Probe] | None = None
) -> None:
    """See to it that every accuracy and loss of these conditions is recorded, or `only` some of
    what they are asked; healed they are in any case.

    Prunings that are not healed share one model and one pass over the questions; a healed model
    is its own."""
    missing: dict[str, Condition] = {}  # two strategies may choose one block
    for condition in conditions:
        if _missing(opened, condition, only):
            missing.setdefault(digest(condition_inputs(opened, condition)), condition)
    groups: dict[str, list[Condition]] = defaultdict(list)
    for key, condition in missing.items():
        groups[key if condition.healing else condition.weights].append(condition)
    with tqdm(total=len(missing), desc="models", unit="model", disable=not missing) as bar:
        for group in groups.values():
            first = group[0].name
            bar.set_postfix_str(first if len(group) == 1 else f"{first} and {len(group) - 1} more")
            _measure(opened, group, only)
            bar.update(len(group))


def _measure(opened: OpenStudy, conditions: list[Condition], only: Sequence[Probe] | None) -> None:
    """Measure conditions that are prunings of one model (or one healed model)."""
    wanted: list[Probe] = []
    for condition in conditions:
        wanted += [probe for probe in _wanted(opened, condition, only) if probe not in wanted]
    with materialised(opened, conditions[0]) as model:
        if broken(opened, conditions[0]):
            problem = healing_record(opened, conditions[0])["diverged"]
            print(f"{conditions[0].name}: {problem}; left out", file=sys.stderr)
            return
        for probe in wanted:
            todo = [
                one
                for one in conditions
                if probe in probes(opened, one) and recorded(opened, one, probe) is None
            ]
            blocks = [UNPRUNED if one.healing else one.dropped for one in todo]
            inputs = [probe_inputs(opened, one, probe) for one in todo]
            journal = Journal(opened.store.unfinished(inputs))
            start = time.monotonic()
            with _within_memory(
                opened, conditions[0].name, f"lower batch (now {opened.study.batch})"
            ):
                found = _values(opened, model, blocks, probe, journal)
                for condition, given, value in zip(todo, inputs, found, strict=True):
                    # Of what is found together, the time goes to the first.
                    seconds, start = round(time.monotonic() - start, 3), time.monotonic()
                    kind, name = kind_and_name(condition, probe)
                    batch = opened.study.batch
                    opened.store.put(kind, name, given, value, seconds=seconds, batch=batch)
            journal.finish()


@contextmanager
def _within_memory(opened: OpenStudy, name: str, remedy: str) -> Iterator[None]:
    """Raises UserError with a remedy where memory runs out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # of which torch's own is a kind
        if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or NO_MEMORY in str(error)):
            raise
        device = checkpoints.device(opened.study)
        raise UserError(f"{name}: out of memory on {device}; {remedy}") from None


def _values(
    opened: OpenStudy,
    model: PreTrainedModel,
    blocks: list[Dropped],
    probe: Probe,
    journal: Journal,
) -> Iterable[dict[str, Any]]:
    if not blocks:
        return []
    batch, text = opened.study.batch, opened.tokenizer
    if isinstance(probe, Loss):
        sequences = opened.loss_sequences
        return evaluate.losses(model, blocks, sequences, batch, text.pad_token_id, journal)
    if isinstance(probe, Writing):
        return writing.continuations(model, text, blocks, opened.writing_prompts, probe.tokens)
    return evaluate.accuracies(
        model, text, probe, opened.task_manager, blocks, batch, journal=journal
    )


def question_free(opened: OpenStudy, task: Task) -> dict[str, Any]:
    """Accuracy of the unpruned model that is shown the choices but no question."""
    condition = unpruned(opened)
    return opened.store.get_or_measure(
        "qa",
        f"question-free {kind_and_name(condition, task)[1]}",
        probe_inputs(opened, condition, task) | {"question_free": True},
        lambda: evaluate.accuracy(
            opened.model,
            opened.tokenizer,
            task,
            opened.task_manager,
            opened.study.batch,
            question_free=True,
        ),
        batch=opened.study.batch,
    )


@contextmanager
def materialised(opened: OpenStudy, condition: Condition) -> Iterator[PreTrainedModel]:
    """A healed condition's model, which leaves its training report as evidence; for any other the
    unpruned model in the condition's weights."""
    if condition.weights != "nf4" and condition.healing is None:
        yield opened.model
        return
    opened.release()
    if condition.healing is None:
        yield heal.unhealed_4bit(opened.study, UNPRUNED)
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


def _healed(opened: OpenStudy, condition: Condition, keep: Path, kept: Path) -> PreTrainedModel:
    """From its adapters, or trained now. keep: where training leaves its state, kept: adapters."""
    inputs = condition_inputs(opened, condition)
    how = (opened.study, condition.healing, condition.dropped)
    if kept.exists() and healing_record(opened, condition):
        return heal.reload(*how, kept)
    shutil.rmtree(kept, ignore_errors=True)
    start = time.monotonic()
    with _within_memory(opened, condition.name, HEALING_TAKES):
        found = heal.heal(*how, opened.tokenizer, keep, kept)
    seconds = {"seconds": round(time.monotonic() - start, 3), "training_seconds": found.seconds}
    opened.store.put("healing", condition.name, inputs, found.report, **seconds)
    return found.model
