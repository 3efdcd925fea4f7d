"""The tables that several sections share, made of evidence, and what their columns hold."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib import paths
from lib.claims.rules.reading import read
from lib.errors import UserError
from lib.evaluation import per_question
from lib.experiments.conditions import Condition, main_conditions
from lib.experiments.conditions import unpruned as whole
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import OtherLoss, Probe, broken, healing_record, recorded
from lib.files import write_atomically
from lib.pruning.dropped import UNPRUNED, ranges
from lib.schema import Task
from lib.sections.columns import CURVE_MODEL
from lib.statistics.transitions import fit

METRIC_COLUMNS = ["metric", "task", "shots", "strategy", "n", "fraction", "dropped", "start"]
METRIC_COLUMNS += ["stop", "state", "value", "stderr", "healing", "weights", "seed"]


def state(opened: OpenStudy, condition: Condition) -> str:
    """Of a model: `healed`; `control`, unhealed in the number format that only healing is done in;
    or `unhealed`, in the study's own."""
    if condition.healing is not None:
        return "healed"
    return "unhealed" if condition.weights == opened.weights else "control"


def by_state(opened: OpenStudy, conditions: list[Condition]) -> dict[str, list[Condition]]:
    """Pruned models, unhealed in the study's number format and healed; without the unpruned."""
    found: dict[str, list[Condition]] = {"unhealed": [], "healed": []}
    for one in conditions:
        if one.dropped and (which := state(opened, one)) in found:
            found[which].append(one)
    return found


def compared_sizes(opened: OpenStudy, models: dict[str, list[Condition]]) -> set[int]:
    """How many layers the models of `by_state` lack that are compared before and after healing:
    as many as were healed; where nothing is healed, as the fractions say."""
    if opened.study.healing is None:
        return {*opened.healed_ns(opened.study.fractions)}
    return {one.dropped.n for one in models["healed"]}


def strategies(table: pd.DataFrame) -> list[str]:
    """Those of a table in the order in which they stand there, which is the study's."""
    return [name for name in dict.fromkeys(table["strategy"]) if name != "none"]


def main_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Those of the unpruned models and of the strategy that stands first."""
    return table[table["strategy"].isin(["none", *strategies(table)[:1]])]


def for_reading(table: pd.DataFrame) -> pd.DataFrame:
    """With the layers dropped as "3, 5–7"; without their start and stop."""

    def words(dropped: str) -> str:
        runs = ranges(map(int, dropped.split()))
        return ", ".join(str(run[0]) if run.n == 1 else f"{run[0]}–{run[-1]}" for run in runs)

    return table.assign(dropped=table["dropped"].map(words)).drop(columns=["start", "stop"])


def columns(opened: OpenStudy, condition: Condition) -> dict[str, Any]:
    """What a row says of the model that it is about."""
    n = condition.dropped.n
    return {
        "strategy": condition.strategy,
        "n": n,
        "fraction": opened.fraction(n),
        "dropped": " ".join(map(str, condition.dropped)),
        "start": condition.dropped.start,
        "stop": condition.dropped.stop,
        "state": state(opened, condition),
        "healing": condition.recipe,
        "weights": condition.weights,
        "seed": condition.healing.seed if condition.healing else None,
    }


def record(opened: OpenStudy, condition: Condition, probe: Probe | None) -> dict[str, Any]:
    """What a model answered to a probe; without one, the report of its healing.

    Raises UserError where it has not been measured."""
    found = recorded(opened, condition, probe) if probe else healing_record(opened, condition)
    if found is None:
        study = opened.study.name
        raise UserError(f"study {study}: '{condition.name}' has not been measured; `make book`")
    return found


def sound(opened: OpenStudy, conditions: list[Condition]) -> list[Condition]:
    """Without those whose healing broke down, of which nothing was measured."""
    return [condition for condition in conditions if not broken(opened, condition)]


def answers(opened: OpenStudy, condition: Condition, task: Task) -> np.ndarray:
    """The score of every question in order: 1 where the answer was right, else 0, or between."""
    return per_question.of_all_tasks(record(opened, condition, task)["correct"])


def qa_table(
    opened: OpenStudy, conditions: list[Condition], tasks: list[Task] | None = None
) -> pd.DataFrame:
    """Accuracies of all conditions on the study's tasks, or on others."""
    rows = []
    conditions = sound(opened, conditions)
    for task in opened.study.tasks if tasks is None else tasks:
        for condition in conditions:
            value = record(opened, condition, task)
            rows.append(
                {"task": task.name, "shots": task.shots}
                | columns(opened, condition)
                | {key: value[key] for key in ("accuracy", "stderr", "n_questions")}
                | by_subject(value["correct"])
                | {"chance": chance(value), "guess": value["guess"], "constant": value["constant"]}
                | {"truncated_prompts": value["truncated_prompts"], "role": task.role}
            )
    levels = dict.fromkeys(("chance", "guess", "constant"), float)  # NaN where they are not known
    return tidy(rows).astype(levels)


def chance(value: dict[str, Any]) -> float | None:
    """What has to be beaten, of a record of answers; None where it is not known."""
    return None if value["guess"] is None else max(value["guess"], value["constant"])


