"""What a study measures, known before anything is measured, and what that takes: worked out from
the model's shape alone.

    python -m lib.run book --study llama-2-70b --plan

Counts are exact where the model's configuration is known. Times are estimates: the seconds per
token of one decoder layer of this shape, measured here and now, times layers times tokens. A layer
too large to be made for that is taken to be as fast as a plain product of matrices. The head counts
as so many layers, by its size. Attention between far tokens, loading, and whatever is done between
passes are left out.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from transformers import PretrainedConfig

from lib.book import timing
from lib.book.memory import memory
from lib.book.question_sizes import UNKNOWN, Size, size_of
from lib.evaluation import harness, whole_texts
from lib.evaluation.sweep import layer_passes
from lib.evidence.records import digest
from lib.experiments import probes
from lib.experiments.choosing import Sample
from lib.experiments.conditions import Condition
from lib.experiments.costs import multiplied
from lib.experiments.opened import OpenStudy
from lib.healing import recipe as recipes
from lib.healing.recipe import Passes
from lib.models import checkpoints
from lib.models.anatomy import skeleton
from lib.models.four_bit import runs_in_4bit
from lib.models.shapes import Shape, planned_config, shape_of
from lib.models.trial import trial
from lib.pruning.dropped import Dropped, span
from lib.schema import Loss, Perplexity, Study, Task
from lib.sections import section
from lib.words import spoken

UNHEALED = "unhealed"  # the part with which everything is compared
LARGE = 2.5e8  # parameters of a layer that is not made to be timed: 1 GB in float32
BACK = 3  # forward passes that one forward and back counts for, where it is not timed


class Planned(OpenStudy):
    """A study whose model need not be at hand. What a strategy chooses by its scores is not known
    before they are measured: a block in the middle stands for that."""

    planned = True

    def __init__(self, study: Study, config: PretrainedConfig) -> None:
        super().__init__(study)
        self.config = config
        self._sizes: dict[tuple, Size] = {}

    def chosen(self, strategy: str, n: int, draw: int = 0, sample: Sample | None = None) -> Dropped:
        one = self.strategy(strategy)
        if one.by_chance:
            return one.drawn(n, self.n_layers)[draw]
        if sample is not None:  # each may choose others
            start = (sample.skip + sample.calibration.n_sequences) % (self.n_layers - n + 1)
            return span(start, start + n)
        return one.expected(n, self.n_layers)

    def size(self, task: Task) -> Size:
        key = (task.name, task.shots, task.limit)
        if key not in self._sizes:
            self._sizes[key] = size_of(self.study, task)
        return self._sizes[key]

    def tokens(self, probe: probes.Probe) -> tuple[int, int]:
        """That a model reads to answer, and of which its head is asked; what it writes is not
        counted."""
        if isinstance(probe, Perplexity):
            probe = whole_texts.as_task(probe)
        if isinstance(probe, Task):
            return self.size(probe).read, self.size(probe).scored
        loss = probe.sample if isinstance(probe, probes.OtherLoss) else probe
        return (loss.n_sequences * loss.length,) * 2 if isinstance(loss, Loss) else (0, 0)

    @cached_property
    def head(self) -> float:
        """As `Shape.head_in_layers`."""
        return shape_of(self.config).head_in_layers

    @property
    def unknown(self) -> bool:
        """Whether the size of one of the study's tasks is not known; it is counted as nothing."""
        texts = map(whole_texts.as_task, self.study.perplexity)
        return any(self.size(task).source == UNKNOWN for task in (*self.study.every_task, *texts))


@dataclass(frozen=True)
class Part:
    """What is measured together: one healed model with all that is asked of it, or all unhealed
    prunings in one number format, which share one pass. sections: those that evaluate it, the
    first one first."""

    name: str
    conditions: tuple[Condition, ...]
    sections: tuple[str, ...]

    @property
    def healed(self) -> bool:
        return self.conditions[0].alone

    @property
    def what(self) -> str:
        """For people."""
        if not self.healed:
            return f"all prunings{', in 4-bit' if self.name != UNHEALED else ''}, unhealed"
        one = self.conditions[0]
        layers = f"{one.strategy}, {one.dropped.n} layers dropped" if one.dropped else "unpruned"
        group = self.name.removeprefix(_named(one)).strip("-")
        steps = f"in {len(one.before) + 1} steps" if one.before else ""
        seed = f"seed {one.healing.seed}" if one.healing else ""
        repaired = f"repaired: {one.repair}" if one.repair else ""
        how = one.recipe if one.healing or not repaired else ""
        return ", ".join(filter(None, (layers, steps, repaired, how, seed, group)))


def _named(condition: Condition) -> str:
    strategy = re.sub(r"[^a-z0-9]+", "-", condition.strategy)
    which = f"{strategy}-{condition.dropped.n}" if condition.dropped else "unpruned"
    # Schedules may differ in what comes before the last step alone.
    before = [[one.dropped.n, repr(one.healing)] for one in condition.before]
    steps = f"-after-{digest(before, 6)}" if before else ""
    seed = f"-seed{condition.healing.seed}" if condition.healing else ""
    repaired = f"-repaired-{condition.repair}" if condition.repair else ""
    return f"{which}{steps}-{condition.recipe}{seed}{repaired}"


