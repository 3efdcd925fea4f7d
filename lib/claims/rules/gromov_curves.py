"""The rules of claims 1 to 5, 8 and 9 of Gromov et al., about accuracy, loss and strategies: each
reads a study's tables and returns a verdict, its numbers, and how far they are from another one.

Every margin was written down before the first pruned score of the embedded model was seen.
Standard errors of a mean over prunings of one model are taken as the mean of the standard errors:
the prunings answer the same questions, so their errors do not average out.
"""

import numpy as np
import pandas as pd

from lib.claims.rules.judging import (
    COMPARABLE,
    FLAT_FRACTION,
    JUMP,
    LINEAR,
    NEAR,
    OF_LAYERS,
    OF_LOSS,
    Measured,
    Outcome,
    above,
    all_of,
    any_of,
    at_least,
    at_most,
    graded,
    measured,
    minus,
    share,
    shown,
    within,
)
from lib.claims.rules.reading import (
    State,
    Tables,
    Untestable,
    flat_regions,
    named,
    of_state,
    of_task,
    percent,
    series,
    testable_tasks,
)
from lib.statistics.lines import explained

SIMILARITY, SIMPLE = "similarity", "simple"


def flat_region(tables: Tables) -> Outcome:
    checks, notes = [], []
    for task, flat in flat_regions(tables.qa, SIMILARITY, up_to=FLAT_FRACTION).items():
        reached = at_least(named(*task), Measured(*flat), FLAT_FRACTION, OF_LAYERS)
        checks.append(reached)
        notes.append(
            f"{named(*task)}: flat up to {percent(flat.reached)} of the layers "
            f"[{percent(flat.sure)}, {percent(flat.possible)}]"
        )
    return graded("; ".join(notes), *checks)


def _transitions(tables: Tables, state: State) -> pd.DataFrame:
    rows = of_state(tables.transitions, state).dropna(subset=["fraction"])
    if rows[rows["strategy"] == SIMILARITY].empty:
        raise Untestable("no accuracy falls far enough for a transition to be fitted")
    return rows


def sharp(tables: Tables) -> Outcome:
    rows = _transitions(tables, "healed")
    checks, notes = [], []
    for row in rows[rows["strategy"] == SIMILARITY].itertuples():
        critical = Measured(row.fraction, row.low, row.high)
        width = Measured(row.width, row.width_low, row.width_high)
        task = named(row.task, row.shots)
        # Flat region, critical fraction less half the width, against the width.
        checks.append(above(task, minus(critical, width, 1.5), 0, OF_LAYERS))
        notes.append(
            f"{task}: width {row.width:.2f} [{row.width_low:.2f}, {row.width_high:.2f}] after a "
            f"flat {row.fraction - row.width / 2:.2f}"
        )
    return graded("; ".join(notes), *checks)


def _to_normalised(loss: pd.DataFrame) -> float:
    """1 / ln V, by which standard errors of a loss are scaled."""
    return float((loss["normalized_loss"] / loss["loss"]).median())


def healing_moves(tables: Tables) -> Outcome:
    after, before = (_transitions(tables, state) for state in ("healed", "control"))
    both = after.merge(before, on=["task", "shots", "strategy"], suffixes=("", "_before"))
    if both.empty:
        raise Untestable("no transition could be fitted both before and after healing")
    moved = [
        above(
            "",
            minus(
                Measured(row.fraction, row.low, row.high),
                Measured(row.fraction_before, row.low_before, row.high_before),
            ),
            0,
        )
        for row in both.itertuples()
    ]
    loss, lowered = tables.loss, []
    for strategy in (SIMILARITY, SIMPLE):
        curves = [series(loss, strategy, state) for state in ("healed", "control")]
        merged = curves[0].merge(curves[1], on="n", suffixes=("", "_before"))
        merged = merged[merged["fraction"] >= 0.25]
        scale = _to_normalised(loss)
        gains = scale * (merged["loss_before"] - merged["loss"])
        errors = scale * np.hypot(merged["stderr"], merged["stderr_before"])
        lowered += [shown("", *pair, OF_LOSS) for pair in zip(gains, errors, strict=True)]
    if not lowered:
        raise Untestable("no healed fraction of at least 0.25")
    shifts = both["fraction"] - both["fraction_before"]
    note = (
        f"the transition moves by {shifts.mean():+.2f} on average "
        f"({int((shifts > 0).sum())} of {len(shifts)} curves to larger fractions); loss is lower "
        f"after healing at {sum(one.holds for one in lowered)} of {len(lowered)} prunings of at "
        "least 25%"
    )
    return graded(
        note,
        above("(a) share of curves moved up", share(moved), 0.5),
        all_of("(b) the least gain in loss", lowered),
    )


def _crossing(f: np.ndarray, loss: np.ndarray, middle: float) -> float:
    """The fraction at which a loss first reaches `middle`, on straight lines between the points;
    the last fraction where it never does."""
    high = np.flatnonzero(loss >= middle)
    if not len(high):
        return float(f[-1])
    i = high[0]
    if i == 0:
        return float(f[0])
    return float(f[i - 1] + (middle - loss[i - 1]) / (loss[i] - loss[i - 1]) * (f[i] - f[i - 1]))


