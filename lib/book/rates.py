"""What devices do in a second, and how large records are, measured on the evidence at hand; and the
GPU that is assumed where nothing was measured."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from lib import paths
from lib.book.spent import about, config_at_hand, used_gpu
from lib.errors import UserError
from lib.evidence.listing import device
from lib.evidence.records import Record, in_place, spelled
from lib.models.shapes import Shape, shape_of

Evidence = Iterable[tuple[str, Record]]  # measurements, each with its study
BACK = 3  # forward passes that one forward and back counts for, as in the plan
# The GPU that is assumed: its memory in bytes, and operations per second at most (bf16, dense, as
# NVIDIA's data sheet says), of which a run sustains a share.
GPU, GPU_MEMORY, GPU_PEAK, GPU_SHARE = "A100 80 GB", 80e9, 312e12, 0.4


@dataclass(frozen=True)
class Rate:
    """Operations per second that the healings of a study have sustained, on a GPU or per core."""

    study: str
    title: str
    hardware: str
    on_gpu: bool
    healings: int
    flops: float


@dataclass(frozen=True)
class Devices:
    """Operations per second: measured, the slowest first, and of a GPU as somebody gave them."""

    rates: Sequence[Rate]
    given: float | None = None

    def flops(self, study: str) -> tuple[float, str]:
        """Of a GPU that runs this study, the fastest measured, and where that number is from."""
        if self.given is not None:
            return self.given, "given"
        own = [one for one in self.rates if one.study == study and one.on_gpu]
        return (own[-1].flops, "measured") if own else (GPU_PEAK * GPU_SHARE, "assumed")

    def per_core(self, study: str) -> float | None:
        """Of a core: measured on this study, or else on the embedded one."""
        cores = {one.study: one.flops for one in self.rates if not one.on_gpu}
        return cores.get(study, cores.get(paths.DEFAULT_STUDY))


def evidence_at_hand() -> Iterator[tuple[str, Record]]:
    """Every sound measurement of a run in this clone, or else of a published one, with its study.
    What cannot be read is left out; the account of that run says so."""
    published = paths.published("").glob("*/evidence.jsonl")
    places = {file.parent.name: file for file in sorted(published)}
    for folder in sorted(paths.results("").glob("*/evidence")):
        places[folder.parent.name] = folder.parent
    for name, place in places.items():
        with suppress(UserError):
            for _, record, problem in in_place(place):
                if problem is None:
                    yield name, record


def measured_rates(evidence: Evidence) -> list[Rate]:
    """By study and hardware, the slowest first. Healings with a teacher, and those that were
    interrupted, do not count; nor do studies whose model's shape is not at hand."""
    shapes: dict[str, tuple[str, Shape] | None] = {}
    found: dict[tuple[str, str, bool], list[tuple[float, float]]] = {}
    for name, record in evidence:
        healing, made = record["inputs"].get("healing"), record["provenance"]
        seconds = made.get("training_seconds", made.get("seconds"))
        if record["kind"] != "healing" or "teacher" in healing or not seconds:
            continue
        if name not in shapes:
            shapes[name] = _shape(name)
        on_gpu = used_gpu(made)
        devices = 1 if on_gpu else made.get("threads")
        if shapes[name] is None or not devices:
            continue
        start, stop = record["inputs"]["block"]
        sizes = shapes[name][1].by_layer
        flops = 2 * BACK * record["value"]["tokens"] * (sum(sizes) - sum(sizes[start:stop]))
        found.setdefault((name, device(made), on_gpu), []).append((flops, seconds * devices))
    rates = []
    for (name, hardware, on_gpu), each in found.items():
        flops, seconds = map(sum, zip(*each, strict=True))
        title = shapes[name][0]
        rates.append(Rate(name, title, hardware, on_gpu, len(each), flops / seconds))
    return sorted(rates, key=lambda one: one.flops)


def _shape(name: str) -> tuple[str, Shape] | None:
    known = about(name)
    try:
        if known.study is not None:
            config = config_at_hand(known.study)
            return known.title, shape_of(config, known.study.healing.ffn)
    except UserError:
        pass
    return None


def record_bytes(evidence: Evidence) -> dict[str, tuple[float, float]]:
    """By kind, the mean bytes of a record beside what makes it long, and per piece of that: one for
    the answer to a question, and what a row of a table of distances takes."""
    seen: dict[str, list[tuple[int, int]]] = {}
    for _, record in evidence:
        kind, value, rows = record["kind"], record["value"], 0
        if kind == "qa":
            rows = value["n_questions"]
        elif kind == "distances":
            rows = len(value["table"]["n"])
        seen.setdefault(kind, []).append((len(spelled(record)), rows))
    found = {}
    for kind, sizes in seen.items():
        size, rows = (sum(column) / len(sizes) for column in zip(*sizes, strict=True))
        per_row = size / rows if kind == "distances" and rows else float(kind == "qa")
        found[kind] = size - per_row * rows, per_row
    return found
