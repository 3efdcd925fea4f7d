"""Healing with a student–teacher loss at the cut (eq. 8 of Gromov et al.)."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import labels
from lib.experiments.conditions import TEACHING, Condition, teacher_conditions, unpruned
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import healing_provenance
from lib.sections import finding, looks
from lib.sections.columns import METRIC
from lib.sections.figures import (
    Levels,
    metric_levels,
    nothing,
    of_metric,
    panel_grid,
    shared_legend,
)
from lib.sections.section import Section, Table
from lib.sections.tables import METRIC_COLUMNS, metrics_table, sound


def teacher_table(opened: OpenStudy) -> pd.DataFrame:
    """Accuracy and normalised loss of healing with and without a teacher: `way`, `steps` and
    training `seconds` (empty where it was interrupted), then the columns of `metrics_table`."""
    parts = []
    for way, conditions in teacher_conditions(opened).items():
        for one in sound(opened, conditions):
            seconds = healing_provenance(opened, one).get("training_seconds")
            found = metrics_table(opened, [one])
            parts.append(found.assign(way=way, steps=one.healing.steps, seconds=seconds))
    first = ["way", "steps", "seconds"]
    if not parts:
        return metrics_table(opened, []).reindex(columns=[*first, *METRIC_COLUMNS])
    table = pd.concat(parts, ignore_index=True)
    return table[[*first, *(name for name in table if name not in first)]]


def teacher_summary(table: pd.DataFrame) -> pd.DataFrame:
    """By fraction, way and metric the mean over seeds with the standard error over seeds."""
    keys = ["metric", "task", "shots", "n", "fraction", "way", "steps"]
    found = table.groupby(keys, sort=False, dropna=False)
    return pd.DataFrame(
        {
            "seeds": found["value"].count(),
            "value": found["value"].mean(),
            "stderr": found["value"].sem(),
            "seconds": found["seconds"].mean(),
        }
    ).reset_index()


def ways_side_by_side(summary: pd.DataFrame) -> pd.DataFrame:
    """A row per evaluation and fraction, a column per way of healing; last their steps and time."""
    rows = []
    for (metric, task, shots, fraction), found in summary.groupby(
        ["metric", "task", "shots", "fraction"], sort=False, dropna=False
    ):
        name = labels.asked(task, shots) if metric == "accuracy" else f"{task}, loss / ln V"
        digits = 3 if metric == "accuracy" else 4
        rows.append(
            {"": name, "dropped": f"{100 * fraction:.3g}%"}
            | {r.way: _with_error(r.value, r.stderr, digits) for r in found.itertuples()}
        )
    for fraction, found in summary.drop_duplicates(["fraction", "way"]).groupby("fraction"):
        rows.append(
            {"": "steps; seconds", "dropped": f"{100 * fraction:.3g}%"}
            | {
                r.way: f"{r.steps}; {'–' if pd.isna(r.seconds) else f'{r.seconds:.0f}'}"
                for r in found.itertuples()
            }
        )
    return pd.DataFrame(rows)


def _with_error(value: float, stderr: float, digits: int) -> str:
    """Of one seed there is no error."""
    error = "" if pd.isna(stderr) else f" ± {stderr:.{digits}f}"
    return f"{value:.{digits}f}{error}"


def teacher_panels(summary: pd.DataFrame, levels: Levels) -> Figure:
    """Eq. 8: what is reached with and without a teacher, means and standard errors over seeds."""
    if summary.empty:
        return nothing("This study heals nothing with a teacher.")
    figure, panels, spare = panel_grid(len(levels), height=3)
    styles = looks.series(dict.fromkeys(summary["way"]))
    for axes, (key, level) in zip(panels.flat, levels.items(), strict=False):
        rows = of_metric(summary, key)
        places = {fraction: i for i, fraction in enumerate(sorted(rows["fraction"].unique()))}
        for number, (way, look) in enumerate(styles.items()):
            points = rows[rows["way"] == way]
            axes.errorbar(
                points["fraction"].map(places) + 0.18 * (number - 1),
                points["value"],
                yerr=points["stderr"],
                linestyle="none",
                **look,
                capsize=3,
                label=way,
            )
        metric_levels(axes, key, level, zoom=key[0] != "accuracy")
        axes.set_xticks(list(places.values()), [f"{100 * f:.3g}%" for f in places])
        axes.set(xlim=(-0.6, len(places) - 0.4))
        if axes.get_subplotspec().is_last_row():
            axes.set_xlabel("Layers dropped")
    shared_legend(figure, panels, spare)
    return figure


def conditions(opened: OpenStudy) -> dict[str, list[Condition]]:
    """The unpruned model, and those that are healed; plainly for longer by themselves: their
    recipes differ in steps alone."""
    plain, longer, taught = (teacher_conditions(opened)[way] for way in TEACHING)
    return {"": [unpruned(opened), *plain, *taught], "longer": longer}


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """How often a teacher does better than plain healing that takes as long."""
    table = finding.rows(made, "teacher", "way", "value")
    if table.empty:
        return ""
    summary, (_, plain, taught) = teacher_summary(table), TEACHING
    keys = ["metric", "task", "shots", "fraction"]
    pairs = summary[summary["way"] == taught].merge(summary[summary["way"] == plain], on=keys)
    gain = pairs["value_x"] - pairs["value_y"]
    clear = gain.abs() > finding.SURE * np.hypot(pairs["stderr_x"], pairs["stderr_y"])
    if not (seeds := int(summary["seeds"].min())) > 1 or pairs.empty:
        return "With one seed each, nothing can be said about a teacher."
    parts = []
    for metric, what, sign in (("accuracy", "accuracy", 1), ("normalized_loss", "the loss", -1)):
        of = pairs["metric"] == metric
        better, worse = (sum(clear & of & (one * sign * gain > 0)) for one in (1, -1))
        if of.any():
            many = finding.of(better, sum(of), "comparison")
            parts.append(f"{what} is better in {many} and worse in {worse}")
    return (
        f"Beside plain healing of equal time, with a teacher {'; '.join(parts)} "
        f"(means of {seeds} seeds)."
    )


SECTION = Section(
    conditions=conditions,
    tables=(
        Table(
            "teacher",
            teacher_table,
            "a way of healing, a metric and a model",
            {
                "way": "plain or with a teacher, at equal steps or at equal time",
                "steps": "number of training steps",
                "seconds": "training time; empty where it was interrupted",
                **METRIC,
            },
        ),
    ),
    claims=("gromov-14",),
    in_short=sentence,
)
