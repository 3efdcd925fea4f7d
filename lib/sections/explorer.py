"""The explorer: choose a model, a strategy, a number of layers, and see what is left of it.

Everything that it shows stands in the tables of the study and of the runs beside it; between what
was measured it shows nothing. Without scripts it stays away, and the figure above it remains.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML

from lib import labels
from lib.claims.rules.reading import read
from lib.experiments.opened import OpenStudy
from lib.sections.other_runs import others
from lib.sections.tables import strategies

STATES = ("unhealed", "healed")
PROMPTS = 3  # of each run, whose continuations are shown
LONGEST = 300  # characters of a continuation
SHELL = """
<div class="explorer mathjax_ignore" role="group" aria-label="Explorer" hidden>
<p class="explorer-controls">
<label class="run">Model <select name="run"></select></label>
<label class="strategy">Chosen by <select name="strategy"></select></label>
<label class="healed"><input type="checkbox" name="healed"> healed</label>
<label class="n"><output></output> <input type="range" name="n" min="0" step="1"></label>
</p>
<div class="explorer-shown">
<div class="stack" role="img"></div>
<div class="rows" aria-live="polite"></div>
</div>
<p class="explorer-notes"></p>
<div class="writes"><label>It goes on from <select name="prompt"></select></label>
<p class="text"></p></div>
</div>
"""


def show(opened: OpenStudy, qa: pd.DataFrame, loss: pd.DataFrame) -> HTML:
    """The explorer of the study, whose tables these are, and of every other run."""
    study = opened.study
    own = _run(study.name, study.title, study.sign, opened.n_layers, qa, loss)
    own["texts"] = _texts(opened.tables)
    found = [own]
    for run in others(study.name, told=False):
        one = _run(run.name, run.title, run.sign, run.layers, run.tables["qa"], run.tables["loss"])
        found.append(one | {"texts": _texts(run.folder)})
    data = json.dumps(found, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    script = Path(__file__).with_suffix(".js").read_text("utf-8")
    safe = data.replace("<", r"\u003c")  # a text that a model wrote may not end the element
    kind = 'type="application/json" class="explorer-data"'
    return HTML(f"{SHELL}<script {kind}>{safe}</script><script>{script}</script>")


def _run(
    name: str, title: str, sign: str, layers: int, qa: pd.DataFrame, loss: pd.DataFrame
) -> dict[str, Any]:
    """One run for the script: its tasks, and by strategy, state and n what was measured."""
    keys = list(qa[["task", "shots"]].drop_duplicates().itertuples(index=False, name=None))
    tasks = []
    for task, shots in keys:
        first = qa[(qa["task"] == task) & (qa["shots"] == shots)].iloc[0]
        tasks.append(
            {
                "label": labels.title(task, shots),
                "chance": _number(first.get("chance")),
                "questions": _number(first.get("n_questions")),
            }
        )
    measured: dict[str, dict[str, dict[int, dict[str, Any]]]] = {}
    for strategy in strategies(loss):
        for state in STATES:
            points = _points(keys, *(_of(table, strategy, state) for table in (qa, loss)))
            if any(points):  # more than the unpruned model
                measured.setdefault(strategy, {})[state] = points
    known_nothing = float((loss["loss"] / loss["normalized_loss"]).median())
    return {
        "name": name,
        "title": title,
        "sign": labels.capital(sign),
        "layers": layers,
        "corpus": str(loss["corpus"].iloc[0]),
        "nothing": round(known_nothing, 4),  # ln V
        "tasks": tasks,
        "measured": measured,
    }


def _of(table: pd.DataFrame, strategy: str, state: str) -> pd.DataFrame:
    return table[table["strategy"].isin([strategy, "none"]) & (table["state"] == state)]


def _points(
    keys: list[tuple[str, int]], qa: pd.DataFrame, loss: pd.DataFrame
) -> dict[int, dict[str, Any]]:
    """By number of layers dropped: which they are, loss and accuracies with their errors."""
    found = {}
    for row in loss.sort_values("n").drop_duplicates("n").itertuples():
        answers = {
            (one.task, one.shots): [_number(one.accuracy), _number(one.stderr)]
            for one in qa[qa["n"] == row.n].itertuples()
        }
        dropped = getattr(row, "dropped", "")
        found[int(row.n)] = {
            "dropped": [] if pd.isna(dropped) else [int(layer) for layer in str(dropped).split()],
            "loss": [_number(row.loss), _number(row.stderr)],
            "accuracy": [answers.get(key) for key in keys],
        }
    return found


def _texts(folder: Path) -> dict[str, dict[str, dict[int, str]]]:
    """What the models write after the first prompts, by prompt, state and n."""
    try:
        rows = read(folder / "texts.csv").fillna({"text": "", "prompt": ""})
    except FileNotFoundError:
        return {}
    found: dict[str, dict[str, dict[int, str]]] = {}
    for row in rows.itertuples():
        if row.prompt in found or len(found) < PROMPTS:
            text = row.text if len(row.text) <= LONGEST else f"{row.text[:LONGEST]}…"
            found.setdefault(row.prompt, {}).setdefault(row.models, {})[int(row.n)] = text
    return found


def _number(value: Any) -> float | int | None:
    """Rounded as far as anything is shown; None where it is missing."""
    if value is None or pd.isna(value):
        return None
    return int(value) if float(value).is_integer() else round(float(value), 5)
