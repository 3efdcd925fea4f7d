"""At a glance: what goes, what is still known, and the verdicts on one page (Fig. 1 of Gromov et
al.)."""

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lib import claims, labels, paths
from lib import study as studies
from lib.claims.rules import reading
from lib.claims.rules.reading import FLAT_LOSS, Untestable, of_task, series
from lib.experiments.conditions import main_conditions
from lib.experiments.opened import OpenStudy
from lib.sections import looks, stacks
from lib.sections.figures import by_task, grid, legend_name
from lib.sections.looks import GREY, LINES
from lib.sections.other_runs import others
from lib.sections.pages import badges, keep_verdicts
from lib.sections.section import Section, every_claim
from lib.sections.tables import strategies

SHOWN = 4  # tasks in the picture, and in the sentence
QUARTER = 0.25  # of the layers: what the sentence is about
LOST = 0.25  # of what was above chance: with less than that left, it is lost
APART = 0.075  # of a panel's height, between names at the ends of curves
WIDEST = 1 / 12  # of the axis, for a stack of layers


def chosen_tasks(qa: pd.DataFrame) -> list[tuple[str, int]]:
    """The tasks to show: of each role the first one without examples that the unpruned model can
    do, then the others; where it can do none, whatever there is."""
    try:
        able = reading.testable_tasks(qa)
    except Untestable:
        able = []
    roles = dict(zip(zip(qa["task"], qa["shots"], strict=True), qa["role"], strict=True))
    found = able or list(by_task(qa))
    plain = [task for task in found if not task[1]] or found
    first = {roles[task]: task for task in reversed(plain)}.values()
    return sorted(plain, key=lambda task: (task not in first, found.index(task)))[:SHOWN]


def finding(opened: OpenStudy, qa: pd.DataFrame) -> HTML:
    """One sentence: what is left when about a quarter of the layers is gone."""
    healed = (qa["state"] == "healed") & (qa["n"] > 0)
    state = "healed" if healed.any() else "unhealed"
    main = opened.strategies[0]
    rows = series(qa, main, state)
    sizes = rows.loc[rows["n"] > 0, "n"].unique()
    if not len(sizes):
        return HTML("")
    n = min(sizes, key=lambda size: abs(size / opened.n_layers - QUARTER))
    parts: dict[str, list[str]] = {}
    for task in chosen_tasks(qa):
        whole = series(of_task(qa, task), "none", "unhealed").iloc[0]
        left = of_task(rows[rows["n"] == n], task)
        if len(left):
            how, words = _how_well(task, whole, left.iloc[0])
            parts.setdefault(how, []).append(words)
    said = [f"{how} {_listed(parts[how])}" for how in HOW_WELL if how in parts]
    then = "healed briefly" if state == "healed" else "and nothing healed"
    return HTML(
        f'<p class="finding mathjax_ignore">With {n} of its {opened.n_layers} layers cut out, '
        f"{then}, <strong>{escape(opened.study.title)}</strong> {_listed(said, '; ')}.</p>"
    )


HOW_WELL = (
    "is still about as good at",
    "is not surely worse at",
    "has got worse at",
    "has lost",
    "cannot do more than guess at",
)


def _how_well(task: tuple[str, int], whole: pd.Series, left: pd.Series) -> tuple[str, str]:
    """As good: by no more than FLAT_LOSS worse. Not surely worse: by no more than two standard
    errors. Lost: less than a quarter of what was above chance is left."""
    lost = whole["accuracy"] - left["accuracy"]
    noise = 2 * np.hypot(whole["stderr"], left["stderr"])
    above = whole["accuracy"] - whole["chance"]
    if above <= 3 * whole["stderr"]:
        how = "cannot do more than guess at"
    elif lost <= FLAT_LOSS:
        how = "is still about as good at"
    elif lost <= noise:
        how = "is not surely worse at"
    else:
        kept = (left["accuracy"] - whole["chance"]) / above
        how = "has lost" if kept < LOST else "has got worse at"
    percent, error = 100 * left["accuracy"], 100 * left["stderr"]
    return how, (
        f"<em>{escape(labels.asked(*task))}</em> ({percent:.0f}\u00a0±\u00a0{error:.0f}% right, "
        f"{100 * whole['accuracy']:.0f}% before; {left['n_questions']:,}\u00a0questions)"
    )


def _listed(parts: list[str], between: str = ", ") -> str:
    *first, last = parts
    return f"{between.join(first)} and {last}" if first else last


def picture(qa: pd.DataFrame, loss: pd.DataFrame, n_layers: int) -> Figure:
    """Fig. 1(d): which layers the main strategy drops, what the model still knows, and its loss,
    above each other against the fraction of layers dropped."""
    figure, panels = grid(3, 1, width=7.6, height=2.6)
    draw(panels[:, 0], qa, loss, n_layers)
    return figure


