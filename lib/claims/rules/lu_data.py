"""The rules of the claims of Lu et al. about what layers are chosen on and what is healed on (26 to
31). They were written down before any of the numbers that they judge were seen."""

from collections.abc import Iterable
from itertools import combinations, permutations

import numpy as np
import pandas as pd
from scipy.stats import rankdata, spearmanr

from lib.claims.rules.judging import (
    COMPARABLE,
    NOT_REPRODUCED,
    PARTLY,
    REPRODUCED,
    UNDECIDED,
    Check,
    Measured,
    Outcome,
    all_of,
    answered,
    any_of,
    at_most,
    graded,
    measured,
    shown,
)
from lib.claims.rules.lu_layers import ALIKE
from lib.claims.rules.pairs import pairs, turned, wins
from lib.claims.rules.reading import Tables, Untestable, percent

WINDOWS, DRAWS = 10, 10  # of calibration text, and how often at least (claim 26)
SIZES = 4  # numbers of windows, at least (claim 27)
CHANCE = 0.05  # of an order by chance, one-sided (claim 27)
DATA, SEEDS = 3, 3  # data sets and seeds, at least (claim 29)
EXAM = "exam"  # what a study calls exam questions with their answers
RESAMPLED = 2000


def depends_on_samples(tables: Tables) -> Outcome:
    """Claim 26."""
    table = tables.calibration_sizes
    table = table[(table["windows"] == WINDOWS) & (table["draws"] >= DRAWS)]
    if table.empty:
        raise Untestable(f"no strategy is scored on {DRAWS} samples of {WINDOWS} windows")
    checks, words = [], []
    for row in table.to_dict("records"):
        alike = measured(row["jaccard"], row["jaccard_stderr"])
        checks.append(at_most(row["strategy"], alike, ALIKE))
        words.append(
            f"{row['strategy']}: {row['different']:.0f} different sets in {row['draws']:.0f} "
            f"draws, index {row['jaccard']:.2f}, accuracy scatters by {100 * row['drawn']:.1f} "
            f"points beside an error of {100 * row['stderr']:.1f}"
        )
    return graded("; ".join(words), *checks)


def more_is_better(tables: Tables) -> Outcome:
    """Claim 27."""
    verdicts, words = [], []
    for strategy, of in tables.calibration_sizes.dropna(subset=["accuracy"]).groupby("strategy"):
        if len(of) < SIZES:
            continue
        of = of.sort_values("windows")
        rho, p = _ranked(of["windows"].to_numpy(), of["accuracy"].to_numpy())
        first, last = of.iloc[0], of.iloc[-1]
        gain = last["accuracy"] - first["accuracy"]
        error = float(np.hypot(first["draw_stderr"], last["draw_stderr"]))
        words.append(
            f"{strategy}: ρ {rho:.2f}, p {p:.3f}; {last['windows']:.0f} windows gain "
            f"{100 * gain:+.1f} ± {100 * error:.1f} on {first['windows']:.0f}"
        )
        small = gain + 2 * error < COMPARABLE
        found = REPRODUCED if rho > 0 and p < CHANCE else NOT_REPRODUCED if small else UNDECIDED
        verdicts.append(found)
    if not verdicts:
        raise Untestable(f"no strategy is scored on at least {SIZES} numbers of windows")
    known = {*verdicts}
    whole = verdicts[0] if len(known) == 1 else PARTLY if REPRODUCED in known else UNDECIDED
    return Outcome(whole, "; ".join(words))


