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
import statistics
import sys
import tempfile
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lib import paths
from lib import study as studies
from lib.book.comparing.agreement import Judged, Seeds, identity, judge, spread
from lib.book.comparing.recorded import RecordedRun, own, published
from lib.errors import UserError
from lib.evidence.records import Record, file_of
from lib.files import write_atomically
from lib.schema import Study

WIDTH = 98  # of a line
LONGEST = 25  # lines of any part but the claims in the terminal; the report has all
CLAIMS = "Claims: published and this run (≠ another verdict)"
OUTCOMES = ["equal", "within", "chance", "shown", "differs", "missing"]
LEGEND = [
    "equal: the same value · within: within the tolerance · chance: no farther apart than chance",
    "explains · shown: not judged · share, errors: the largest deviations, of a value and in",
    "standard errors",
]


@dataclass
class Comparison:
    """`agrees`: whether every published number has its counterpart here and agrees with it, and
    nothing on either side is damaged or edited. `judgement`: that in a line. `parts`: lines by
    title."""

    agrees: bool
    judgement: str
    parts: dict[str, list[str]]


def compare(study: Study) -> Comparison:
    """Raises UserError where there is nothing to compare."""
    with tempfile.TemporaryDirectory() as scratch:
        there, here = published(study, Path(scratch)), own(study, Path(scratch))
    seeds = spread(there.made.get("healing_seeds"))
    judged = judge(there.records, here.records, seeds)
    found = {identity(record) for record in here.records}
    missing = [
        one
        for one in there.records
        if identity(one) not in found
        and f"{here.where}/evidence/{file_of(one['kind'], one['name'], one['inputs'])}"
        not in here.damaged
    ]
    wrong = {
        "Damaged or edited records": [
            f"{at}: {what}" for at, what in (there.damaged | here.damaged).items()
        ],
        "Faults in tables": there.faults + here.faults,
        "Records that differ (published / this run)": [
            f"{_named(one.own)}: {one.says}" for one in judged if one.outcome == "differs"
        ],
        "Records not measured here": [_named(record) for record in missing],
    }
    counts = ", ".join(f"{what.lower()}: {len(lines):,}" for what, lines in wrong.items() if lines)
    judgement = f"study {study.name}: this run and the published one " + (
        f"do not agree ({counts})" if counts else f"agree in all {len(there.records):,} records"
    )
    parts = {
        CLAIMS: _claims(there, here),
        "Records": _summary(judged, missing, seeds),
        **wrong,
        "Times, which are not judged: so many times the published ones": _times(judged),
        "Surroundings": _surroundings("published", there) + _surroundings("this run", here),
    }
    return Comparison(not counts, judgement, {title: part for title, part in parts.items() if part})


def _claims(there: RecordedRun, here: RecordedRun) -> list[str]:
    """What the papers say, and what both runs found. A verdict is marked where it is another,
    unless the published run could not tell: it may lack what other runs in this clone give."""
    if "verdicts" not in there.made or "verdicts" not in here.made:
        return ["no verdicts: tables are missing or damaged"]
    lines = []
    both = there.made["verdicts"].merge(here.made["verdicts"], on=["paper", "claim"])
    for row in both.to_dict("records"):
        says = {side: f"{row[f'verdict_{side}']}: {row[f'reason_{side}']}" for side in "xy"}
        same = row["verdict_x"] in (row["verdict_y"], "not testable here")
        lines.append(
            f"{' ' if same else '≠'} {row['paper']} {row['claim']}: {row['statement_x']} "
            f"({row['where_x']})"
        )
        if says["x"] == says["y"]:
            lines.append(f"    both: {says['x']}")
        else:
            lines += [f"    published: {says['x']}", f"    this run: {says['y']}"]
    return lines


def _summary(judged: list[Judged], missing: list[Record], seeds: Seeds) -> list[str]:
    """A row per kind: how its records agree, and what is farthest apart."""
    rows = [(one.own["kind"], one.outcome, one.p is not None, one.size) for one in judged]
    rows += [(record["kind"], "missing", False, 0.0) for record in missing]
    found = pd.DataFrame(rows, columns=["kind", "outcome", "by_chance", "size"])
    table = pd.crosstab(found["kind"], found["outcome"]).reindex(columns=OUTCOMES, fill_value=0)
    for name, of in {"share": ~found["by_chance"], "errors": found["by_chance"]}.items():
        table[name] = found[of].groupby("kind")["size"].max().map("{:.2g}".format)
    lines = table.replace([0, "0"], "–").to_string(na_rep="–").split("\n")
    lines += ["", *LEGEND]
    if tests := int(found["by_chance"].sum()):
        units = {"qa": "accuracies by {:.2g} points", "loss": "losses by {:.2g}%"}
        words = " and ".join(units[kind].format(100 * seeds[kind][0]) for kind in seeds)
        says = f"seeds of healing change {words or 'what was not measured'}"
        lines.append(f"comparisons by chance: {tests:,}; {says}")
    return lines


def _times(judged: list[Judged]) -> list[str]:
    lines = []
    for one in judged:
        if one.own["kind"] == "cost" and one.outcome != "differs":
            models = [
                pd.DataFrame(record["value"]["models"]) for record in (one.published, one.own)
            ]
            for what in ("read", "write"):
                before, now = (side[what].map(statistics.median) for side in models)
                lines.append(f"{_named(one.own)}: {what} {(now / before).median():.2f}")
    return lines


def _surroundings(title: str, run: RecordedRun) -> list[str]:
    """On what records were made, by which code, when and with what."""
    made = Counter(
        f"{one.get('processor')}, {one.get('threads')} threads; commit {str(one.get('commit'))[:7]}"
        f", {str(one.get('when'))[:10]}; "
        + ", ".join(f"{name} {version}" for name, version in one.get("packages", {}).items())
        for one in (record["provenance"] for record in run.records)
    )
    return [f"{title}: {count:,} on {what}" for what, count in made.most_common()]


def _named(record: Record) -> str:
    """Kind and name, which is the same for all seeds."""
    healing = record["inputs"].get("healing")
    seed = f" seed {healing['seed']}" if isinstance(healing, dict) and "seed" in healing else ""
    return f"{record['kind']} '{record['name']}'{seed}"


def text(found: Comparison, longest: int | None = None) -> str:
    """All parts under their titles, long ones cut; long lines go on below, farther in."""
    blocks = []
    for title, lines in found.parts.items():
        if longest and title != CLAIMS and len(lines) > longest:
            lines = [*lines[:longest], f"… and {len(lines) - longest:,} more lines, in the report"]
        folded = [title]
        for line in lines:
            then = " " * (len(line) - len(line.lstrip()) + 6)
            whole = {"break_on_hyphens": False, "break_long_words": False}
            folded += textwrap.wrap(f"  {line}", WIDTH, subsequent_indent=then, **whole) or [""]
        blocks.append("\n".join(folded))
    return "\n\n".join(blocks)


def report(study: Study, found: Comparison) -> str:
    """All of it as Markdown, in a fence, so that nothing in records and tables is markup."""
    body = text(found)
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", body))])
    title = f"# {study.name}: a run against the published one"
    return f"{title}\n\n**{found.judgement}**\n\n{fence}text\n{body}\n{fence}\n"


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
    print(text(found, LONGEST), end="\n\n")
    print(f"report: {path.relative_to(paths.ROOT) if inside else path}")
    print(found.judgement)
    return 0 if found.agrees else 1


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `… | head` ends without a traceback
    sys.exit(main())
