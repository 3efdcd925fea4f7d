"""The rules of the claims of Lu et al. about what is left of a model in the end (33, 34, 36 to 39
and 42). They were written down before any of the numbers that they judge were seen."""

import re
from contextlib import suppress
from math import log10

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from lib.claims.rules.judging import (
    NOT_REPRODUCED,
    REPRODUCED,
    Check,
    Measured,
    Outcome,
    all_of,
    at_least,
    at_most,
    graded,
    measured,
    shown,
)
from lib.claims.rules.lu_layers import HALF, QUARTER, REVERSE, at
from lib.claims.rules.lu_recipes import LORA, THREE
from lib.claims.rules.pairs import Pair, compared, holds_up, pairs, wins
from lib.claims.rules.reading import Tables, Untestable, percent

BROKEN = 0.25  # share of what is above chance that half a model keeps (claim 34)
KEPT = 0.90  # share that is "comparable" to the whole model (claim 36)
FEWER = 6  # powers of ten (claim 38)
FAMILIES, ACROSS = 5, (1, 10, 14, 22)  # runs at least, and the claims that are counted (claim 42)


def knowledge_first(tables: Tables) -> Outcome:
    """Claim 33."""
    found, roles = tables.transitions, tables.qa.drop_duplicates(["task", "shots"])
    found = found.merge(roles[["task", "shots", "role"]], on=["task", "shots"])
    found = found[found["fraction"].notna() & (found["state"] != "control")]
    checks, words = [], []
    for (strategy, state), of in found.groupby(["strategy", "state"], sort=False):
        sides = [of[of["role"] == "knowledge"], of[of["role"] != "knowledge"]]
        if min(map(len, sides)) == 0:
            continue
        (first, a), (second, b) = map(_mean_fraction, sides)
        name = f"{strategy}, {state}"
        checks.append(shown(name, second - first, float(np.hypot(a, b))))
        words.append(f"{name}: knowledge at {percent(first)}, the others at {percent(second)}")
    if not checks:
        raise Untestable("no task of knowledge falls beside tasks of another role")
    return graded("; ".join(words), all_of("every strategy", checks))


def _mean_fraction(of: pd.DataFrame) -> tuple[float, float]:
    errors = ((of["high"] - of["low"]) / 4).fillna(0.0)
    return float(of["fraction"].mean()), float(np.sqrt((errors**2).sum()) / len(of))


def _of_one(rows: pd.DataFrame, recipe: str) -> pd.DataFrame:
    """Those healed so; of several such recipes, as on several data sets, those of the first."""
    rows = rows[rows["healing"].str.fullmatch(recipe)]
    return rows[rows["healing"] == rows["healing"].iloc[0]] if len(rows) else rows


def _kept(table: pd.DataFrame, fraction: float, recipe: str) -> tuple[Measured, str]:
    """Share of the accuracy above chance that the reverse order leaves, healed so; mean over the
    seeds."""
    whole = table[(table["strategy"] == "none") & (table["state"] == "unhealed")]
    rows = _of_one(at(table[table["strategy"] == REVERSE], fraction), recipe)
    if rows.empty or whole.empty or not whole.iloc[0]["accuracy"] > whole.iloc[0]["chance"]:
        raise Untestable(
            f"at {percent(fraction)} the deepest layers are not dropped and healed so, or the "
            "unpruned model can do no task"
        )
    before, pruned = whole.iloc[0], rows["accuracy"]
    room = before["accuracy"] - before["chance"]
    share = (pruned.mean() - before["chance"]) / room
    drawn = pruned.sem() if len(pruned) > 1 else 0.0
    error = np.hypot(np.hypot(rows["stderr"].mean(), drawn), share * before["stderr"]) / room
    name = rows.iloc[0]["healing"]
    return measured(share, error), f"{name} keeps {percent(share)} ± {percent(error)}"


def half_is_broken(tables: Tables) -> Outcome:
    """Claim 34."""
    share, words = _kept(tables.what_to_train, HALF, LORA)
    with suppress(Untestable):
        words += f"; beside it {_kept(tables.what_to_train, HALF, THREE)[1]}"
    return graded(f"{words} of the accuracy above chance", at_most("share", share, BROKEN))


def comparable_to_its_parent(tables: Tables) -> Outcome:
    """Claim 36."""
    share, words = _kept(tables.what_to_train, QUARTER, THREE)
    return graded(f"{words} of the accuracy above chance", at_least("share", share, KEPT))


