"""Tables of results that are made up, and the verdicts of claims on them."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from lib import claims
from lib.claims.rules.reading import Tables
from lib.sections import tables

Given = dict[str, pd.DataFrame]
Judge = Callable[[str, Given], str]
LORA, HEAD = "lora-r8-a16-all", "partial-head-norm"


def judged(folder: Path, claim: str, given: Given) -> str:
    """The verdict of a claim on tables, written into a folder."""
    for name, table in given.items():
        tables.write(folder / f"{name}.csv", table)
    return claims.verdicts(Tables(folder), [claim]).iloc[0]["verdict"]


def row(first: str, second: str, lead: float, stderr: float = 0.01, **more: object) -> dict:
    """Two sides compared, the first with such a lead."""
    return {
        "role": "all", "compared": first, "base": second, "tasks": 3, "n_questions": 500,
        "difference": lead, "stderr": stderr, "loss_difference": -lead, "loss_stderr": 0.002,
        "same": "",
    } | more  # fmt: skip


def last(layers: int) -> str:
    """The recipe that trains the head, the norm and so many last layers."""
    return f"{HEAD}-last{layers}"
