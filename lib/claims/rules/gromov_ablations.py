"""The rules of claims 10 to 17 of Gromov et al., about ablations, costs and open questions.

Like those in `gromov_curves`, their margins were written down before the numbers that they judge
were seen.
"""

import numpy as np
import pandas as pd

from lib.claims.rules.gromov_curves import SIMILARITY, SIMPLE
from lib.claims.rules.judging import (
    COMPARABLE,
    LINEAR,
    MOST,
    NOT_REPRODUCED,
    OF_LOSS,
    PARTLY,
    REPRODUCED,
    Check,
    Measured,
    Outcome,
    above,
    all_of,
    answered,
    at_least,
    at_most,
    graded,
    judged,
    measured,
    minus,
    not_shown,
    share,
    shown,
    within,
)
from lib.claims.rules.reading import (
    Tables,
    Untestable,
    of_task,
    percent,
    series,
    testable_tasks,
)
from lib.statistics.lines import explained, slope_error, straight_line

SETTLED = 0.95  # share of resamples in which a choice has to come out the same (claim 15)
# Ways of healing, as teacher.csv names them.
EQUAL_STEPS, EQUAL_TIME, TAUGHT = "plain, equal steps", "plain, equal time", "with a teacher"


def _points(row: object) -> str:
    return f"{100 * row.difference:+.1f} ± {100 * row.stderr:.1f}"


def _apart(row: object) -> str:
    return f"{100 * abs(row.difference):.1f} ± {100 * row.stderr:.1f}"


def _alike(what: str, pairs: pd.DataFrame) -> Check:
    """That all of several paired differences are small."""
    both = zip(pairs["difference"], pairs["stderr"], strict=True)
    return all_of(what, [within("", measured(*pair), COMPARABLE) for pair in both])


def prompts(tables: Tables) -> Outcome:
    """Claim 10."""
    compared = tables.prompts_compared
    table = compared[compared["models"] == "healed"]
    if table.empty and not compared.empty:
        raise Untestable("no model was healed")
    orders = table[table["varied"] == "order"]
    shots = table[table["varied"] == "shots"]
    if orders.empty or shots.empty:
        raise Untestable("one order or one number of examples only")
    most = shots.loc[shots["shots"].idxmax()]
    note = (
        "healed, means over the fractions: other orders change accuracy by "
        + ", ".join(_points(row) for row in orders.itertuples())
        + f" points; {most['compared']} instead of {most['base']} by {_points(most)} points"
    )
    gain = measured(most["difference"], most["stderr"])
    marginal = [not_shown("", -gain.value, most["stderr"]), at_most("", gain, COMPARABLE)]
    return graded(
        note,
        _alike("(a) the largest change by an order", orders),
        all_of("(b) gain of more examples", marginal),
    )


def seeds(tables: Tables) -> Outcome:
    """Claim 11."""
    pairs, table = tables.healing_seeds_compared, tables.healing_seeds
    if pairs.empty:
        raise Untestable("one seed only")
    spreads = []
    for _, rows in table[table["metric"] == "normalized_loss"].groupby("n"):
        high, low = rows.loc[rows["value"].idxmax()], rows.loc[rows["value"].idxmin()]
        error = np.hypot(high["stderr"], low["stderr"])
        spreads.append(measured(high["value"] - low["value"], error))
    worst = pairs.loc[pairs["difference"].abs().idxmax()]
    note = (
        f"{table['seed'].nunique()} seeds: accuracy differs by at most {_apart(worst)} points "
        f"({worst['task']}, {worst['compared']}), loss by at most "
        f"{max(spread.value for spread in spreads):.3f} of ln V"
    )
    near = [at_most("", spread, COMPARABLE, OF_LOSS) for spread in spreads]
    return graded(
        note,
        _alike("(a) the largest difference in accuracy", pairs),
        all_of("(b) spread of the loss", near),
    )


