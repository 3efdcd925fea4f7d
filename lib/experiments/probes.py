"""What a model is asked for, everything that decides the answer, and the record of it.

    opened = OpenStudy(load("almanac"))
    found = recorded(opened, unpruned(opened), opened.study.loss)

Nothing is measured here: `measure` does that.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.evaluation import evaluate, whole_texts, writing
from lib.evidence.records import digest, read
from lib.experiments.conditions import Condition, asked, beside, breaking, previous, writes
from lib.experiments.opened import OpenStudy
from lib.experiments.own_answers import answer_inputs
from lib.fields import Data, NamedText
from lib.healing import recipe as recipes
from lib.models import four_bit
from lib.open_sets import Healing
from lib.pruning import repair
from lib.schema import Loss, Perplexity, Study, Task
from lib.section_settings import Writing


@dataclass(frozen=True)
class OtherLoss:
    """The loss on another text than the study's own, of the same sample of its documents."""

    text: NamedText = field(repr=False)  # what it holds counts, wherever it lies
    sample: Loss


Probe = Task | Loss | OtherLoss | Writing | Perplexity  # what a model is asked for


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
    if condition.repair:
        how = {"repair": condition.repair, "method": repair.load(condition.repair).METHOD}
        inputs["repair"] = how | opened.windows_inputs(opened.study.calibration)
        if condition.healing:
            inputs["from"] = "float32"  # what was repaired goes on in full precision
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
    source, found = opened.study.healing_source(healing), recipes.of(healing).inputs(healing)
    if isinstance(source, Data) and source.rows == "instructions":
        found.pop("packing", None)  # they never are
        own = {"answered": answer_inputs(opened, source)} if source.own_answers else {}
        return found | {"text": opened.texts[source]} | own
    text = opened.texts[source] if healing.packing else opened.cut_text(source)
    return found | {"text": text}


def probe_inputs(opened: OpenStudy, condition: Condition, probe: Probe) -> dict[str, Any]:
    """Everything that decides what a model answers."""
    inputs = condition_inputs(opened, condition)
    if isinstance(probe, Task):
        ordered = probe.order and probe.shots > 1  # else there is one order
        shown = {"role", "metric", "label"}
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


def repair_record(opened: OpenStudy, condition: Condition) -> dict[str, Any] | None:
    """What a model's repair found on the calibration text, or None."""
    return opened.store.get("repair", condition.name, condition_inputs(opened, condition))


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
    if beside(opened, condition):
        return [*asked(opened, condition), study.loss]
    writing = [study.writing] if writes(opened, condition) else []
    writing += [study.what_breaks.writing] if breaking(opened, condition) else []
    texts = [study.loss, *other_losses(study), *study.perplexity]
    return [*asked(opened, condition), *texts, *writing]


def broken(opened: OpenStudy, condition: Condition) -> bool:
    """Whether the loss of a model's healing stopped being finite, now or in an earlier step; there
    is nothing to ask then, and it is not trained again."""
    report = healing_record(opened, condition) if condition.healing else None
    if report is not None and report["train_loss"][-1] is None:
        return True
    return bool(condition.before) and broken(opened, previous(opened, condition))
