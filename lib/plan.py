"""What a study will measure and what that takes, worked out from the model's shape alone.

    python -m lib.run book --study llama-2-70b --plan

Counts are exact where the model's configuration is known. Times are estimates: the seconds per
token of one decoder layer of this shape, measured here and now, times layers times tokens. The
model's head, loading, and whatever is done between passes are left out.
"""

import copy
import time
from collections.abc import Collection
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from lib import harness, models
from lib.blocks import STRATEGIES, Block, layers_to_drop, simple
from lib.errors import UserError
from lib.memory import memory
from lib.schema import Study, Task
from lib.shapes import Shape, planned_config, shape_of
from lib.study import prompt_tasks
from lib.surgery import slice_config
from lib.sweep import layer_passes

# Questions, and tokens of one with its answers, of tasks whose data may not be at hand: their
# published test (or validation) sets, at four characters a token.
KNOWN = {"mmlu": (14_042, 117), "boolq": (3_270, 160)}
UNKNOWN = "not known without its data"
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
    device, dtype = models.device(study), models.dtype(study)
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


def blocks(n_layers: int, ns: Collection[int]) -> list[Block]:
    """The unpruned model and both strategies' blocks. Where the similar ones start is not known
    before they are measured: the middle stands for that."""
    found = [Block(0, 0)]
    for n in ns:
        middle = (n_layers - n) // 2
        found += [simple(n, n_layers), Block(middle, middle + n)]
    return found


