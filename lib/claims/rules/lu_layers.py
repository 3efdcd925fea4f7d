"""The rules of the claims of Lu et al. about which layers go (1 to 9 and 11).

They were written down before any of the numbers that they judge were seen. Strategies go by their
names in a study; `taylor-guarded` and `block-influence-flattened` are what studies call these
variants here.
"""

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from lib.claims.rules.judging import (
    NOT_REPRODUCED,
    PARTLY,
    REPRODUCED,
    UNDECIDED,
    Check,
    Measured,
    Outcome,
    all_of,
    answered,
    at_least,
    graded,
    measured,
)
from lib.claims.rules.pairs import Pair, compared, holds_up, pairs, wins
from lib.claims.rules.reading import Tables, Untestable, percent

REVERSE, DRAWN = "reverse-order", "random, mean of the draws"
RIVALS = ("magnitude", "taylor", "perplexity", "block-influence", DRAWN)
QUARTER, HALF = 0.25, 0.5
NEAR = 0.04  # a fraction this close to the one that a rule names is taken for it
DRAWS = 20  # by chance, at least
ALIKE = 0.8  # Jaccard index and Kendall's τ of two metrics that are one
RANKED = 0.6  # Kendall's τ of two rankings that are the same
RESAMPLED = 1000


def at(table: pd.DataFrame, fraction: float) -> pd.DataFrame:
    """The rows of the one number of layers that is nearest to a fraction, the smaller of two."""
    apart = (table["fraction"] - fraction).abs().round(9)
    if table.empty or apart.min() > NEAR:
        raise Untestable(f"nothing is compared at {percent(fraction)} of the layers")
    return table[table["fraction"] == table.loc[apart == apart.min(), "fraction"].min()]


def _compared(tables: Tables, fraction: float, state: str, role: str = "all") -> pd.DataFrame:
    table = at(tables.layers_compared, fraction)
    table = table[(table["models"] == state) & (table["role"] == role)]
    if table.empty:
        raise Untestable(
            f"no {state} models to compare at {percent(fraction)} of the layers, on tasks that the "
            "unpruned one can do"
        )
    return table


def _family(table: pd.DataFrame, first: str, others: tuple[str, ...]) -> list[Pair]:
    """A strategy against others, as one family; those that are not there, or drop the same layers,
    are left out."""
    found = [(other, compared(table, first, other)) for other in others]
    known = [(f"{first} against {other}", *pair) for other, pair in found if pair]
    if not known:
        raise Untestable(
            f"{first} is not compared with {', '.join(others)} here, or drops the same layers"
        )
    return pairs(known)


def _on_loss(table: pd.DataFrame, first: str, others: tuple[str, ...]) -> str:
    """In words, how many of the others have a higher loss by two standard errors, or a lower."""
    found = [compared(table, first, one, "loss_difference", "loss_stderr") for one in others]
    known = [pair for pair in found if pair]
    lower = sum(difference < -2 * error for difference, error in known)
    higher = sum(difference > 2 * error for difference, error in known)
    return f"its loss is lower than that of {lower} and higher than that of {higher}"


def _best(tables: Tables, fraction: float) -> Outcome:
    table = _compared(tables, fraction, "healed")
    found = _family(table, REVERSE, RIVALS)
    missing = len(RIVALS) - len(found)
    note = "; ".join(map(str, found)) + f"; {_on_loss(table, REVERSE, RIVALS)}"
    if missing:
        note += f"; {missing} of {len(RIVALS)} not healed here, or of the same layers"
    results = [pair.result for pair in found]
    if "loss" in results:
        verdict = NOT_REPRODUCED
    elif "undecided" not in results and not missing:
        verdict = REPRODUCED
    else:
        verdict = PARTLY if {"win", "tie"} & {*results} else UNDECIDED
    return Outcome(verdict, note)


def best_at_a_quarter(tables: Tables) -> Outcome:
    """Claim 1."""
    return _best(tables, QUARTER)


def general_lead(tables: Tables) -> Outcome:
    """Claim 2."""
    found = _both(
        (f"on {role}", _compared(tables, QUARTER, "healed", role), REVERSE, "perplexity")
        for role in ("knowledge", "reading")
    )
    return graded("; ".join(map(str, found)), *(wins(one.name, one) for one in found))


def _both(given: Iterable[tuple[str, pd.DataFrame, str, str]]) -> list[Pair]:
    """One comparison in several tables, as one family: names, tables, and the two sides."""
    found = []
    for name, table, first, second in given:
        pair = compared(table, first, second)
        if pair is None:
            raise Untestable(
                f"{first} is not compared with {second} {name}, or drops the same layers"
            )
        found.append((f"{first} against {second} {name}", *pair))
    return pairs(found)


def best_at_half(tables: Tables) -> Outcome:
    """Claim 3."""
    return _best(tables, HALF)


def needs_no_data(tables: Tables) -> Outcome:
    """Claim 4."""
    of = {one: _compared(tables, one, "unhealed") for one in (QUARTER, HALF)}
    found = _both((f"at {percent(one)}", of[one], REVERSE, "greedy") for one in of)
    losses = [compared(of[one], REVERSE, "greedy", "loss_difference", "loss_stderr") for one in of]
    words = [
        f"{pair}, loss {difference:+.3f} ± {error:.3f} of ln V"
        for pair, (difference, error) in zip(found, losses, strict=True)
    ]
    return graded("; ".join(words), *(holds_up(one.name, one) for one in found))