def part_name(opened: OpenStudy, condition: Condition, group: str) -> str:
    """Names a part by what is known on any machine beforehand: so neither by which layers are
    chosen nor by the number format, which depends on the device."""
    if not condition.alone:
        return UNHEALED if condition.weights == opened.weights else f"{UNHEALED}-4bit"
    return f"{_named(condition)}-{group}" if group else _named(condition)


def _own_name(part: str, condition: Condition, trained: dict[str, str]) -> str:
    """Recipes of one name may differ in what the name does not say, such as the learning rate: the
    second one's settings are part of its name."""
    if condition.healing is None:
        return part
    healing = condition.healing
    settings = digest([recipes.of(healing).inputs(healing), healing.data])
    same = trained.setdefault(part, settings) == settings
    return part if same else f"{part}-{digest(settings, 6)}"


def sections() -> list[str]:
    """In the order in which they come to own what they need: pages without a number, such as the
    opening one, show what others have measured."""
    found = section.notebooks()
    return sorted(found, key=lambda name: found[name].stem == name)


def parts(opened: OpenStudy) -> dict[str, Part]:
    """All parts by name, each once, in the order of the sections that need them first."""
    found: dict[str, Part] = {}
    trained: dict[str, str] = {}  # what is trained under a name
    for name in sections():
        groups = section.load(name).conditions(opened)
        named = [
            (_own_name(part_name(opened, one, group), one, trained), one)
            for group, conditions in groups.items()
            for one in conditions
        ]
        for part, one in named:
            before = found.get(part, Part(part, (), ()))
            # A healed model is its own, even where two sections spell it differently.
            new = not before.conditions or (not before.healed and one not in before.conditions)
            conditions = (*before.conditions, one) if new else before.conditions
            found[part] = replace(before, conditions=conditions)
        for part in {part for part, _ in named} | ({UNHEALED} & found.keys() if named else set()):
            found[part] = replace(found[part], sections=(*found[part].sections, name))
    return found


Extras = dict[str, tuple[section.Extra, str]]


def extras(opened: OpenStudy) -> Extras:
    """What is measured beside the parts, by name, with the first section that needs it."""
    found: Extras = {}
    for name in sections():
        for extra in section.load(name).extras(opened):
            found.setdefault(extra.name, (extra, name))
    return found


def training_passes(opened: Planned, part: Part) -> Passes:
    """Of a layer over a token, all that healing takes, or a repair; of a pruning in steps, in all
    steps."""
    one, gone, forward, back = part.conditions[0], set(), 0.0, 0.0
    if one.repair and (text := opened.study.calibration):
        forward += text.n_sequences * text.length * opened.n_layers
    for step in (*one.before, one):
        gone |= {*step.dropped}
        if (healing := step.healing) is None:
            continue
        tokens = healing.steps * healing.batch * healing.length
        found = recipes.of(healing).passes(healing, gone, opened.n_layers, opened.head)
        forward += tokens * found.forward
        back += tokens * found.back
    return Passes(forward, back)


def asked_passes(opened: Planned, part: Part) -> float:
    """How often a layer sees a token of what the models of a part are asked; the head counts as so
    many layers."""
    asked = [probes.probes(opened, one) for one in part.conditions]
    kept = [one.dropped.kept(opened.n_layers) for one in part.conditions]
    passes: dict[tuple[int, ...], int] = {}  # by the models that are asked together
    total, seen = 0.0, []
    for probe in (probe for of_one in asked for probe in of_one):
        if probe in seen:
            continue
        seen.append(probe)
        models = tuple(i for i, of_one in enumerate(asked) if probe in of_one)
        if models not in passes:
            passes[models] = layer_passes([kept[i] for i in models])
        read, scored = opened.tokens(probe)
        total += read * passes[models] + scored * opened.head * len(models)
    return total


class Speed(NamedTuple):
    """Seconds that one layer takes per token, forward alone and with the backward pass to what
    entered it; and forward where healed weights are written out in float32, if the study's numbers
    are others."""

    forward: float
    training: float
    written: float | None = None

    def healing(self, opened: Planned, part: Part) -> float:
        """Seconds, estimated."""
        forward, back = training_passes(opened, part)
        return forward * self.forward + back * (self.training - self.forward)

    def asking(self, opened: Planned, part: Part) -> float:
        healing = part.conditions[0].healing
        written = healing and not (recipes.of(healing).needs_4bit and runs_in_4bit(opened.study))
        pace = self.written if written and self.written is not None else self.forward
        return asked_passes(opened, part) * pace

    def extra(self, opened: Planned, extra: section.Extra) -> float:
        taken = sum(self.healing(opened, Part(extra.name, (one,), ())) for one in extra.trains)
        taken += sum(self.asking(opened, Part(extra.name, (one,), ())) for one in extra.asks)
        return taken + extra.seconds + extra.tokens * opened.n_layers * self.forward


