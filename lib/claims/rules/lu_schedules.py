"""The rules of the claims of Lu et al. about pruning in steps (21 to 25). They were written down
before any of the numbers that they judge were seen."""

import numpy as np
import pandas as pd

from lib.claims.rules.judging import (
    COMPARABLE,
    NOT_REPRODUCED,
    PARTLY,
    REPRODUCED,
    Outcome,
    above,
    all_of,
    answered,
    at_least,
    graded,
    judged,
    measured,
    minus,
    shown,
)
from lib.claims.rules.lu_layers import NEAR, QUARTER, at
from lib.claims.rules.lu_recipes import THREE
from lib.claims.rules.pairs import Pair, holds_up, pairs, turned, wins
from lib.claims.rules.reading import Tables, Untestable, percent

# What tables call the ways of pruning that are compared, and two models whose layers are.
STEPS, ONCE, LONGER = "in steps", "all at once", "all at once, as many tokens"
TWO_WAYS, TWO_SEEDS = f"{STEPS}, {ONCE}", f"{ONCE}, two seeds"
LOW = 0.125  # a fraction up to which claim 23 calls it low
TRAINED = 0.5  # share of what goes that had just been trained (claim 24)
FURTHER = 2.0  # times as far apart as two seeds (claim 25)


def _rows(tables: Tables, base: str) -> pd.DataFrame:
    """Over all tasks, what steps gain on a way of pruning at once."""
    table = tables.steps_compared
    table = table[(table["role"] == "all") & (table["base"] == base)]
    if table.empty:
        raise Untestable(
            "nothing is pruned in steps here, or no task is left that the unpruned model can do"
        )
    return table


def _named(row: dict) -> str:
    return f"{row['strategy']}, {row['each']:.0f} at a time, {row['healing']}"


def _pairs(table: pd.DataFrame) -> list[Pair]:
    return pairs(
        [
            (f"{_named(row)} at {percent(row['fraction'])}", row["difference"], row["stderr"])
            for row in table.to_dict("records")
        ]
    )


def _no_benefit(tables: Tables, base: str) -> Outcome:
    found = _pairs(_rows(tables, base))
    checks = [holds_up(one.name, turned(one)) for one in found]
    return graded("; ".join(map(str, found)), all_of("every schedule", checks))


def as_run(tables: Tables) -> Outcome:
    """Claim 21."""
    return _no_benefit(tables, ONCE)


def at_equal_tokens(tables: Tables) -> Outcome:
    """Claim 22."""
    return _no_benefit(tables, LONGER)


def at_low_rates(tables: Tables) -> Outcome:
    """Claim 23."""
    table, checks, words = _rows(tables, LONGER), [], []
    for _, of in table.groupby(["strategy", "each", "healing"], sort=False):
        low, name = of[of["fraction"] <= LOW + NEAR], _named(of.to_dict("records")[0])
        if low.empty or len(of) < 3:
            continue
        won = _pairs(low)
        slope, error, zero = _line(of)
        crossing = f", 0 at {percent(zero)}" if 0 < zero < 1 else ""
        words += [*map(str, won), f"{name}: {slope:+.2f} ± {error:.2f} for all layers{crossing}"]
        checks += [wins(f"{name}, low", one) for one in won]
        checks.append(shown(f"{name}, falls", -slope, error))
    if not checks:
        raise Untestable(
            f"no schedule has a number of layers up to {percent(LOW)} and two others beside it"
        )
    return answered("; ".join(words), all_of("every schedule", checks))


def _line(of: pd.DataFrame) -> tuple[float, float, float]:
    """Slope of the gain against the fraction with its standard error, weighted by the errors of
    the gains, and where the line crosses 0."""
    x, y = of["fraction"].to_numpy(), of["difference"].to_numpy()
    weight = 1 / np.maximum(of["stderr"].to_numpy(), 1e-6) ** 2
    middle, level = np.average(x, weights=weight), np.average(y, weights=weight)
    spread = float((weight * (x - middle) ** 2).sum())
    slope = float((weight * (x - middle) * (y - level)).sum() / spread)
    return slope, spread**-0.5, float(middle - level / slope) if slope else float("nan")


def taylor_collapses(tables: Tables) -> Outcome:
    """Claim 24."""
    table = at(_rows(tables, ONCE), QUARTER)
    table = table[
        (table["strategy"] == "taylor")
        & (table["each"] == 1)
        & table["healing"].str.fullmatch(THREE)
    ]
    if table.empty:
        raise Untestable("not run: taylor, a layer at a time, with the head and three layers")
    words, falls, shares = [], [], []
    for pair, share in zip(_pairs(table), table["just_trained"], strict=True):
        lost = measured(-pair.difference, pair.stderr)
        falls += [at_least("", lost, COMPARABLE), shown("", lost.value, pair.stderr)]
        shares.append(at_least("", measured(share), TRAINED))
        words.append(
            f"{pair}; of the layers that went later {percent(share)} had just been trained"
        )

    def verdict(held: list[bool]) -> str:
        return REPRODUCED if all(held) else PARTLY if held[0] else NOT_REPRODUCED

    checks = [all_of("(a) collapses", falls), all_of("(b) just trained", shares)]
    return judged("; ".join(words), verdict, *checks)


def other_representations(tables: Tables) -> Outcome:
    """Claim 25."""
    table, checks, words = tables.steps_aligned, [], []
    for _, of in table.groupby(["strategy", "each", "healing"], sort=False):
        of = of[of["n"] == of["n"].max()]
        ways, seeds = (of[of["pair"] == what] for what in (TWO_WAYS, TWO_SEEDS))
        if ways.empty or seeds.empty:
            continue
        name = _named(of.to_dict("records")[0])
        apart = [measured(1 - one["cka"].mean(), one["stderr"].mean()) for one in (ways, seeds)]
        words.append(f"{name}: {apart[0].value:.3f} apart, two seeds {apart[1].value:.3f}")
        checks.append(above(name, minus(*apart, factor=FURTHER), 0.0))
    if not checks:
        raise Untestable("two seeds of healing are not compared with steps here")
    return graded("; ".join(words), all_of("every schedule", checks))
