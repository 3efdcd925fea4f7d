"""Measuring what sections ask for: every accuracy and loss of a list of conditions, recorded.

    opened = OpenStudy(load("almanac"))
    measure(opened, main_conditions(opened))

A healed model costs most, so all that any section asks of it is measured while it is there.
"""

import shutil
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from lib.errors import UserError
from lib.evaluation import evaluate, whole_texts, writing
from lib.evidence import sums
from lib.evidence.journal import WHOLE, Journal
from lib.evidence.records import digest, read
from lib.experiments.conditions import Condition, asked, unpruned, writes
from lib.experiments.opened import OpenStudy
from lib.files import claimed
from lib.healing import recipe as recipes
from lib.models import checkpoints, four_bit
from lib.pruning.dropped import UNPRUNED, Dropped
from lib.pruning.surgery import save_pruned
from lib.schema import Healing, Loss, NamedText, Perplexity, Study, Task, Writing


@dataclass(frozen=True)
class OtherLoss:
    """The loss on another text than the study's own, of the same sample of its documents."""

    text: NamedText = field(repr=False)  # what it holds counts, wherever it lies
    sample: Loss


Probe = Task | Loss | OtherLoss | Writing | Perplexity  # what a model is asked for
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
        inputs["healing"] = healing_inputs(opened, condition.healing)
    if condition.before:
        inputs["before"] = [
            step.dropped.key()
            | {"healing": healing_inputs(opened, step.healing) if step.healing else None}
            for step in condition.before
        ]
        if any(step.healing for step in condition.before):
            inputs["from"] = "float32"  # what was healed goes on in full precision
    return inputs


def healing_inputs(opened: OpenStudy, healing: Healing) -> dict[str, Any]:
    """Everything that decides what a recipe trains, beside the model."""
    text = opened.texts["healing"] if healing.packing else opened.cut_text("healing")
    return recipes.of(healing).inputs(healing) | {"text": text}


def probe_inputs(opened: OpenStudy, condition: Condition, probe: Probe) -> dict[str, Any]:
    """Everything that decides what a model answers."""
    inputs = condition_inputs(opened, condition)
    if isinstance(probe, Task):
        ordered = probe.order and probe.shots > 1  # else there is one order
        shown = {"role", "metric"}
        asked_as = probe.model_dump(exclude=shown if ordered else shown | {"order"})
        source = opened.task_source(probe)
        found = inputs | {"method": evaluate.METHOD, "task": asked_as, "source": source}
        chat = {"chat_template": True} if opened.study.chat_template else {}
        return found | prompt_inputs(opened) | chat
    if isinstance(probe, Perplexity):
        source = opened.task_source(whole_texts.as_task(probe))
        asked_as = {"method": whole_texts.METHOD, "task": probe.model_dump(), "source": source}
        return inputs | asked_as | prompt_inputs(opened)
    if isinstance(probe, OtherLoss):
        text = opened.cut_text(probe.text)
        sample = probe.sample.model_dump()
        return inputs | {"method": evaluate.METHOD, "sample": sample, "text": text}
    inputs["text"] = opened.cut_text("validation")
    if isinstance(probe, Loss):
        return inputs | {"method": evaluate.METHOD, "sample": probe.model_dump()}
    found = inputs | {"method": writing.METHOD, "writing": probe.model_dump()}
    return found | prompt_inputs(opened)


def prompt_inputs(opened: OpenStudy) -> dict[str, Any]:
    """How prompts become tokens, where a tokenizer ends texts: they were once ended, too."""
    return {"prompt_end": "left out"} if opened.ends_texts else {}


def kind_and_name(condition: Condition, probe: Probe) -> tuple[str, str]:
    """Where a record stands, for people."""
    if isinstance(probe, Task):
        order = f" order {probe.order}" if probe.order else ""
        return "qa", f"{probe.name} {probe.shots}-shot{order} {condition.name}"
    if isinstance(probe, Perplexity):
        return "perplexity", f"{probe.name} {condition.name}"
    if isinstance(probe, OtherLoss):
        return "loss", f"{probe.text.name} {condition.name}"
    return ("loss" if isinstance(probe, Loss) else "writing"), condition.name


