"""The rules of the claims of Lu et al. about what is trained (12 to 14 and 16 to 20). They were
written down before any of the numbers that they judge were seen.

Recipes go by what they are called in tables: `partial-head-norm-last3` trains the head, the final
norm and the last three layers of the pruned model.
"""

import re

import numpy as np
import pandas as pd

from lib.claims.rules.judging import (
    COMPARABLE,
    NOT_REPRODUCED,
    PARTLY,
    REPRODUCED,
    Check,
    Measured,
    Outcome,
    above,
    all_of,
    any_of,
    at_least,
    at_most,
    graded,
    judged,
    measured,
    share,
    shown,
    within,
)
from lib.claims.rules.lu_layers import HALF, QUARTER, REVERSE, at
from lib.claims.rules.pairs import Pair, holds_up, pairs, wins
from lib.claims.rules.reading import Tables, Untestable, percent

ON = r"(-on-\S+)?"  # a data set
LORA, QLORA = r"lora-r\d+\S*", r"qlora-r\d+\S*"
HEAD, NO_NORM = rf"partial-head(-norm)?{ON}", rf"partial-head{ON}"
HEAD_NORM = rf"partial-head-norm{ON}"
CUT, FIRST = rf"partial-head-norm-cut3{ON}", rf"partial-head-norm-first3{ON}"
ONE, TWO, THREE = (rf"partial-head(-norm)?-last{number}{ON}" for number in (1, 2, 3))
MOST_OF = 2 / 3  # of the prunings (claim 12)
NEAR_TIME, NEAR_MEMORY = 0.25, 0.20  # a ratio within this of what is predicted (claim 20)


def _rows(tables: Tables, kept: bool | None = None) -> pd.DataFrame:
    """Of prunings, over all tasks; kept: of strategies that keep the last layer, or the other."""
    table = tables.recipes_compared
    table = table[(table["role"] == "all") & (table["n"] > 0)]
    if kept is not None:
        table = table[(table["strategy"] != REVERSE) == kept]
    if table.empty:
        raise Untestable("no recipes are compared on tasks that the unpruned model can do")
    return table


def _lead(rows: pd.DataFrame, first: str, second: str) -> list[tuple[str, float, float]]:
    """Of the first kind of recipe over the second, by pruning."""
    found = []
    for row in rows.to_dict("records"):
        where = f"{row['strategy']} at {percent(row['fraction'])}"
        for sign, a, b in ((1, row["compared"], row["base"]), (-1, row["base"], row["compared"])):
            if re.fullmatch(first, a) and re.fullmatch(second, b):
                found.append((where, sign * row["difference"], row["stderr"]))
                break
    return found


def _pairs(rows: pd.DataFrame, first: str, second: str, what: str) -> list[Pair]:
    found = _lead(rows, first, second)
    if not found:
        raise Untestable(f"not trained here: {what}")
    return pairs(found)


def _listed(found: list[Pair]) -> str:
    return "; ".join(map(str, found))


def qlora_hurts(tables: Tables) -> Outcome:
    """Claim 12."""
    found = _pairs(_rows(tables), QLORA, LORA, "QLoRA and LoRA")
    cases = [above(one.name, measured(-one.difference, one.stderr), 0.0) for one in found]
    worse = sum(case.sure for case in cases) / len(cases)
    likely = Measured(worse, worse, max(worse, share(cases).high))
    return graded(_listed(found), at_least("share of the prunings", likely, MOST_OF))


def head_beats_lora(tables: Tables) -> Outcome:
    """Claim 13."""
    found = _pairs(_rows(tables, kept=False), HEAD, LORA, "the head alone and LoRA")
    others = pairs(_lead(_rows(tables), HEAD, LORA))
    checks = [wins(one.name, one) for one in found]
    return graded(_listed(others), all_of("every fraction", checks))


