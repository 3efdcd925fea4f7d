"""Two runs side by side, in lines for people: the published run first, then this one."""

import statistics
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from lib import claims, paths
from lib.book.chance import Spread
from lib.book.pairing import Judged, identity
from lib.book.sides import UNFIT, Damaged, Side
from lib.evidence.listing import device, difference
from lib.evidence.records import Record
from lib.schema import Study

WIDTH = 98  # of a line
OUTCOMES = ("equal", "within", "chance", "shown", "differs")
LEGEND = [
    "equal: the same value · within: within the tolerance · chance: no farther apart than",
    "chance explains · shown: not judged",
]


def claimed(published: Side, own: Side) -> list[str]:
    """What the paper says, and what both runs found. A verdict is marked where it is another,
    unless one of the runs lacks a table that it takes."""
    if published.verdicts.empty or own.verdicts.empty:
        return ["no verdicts: tables are missing or damaged"]
    lines = []
    sides = [side.verdicts.set_index(["paper", "claim"]) for side in (published, own)]
    for paper, number in sides[1].index:
        claim = claims.find(f"{paper}-{number}")
        found = [side.loc[(paper, number)] for side in sides]
        there = all(set(claim.tables) <= side.tables for side in (published, own))
        mark = "≠" if there and found[0]["verdict"] != found[1]["verdict"] else " "
        lines += wrapped(f"{mark}{number:3d}  ", f"{claim.statement} ({claim.where})")
        says = [f"{one['verdict']}: {one['reason']}" for one in found]
        if says[0] == says[1]:
            lines += wrapped("      both       ", says[0])
        else:
            lines += wrapped("      published  ", says[0])
            lines += wrapped("      this run   ", says[1])
    return lines


def wrapped(first: str, text: str, then: str | None = None) -> list[str]:
    """Lines of a text, the first one after `first`, the others below it or after `then`; words and
    names stay whole."""
    then = " " * len(first) if then is None else then
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=then,
        break_on_hyphens=False,
        break_long_words=False,
    )


