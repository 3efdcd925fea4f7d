"""This run against the published reference run of the same study.

    python -m lib.compare --study almanac

Prints, claim by claim, what the paper says, what the published run found and what this run found;
then how the records of both agree, and every disagreement by name. The same goes into a report
that can be attached to an issue. Exit code 0 where everything agrees, else 1.
"""

import argparse
import os
import re
import signal
import statistics
import sys
import tempfile
import textwrap
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lib import paths
from lib import study as studies
from lib.book.comparing.agreement import UNFIT, Judged, Seeds, judge, spread
from lib.book.comparing.recorded import RecordedRun, own, published
from lib.errors import UserError
from lib.files import write_atomically
from lib.schema import Study
from lib.words import of_paper, typeset

WIDTH = 98  # of a line
LONGEST = 25  # lines of any part but the claims in the terminal; the report has all
CLAIMS = "Claims: published and this run (≠ another verdict)"
OUTCOMES = ["equal", "within", "chance", "shown", "differs", "missing"]
LEGEND = "within: the tolerance · chance: no farther apart than it explains · shown: not judged"


class Comparison(NamedTuple):
    agrees: bool  # each published number and its counterpart here; nothing damaged or edited
    judgement: str  # that in a line
    parts: dict[str, list[str]]  # lines by title


def compare(study: Study) -> Comparison:
    """Raises UserError where there is nothing to compare."""
    with tempfile.TemporaryDirectory() as scratch:
        there, here = published(study, Path(scratch)), own(study, Path(scratch))
    table = there.made.get("healing_seeds")
    seeds = {} if table is None or table.empty else spread(table)
    judged = judge(there.records, here.records, seeds)
    differ = [f"{_named(one)}: {one.says}" for one in judged if one.outcome == "differs"]
    wrong = {
        "Damaged, edited or out of date": there.faults + here.faults,
        "Records that differ": differ,
        "Records not measured here": [_named(one) for one in judged if one.outcome == "missing"],
    }
    counts = ", ".join(f"{what.lower()}: {len(lines):,}" for what, lines in wrong.items() if lines)
    says = f"do not agree ({counts})" if counts else f"agree in all {len(there.records):,} records"
    judgement = f"study {study.name}: this run and the published one {says}"
    parts = {
        CLAIMS: _claims(there, here),
        "Records": _summary(judged, seeds),
        **wrong,
        "Times, which are not judged: so many times the published ones": _times(judged),
        "Surroundings": _surroundings(there) + _surroundings(here),
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
        says = [f"{row['verdict' + at]}: {typeset(row['reason' + at])}" for at in ("_x", "_y")]
        mark = " " if row["verdict_x"] in (row["verdict_y"], "not testable here") else "≠"
        where = typeset(of_paper(row["where_x"]))
        claim = f"{row['paper']} {row['claim']}: {row['statement_x']} ({where})"
        both_say = [f"    both: {says[0]}"]
        differ = [f"    published: {says[0]}", f"    this run: {says[1]}"]
        lines += [f"{mark} {claim}", *(both_say if says[0] == says[1] else differ)]
    return lines


def _summary(judged: list[Judged], seeds: Seeds) -> list[str]:
    """A row per kind: how its records agree."""
    rows = [(one.published["kind"], one.outcome) for one in judged]
    found = pd.DataFrame(rows, columns=["kind", "outcome"])
    table = pd.crosstab(found["kind"], found["outcome"]).reindex(columns=OUTCOMES, fill_value=0)
    tests = sum(one.p is not None for one in judged)
    words = ", ".join(f"{kind} {deviation:.2g}" for kind, (deviation, _) in seeds.items())
    says = f"compared by chance: {tests:,}; deviation over seeds of healing: {words or 'unknown'}"
    return [*table.replace(0, "–").to_string().split("\n"), "", LEGEND, *([says] if tests else [])]


def _times(judged: list[Judged]) -> list[str]:
    lines = []
    for one in judged:
        if one.published["kind"] == "cost" and one.outcome in ("equal", "within"):
            sides = [pd.DataFrame(of["value"]["models"]) for of in (one.published, one.own)]
            try:
                before, now = (side[["read", "write"]].map(statistics.median) for side in sides)
                times = (now / before).median()
            except UNFIT:  # its table says so
                continue
            lines.append(f"{_named(one)}: read {times['read']:.2f}, write {times['write']:.2f}")
    return lines


def _surroundings(run: RecordedRun) -> list[str]:
    """On what records were made, with what and by which code."""
    keys = ("processor", "threads", "packages", "commit")
    made = [[record["provenance"].get(key) for key in keys] for record in run.records]
    counts = Counter(", ".join(map(str, one)) for one in made)
    return [f"{run.where}: {count:,} records on {what}" for what, count in counts.most_common()]


def _named(one: Judged) -> str:
    seed = (one.published["inputs"].get("healing") or {}).get("seed")  # which names do not say
    name = f"{one.published['kind']} '{one.published['name']}'"
    return f"{name} seed {seed}" if seed is not None else name


def text(found: Comparison, longest: int | None = None) -> str:
    """All parts under their titles, all but the claims cut; long lines go on below, farther in."""
    whole = {"break_on_hyphens": False, "break_long_words": False}
    fold = textwrap.TextWrapper(WIDTH, subsequent_indent=" " * 8, **whole).fill
    blocks = []
    for title, lines in found.parts.items():
        shown = lines if title == CLAIMS else lines[:longest]
        if more := len(lines) - len(shown):
            shown = [*shown, f"… and {more:,} more lines, in the report"]
        blocks.append("\n".join([title, *(fold(f"  {line}") for line in shown)]))
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
    try:
        study = studies.load(parser.parse_args(arguments).study)
        found = compare(study)
        path = paths.BUILD / "compare" / f"{study.name}.md"
        write_atomically(path, report(study, found))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was changed", file=sys.stderr)
        return 130
    print(text(found, LONGEST), end="\n\n")
    print(f"report: {os.path.relpath(path)}")
    print(found.judgement)
    return 0 if found.agrees else 1


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `… | head` ends without a traceback
    sys.exit(main())