def speed(study: Study, shape: Shape, flops: float | None = None) -> Speed:
    """Of one layer of the model: as so many operations per second allow, or timed here."""
    if flops is not None:
        operations = 2 * max(shape.by_layer)
        return Speed(operations / flops, BACK * operations / flops)
    found = timed_speed(study, shape)
    if study.healing is None or checkpoints.dtype(study) == torch.float32:
        return found
    written = study.model_copy(update={"dtype": "float32"})
    return found._replace(written=timed_speed(written, shape).forward)


def timed_speed(study: Study, shape: Shape) -> Speed:
    """In the study's number format."""
    if not is_large(shape):
        return measured_speed(shape.config, study, max(shape.by_layer))
    one = skeleton(timing.one_layer(shape.config))
    # Of experts as many as a token is sent to; the head is left out.
    operations = 2 * (multiplied(one) - one.get_output_embeddings().weight.numel())
    flops = timing.flops(study)
    return Speed(operations / flops, BACK * operations / flops)


def is_large(shape: Shape) -> bool:
    return max(shape.by_layer) > LARGE


def measured_speed(config: PretrainedConfig, study: Study, per_layer: int) -> Speed:
    """Timed on one layer of this shape. Raises UserError where it does not fit into memory."""
    return Speed(*timing.of_layer(config, study, per_layer))


def rows(opened: Planned, pace: Speed) -> dict[str, tuple[int, float]]:
    """What the sections measure, in their order: how many models, and seconds."""
    found = {
        extra.what: (len(extra.trains) or 1, pace.extra(opened, extra))
        for extra, _ in extras(opened).values()
    }
    for part in parts(opened).values():
        one = part.conditions[0]
        unhealed = one.repair and one.healing is None
        done = ("repaired", "repair") if unhealed else ("healed", "healing")
        own = f"section {part.sections[0]}, {done[0]}" if part.healed else part.what
        work = {f"{own}: questions and loss": pace.asking(opened, part)}
        if part.healed:
            work = {f"{own}: {done[1]}": pace.healing(opened, part)} | work
        for what, seconds in work.items():
            models, before = found.get(what, (0, 0.0))
            found[what] = models + len(part.conditions), before + seconds
    return found


def plan(study: Study) -> str:
    """All of it, as text."""
    if study.model_is_local:
        checkpoints.check_config(study)
    config, own = planned_config(study)
    trial(f"study {study.name}: shape", lambda: shape_of(config, study.adapted))
    shape = shape_of(config, study.adapted)
    harness.try_local_tasks(study)
    pace = speed(study, shape)
    opened = Planned(study, config)
    todo = rows(opened, pace)
    lines = [
        f"study {study.name}: {study.model}",
        "shape: "
        + ("the checkpoint's own" if own else "as the study says; the checkpoint is not at hand"),
        f"parameters: {shape.total:,}, of which {sum(shape.by_layer):,} in {shape.n_layers} layers",
        f"download: about {2 * shape.total / 1e9:.1f} GB in 16 bits",
    ]
    for n in opened.healed_ns(study.fractions) if study.healing else []:
        dropped = span(shape.n_layers - n, shape.n_layers)
        recipe = recipes.of(study.healing)
        trained = recipe.trainable(shape, study.healing, dropped)
        added = recipe.added(shape, study.healing)
        lines.append(
            f"  less {n} layers ({n / shape.n_layers:.0%}): {shape.pruned(dropped):,}; healing "
            f"trains {trained:,}" + (f" and adds {added:,} for a head of its own" if added else "")
        )
    for task in (*study.every_task, *map(whole_texts.as_task, study.perplexity)):
        size = opened.size(task)
        words = f"{size.questions:,} questions ({size.source}), about {size.read:,} tokens"
        lines.append(
            f"task {task.name}, {task.shots}-shot: {UNKNOWN if size.source == UNKNOWN else words}"
        )
    timed = "a product of matrices" if is_large(shape) else "one layer"
    per_token = 2 * sum(shape.by_layer) / shape.n_layers
    written = ""
    if pace.written is not None:
        written = f", {1 / pace.written:,.0f} in float32"
    lines += [
        f"ESTIMATES, from {timed} timed here on {checkpoints.device(study)}: "
        f"{1 / pace.forward:,.0f} tokens/s forward ({per_token / pace.forward / 1e9:,.0f} "
        f"GFLOP/s), {1 / pace.training:,.0f} tokens/s forward and back{written}",
        f"  {'':58} {'models':>6} {'time':>10}",
    ]
    for what, (models, seconds) in todo.items():
        lines.append(f"  {what:58} {models:6} {spoken(seconds):>10}")
    total = sum(seconds for _, seconds in todo.values())
    whole = "all but tasks of unknown size" if opened.unknown else "all"
    lines.append(f"  {whole:58} {'':6} {spoken(total):>10}")
    lines += [
        f"  memory {what}: {size / 1e9:.1f} GB" for what, size in memory(study, shape).items()
    ]
    return "\n".join(lines)