def summary(
    judged: Sequence[Judged], missing: Sequence[Record], published: Side, own: Side, seeds: Spread
) -> list[str]:
    """A row per kind: how its records agree, and what is farthest apart."""
    rows = [["kind", "published", *OUTCOMES, "missing", "farthest apart"]]
    lost = Counter(record["kind"] for record in missing)
    for kind, total in sorted(Counter(one["kind"] for one in published.records).items()):
        of_kind = [one for one in judged if one.pair.published["kind"] == kind]
        outcomes = Counter(one.outcome for one in of_kind)
        counts = [total, *(outcomes[outcome] for outcome in OUTCOMES), lost[kind]]
        rows.append([kind, *(f"{count:,}" if count else "–" for count in counts), _far(of_kind)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for kind, *counts, far in rows:
        cells = (cell.rjust(width) for cell, width in zip(counts, widths[1:-1], strict=True))
        lines.append(f"{kind.ljust(widths[0])}  {'  '.join(cells)}  {far}".rstrip())
    lines += ["", *LEGEND]
    more = len(own.records) - len(judged)
    if more or own.others:
        lines.append(f"only here: {more:,}; of other settings or files, left out: {own.others:,}")
    tests = sum(one.p is not None for one in judged)
    if tests:
        lines.append(f"comparisons by chance: {tests:,}{_in_words(seeds)}")
    return lines


def _far(judged: Iterable[Judged]) -> str:
    """The largest deviation of each sort."""
    sizes = [(one.p is None, one.size) for one in judged]
    numbers = max((size for by_numbers, size in sizes if by_numbers), default=0.0)
    errors = max((size for by_numbers, size in sizes if not by_numbers), default=0.0)
    parts = [f"a share of {numbers:.1e}"] if numbers else []
    return ", ".join(parts + ([f"{errors:.1f} standard errors"] if errors else []))


def _in_words(seeds: Spread) -> str:
    if not seeds.accuracy[1] and not seeds.loss[1]:
        return "; seeds of healing were not measured"
    points, percent = 100 * seeds.accuracy[0], 100 * seeds.loss[0]
    return f"; seeds of healing change accuracies by {points:.2g} points, losses by {percent:.2g}%"


def named(record: Record) -> str:
    """Kind and name, which is the same for all seeds."""
    healing = record["inputs"].get("healing")
    seed = f" seed {healing['seed']}" if isinstance(healing, dict) and "seed" in healing else ""
    return f"{record['kind']} '{record['name']}'{seed}"


def damaged(side: Side, other: Side) -> list[str]:
    """A line for each damaged record, with what in it differs from the other side's record."""
    whole = {identity(record): record for record in other.records}
    return [f"{one.label}: {one.problem}{_edit(one, whole)}" for one in side.damaged]


def _edit(one: Damaged, whole: dict[tuple[str, str], Record]) -> str:
    if not one.record:
        return ""
    known = whole.get(identity(one.record))
    if known is None or known["value"] == one.record["value"]:
        return f": {named(one.record)}"
    return f": {named(one.record)}: {difference(one.record, known)} on the other side"


def different(judged: Iterable[Judged]) -> list[str]:
    return [f"{named(one.pair.own)}: {one.says}" for one in judged if one.outcome == "differs"]


def unmeasured(missing: Sequence[Record], study: Study) -> list[str]:
    """How many records this run lacks, what measures them, and their names."""
    if not missing:
        return []
    kinds = Counter(record["kind"] for record in missing)
    counted = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
    shipped = (paths.STUDIES / f"{study.name}.yaml").exists()
    name = study.name if shipped else f"path/to/{study.name}.yaml"
    return [f"{counted}: `make book STUDY={name}` measures them", *map(named, missing)]


def other_inputs(judged: Iterable[Judged]) -> list[str]:
    """Which inputs differ where records were paired by name."""
    groups = Counter((one.pair.own["kind"], one.pair.differs) for one in judged)
    return [
        f"{count:,} {kind}, judged by chance where they can be: {', '.join(differs)}"
        for (kind, differs), count in sorted(groups.items())
        if differs
    ]


def not_judged(judged: Sequence[Judged]) -> list[str]:
    """What is shown only: how many of each kind, and how times compare."""
    shown = Counter(
        (one.pair.own["kind"], "inputs" if one.pair.differs else "surroundings")
        for one in judged
        if one.outcome == "shown"
    )
    lines = [f"{count:,} {kind}: of other {what}" for (kind, what), count in sorted(shown.items())]
    return lines + [
        line for one in judged if one.pair.own["kind"] == "cost" for line in _times(one)
    ]


def _times(one: Judged) -> list[str]:
    """How long reading and writing took, in times of the published run's."""
    ratios = defaultdict(list)
    try:
        there, here = (record["value"]["models"] for record in one.pair[:2])
        for before, now in zip(there, here, strict=True):
            for what in ("read", "write"):
                medians = [statistics.median(model[what]) for model in (before, now)]
                ratios[what].append(medians[1] / medians[0])
    except UNFIT:
        return []  # which its judgement says
    took = " and ".join(f"{what} {statistics.median(of):.2f}" for what, of in ratios.items())
    return [f"{named(one.pair.own)}: times to {took} times the published ones"]


def surroundings(published: Side, own: Side) -> list[str]:
    """Where the records of both were made, with what, when and by which code."""
    lines = []
    for title, side in {"published": published, "this run": own}.items():
        made = [record["provenance"] for record in side.records]
        machines = Counter(device(one) or "unknown" for one in made).most_common()
        versions: dict[str, set[str]] = defaultdict(set)
        for one in made:
            for package, version in one.get("packages", {}).items():
                versions[package].add(str(version))
        days = sorted({str(one.get("when", "unknown"))[:10] for one in made})
        commits = sorted({str(one.get("commit", "unknown"))[:7] for one in made})
        found = [
            ", ".join(f"{name} ({count:,})" for name, count in machines),
            ", ".join(f"{name} {'/'.join(sorted(of))}" for name, of in sorted(versions.items())),
            f"{' to '.join(dict.fromkeys([*days[:1], *days[-1:]]))}, commit {', '.join(commits)}",
        ]
        lines += wrapped(f"{title:9s}  ", "; ".join(filter(None, found)))
    return lines
