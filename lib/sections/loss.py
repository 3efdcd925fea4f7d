"""Loss on text against the fraction of layers dropped (Fig. 3 of Gromov et al.)."""

import pandas as pd
from matplotlib.figure import Figure

from lib.experiments.conditions import main_conditions
from lib.experiments.opened import OpenStudy
from lib.sections.columns import MODEL
from lib.sections.figures import SHADES, curves, grid, loss_levels, normalised, shared_legend
from lib.sections.section import Section, Table
from lib.sections.tables import for_reading, loss_table, main_rows, transition_table


def transitions(opened: OpenStudy) -> pd.DataFrame:
    """Where accuracy falls, for the figure."""
    return transition_table(opened, main_conditions(opened))


def for_page(loss: pd.DataFrame) -> pd.DataFrame:
    """The losses of the study's main strategy, for reading."""
    return for_reading(main_rows(loss))


def loss_panel(loss: pd.DataFrame, transitions: pd.DataFrame) -> Figure:
    """Fig. 3: normalised loss against fraction, with where accuracy falls after healing; the
    study's main strategy."""
    figure, panels = grid(1, 1, width=7, height=4.4)
    axes = panels[0, 0]
    curves(axes, normalised(loss), "normalized_loss")
    fitted = main_rows(transitions[transitions["state"] == "healed"]).dropna(subset=["fraction"])
    for row, shade in zip(fitted.itertuples(), SHADES[2:], strict=False):
        axes.axvspan(row.low, row.high, color=shade, alpha=0.12, linewidth=0)
        axes.axvline(
            row.fraction, color=shade, linewidth=1, label=f"{row.task} ({row.shots}-shot) falls"
        )
    loss_levels(axes, loss)
    shared_legend(figure, panels)
    return figure


SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    tables=(
        Table(
            "loss",
            lambda opened: loss_table(opened, main_conditions(opened)),
            "a model",
            {
                "corpus": "name of the text",
                **MODEL,
                "loss": "mean cross-entropy of the next token, in nats",
                "normalized_loss": "loss over ln V, V being the size of the vocabulary",
                "stderr": "standard error of the loss, in nats",
                "n_tokens": "number of tokens predicted",
                "n_sequences": "number of documents",
            },
        ),
    ),
    claims=("gromov-3", "gromov-4", "gromov-5"),
)
