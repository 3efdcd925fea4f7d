"""Every run that stands in this clone's results/ or under published/, with its tables.

found = runs(opened)     # the page's study first, then the others, the shallowest first
qa = table(found, "qa")    # as the sections wrote it, with the columns `run`, `study`, `sign`
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lib import paths
from lib import study as studies
from lib.claims.rules.reading import read
from lib.errors import UserError
from lib.experiments.conditions import main_conditions
from lib.experiments.opened import OpenStudy
from lib.models import anatomy, checkpoints
from lib.schema import Study
from lib.sections import tables
from lib.sections.angular_distances import angular_distances

# The columns that are read: words, numbers, and numbers that may be missing.
COLUMNS = {
    "angular_distances": ([], ["n", "start", "distance", "stderr"], []),
    "qa": (
        ["task", "strategy", "state", "healing", "weights"],
        ["shots", "n", "fraction", "accuracy", "stderr"],
        ["guess", "constant"],
    ),
    "loss": (
        ["corpus", "strategy", "state", "healing", "weights"],
        ["n", "fraction", "loss", "normalized_loss", "stderr"],
        [],
    ),
    "transitions": (
        ["task", "strategy", "state", "healing", "weights"],
        ["shots"],
        ["fraction", "low", "high"],
    ),
    "verdicts": (["paper", "statement", "verdict"], ["claim"], []),
}
MODEL = ["strategy", "n", "state", "healing", "weights"]  # which of a study's models a row is about
CURVE = ["task", "shots", "strategy", "state", "healing", "weights"]


@dataclass(frozen=True, eq=False)
class Run:
    """One study with its tables by name. `title` is unique among the runs of a page, `sign` says
    what kind of model it is; `parameters` is None where the model's shape is not known here."""

    name: str
    title: str
    sign: str
    layers: int
    parameters: int | None
    folder: Path
    tables: dict[str, pd.DataFrame]


class Unusable(Exception):
    """This run cannot stand beside others; the message says why."""


def every_run(opened: OpenStudy, told: bool = True) -> list[Run]:
    """The page's study, then every other run, the shallowest and smallest first. told: say
    which runs are left out and why, and when there is no other.

    Raises UserError when the page's study has not been measured."""
    found = [_own(opened), *others(opened.study.name, told)]
    if told and len(found) == 1:
        print("No other study has been run in this clone or published: this one stands alone.")
    titles = [run.title for run in found]
    return [
        replace(run, title=f"{run.title} ({run.name})") if titles.count(run.title) > 1 else run
        for run in found
    ]


def _own(opened: OpenStudy) -> Run:
    conditions = main_conditions(opened)
    made = {
        "angular_distances": angular_distances(opened),
        "qa": tables.qa_table(opened, conditions),
        "loss": tables.loss_table(opened, conditions),
        "transitions": tables.transition_table(opened, conditions),
    }
    study = opened.study
    size, folder = parameters(study), opened.tables
    return Run(study.name, study.title, study.sign, opened.n_layers, size, folder, made)


def others(own: str, told: bool = True) -> list[Run]:
    """Every whole run but the study `own`. Results of this clone go before what is published under
    the same name. told: say which are left out, and why."""
    found: dict[str, Run] = {}
    for published in (False, True):
        base = paths.published("") if published else paths.results("")
        for folder in sorted(base.glob("[!.]*/tables")):
            name = folder.parent.name
            if name == own or name in found:
                continue
            try:
                found[name] = _read(name, folder, published)
            except Unusable as reason:
                where = "published" if published else "run here"
                if told:
                    print(f"left out: {name} ({where}): {reason}")
    return sorted(found.values(), key=lambda run: (run.layers, run.parameters or 0, run.name))


def _read(name: str, folder: Path, published: bool) -> Run:
    study, size = _about(name, published)
    read = {table: _table(folder / f"{table}.csv") for table in COLUMNS}
    layers = int(read["angular_distances"]["n"].max()) + 1
    _check_whole(read, layers)
    return Run(name, study.title, study.sign, layers, size, folder, read)


