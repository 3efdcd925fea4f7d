"""The rules of the claims of Lu et al. about what is trained (12 to 20). They were
written down before any of the numbers that they judge were seen.

Recipes go by what they are called in tables: `partial-head-norm-last3` trains the head, the final
norm and the last three layers of the pruned model.
"""

import re

import numpy as np
import pandas as pd

from lib.claims.rules.judging import (
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
from lib.claims.rules.pairs import Pair, pairs, ties, wins
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
    """Of prunings, over all tasks; kept: of those that keep the last layer, or, where it is False,
    of the reverse order."""
    table = tables.recipes_compared
    table = table[(table["role"] == "all") & (table["n"] > 0)]
    if kept is not None:
        table = table[(table["keeps_last"] == "yes") if kept else (table["strategy"] == REVERSE)]
    if table.empty:
        raise Untestable(
            "no recipes are compared on such prunings, or on no task that the unpruned model can do"
        )
    return table


Family = list[tuple[str, float, float]]


def _lead(rows: pd.DataFrame, first: str, second: str) -> Family:
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
    rows, found = _rows(tables), []
    for name in sorted({*rows["compared"], *rows["base"]}):
        if re.fullmatch(LORA, name):  # of the same rank, α and targets
            found += _lead(rows, re.escape(f"q{name}"), re.escape(name))
    if not found:
        raise Untestable("not trained here: QLoRA and LoRA of the same adapters")
    cases = [above(name, measured(-lead, error), 0.0) for name, lead, error in found]
    worse = sum(case.sure for case in cases) / len(cases)
    likely = Measured(worse, worse, max(worse, share(cases).high))
    return graded(_listed(pairs(found)), at_least("share of the prunings", likely, MOST_OF))


def head_beats_lora(tables: Tables) -> Outcome:
    """Claim 13."""
    found = _pairs(_rows(tables, kept=False), HEAD, LORA, "the head alone and LoRA")
    rows = _rows(tables)
    others = pairs(_lead(rows[rows["strategy"] != REVERSE], HEAD, LORA))
    beside = f"; beside it {_listed(others)}" if others else ""
    checks = [wins(one.name, one) for one in found]
    return graded(_listed(found) + beside, all_of("every fraction", checks))


def head_and_three(tables: Tables) -> Outcome:
    """Claim 14."""
    what = "the head with three layers and LoRA"
    family: dict[tuple[str, float], tuple[str, float, float]] = {}
    for fraction in (QUARTER, HALF):
        for kept in (False, True):
            rows = at(_rows(tables, kept), fraction)
            for strategy, of in rows.groupby("strategy", sort=False):
                for one in _lead(of, THREE, LORA)[:1]:
                    family[str(strategy), fraction] = one
    found = dict(zip(family, pairs([*family.values()]), strict=True))
    both = [name for name, _ in found if {(name, QUARTER), (name, HALF)} <= found.keys()]
    kept = [name for name in dict.fromkeys(both) if name != REVERSE]
    if REVERSE not in both or not kept:
        raise Untestable(f"not trained here at both fractions: {what}")

    def wins_twice(name: str) -> Check:
        return all_of(name, [wins("", found[name, one]) for one in (QUARTER, HALF)])

    return graded(
        _listed([*found.values()]),
        all_of("both", [wins_twice(REVERSE), any_of("", [wins_twice(name) for name in kept])]),
    )


def own_rates(tables: Tables) -> Outcome:
    """Claim 15."""
    rates, notes = tables.learning_rates, []
    for what, recipe in (("LoRA", LORA), ("the head with three layers", THREE)):
        tried = rates[rates["healing"].str.fullmatch(recipe)]
        best = tried[(tried["chosen"] == "yes") & (tried["used"] == "yes")]
        if best.empty:
            raise Untestable(f"{what}: not trained at the best of several learning rates")
        rate = best.iloc[0]
        edge = ", the last one tried" if rate["edge"] == "yes" else ""
        notes.append(f"{what} at {rate['learning_rate']:g}{edge}")
    found = head_and_three(tables)
    return found._replace(reason=f"{'; '.join(notes)}; {found.reason}")


def three_are_enough(tables: Tables) -> Outcome:
    """Claim 16."""
    rows, found = _rows(tables, kept=False), []
    for few, more in ((HEAD, ONE), (ONE, TWO), (TWO, THREE)):
        last = _lead(rows, more, few)
        if not last:
            raise Untestable("not trained here: the head with one, two and three layers")
        found += last
    family = pairs(found)
    never_worse = [_not_worse(one) for one in family]
    enough = [ties(one.name, one) for one in family[-len(last) :]]
    return graded(
        _listed(family), all_of("(a) never worse", never_worse), all_of("(b) enough", enough)
    )


def _not_worse(pair: Pair) -> Check:
    """That the first side is not worse by two standard errors."""
    return at_least(pair.name, measured(pair.difference + 2 * pair.stderr), 0.0)


def pruned_wants_it(tables: Tables) -> Outcome:
    """Claim 17."""
    table = tables.recipes_compared
    whole = table[(table["n"] == 0) & (table["role"] == "all")]
    rows = at(_rows(tables, kept=False), QUARTER)
    what = "the head with three layers and LoRA, on the pruned model and on the unpruned one"
    dense, pruned = (_pairs(one, THREE, LORA, what)[0] for one in (whole, rows))
    if {*whole["tasks"]} != {*rows["tasks"]}:
        raise Untestable("the pruned models are at chance on a task that the unpruned one can do")
    gap = pruned.difference - dense.difference
    error = float(np.hypot(pruned.stderr, dense.stderr))
    note = f"{pruned}; unpruned {dense}; difference {100 * gap:+.1f} ± {100 * error:.1f}"
    return graded(note, all_of("both", [shown("", gap, error), ties("", dense)]))


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
    checks = [ties(one.name, one) for one in found]
    return graded(_listed(found), all_of("every pruning", checks))


def partial_is_faster(tables: Tables) -> Outcome:
    """Claim 20."""
    table = tables.training_costs
    table = table[(table["n"] > 0) & table["seconds"].notna()]
    lora = table[table["healing"].str.fullmatch(LORA)]
    partial = table[table["healing"].str.fullmatch(rf"partial-head(-norm)?-last\d{ON}")]
    both = partial.merge(lora, on=["strategy", "n", "seed"], suffixes=("", "_lora"))
    if both.empty:
        raise Untestable("not trained to their end in one go: partial training and LoRA")
    time = both["seconds"] / both["seconds_lora"]
    near = float((time / (both["predicted_time"] / both["predicted_time_lora"])).mean())
    spread = float(time.std(ddof=1)) / len(time) ** 0.5 if len(time) > 1 else 0.0
    memory = float((both["peak_gpu_memory_gb"] / both["peak_gpu_memory_gb_lora"]).mean())
    known = np.isfinite(memory)
    room = f"memory {memory:.2f} of LoRA's" if known else "memory not known: not trained on a GPU"
    note = f"time {time.mean():.2f} of LoRA's, {near:.2f} of what is predicted; {room}"
    checks = [
        at_most("(a) faster than LoRA", measured(float(time.mean()), spread), 1.0),
        within("(b) as predicted", measured(near - 1), NEAR_TIME),
        within("(c) memory", measured(memory - 1), NEAR_MEMORY)
        if known
        else Check("(c) memory", 0.0, False, False, True),
    ]

    def verdict(held: list[bool]) -> str:
        return REPRODUCED if all(held) else PARTLY if held[0] else NOT_REPRODUCED

    return judged(note, verdict, *checks)
