"""What a section is, and finding all of them: notebooks/NN_name.ipynb and lib/sections/name.py.

Importing this module is cheap: those of the sections are imported when they are loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from lib import paths
from lib.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from lib.experiments.conditions import Condition
    from lib.experiments.opened import OpenStudy


@dataclass(frozen=True)
class Table:
    """A tidy table, results/<study>/tables/<name>.csv.

    make: from evidence, or measured now; None where the study does without it. row: what a row is
    about. columns: by name what each holds, in any order. published: whether it is made of this
    study's evidence alone, and so belongs into a reference run. written: whether the notebook
    writes it; else it is made for a reference run alone."""

    name: str
    make: Callable[[OpenStudy], pd.DataFrame | None]
    row: str
    columns: dict[str, str]
    published: bool = True
    written: bool = True


@dataclass(frozen=True)
class Extra:
    """Something that a section measures beside the models' answers, losses and texts.

    name: of its job; what: in words; tokens: that the whole model reads for it; seconds: that it
    takes beside, estimated; trains and asks: models, as far as is known beforehand; alone: times
    are taken, so nothing may run beside it; needs: names of jobs that come before; after_models:
    all models of the section do, too."""

    name: str
    what: str
    measure: Callable[[OpenStudy], object]
    tokens: int = 0
    seconds: float = 0.0
    trains: tuple[Condition, ...] = ()
    asks: tuple[Condition, ...] = ()
    alone: bool = False
    needs: tuple[str, ...] = ()
    after_models: bool = False


@dataclass(frozen=True)
class Section:
    """What a notebook needs and makes. Everything else follows from it: jobs, what a verdict reads,
    what is published and compared, and the tables of columns in the book.

    conditions: the models that it evaluates, in groups; a group's name tells models apart that
    have one strategy, n, recipe and seed, and is empty for most. extras: what else it measures.
    tables: what it makes. claims: the papers' claims that it shows, as "gromov-7"; cards: those
    whose cards stand on its page, where it needs the verdicts on all claims; reads: tables of other
    sections that it shows, beside those that its claims need; runs: it shows tables of other
    studies too, run here or published. in_short: what was found, in a sentence or two that follow
    from its tables, which are all there, empty where the study does without; "" where that is too
    little to tell. None: its page needs no such sentence."""

    conditions: Callable[[OpenStudy], dict[str, list[Condition]]] = lambda opened: {}
    extras: Callable[[OpenStudy], list[Extra]] = lambda opened: []
    tables: tuple[Table, ...] = ()
    claims: tuple[str, ...] = ()
    cards: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    runs: bool = False
    in_short: Callable[[OpenStudy, dict[str, pd.DataFrame]], str] | None = None


def notebooks() -> dict[str, Path]:
    """Name → notebook of every section, in the order of _toc.yml.

    Raises UserError for a page of _toc.yml without a notebook, a notebook without a page or
    without a module, and a module with a SECTION but no notebook."""
    found = paths.sections()
    pages = {path.stem for path in found.values()}
    modules = {
        path.stem
        for path in (paths.ROOT / "lib" / "sections").glob("*.py")
        if re.search(r"^SECTION\b", path.read_text("utf-8"), re.M)
    }
    for path in found.values():
        if not path.exists():
            raise UserError(f"_toc.yml: notebooks/{path.stem}: there is no notebooks/{path.name}")
    for path in sorted(paths.NOTEBOOKS.glob("*.ipynb")):
        if path.stem not in pages:
            raise UserError(f"notebooks/{path.name}: _toc.yml does not list it")
    for name, path in found.items():
        if name not in modules:
            raise UserError(
                f"notebooks/{path.name}: there is no lib/sections/{name}.py with a SECTION"
            )
    for name in sorted(modules - found.keys()):
        raise UserError(f"lib/sections/{name}.py: there is no notebook '{name}' in notebooks/")
    return found


def names() -> list[str]:
    """All sections by name, in the order of _toc.yml. Raises UserError as `notebooks` does."""
    return list(notebooks())


@cache
def load(name: str) -> Section:
    """Raises UserError where the module is missing or has no SECTION."""
    module = f"lib.sections.{name}"
    try:
        return import_module(module).SECTION
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise UserError(f"section {name}: there is no lib/sections/{name}.py") from None
    except AttributeError:
        raise UserError(f"section {name}: lib/sections/{name}.py has no SECTION") from None


class Every(tuple[str, ...]):
    """The claims of all papers: of a section that needs their verdicts, not one that shows them."""


def every_claim() -> Every:
    from lib.claims import papers

    return Every(
        f"{name}-{claim.number}" for name, paper in papers().items() for claim in paper.claims
    )


def home(claim: str) -> Path | None:
    """The notebook of the section on whose page a claim's card stands, the first if there are
    several; None where that is no section's own."""
    for name, notebook in notebooks().items():
        one = load(name)
        if claim in (one.cards if isinstance(one.claims, Every) else one.claims):
            return notebook
    return None


def claim_reads(claim: str) -> tuple[str, ...]:
    """The tables that a claim's rule reads."""
    from lib.claims import find

    return find(claim).tables


def tables() -> dict[str, Table]:
    """The tables of all sections by name, in the order of the sections."""
    return {table.name: table for name in names() for table in load(name).tables}


def writers() -> dict[str, str]:
    """Table → the section that writes it.

    Raises UserError for a table that two sections write."""
    found: dict[str, str] = {}
    written = []
    for name in names():
        for table in load(name).tables:
            if table.name in found:
                raise UserError(
                    f"section {name}: table '{table.name}' is of section {found[table.name]} "
                    "already; give it another name"
                )
            found[table.name] = name
            written += [table.name] * table.written
    return {table: found[table] for table in written}


def reads(name: str) -> list[str]:
    """The other sections whose tables a section shows, or its claims need, in their order.

    Raises UserError for a table that no section writes."""
    section, written = load(name), writers()
    wanted = [(f"section {name}", table) for table in section.reads]
    wanted += [(claim, table) for claim in section.claims for table in claim_reads(claim)]
    for who, table in wanted:
        if table not in written:
            raise UserError(
                f"{who}: reads table '{table}', which no section writes; there are "
                f"{', '.join(written)}"
            )
    before = {written[table] for _, table in wanted} - {name}
    return [one for one in names() if one in before]
