"""What pages of the book include: tables, and BibTeX.

python -m lib.book.page_tables FOLDER    # those about models and about tables, which take torch

The site calls `write`, which imports no torch. It has another process make the tables that take it,
and only where a study's file or the code has changed since they were made last.
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from lib import paths
from lib.book import citing, published_verdicts, sources, took
from lib.book.took import Rows
from lib.claims.rules import lu_printed
from lib.errors import UserError
from lib.evidence.records import digest, file_digest
from lib.files import write_atomically
from lib.words import plain, unbroken

NAMES = ("study", "run", "model", "section", "on")  # columns whose words stay on one line


def write(folder: Path) -> None:
    """Every table of the pages. Raises UserError where those that take torch cannot be made."""
    kept = paths.BUILD / "page_tables"
    note, made = kept / "made_from", kept / "tables"
    of_studies = {path.name: file_digest(path) for path in paths.STUDIES.glob("*.yaml")}
    code = sources.helpers(["book.page_tables", *sources.discovered()])
    made_from = digest([of_studies, code])
    if not note.is_file() or note.read_text("utf-8") != made_from:
        shutil.rmtree(kept, ignore_errors=True)
        command = [sys.executable, "-m", "lib.book.warm", "lib.book.page_tables", str(made)]
        if subprocess.run(command, cwd=paths.ROOT).returncode:
            raise UserError("pages: their tables cannot be made; the lines above say why")
        write_atomically(note, made_from)
    shutil.copytree(made, folder, dirs_exist_ok=True)
    # These need no torch. What runs took changes with every run.
    _write(folder, {f"cost_{name}": _as_text(rows) for name, rows in took.tables().items()})
    _write(folder, {f"audit_{name}": rows for name, rows in lu_printed.tables().items()})
    found = published_verdicts.tables()
    _write(folder, {f"verdicts_{name}": _as_text(rows) for name, rows in found.items()})
    (folder / "cite.md").write_text(citing.markdown(), encoding="utf-8")


def _write(folder: Path, tables: Mapping[str, Rows]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        text = tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True)
        (folder / f"{name}.md").write_text(f"{text or 'There is none yet.'}\n", encoding="utf-8")


def _as_text(rows: Rows) -> Rows:
    """Cells that Markdown takes for nothing but text: they may come from a user's files."""
    return [{key: _cell(key, str(cell)) for key, cell in row.items()} for row in rows]


def _cell(column: str, text: str) -> str:
    return unbroken(plain(text)) if column in NAMES else plain(text)


def main(arguments: Sequence[str]) -> int:
    """Those tables that need the models' shapes, or what sections say of theirs."""
    from lib.book import costs, model_tables
    from lib.sections import columns

    folder = Path(arguments[0])
    try:
        _write(folder, model_tables.tables())
        _write(folder, {f"cost_{name}": _as_text(rows) for name, rows in costs.tables().items()})
        (folder / "columns.md").write_text(columns.columns_markdown(), encoding="utf-8")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
