"""What would happen anyway: the study beside its untrained twin and its reference runs."""

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib import labels
from lib.experiments.conditions import main_conditions, unpruned
from lib.experiments.measure import question_free
from lib.experiments.opened import OpenStudy
from lib.experiments.probes import recorded
from lib.sections import finding
from lib.sections.angular_distances import (
    angular_distances,
    optimal_blocks,
    untrained_distances,
)
from lib.sections.columns import QA
from lib.sections.figures import (
    by_task,
    curves,
    evaluation_panels,
    grid,
    legend_name,
    normalised,
    reference_styles,
    shared_legend,
)
from lib.sections.looks import GREY, INK
from lib.sections.pages import show
from lib.sections.section import Extra, Section, Table, every_claim
from lib.sections.tables import (
    by_run,
    main_rows,
    qa_and_loss,
    qa_table,
    reference_runs,
    strategies,
    transition_table,
)

UNPRUNED = {
    "run": "title of the study",
    **{key: QA[key] for key in ("task", "shots", "accuracy", "stderr", "n_questions")},
    **{key: QA[key] for key in ("guess", "constant")},
    "question_free": "accuracy when the choices follow no question; this study only",
    "question_free_stderr": "its standard error",
}


def unpruned_table(opened: OpenStudy) -> pd.DataFrame:
    """What the unpruned model can do: accuracy per task beside guessing, the constant answer, the
    choices without their question, and the reference runs."""
    table = qa_table(opened, [unpruned(opened)])
    # Without choices there is nothing to choose from, nor where they stand in the prompt.
    answers = [recorded(opened, unpruned(opened), task) for task in opened.study.tasks]
    free = [
        question_free(opened, task) if guess > 0 and "choices" not in answer else {}
        for task, guess, answer in zip(opened.study.tasks, table["guess"], answers, strict=True)
    ]
    table["question_free"] = [value.get("accuracy") for value in free]
    table["question_free_stderr"] = [value.get("stderr") for value in free]
    found = by_run(opened, "qa", table)
    found = found[(found["strategy"] == "none") & (found["state"] == "unhealed")]
    return found[list(UNPRUNED)]


def scores(unpruned: pd.DataFrame) -> HTML:
    """The unpruned models' accuracies, a row per task, a column per run."""
    rows = []
    for (task, shots), group in unpruned.groupby(["task", "shots"], sort=False):
        own = group.iloc[0]
        rows.append(
            {"task": f"{labels.asked(task, shots)}, n = {own.n_questions}"}
            | {r.run: _with_error(r.accuracy, r.stderr) for r in group.itertuples()}
            | {"guessing": own["guess"], "constant answer": own["constant"]}
            | {"question-free": _with_error(own["question_free"], own["question_free_stderr"])}
        )
    return show(pd.DataFrame(rows))


def _with_error(value: float | None, stderr: float | None) -> str:
    return "" if pd.isna(value) else f"{value:.3f} ± {stderr:.3f}"


def with_references(opened: OpenStudy, name: str, own: pd.DataFrame, value: str) -> pd.DataFrame:
    """One column of a table by n, side by side with the reference runs'."""
    found = by_run(opened, name, own)
    wide = found.pivot(index="n", columns="run", values=value)
    wide = wide[list(dict.fromkeys(found["run"]))].rename_axis(columns=None)
    return wide.reset_index(allow_duplicates=True)  # a run may be called as the column of n is


def blocks_by_run(opened: OpenStudy) -> pd.DataFrame:
    """Where each run's most similar block of every size starts."""
    return with_references(opened, "optimal_blocks", optimal_blocks(opened), "start")


def transitions_by_run(opened: OpenStudy) -> pd.DataFrame:
    """The transitions of the study's main strategy, run by run."""
    own = transition_table(opened, main_conditions(opened))
    found = main_rows(by_run(opened, "transitions", own))
    keys = ["task", "shots", "weights", "healing"]
    columns = ["run", "fraction", "low", "high", "width", "width_low", "width_high"]
    return found.sort_values(keys, kind="stable")[[*keys, *columns]]