def lower_rank(tables: Tables) -> Outcome:
    """Claim 12."""
    table = tables.lora_rank
    low, high = table["rank"].min(), table["rank"].max()
    if table["rank"].nunique() < 2:
        raise Untestable("fewer than two ranks were healed")
    keys = ["metric", "task", "shots", "strategy", "n"]
    both = table[table["rank"] == low].merge(
        table[table["rank"] == high], on=keys, suffixes=("", "_high")
    )
    both["gain"] = both["value"] - both["value_high"]
    both["error"] = np.hypot(both["stderr"], both["stderr_high"])
    accuracy, losses = (both[both["metric"] == one] for one in ("accuracy", "normalized_loss"))
    gain, error = float(accuracy["gain"].mean()), float(accuracy["error"].mean())
    pairs = zip(losses["gain"], losses["error"], strict=True)
    worse = share([above("", measured(*pair), 0) for pair in pairs])
    note = (
        f"rank {low} against {high}: accuracy is {100 * abs(gain):.1f} ± {100 * error:.1f} points "
        f"{'higher' if gain >= 0 else 'lower'}, loss is higher in {percent(worse.value)} of the "
        "cases"
    )
    return graded(
        note,
        shown("(a) gain in accuracy", gain, error),
        at_least("(b) share of losses that are higher", worse, MOST),
    )


def healing_by_role(tables: Tables) -> Outcome:
    """Claim 17."""
    qa = tables.qa
    gains: dict[str, float] = {}
    errors: dict[str, float] = {}
    for role in ("knowledge", "reading"):
        merged = [
            series(part, strategy, "healed").merge(
                series(part, strategy, "control"), on="n", suffixes=("", "_before")
            )
            for task in testable_tasks(qa)
            for strategy in (SIMILARITY, SIMPLE)
            if (part := of_task(qa, task))["role"].iloc[0] == role
        ]
        if not merged:
            raise Untestable(f"no task of the kind '{role}' that the unpruned model can do")
        both = pd.concat(merged).query("n > 0")
        if both.empty:
            raise Untestable("no model was healed")
        gains[role] = float((both["accuracy"] - both["accuracy_before"]).mean())
        errors[role] = float(np.hypot(both["stderr"], both["stderr_before"]).mean())
    more = gains["reading"] - gains["knowledge"]
    error = float(np.hypot(errors["reading"], errors["knowledge"]))
    note = (
        f"healing changes accuracy by {100 * gains['reading']:+.1f} points on reading and by "
        f"{100 * gains['knowledge']:+.1f} on knowledge: {100 * abs(more):.1f} ± {100 * error:.1f} "
        f"more on {'reading' if more >= 0 else 'knowledge'}"
    )
    return graded(note, shown("the larger gain in accuracy", more, error))


def _falling(table: pd.DataFrame, what: str) -> Measured:
    """R² of the line through times against the fraction, 0 where it rises: as measured, the
    least and the most that it may be with times of such errors."""
    x, seconds = table["fraction"].to_numpy(), table[f"{what}_seconds"].to_numpy(float)
    error = table[f"{what}_stderr"].to_numpy(float)
    slope, noise = straight_line(x, seconds)[0], 2 * slope_error(x, error)
    slopes = (slope, slope + noise, slope - noise)
    fits = zip(explained(x, seconds, error), slopes, strict=True)
    return Measured(*(fit if slope < 0 else 0.0 for fit, slope in fits))


def cost(tables: Tables) -> Outcome:
    """Claim 13."""
    table = of_own_format(tables.cost)
    if len(table) < 3:
        raise Untestable("fewer than three fractions")
    slope, _, fit = straight_line(table["fraction"].to_numpy(), table["bytes"].to_numpy(float))
    fits = {"memory of the weights": measured(fit if slope < 0 else 0.0)}
    fits |= {"reading": _falling(table, "read"), "writing": _falling(table, "write")}
    columns = zip(fits, ("bytes", "read_seconds", "write_seconds"), strict=True)
    left = {what: float(table[name].iloc[-1] / table[name].iloc[0]) for what, name in columns}
    note = f"with {percent(float(table['fraction'].iloc[-1]))} of the layers dropped: " + ", ".join(
        f"{what} {percent(left[what])} of the whole (R² of a line {fit.value:.3f})"
        for what, fit in fits.items()
    )
    memory, *times = (at_least("", fit, LINEAR) for fit in fits.values())
    return graded(
        note,
        memory._replace(what="(a) variance of memory explained"),
        all_of("(b) variance of times explained", times),
    )


