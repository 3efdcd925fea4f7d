"""Every claim with its verdict on this study, and the rules behind them."""

from lib.claims import gromov
from lib.sections import pages
from lib.sections.section import Section, Table, every_claim

SECTION = Section(
    tables=(
        Table(
            "verdicts",
            lambda opened: gromov.verdicts(pages.tables(opened)),
            "a claim",
            {
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
