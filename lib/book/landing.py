"""The README's picture and numbers, from published tables alone.

    python -m lib.book.landing

Writes book/_static/landing-light.svg and -dark.svg and the image for sharing, share.png, and prints
the lines of README.md that hold numbers.
"""

import json
import sys
from collections.abc import Iterator
from typing import NamedTuple

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib import claims, paths
from lib.claims.rules.gromov_curves import SIMILARITY
from lib.claims.rules.reading import Tables, of_task, series
from lib.words import of_paper, typeset

FOLDER = paths.ROOT / "book" / "_static"


class Shown(NamedTuple):
    """A published run in the picture. tasks: in words, with their colour and mark; cut: layers out
    of it that the sentence under the picture is about."""

    name: str
    title: str
    layers: int
    tasks: dict[str, tuple[str, int, str]]
    cut: int


RUNS = (
    Shown(
        "almanac",
        "A toy of a made-up world",
        16,
        {
            "almanac_reading": ("reading a passage", 0, "s"),
            "almanac_one_hop": ("a learnt fact", 1, "o"),
            "almanac_sums": ("sums, written out", 2, "^"),
        },
        cut=4,
    ),
    Shown(
        "smollm2-135m-instruct-public",
        "A real model: SmolLM2-135M",
        30,
        {
            "commons_knowledge": ("common knowledge", 1, "o"),
            "piqa": ("everyday physics", 0, "s"),
            "hellaswag": ("how a story goes on", 2, "^"),
        },
        cut=6,
    ),
)
# Text, quiet text, layers, what is cut, and the tasks' colours: contrast of 4.5 and more on GitHub.
THEMES = {
    "light": ("#1f2328", "#59636e", "#3b83a0", "#b4610e", ("#00704a", "#0860a8", "#b03a06")),
    "dark": ("#f0f6fc", "#a4b0bd", "#5aa5c3", "#f0a458", ("#3fc79a", "#6fb6f2", "#f2895a")),
}
GROUND = {"light": "#ffffff", "dark": "#0d1117"}


def main() -> int:
    for theme in THEMES:
        figure = picture(theme)
        data = {"Date": None, "Creator": None, "Description": json.dumps(numbers())}
        with mpl.rc_context({"svg.hashsalt": "landing", "svg.fonttype": "path"}):
            figure.savefig(FOLDER / f"landing-{theme}.svg", transparent=True, metadata=data)
        plt.close(figure)
    figure = picture("light", share=True)
    data = {"Software": None, "Description": json.dumps(numbers())}
    figure.savefig(FOLDER / "share.png", dpi=100, facecolor=GROUND["light"], metadata=data)
    plt.close(figure)
    print("\n".join(lines()))
    return 0


def _tables(run: Shown) -> Tables:
    return Tables(paths.published(run.name) / "tables")


def numbers() -> dict[str, list]:
    """What is drawn: of each run its blocks, and its curves by what they show."""
    drawn = {}
    for run in RUNS:
        for what, rows, column in _curves(run):
            points = rows[["n", column, "stderr"]].astype(float).round(6)
            drawn[f"{run.name}: {what}"] = points.to_numpy().tolist()
        blocks = _blocks(run)[["n", "start"]].astype(int)
        drawn[f"{run.name}: blocks"] = blocks.to_numpy().tolist()
    return drawn


def _curves(run: Shown) -> Iterator[tuple[str, pd.DataFrame, str]]:
    tables = _tables(run)
    for state in ("unhealed", "healed"):
        for task in run.tasks:
            yield (
                f"{task}, {state}",
                series(of_task(tables.qa, (task, 0)), SIMILARITY, state),
                ("accuracy"),
            )
        yield f"loss, {state}", series(tables.loss, SIMILARITY, state), "loss"


def _blocks(run: Shown) -> pd.DataFrame:
    return series(_tables(run).loss, SIMILARITY, "unhealed").query("n > 0")


def picture(theme: str, share: bool = False) -> Figure:
    """Which layers go, what the models still know, and their loss, against the share of layers
    cut. share: in the shape of pictures in links, without the loss."""
    text, quiet, *_ = THEMES[theme]
    heights = (1, 2.1) if share else (1, 2.1, 1.3)
    style = {
        "font.size": 11, "text.color": text, "axes.labelcolor": text, "axes.edgecolor": quiet,
        "xtick.color": quiet, "ytick.color": quiet, "axes.spines.top": False,
        "axes.spines.right": False, "axes.titlesize": 11, "axes.titleweight": "bold",
        "axes.titlelocation": "left", "axes.titlecolor": text,
    }  # fmt: skip
    with mpl.rc_context(style):
        size = (12, 6.3) if share else (10.5, 8)
        figure, grid = plt.subplots(
            len(heights), 2, figsize=size, height_ratios=heights, sharex="col", layout="constrained"
        )
        for run, column in zip(RUNS, grid.T, strict=True):
            _stacks(column[0], run, theme)
            _answers(column[1], run, theme)
            if not share:
                _losses(column[2], run, theme)
            column[-1].set_xlabel(f"share of the {run.layers} layers that is cut out")
            column[-1].xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
            column[-1].set_xlim(-0.04, 1)
        if share:
            figure.suptitle("How many layers can go before a model stops knowing things?", size=19)
    return figure


