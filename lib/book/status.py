"""When and with what each page was run, and what came out: the status page, and the foot of pages.

A notebook holds what it was run with (`lib.book.notebooks`); verdicts come from the study's table.
"""

import datetime
import re
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from lib import paths
from lib.book import repository
from lib.book.parts import Part
from lib.claims.rules.reading import read
from lib.evidence import provenance
from lib.words import plain, spoken

Run = dict[str, Any]
SHOWN = ("torch", "transformers", "peft", "bitsandbytes", "lm_eval")  # packages at the foot


@cache
def version() -> str:
    """Of the book, as CITATION.cff says."""
    return str(yaml.safe_load((paths.ROOT / "CITATION.cff").read_text("utf-8"))["version"])


def foot(run: Run, published: bool = False) -> str:
    """For the foot of a page: version, commit, date, machine and packages of its run. Of a page
    that is not run (empty): version, commit and date of the site. published: only what somebody
    published was shown."""
    if run:
        did, about = "drawn from published evidence" if published else "run", run
    else:
        now = datetime.datetime.now(datetime.UTC).isoformat()
        did, about = "built", {"when": now, "commit": provenance.surroundings()["commit"]}
    parts = [f"Version {version()}", f"{did} {about['when'][:10]}"]
    if about["commit"] != "unknown":
        short = about["commit"][:7]
        address = f"{repository.address()}/commit/{about['commit']}"
        linked = f'<a href="{escape(address)}">{short}</a>' if repository.address() else short
        parts.append(f"commit {linked}")
    if run:
        packages = [f"{name} {run['packages'][name]}" for name in SHOWN if name in run["packages"]]
        parts.append(escape(f"on {run['processor']}, Python {run['python']}"))
        parts.append(escape(", ".join(packages)))
    return f'<p class="about-run">{" · ".join(parts)}</p>'


def markdown(shown: Sequence[Part]) -> str:
    """A table per study."""
    found = []
    for one in shown:
        told = verdicts(one.tables / "verdicts.csv")
        rows = [_row(one, name, told) for name in one.notebooks]
        table = tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True)
        kind = " (a published run)" if one.published else ""
        found.append(f"## {plain(one.study.title)}{kind}\n\n{table}\n")
    return "\n".join(found)


def verdicts(table: Path) -> dict[str, str]:
    """Claim, as gromov-7, → its verdict."""
    rows = read(table).itertuples()
    return {f"{row.paper}-{row.claim}": row.verdict for row in rows}


def _row(one: Part, name: str, found: dict[str, str]) -> dict[str, str]:
    run, page = one.run(name), f"/{one.folder}/{name}"
    text = "\n".join("".join(cell["source"]) for cell in one.executed[name]["cells"])
    title = re.search(r"^# (.+)$", text, re.M)
    number = Path(name).stem.split("_")[0]
    name = title[1] if title else Path(name).stem
    name = f"{number} · {name}" if number.isdigit() else name
    shown = [found[claim] for claim in re.findall(r'"(\w+-\d+)"', text) if claim in found]
    counted = {one: shown.count(one) for one in dict.fromkeys(shown)}
    return {
        "section": f"[{plain(name)}]({page})",
        "ran (UTC)": run["when"][:16].replace("T", " ") if run else "not recorded",
        "took": spoken(run["seconds"]) if run else "–",
        "verdicts": ", ".join(f"{count} {one}" for one, count in counted.items()) or "–",
    }
