"""The rules of claims 1 to 9, about distances, accuracy, loss and strategies: each reads a study's
tables and returns a verdict, its numbers, and how far they are from another verdict.

Every rule here was written down before the first pruned score of the embedded model was seen.
Standard errors of a mean over prunings of one model are taken as the mean of the standard errors:
the prunings answer the same questions, so their errors do not average out.
"""

import numpy as np
import pandas as pd

from lib.claims.judging import (
    COMPARABLE,
    CONTRAST,
    FLAT_FRACTION,
    FLAT_LOSS,
    JUMP,
    LAST,
    LINEAR,
    MOST,
    NEAR,
    VERDICTS,
    Check,
    Outcome,
    State,
    Tables,
    Untestable,
    above,
    at_least,
    at_most,
    decided,
    graded,
    named,
    of_state,
    of_task,
    percent,
    series,
    straight_line,
    testable_tasks,
)


def flat_region(tables: Tables) -> Outcome:
    qa = tables.qa
    checks, notes = [], []
    for task in testable_tasks(qa):
        curve = series(of_task(qa, task), "similarity", "healed")
        if curve.empty or curve["n"].iloc[0]:
            raise Untestable("the healing of the whole model broke down")
        lost = curve["accuracy"].iloc[0] - curve["accuracy"]
        noise = 2 * np.hypot(curve["stderr"], curve["stderr"].iloc[0])
        flat = (lost <= np.maximum(FLAT_LOSS, noise)).cumprod().astype(bool)
        reached = curve["fraction"][flat].max()
        notes.append(f"{named(*task)}: flat up to {percent(reached)} of the layers")
        checks.append(at_least(named(*task), reached, FLAT_FRACTION, " of the layers"))
    return graded("; ".join(notes), *checks)


def _transition_rows(tables: Tables, state: State) -> pd.DataFrame:
    return of_state(tables.transitions, state).dropna(subset=["fraction"])


def sharp(tables: Tables) -> Outcome:
    rows = _transition_rows(tables, "healed")
    rows = rows[rows["strategy"] == "similarity"]
    if rows.empty:
        raise Untestable("no accuracy falls far enough for a transition to be fitted")
    checks, notes = [], []
    for row in rows.itertuples():
        flat = row.fraction - row.width / 2
        checks.append(above(named(row.task, row.shots), flat, row.width, " of the layers"))
        notes.append(
            f"{named(row.task, row.shots)}: width {row.width:.2f} "
            f"[{row.width_low:.2f}, {row.width_high:.2f}] after a flat {flat:.2f}"
        )
    return graded("; ".join(notes), *checks)


def healing_moves(tables: Tables) -> Outcome:
    after = _transition_rows(tables, "healed")
    before = _transition_rows(tables, "control")
    both = after.merge(before, on=["task", "shots", "strategy"], suffixes=("", "_before"))
    if both.empty:
        raise Untestable("no transition could be fitted both before and after healing")
    shifts = both["fraction"] - both["fraction_before"]
    gains = []
    for strategy in ("similarity", "simple"):
        curves = [series(tables.loss, strategy, state) for state in ("healed", "control")]
        merged = curves[0].merge(curves[1], on="n", suffixes=("", "_before"))
        merged = merged[merged["fraction"] >= 0.25]
        noise = 2 * np.hypot(merged["stderr"], merged["stderr_before"])
        gains += list(merged["loss_before"] - merged["loss"] > noise)
    if not gains:
        raise Untestable("no healed fraction of at least 0.25")
    note = (
        f"the transition moves by {shifts.mean():+.2f} on average "
        f"({int((shifts > 0).sum())} of {len(shifts)} curves to larger fractions); "
        f"loss is lower after healing at {sum(gains)} of {len(gains)} prunings of at least 25%"
    )
    return graded(
        note,
        above("(a) share of curves moved up", (shifts > 0).mean(), 0.5),
        at_least("(b) share of losses lowered", float(np.mean(gains)), 1),
    )


