"""The rule of claim 10 of Lu et al.: keep the last layer or drop it. Written down before any of the
numbers that it judges were seen."""

import pandas as pd

from lib.claims.rules.judging import (
    NOT_REPRODUCED,
    PARTLY,
    REPRODUCED,
    Check,
    Outcome,
    all_of,
    judged,
    shown,
)
from lib.claims.rules.lu_layers import HALF, QUARTER, at
from lib.claims.rules.pairs import Pair, holds_up, pairs, wins
from lib.claims.rules.reading import Tables, Untestable, percent

UNHEALED, HEAD = "none", "partial-head"  # of healing; recipes that train the head begin so
WHAT = ("(a) unhealed", "(b) head and last layers trained", "(c) the difference of the two")


def last_layer(tables: Tables) -> Outcome:
    """Claim 10."""
    found = [_at_fraction(tables, fraction) for fraction in (QUARTER, HALF)]
    by_condition = zip(*(checks for checks, _ in found), strict=True)
    checks = [all_of(what, of) for what, of in zip(WHAT, by_condition, strict=True)]

    def verdict(held: list[bool]) -> str:
        return REPRODUCED if all(held) else PARTLY if held[2] else NOT_REPRODUCED

    return judged("; ".join(note for _, note in found), verdict, *checks)


def _at_fraction(tables: Tables, fraction: float) -> tuple[list[Check], str]:
    """The three conditions, and the advantages in words."""
    table = at(tables.last_layer, fraction)
    rows = table[table["role"] == "all"].set_index("healing")
    partial = [one for one in rows.index if one.startswith(HEAD)]
    if UNHEALED not in rows.index or not partial:
        raise Untestable(
            "the advantage of the last layer is not measured both unhealed and with head and last "
            "layers trained, on tasks that the unpruned model can do"
        )
    pair = {
        name: pairs([(name, rows.loc[name, "difference"], rows.loc[name, "stderr"])])[0]
        for name in rows.index
    }
    last = partial[-1]  # the one that trains most
    gap, error = _interaction(tables, fraction, UNHEALED, last)
    checks = [
        wins("", pair[UNHEALED]),
        holds_up("", _turned(pair[last])),
        shown("", gap, error),
    ]
    words = ", ".join(map(str, pair.values()))
    less = f"unhealed less {last} {100 * gap:+.1f} ± {100 * error:.1f}"
    return checks, f"{percent(fraction)}: {words}; {less}"


def _turned(pair: Pair) -> Pair:
    """Of the second side less the first."""
    (found,) = pairs([(pair.name, -pair.difference, pair.stderr)])
    return found


def _interaction(tables: Tables, fraction: float, first: str, second: str) -> tuple[float, float]:
    rows: pd.DataFrame = at(tables.last_layer_interaction, fraction)
    for row in rows[rows["role"] == "all"].to_dict("records"):
        if {row["healing"], row["other"]} == {first, second}:
            sign = 1 if row["healing"] == first else -1
            return sign * row["interaction"], row["stderr"]
    raise Untestable("the interaction of the last layer with healing is not measured")
