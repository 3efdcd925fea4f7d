"""What studies cost: what runs took, and what is estimated of those that nobody has run here.

python -m lib.book.ladder                                # the tables of the page on costs
python -m lib.book.ladder --flops 1.2e14 --gpus 1000     # on GPUs of your own
python -m lib.book.ladder --study path/to/mine.yaml      # of one study
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lib import paths
from lib import study as studies
from lib.book import fleet, rates, schedule, spent
from lib.book.estimates import FIXED, READING, STARTING, Estimate
from lib.book.model_tables import PAPER, SMALL, family
from lib.book.plan import KNOWN
from lib.book.progress import spoken
from lib.book.rates import BACK, GPU, GPU_MEMORY, GPU_PEAK, GPU_SHARE, Devices
from lib.book.text_tables import Rows, Table, amount, on_page, on_terminal, power_of_ten, size
from lib.errors import UserError
from lib.healing.training import SAVE_EVERY
from lib.schema import Study

SHOWN, FEW, MANY = "llama-2-70b", (1, 8, 64, 512), 1000
KILLED_EVERY = 86_400.0  # seconds that a job's process lives on a busy cluster, on average


def spent_tables(study: str | None = None) -> Iterator[Table]:
    """What runs took, or those of one study: a row each, then a row per section."""
    found = spent.accounts(study)
    notes = [f"Left out of {one.about.title}: {what}." for one in found for what in one.left_out]
    runs: Rows = [
        {"study": one.about.title, "known from": one.source}
        | _spent(one.total)
        | {"download, estimated": _download(one.about.study)}
        for one in found
    ]
    yield Table("runs", "What runs took", runs, notes)
    sections: Rows = [
        {"study": one.about.title, "known from": one.source, "section": titled(section)}
        | _spent(one.sections[section])
        for one in found
        for section in sorted(one.sections)
    ]
    yield Table("sections", "The same by section", sections)


def titled(section: str) -> str:
    """A section's number and name; anything else as it is."""
    found = paths.sections().get(section)
    return found.stem.replace("_", " ") if found else section


def _spent(one: spent.Spent) -> dict[str, object]:
    jobs = f"{one.runs}, {one.failed} of them not to the end" if one.failed else one.runs or "–"
    memory = size(one.memory) if one.memory else "–"
    on_gpu = f"; on the GPU {size(one.gpu_memory)}" if one.gpu_memory else ""
    return {
        "measuring": spoken(one.measuring) if one.measuring else "–",
        "notebooks, site": spoken(one.notebook) if one.notebook else "–",
        "core hours": amount(one.core_seconds / 3600),
        "GPU hours": amount(one.gpu_seconds / 3600),
        "peak memory": memory + on_gpu,
        "measurements": f"{one.measurements:,}",
        "jobs": jobs,
        "on": "; ".join(sorted(one.hardware)) or "–",
    }


def _download(study: Study | None) -> str:
    try:
        return _fetched(Estimate(study)) if study else "not known"
    except UserError:
        return "not known"


def _fetched(one: Estimate) -> str:
    return size(one.download) if one.download else "0 (local)"


def rates_table(devices: Devices) -> Table:
    """Operations per second: measured, then assumed or given."""
    rows: Rows = [
        {
            "on": one.hardware,
            "operations per second": power_of_ten(one.flops) + ("" if one.on_gpu else " per core"),
            "which is": f"measured on {one.healings} healings of {one.title}",
        }
        for one in devices.rates
    ]
    most = f"{GPU_SHARE:.0%} of the {power_of_ten(GPU_PEAK)} of its data sheet (bf16, dense)"
    on, flops, which = GPU, GPU_PEAK * GPU_SHARE, f"assumed: {most}"
    if devices.given:
        on, flops, which = "a GPU", devices.given, "given"
    rows.append({"on": on, "operations per second": power_of_ten(flops), "which is": which})
    return Table("rates", "Operations per second", rows)


