"""What papers say, as rules over tables: one file a paper.

Every module that stands right here is a paper, `PAPER = Paper(title, cite, claims)`; what rules
are made of stands in `rules/`. A claim's id is its paper's file name and its number: gromov-7.
Nothing here knows a result: a verdict is per study, and computed from its tables.
"""

import pkgutil
from collections import Counter
from importlib import import_module

import pandas as pd

from lib.claims.rules.judging import ANSWERS, VERDICTS, Claim, Paper
from lib.claims.rules.reading import Tables
from lib.errors import UserError

__all__ = ["ANSWERS", "VERDICTS", "Claim", "Paper", "Tables", "find", "papers", "verdicts"]


def papers() -> dict[str, Paper]:
    """All papers by the names of their files.

    Raises UserError for a file that does not import or has no PAPER, and for a claim's number that
    stands twice in a paper."""
    names = sorted(one.name for one in pkgutil.iter_modules(__path__) if not one.ispkg)
    return {name: _paper(name) for name in names}


def _paper(name: str) -> Paper:
    where = f"lib/claims/{name}.py"
    try:
        paper = import_module(f"{__name__}.{name}").PAPER
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{where}: cannot be read as a paper of claims, PAPER = Paper(title, cite, claims), "
            f"{reason}; what is no paper belongs into lib/claims/rules"
        ) from None
    if not isinstance(paper, Paper):
        raise UserError(f"{where}: PAPER has to be a Paper(title, cite, claims)")
    for number, times in Counter(claim.number for claim in paper.claims).items():
        if times > 1:
            raise UserError(f"{where}: {times} claims have the number {number}; each needs its own")
    return paper


def find(claim: str) -> Claim:
    """By id, such as "gromov-7". Raises UserError where there is none."""
    found = {f"{name}-{one.number}": one for name, one in _all()}
    if claim not in found:
        raise UserError(f"claim '{claim}': unknown; there are {', '.join(found)}")
    return found[claim]


def _all() -> list[tuple[str, Claim]]:
    return [(name, claim) for name, paper in papers().items() for claim in paper.claims]


def verdicts(tables: Tables, ids: list[str] | None = None) -> pd.DataFrame:
    """A row per claim: its words, the verdict with its reason, how far each condition of the rule
    is from its edge, and what those that decide ask for. Of all papers, or of the claims with these
    ids, in their order.

    Raises UserError for an unknown id."""
    chosen = _all() if ids is None else [(one.rpartition("-")[0], find(one)) for one in ids]
    rows = []
    for paper, claim in chosen:
        found = claim.verdict(tables)
        rows.append(
            {
                "paper": paper,
                "claim": claim.number,
                "statement": claim.statement,
                "where": claim.where,
                "verdict": found.verdict,
                "reason": found.reason,
                "margins": found.margins or "–",
                "asked": found.asked or "–",
                "tables": ", ".join(claim.tables) or "–",
                "rule": claim.rule,
                "fails": claim.fails,
            }
        )
    return pd.DataFrame(rows)