def loss_transition(tables: Tables) -> Outcome:
    curve = series(tables.loss, "similarity", "unhealed")
    f, loss = curve["fraction"].to_numpy(), curve["normalized_loss"].to_numpy()
    middle = (loss[0] + 1) / 2
    high = np.flatnonzero(loss >= middle)
    if loss[0] >= 1:
        raise Untestable("the unpruned model's loss is above ln V already")
    if not len(high):
        note = f"the unhealed loss never gets half-way to ln V (at most {max(loss):.2f})"
        return Outcome(VERDICTS[2], note)
    i = high[0]
    crossing = f[i - 1] + (middle - loss[i - 1]) / (loss[i] - loss[i - 1]) * (f[i] - f[i - 1])
    rows = _transition_rows(tables, "unhealed")
    rows = rows[rows["strategy"] == "similarity"]
    if rows.empty:
        raise Untestable("no accuracy falls far enough for a transition to be fitted")
    apart = (rows["fraction"] - crossing).abs()
    note = f"loss is half-way to ln V at {crossing:.2f}; accuracy falls at " + ", ".join(
        f"{row.fraction:.2f} for {named(row.task, row.shots)}" for row in rows.itertuples()
    )
    return graded(
        note,
        at_most("(a) the nearest task", apart.min(), NEAR, " of the layers"),
        at_most("(b) the farthest task", apart.max(), 2 * NEAR, " of the layers"),
    )


def loss_continuous(tables: Tables) -> Outcome:
    curve = series(tables.loss, "similarity", "healed")
    rows = _transition_rows(tables, "healed")
    if rows[rows["strategy"] == "similarity"].empty:
        raise Untestable("no accuracy falls far enough for a transition to be fitted")
    if len(curve) < 4:
        raise Untestable("fewer than three healed fractions")
    f, loss = curve["fraction"].to_numpy(), curve["normalized_loss"].to_numpy()
    _, _, fit = straight_line(f, loss)
    steepest = float(np.max(np.diff(loss) / np.diff(f)) / ((loss[-1] - loss[0]) / (f[-1] - f[0])))
    note = (
        f"a straight line explains {fit:.2f} of the variance up to {percent(f[-1])}; "
        f"the steepest step is {steepest:.1f} times the mean slope"
    )
    return graded(
        note,
        at_least("(a) variance explained", fit, LINEAR),
        at_most("(b) steepest step", steepest, JUMP, " mean slopes"),
    )


