"""Every claim with its verdict on this study, and the rules behind them."""

import pandas as pd

from lib import claims
from lib.experiments.opened import OpenStudy
from lib.sections import pages
from lib.sections.section import Section, Table, every_claim


def verdict_table(opened: OpenStudy) -> pd.DataFrame:
    """The verdicts on this study, a row per claim."""
    return claims.verdicts(pages.tables(opened))


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
                "tables": "what the rule reads",
                "rule": "what decides",
                "fails": "what would be seen if the claim did not hold",
            },
            published=False,  # it follows from what is published
        ),
    ),
    claims=every_claim(),
)