def _ranked(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Spearman's ρ, and the share of all orders that give as large a one."""
    rho = float(spearmanr(x, y).statistic)
    if np.isnan(rho):
        return 0.0, 1.0
    if len(x) > 7:
        return rho, float(spearmanr(x, y, alternative="greater").pvalue)
    ranks = rankdata(y)
    every = [np.corrcoef(rankdata(x), one)[0, 1] for one in permutations(ranks)]
    return rho, float(np.mean(np.array(every) >= rho - 1e-9))


def text_matters_more(tables: Tables) -> Outcome:
    """Claim 28."""
    table = tables.calibration_texts
    names = [list(dict.fromkeys(table[key])) for key in ("strategy", "text")]
    if min(map(len, names)) < 2:
        raise Untestable("no two searches are run on two calibration texts")
    of = table.set_index(["strategy", "text"]).reindex(pd.MultiIndex.from_product(names))
    shape = tuple(map(len, names))
    values, errors = (of[key].to_numpy(float).reshape(shape) for key in ("accuracy", "stderr"))
    if np.isnan(values).any():
        raise Untestable("the unpruned model can do no task")
    # Of each variance of means, what the errors of the accuracies add is taken away.
    text, search = (_spread(values, axis) - _spread_of_errors(errors, axis) for axis in (1, 0))
    generator = np.random.default_rng(0)
    drawn = generator.normal(values, errors, (RESAMPLED, *shape))
    gaps = np.array([_spread(one, 1) - _spread(one, 0) for one in drawn])
    low, high = np.quantile(gaps - gaps.mean(), [0.025, 0.975]) + text - search
    sets = np.array([{*str(one).split()} for one in of["dropped"]], dtype=object).reshape(shape)
    texts_differ = _apart([sets[i, j] for j in range(shape[1])] for i in range(shape[0]))
    searches_differ = _apart([sets[i, j] for i in range(shape[0])] for j in range(shape[1]))
    gap = Measured(text - search, float(min(low, text - search)), float(max(high, text - search)))
    note = (
        f"accuracy varies with the text by {100 * max(text, 0) ** 0.5:.1f} points, with the "
        f"search by {100 * max(search, 0) ** 0.5:.1f}; sets differ by {texts_differ:.2f} between "
        f"texts and {searches_differ:.2f} between searches"
    )
    return graded(
        note,
        Check("(a) accuracy", gap.value, gap.value > 0, gap.low > 0, gap.high > 0),
        Check("(b) sets", texts_differ - searches_differ, *[texts_differ > searches_differ] * 3),
    )


def _spread(values: np.ndarray, axis: int) -> float:
    """Variance of the means along one side of a table of searches and texts."""
    return float(values.mean(axis=1 - axis).var(ddof=1))


def _spread_of_errors(errors: np.ndarray, axis: int) -> float:
    return float((errors**2).mean() / errors.shape[1 - axis])


def _apart(groups: Iterable[list[set[str]]]) -> float:
    """Mean of 1 − Jaccard index over pairs of sets in each group."""
    found = [1 - len(a & b) / len(a | b) for group in groups for a, b in combinations(group, 2)]
    return float(np.mean(found))


def data_matter(tables: Tables) -> Outcome:
    """Claim 29."""
    table = tables.data_compared
    table = table[(table["role"] == "all") & (table["masked"] == "alike")]
    names = {*table["compared"], *table["base"]}
    if len(names) < DATA or table["seeds"].min() < SEEDS:
        raise Untestable(
            f"fewer than {DATA} data sets with {SEEDS} seeds are compared, the loss on the same "
            "part of a row"
        )
    found = pairs(
        [
            (f"{_where(row)}: {row['compared']} less {row['base']}", *_difference(row))
            for row in table.to_dict("records")
        ]
    )
    largest = max(found, key=lambda one: abs(one.difference))
    ahead = [turned(one) if one.difference < 0 else one for one in found]
    checks = [wins(one.name, one) for one in ahead]
    return graded(f"of {len(found)} the largest is {largest}", any_of("some pair", checks))


def _where(row: dict) -> str:
    return f"{row['strategy']} at {percent(row['fraction'])}"


def _difference(row: dict) -> tuple[float, float]:
    return row["difference"], row["stderr"]


def data_by_rate(tables: Tables) -> Outcome:
    """Claim 30."""
    table = tables.data_interaction
    if table.empty:
        raise Untestable("data sets are not compared at two numbers of layers")
    found = pairs(
        [
            (
                f"{row['strategy']}: {row['compared']} less {row['base']} with {row['n']} layers "
                f"dropped, less that with {row['more']}",
                *(row["interaction"], row["stderr"]),
            )
            for row in table.to_dict("records")
        ]
    )
    ahead = [turned(one) if one.difference < 0 else one for one in found]
    checks = [wins(one.name, one) for one in ahead]
    return answered("; ".join(map(str, found)), any_of("some pair", checks))


def exam_hurts(tables: Tables) -> Outcome:
    """Claim 31."""
    table = tables.data_compared
    table = table[table["role"] == "reading"]
    checks, words = [], []
    for row in table.to_dict("records"):
        if (row["base"] == EXAM) == (row["compared"] == EXAM):
            continue
        gain, error = _difference(row)
        lost = gain if row["base"] == EXAM else -gain
        other = row["compared"] if row["base"] == EXAM else row["base"]
        name = f"{_where(row)}, against {other}"
        checks.append(shown(name, lost, error))
        words.append(f"{name} {-100 * lost:+.1f} ± {100 * error:.1f}")
    if not checks:
        raise Untestable(f"nothing is healed on a data set '{EXAM}' beside others here")
    return graded("; ".join(words), all_of("every pruning and other data", checks))
