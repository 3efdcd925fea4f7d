"""Measuring what sections ask for: every accuracy and loss of a list of conditions, recorded.

    opened = OpenStudy(load("almanac"))
    measure(opened, main_conditions(opened))

A healed model costs most, so all that any section asks of it is measured while it is there.
"""

import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedModel

from lib.evaluation import evaluate, whole_texts, writing
from lib.evidence.journal import WHOLE, Journal
from lib.evidence.records import digest
from lib.experiments.conditions import Condition, beside, unpruned
from lib.experiments.models import BrokeDown, materialised, within_memory
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import (
    OtherLoss,
    Probe,
    broken,
    condition_inputs,
    healing_record,
    kind_and_name,
    probe_inputs,
    probes,
    recorded,
    repair_record,
)
from lib.pruning.dropped import UNPRUNED, Dropped
from lib.schema import Loss, Perplexity, Task
from lib.section_settings import Writing


def _missing(opened: OpenStudy, condition: Condition) -> bool:
    if broken(opened, condition):
        return False
    found = [recorded(opened, condition, probe) for probe in probes(opened, condition)]
    if condition.healing:
        found.append(healing_record(opened, condition))
    if condition.repair and condition.healing is None:
        found.append(repair_record(opened, condition))
    return any(value is None for value in found)


def measure(opened: OpenStudy, conditions: list[Condition], share: tuple[int, int] = WHOLE) -> None:
    """See to it that every accuracy and loss of these conditions is recorded.

    Prunings that are not healed share one model and one pass over the questions; a healed model
    is its own. share: (2, 4) has every fourth batch of that pass scored from the second on, for a
    later call without one to put together; nothing is recorded then."""
    missing: dict[str, Condition] = {}  # two strategies may choose one block
    for condition in sorted(conditions, key=lambda one: beside(opened, one)):  # asked less
        if _missing(opened, condition):
            missing.setdefault(digest(condition_inputs(opened, condition)), condition)
    groups: dict[str, list[Condition]] = defaultdict(list)
    for key, condition in missing.items():
        groups[key if condition.alone else condition.weights].append(condition)
    off = {} if missing else {"disable": True}  # else as TQDM_DISABLE says
    with tqdm(total=len(missing), desc="models", unit="model", **off) as bar:
        for group in groups.values():
            first = group[0].name
            bar.set_postfix_str(first if len(group) == 1 else f"{first} and {len(group) - 1} more")
            try:
                _measure(opened, group, share)
            except BrokeDown as problem:
                print(f"{first}: left out: {problem}", file=sys.stderr)
            bar.update(len(group))


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
            with within_memory(
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
        return writing.continuations(
            model, text, blocks, opened.writing_prompts(probe), probe.tokens
        )
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