def draw(panels: Sequence[Axes], qa: pd.DataFrame, loss: pd.DataFrame, n_layers: int) -> None:
    """The same into three panels above each other; into two without the loss."""
    main = strategies(loss)[0]
    _layers(panels[0], series(loss, main, "unhealed"), n_layers)
    panels[0].set_title(
        f"Which layers are cut (hollow): {main}", loc="left", fontsize="medium", weight="bold"
    )
    _accuracies(panels[1], qa, main)
    for axes in panels[2:]:
        _loss(axes, loss, main)
    for axes in panels:
        axes.set_xlim(-0.03, 1.0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.tick_params(labelbottom=axes is panels[-1])
        axes.grid(axis="x", visible=False)
    panels[-1].set_xlabel(f"Share of the {n_layers} layers that is cut")


def _layers(axes: Axes, rows: pd.DataFrame, n_layers: int) -> None:
    """A column per number of layers: kept ones filled, cut ones hollow."""
    words = rows["dropped"].fillna("").astype(str)
    dropped = [[int(layer) for layer in one.split()] for one in words]
    fractions = rows["fraction"].to_numpy()
    apart = np.diff(fractions).min(initial=WIDEST)
    stacks.columns(axes, dict(zip(fractions, dropped, strict=True)), n_layers, 0.82 * apart)


def _accuracies(axes: Axes, qa: pd.DataFrame, main: str) -> None:
    ends = {}
    for task, look in looks.series(chosen_tasks(qa)).items():
        rows = of_task(qa, task)
        for state in ("unhealed", "healed"):
            curve = series(rows, main, state)
            if curve.empty:
                continue
            _curve(axes, curve, "accuracy", state, **look)
            ends[task] = (curve["accuracy"].iloc[-1], look["color"])
        if pd.notna(chance := rows["chance"].iloc[0]):
            axes.plot([0.965, 1.0], [chance] * 2, color=look["color"], linewidth=2)
    for task, at in _spread({task: value for task, (value, _) in ends.items()}).items():
        name = legend_name(labels.title(*task))
        axes.text(1.01, at, name, color=ends[task][1], va="center", clip_on=False, weight="bold")
    axes.set(ylim=(0, 1.03), ylabel="Answered rightly")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    words = "What it still knows (short lines: chance)"
    axes.set_title(words, loc="left", fontsize="medium", weight="bold")


def _spread(wanted: dict[tuple, float]) -> dict[tuple, float]:
    """Places for names, close to where they are wanted and never on each other."""
    found: dict[tuple, float] = {}
    lowest = 0.0
    for task in sorted(wanted, key=wanted.__getitem__):
        found[task] = max(wanted[task], lowest)
        lowest = found[task] + APART
    return found


def _loss(axes: Axes, loss: pd.DataFrame, main: str) -> None:
    for state in ("unhealed", "healed"):
        curve = series(loss, main, state)
        if not curve.empty:
            _curve(axes, curve, "loss", state, color="0.25", marker="o", label=state)
    nothing = (loss["loss"] / loss["normalized_loss"]).median()
    axes.axhline(nothing, color=GREY, linestyle=(0, (5, 2, 1, 2, 1, 2)), linewidth=1)
    axes.text(0.0, 0.97 * nothing, "ln V: knowing nothing", va="top", color=GREY, fontsize="small")
    axes.set(ylabel="Loss  [nats per token]")
    axes.set_ylim(0, max(1.05 * nothing, axes.get_ylim()[1]))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    title = f"How well it predicts text: {legend_name(loss['corpus'].iloc[0])}"
    axes.set_title(title, loc="left", fontsize="medium", weight="bold")


def _curve(axes: Axes, curve: pd.DataFrame, value: str, state: str, **look: object) -> None:
    axes.errorbar(
        curve["fraction"],
        curve[value],
        yerr=curve["stderr"],
        linestyle=LINES[state],
        markerfacecolor=look["color"] if state == "healed" else "white",
        **look,
    )


def counts_by_run(opened: OpenStudy) -> HTML:
    """How many claims of each paper came out how, a row per model; the default study's controls are
    folded. Writes verdicts.csv."""
    own = keep_verdicts(opened)
    study, beside = opened.study, others(opened.study.name, told=False)
    runs = [(study.name, study.title, study.sign, own)]
    runs += [(one.name, one.title, one.sign, one.tables["verdicts"]) for one in beside]
    controls = studies.load(paths.DEFAULT_STUDY).controls
    apart = {*controls.studies, *controls.from_scratch}
    papers = list(dict.fromkeys(own["paper"]))
    head = "".join(
        f'<th scope="col">{escape(claims.papers()[name].cite.partition(",")[0])}</th>'
        for name in papers
    )
    shown, folded = [], []
    for name, title, sign, verdicts in runs:
        cells = "".join(f"<td>{_of_paper(verdicts, paper)}</td>" for paper in papers)
        kind = escape(labels.capital(sign))
        line = (
            f'<tr><th scope="row">{escape(title)}<br><span class="kind">{kind}</span></th>'
            f"{cells}</tr>"
        )
        (folded if name in apart - {study.name} else shown).append(line)
    more = (
        f"<details><summary>{len(folded)} controls of the default study</summary>"
        f"{_table(head, folded)}</details>"
        if folded
        else ""
    )
    return HTML(
        f'<div class="verdict-matrix mathjax_ignore">{_table(head, shown)}{more}<p class="caveat">'
        "A small model that contradicts a paper does not refute it.</p></div>"
    )


def _table(head: str, rows: list[str]) -> str:
    return (
        f'<div class="table-box words" tabindex="0" role="region" aria-label="Verdicts by model">'
        f'<table class="dataframe"><thead><tr><th scope="col">Claims, on</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _of_paper(verdicts: pd.DataFrame, paper: str) -> str:
    return badges(verdicts.loc[verdicts["paper"] == paper, "verdict"]) or "–"


SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    claims=every_claim(),
    runs=True,
)