def loss_transition(tables: Tables) -> Outcome:
    curve = series(tables.loss, SIMILARITY, "unhealed")
    f, loss = curve["fraction"].to_numpy(), curve["normalized_loss"].to_numpy()
    noise = 2 * curve["stderr"].to_numpy() * _to_normalised(curve)
    if loss[0] >= 1:
        raise Untestable("the unpruned model's loss is above ln V already")
    middle = (loss[0] + 1) / 2
    top = loss.argmax()
    if loss[top] < middle:
        note = f"the unhealed loss never gets half-way to ln V (at most {loss[top]:.2f})"
        height = Measured(loss[top], loss[top] - noise[top], loss[top] + noise[top])
        return graded(note, at_least("loss half-way to ln V", height, middle, OF_LOSS))
    half_way = Measured(*(_crossing(f, loss + change, middle) for change in (0, noise, -noise)))
    rows = _transitions(tables, "unhealed")
    rows = rows[rows["strategy"] == SIMILARITY]
    apart = [minus(Measured(r.fraction, r.low, r.high), half_way) for r in rows.itertuples()]
    near, twice = ([within("", one, k * NEAR, OF_LAYERS) for one in apart] for k in (1, 2))
    note = f"loss is half-way to ln V at {half_way.value:.2f}; accuracy falls at " + ", ".join(
        f"{row.fraction:.2f} [{row.low:.2f}, {row.high:.2f}] for {named(row.task, row.shots)}"
        for row in rows.itertuples()
    )
    return graded(
        note,
        any_of("(a) the nearest task", near),
        all_of("(b) the farthest task", twice),
    )


def loss_continuous(tables: Tables) -> Outcome:
    _transitions(tables, "healed")  # where no accuracy falls, nothing could jump there
    curve = series(tables.loss, SIMILARITY, "healed")
    if len(curve) < 4:
        raise Untestable("fewer than three healed fractions")
    f, loss = curve["fraction"].to_numpy(), curve["normalized_loss"].to_numpy()
    error = curve["stderr"].to_numpy() * _to_normalised(curve)
    fit = Measured(*explained(f, loss, error))
    steps, errors = np.diff(loss) / np.diff(f), np.hypot(error[1:], error[:-1]) / np.diff(f)
    top, mean = int(steps.argmax()), (loss[-1] - loss[0]) / (f[-1] - f[0])
    mean_error = np.hypot(error[0], error[-1]) / (f[-1] - f[0])
    steepest = float(steps[top] / mean)
    uncertain = float(np.hypot(errors[top], steepest * mean_error) / abs(mean))
    note = (
        f"a straight line explains {fit.value:.2f} of the variance up to {percent(f[-1])}; "
        f"the steepest step is {steepest:.1f} times the mean slope"
    )
    return graded(
        note,
        at_least("(a) variance explained", fit, LINEAR),
        at_most("(b) steepest step", measured(steepest, uncertain), JUMP, " mean slopes"),
    )


def _leads(tables: Tables, state: State, up_to: float) -> tuple[dict[str, Measured], Measured, str]:
    """The mean lead of similarity over simple in accuracy, by task, and in normalised loss, with
    intervals; and all of it in words, which say who leads."""
    leads: dict[str, Measured] = {}
    words: dict[str, list[str]] = {SIMILARITY: [], SIMPLE: []}
    loss = tables.loss.assign(
        accuracy=lambda table: -table["normalized_loss"],
        stderr=lambda table: table["stderr"] * _to_normalised(table),
    )
    parts = {named(*task): of_task(tables.qa, task) for task in testable_tasks(tables.qa)}
    for name, part in {**parts, "": loss}.items():
        a, b = (series(part, strategy, state) for strategy in (SIMILARITY, SIMPLE))
        both = a.merge(b, on="n", suffixes=("", "_simple"))
        both = both[(both["fraction"] > 0) & (both["fraction"] <= up_to)]
        if both.empty:
            raise Untestable(f"no pruning of at most {percent(up_to)} of the layers")
        lead = float((both["accuracy"] - both["accuracy_simple"]).mean())
        error = float(np.hypot(both["stderr"], both["stderr_simple"]).mean())
        leads[name] = measured(lead, error)
        points = f"{100 * abs(lead):.1f} ± {100 * error:.1f} points on {name}"
        words[_first(lead)] += [points] if name else []
    lower = leads.pop("")
    said = [f"{one} leads by {', '.join(points)}" for one, points in words.items() if points]
    said.append(f"in loss {_first(lower.value)} leads by {abs(lower.value):.3f} of ln V")
    return leads, lower, "; ".join(said)


def _first(lead: float) -> str:
    """Who leads, similarity by so much."""
    return SIMILARITY if lead >= 0 else SIMPLE


def simple_worse(tables: Tables) -> Outcome:
    leads, lower, words = _leads(tables, "unhealed", up_to=0.6)
    ahead = [at_least("", lead, COMPARABLE) for lead in leads.values()]
    return graded(
        f"unhealed, up to 60%: {words}",
        any_of("(a) the largest lead in accuracy", ahead),
        at_least("(b) lead in loss", lower, COMPARABLE, OF_LOSS),
    )


def healed_comparable(tables: Tables) -> Outcome:
    leads, lower, words = _leads(tables, "healed", up_to=1.0)
    alike = [within("", lead, COMPARABLE) for lead in leads.values()]
    return graded(
        f"healed: {words}",
        all_of("(a) the largest difference in accuracy", alike),
        within("(b) difference in loss", lower, COMPARABLE, OF_LOSS),
    )
