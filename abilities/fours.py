"""Questions in fours: four of them share four options, and each option is right once.

Each option also stands once in each of the four places, and the right ones in all four. So whoever
looks at the options alone, in whatever way, is right on one question in four, exactly.
"""

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
# Which order of the options each of the four questions has. Order r has option i ^ r in place i, so
# that the right option m of question m stands in place m ^ ORDERS[m]: 0, 3, 1 and 2.
ORDERS = (0, 2, 3, 1)


def in_fours(
    asked: Sequence[Row], options: Sequence[str], rng: random.Random, **of_all: Any
) -> list[Row]:
    """Four rows with `choices` and the place of the right `answer`, in any order.

    asked: what each row says, such as its question; the answer to the k-th is the k-th of the
    options. of_all: what all four say."""
    if not len(asked) == len(options) == len(set(options)) == 4:
        raise ValueError(f"four questions have four different options, not {options}")
    places = rng.sample(range(4), 4)  # what is counted as option 0, 1, 2, 3
    rows = []
    for m, order in enumerate(ORDERS):
        choices = [options[places[i ^ order]] for i in range(4)]
        rows.append(asked[places[m]] | of_all | {"choices": choices, "answer": m ^ order})
    return rng.sample(rows, 4)


def write(path: Path, rows: Iterable[Row]) -> None:
    """One JSON object a line."""
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
