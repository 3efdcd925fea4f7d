"""What a study will measure and what that takes, worked out from the model's shape alone.

    python -m lib.run book --study llama-2-70b --plan

Counts are exact where the model's configuration is known. Times are estimates: the seconds per
token of one decoder layer of this shape, measured here and now, times layers times tokens. The
model's head, loading, and whatever is done between passes are left out.
"""

import copy
import time
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from lib.book.memory import memory
from lib.book.workload import Planned, Sizes, asked_passes, parts, trained_passes, training_tokens
from lib.errors import UserError
from lib.evaluation import harness
from lib.experiments.conditions import prompted
from lib.experiments.opened import OpenStudy
from lib.models import checkpoints
from lib.models.shapes import planned_config, shape_of
from lib.pruning.dropped import simple
from lib.pruning.surgery import slice_config
from lib.schema import Study, Task
from lib.study import prompt_tasks
from lib.words import spoken

# Questions, and tokens of one with its answers, of tasks whose data may not be at hand: their
# published test (or validation) sets, at four characters a token.
KNOWN = {"mmlu": (14_042, 117), "boolq": (3_270, 160)}
UNKNOWN = "not known without its data"
PROMPTS = "other prompts, unhealed, in one pass"
TRIAL = 2e11  # floating-point operations of one timed pass


@dataclass(frozen=True)
class Speed:
    """Seconds that one layer takes per token, forward alone and with the backward pass to what
    entered it."""

    forward: float
    training: float


def measured_speed(config: PretrainedConfig, study: Study, per_layer: int) -> Speed:
    """Timed on one layer of this shape with made-up weights, on the study's device.

    Raises UserError where it does not fit into memory."""
    device, dtype = checkpoints.device(study), checkpoints.dtype(study)
    one = copy.deepcopy(config)
    slice_config(one, [0])
    text = one.get_text_config()
    text.vocab_size, text.pad_token_id = 256, 0
    try:
        model = AutoModelForCausalLM.from_config(one, dtype=dtype, trust_remote_code=False)
    except (RuntimeError, MemoryError) as error:
        raise UserError(f"one layer of this model does not fit here: {error}") from None
    decoder = model.to(device).get_decoder().requires_grad_(False)
    length = int(min(512, max(16, TRIAL / (2 * per_layer))))
    inputs = torch.randn(1, length, text.hidden_size, device=device, dtype=dtype)

    def timed(training: bool) -> float:
        entering = inputs.clone().requires_grad_(training)
        start = time.perf_counter()
        with torch.set_grad_enabled(training):
            output = decoder(inputs_embeds=entering, use_cache=False).last_hidden_state
            if training:
                output.sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / length

    found = {}
    for training in (False, True):
        timed(training)  # the first one sets things up
        found[training] = min(timed(training) for _ in range(3))
    return Speed(found[False], found[True])


