"""This run against the published reference run of the same study.

    python -m lib.compare --study almanac

Prints, claim by claim, what the paper says, what the published run found and what this run found;
then how the records of both agree, and every disagreement by name. The same goes into a report
that can be attached to an issue. Exit code 0 where everything agrees, else 1.

The published run is only read: nothing of it is taken instead of being measured.
"""

import argparse
import re
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lib import paths
from lib import study as studies
from lib.book import side_by_side, sides
from lib.book.agreement import judge
from lib.book.chance import spread
from lib.book.pairing import identity, pairs
from lib.errors import UserError
from lib.files import write_atomically
from lib.schema import Study

CLAIMS = "Claims: published and this run (≠ another verdict)"
LONGEST = 25  # lines of any other part in the terminal; the report has all


@dataclass
class Comparison:
    """`agrees`: whether every published number has its counterpart here and agrees with it, and
    nothing on either side is damaged or edited. `parts`: lines by title. `judgement`: the last
    line."""

    agrees: bool
    judgement: str
    parts: dict[str, list[str]]


def compare(study: Study) -> Comparison:
    """Raises UserError where there is nothing to compare."""
    with tempfile.TemporaryDirectory() as scratch:
        published = sides.published(study, Path(scratch))
        own = sides.own(study, Path(scratch))
    found, missing = pairs(published.records, own.records)
    seeds = spread(published.made.get("healing_seeds"))
    judged = judge(found, published.records, own.records, seeds)
    there = {identity(one.record) for one in own.damaged if one.record}
    missing = [record for record in missing if identity(record) not in there]
    damaged = side_by_side.damaged(published, own) + side_by_side.damaged(own, published)
    faults = published.faults + own.faults
    differ = side_by_side.different(judged)
    counts = {
        "damaged or edited records": damaged,
        "faults in tables": faults,
        "records that differ": differ,
        "records not measured here": missing,
    }
    wrong = ", ".join(f"{what}: {len(lines):,}" for what, lines in counts.items() if lines)
    judgement = f"study {study.name}: this run and the published one " + (
        f"do not agree ({wrong})" if wrong else f"agree in all {len(published.records):,} records"
    )
    parts = {
        CLAIMS: side_by_side.claimed(published, own),
        "Records": side_by_side.summary(judged, missing, published, own, seeds),
        "Damaged or edited": damaged,
        "Tables": faults,
        "Different: published / this run": differ,
        "Not measured here": side_by_side.unmeasured(missing, study),
        "Of other inputs": side_by_side.other_inputs(judged),
        "Not judged": side_by_side.not_judged(judged),
        "Surroundings": side_by_side.surroundings(published, own),
    }
    return Comparison(not wrong, judgement, {title: part for title, part in parts.items() if part})


def text(found: Comparison) -> str:
    """All parts under their titles, long ones cut."""
    blocks = []
    for title, lines in found.parts.items():
        if title != CLAIMS and len(lines) > LONGEST:
            more = f"… and {len(lines) - LONGEST:,} more lines, in the report"
            lines = [*lines[:LONGEST], more]
        blocks.append("\n".join([title, *(f"  {line}".rstrip() for line in _folded(lines))]))
    return "\n\n".join(blocks)


def _folded(lines: list[str]) -> list[str]:
    """Long lines go on below, farther in."""
    found = []
    for line in lines:
        fits = len(line) <= side_by_side.WIDTH
        found += [line] if fits else side_by_side.wrapped("", line, "    ")
    return found


def report(study: Study, found: Comparison) -> str:
    """All of it as Markdown. What records and tables say stands in fences, so that none of it is
    read as markup."""
    parts = [f"# {study.name}: a run against the published one", f"**{found.judgement}**"]
    for title, lines in found.parts.items():
        body = "\n".join(_folded(lines))
        longest = max((len(run) for run in re.findall("`+", body)), default=0)
        fence = "`" * max(3, longest + 1)
        parts += [f"## {title}", f"{fence}text\n{body}\n{fence}"]
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str] | None = None) -> int:
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m lib.compare", description=about)
    parser.add_argument("--study", default=paths.DEFAULT_STUDY, help="name or path of a YAML file")
    options = parser.parse_args(arguments)
    try:
        study = studies.load(options.study)
        found = compare(study)
        path = paths.BUILD / "compare" / f"{study.name}.md"
        write_atomically(path, report(study, found))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was changed", file=sys.stderr)
        return 130
    inside = path.is_relative_to(paths.ROOT)
    print(text(found), end="\n\n")
    print(f"report: {path.relative_to(paths.ROOT) if inside else path}")
    print(found.judgement)
    return 0 if found.agrees else 1


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `… | head` ends without a traceback
    sys.exit(main())