def assumptions_table() -> Table:
    """What else estimates and schedules assume."""
    questions = (
        f"{count:,} of {name} with {tokens} tokens" for name, (count, tokens) in KNOWN.items()
    )
    values = {
        "questions": f"{'; '.join(questions)}, as many again for each example before them",
        "forward pass": "2 operations for each weight of a layer and token",
        "forward and back": f"as {BACK} forward passes, as in the plan",
        "GPUs per job": "1: the code does not spread a model over several",
        "memory of a GPU": size(GPU_MEMORY),
        "start of a process": f"{STARTING:.0f} s, and its checkpoint at {size(READING)} a second",
        "memory and times (section 09)": f"{FIXED['cost']:.0f} s",
        "choices without their question (section 13)": f"{FIXED['question-free']:.0f} s",
        "with kills": f"a process is killed after {spoken(KILLED_EVERY)} on average, at random",
        "lost with a kill": f"up to {spoken(SAVE_EVERY)} of work, or all of a job of distances",
    }
    rows: Rows = [{"what": key, "assumed": value} for key, value in values.items()]
    return Table("assumptions", "What else is assumed", rows)


def estimate_tables(found: Sequence[Estimate], devices: Devices) -> Iterator[Table]:
    """What studies would take: operations and time, then jobs and memory."""
    operations: Rows = []
    jobs: Rows = []
    for one in found:
        name, whole = one.study.name, sum(piece.flops for piece in one.models)
        flops, source = devices.flops(name)
        seconds = whole / flops + sum(piece.seconds for piece in one.models)
        core = devices.per_core(name)
        operations.append(
            {
                "model": one.study.title,
                "operations, estimated": power_of_ten(whole),
                "GPU hours, estimated": amount(seconds / 3600),
                "rate of the GPU": source,
                "core hours, estimated": amount(whole / core / 3600) if core else "–",
                "download, estimated": _fetched(one),
            }
        )
        memory = one.memory
        short = sum(one.holds(piece) > GPU_MEMORY for piece in one.models)
        jobs.append(
            {
                "model": one.study.title,
                "jobs (models)": len(one.models),
                "jobs (measurements)": len(one.measurements),
                "memory of a whole model, estimated": size(memory["unhealed"]),
                "memory of a healing, estimated": size(memory["healing"]),
                f"jobs (models) above {size(GPU_MEMORY)}, estimated": short or "none",
            }
        )
    unknown = sorted({task for one in found for task in one.unknown})
    notes = [f"Not counted, since its size is not known without its data: {', '.join(unknown)}."]
    yield Table("operations", "What studies would take", operations, notes if unknown else ())
    yield Table("memory", "Their jobs", jobs)


def schedule_table(one: Estimate, gpus: Sequence[int], devices: Devices) -> Table:
    """How long a study would take, a row per grain and number of GPUs."""
    rows: Rows = []
    for grain, pieces in (("models", one.models), ("measurements", one.measurements)):
        jobs = one.scheduled(pieces, devices.flops(one.study.name)[0])
        for count in gpus:
            plain = schedule.simulate(jobs, count)
            rows.append(
                {
                    "jobs": f"{len(jobs):,} ({grain})",
                    "GPUs": f"{count:,}",
                    "time, simulated": spoken(plain.makespan),
                    "longest chain, estimated": spoken(max(schedule.until_end(jobs))),
                    "GPU days, simulated": amount(plain.gpu_seconds / 86_400),
                    "GPUs in use": f"{plain.utilisation:.0%}",
                    "with kills, simulated": _with_kills(jobs, count),
                }
            )
    short = {piece.name: one.holds(piece) for piece in one.models}
    short = {name: held for name, held in short.items() if held > GPU_MEMORY}
    note = (
        f"As the code is, {len(short)} of the {len(one.models)} jobs (models), and those that wait "
        f"for them, cannot run on a GPU of {size(GPU_MEMORY)}: {', '.join(short)}. They need up to "
        f"{size(max(short.values(), default=0))}; the times above are those on GPUs that have it."
    )
    return Table("schedule", f"{one.study.title} on many GPUs", rows, [note] if short else ())


