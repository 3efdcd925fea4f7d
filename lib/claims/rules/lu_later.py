"""The rules of the claims that came after the paper of Lu et al. (32, 35 and 41). What they ask for
was written down before any of the numbers that they judge were seen; how 35 and 41 count it, when
those of the almanac, though of no other model, were known."""

import numpy as np
import pandas as pd

from lib.claims.rules.judging import (
    Measured,
    Outcome,
    above,
    all_of,
    at_least,
    at_most,
    graded,
    minus,
    shown,
)
from lib.claims.rules.lu_layers import at
from lib.claims.rules.pairs import pairs, turned, wins
from lib.claims.rules.reading import Tables, Untestable, percent
from lib.statistics.ranks import correlated

EQUAL = 0.02  # by which numbers of tokens that count as equal may differ (claim 32)
EARLY = (0.125, 0.25)  # fractions of the layers (claim 35)
CLEAR = 3  # standard errors above chance of what the unpruned model can do (claim 35)
ORDERED = 0.5  # rank correlation of what goes together (claim 41)


def own_answers_heal_better(tables: Tables) -> Outcome:
    """Claim 32."""
    table = tables.ways_compared
    alike = (table["tokens"] / table["base_tokens"] - 1).abs() <= EQUAL
    table = table[table["own"].notna() & (table["ability"] == "all") & alike]
    if table.empty:
        raise Untestable(
            "nothing is healed on answers of the unpruned model and on others' answers to the same "
            "instructions, with as many tokens"
        )
    found = pairs(
        [
            (
                f"{row['strategy']} at {percent(row['fraction'])}: {row['compared']} less "
                f"{row['base']}",
                *(row["difference"], row["stderr"]),
            )
            for row in table.to_dict("records")
        ]
    )
    ahead = [
        one if whose == "compared" else turned(one)
        for one, whose in zip(found, table["own"], strict=True)
    ]
    checks = [wins(one.name, one) for one in ahead]
    return graded("; ".join(map(str, found)), all_of("every pruning", checks))


def writing_goes_first(tables: Tables) -> Outcome:
    """Claim 35."""
    table = tables.qa
    table = table[table["state"] == "unhealed"]
    level = table["chance"].fillna(0.0).where(table["role"] == "generation", table["chance"])
    table = table.assign(level=level).dropna(subset=["level"])
    whole = table[table["strategy"] == "none"]
    can = whole[whole["accuracy"] > whole["level"] + CLEAR * whole["stderr"]]
    checks, words = [], []
    pruned = table[table["strategy"] != "none"]
    for strategy, of in pruned.groupby("strategy", sort=False):
        for fraction in EARLY:
            kept = _kept(at(of, fraction), can)
            written = kept["role"] == "generation"
            if written.all() or not written.any():
                raise Untestable("no task is written beside tasks whose answers are chosen")
            (last, a), (first, b) = map(_mean, (kept[~written], kept[written]))
            name = f"{strategy} at {percent(fraction)}"
            checks.append(shown(name, last - first, float(np.hypot(a, b))))
            words.append(f"{name}: {percent(first)} kept of what is written, else {percent(last)}")
    if not checks:
        raise Untestable("nothing is pruned")
    return graded("; ".join(words), all_of("every strategy and fraction", checks))


def _kept(rows: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """By task that the unpruned model can do the share kept above chance, with its error."""
    both = rows.merge(whole, on=["task", "shots"], suffixes=("", "_whole"))
    height = both["accuracy_whole"] - both["level_whole"]
    share = (both["accuracy"] - both["level"]) / height
    error = np.hypot(both["stderr"], share * both["stderr_whole"]) / height
    return both.assign(share=share, error=error)[["role", "share", "error"]]


def _mean(rows: pd.DataFrame) -> tuple[float, float]:
    return float(rows["share"].mean()), float(np.sqrt((rows["error"] ** 2).sum()) / len(rows))


def small_gradients(tables: Tables) -> Outcome:
    """Claim 41."""
    grows = [_with_depth(tables, "norm", twin) for twin in (False, True)]
    falls = [_with_depth(tables, "gradient", twin) for twin in (False, True)]
    table = tables.layer_predictors
    costs = table[(table["measure"] == "gradient") & (table["cost"] == "loss")]
    if costs.empty or costs["rho"].isna().any():
        raise Untestable("no layer is left out by itself here")
    row = costs.iloc[0]
    goes = Measured(float(row["rho"]), float(row["low"]), float(row["high"]))
    checks = [
        all_of(
            "(a) the stream grows, more than the twin's",
            [at_least("grows", grows[0], ORDERED), above("more", minus(*grows), 0.0)],
        ),
        all_of(
            "(b) gradients fall, more than the twin's",
            [at_most("fall", falls[0], -ORDERED), above("more", minus(falls[1], falls[0]), 0.0)],
        ),
        at_least("(c) gradients tell what a layer is worth", goes, ORDERED),
    ]
    words = (
        f"rank correlation with depth of the stream's norm {grows[0].value:.2f} (twin "
        f"{grows[1].value:.2f}), of gradients {falls[0].value:.2f} (twin {falls[1].value:.2f}); of "
        f"gradients with the loss without the layer {goes.value:.2f}"
    )
    return graded(words, *checks)


def _with_depth(tables: Tables, measure: str, twin: bool) -> Measured:
    """Rank correlation of a measure with the number of the layer, of the model or its twin."""
    table = tables.layer_measures
    rows = table[(table["measure"] == measure) & (table["model"].str.contains("twin") == twin)]
    found = correlated(rows["layer"].to_numpy(float), rows["value"].to_numpy(float))
    if np.isnan(found.rho):
        whose = "untrained twin's" if twin else "model's"
        raise Untestable(f"the {whose} {measure} is not known of enough layers")
    return Measured(found.rho, found.low, found.high)
