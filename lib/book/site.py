"""From executed notebooks to the site: stage them beside the book's pages, then Jupyter Book.

    python -m lib.book.site --study almanac

The default study's pages stand under notebooks/, as in the repository; every other study that has
been run in this clone under studies/<name>/. Without the default study, the one asked for opens
the book.
"""

import argparse
import copy
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from lib import paths, study
from lib.book import (
    figure_sources,
    finish,
    page_labels,
    page_tables,
    parts,
    published_pages,
    repository,
    status,
)
from lib.book.parts import Part
from lib.errors import UserError
from lib.schema import Study

STAGE = paths.BUILD / "stage"
# With rfc3987_syntax jsonschema builds 38 parsers, a third of the time, for formats not used here.
JUPYTER_BOOK = """
import sys
sys.modules["rfc3987_syntax"] = None
from jupyter_book.cli.main import main
main()
"""
CARD = re.compile(r'<a href="(?P<file>\w+\.html)#claim-[^"]*"[^>]*>(?P<words>.*?)</a>', re.S)
DOWNLOAD = re.compile(r"\{download\}`(?P<words>(?P<file>\w+\.csv)) <tables/\w+\.csv>`")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.book.site", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--study", default=paths.DEFAULT_STUDY)
    try:
        return build(study.load(parser.parse_args().study))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def build(chosen: Study) -> int:
    """Stage everything and build _build/html; warnings are errors. Returns the exit code."""
    studies = present(chosen)
    shown = [parts.run_here(one) for one in studies]
    shown += published_pages.parts({one.name for one in studies})
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(paths.ROOT / "book", STAGE / "book")
    page_tables.write(STAGE / "book" / "tables")
    named = page_labels.suffixes(shown)
    for one in shown:
        stage_part(one, named[one.name], elsewhere=(shown[0], named[shown[0].name]))
    link_pages(shown[0], named[shown[0].name])
    # No page by itself, in whatever folder this clone lies: its headings begin below the first.
    told = status.markdown(shown)
    (STAGE / "book" / "tables" / "status.txt").write_text(told, encoding="utf-8")
    stage_settings(STAGE, contents(shown))
    for old in ("html", ".doctrees", "jupyter_execute"):
        shutil.rmtree(paths.BUILD / old, ignore_errors=True)
    code = jupyter_book(STAGE, paths.ROOT, ["-W", "-n", "--keep-going"], feet(shown))
    if code == 0:
        finish.addressed(paths.BUILD / "html", repository.settings()["title"])
    for one in shown if code == 0 else ():
        redirect(one)
    return code


def stage_settings(stage: Path, toc: dict[str, Any]) -> None:
    """What a build of pages needs beside them."""
    config = repository.configured()
    config["html"]["extra_footer"] = finish.FOOT
    for name, settings in ((repository.CONFIG, config), ("_toc.yml", toc)):
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        (stage / name).write_text(text, encoding="utf-8")
    shutil.copytree(paths.ROOT / "book" / "_static", stage / "_static")


def jupyter_book(
    stage: Path, out: Path, options: list[str], foot: Callable[[str], str], log: Any = None
) -> int:
    """Build out/_build/html of what is staged, finished with feet. log: a file for what is printed.
    Returns the exit code."""
    program = [sys.executable, "-c", JUPYTER_BOOK, "build", str(stage), "--path-output", str(out)]
    # From the repository, whose lib has the extension that _config.yml names.
    done = subprocess.run([*program, *options], cwd=paths.ROOT, stdout=log, stderr=log)
    if done.returncode == 0:
        finish.finish(out / "_build" / "html", repository.settings()["title"], foot)
    return done.returncode


def feet(shown: list[Part]) -> Callable[[str], str]:
    """The foot of a page by its path: of its own run, where it is the page of a section."""
    runs = {
        f"{one.folder}/{Path(name).stem}": (one.run(name), one.published)
        for one in shown
        for name in one.notebooks
    }
    return lambda page: status.foot(*runs.get(page, ({},)))


def redirect(one: Part) -> None:
    """At the old address of a page that has moved stands where a study has it now, if it does."""
    moved = yaml.safe_load((paths.ROOT / "book" / "moved.yml").read_text("utf-8"))
    folder = paths.BUILD / "html" / one.folder
    for old, new in moved.items():
        if not (folder / f"{new}.html").is_file():
            continue  # a published run may lack a section
        there = finish.moved(f"{new}.html", f"{one.folder}/{old}")
        (folder / f"{old}.html").write_text(there, encoding="utf-8")


def present(chosen: Study) -> list[Study]:
    """Studies with every section executed: the default first, then the chosen one, then others.

    A study whose file is gone keeps its results but has no pages.

    Raises UserError when the chosen study has not been run to its end."""
    if not _complete(chosen.name):
        raise UserError(f"study {chosen.name}: not all of its sections have been run; `make book`")
    found = {chosen.name: chosen}
    for folder in sorted((paths.BUILD / "executed").iterdir()):
        record = folder / "study.json"
        if folder.name in found or not record.exists() or not _complete(folder.name):
            continue
        file = Path(json.loads(record.read_text())["file"])
        try:
            found[folder.name] = study.load(str(file))
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    default = found.pop(paths.DEFAULT_STUDY, None)
    return ([default] if default else []) + list(found.values())