def distances(
    opened: OpenStudy,
) -> tuple[pd.DataFrame, pd.DataFrame | None, pd.DataFrame, str]:
    """What `distance_panels` draws: the study's own, the twin's, the reference runs', its title."""
    references = reference_runs(opened, "angular_distances")
    return (
        angular_distances(opened), untrained_distances(opened), references, opened.study.title
    )  # fmt: skip


def distance_panels(
    own: pd.DataFrame, untrained: pd.DataFrame | None, references: pd.DataFrame, title: str
) -> Figure:
    """d(ℓ, ℓ+n) for single layers and for blocks of a quarter and half of the layers."""
    n_layers = int(own["n"].max()) + 1
    sizes = sorted({1, max(1, n_layers // 4), max(1, n_layers // 2)})
    figure, panels = grid(len(sizes), 1, width=7, height=2.7)
    for axes, n in zip(panels.flat, sizes, strict=True):
        for run, style in reference_styles(references):
            rows = references[(references["run"] == run) & (references["n"] == n)]
            axes.plot(rows["start"], rows["distance"], **style)
        if untrained is not None:
            rows = untrained[untrained["n"] == n]
            axes.plot(rows["start"], rows["distance"], color=GREY, label="untrained twin")
        rows = own[own["n"] == n]
        axes.errorbar(
            rows["start"],
            rows["distance"],
            yerr=rows["stderr"],
            color=INK,
            marker="o",
            label=legend_name(title),
        )
        axes.set(ylabel="d(ℓ, ℓ+n)  [units of π]", ylim=(0, None))
        axes.set_title(f"n = {n}", fontsize="medium")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[-1, 0].set_xlabel("Start layer ℓ of the block")
    shared_legend(figure, panels)
    return figure


def evaluated(opened: OpenStudy) -> tuple[pd.DataFrame, ...]:
    """What `pruning_panels` draws: accuracies and losses, the study's own and the references'."""
    return *qa_and_loss(opened), *(reference_runs(opened, name) for name in ("qa", "loss"))


def pruning_panels(
    qa: pd.DataFrame,
    loss: pd.DataFrame,
    qa_references: pd.DataFrame,
    loss_references: pd.DataFrame,
    state: str,
) -> Figure:
    """Accuracy and loss against fraction, of the study's main strategy in one state, with the
    reference runs' curves."""
    tasks, normal = by_task(qa), normalised(loss)
    others = by_task(qa_references) if len(qa_references) else {}

    def draw(axes: Axes, column: str, task: tuple | None) -> None:
        rows, thin = (tasks[task], others.get(task)) if task else (normal, loss_references)
        if thin is not None and len(thin):
            shown = thin["strategy"].isin(["none", *strategies(rows)[:1]])
            thin = thin[shown & (thin["state"] == state)].sort_values("fraction")
            for run, look in reference_styles(qa_references):
                curve = thin[thin["run"] == run]
                axes.plot(curve["fraction"], curve[column], **look)
        curves(axes, rows, column, states=[state])

    return evaluation_panels(qa, loss, draw)


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """Whether the unpruned model needs the questions to answer."""
    table = finding.rows(made, "unpruned", "accuracy", "stderr", "question_free")
    if table.empty:
        return ""
    table = table[table["run"] == table["run"].iloc[0]]
    gain = table["accuracy"] - table["question_free"]
    error = np.hypot(table["stderr"], table["question_free_stderr"])
    needed = int((gain > finding.SURE * error).sum())
    most = table.loc[gain.idxmax()].to_dict()
    with_it, free = (
        f"{finding.with_error(100 * most[key], 100 * most[error], 0)}%"
        for key, error in (("accuracy", "stderr"), ("question_free", "question_free_stderr"))
    )
    return (
        f"On {finding.of(needed, len(table), 'task')} with choices the unpruned model answers "
        f"better when it is shown the question, most {finding.task(most)}: {with_it} right, and "
        f"{free} from the choices alone."
    )


SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    extras=lambda opened: [
        Extra(
            "question-free",
            "choices without their question",
            unpruned_table,
            seconds=5.0,
            needs=("unhealed",),  # what the unpruned model answers is shown beside it
        )
    ],
    tables=(
        Table(
            "unpruned",
            unpruned_table,
            "a run and a task",
            UNPRUNED,
            published=False,
        ),
    ),
    claims=every_claim(),
    in_short=sentence,
)
