"""What a section is, and finding all of them: notebooks/NN_name.ipynb and lib/sections/name.py."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module

import pandas as pd
import yaml

from lib import paths
from lib.errors import UserError
from lib.experiments.conditions import Condition
from lib.experiments.opened import OpenStudy


@dataclass(frozen=True)
class Table:
    """A tidy table, results/<study>/tables/<name>.csv.

    make: from evidence, or measured now; None where the study does without it. columns: by name
    what each holds. published: whether it is made of this study's evidence alone, and so belongs
    into a reference run."""

    name: str
    make: Callable[[OpenStudy], pd.DataFrame | None]
    columns: dict[str, str]
    published: bool = True


@dataclass(frozen=True)
class Extra:
    """Something that a section measures beside accuracies, losses and texts of models. `name` is
    that of its job. seconds: what it takes, estimated, from the seconds of one layer and token."""

    name: str
    what: str
    measure: Callable[[OpenStudy], object]
    alone: bool = False  # times are taken: nothing may run beside it


@dataclass(frozen=True)
class Section:
    """What a notebook needs and makes. Everything else follows from it: jobs, what a verdict reads,
    what is published and compared, and the tables of columns in the book.

    conditions: the models that it evaluates, in groups; a group's name tells models apart that
    have one strategy, n, recipe and seed, and is empty for most. extras: what else it measures.
    tables: what it writes. claims: the papers' claims that it shows, as "gromov.flat-region";
    reads: further tables, of other sections, that it shows."""

    conditions: Callable[[OpenStudy], dict[str, list[Condition]]] = lambda opened: {}
    extras: Callable[[OpenStudy], list[Extra]] = lambda opened: []
    tables: tuple[Table, ...] = ()
    claims: tuple[str, ...] = ()
    reads: tuple[str, ...] = field(default=())


def names() -> list[str]:
    """All sections by name, in the order of _toc.yml.

    Raises UserError for a page of it without a notebook, and a notebook without a page."""
    text = (paths.ROOT / "_toc.yml").read_text("utf-8")
    pages = re.findall(r"notebooks/(\w+)", yaml.safe_dump(yaml.safe_load(text), sort_keys=False))
    return [short(page) for page in pages]


def short(stem: str) -> str:
    """A notebook's name without its number: 05_lora_rank → lora_rank."""
    return re.sub(r"^\d\d_", "", stem)


@cache
def load(name: str) -> Section:
    """Raises UserError where the module is missing or has no SECTION."""
    try:
        return import_module(f"lib.sections.{name}").SECTION
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"section {name}: lib/sections/{name}.py: {error}") from None
