"""Studies side by side: every run of this clone, and every published one (Fig. 2, 3, 4 and 6 of
Gromov et al., whose panels hold all of the paper's models).

In figures a study keeps its colour, dash and marker; the first one is the page's own, a thick line
under the others, so that none hides another. Bars are one standard error.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib import labels, paths
from lib.experiments.conditions import main_conditions
from lib.experiments.opened import OpenStudy
from lib.pruning.dropped import most_similar
from lib.sections import finding
from lib.sections.angular_distances import distance_bar, heat_map, mark
from lib.sections.columns import CURVE, QA
from lib.sections.figures import (
    by_task,
    fraction_axis,
    grid,
    normalised,
    panel_grid,
)
from lib.sections.looks import GREY
from lib.sections.other_runs import Run, every_run, others, table
from lib.sections.pages import with_statements
from lib.sections.run_legends import legend, line_styles, plain
from lib.sections.section import Section, Table, every_claim
from lib.sections.tables import strategies

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
CRITICAL = {
    "study": "name of the study",
    "run": "its title",
    "layers": "number of layers",
    "parameters": "number of parameters; empty where the model's shape is not known",
    **{key: CURVE[key] for key in ("task", "shots", "state", "healing", "weights")},
    **{key: CURVE[key] for key in ("fraction", "low", "high")},
    "own": "whether it is the page's study",
}
FAMILY_SCORES = {
    **{key: CRITICAL[key] for key in ("study", "run", "layers", "task", "shots")},
    **{key: QA[key] for key in ("accuracy", "stderr", "guess", "constant")},
    "own": CRITICAL["own"],
    "scratch": "`yes`: of the same family, smaller, and trained from scratch, as the study says",
}
FAMILY_VERDICTS = {
    "study": CRITICAL["study"],
    "run": CRITICAL["run"],
    "paper": "short name of the paper",
    "claim": "number of the claim",
    "verdict": "on that run",
}
MOST = 12  # runs in a figure
NAMED = 30  # of those that are left out
LIMIT = (0, (5, 2, 1, 2, 1, 2))
LEVELS = {"guess": ("guessing", "-."), "constant": ("constant answer", (0, (1, 3)))}


def listing(runs: list[Run]) -> pd.DataFrame:
    """What stands side by side: what kind of model, depth, size, vocabulary, text of the loss,
    healing, and where from; V follows from ln V = loss / normalised loss."""
    rows = []
    for run in runs:
        loss = run.tables["loss"]
        recipes = loss["healing"][loss["healing"] != "none"].unique()
        here = run.folder.parent != paths.published(run.name)
        rows.append(
            {
                "run": run.title,
                "kind": run.sign,
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


def drawn(runs: list[Run]) -> list[Run]:
    """The runs that figures show: all, or as many as can be told apart, the page's study among
    them, spread over their order. Says which are left out."""
    if len(runs) <= MOST:
        return runs
    at = np.linspace(1, len(runs) - 1, MOST - 1).round().astype(int)
    shown = [runs[0], *(runs[i] for i in at)]
    gone = [run.name for run in runs if run not in shown]
    more = f" and {len(gone) - NAMED:,} more" if len(gone) > NAMED else ""
    print(
        f"Figures show {MOST} of {len(runs):,} runs, spread over their numbers of layers; tables "
        f"have all. Not drawn: {', '.join(gone[:NAMED])}{more}."
    )
    return shown


def most_similar_blocks(runs: list[Run]) -> pd.DataFrame:
    """ℓ*(n) of every run (eq. 6): run, n, start. Ties go to the deepest start."""
    rows = [
        {"run": run, "n": n, "start": most_similar(row.sort_values("start")["distance"].to_numpy())}
        for (run, n), row in table(runs, "angular_distances").groupby(["run", "n"], sort=False)
    ]
    return pd.DataFrame(rows)


def critical_fractions(runs: list[Run]) -> pd.DataFrame:
    """families.csv: where the accuracy falls to chance with the main
    strategy of the page's study, with a
    95% interval (low, high), healed and not; a row per run, task and curve. Empty where no
    transition can be fitted. `own` marks the page's study."""
    found = table(runs, "transitions")
    found = found[found["strategy"] == strategies(found)[0]]
    facts = pd.DataFrame(
        {"study": run.name, "layers": run.layers, "parameters": run.parameters, "own": i == 0}
        for i, run in enumerate(runs)
    ).astype({"parameters": "Int64"})
    found = found.merge(facts, on="study")
    numbers = ["fraction", "low", "high"]
    found[numbers] = found[numbers].astype(float)  # nothing but None where no curve can be fitted
    return found[list(CRITICAL)]


