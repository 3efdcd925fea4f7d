"""The README's picture and numbers, from published tables alone.

    python -m lib.book.landing

Writes book/_static/landing-light.svg and -dark.svg and the image for sharing, share.png, and prints
the lines of README.md that hold numbers.
"""

import io
import json
import sys
from typing import NamedTuple

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from lib import claims, labels, paths
from lib.book import page_figures
from lib.claims.rules.gromov_curves import SIMILARITY
from lib.claims.rules.reading import Tables, of_task, series
from lib.sections import figures
from lib.sections.at_a_glance import chosen_tasks, draw
from lib.words import of_paper, typeset

FOLDER = paths.ROOT / "book" / "_static"


class Shown(NamedTuple):
    """A published run. cut: layers out of it that the sentence under the picture is about."""

    name: str
    title: str
    cut: int


RUNS = (
    Shown("almanac", "A toy of a made-up world", cut=4),
    Shown("smollm2-135m-instruct-public", "A real model: SmolLM2-135M", cut=6),
)


def main() -> int:
    figures.style()
    data = {"Creator": None, "Description": json.dumps(numbers())}
    file = io.StringIO()
    picture().savefig(file, format="svg", transparent=True, metadata=data | {"Date": None})
    light = file.getvalue()
    for theme, drawn in (("light", light), ("dark", page_figures.in_the_dark(light))):
        assert drawn is not None, "a colour that the dark has none for"
        (FOLDER / f"landing-{theme}.svg").write_text(drawn, encoding="utf-8")
    picture(share=True).savefig(FOLDER / "share.png", dpi=100, metadata={"Software": None, **data})
    plt.close("all")
    print("\n".join(lines()))
    return 0


def _tables(run: Shown) -> Tables:
    return Tables(paths.published(run.name) / "tables")


def _layers(run: Shown) -> int:
    rows = _tables(run).loss.query("n > 0")
    return round(rows["n"].iloc[0] / rows["fraction"].iloc[0])


def numbers() -> dict[str, list]:
    """What is drawn: of each run the layers that go, and its curves by what they show."""
    drawn = {}
    for run in RUNS:
        qa, loss = _tables(run).qa, _tables(run).loss
        curves = {task[0]: (of_task(qa, task), "accuracy") for task in chosen_tasks(qa)}
        for what, (rows, column) in (curves | {"loss": (loss, "loss")}).items():
            for state in ("unhealed", "healed"):
                points = series(rows, SIMILARITY, state)[["n", column, "stderr"]]
                named = f"{run.name}: {what}, {state}"
                drawn[named] = points.astype(float).round(6).to_numpy().tolist()
        sets = series(loss, SIMILARITY, "unhealed").query("n > 0")["dropped"].astype(str)
        drawn[f"{run.name}: layers"] = [[int(one) for one in words.split()] for words in sets]
    return drawn


def picture(share: bool = False) -> Figure:
    """Which layers go, what the models still know, and their loss, against the share of layers
    cut. share: in the shape of pictures in links, without the loss."""
    rows = 2 if share else 3
    figure, panels = figures.grid(rows, len(RUNS), width=6.0, height=2.6)
    for run, column in zip(RUNS, panels.T, strict=True):
        draw(column, _tables(run).qa, _tables(run).loss, _layers(run))
        said = f"{run.title}\n{column[0].get_title(loc='left')}"
        column[0].set_title(said, loc="left", fontsize="medium", weight="bold")
    if share:
        figure.set_size_inches(12, 6.3)
        figure.suptitle("How many layers can go before a model stops knowing things?", size=19)
    return figure


def lines() -> list[str]:
    """The lines of README.md that hold numbers, as it has to have them."""
    return [*sentences(), "", *counts(), "", *example()]


def sentences() -> list[str]:
    """What a cut costs, healed, of each run: with standard errors and numbers of questions."""
    found = []
    for run in RUNS:
        tables, parts = _tables(run), []
        for task in chosen_tasks(tables.qa):
            curve = series(of_task(tables.qa, task), SIMILARITY, "healed").set_index("n")
            before, after = curve.loc[0], curve.loc[run.cut]
            asked = f"{after['n_questions']:.0f} questions"
            parts.append(f"{labels.asked(*task)} {_share(before)} → {_share(after)} ({asked})")
        loss = series(tables.loss, SIMILARITY, "healed").set_index("n")["loss"]
        found.append(
            typeset(
                f"- **{run.title}**, {run.cut} of {_layers(run)} layers cut and healed: "
                f"{'; '.join(parts)}; loss {loss[0]:.2f} → {loss[run.cut]:.2f} nats per token."
            )
        )
    return found


def _share(row: pd.Series) -> str:
    return f"{100 * row['accuracy']:.1f} ± {100 * row['stderr']:.1f}%"


def counts() -> list[str]:
    """How many claims of each paper came out how, a row per published run and paper."""
    names = ["yes, or reproduced", "partly", "no, or not reproduced", "undecided", "not tested"]
    answers = {"yes": "reproduced", "no": "not reproduced", "open": "undecided"}
    found = [f"| Claims of | on | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for paper, about in claims.papers().items():
        for run in RUNS:
            table = _tables(run).verdicts
            verdicts = table["verdict"][table["paper"] == paper].replace(answers).value_counts()
            row = [str(verdicts.get(one, 0)) for one in claims.VERDICTS]
            cite = about.cite.partition(",")[0]
            found.append(f"| {cite} | {run.title[0].lower()}{run.title[1:]} | {' | '.join(row)} |")
    return found


def example() -> list[str]:
    """A verdict as a terminal shows it: the same claim on both runs."""
    claim = claims.find("gromov-6")
    found = [f"Claim 6 ({typeset(of_paper(claim.where))}): {claim.statement}"]
    for run in RUNS:
        outcome = claim.verdict(_tables(run))
        found.append(f"  {run.title}: {outcome.verdict}")
        found += [f"    {part}" for part in typeset(outcome.reason).split("; ")]
    found.append(f"  Asked for: {typeset(outcome.asked)}")
    return found


if __name__ == "__main__":
    sys.exit(main())