def task_size(study: Study, task: Task) -> tuple[int, int, str]:
    """Number of questions, about how many tokens their prompts have with all examples (shared ones
    are run once), and where the number is from."""
    if task.name in harness.local_tasks(study):
        manager = harness.task_manager(study)
        found = harness.load(manager, task.name)["tasks"].values()
        counts = [min(len(one.eval_docs), task.limit or len(one.eval_docs)) for one in found]
        texts = [one.doc_to_text(next(iter(one.eval_docs))) for one in found]
        sizes = [len(str(text)) // 4 + 8 for text in texts]
        tokens = sum(c * s for c, s in zip(counts, sizes, strict=True))
        return sum(counts), tokens * (task.shots + 1), "counted"
    if task.name not in KNOWN:
        return 0, 0, UNKNOWN
    questions, tokens = KNOWN[task.name]
    if task.limit:
        questions = min(questions, task.limit * (57 if task.name == "mmlu" else 1))
    return questions, questions * tokens * (task.shots + 1), "as published"


@dataclass(frozen=True)
class Work:
    """One kind of measurement: how many models it makes, how many tokens each of them sees at
    most, how often a layer sees a token, and seconds."""

    what: str
    models: int
    tokens: int
    layer_tokens: int
    seconds: float


def sizes(study: Study) -> tuple[Sizes, bool]:
    """Tokens that a model is asked; and whether the size of a task is not known."""
    prompts: list[Task] = []
    for tasks in prompt_tasks(study).values():
        prompts += [task for task in tasks if task not in [*study.tasks, *prompts]]
    own = [task_size(study, task) for task in study.tasks]
    asked = sum(tokens for _, tokens, _ in own) + study.loss.n_sequences * study.loss.length
    more = sum(task_size(study, task)[1] for task in prompts)
    return Sizes(asked, more), any(source == UNKNOWN for _, _, source in own)


def distances_passes(opened: OpenStudy) -> tuple[int, int]:
    """Texts that distances are measured on, the untrained twin's one among them; and how often a
    layer sees a token of one."""
    study = opened.study
    texts = 1 + study.controls.untrained + len(study.other_texts)
    return texts, study.distances.n_sequences * study.distances.length * opened.n_layers


def work(opened: OpenStudy, speed: Speed, asked: Sizes) -> list[Work]:
    """Everything that the sections measure, in their order, but times and what is written."""
    found: dict[str, Work] = {}

    def add(what: str, models: int, tokens: int, passes: int, pace: float) -> None:
        if passes:
            before = found.get(what, Work(what, 0, tokens, 0, 0.0))
            found[what] = Work(
                what,
                before.models + models,
                tokens,
                before.layer_tokens + passes,
                before.seconds + passes * pace,
            )

    texts, passes = distances_passes(opened)
    add("distances", texts, passes // opened.n_layers, texts * passes, speed.forward)
    for part in parts(opened).values():
        models, tokens = len(part.conditions), training_tokens(part)
        questions, prompts = asked_passes(opened, part, asked)
        trained, taught = trained_passes(opened, part)
        if not part.healed:
            also = sum(prompted(opened, one) for one in part.conditions)
            add(part.what, models, asked.asked, questions, speed.forward)
            add(PROMPTS, also, asked.prompts, prompts, speed.forward)
            continue
        # A line each, below the one of their healing.
        add(part.what, models, tokens, trained, speed.training)
        add(f"{part.what}: its teacher", models, tokens, taught, speed.forward)
        add(f"{part.what}: questions and loss", models, asked.asked, questions, speed.forward)
        add(f"{part.what}: other prompts", models, asked.prompts, prompts, speed.forward)
    return list(found.values())


def plan(study: Study) -> str:
    """All of it, as text."""
    config, own = planned_config(study)
    shape = shape_of(config, study.healing.ffn)
    speed = measured_speed(config, study, max(shape.by_layer))
    opened = Planned(study, config)
    asked, unknown = sizes(study)
    todo = work(opened, speed, asked)
    lines = [
        f"study {study.name}: {study.model}",
        "shape: "
        + ("the checkpoint's own" if own else "as the study says; the checkpoint is not at hand"),
        f"parameters: {shape.total:,}, of which {sum(shape.by_layer):,} in {shape.n_layers} layers",
        f"download: about {2 * shape.total / 1e9:.1f} GB in 16 bits",
    ]
    for n in opened.healed_ns(study.healing.fractions):
        dropped = simple(n, shape.n_layers)
        lines.append(
            f"  less {n} layers ({n / shape.n_layers:.0%}): {shape.pruned(dropped):,}; healing "
            f"trains {shape.trainable(study.healing.rank, dropped):,}"
        )
    for task in study.tasks:
        questions, tokens, source = task_size(study, task)
        size = f"{questions:,} questions ({source}), about {tokens:,} tokens"
        lines.append(
            f"task {task.name}, {task.shots}-shot: {source if source == UNKNOWN else size}"
        )
    device = checkpoints.device(study)
    per_token = 2 * sum(shape.by_layer) / shape.n_layers
    lines += [
        f"ESTIMATES, from one layer timed here on {device}: {1 / speed.forward:,.0f} tokens/s "
        f"forward ({per_token / speed.forward / 1e9:,.0f} GFLOP/s), "
        f"{1 / speed.training:,.0f} tokens/s forward and back",
        f"  {'':58} {'models':>6} {'tokens each':>14} {'time':>10}",
    ]
    for one in todo:
        lines.append(f"  {one.what:58} {one.models:6} {one.tokens:14,} {spoken(one.seconds):>10}")
    total = sum(one.seconds for one in todo)
    whole = "all but tasks of unknown size" if unknown else "all"
    lines.append(f"  {whole:58} {'':6} {'':14} {spoken(total):>10}")
    needs = memory(study, shape)
    lines += [f"  memory {what}: {size / 1e9:.1f} GB" for what, size in needs.items()]
    return "\n".join(lines)
