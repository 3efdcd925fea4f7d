"""What a study would take on GPUs, estimated from its model's shape alone.

Operations are counted as in the plan (`lib.plan`): two for each weight of a layer and token that it
sees, and three times as many with the backward pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from lib import jobs, measure, schedule
from lib.memory import memory
from lib.plan import UNKNOWN, distances_passes, task_size
from lib.rates import BACK
from lib.schema import Loss, Study, Task
from lib.shapes import Shape, shape_of
from lib.spent import config_at_hand
from lib.training import SAVE_EVERY
from lib.workload import Part, Planned, Sizes, asked_passes, parts, trained_passes

Grain = Literal["models", "measurements"]
STARTING, READING = 20.0, 1e9  # seconds until a process loads its model; bytes per second of that


@dataclass(frozen=True)
class Piece:
    """A job: its operations and the seconds that no shape says, what it waits for, and whether it
    holds the unpruned model in 16 bits."""

    name: str
    flops: float = 0.0
    seconds: float = 0.0
    needs: tuple[str, ...] = ()
    whole: bool = False


class Estimate:
    """A study, as it would run on GPUs. Raises UserError where its model's shape is not known."""

    def __init__(self, study: Study) -> None:
        dtype = "bfloat16" if study.dtype == "auto" else study.dtype
        # Nothing is asked of this machine's device.
        self.study = study.model_copy(update={"device": "cpu", "dtype": dtype})
        self.bench = Planned(self.study, config_at_hand(study))
        self._sizes: dict[tuple[str, int, int | None], tuple[int, int]] = {}
        self.unknown: set[str] = set()  # tasks that are counted as nothing

    @cached_property
    def shape(self) -> Shape:
        return shape_of(self.bench.config, self.study.healing.targets)

    @cached_property
    def parts(self) -> dict[str, Part]:
        return parts(self.bench)

    @cached_property
    def _jobs(self) -> list[jobs.Job]:
        return jobs.by_model(self.bench)

    @property
    def download(self) -> int:
        """Bytes of the checkpoint in 16 bits; 0 for one that is a folder here."""
        return 0 if self.study.model_is_local else 2 * self.shape.total

    @property
    def start(self) -> float:
        """Seconds until a process has its model."""
        return STARTING + 2 * self.shape.total / READING

    @cached_property
    def memory(self) -> dict[str, float]:
        """Bytes on a GPU at most, of a job on the whole model and of one that heals. What was
        healed in 4-bit is evaluated as it is there, which takes less than healing it."""
        found = memory(self.study, self.shape)
        after = 0.0 if self.study.healing.recipe == "qlora" else found["healed"]
        return {"unhealed": found["unhealed"], "healing": max(found["healing"], after)}

    def holds(self, piece: Piece) -> float:
        """Bytes that a job needs on a GPU."""
        return self.memory["unhealed" if piece.whole else "healing"]

    def size(self, task: Task) -> tuple[int, int]:
        """Questions of a task, and the tokens of their prompts."""
        key = (task.name, task.shots, task.limit)
        if key not in self._sizes:
            questions, tokens, source = task_size(self.study, task)
            self._sizes[key] = questions, tokens
            if source == UNKNOWN:
                self.unknown.add(task.name)
        return self._sizes[key]

    @cached_property
    def models(self) -> list[Piece]:
        """Jobs of grain `models`, named as `lib.jobs` names them."""
        return list(self._pieces("models"))

    @cached_property
    def measurements(self) -> list[Piece]:
        """Jobs of grain `measurements`."""
        found = list(self._pieces("measurements"))
        unhealed = tuple(
            one.name for one in found if one.name.startswith("unhealed-") and one.whole
        )
        return [
            Piece(one.name, seconds=one.seconds, needs=unhealed, whole=True)
            if one.needs == ("unhealed",)
            else one
            for one in found
        ]

    def _pieces(self, grain: Grain) -> Iterator[Piece]:
        each = 2 * max(self.shape.by_layer)
        fixed = {"cost": jobs.COST, "question-free": jobs.FREE}
        for job in self._jobs:
            part = self.parts.get(job.name)
            if part is None:
                flops = 0.0 if job.name in fixed else each * distances_passes(self.bench)[1]
                yield Piece(job.name, flops, fixed.get(job.name, 0.0), job.needs, whole=True)
                continue
            trained, taught = trained_passes(self.bench, part)
            healing = each * (BACK * trained + taught)
            asking = [each * passes for passes in self._asked(part)]
            whole = job.name == "unhealed"
            full = part.healed and self.study.healing.recipe == "full"
            if grain == "models" or full:
                yield Piece(job.name, healing + sum(asking), 0.0, job.needs, whole)
                continue
            needs = job.needs
            if part.healed:
                yield Piece(f"{job.name}-healing", healing, 0.0, needs)
                needs = (f"{job.name}-healing",)
            for i, flops in enumerate(asking):
                yield Piece(f"{job.name}-{i}", flops, 0.0, needs, whole)

    def _asked(self, part: Part) -> list[int]:
        """How often a layer sees a token, of each thing that a part's models are asked; what they
        write is not counted."""
        all_of, prompted = asked_passes(self.bench, part, Sizes(1, 1))
        found = []
        for probe in jobs.probes(self.bench, part):
            if isinstance(probe, Loss):
                found.append(probe.n_sequences * probe.length * all_of)
            elif isinstance(probe, Task):
                passes = all_of if probe in self.study.tasks else prompted
                found.append(self.size(probe)[1] * passes)
            else:
                found.append(0)
        return found

    def scheduled(self, pieces: list[Piece], flops: float, first: int = 0) -> list[schedule.Job]:
        """As jobs to simulate, on GPUs of so many operations a second; first: the position of the
        first of them."""
        at = {piece.name: first + i for i, piece in enumerate(pieces)}
        return [
            schedule.Job(
                f"{piece.name} of {self.study.title}",
                piece.flops / flops + piece.seconds,
                tuple(at[name] for name in piece.needs),
                start=self.start,
                saved=SAVE_EVERY,
            )
            for piece in pieces
        ]

    def records(self) -> Iterator[tuple[str, int]]:
        """The kind of each measurement, and how many of what makes it long: questions, or rows of
        the table of distances."""
        n = self.shape.n_layers
        for _ in range(distances_passes(self.bench)[0]):
            yield "distances", n * (n + 1) // 2 - 1
        for part in self.parts.values():
            for one in part.conditions:
                for probe in measure.probes(self.bench, one):
                    kind = measure.kind_and_name(one, probe)[0]
                    yield kind, self.size(probe)[0] if isinstance(probe, Task) else 0
            if part.healed:
                yield "healing", 0

    def adapters(self) -> list[int]:
        """Bytes of the adapters of each healed model, in float32."""
        if self.study.healing.recipe == "full":
            return []
        healed = [part.conditions[0] for part in self.parts.values() if part.healed]
        return [4 * self.shape.trainable(one.healing.rank, one.block) for one in healed]
