"""The rule of claim 10 of Lu et al.: keep the last layer or drop it. Written down before any of the
numbers that it judges were seen."""

import re

import pandas as pd

from lib.claims.rules.judging import (
    NOT_REPRODUCED,
    PARTLY,
    REPRODUCED,
    Outcome,
    all_of,
    judged,
    shown,
)
from lib.claims.rules.lu_layers import HALF, QUARTER, REVERSE, at
from lib.claims.rules.lu_recipes import THREE
from lib.claims.rules.pairs import holds_up, pairs, turned, wins
from lib.claims.rules.reading import Tables, Untestable, percent

KEEPS = "simple"  # a strategy that keeps the last layer
UNHEALED = "none"  # of healing
WHAT = ("(a) unhealed", "(b) head and last layers trained", "(c) the difference of the two")


def last_layer(tables: Tables) -> Outcome:
    """Claim 10."""
    gains = {fraction: _gains(tables, fraction) for fraction in (QUARTER, HALF)}
    partial = next((one for one in gains[QUARTER].index if re.fullmatch(THREE, one)), None)
    if any(not {UNHEALED, partial} <= {*rows.index} for rows in gains.values()):
        raise Untestable(
            "the last layer's gain is not measured both unhealed and with the head and the last "
            "three layers trained"
        )
    names = {(fraction, one) for fraction in gains for one in gains[fraction].index}
    judged_by = [key for key in sorted(names) if key[1] in (UNHEALED, partial)]
    found = dict(zip(judged_by, pairs([_row(gains, *key) for key in judged_by]), strict=True))
    gaps = {one: _interaction(tables, one, UNHEALED, partial) for one in gains}
    checks = [
        all_of(WHAT[0], [wins("", found[one, UNHEALED]) for one in gains]),
        all_of(WHAT[1], [holds_up("", turned(found[one, partial])) for one in gains]),
        all_of(WHAT[2], [shown("", *gaps[one]) for one in gains]),
    ]

    def verdict(held: list[bool]) -> str:
        return REPRODUCED if all(held) else PARTLY if held[2] else NOT_REPRODUCED

    others = pairs([_row(gains, *key) for key in sorted(names - {*judged_by})])
    words = [*map(str, found.values())]
    words += [f"at {percent(one)} the first less the last {_points(*gaps[one])}" for one in gaps]
    words += [f"beside it {one}" for one in others]
    return judged("; ".join(words), verdict, *checks)


def _gains(tables: Tables, fraction: float) -> pd.DataFrame:
    """What keeping the last layer gains over all tasks, by healing."""
    table = at(tables.last_layer, fraction)
    rows = table[table["role"] == "all"]
    if {(one.compared, one.base) for one in rows.itertuples()} - {(KEEPS, REVERSE)}:
        raise Untestable(f"other strategies than {KEEPS} and {REVERSE} are compared")
    if rows.empty:
        raise Untestable("the unpruned model can do no task, or all models are at chance")
    return rows.set_index("healing")


def _row(
    gains: dict[float, pd.DataFrame], fraction: float, healing: str
) -> tuple[str, float, float]:
    of = gains[fraction].loc[healing]
    what = "unhealed" if healing == UNHEALED else healing
    return f"{what} at {percent(fraction)}", of["difference"], of["stderr"]


def _points(difference: float, stderr: float) -> str:
    return f"{100 * difference:+.1f} ± {100 * stderr:.1f}"


def _interaction(tables: Tables, fraction: float, first: str, second: str) -> tuple[float, float]:
    rows: pd.DataFrame = at(tables.last_layer_interaction, fraction)
    for row in rows[rows["role"] == "all"].to_dict("records"):
        if {row["healing"], row["other"]} == {first, second}:
            sign = 1 if row["healing"] == first else -1
            return sign * row["interaction"], row["stderr"]
    raise Untestable("the interaction of the last layer with healing is not measured")
