"""The tidy table behind each figure, from evidence."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lib import paths
from lib.errors import UserError
from lib.experiments.conditions import Condition
from lib.experiments.conditions import unpruned as whole
from lib.experiments.measure import Probe, broken, healing_record, question_free, recorded
from lib.experiments.opened import OpenStudy
from lib.files import write_atomically
from lib.healing.training import logged_steps
from lib.pruning.dropped import UNPRUNED
from lib.schema import Task
from lib.statistics.transitions import fit

MODEL_COLUMNS = ["strategy", "n", "fraction", "dropped", "start", "stop", "state"]
METRIC_COLUMNS = ["metric", "task", "shots", *MODEL_COLUMNS, "value", "stderr"]
METRIC_COLUMNS += ["healing", "weights", "seed"]
DISTANCE_COLUMNS = ["n", "start", "distance", "stderr", "n_sequences"]


def angular_distances(opened: OpenStudy) -> pd.DataFrame:
    """d(ℓ, ℓ+n) for every block: n, start, distance, stderr, n_sequences."""
    return pd.DataFrame(opened.distances["table"])[DISTANCE_COLUMNS]


def distances_after_norm(opened: OpenStudy) -> pd.DataFrame:
    """The same columns for blocks that end with the last layer, its output taken after the final
    norm."""
    return pd.DataFrame(opened.distances["after_norm"])[DISTANCE_COLUMNS]


def optimal_blocks(opened: OpenStudy) -> pd.DataFrame:
    """ℓ*(n): n, start, stop, distance, support."""
    columns = ["n", "start", "stop", "distance", "support"]
    return pd.DataFrame(opened.distances["optimal"])[columns]


def untrained_distances(opened: OpenStudy) -> pd.DataFrame | None:
    """The distances of the untrained twin; None where the study does without one."""
    if not opened.study.controls.untrained:
        return None
    return pd.DataFrame(opened.untrained_distances["table"])[DISTANCE_COLUMNS]


def commonest_final_token(opened: OpenStudy) -> float:
    return opened.distances["commonest_final_token"]


def state(opened: OpenStudy, condition: Condition) -> str:
    """Of a model: `healed`; `control`, unhealed in the number format that only healing is done in;
    or `unhealed`, in the study's own."""
    if condition.healing is not None:
        return "healed"
    return "unhealed" if condition.weights == opened.weights else "control"


def _columns(opened: OpenStudy, condition: Condition) -> dict[str, Any]:
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
    """For every question in order, 1 where the answer was right, else 0."""
    correct = record(opened, condition, task)["correct"].values()
    return np.array([int(one) for one in "".join(correct)])


def qa_table(
    opened: OpenStudy, conditions: list[Condition], tasks: list[Task] | None = None
) -> pd.DataFrame:
    """Accuracies of all conditions on the study's tasks, or on others."""
    rows = []
    conditions = sound(opened, conditions)
    for task in opened.study.tasks if tasks is None else tasks:
        for condition in conditions:
            value = record(opened, condition, task)
            chance = max(value["guess"], value["constant"])
            rows.append(
                {"task": task.name, "shots": task.shots}
                | _columns(opened, condition)
                | {key: value[key] for key in ("accuracy", "stderr", "n_questions")}
                | by_subject(value["correct"])
                | {"chance": chance, "guess": value["guess"], "constant": value["constant"]}
                | {"truncated_prompts": value["truncated_prompts"], "role": task.role}
            )
    return _tidy(rows)


def by_subject(correct: dict[str, str]) -> dict[str, float]:
    """The mean accuracy of a group's tasks, each counting alike whatever its number of questions,
    and its standard error √Σ pᵢ(1−pᵢ)/(Nᵢ−1) over the number of tasks.

    correct: by task, 0 or 1 for each question. For a task alone, its accuracy."""
    shares = [answers.count("1") / len(answers) for answers in correct.values()]
    spread = [
        share * (1 - share) / max(len(answers) - 1, 1)
        for share, answers in zip(shares, correct.values(), strict=True)
    ]
    count = len(shares)
    return {
        "by_subject": sum(shares) / count,
        "by_subject_stderr": math.sqrt(sum(spread)) / count,
    }


def loss_table(opened: OpenStudy, conditions: list[Condition]) -> pd.DataFrame:
    rows = []
    for condition in sound(opened, conditions):
        value = record(opened, condition, opened.study.loss)
        rows.append(
            {"corpus": opened.study.text_name}
            | _columns(opened, condition)
            | {
                "loss": value["loss"],
                "normalized_loss": value["loss"] / math.log(opened.vocab_size),
            }
            | {key: value[key] for key in ("stderr", "n_tokens", "n_sequences")}
        )
    return _tidy(rows)


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


def rank_table(opened: OpenStudy, conditions: list[Condition]) -> pd.DataFrame:
    """Accuracy and normalised loss by rank."""
    table = metrics_table(opened, conditions)
    ranks = table["healing"].astype(str).str.extract(r"-r(\d+)")[0]
    table.insert(0, "rank", ranks.astype(int))
    return table


