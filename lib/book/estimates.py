"""What a study would take on GPUs, estimated from its model's shape alone.

Operations are counted as in the plan (`lib.book.plan`): two for each weight of a layer and token
that it sees, and three times as many with the backward pass.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from lib.book import jobs, schedule
from lib.book.memory import memory
from lib.book.plan import UNKNOWN, distances_passes, task_size
from lib.book.rates import BACK
from lib.book.spent import config_at_hand
from lib.book.workload import Part, Planned, Sizes, asked_passes, parts, trained_passes
from lib.experiments import measure
from lib.healing.training import SAVE_EVERY
from lib.models.shapes import Shape, shape_of
from lib.schema import Loss, Study, Task

FIXED = {"cost": jobs.COST, "question-free": jobs.FREE}  # seconds, of any model
STARTING, READING = 20.0, 1e9  # seconds until a process loads its model; bytes per second of that


@dataclass(frozen=True)
class Piece:
    """A job: its operations and the seconds that no shape says, what it waits for, whether it holds
    the unpruned model in 16 bits, and seconds of work between two saved states."""

    name: str
    flops: float
    seconds: float
    needs: tuple[str, ...]
    whole: bool
    saved: float = SAVE_EVERY


class Estimate:
    """A study, as it would run on GPUs. Raises UserError where its model's shape is not known."""

    def __init__(self, study: Study) -> None:
        dtype = "bfloat16" if study.dtype == "auto" else study.dtype
        # Nothing is asked of this machine's device.
        self.study = study.model_copy(update={"device": "cpu", "dtype": dtype})
        self.opened = Planned(self.study, config_at_hand(study))
        self._sizes: dict[tuple[str, int, int | None], tuple[int, int]] = {}
        self.unknown: set[str] = set()  # tasks that are counted as nothing

    @cached_property
    def shape(self) -> Shape:
        return shape_of(self.opened.config, self.study.healing.ffn)

    @cached_property
    def parts(self) -> dict[str, Part]:
        return parts(self.opened)

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
        """Jobs of grain `models`."""
        return [self._piece(job) for job in jobs.by_model(self.opened)]

    @cached_property
    def measurements(self) -> list[Piece]:
        """Jobs of grain `measurements`."""
        return [self._piece(job) for job in jobs.by_measurement(self.opened)]

    def _piece(self, job: jobs.Job) -> Piece:
        each = 2 * max(self.shape.by_layer)
        if job.name in FIXED:
            return Piece(job.name, 0.0, FIXED[job.name], job.needs, whole=True)
        if not job.parts:
            passes = distances_passes(self.opened)[1]
            # Distances are measured in one go: a kill loses all of them.
            return Piece(job.name, each * passes, 0.0, job.needs, whole=True, saved=math.inf)
        (name,) = job.parts
        part = self.parts[name]
        trained, taught = trained_passes(self.opened, part)
        healing, asking = BACK * trained + taught, self._asked(part)
        if job.probe is None:
            passes = healing + sum(asking)
        else:
            passes = healing if job.probe < 0 else asking[job.probe]
        return Piece(job.name, each * passes, 0.0, job.needs, whole=name == "unhealed")

    def _asked(self, part: Part) -> list[int]:
        """How often a layer sees a token, of each thing that a part's models are asked; what they
        write is not counted."""
        all_of, prompted = asked_passes(self.opened, part, Sizes(1, 1))
        found = []
        for probe in jobs.probes(self.opened, part):
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
                saved=piece.saved,
            )
            for piece in pieces
        ]

    def records(self) -> Iterator[tuple[str, int]]:
        """The kind of each measurement, and how many of what makes it long: questions, or rows of
        the table of distances."""
        n = self.shape.n_layers
        for _ in range(distances_passes(self.opened)[0]):
            yield "distances", n * (n + 1) // 2 - 1
        for part in self.parts.values():
            for one in part.conditions:
                for probe in measure.probes(self.opened, one):
                    kind = measure.kind_and_name(one, probe)[0]
                    yield kind, self.size(probe)[0] if isinstance(probe, Task) else 0
            if part.healed:
                yield "healing", 0

    def adapters(self) -> list[int]:
        """Bytes of the adapters of each healed model, in float32."""
        if self.study.healing.recipe == "full":
            return []
        healed = [part.conditions[0] for part in self.parts.values() if part.healed]
        return [4 * self.shape.trainable(one.healing.rank, one.dropped) for one in healed]
