"""The verdicts of published runs side by side, as Markdown shows them."""

import json
from pathlib import Path

import pandas as pd

from lib import paths, study
from lib.book.took import Rows
from lib.claims.rules.judging import NOT_TESTABLE
from lib.claims.rules.reading import read

REAL = "a real model"  # how the signs of such runs begin


def tables() -> dict[str, Rows]:
    """By what they show: `real`, the claims that some published run of a real model tests."""
    found = {}
    for file in sorted(paths.published("").glob("*/study.json")):
        about = json.loads(file.read_text("utf-8"))
        verdicts = file.parent / "tables" / "verdicts.csv"
        sign = str(study.published_sign(about, file.parent.name))
        if sign.startswith(REAL) and verdicts.is_file():
            found[str(about["title"])] = _by_claim(verdicts)
    if not found:
        return {"real": []}
    table = pd.DataFrame(found).fillna("not judged")
    tested = table[~table.isin([NOT_TESTABLE, "not judged"]).all(axis=1)]
    return {
        "real": [
            {"claim": f"{paper}-{number}", "what it says": statement} | dict(row)
            for (paper, number, statement), row in tested.iterrows()
        ]
    }


def _by_claim(file: Path) -> pd.Series:
    return read(file).set_index(["paper", "claim", "statement"])["verdict"]