def _stacks(axes: Axes, run: Shown, theme: str) -> None:
    _, _, kept, gone, _ = THEMES[theme]
    blocks = _blocks(run)
    width = 0.8 * min(blocks["fraction"].diff().min(), blocks["fraction"].min())
    rows = [(0.0, range(0)), *(
        (row.fraction, range(int(row.start), int(row.start + row.n))) for row in blocks.itertuples()
    )]  # fmt: skip
    for fraction, cut in rows:
        below, above = (0, cut.start), (cut.stop, run.layers)
        for first, end in (below, above) if cut else ((0, run.layers),):
            axes.bar(fraction, end - first, width, first, color=kept)
        axes.bar(fraction, len(cut), width, cut.start, fill=False, edgecolor=gone, linestyle=":")
    axes.set_title(f"{run.title}\nWhich layers go (dotted), of {run.layers}")
    axes.set_ylabel("layer")


def _answers(axes: Axes, run: Shown, theme: str) -> None:
    colours = THEMES[theme][-1]
    qa = _tables(run).qa
    for task, (name, colour, mark) in run.tasks.items():
        for state in ("unhealed", "healed"):
            rows = series(of_task(qa, (task, 0)), SIMILARITY, state)
            axes.errorbar(
                rows["fraction"], 100 * rows["accuracy"], 100 * rows["stderr"], marker=mark,
                color=colours[colour], markersize=4.5, elinewidth=0.8,
                label=name if state == "healed" else None, **_look(state),
            )  # fmt: skip
        chance = 100 * of_task(qa, (task, 0))[["guess", "constant"]].iloc[0].max()
        axes.axhline(chance, 0.955, 1, color=colours[colour], linewidth=2)
    axes.set_title("What it still knows (right: chance)")
    axes.set_ylabel("answered rightly")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f}%")
    axes.set_ylim(0, 103)
    legend = axes.legend(frameon=False, fontsize=10, loc="upper right")
    for entry in legend.get_texts():
        entry.set_color(THEMES[theme][0])


def _losses(axes: Axes, run: Shown, theme: str) -> None:
    text, quiet, *_ = THEMES[theme]
    loss = _tables(run).loss
    for state in ("unhealed", "healed"):
        rows = series(loss, SIMILARITY, state)
        axes.errorbar(
            rows["fraction"], rows["loss"], rows["stderr"], marker="o", color=text, markersize=4,
            elinewidth=0.8, label=state, **_look(state),
        )  # fmt: skip
    nothing = (loss["loss"] / loss["normalized_loss"]).median()
    axes.axhline(nothing, color=quiet, linestyle="-.", linewidth=1)
    axes.text(0, nothing, "knowing nothing", color=quiet, size=9, va="bottom")
    axes.set_title("How well it predicts text")
    axes.set_ylabel("nats per token")
    axes.set_ylim(0, 1.2 * max(nothing, loss["loss"][loss["strategy"] == SIMILARITY].max()))
    axes.legend(frameon=False, fontsize=10, loc="upper right", ncols=2, labelcolor=text)


def _look(state: str) -> dict[str, object]:
    if state == "healed":
        return {"linestyle": "-", "linewidth": 2}
    return {"linestyle": "--", "linewidth": 1.1, "alpha": 0.75, "markerfacecolor": "none"}


def lines() -> list[str]:
    """The lines of README.md that hold numbers, as it has to have them."""
    return [*sentences(), "", *counts(), "", *example()]


def sentences() -> list[str]:
    """What a cut costs, healed, of each run: with standard errors and numbers of questions."""
    found = []
    for run in RUNS:
        tables, parts = _tables(run), []
        for task, (name, *_) in run.tasks.items():
            curve = series(of_task(tables.qa, (task, 0)), SIMILARITY, "healed").set_index("n")
            before, after = curve.loc[0], curve.loc[run.cut]
            parts.append(
                f"{name} {_share(before)} → {_share(after)} ({after['n_questions']:.0f} questions)"
            )
        loss = series(tables.loss, SIMILARITY, "healed").set_index("n")["loss"]
        found.append(
            typeset(
                f"- **{run.title}**, {run.cut} of {run.layers} layers cut and healed: "
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
