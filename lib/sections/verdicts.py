"""Every claim with its verdict on this study, and the rules behind them."""

from html import escape
from pathlib import Path

import pandas as pd
from IPython.display import HTML

from lib import claims, paths
from lib.experiments.opened import OpenStudy
from lib.sections import pages, section
from lib.sections.section import Section, Table, every_claim


def verdict_table(opened: OpenStudy) -> pd.DataFrame:
    """The verdicts on this study, a row per claim."""
    return claims.verdicts(pages.tables(opened))


def every_verdict(opened: OpenStudy) -> HTML:
    """The verdict on every claim of every paper in a line, with a link to its card in the section
    that measures it; the cards of claims that no section shows follow."""
    found = claims.verdicts(pages.tables_for(opened))
    parts = []
    for name, rows in found.groupby("paper", sort=False):
        shown = [(row, section.home(f"{name}-{row.claim}")) for row in rows.itertuples()]
        lines = "".join(_line(row, page) for row, page in shown)
        parts.append(
            f'{pages.heading(name, 2)}<div class="table-box words verdict-list mathjax_ignore" '
            'tabindex="0" role="region" aria-label="Table of all claims and verdicts">'
            '<table class="dataframe"><thead><tr><th scope="col">claim</th>'
            '<th scope="col">what the paper says, and what came out here</th></tr></thead>'
            f"<tbody>{lines}</tbody></table></div>"
        )
        homeless = rows[[page is None for _, page in shown]]
        if len(homeless):
            parts.append("<p>No section is about these alone, so their cards stand here:</p>")
            parts.append(pages.cards(homeless))
    return HTML("".join(parts))


def _line(row: tuple, page: Path | None) -> str:
    href = card_link(f"{row.paper}-{row.claim}")
    where = f"section {int(page.stem[:2])}" if page and page.stem[:2].isdigit() else "card"
    return (
        f'<tr><th scope="row"><a href="{escape(href)}">{row.claim} <span>{where}</span></a></th>'
        f"<td>{escape(row.statement)} {pages.badge(row.verdict)}"
        f'<p class="claim-reason">{pages.reason(row)}</p></td></tr>'
    )


def card_link(claim: str) -> str:
    """The address of a claim's card, from any section's page of the same study."""
    page = section.home(claim) or paths.sections()["verdicts"]
    return f"{page.stem}.html#claim-{claim}"


def run_times(opened: OpenStudy) -> pd.DataFrame:
    """What measuring cost: per kind of evidence the number of records, seconds, peak memory."""
    rows = [
        {"kind": record["kind"], **record["provenance"]}
        for record in opened.store.records()
        if "seconds" in record["provenance"]
    ]
    found = pd.DataFrame(rows).groupby("kind")
    return pd.DataFrame(
        {
            "measurements": found["seconds"].count(),
            "seconds in all": found["seconds"].sum(),
            "longest": found["seconds"].max(),
            "peak memory [GiB]": found["peak_memory_bytes"].max() / 2**30,
        }
    ).reset_index()


SECTION = Section(
    tables=(
        Table(
            "verdicts",
            verdict_table,
            "a claim",
            {
                "paper": "the paper that says it, by the name of its file in lib/claims/",
                "claim": "its number",
                "statement": "what the paper says",
                "where": "figure or section of the paper",
                "verdict": "on this study",
                "reason": "the numbers behind it",
                "margins": "how far each condition of the rule is from its edge",
                "asked": "what the conditions that decide ask for",
                "tables": "what the rule reads",
                "rule": "what decides",
                "fails": "what would be seen if the claim did not hold",
            },
            published=False,  # it follows from what is published
        ),
    ),
    claims=every_claim(),
)