def by_subject(correct: per_question.Correct) -> dict[str, float]:
    """The mean accuracy of a group's tasks, each counting alike whatever its number of questions,
    and its standard error √Σ SEᵢ² over the number of tasks. For a task alone, its accuracy."""
    tasks = [per_question.scores(of_task) for of_task in correct.values()]
    count = len(tasks)
    return {
        "by_subject": sum(map(per_question.mean, tasks)) / count,
        "by_subject_stderr": math.sqrt(sum(map(per_question.variance, tasks))) / count,
    }


def loss_table(
    opened: OpenStudy, conditions: list[Condition], other: OtherLoss | None = None
) -> pd.DataFrame:
    """Losses of all conditions on the study's own text, or on another one."""
    rows = []
    for condition in sound(opened, conditions):
        value = record(opened, condition, other or opened.study.loss)
        rows.append(
            {"corpus": other.text.name if other else opened.study.text_name}
            | columns(opened, condition)
            | {
                "loss": value["loss"],
                "normalized_loss": value["loss"] / math.log(opened.vocab_size),
            }
            | {key: value[key] for key in ("stderr", "n_tokens", "n_sequences")}
        )
    return tidy(rows)


def qa_and_loss(opened: OpenStudy) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracies and losses of the models that most sections are about."""
    conditions = main_conditions(opened)
    return qa_table(opened, conditions), loss_table(opened, conditions)


def metrics_table(opened: OpenStudy, conditions: list[Condition]) -> pd.DataFrame:
    """Accuracy and normalised loss of healed models, one below the other: metric, task (of a loss
    its corpus), shots, …, value, stderr; the standard error of a loss is normalised too."""
    conditions = [one for one in sound(opened, conditions) if one.healing]
    if not conditions:
        return pd.DataFrame(columns=METRIC_COLUMNS)
    qa, loss = qa_table(opened, conditions), loss_table(opened, conditions)
    scale = math.log(opened.vocab_size)
    parts = [
        qa.assign(metric="accuracy", value=qa["accuracy"]),
        loss.assign(
            metric="normalized_loss",
            task=loss["corpus"],
            shots=None,
            value=loss["normalized_loss"],
            stderr=loss["stderr"] / scale,
        ),
    ]
    table = pd.concat([part.astype({"shots": "Int64"}) for part in parts], ignore_index=True)
    return table[METRIC_COLUMNS]


def transition_table(opened: OpenStudy, conditions: list[Condition]) -> pd.DataFrame:
    """Critical fraction and width of every curve, with 95% intervals; empty where none fits, or
    chance is not known."""
    curves: dict[tuple, list[Condition]] = {}
    for condition in sound(opened, conditions):
        if condition.strategy != "none":
            key = (condition.strategy, condition.weights, condition.recipe)
            curves.setdefault(key, []).append(condition)
    rows = []
    for task in opened.study.tasks:
        for members in curves.values():
            curve = [replace(members[0], strategy="none", dropped=UNPRUNED), *members]
            if broken(opened, curve[0]):
                continue  # nothing to fall from
            found = fit(
                np.array([opened.fraction(condition.dropped.n) for condition in curve]),
                np.array([answers(opened, condition, task) for condition in curve]),
                chance(record(opened, curve[0], task)),
            )
            model = columns(opened, members[0])
            rows.append(
                {"task": task.name, "shots": task.shots}
                | {key: model[key] for key in CURVE_MODEL}
                | {
                    key: getattr(found, key, None)
                    for key in ("fraction", "low", "high", "width", "width_low", "width_high")
                }
            )
    return tidy(rows)


def tidy(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows).astype({"seed": "Int64"})


def levels(opened: OpenStudy) -> dict[tuple, tuple[float, float]]:
    """The unpruned, unhealed model's value and chance, by (metric, task, shots): accuracy, and
    normalised loss, whose chance is 1."""
    unpruned = [whole(opened)]
    qa, loss = qa_table(opened, unpruned), loss_table(opened, unpruned)
    found = {("accuracy", r.task, r.shots): (r.accuracy, r.chance) for r in qa.itertuples()}
    row = loss.iloc[0]
    return found | {("normalized_loss", row["corpus"], None): (row["normalized_loss"], 1.0)}


def reference_runs(opened: OpenStudy, name: str) -> pd.DataFrame:
    """A table of the study's reference runs, from published/, with a column `run`: their titles."""
    parts = [
        read(file).assign(run=published_title(control))
        for control in opened.study.controls.studies
        if (file := paths.published(control) / "tables" / f"{name}.csv").exists()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"run": []})


def published_title(control: str) -> str:
    """Raises UserError where the run's own file does not say it."""
    path = paths.published(control) / "study.json"
    try:
        title = json.loads(path.read_text("utf-8"))["title"]
        title.encode()  # half a character could be neither shown nor written
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"published run '{control}': {path} is damaged: it says no title") from None
    return title


def by_run(opened: OpenStudy, name: str, own: pd.DataFrame) -> pd.DataFrame:
    """A table of this study and of its reference runs, with a column `run`: their titles."""
    runs = [own.assign(run=opened.study.title), reference_runs(opened, name)]
    return pd.concat([run for run in runs if len(run)], ignore_index=True)


def save(opened: OpenStudy, name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Write the table behind a figure as results/<study>/tables/<name>.csv, where it is not
    published already; returns it."""
    if not opened.published:
        write(opened.tables / f"{name}.csv", table)
    return table


def write(path: Path, table: pd.DataFrame) -> None:
    """Write a table, atomically, with ten digits."""
    text = table.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    write_atomically(path, text)
