"""Many studies at once: open checkpoints of all shapes that studies are shipped for, on one large
cluster. Nobody has run this; it is simulated."""

from collections.abc import Iterable
from dataclasses import dataclass

from lib.book import rates, schedule
from lib.book.estimates import Estimate
from lib.book.rates import Devices, Evidence

# How many checkpoints of each shape there might be.
MIX = {
    "smollm2-135m": 300,
    "pythia-410m": 200,
    "qwen2.5-0.5b": 300,
    "llama-3.2-1b": 300,
    "phi-2": 100,
    "llama-2-7b": 300,
    "mistral-7b": 250,
    "qwen-7b": 100,
    "llama-2-13b": 80,
    "qwen-14b": 50,
    "llama-2-70b": 20,
}
FILES = 3  # of a healed model's adapters


@dataclass
class Stored:
    """What stays on disk, and what is fetched; sizes in bytes. evidence: None where there is no
    measurement at hand whose size says how large others will be."""

    download: int = 0
    records: int = 0
    evidence: float | None = 0.0
    healed: int = 0
    adapters: int = 0

    def add(self, one: Estimate, count: int, sizes: dict[str, tuple[float, float]]) -> None:
        """So many checkpoints of this shape."""
        records, adapters = list(one.records()), one.adapters()
        self.download += count * one.download
        self.records += count * len(records)
        self.healed += count * len(adapters)
        self.adapters += count * sum(adapters)
        if self.evidence is None or any(kind not in sizes for kind, _ in records):
            self.evidence = None
        else:
            each = (sizes[kind][0] + sizes[kind][1] * rows for kind, rows in records)
            self.evidence += count * sum(each)


@dataclass(frozen=True)
class Fleet:
    """All of it: jobs of grain `models`, and what is stored."""

    jobs: list[schedule.Job]
    stored: Stored

    @property
    def files(self) -> int:
        """Records, adapters, and a note per job."""
        return self.stored.records + FILES * self.stored.healed + len(self.jobs)


def together(mix: Iterable[tuple[Estimate, int]], devices: Devices, evidence: Evidence) -> Fleet:
    """So many checkpoints of each kind, in one queue."""
    jobs: list[schedule.Job] = []
    stored, sizes = Stored(), rates.record_bytes(evidence)
    for one, count in mix:
        flops, _ = devices.flops(one.study.name)
        for _ in range(count):
            jobs += one.scheduled(one.models, flops, first=len(jobs))
        stored.add(one, count, sizes)
    return Fleet(jobs, stored)