def _contrast(table: pd.DataFrame) -> float:
    """Mean distance of shallow blocks over deep ones; n ≤ L/2, the last layer left out."""
    n_layers = table["n"].max() + 1
    inner = table[(table["start"] + table["n"] < n_layers) & (table["n"] <= n_layers // 2)]
    deep = inner["start"] + inner["n"] / 2 >= n_layers / 2
    return float(inner["distance"][~deep].mean() / inner["distance"][deep].mean())


def deeper_similar(tables: Tables) -> Outcome:
    found, untrained = _contrast(tables.angular_distances), _contrast(tables.untrained_distances)
    note = (
        f"shallow blocks are {found:.2f} times as dissimilar as deep ones (n ≤ L/2, the last layer "
        f"left out), in the untrained twin {untrained:.2f} times"
    )
    checks = (
        at_least("ratio", found, CONTRAST),
        above("ratio over the twin's", found / untrained, 1),
        at_least("the same, clearly", found / untrained, CONTRAST),
    )
    enough, more, clearly = (check.passed for check in checks)
    verdict = VERDICTS[2] if not (enough and more) else VERDICTS[0] if clearly else VERDICTS[1]
    return decided(verdict, note, *checks)


def _ends(table: pd.DataFrame) -> tuple[float, list[bool]]:
    """Of the rows n ≤ L/2: the share in which the block with the last layer is near-maximal, and
    whether it is farther apart than the block just before it, row by row."""
    n_layers = table["n"].max() + 1
    positions, farther = [], []
    for _, row in table[table["n"] <= n_layers // 2].groupby("n"):
        d = row.sort_values("start")["distance"].to_numpy()
        positions.append((d[-1] - d.min()) / (d.max() - d.min()))
        farther.append(bool(d[-1] > d[-2]))
    return float(np.mean(np.array(positions) >= LAST)), farther


def last_layer(tables: Tables) -> Outcome:
    table = tables.angular_distances
    near, farther = _ends(table)
    note = (
        f"blocks with the last layer are near-maximal in {percent(near)} of the rows n ≤ L/2, and "
        f"farther apart than the block just before them in {percent(float(np.mean(farther)))}"
    )
    normed = tables.distances_after_norm if "distances_after_norm" in tables else []
    if len(normed):  # some decoders project what the norm gives to another width
        others = table[table["start"] + table["n"] <= table["n"].max()]
        shares = [float(np.mean(share)) for share in _ends(pd.concat([others, normed]))]
        note += (
            f" (in {percent(shares[0])} and {percent(shares[1])} where the last layer's output "
            "is taken after the final norm)"
        )
    return graded(
        note,
        at_least("(a) share of rows", near, MOST),
        at_least("(b) share of rows", float(np.mean(farther)), 1),
    )


def _strategy_gap(
    tables: Tables, healed: bool, up_to: float
) -> tuple[list[float], list[float], float, str]:
    """Mean accuracy lead of similarity by task, its error, the mean lead in normalised loss, and
    all of it in words."""
    qa, loss = tables.qa, tables.loss
    leads, errors = [], []
    state: State = "healed" if healed else "unhealed"
    tasks = testable_tasks(qa)
    for task in tasks:
        a, b = (series(of_task(qa, task), s, state) for s in ("similarity", "simple"))
        both = a.merge(b, on="n", suffixes=("", "_simple"))
        both = both[(both["fraction"] > 0) & (both["fraction"] <= up_to)]
        leads.append(float((both["accuracy"] - both["accuracy_simple"]).mean()))
        errors.append(float(np.hypot(both["stderr"], both["stderr_simple"]).mean()))
    a, b = (series(loss, s, state) for s in ("similarity", "simple"))
    both = a.merge(b, on="n", suffixes=("", "_simple"))
    both = both[(both["fraction"] > 0) & (both["fraction"] <= up_to)]
    if both.empty:
        raise Untestable(f"no pruning of at most {percent(up_to)} of the layers")
    lower = float((both["normalized_loss_simple"] - both["normalized_loss"]).mean())
    points = ", ".join(
        f"{100 * lead:+.1f} ± {100 * error:.1f} on {named(*task)}"
        for lead, error, task in zip(leads, errors, tasks, strict=True)
    )
    words = f"similarity leads by {points} (points of accuracy) and by {lower:+.3f} of ln V in loss"
    return leads, errors, lower, words


def simple_worse(tables: Tables) -> Outcome:
    leads, errors, loss, words = _strategy_gap(tables, healed=False, up_to=0.6)
    ahead = any(
        lead >= COMPARABLE and lead > 2 * error for lead, error in zip(leads, errors, strict=True)
    )
    room = (lead - max(COMPARABLE, 2 * error) for lead, error in zip(leads, errors, strict=True))
    return graded(
        f"unhealed, up to 60%: {words}",
        Check(ahead, "(a) the largest lead in accuracy", max(room)),
        at_least("(b) lead in loss", loss, COMPARABLE, " of ln V"),
    )


def healed_comparable(tables: Tables) -> Outcome:
    leads, errors, loss, words = _strategy_gap(tables, healed=True, up_to=1.0)
    room = min(
        max(COMPARABLE, 2 * error) - abs(lead) for lead, error in zip(leads, errors, strict=True)
    )
    return graded(
        f"healed: {words}",
        at_least("(a) the largest difference in accuracy", room, 0),
        at_most("(b) difference in loss", abs(loss), COMPARABLE, " of ln V"),
    )