def _complete(name: str) -> bool:
    pages = [paths.executed(name, path.name) for path in paths.sections().values()]
    return all(path.exists() for path in [*pages, paths.tables(name) / "verdicts.csv"])


def stage_part(one: Part, suffix: str, elsewhere: tuple[Part, str]) -> None:
    """suffix: of its labels, where it is not the default study. elsewhere: the part, and its
    suffix, to which references to sections lead that a published run does not have."""
    notebooks, (first, other) = copy.deepcopy(one.executed), elsewhere
    own, there = (
        set().union(*(page_labels.labels(notebook) for notebook in part.executed.values()))
        for part in (one, first)
    )
    for notebook in notebooks.values():
        if one.name != paths.DEFAULT_STUDY:
            page_labels.rename_labels(notebook, own, suffix)
        if first.name != paths.DEFAULT_STUDY:
            page_labels.rename_labels(notebook, there - own, other)
    there = {f"{Path(name).stem}.html" for name in notebooks}
    there |= {table.name for table in one.tables.glob("*.csv")}
    for notebook in notebooks.values() if one.published else ():
        unlink_absent(notebook, there)
    stage_notebooks(STAGE / one.folder, one.tables, notebooks)


def unlink_absent(notebook: dict[str, Any], there: set[str]) -> None:
    """What a published run does not have is not linked: pages with cards of claims, and tables."""

    def plain(link: re.Match[str]) -> str:
        return link[0] if link["file"] in there else link["words"]

    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = DOWNLOAD.sub(plain, "".join(cell["source"]))
        for output in cell.get("outputs", ()):
            for kind, text in output.get("data", {}).items():
                if kind == "text/html":
                    output["data"][kind] = CARD.sub(plain, "".join(text))


def stage_notebooks(folder: Path, tables: Path, notebooks: dict[str, dict[str, Any]]) -> None:
    """Executed notebooks, by the names of their files, and the study's tables."""
    (folder / "tables").mkdir(parents=True)
    for table in tables.glob("*.csv"):
        shutil.copy(table, folder / "tables")
    there = {table.stem for table in (folder / "tables").iterdir()}
    for name, notebook in notebooks.items():
        tidy(notebook)
        number(notebook, name)
        commit = notebook["metadata"].get("run", {}).get("commit", "")
        figure_sources.add(notebook, there, commit if commit != "unknown" else "")
        (folder / name).write_text(json.dumps(notebook, ensure_ascii=False), encoding="utf-8")


def tidy(notebook: dict[str, Any]) -> None:
    """For the page: no progress bars, no injected parameters in sight, no path of this machine."""
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        cell["metadata"].pop("papermill", None)
        tags = cell["metadata"].get("tags", [])
        if "injected-parameters" in tags:
            tags.append("remove-cell")
            cell["source"] = re.sub(
                r'^study = ".*/', 'study = "', "".join(cell["source"]), flags=re.M
            )
        if cell["cell_type"] == "code":
            cell["outputs"] = [o for o in cell["outputs"] if o.get("name") != "stderr"]


def number(notebook: dict[str, Any], name: str) -> None:
    """Put the number that a section has in its file's name before its title, as commands and
    documents call it; a section dropped leaves its number out."""
    digits = re.match(r"(\d+)_", name)
    first = next((cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"), None)
    if digits and first:
        title, text = rf"# {int(digits[1])} · ", "".join(first["source"])
        first["source"] = re.sub(r"^# (?=\S)", title, text, count=1, flags=re.M)


def link_pages(first: Part, suffix: str) -> None:
    """Prose pages refer to the sections of the study that opens the book, whose labels may have a
    suffix."""
    if first.name == paths.DEFAULT_STUDY:
        return
    sources = paths.sections().values()
    own = set().union(
        *(page_labels.labels(json.loads(path.read_text("utf-8"))) for path in sources)
    )
    for page in (STAGE / "book").glob("*.md"):
        text = page_labels.renamed(page.read_text("utf-8"), own, suffix)
        page.write_text(text, encoding="utf-8")


def contents(shown: list[Part]) -> dict[str, Any]:
    """The table of contents: the repository's _toc.yml about the first study, a part per other."""
    text = (paths.ROOT / "_toc.yml").read_text(encoding="utf-8")
    toc = yaml.safe_load(text.replace("notebooks/", shown[0].folder + "/"))
    for other in shown[1:]:
        # MathJax looks for formulas in the contents too: a joiner parts what begins one.
        title = re.sub(r"(\\|\$(?=\$))", "\\1\N{WORD JOINER}", other.study.title)
        kind = "A published run" if other.published else "Another model"
        chapters = [{"file": page} for page in other.pages]
        chapters[0]["title"] = "At a glance"  # the page's own title is the book's
        toc["parts"].append({"caption": f"{kind}: {title}", "chapters": chapters})
    return toc


if __name__ == "__main__":
    sys.exit(main())
