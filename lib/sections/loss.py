"""Loss on text against the fraction of layers dropped (Fig. 3 of Gromov et al.)."""

import math
from itertools import cycle

import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure

from lib import labels
from lib.experiments import probes
from lib.experiments.conditions import main_conditions
from lib.experiments.opened import OpenStudy
from lib.sections import finding, pages
from lib.sections.columns import MODEL
from lib.sections.figures import curves, grid, loss_levels, normalised, panel_grid, shared_legend
from lib.sections.looks import DASHES, OTHERS
from lib.sections.section import Section, Table
from lib.sections.tables import (
    columns,
    for_reading,
    loss_table,
    main_rows,
    record,
    sound,
    tidy,
    transition_table,
)

LOSS = {
    "corpus": "name of the text",
    **MODEL,
    "loss": "mean cross-entropy of the next token, in nats",
    "normalized_loss": "loss over ln V, V being the size of the vocabulary",
    "stderr": "standard error of the loss, in nats",
    "n_tokens": "number of tokens predicted",
    "n_sequences": "number of documents",
}
UNITS = {"tokens": "", "bytes": "_per_byte", "words": "_per_word"}  # with their columns


def transitions(opened: OpenStudy) -> pd.DataFrame:
    """Where accuracy falls, for the figure."""
    return transition_table(opened, main_conditions(opened))


def for_page(loss: pd.DataFrame) -> pd.DataFrame:
    """The losses of the study's main strategy, for reading."""
    return for_reading(main_rows(loss))


def perplexity_table(opened: OpenStudy) -> pd.DataFrame | None:
    """Losses on whole texts; None where the study names none."""
    rows = []
    for text in opened.study.perplexity:
        for condition in sound(opened, main_conditions(opened)):
            value = record(opened, condition, text)
            losses = {
                f"{key}{suffix}": value[unit][key]
                for unit, suffix in UNITS.items()
                for key in ("loss", "stderr")
            }
            counts = {f"n_{unit}": value[unit]["count"] for unit in UNITS}
            rows.append(
                {"task": text.name}
                | columns(opened, condition)
                | losses
                | counts
                | {"n_documents": value["n_documents"]}
            )
    return tidy(rows) if rows else None


def whole_texts(perplexity: pd.DataFrame | None) -> HTML:
    """The losses on whole texts of the study's main strategy, for reading."""
    if perplexity is None:
        return HTML(
            '<p class="mathjax_ignore">This study names no text under <code>perplexity</code>, so '
            "nothing is measured here.</p>"
        )
    return pages.show(for_reading(main_rows(perplexity)))


def other_losses(opened: OpenStudy) -> pd.DataFrame | None:
    """Losses on other texts than the study's own; None where the study asks for none."""
    conditions = main_conditions(opened)
    found = [loss_table(opened, conditions, one) for one in probes.other_losses(opened.study)]
    return pd.concat(found, ignore_index=True) if found else None


def other_panels(loss: pd.DataFrame, others: pd.DataFrame | None) -> Figure | None:
    """Normalised loss against fraction, a panel per text on one scale, the study's own first; the
    study's main strategy. None where there are no others."""
    if others is None:
        return None
    texts = dict(list(pd.concat([loss, others]).groupby("corpus", sort=False)))
    figure, panels, spare = panel_grid(len(texts), height=3.1)
    shown = panels.flat[: len(texts)]
    for axes, (name, rows) in zip(shown, texts.items(), strict=True):
        curves(axes, normalised(rows), "normalized_loss")
        loss_levels(axes, rows)
        axes.set_title(name, fontsize="medium")
    top = max(axes.get_ylim()[1] for axes in shown)
    for axes in shown:
        axes.set_ylim(0, top)
    shared_legend(figure, panels, spare)
    return figure


def on_other_texts(others: pd.DataFrame | None) -> HTML:
    """The losses on other texts of the study's main strategy, for reading."""
    if others is None:
        return HTML(
            '<p class="mathjax_ignore">This study names no text under <code>other_texts</code> '
            "with <code>loss: true</code>, so nothing is measured here.</p>"
        )
    return pages.show(for_page(others))


def loss_panel(loss: pd.DataFrame, transitions: pd.DataFrame) -> Figure:
    """Fig. 3: normalised loss against fraction, with where accuracy falls after healing; the
    study's main strategy."""
    figure, panels = grid(1, 1, width=7, height=4.4)
    axes = panels[0, 0]
    curves(axes, normalised(loss), "normalized_loss")
    fitted = main_rows(transitions[transitions["state"] == "healed"]).dropna(subset=["fraction"])
    for row, shade, dash in zip(fitted.itertuples(), cycle(OTHERS), cycle(DASHES), strict=False):
        axes.axvspan(row.low, row.high, color=shade, alpha=0.12, linewidth=0)
        line = {"color": shade, "linestyle": dash, "linewidth": 1.3}
        name = labels.asked(row.task, row.shots)
        axes.axvline(row.fraction, **line, label=f"{name} falls")
    loss_levels(axes, loss)
    shared_legend(figure, panels)
    return figure


def sentence(opened: OpenStudy, made: finding.Made) -> str:
    """The loss with about half of the layers dropped, unhealed and healed."""
    table = finding.rows(made, "loss", "n", "state", "normalized_loss", "stderr")
    table = normalised(main_rows(table))
    unhealed, healed = (table[table["state"] == state] for state in ("unhealed", "healed"))
    whole, cut = unhealed[unhealed["n"] == 0], unhealed[unhealed["n"] > 0].set_index("n")
    if whole.empty or cut.empty:
        return ""
    healed = healed[healed["n"].isin(cut.index)].set_index("n")
    of = healed if len(healed) else cut
    n = (of["fraction"] - 0.5).abs().idxmin()
    before, error = cut.loc[n, ["normalized_loss", "stderr"]]
    text = (
        f"With {finding.dropped(of.loc[n, 'fraction'])} the loss goes from "
        f"{whole['normalized_loss'].iloc[0]:.3f} to {finding.with_error(before, error, 3)} of ln V "
        f"(1 is knowing nothing; {cut.loc[n, 'n_sequences']} documents)"
    )
    if healed.empty:
        return f"{text}; nothing was healed."
    after, other = healed.loc[n, ["normalized_loss", "stderr"]]
    value = finding.with_error(after, other, 3)
    if not finding.sure(after - before, math.hypot(error, other)):
        return f"{text}; healing leaves it at {value}, which cannot be told from that."
    return f"{text}; healing brings it {'down' if after < before else 'up'} to {value}."


SECTION = Section(
    conditions=lambda opened: {"": main_conditions(opened)},
    tables=(
        Table(
            "loss",
            lambda opened: loss_table(opened, main_conditions(opened)),
            "a model",
            LOSS,
        ),
        Table("other_losses", other_losses, "a model and another text", LOSS),
        Table(
            "perplexity",
            perplexity_table,
            "a model and a text",
            {
                "task": "lm-eval task over the text",
                **MODEL,
                "loss": "cross-entropy in nats per token",
                "loss_per_byte": "cross-entropy in nats per byte, as the task counts them",
                "loss_per_word": "cross-entropy in nats per word; its exponential is lm-eval's "
                "`word_perplexity`",
                **{
                    f"stderr{suffix}": f"standard error of the loss per {unit[:-1]}, in nats"
                    for unit, suffix in UNITS.items()
                },
                **{f"n_{unit}": f"number of {unit}" for unit in UNITS},
                "n_documents": "number of documents",
            },
        ),
    ),
    claims=("gromov-3", "gromov-4", "gromov-5"),
    in_short=sentence,
)