def _with_kills(jobs: Sequence[schedule.Job], gpus: int) -> str:
    try:
        found = schedule.simulate(jobs, gpus, KILLED_EVERY)
    except UserError as error:
        return f"not simulated: {error}"
    return f"{spoken(found.makespan)}, {found.kills:,} kills"


def fleet_tables(
    estimates: Sequence[Estimate], gpus: int, devices: Devices, evidence: rates.Evidence
) -> Iterator[Table]:
    """All open checkpoints: which there are taken to be, and how long they would take."""
    mix = [(one, fleet.MIX[one.study.name]) for one in estimates if one.study.name in fleet.MIX]
    rows: Rows = [
        {"of the shape and settings of": one.study.title, "checkpoints": count}
        for one, count in mix
    ]
    yield Table("mix", "Open models, assumed", rows)
    found = fleet.together(mix, devices, evidence)
    jobs, stored, plain = found.jobs, found.stored, schedule.simulate(found.jobs, gpus)
    chain = schedule.longest_chain(jobs)
    longest = jobs[max(chain, key=lambda i: jobs[i].seconds)]
    whole, share = max(schedule.until_end(jobs)), plain.gpu_seconds / gpus
    values = {
        "checkpoints": f"{sum(count for _, count in mix):,}",
        "jobs, a model each": f"{len(jobs):,}",
        "GPU days": amount(plain.gpu_seconds / 86_400),
        f"time on {gpus:,} GPUs": spoken(plain.makespan),
        "of it their work, shared evenly": spoken(share),
        "the longest chain of jobs": spoken(whole),
        "its longest job": f"{longest.name}, {spoken(longest.seconds)}",
        "what bounds the time": "the longest chain" if whole > share else "how many GPUs there are",
        "GPUs in use": f"{plain.utilisation:.0%}",
        "time with kills": _with_kills(jobs, gpus),
        "jobs that end in an hour": amount(len(jobs) / plain.makespan * 3600),
        "download": size(stored.download),
        "measurements": f"{stored.records:,}",
        "their size": size(stored.evidence) if stored.evidence else "nothing at hand to tell it by",
        "adapters": f"{size(stored.adapters)}, of {stored.healed:,} healed models",
        "files of results": f"{found.files:,}",
    }
    rows = [{"what": key, "simulated or estimated": value} for key, value in values.items()]
    yield Table("fleet", f"Open models on {gpus:,} GPUs", rows)


def tables(
    study: Study | None = None, gpus: int | None = None, flops: float | None = None
) -> Iterator[Table]:
    """Every table of the page; of one study those that are about it. gpus: in place of the usual
    numbers of them; flops: operations per second that each sustains."""
    yield from spent_tables(study.name if study else None)
    evidence = list(rates.evidence_at_hand())
    devices = Devices(rates.measured_rates(evidence), flops)
    chosen = [study] if study else [*family(PAPER), *family(SMALL)]
    found = [Estimate(one) for one in chosen]
    shown = next((one for one in found if one.study.name == SHOWN), found[0])
    yield from estimate_tables(found, devices)
    yield rates_table(devices)
    yield assumptions_table()
    yield schedule_table(shown, (gpus,) if gpus else FEW, devices)
    if study is None:
        yield from fleet_tables(found, gpus or MANY, devices, evidence)


def write(folder: Path) -> None:
    """What book/cost.md includes."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables():
        (folder / f"cost_{table.name}.md").write_text(on_page(table), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m lib.book.ladder", description=about)
    parser.add_argument("--study", help="only this one: name or path of a YAML file")
    parser.add_argument("--gpus", type=int, help="how many there are, in place of several numbers")
    parser.add_argument("--flops", type=float, help="operations per second that each sustains")
    given = parser.parse_args(arguments)
    try:
        if given.gpus is not None and given.gpus < 1:
            raise UserError(f"--gpus: at least 1, not {given.gpus}")
        if given.flops is not None and not 1 <= given.flops < math.inf:
            raise UserError(f"--flops: at least 1, not {given.flops}")
        study = studies.load(given.study) if given.study else None
        for number, table in enumerate(tables(study, given.gpus, given.flops)):
            print("\n" * bool(number) + on_terminal(table), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