def work(study: Study, shape: Shape, speed: Speed, questions: int, prompts: int = 0) -> list[Work]:
    """Everything that the sections measure, in their order, but times and what is written.

    questions: tokens of all tasks; prompts: of the task that is asked with other prompts, all
    together."""
    n_layers, healing, teacher = shape.n_layers, study.healing, study.teacher
    asked = questions + study.loss.n_sequences * study.loss.length
    text = study.distances.n_sequences * study.distances.length
    row = healing.batch * healing.length
    found = []

    def add(what: str, models: int, tokens: int, passes: float, pace: float) -> None:
        layer_tokens = round(tokens * passes)
        found.append(Work(what, models, tokens, layer_tokens, layer_tokens * pace))

    def heal(what: str, kept: list[int], steps: int, passes: float = 0) -> None:
        """Training of models with so many layers, and what they are asked; passes: of a teacher,
        forward through so many layers."""
        add(what, len(kept), steps * row, sum(kept), speed.training)
        if passes:
            add("its teacher", len(kept), steps * row, passes, speed.forward)
        add("questions and loss of these", len(kept), asked, sum(kept), speed.forward)

    twins = 2 if study.controls.untrained else 1
    texts = twins + len(study.other_texts)
    add("distances", texts, text, texts * n_layers, speed.forward)
    every = blocks(n_layers, study.pruned_layers or range(1, n_layers))
    passes = layer_passes(block.kept(n_layers) for block in every)
    add("questions and loss, unhealed, in one pass", len(every), asked, passes, speed.forward)
    similar = [every[0], *every[2::2]]
    passes = layer_passes(block.kept(n_layers) for block in similar)
    add("other prompts, unhealed, in one pass", len(similar), prompts, passes, speed.forward)
    ns = _ns(healing.fractions, n_layers)
    if healing.recipe == "qlora":
        controls = blocks(n_layers, ns)
        passes = layer_passes(block.kept(n_layers) for block in controls)
        add("questions and loss in 4-bit, unhealed", len(controls), asked, passes, speed.forward)
    # The unpruned model is the same for both strategies.
    both = [n_layers - n for n in [0, *ns] for _ in (STRATEGIES if n else STRATEGIES[:1])]
    heal(f"healing, {healing.name}", both, healing.steps)
    one = [n_layers - n for n in [0, *ns]]
    add("other prompts of these", len(one), prompts, sum(one), speed.forward)
    ranks = {*study.lora_rank.ranks} - {healing.rank}
    if healing.recipe != "full" and ranks:
        sizes = _ns(study.lora_rank.fractions, n_layers)
        more = [n for n in sizes if n not in ns]  # that the study's own rank has not been healed at
        kept = [n_layers - n for n in sizes * len(ranks) + more for _ in STRATEGIES]
        heal(f"healing at {len(ranks)} other ranks", kept, healing.steps)
    seeds = {*study.healing_seeds.seeds} - {healing.seed}
    wanted = {
        (seed, n)
        for seed in ({*seeds, healing.seed} if seeds else ())
        for n in _ns(study.healing_seeds.fractions, n_layers)
    }
    if healing.recipe != "full":  # what a teacher is compared with
        taught = [(seed, n) for seed in teacher.seeds for n in _ns(teacher.fractions, n_layers)]
        wanted |= {*taught}
    kept = [n_layers - n for seed, n in sorted(wanted) if seed != healing.seed or n not in ns]
    if kept:
        heal("healing, other seeds or fractions", kept, healing.steps)
    if teacher.seeds and healing.recipe != "full":
        ns = _ns(teacher.fractions, n_layers)
        kept = [n_layers - n for n in ns] * len(teacher.seeds)
        # A block in the middle ends so many layers in. At equal time plain healing has more steps.
        ends = [(n_layers - n) // 2 + n for n in ns] * len(teacher.seeds)
        heal("healing with a teacher", kept, healing.steps, sum(ends))
        factor = 1 + sum(ends) / (2 * sum(kept))
        heal("plain healing as long as that", kept, round(healing.steps * factor))
    return found


def _ns(fractions: Collection[float], n_layers: int) -> list[int]:
    return sorted({layers_to_drop(fraction, n_layers) for fraction in fractions} - {0})


def plan(study: Study) -> str:
    """All of it, as text."""
    config, own = planned_config(study)
    shape = shape_of(config, study.healing.targets)
    speed = measured_speed(config, study, max(shape.by_layer))
    sizes = [task_size(study, task) for task in study.tasks]
    prompts: list[Task] = []
    for tasks in prompt_tasks(study).values():
        prompts += [task for task in tasks if task not in [*study.tasks, *prompts]]
    asked = [sum(task_size(study, task)[1] for task in tasks) for tasks in (study.tasks, prompts)]
    todo = work(study, shape, speed, *asked)
    lines = [
        f"study {study.name}: {study.model}",
        "shape: "
        + ("the checkpoint's own" if own else "as the study says; the checkpoint is not at hand"),
        f"parameters: {shape.total:,}, of which {sum(shape.by_layer):,} in {shape.n_layers} layers",
        f"download: about {2 * shape.total / 1e9:.1f} GB in 16 bits",
    ]
    for n in _ns(study.healing.fractions, shape.n_layers):
        dropped = simple(n, shape.n_layers)
        lines.append(
            f"  less {n} layers ({n / shape.n_layers:.0%}): {shape.pruned(dropped):,}; healing "
            f"trains {shape.trainable(study.healing.rank, dropped):,}"
        )
    for task, (questions, tokens, source) in zip(study.tasks, sizes, strict=True):
        size = f"{questions:,} questions ({source}), about {tokens:,} tokens"
        lines.append(
            f"task {task.name}, {task.shots}-shot: {source if source == UNKNOWN else size}"
        )
    device = models.device(study)
    per_token = 2 * sum(shape.by_layer) / shape.n_layers
    lines += [
        f"ESTIMATES, from one layer timed here on {device}: {1 / speed.forward:,.0f} tokens/s "
        f"forward ({per_token / speed.forward / 1e9:,.0f} GFLOP/s), "
        f"{1 / speed.training:,.0f} tokens/s forward and back",
        f"  {'':44} {'models':>6} {'tokens each':>14} {'time':>10}",
    ]
    for one in todo:
        lines.append(f"  {one.what:44} {one.models:6} {one.tokens:14,} {_spoken(one.seconds):>10}")
    total = sum(one.seconds for one in todo)
    unknown = any(source == UNKNOWN for _, _, source in sizes)
    whole = "all but tasks of unknown size" if unknown else "all"
    lines.append(f"  {whole:44} {'':6} {'':14} {_spoken(total):>10}")
    needs = memory(study, shape)
    lines += [f"  memory {what}: {size / 1e9:.1f} GB" for what, size in needs.items()]
    return "\n".join(lines)


def _spoken(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"