def one_metric(tables: Tables) -> Outcome:
    """Claim 5."""
    table, names = at(tables.agreement, QUARTER), {"block-influence", "block-influence-flattened"}
    rows = [one for one in table.to_dict("records") if {one["strategy"], one["other"]} == names]
    if not rows:
        raise Untestable("block influence is not measured in both forms")
    jaccard, tau = rows[0]["jaccard"], rows[0]["tau"]
    return graded(
        f"Jaccard index {jaccard:.2f}, Kendall's τ {tau:.2f}",
        at_least("the sets", measured(jaccard), ALIKE),
        at_least("the scores", measured(tau), ALIKE),
    )


def guard_decides(tables: Tables) -> Outcome:
    """Claim 6."""
    found = []
    for fraction in (QUARTER, HALF):
        pair = compared(_compared(tables, fraction, "unhealed"), "taylor-guarded", "taylor")
        if pair:
            found.append((f"guarded against not, at {percent(fraction)}", *pair))
    if not found:
        raise Untestable("without its guard it drops the same layers here")
    checked = pairs(found)
    return graded("; ".join(map(str, checked)), *(wins(one.name, one) for one in checked))


def magnitude_tells_nothing(tables: Tables) -> Outcome:
    """Claim 7."""
    for fraction in (QUARTER, HALF):
        _enough_draws(tables, fraction)
    found = _both(
        (f"at {percent(one)}", _compared(tables, one, "unhealed"), DRAWN, "magnitude")
        for one in (QUARTER, HALF)
    )
    return graded("; ".join(map(str, found)), *(holds_up(one.name, one) for one in found))


def _enough_draws(tables: Tables, fraction: float) -> pd.DataFrame:
    """The unhealed models of strategies and draws at a fraction."""
    table = tables.which_layers
    rows = at(table[table["state"] == "unhealed"], fraction)
    if rows["accuracy"].isna().all():
        raise Untestable("the unpruned model is not above chance on any task")
    if rows["draw"].notna().sum() < DRAWS:
        raise Untestable(f"fewer than {DRAWS} draws by chance")
    return rows


def one_draw_says_nothing(tables: Tables) -> Outcome:
    """Claim 8."""
    checks, notes = [], []
    for fraction in (QUARTER, HALF):
        rows = _enough_draws(tables, fraction)
        draws = rows.loc[rows["draw"].notna(), "accuracy"]
        ranked = rows[rows["draw"].isna() & (rows["n"] > 0)].drop_duplicates("dropped")
        if len(ranked) < 2:
            raise Untestable("fewer than two strategies drop layers of their own")
        gaps = [abs(a - b) for a, b in combinations(ranked["accuracy"], 2)]
        spread, gap = draws.std(ddof=1), float(np.median(gaps))
        error = spread / np.sqrt(2 * (len(draws) - 1))
        slack = measured(spread - gap, np.hypot(error, ranked["stderr"].median()))
        checks.append(at_least(f"at {percent(fraction)}", slack, 0.0))
        of = rows.loc[rows["strategy"] == REVERSE, "accuracy"]
        beaten = percent((draws < of.iloc[0]).mean()) if len(of) else ""
        place = f", {REVERSE} leaves {beaten} of the draws behind" if beaten else ""
        notes.append(
            f"{percent(fraction)}: {len(draws)} draws scatter by {100 * spread:.1f} points, "
            f"strategies differ by {100 * gap:.1f} in the median{place}"
        )
    return graded("; ".join(notes), *checks)


def same_ranking(tables: Tables) -> Outcome:
    """Claim 9."""
    table = tables.which_layers
    table = table[table["draw"].isna() & (table["strategy"] != "none")]
    checks, notes = [], []
    for fraction in (QUARTER, HALF):
        rows = at(table, fraction)
        by_recipe = {
            recipe: of.drop_duplicates("dropped").set_index("strategy")[["accuracy", "stderr"]]
            for recipe, of in rows[rows["state"] != "control"].groupby("healing")
        }
        for first, second in combinations(by_recipe, 2):
            both = by_recipe[first].join(by_recipe[second], rsuffix="_healed", how="inner")
            if len(both) < 4 or both.isna().any(axis=None):
                continue
            what = f"{first} and {second} at {percent(fraction)}"
            tau, p = _ranks(both)
            checks.append(at_least(what, tau, RANKED))
            notes.append(f"{what}: τ {tau.value:.2f} (p {p:.2g}, {len(both)} strategies)")
    if not checks:
        raise Untestable("fewer than four strategies were healed")
    return graded("; ".join(notes), all_of("every two rankings", checks))


def _ranks(both: pd.DataFrame) -> tuple[Measured, float]:
    """Kendall's τ of two rankings with its permutation p, and the 95% interval that follows from
    the errors of the accuracies."""
    values, errors = both.iloc[:, [0, 2]].to_numpy(), both.iloc[:, [1, 3]].to_numpy()
    random = np.random.default_rng(0)
    found = kendalltau(values[:, 0], values[:, 1])
    drawn = [
        kendalltau(*(values + errors * random.standard_normal(values.shape)).T).statistic
        for _ in range(RESAMPLED)
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    value = float(found.statistic)
    return Measured(value, min(value, float(low)), max(value, float(high))), float(found.pvalue)


def sets_of_their_own(tables: Tables) -> Outcome:
    """Claim 11."""
    table = at(tables.agreement, QUARTER)
    rows = table[table["strategy"] != table["other"]]
    if rows.empty:
        raise Untestable("fewer than two strategies")
    alike = rows[rows["jaccard"] == 1]
    listed = ", ".join(f"{one.strategy} and {one.other}" for one in alike.itertuples()) or "none"
    return answered(
        f"of {len(rows)} pairs {len(alike)} drop the same layers: {listed}; the mean Jaccard index "
        f"is {rows['jaccard'].mean():.2f}",
        Check("pairs of the same layers", -len(alike), *3 * [alike.empty]),
    )