def recorded(opened: OpenStudy, condition: Condition, probe: Probe) -> dict[str, Any] | None:
    """What a model answered, or None where it has not been asked yet."""
    kind, name = kind_and_name(condition, probe)
    found = opened.store.get(kind, name, probe_inputs(opened, condition, probe))
    return evaluate.shown(found, probe) if found and isinstance(probe, Task) else found


def healing_record(opened: OpenStudy, condition: Condition) -> dict[str, Any] | None:
    """The report of a model's healing, or None."""
    return opened.store.get("healing", condition.name, condition_inputs(opened, condition))


def healing_provenance(opened: OpenStudy, condition: Condition) -> dict[str, Any]:
    """When, how long and on what a model was healed; empty where it was not."""
    path = opened.store.path("healing", condition.name, condition_inputs(opened, condition))
    return read(path)[0].get("provenance", {}) if path.exists() else {}


def adapters(opened: OpenStudy, condition: Condition) -> Path:
    """Where a healed model is kept, as its recipe does: adapters in peft's format, say."""
    name = digest(condition_inputs(opened, condition))
    return opened.store.folder.parent / "adapters" / name


def other_losses(study: Study) -> list[OtherLoss]:
    """Those that the study asks for."""
    return [OtherLoss(text, study.loss) for text in study.loss_texts]


def probes(opened: OpenStudy, condition: Condition) -> list[Probe]:
    """All that any section asks of a model."""
    study = opened.study
    writing = [study.writing] if writes(opened, condition) else []
    texts = [study.loss, *other_losses(study), *study.perplexity]
    return [*asked(opened, condition), *texts, *writing]


def broken(opened: OpenStudy, condition: Condition) -> bool:
    """Whether the loss of a model's healing stopped being finite, now or in an earlier step; there
    is nothing to ask then, and it is not trained again."""
    report = healing_record(opened, condition) if condition.healing else None
    if report is not None and report["train_loss"][-1] is None:
        return True
    return bool(condition.before) and broken(opened, previous(opened, condition))


def _missing(opened: OpenStudy, condition: Condition) -> bool:
    if broken(opened, condition):
        return False
    found = [recorded(opened, condition, probe) for probe in probes(opened, condition)]
    if condition.healing:
        found.append(healing_record(opened, condition))
    return any(value is None for value in found)


def measure(opened: OpenStudy, conditions: list[Condition], share: tuple[int, int] = WHOLE) -> None:
    """See to it that every accuracy and loss of these conditions is recorded.

    Prunings that are not healed share one model and one pass over the questions; a healed model
    is its own. share: (2, 4) has every fourth batch of that pass scored from the second on, for a
    later call without one to put together; nothing is recorded then."""
    missing: dict[str, Condition] = {}  # two strategies may choose one block
    for condition in conditions:
        if _missing(opened, condition):
            missing.setdefault(digest(condition_inputs(opened, condition)), condition)
    groups: dict[str, list[Condition]] = defaultdict(list)
    for key, condition in missing.items():
        groups[key if condition.alone else condition.weights].append(condition)
    with tqdm(total=len(missing), desc="models", unit="model", disable=not missing) as bar:
        for group in groups.values():
            first = group[0].name
            bar.set_postfix_str(first if len(group) == 1 else f"{first} and {len(group) - 1} more")
            try:
                _measure(opened, group, share)
            except BrokeDown as problem:
                print(f"{first}: left out: {problem}", file=sys.stderr)
            bar.update(len(group))


class BrokeDown(UserError):
    """An earlier step's healing broke down."""