def healing_table(opened: OpenStudy, conditions: list[Condition]) -> pd.DataFrame:
    """What each healing trained: modules in 4-bit, trainable parameters, first and last loss."""
    rows = []
    for condition in conditions:
        if condition.healing is None:
            continue
        report = record(opened, condition, None)
        keys = ("linear4bit", "trainable_parameters", "tokens")
        rows.append(
            _columns(opened, condition)
            | {key: report[key] for key in keys}
            | {"first_loss": report["train_loss"][0], "last_loss": report["train_loss"][-1]}
            | {"diverged": report.get("diverged") or ""}
        )
    return _tidy(rows)


def healing_curves(opened: OpenStudy, conditions: list[Condition]) -> pd.DataFrame:
    """The training loss of each healing by step [nats per token], and what guessing costs."""
    rows = []
    for condition in conditions:
        if condition.healing is None:
            continue
        losses = record(opened, condition, None)["train_loss"]
        for step, loss in zip(logged_steps(condition.healing), losses, strict=False):
            rows.append(_columns(opened, condition) | {"step": step, "loss": loss})
    return _tidy(rows).assign(guessing=math.log(opened.vocab_size))


def transition_table(opened: OpenStudy, conditions: list[Condition]) -> pd.DataFrame:
    """Critical fraction and width of every curve, with 95% intervals; empty where none fits."""
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
            whole_model = record(opened, curve[0], task)
            found = fit(
                np.array([opened.fraction(condition.dropped.n) for condition in curve]),
                np.array([answers(opened, condition, task) for condition in curve]),
                max(whole_model["guess"], whole_model["constant"]),
            )
            columns = _columns(opened, members[0])
            rows.append(
                {"task": task.name, "shots": task.shots}
                | {key: columns[key] for key in ("strategy", "state", "healing", "weights", "seed")}
                | {
                    key: getattr(found, key, None)
                    for key in ("fraction", "low", "high", "width", "width_low", "width_high")
                }
            )
    return _tidy(rows)


def _tidy(rows: list[dict[str, Any]]) -> pd.DataFrame:
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
        pd.read_csv(file).assign(run=published_title(control))
        for control in opened.study.controls.studies
        if (file := paths.published(control) / "tables" / f"{name}.csv").exists()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"run": []})


def published_title(control: str) -> str:
    return json.loads((paths.published(control) / "study.json").read_text("utf-8"))["title"]


def by_run(opened: OpenStudy, name: str, own: pd.DataFrame) -> pd.DataFrame:
    """A table of this study and of its reference runs, with a column `run`: their titles."""
    runs = [own.assign(run=opened.study.title), reference_runs(opened, name)]
    return pd.concat([run for run in runs if len(run)], ignore_index=True)


def with_references(opened: OpenStudy, name: str, own: pd.DataFrame, value: str) -> pd.DataFrame:
    """One column of a table by n, side by side with the reference runs'."""
    found = by_run(opened, name, own)
    wide = found.pivot(index="n", columns="run", values=value)
    return wide[list(dict.fromkeys(found["run"]))].rename_axis(columns=None).reset_index()


def transitions_by_run(opened: OpenStudy, own: pd.DataFrame) -> pd.DataFrame:
    """The transitions of the similarity-informed strategy, run by run."""
    found = by_run(opened, "transitions", own)
    found = found[found["strategy"] == "similarity"]
    keys = ["task", "shots", "weights", "healing"]
    columns = ["run", "fraction", "low", "high", "width", "width_low", "width_high"]
    return found.sort_values(keys, kind="stable")[[*keys, *columns]]


def unpruned_table(opened: OpenStudy) -> pd.DataFrame:
    """What the unpruned model can do: accuracy per task beside guessing, the constant answer, the
    choices without their question, and the reference runs."""
    table = qa_table(opened, [whole(opened)])
    # Without choices there is nothing to choose from.
    chosen = table["guess"] > 0
    free = [
        question_free(opened, task) if choices else {}
        for task, choices in zip(opened.study.tasks, chosen, strict=True)
    ]
    table["question_free"] = [value.get("accuracy") for value in free]
    table["question_free_stderr"] = [value.get("stderr") for value in free]
    found = by_run(opened, "qa", table)
    found = found[(found["strategy"] == "none") & (found["healing"] == "none")]
    found = found[found["weights"] == opened.weights]
    columns = ["run", "task", "shots", "accuracy", "stderr", "n_questions"]
    return found[[*columns, "guess", "constant", "question_free", "question_free_stderr"]]


def save(opened: OpenStudy, name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Write the table behind a figure as results/<study>/tables/<name>.csv; returns it."""
    write(paths.tables(opened.study.name) / f"{name}.csv", table)
    return table


def write(path: Path, table: pd.DataFrame) -> None:
    """Write a table, atomically, with ten digits."""
    text = table.to_csv(index=False, float_format="%.10g", lineterminator="\n")
    write_atomically(path, text)
