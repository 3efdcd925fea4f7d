"""Verdicts on several runs at a glance: a row for each claim, a column for each run."""

from html import escape

import pandas as pd
from IPython.display import HTML

from lib import claims

KEYS = ["paper", "claim", "statement"]


def matrix(wide: pd.DataFrame) -> HTML:
    """A mark for each verdict, with its word for those who hear the page or point at it; empty
    where a run says nothing of a claim. `wide`: KEYS, then a column per run."""
    runs = [str(name) for name in wide.columns[len(KEYS) :]]
    head = "".join(f'<th scope="col"><span>{escape(run)}</span></th>' for run in runs)
    parts = []
    for paper, rows in wide.groupby(wide.iloc[:, 0].to_numpy(), sort=False):
        title = escape(claims.papers()[paper].cite)
        parts.append(f'<tr><th scope="rowgroup" colspan="{len(runs) + 1}">{title}</th></tr>')
        for row in rows.itertuples(index=False, name=None):
            said = escape(f"{row[1]}. {row[2]}")
            cells = "".join(map(_cell, row[len(KEYS) :]))
            parts.append(f'<tr><th scope="row">{said}</th>{cells}</tr>')
    return HTML(
        '<div class="table-box matrix mathjax_ignore" tabindex="0" role="region" '
        f'aria-label="Verdicts by claim and run"><table><thead><tr><th scope="col">Claim</th>{head}'
        f"</tr></thead><tbody>{''.join(parts)}</tbody></table></div>" + _meaning(wide)
    )


def _cell(verdict: object) -> str:
    if not isinstance(verdict, str) or not verdict:
        return "<td></td>"
    return f"<td>{_mark(verdict)}</td>"


def _mark(verdict: str) -> str:
    kind = escape(verdict.replace(" ", "-"))
    word = escape(verdict)
    return (
        f'<span class="verdict verdict-{kind}" title="{word}">'
        f'<span class="visually-hidden">{word}</span></span>'
    )


def _meaning(wide: pd.DataFrame) -> str:
    """What the marks say, of those that are there."""
    there = {one for one in wide.iloc[:, len(KEYS) :].to_numpy().ravel() if isinstance(one, str)}
    every = dict.fromkeys([*claims.VERDICTS, *claims.ANSWERS.values()])
    items = "".join(f"<li>{_mark(one)} {escape(one)}</li>" for one in every if one in there)
    return f'<ul class="matrix-meaning mathjax_ignore">{items}</ul>'