def _measure(opened: OpenStudy, conditions: list[Condition], share: tuple[int, int]) -> None:
    """Measure conditions that are prunings of one model (or one healed model)."""
    wanted: list[Probe] = []
    for condition in conditions:
        wanted += [probe for probe in probes(opened, condition) if probe not in wanted]
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
            blocks = [UNPRUNED if one.alone else one.dropped for one in todo]
            inputs = [probe_inputs(opened, one, probe) for one in todo]
            journal = Journal(opened.store.unfinished(inputs), share)
            start = time.monotonic()
            with _within_memory(
                opened, conditions[0].name, f"lower batch (now {opened.study.batch})"
            ):
                found = _values(opened, model, blocks, probe, journal)
                if not journal.whole:
                    deque(found, maxlen=0)
                    continue
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
    if isinstance(probe, Loss | OtherLoss):
        other = isinstance(probe, OtherLoss)
        sequences = opened.documents(probe.text, probe.sample) if other else opened.loss_sequences
        return evaluate.losses(model, blocks, sequences, batch, text.pad_token_id, journal)
    if isinstance(probe, Writing):
        if not journal.whole:
            return []
        return writing.continuations(model, text, blocks, opened.writing_prompts, probe.tokens)
    if isinstance(probe, Perplexity):
        manager = opened.task_manager
        return whole_texts.perplexities(model, text, probe, manager, blocks, batch, journal)
    how = {"journal": journal, "chat_template": opened.study.chat_template}
    return evaluate.accuracies(model, text, probe, opened.task_manager, blocks, batch, **how)


def question_free(opened: OpenStudy, task: Task) -> dict[str, Any]:
    """Accuracy of the unpruned model that is shown the choices but no question."""
    condition = unpruned(opened)
    found = opened.store.get_or_measure(
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
            chat_template=opened.study.chat_template,
        ),
        batch=opened.study.batch,
    )
    return evaluate.shown(found, task)


@contextmanager
def materialised(opened: OpenStudy, condition: Condition) -> Iterator[PreTrainedModel]:
    """A healed condition's model, which leaves its training report as evidence; for one that was
    pruned in steps the pruned model; for any other the unpruned one in the condition's weights."""
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


def _healed(opened: OpenStudy, condition: Condition, keep: Path, kept: Path) -> PreTrainedModel:
    """From what was kept, or trained now. keep: where training leaves its state on the way."""
    from lib.healing import heal

    inputs = condition_inputs(opened, condition)
    with source(opened, condition) as (study, dropped):
        how = (study, condition.healing, dropped)
        if kept.exists() and healing_record(opened, condition):
            try:
                return heal.reload(*how, kept)
            except recipes.Damaged as problem:
                print(f"{condition.name}: {problem}; healed again", file=sys.stderr)
        shutil.rmtree(kept, ignore_errors=True)
        start = time.monotonic()
        with _within_memory(opened, condition.name, HEALING_TAKES):
            found = heal.heal(*how, opened.tokenizer, keep, kept)
    seconds = {"seconds": round(time.monotonic() - start, 3), "training_seconds": found.seconds}
    opened.store.put("healing", condition.name, inputs, found.report, **seconds)
    return found.model


@contextmanager
def source(opened: OpenStudy, condition: Condition) -> Iterator[tuple[Study, Dropped]]:
    """The study whose checkpoint the last step of a condition starts from, and what that step drops
    by the numbers of its layers: the study's own, or one that is what the steps before left."""
    if not condition.before:
        yield opened.study, condition.dropped
        return
    before = previous(opened, condition)
    place = before.dropped.kept(opened.n_layers)
    with going_on(opened, before) as study:
        yield study, Dropped(place.index(layer) for layer in condition.last)


def previous(opened: OpenStudy, condition: Condition) -> Condition:
    """The model that the last step of a condition starts from."""
    *earlier, last = condition.before
    gone = {layer for step in condition.before for layer in step.dropped}
    weights = opened.weights_of(last.healing) if last.healing else opened.weights
    return Condition(condition.strategy, Dropped(gone), weights, last.healing, tuple(earlier))


def _continued_folder(opened: OpenStudy, condition: Condition) -> Path:
    return opened.store.unfinished(condition_inputs(opened, condition)).with_suffix(".model")


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