def side_by_side(critical: pd.DataFrame) -> pd.DataFrame:
    """The critical fractions for reading: a row per run, before and after healing, a column per
    task; without the controls of healing. A dash: no transition could be fitted; empty: the run
    has no such task."""
    shown = critical[critical["state"] != "control"]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in shown.itertuples():
        first = {"run": row.run, "layers": row.layers, "": row.state}
        fitted = f"{row.fraction:.2f} [{row.low:.2f}, {row.high:.2f}]"
        cells = rows.setdefault((row.run, row.state), first)
        cells[labels.asked(row.task, row.shots)] = "–" if pd.isna(row.fraction) else fitted
    return pd.DataFrame(rows.values()).fillna("")


def verdicts(runs: list[Run], own: pd.DataFrame) -> pd.DataFrame:
    """A row per claim, a column per run; empty where a run says nothing of the claim. `own`: the
    verdicts on the page's study, which are computed after this page."""
    parts = [own.assign(run=runs[0].title), *([table(runs[1:], "verdicts")] if runs[1:] else [])]
    found = pd.concat(parts, ignore_index=True)
    keys = ["paper", "claim"]
    wide = found.pivot(index=keys, columns="run", values="verdict")[[r.title for r in runs]]
    statements = found.groupby(keys)["statement"].first()
    return with_statements(wide, statements)


def paper() -> pd.DataFrame:
    """Where the paper says that the healed accuracy of its seven models falls to chance."""
    columns = ["family", "model", "layers", "MMLU falls to chance at"]
    return pd.DataFrame(PAPER, columns=columns).assign(source=SOURCE)


def accuracy_by_run(qa: pd.DataFrame, state: str) -> Figure:
    """Fig. 2, 6: accuracy against fraction in one state, of the main strategy of the page's study;
    a panel per task with the studies that have it, and every chance level that they differ in.
    Tasks of which nothing is in that state are left out, as long as there are others."""
    every, styles = by_task(qa), line_styles(qa["run"])
    tasks = {task: rows for task, rows in every.items() if (rows["state"] == state).any()} or every
    figure, panels, spare = panel_grid(len(tasks), height=3.3)
    for axes, ((name, shots), rows) in zip(panels.flat, tasks.items(), strict=False):
        _curves(axes, rows, "accuracy", strategies(qa)[0], state, styles)
        for column, (label, dash) in LEVELS.items():
            for level in sorted(set(rows[column].dropna().round(6))):
                axes.axhline(level, color=GREY, linestyle=dash, linewidth=1, label=label)
        axes.set(ylabel="Accuracy", ylim=(-0.01, 1.03))
        fraction_axis(axes)
        axes.set_title(plain(labels.title(name, shots)), fontsize="medium")
    legend(figure, panels, qa, spare)
    return figure


def loss_by_run(loss: pd.DataFrame) -> Figure:
    """Fig. 3: the same of normalised loss, before healing and after it; a row of panels per text,
    because losses on different texts are not to be compared."""
    texts, styles = list(dict.fromkeys(loss["corpus"])), line_styles(loss["run"])
    figure, panels = grid(len(texts), 2, width=4.2, height=3.6)
    for row, text in zip(panels, texts, strict=True):
        for axes, state in zip(row, ("unhealed", "healed"), strict=True):
            rows = normalised(loss[loss["corpus"] == text])
            _curves(axes, rows, "normalized_loss", strategies(loss)[0], state, styles)
            axes.axhline(
                1, color=GREY, linestyle=(0, (5, 2, 1, 2, 1, 2)), linewidth=1, label="ln V"
            )
            if not (rows["state"] == state).any():
                axes.text(0.5, 0.5, f"no run is {state}", ha="center", transform=axes.transAxes)
            axes.set(ylabel="Loss / ln V")
            axes.set_ylim(bottom=0)
            fraction_axis(axes)
            axes.set_title(plain(f"{text}, {state}"), fontsize="medium")
    legend(figure, panels, loss)
    return figure