def of_own_format(table: pd.DataFrame) -> pd.DataFrame:
    """The rows in the study's own number format, which come first."""
    return table[table["weights"] == table["weights"].iloc[0]]


def by_seed(table: pd.DataFrame, metric: str, other: str) -> np.ndarray:
    """What a teacher changes in a metric against another way of healing: the mean over tasks and
    fractions, by seed."""
    rows = table[table["metric"] == metric]
    keys = ["seed", "task", "shots", "n"]
    taught, plain = (rows[rows["way"] == way] for way in (TAUGHT, other))
    both = taught.merge(plain, on=keys, suffixes=("", "_plain"))
    return (both["value"] - both["value_plain"]).groupby(both["seed"]).mean().to_numpy()


def teacher(tables: Tables) -> Outcome:
    """Claim 14. The unit of the errors is the seed."""
    table = tables.teacher
    if table["seed"].nunique() < 2:
        raise Untestable("healed with fewer than two seeds, or without a teacher")
    better, notes = {}, []
    for way in (EQUAL_STEPS, EQUAL_TIME):
        loss, accuracy = (by_seed(table, metric, way) for metric in ("normalized_loss", "accuracy"))
        if min(len(loss), len(accuracy)) < 2:
            raise Untestable("fewer than two seeds were healed in every way")
        errors = [values.std(ddof=1) / np.sqrt(len(values)) for values in (loss, accuracy)]
        at = f"at {way.rpartition(', ')[2]}"
        notes.append(
            f"{at} accuracy {100 * accuracy.mean():+.1f} ± {100 * errors[1]:.1f} points, loss "
            f"{loss.mean():+.4f} ± {errors[0]:.4f} of ln V"
        )
        lower, kept = shown("", -loss.mean(), errors[0]), not_shown("", -accuracy.mean(), errors[1])
        better[way] = all_of(f"better {at}", [lower, kept])
    note = f"{table['seed'].nunique()} seeds; with a teacher instead of plain healing: "
    return answered(note + "; ".join(notes), better[EQUAL_TIME])


def other_texts(tables: Tables) -> Outcome:
    """Claim 15."""
    table = tables.text_blocks
    own = table["text"].iloc[0]
    settled = table[table["support"] >= SETTLED]
    both = settled[settled["text"] != own].merge(
        settled[settled["text"] == own], on="n", suffixes=("", "_own")
    )
    if table["text"].nunique() < 2:
        raise Untestable("the study names no other texts")
    if both.empty:
        raise Untestable(f"no choice that {percent(SETTLED)} of the resamples agree on")
    differ = float((both["start"] != both["start_own"]).mean())
    note = (
        f"of {len(both)} choices on {both['text'].nunique()} other texts that {percent(SETTLED)} "
        f"of the resamples agree on, {percent(differ)} differ from the choice on {own}"
    )
    # Resampling may still turn each choice: a few that differ show nothing, nor do they show that
    # the text does not matter.
    ends = Measured(differ, differ, 1.0 if 0 < differ < 1 - MOST else differ)
    return answered(note, at_least("share of choices that differ", ends, 1 - MOST))


def families(tables: Tables) -> Outcome:
    """Claim 16."""
    table = tables.families.dropna(subset=["fraction", "layers"])
    table = table[table["healing"] != "none"]
    deeper = []
    for _, rows in table.groupby(["task", "shots"]):
        pairs = rows.merge(rows, how="cross", suffixes=("", "_deeper"))
        for row in pairs[pairs["layers_deeper"] > pairs["layers"]].itertuples():
            shallow = Measured(row.fraction, row.low, row.high)
            deep = Measured(row.fraction_deeper, row.low_deeper, row.high_deeper)
            deeper.append(above("", minus(deep, shallow), 0))
    if not deeper:
        raise Untestable("no two models of different depth with a fitted transition")
    found = share(deeper)
    note = (
        f"in {percent(found.value)} of {len(deeper)} comparisons of two models on one task the "
        "deeper one's accuracy falls at a larger fraction"
    )
    return judged(
        note,
        lambda held: REPRODUCED if held[0] else PARTLY if held[1] else NOT_REPRODUCED,
        all_of("all comparisons", deeper),
        at_least("most of them", found, MOST),
    )
