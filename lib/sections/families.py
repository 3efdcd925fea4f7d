"""Studies side by side: every run that stands in this clone's results/ or under published/
(Fig. 2, 3, 4 and 6, whose panels hold all of the paper's models).

    runs = families(opened)     # the page's study first, then the others, the shallowest first
    qa = table(runs, "qa")     # as the sections wrote it, with the columns `run` and `study`
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib import paths
from lib import study as studies
from lib.errors import UserError
from lib.experiments.conditions import main_conditions
from lib.experiments.opened import OpenStudy
from lib.models import anatomy, checkpoints
from lib.pruning.dropped import most_similar
from lib.schema import Study
from lib.sections import tables

# The columns that are read: words, numbers, and numbers that may be missing.
COLUMNS = {
    "angular_distances": ([], ["n", "start", "distance", "stderr"], []),
    "qa": (
        ["task", "strategy", "healing", "weights"],
        ["shots", "n", "fraction", "accuracy", "stderr", "guess", "constant"],
        [],
    ),
    "loss": (
        ["corpus", "strategy", "healing", "weights"],
        ["n", "fraction", "loss", "normalized_loss", "stderr"],
        [],
    ),
    "transitions": (
        ["task", "strategy", "healing", "weights"],
        ["shots"],
        ["fraction", "low", "high"],
    ),
    "verdicts": (["paper", "statement", "verdict"], ["claim"], []),
}
MODEL = ["strategy", "n", "healing", "weights"]  # which of a study's models a row is about
CURVE = ["task", "shots", "strategy", "healing", "weights"]

SOURCE = "Gromov et al., §4.1, Fig. 2"
PAPER = [  # family, model, layers, where MMLU falls to chance: the paper's statements, not ours
    ("Llama-2", "7B", 32, "45–55%"),
    ("Llama-2", "13B", 40, "45–55%"),
    ("Llama-2", "70B", 80, "45–55%"),
    ("Mistral", "7B", 32, "35%"),
    ("Phi-2", "2.7B", 32, "25%"),
    ("Qwen", "7B", 32, "20%"),
    ("Qwen", "14B", 40, "20%"),
]


@dataclass(frozen=True, eq=False)
class Run:
    """One study with its tables by name. `title` is unique among the runs of a page; `parameters`
    is None where the model's shape is not known here."""

    name: str
    title: str
    layers: int
    parameters: int | None
    folder: Path
    tables: dict[str, pd.DataFrame]


class Unusable(Exception):
    """This run cannot stand beside others; the message says why."""


def families(opened: OpenStudy) -> list[Run]:
    """The opened's own study, then every other run, the shallowest and smallest first. Says which
    runs are left out and why, and when there is no other.

    Raises UserError when the opened's own study has not been measured."""
    found = [_own(opened), *others(opened.study.name)]
    if len(found) == 1:
        print("No other study has been run in this clone or published: this one stands alone.")
    titles = [run.title for run in found]
    return [
        replace(run, title=f"{run.title} ({run.name})") if titles.count(run.title) > 1 else run
        for run in found
    ]


def _own(opened: OpenStudy) -> Run:
    conditions = main_conditions(opened)
    made = {
        "angular_distances": tables.angular_distances(opened),
        "qa": tables.qa_table(opened, conditions),
        "loss": tables.loss_table(opened, conditions),
        "transitions": tables.transition_table(opened, conditions),
    }
    study = opened.study
    size = parameters(study)
    return Run(study.name, study.title, opened.n_layers, size, paths.tables(study.name), made)


def others(own: str) -> list[Run]:
    """Every whole run but the study `own`. Results of this clone go before what is published under
    the same name. Prints a line for each run that is left out."""
    found: dict[str, Run] = {}
    for published in (False, True):
        base = paths.published("") if published else paths.results("")
        for folder in sorted(base.glob("*/tables")):
            name = folder.parent.name
            if name == own or name in found:
                continue
            try:
                found[name] = _read(name, folder, published)
            except Unusable as reason:
                where = "published" if published else "run here"
                print(f"left out: {name} ({where}): {reason}")
    return sorted(found.values(), key=lambda run: (run.layers, run.parameters or 0, run.name))


def _read(name: str, folder: Path, published: bool) -> Run:
    title, size = _about(name, published)
    read = {table: _table(folder / f"{table}.csv") for table in COLUMNS}
    layers = int(read["angular_distances"]["n"].max()) + 1
    _check_whole(read, layers)
    return Run(name, title, layers, size, folder, read)


def _about(name: str, published: bool) -> tuple[str, int | None]:
    """Title and parameters. A run of this clone left the path of its study's file; a published one
    its settings."""
    note = paths.published(name) / "study.json" if published else paths.executed(name, "study.json")
    try:
        about = json.loads(note.read_text("utf-8"))
        if not published:
            study = studies.load(about["file"])
            return study.title, parameters(study)
        shape = about["settings"].get("shape")
        study = Study(model=name, name=name, shape=shape, title=about["title"] or name)
        return study.title, parameters(study) if shape else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError):
        raise Unusable(f"{note.name} or the study it names is missing or damaged") from None