def distance_maps(distances: pd.DataFrame, optimal: pd.DataFrame) -> Figure:
    """Fig. 4: a heat map per study, its sign below its title, each row n shifted and rescaled to
    [0, 1], ℓ*(n) marked."""
    runs = list(dict.fromkeys(distances["run"]))
    figure, panels, spare = panel_grid(len(runs), height=3.4)
    for axes, run in zip(panels.flat, runs, strict=False):
        rows = distances[distances["run"] == run]
        heat_map(axes, rows, labels=7)
        mark(axes, optimal[optimal["run"] == run], size=3)
        axes.set(xlabel="Start layer ℓ of the block", ylabel="Block size n  [layers]")
        sign = plain(rows["sign"].iloc[0])
        axes.set_title(f"{plain(run)}\n{sign}", fontsize="medium")
    panels[0, 0].legend(loc="upper right")
    for axes in spare:
        axes.axis("off")
    distance_bar(figure, panels.flat, location="bottom", shrink=0.6, aspect=30)
    return figure


def _curves(
    axes: Axes,
    rows: pd.DataFrame,
    value: str,
    strategy: str,
    state: str,
    styles: dict[str, dict[str, Any]],
) -> None:
    """Every study's curve from its unpruned model on; hollow: unhealed."""
    rows = rows[rows["strategy"].isin([strategy, "none"]) & (rows["state"] == state)]
    for run, style in styles.items():
        curve = rows[rows["run"] == run].sort_values("fraction")
        if curve.empty:
            continue
        axes.errorbar(
            curve["fraction"],
            curve[value],
            yerr=curve["stderr"],
            elinewidth=0.8,
            markerfacecolor=style["color"] if state == "healed" else "white",
            label=plain(run),
            **style,
        )


def family_scores(runs: list[Run], from_scratch: Sequence[str] = ()) -> pd.DataFrame:
    """What the unpruned models of all runs can do. from_scratch: runs that the study says are of
    its family, smaller, and trained without it."""
    found = table(runs, "qa")
    found = found[(found["strategy"] == "none") & (found["state"] == "unhealed")]
    layers = {run.title: run.layers for run in runs}
    own = found["run"] == runs[0].title
    scratch = np.where(found["study"].isin(from_scratch), "yes", "")
    return found.assign(layers=found["run"].map(layers), own=own, scratch=scratch)[[*FAMILY_SCORES]]


def family_verdicts(opened: OpenStudy) -> pd.DataFrame:
    """The verdicts of all other runs, as they were written with them."""
    runs = others(opened.study.name, told=False)
    found = table(runs, "verdicts") if runs else pd.DataFrame()
    return found.reindex(columns=list(FAMILY_VERDICTS))


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """Where half of what a model knows above chance is lost here and in other runs, on the task
    that most of them share."""
    start, table = finding.by_state(finding.rows(made, "families", "fraction"), "state")
    own = table[table["own"].eq(True)].set_index(["task", "shots"])
    others = table[table["own"].eq(False)].set_index(["task", "shots"])
    shared = others[others.index.isin(own.index)]
    if made["families"].empty:
        return ""
    if shared.empty:
        return "No other run loses half of what it knows on a task on which this model does."
    task, shots = shared.index.value_counts(sort=False).idxmax()
    here, there = own.loc[[(task, shots)]].iloc[0], shared.loc[[(task, shots)], "fraction"]
    return (
        f"{start}, half of what is known above chance on {labels.asked(task, shots)} is lost once "
        f"{finding.interval(here['fraction'], here['low'], here['high'])} of the layers are gone "
        f"here, and once {finding.percent(there.min())} to {finding.percent(there.max())} are in "
        f"{finding.counted(len(there), 'other run')}."
    )


SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    tables=(
        Table(
            "families",
            lambda opened: critical_fractions(every_run(opened, told=False)),
            "a run, a task and a curve",
            CRITICAL,
            published=False,
        ),
        Table(
            "family_scores",
            lambda opened: family_scores(
                every_run(opened, told=False), opened.study.controls.from_scratch
            ),
            "a run and a task",
            FAMILY_SCORES,
            published=False,
        ),
        Table(
            "family_verdicts",
            family_verdicts,
            "another run and a claim",
            FAMILY_VERDICTS,
            published=False,
        ),
    ),
    claims=every_claim(),
    cards=("gromov-16",),
    runs=True,
    in_short=sentence,
)
