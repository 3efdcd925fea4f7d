"""The end of a section that was run by itself: what it found, and its page.

The page is built as those of the site are, alone: what it refers to on other pages has no links.
"""

import json
import shutil
from pathlib import Path

from lib import claims, paths
from lib.book import site, status
from lib.schema import Study
from lib.sections import pages
from lib.sections import section as sections
from lib.words import typeset

FEW = 12  # claims that are listed one by one; of more the page has them


def show(one: Study, name: str, executed: Path) -> None:
    """Print where the executed notebook of a section lies, its verdicts, and where its page is."""
    print(f"executed notebook: {executed}")
    ids = sections.load(name).claims
    for row in _verdicts(one, ids) if len(ids) <= FEW else ():
        asked = f"; asked for: {row.asked}" * (row.asked != "–")
        print(f"{row.paper} {row.claim}: {row.verdict} ({typeset(row.reason + asked)})")
    page = build(one, executed)
    print(f"page: {page}" if page.is_file() else f"no page of it could be built; see {_log(page)}")


def _verdicts(one: Study, ids: tuple[str, ...]) -> list:
    return list(claims.verdicts(pages.tables_of(one.name), list(ids)).itertuples())


def build(one: Study, executed: Path) -> Path:
    """Build the page of an executed notebook; returns where it is, if that has gone well."""
    folder = paths.BUILD / "pages" / one.name
    page = folder / "_build" / "html" / f"{executed.stem}.html"
    shutil.rmtree(folder, ignore_errors=True)
    stage = folder / "stage"
    (stage / "book").mkdir(parents=True)
    for name in ("references.md", "references.bib"):
        shutil.copy(paths.ROOT / "book" / name, stage / "book")
    notebook = json.loads(executed.read_text("utf-8"))
    foot = status.foot(notebook["metadata"].get("run", {}))
    site.stage_notebooks(stage, paths.tables(one.name), {executed.name: notebook})
    chapters = [{"file": "book/references"}]
    site.stage_settings(stage, {"format": "jb-book", "root": executed.stem, "chapters": chapters})
    with open(_log(page), "w", encoding="utf-8") as log:
        site.jupyter_book(stage, folder, [], lambda _: foot, log)
    return page


def _log(page: Path) -> Path:
    return page.parents[2] / "log.txt"