def head_and_three(tables: Tables) -> Outcome:
    """Claim 14."""
    checks, notes = [], []
    for fraction in (QUARTER, HALF):
        for what, kept in (("last layer dropped", False), ("last layer kept", True)):
            of = at(_rows(tables, kept), fraction)
            found = _pairs(of, THREE, LORA, "the head with three layers and LoRA")
            checks.append(any_of(f"{what}, {percent(fraction)}", [wins("", one) for one in found]))
            notes += found
    return graded(_listed(notes), all_of("both kinds, both fractions", checks))


def three_are_enough(tables: Tables) -> Outcome:
    """Claim 16."""
    rows, checks, notes, found = _rows(tables, kept=False), [], [], []
    for few, more in ((HEAD, ONE), (ONE, TWO), (TWO, THREE)):
        found = _pairs(rows, more, few, "the head with one, two and three layers")
        checks += [_not_worse(one) for one in found]
        notes += found
    last = [within(one.name, measured(one.difference, one.stderr), COMPARABLE) for one in found]
    return graded(_listed(notes), all_of("(a) never worse", checks), all_of("(b) enough", last))


def _not_worse(pair: Pair) -> Check:
    """That the first side is not worse by two standard errors."""
    return at_least(pair.name, measured(pair.difference + 2 * pair.stderr), 0.0)


def pruned_wants_it(tables: Tables) -> Outcome:
    """Claim 17."""
    table = tables.recipes_compared
    whole = table[(table["n"] == 0) & (table["role"] == "all")]
    what = "the head with three layers and LoRA, on the pruned model and on the unpruned one"
    dense = _pairs(whole, THREE, LORA, what)[0]
    pruned = _pairs(at(_rows(tables, kept=False), QUARTER), THREE, LORA, what)[0]
    gap = pruned.difference - dense.difference
    error = float(np.hypot(pruned.stderr, dense.stderr))
    note = f"{pruned}; unpruned {dense}; difference {100 * gap:+.1f} ± {100 * error:.1f}"
    return graded(note, all_of("both", [shown("", gap, error), holds_up("", dense)]))


def last_or_cut(tables: Tables) -> Outcome:
    """Claim 18."""
    rows = _rows(tables, kept=True)
    found = _pairs(rows, CUT, THREE, "three layers at the cut and the last three")
    first = pairs(_lead(rows, CUT, FIRST))
    beside = f"; against the first three {_listed(first)}" if first else ""
    checks = [wins(one.name, one) for one in found]
    return graded(_listed(found) + beside, all_of("every pruning", checks))


def head_alone(tables: Tables) -> Outcome:
    """Claim 19."""
    found = _pairs(_rows(tables), HEAD_NORM, NO_NORM, "the head with the norm and without")
    checks = [within(one.name, measured(one.difference, one.stderr), COMPARABLE) for one in found]
    return graded(_listed(found), all_of("every pruning", checks))


def partial_is_faster(tables: Tables) -> Outcome:
    """Claim 20."""
    table = tables.training_costs
    table = table[(table["n"] > 0) & table["measured_time"].notna()]
    partial = table[table["healing"].str.fullmatch(rf"partial-head(-norm)?-last\d{ON}")]
    lora = table[table["healing"].str.fullmatch(LORA)]
    if partial.empty or lora.empty:
        raise Untestable("partial training and LoRA were not both timed to their end")
    ratio = float((partial["measured_time"] / partial["predicted_time"]).mean())
    spread = float(partial["measured_time"].std(ddof=1)) if len(partial) > 1 else 0.0
    time = measured(float(partial["measured_time"].mean()), spread / len(partial) ** 0.5)
    memory = float(partial["peak_memory_gb"].mean() / lora["peak_memory_gb"].mean())
    note = (
        f"time {time.value:.2f} of LoRA's, {ratio:.2f} of what is predicted; memory of the process "
        f"{memory:.2f} of LoRA's"
    )
    checks = [
        at_most("(a) faster than LoRA", time, 1.0),
        within("(b) as predicted", measured(ratio - 1), NEAR_TIME),
        within("(c) memory", measured(memory - 1), NEAR_MEMORY),
    ]

    def verdict(held: list[bool]) -> str:
        return REPRODUCED if all(held) else PARTLY if held[0] else NOT_REPRODUCED

    return judged(note, verdict, *checks)