def parameters(study: Study) -> int | None:
    """The model's parameters, counted without weights from the study's `shape` or else from the
    model's own configuration; None where neither is at hand."""
    try:
        config = (
            checkpoints.config_of_shape(study) if study.shape else checkpoints.load_config(study)
        )
        return sum(one.numel() for one in anatomy.skeleton(config).parameters())
    except (UserError, ValueError):
        return None


def _table(path: Path) -> pd.DataFrame:
    """A table whose columns are there and hold what they should."""
    words, numbers, gaps = COLUMNS[path.stem]
    try:
        found = pd.read_csv(path)
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
    if not any(key[0] == "none" and key[2] == "none" and key[3] != "nf4" for key in evaluated):
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


def table(runs: list[Run], name: str) -> pd.DataFrame:
    """A table of all runs, one below the other, with the columns `run` (its title) and `study`."""
    parts = [run.tables[name].assign(run=run.title, study=run.name) for run in runs]
    return pd.concat(parts, ignore_index=True)


def listing(runs: list[Run]) -> pd.DataFrame:
    """What stands side by side: depth, size, vocabulary, text of the loss, healing, and where from;
    V follows from ln V = loss / normalised loss."""
    rows = []
    for run in runs:
        loss = run.tables["loss"]
        recipes = loss["healing"][loss["healing"] != "none"].unique()
        here = run.folder.parent != paths.published(run.name)
        rows.append(
            {
                "run": run.title,
                "study": run.name,
                "layers": run.layers,
                "parameters": "" if run.parameters is None else f"{run.parameters:,}",
                "vocabulary": f"{np.exp(loss['loss'] / loss['normalized_loss']).median():,.0f}",
                "text of the loss": loss["corpus"].iloc[0],
                "healing": ", ".join(recipes),
                "from": "this clone" if here else "published",
            }
        )
    return pd.DataFrame(rows)


def most_similar_blocks(runs: list[Run]) -> pd.DataFrame:
    """ℓ*(n) of every run (eq. 6): run, n, start. Ties go to the deepest start."""
    rows = [
        {"run": run, "n": n, "start": most_similar(row.sort_values("start")["distance"].to_numpy())}
        for (run, n), row in table(runs, "angular_distances").groupby(["run", "n"], sort=False)
    ]
    return pd.DataFrame(rows)


def critical_fractions(runs: list[Run]) -> pd.DataFrame:
    """families.csv: where the accuracy of the similarity-informed strategy falls to chance, with a
    95% interval (low, high), healed and not; a row per run, task and curve. Empty where no
    transition can be fitted. `own` marks the page's study."""
    found = table(runs, "transitions")
    found = found[found["strategy"] == "similarity"]
    facts = pd.DataFrame(
        {"study": run.name, "layers": run.layers, "parameters": run.parameters, "own": i == 0}
        for i, run in enumerate(runs)
    ).astype({"parameters": "Int64"})
    columns = ["study", "run", "layers", "parameters", "task", "shots", "healing", "weights"]
    found = found.merge(facts, on="study")
    numbers = ["fraction", "low", "high"]
    found[numbers] = found[numbers].astype(float)  # nothing but None where no curve can be fitted
    return found[[*columns, *numbers, "own"]]


def side_by_side(critical: pd.DataFrame) -> pd.DataFrame:
    """The critical fractions for reading: a row per run, before and after healing, a column per
    task; without the unhealed 4-bit models. A dash: no transition could be fitted; empty: the run
    has no such task."""
    shown = critical[(critical["healing"] != "none") | (critical["weights"] != "nf4")]
    rows: dict[tuple[str, bool], dict[str, Any]] = {}
    for row in shown.itertuples():
        healed = row.healing != "none"
        state = {"run": row.run, "layers": row.layers, "": "healed" if healed else "unhealed"}
        fitted = f"{row.fraction:.2f} [{row.low:.2f}, {row.high:.2f}]"
        cells = rows.setdefault((row.run, healed), state)
        cells[f"{row.task} ({row.shots}-shot)"] = "–" if pd.isna(row.fraction) else fitted
    return pd.DataFrame(rows.values()).fillna("")


def verdicts(runs: list[Run], own: pd.DataFrame) -> pd.DataFrame:
    """A row per claim, a column per run; empty where a run says nothing of the claim. `own`: the
    verdicts on the page's study, which are computed after this page."""
    parts = [own.assign(run=runs[0].title), *([table(runs[1:], "verdicts")] if runs[1:] else [])]
    found = pd.concat(parts, ignore_index=True)
    keys = ["paper", "claim"]
    wide = found.pivot(index=keys, columns="run", values="verdict")[[r.title for r in runs]]
    wide.insert(0, "statement", found.groupby(keys)["statement"].first())
    return wide.rename_axis(columns=None).reset_index()


def paper() -> pd.DataFrame:
    """Where the paper says that the healed accuracy of its seven models falls to chance."""
    columns = ["family", "model", "layers", "MMLU falls to chance at"]
    return pd.DataFrame(PAPER, columns=columns).assign(source=SOURCE)