def _about(name: str, published: bool) -> tuple[Study, int | None]:
    """The study as far as it is known, and its parameters. A run of this clone left the path of its
    study's file; a published one its settings."""
    note = paths.published(name) / "study.json" if published else paths.executed(name, "study.json")
    try:
        about = json.loads(note.read_text("utf-8"))
        if not published:
            study = studies.load(about["file"])
            return study, parameters(study)
        shape, title = about["settings"].get("shape"), about["title"] or name
        sign = studies.published_sign(about, name)
        study = Study(model=name, name=name, shape=shape, title=title, sign=sign)
        return study, parameters(study) if shape else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError):
        raise Unusable(f"{note.name} or the study it names is missing or damaged") from None


def parameters(study: Study) -> int | None:
    """The model's parameters, counted without weights from the study's `shape` or else from the
    model's own configuration; None where neither is at hand."""
    try:
        config = (
            checkpoints.config_of_shape(study) if study.shape else checkpoints.load_config(study)
        )
        return anatomy.sizes(config)[0]
    except (UserError, ValueError):
        return None


def _table(path: Path) -> pd.DataFrame:
    """A table whose columns are there and hold what they should."""
    words, numbers, gaps = COLUMNS[path.stem]
    try:
        found = read(path)
    except FileNotFoundError:
        raise Unusable(f"{path.name} is missing: not run to its end") from None
    except (OSError, ValueError):
        raise Unusable(f"{path.name} cannot be read") from None
    if absent := [key for key in [*words, *numbers, *gaps] if key not in found]:
        raise Unusable(f"{path.name} has no column '{absent[0]}'")
    if found.empty:
        raise Unusable(f"{path.name} has no rows")
    values = found[[*numbers, *gaps]].apply(pd.to_numeric, errors="coerce")
    sound = np.isfinite(values)
    sound[gaps] |= found[gaps].isna()
    damaged = [*values.columns[~sound.all()], *(key for key in words if found[key].isna().any())]
    if damaged:
        raise Unusable(f"{path.name} is damaged in column '{damaged[0]}'")
    return found.assign(**values)


def _check_whole(read: dict[str, pd.DataFrame], layers: int) -> None:
    """Raises Unusable where rows are missing: each table says which rows the others must have."""
    distances, qa, loss = (read[name] for name in ("angular_distances", "qa", "loss"))
    blocks = ((n, start) for n in range(1, layers) for start in range(layers - n + 1))
    found = set(_keys(distances, ["n", "start"]))
    # As many as there are blocks, before they are listed: a damaged n may be huge.
    if not len(found) == len(distances) == layers * (layers + 1) // 2 - 1 or found != set(blocks):
        raise Unusable("angular_distances.csv does not hold every block once")
    for name, rows in (("qa", qa), ("loss", loss)):
        if not np.allclose(rows["fraction"], rows["n"] / layers):
            raise Unusable(f"{name}.csv is of a model that has not {layers} layers")
    evaluated = set(_keys(loss, MODEL))
    if not any(key[0] == "none" and key[2] == "unhealed" for key in evaluated):
        raise Unusable("loss.csv does not hold the unpruned model")
    for (task, shots), rows in qa.groupby(["task", "shots"]):
        if set(_keys(rows, MODEL)) != evaluated:
            raise Unusable(f"qa.csv ({task}, {shots}-shot) and loss.csv are not of the same models")
    curves = set(_keys(qa[qa["strategy"] != "none"], CURVE))
    if set(_keys(read["transitions"], CURVE)) != curves:
        raise Unusable("transitions.csv and qa.csv are not of the same curves")
    if read["verdicts"].duplicated(["paper", "claim"]).any():
        raise Unusable("verdicts.csv names a claim twice")


def _keys(rows: pd.DataFrame, columns: list[str]) -> Iterator[tuple]:
    return rows[columns].itertuples(index=False, name=None)


def table(found: list[Run], name: str) -> pd.DataFrame:
    """A table of all runs, one below the other, with the columns `run` (its title), `study` (its
    name) and `sign`."""
    parts = [run.tables[name].assign(run=run.title, study=run.name, sign=run.sign) for run in found]
    return pd.concat(parts, ignore_index=True)