def _scratch(tables: Tables) -> Pair:
    """The model with the deepest layers dropped, the head and three layers trained, less one of as
    many layers that was trained from scratch."""
    scores, models = tables.family_scores, tables.what_to_train
    pruned = _of_one(models[models["strategy"] == REVERSE], THREE)
    own = scores[scores["own"].astype(str) == "True"]
    level = own[["guess", "constant"]].max(axis=1)
    tasks = own[(own["accuracy"] > level + 3 * own["stderr"]) & (own["guess"] > 0)]
    tasks = tasks.drop_duplicates("task")[["task", "shots"]]
    if pruned.empty or tasks.empty:
        raise Untestable("the head and three layers are not trained with the reverse order here")
    layers = own.iloc[0]["layers"]
    for n, of in pruned.groupby("n"):
        as_deep = (scores["layers"] == layers - n) & (scores["scratch"] == "yes")
        for run, asked in scores[as_deep].groupby("run", sort=False):
            other = tasks.merge(asked, on=["task", "shots"])
            if len(other) < len(tasks):
                continue
            gap = of["accuracy"].mean() - other["accuracy"].mean()
            drawn = of["accuracy"].sem() if len(of) > 1 else 0.0
            error = np.hypot(np.linalg.norm(other["stderr"]) / len(other), drawn)
            error = float(np.hypot(error, of["stderr"].mean()))
            return pairs([(f"{n} of {layers} layers dropped, against {run}", gap, error)])[0]
    raise Untestable("no model of as many layers that was trained from scratch stands beside it")


def better_than_scratch(tables: Tables) -> Outcome:
    """Claim 37."""
    pair = _scratch(tables)
    return graded(str(pair), wins("", pair))


def fewer_tokens(tables: Tables) -> Outcome:
    """Claim 38."""
    costs = tables.training_costs
    costs = costs[costs["healing"].str.fullmatch(THREE) & costs["pretraining_tokens"].notna()]
    if costs.empty:
        raise Untestable("the study does not say how many tokens the model was trained on")
    row, pair = costs.iloc[0], _scratch(tables)
    ratio = row["pretraining_tokens"] / row["tokens"]
    return graded(
        f"{row['pretraining_tokens']:.3g} tokens over {row['tokens']:,.0f} are {ratio:.3g}, beside "
        f"those that the parent was trained on; {pair}",
        all_of(
            "both",
            [
                at_least("powers of ten", measured(log10(ratio)), FEWER),
                holds_up("from scratch", pair),
            ],
        ),
    )


def selection_alone(tables: Tables) -> Outcome:
    """Claim 39."""
    table = at(tables.layers_compared, QUARTER)
    table = table[(table["models"] == "healed") & (table["role"] == "all")]
    found = compared(table, REVERSE, "block-influence")
    if found is None:
        raise Untestable("the reverse order is not healed beside block influence here")
    (pair,) = pairs([(f"{REVERSE} less block-influence", *found)])
    words = [str(pair)]
    with suppress(Untestable):
        rows = at(tables.recipes_compared, QUARTER)
        rows = rows[(rows["strategy"] == REVERSE) & (rows["role"] == "all")]
        for row in rows.to_dict("records"):
            if all(re.fullmatch(f"{LORA}|{THREE}", row[side]) for side in ("compared", "base")):
                points = f"{100 * row['difference']:+.1f} ± {100 * row['stderr']:.1f}"
                words.append(f"{row['compared']} less {row['base']} {points}")
    return graded("; ".join(words), wins("selection", pair))


def across_families(tables: Tables) -> Outcome:
    """Claim 42."""
    table = tables.family_verdicts
    table = table[(table["paper"] == "lu") & table["claim"].isin(ACROSS)]
    decided = table[table["verdict"].isin([REPRODUCED, NOT_REPRODUCED])]
    counts = decided.groupby("claim")["run"].nunique()
    if len(counts) < len(ACROSS) or counts.min() < FAMILIES:
        few = int(counts.reindex(list(ACROSS)).fillna(0).min())
        raise Untestable(
            f"each of claims {', '.join(map(str, ACROSS))} is to be decided on at least {FAMILIES} "
            f"other runs; one of them is on {few}"
        )
    checks, words = [], []
    for claim, of in decided.groupby("claim"):
        held = int((of["verdict"] == REPRODUCED).sum())
        p = binomtest(held, len(of), 0.5, alternative="greater").pvalue
        words.append(f"claim {claim}: {held} of {len(of)} (p {p:.2g})")
        sure = p < 0.05
        possible = sure or binomtest(held, len(of), 0.5, alternative="less").pvalue >= 0.05
        checks.append(Check(f"claim {claim}", 0.05 - p, sure, sure, possible))
    return graded("; ".join(words), *checks)
