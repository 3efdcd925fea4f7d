"""Rules of the claims about ablations, costs and open questions (10 to 16).

Like those in `lib.rules`, each was written down before the numbers that it judges were seen.
"""

import numpy as np
import pandas as pd

from lib.conditions import TEACHING
from lib.rules import (
    COMPARABLE,
    LINEAR,
    MOST,
    VERDICTS,
    Outcome,
    Tables,
    Untestable,
    graded,
    percent,
)

SETTLED = 0.95  # share of resamples in which a choice has to come out the same (claim 15)


def _points(row: object) -> str:
    return f"{100 * row.difference:+.1f} ± {100 * row.stderr:.1f}"


def prompts(tables: Tables) -> Outcome:
    """Claim 10."""
    table = tables.prompts_compared
    table = table[table["models"] == "healed"]
    orders = table[table["varied"] == "order"]
    shots = table[table["varied"] == "shots"]
    if orders.empty or shots.empty:
        raise Untestable("one order or one number of examples only")
    alike = (orders["difference"].abs() <= np.maximum(COMPARABLE, 2 * orders["stderr"])).all()
    most = shots.loc[shots["shots"].idxmax()]
    noise = 2 * most["stderr"]
    little = -noise <= most["difference"] <= COMPARABLE + noise
    note = (
        "healed, means over the fractions: other orders change accuracy by "
        + ", ".join(_points(row) for row in orders.itertuples())
        + f" points; {most['compared']} instead of {most['base']} by {_points(most)}"
    )
    return graded(bool(alike), bool(little)), note


def seeds(tables: Tables) -> Outcome:
    """Claim 11."""
    pairs, table = tables.healing_seeds_compared, tables.healing_seeds
    if pairs.empty:
        raise Untestable("one seed only")
    alike = (pairs["difference"].abs() <= np.maximum(COMPARABLE, 2 * pairs["stderr"])).all()
    loss = table[table["metric"] == "normalized_loss"].groupby("n")["value"]
    spread = float((loss.max() - loss.min()).max())
    worst = pairs.loc[pairs["difference"].abs().idxmax()]
    note = (
        f"{table['seed'].nunique()} seeds: accuracy differs by at most {_points(worst)} points "
        f"({worst['task']}, {worst['compared']}), loss by at most {spread:.3f} of ln V"
    )
    return graded(bool(alike), spread <= COMPARABLE), note


def _straight(table: pd.DataFrame, column: str) -> float:
    """R² of the least-squares line through a column against the fraction; 0 where it rises."""
    f, value = table["fraction"].to_numpy(), table[column].to_numpy()
    slope, intercept = np.polyfit(f, value, 1)
    rest = ((value - slope * f - intercept) ** 2).sum()
    return 0.0 if slope >= 0 else float(1 - rest / ((value - value.mean()) ** 2).sum())


def cost(tables: Tables) -> Outcome:
    """Claim 13."""
    table = tables.cost
    table = table[table["weights"] != "nf4"]
    if len(table) < 3:
        raise Untestable("fewer than three fractions")
    fits = {name: _straight(table, name) for name in ("bytes", "read_seconds", "write_seconds")}
    left = {name: float(table[name].iloc[-1] / table[name].iloc[0]) for name in fits}
    words = {
        "bytes": "memory of the weights",
        "read_seconds": "reading",
        "write_seconds": "writing",
    }
    note = f"with {percent(float(table['fraction'].iloc[-1]))} of the layers dropped: " + ", ".join(
        f"{words[name]} {percent(left[name])} of the whole (R² of a line {fits[name]:.3f})"
        for name in fits
    )
    times = min(fits["read_seconds"], fits["write_seconds"])
    return graded(fits["bytes"] >= LINEAR, times >= LINEAR), note


def by_seed(table: pd.DataFrame, metric: str, other: str) -> np.ndarray:
    """What a teacher changes in a metric against another way of healing: the mean over tasks and
    fractions, by seed."""
    rows = table[table["metric"] == metric]
    keys = ["seed", "task", "shots", "n"]
    taught, plain = (rows[rows["way"] == way] for way in (TEACHING[2], other))
    both = taught.merge(plain, on=keys, suffixes=("", "_plain"))
    return (both["value"] - both["value_plain"]).groupby(both["seed"]).mean().to_numpy()


def teacher(tables: Tables) -> Outcome:
    """Claim 14. The unit of the errors is the seed."""
    table = tables.teacher
    if table["seed"].nunique() < 2:
        raise Untestable("healed with fewer than two seeds, or without a teacher")
    found = {
        (metric, way): by_seed(table, metric, way)
        for metric in ("normalized_loss", "accuracy")
        for way in TEACHING[:2]
    }
    error = {key: values.std(ddof=1) / np.sqrt(len(values)) for key, values in found.items()}

    def better(way: str) -> bool:
        loss, accuracy = found["normalized_loss", way], found["accuracy", way]
        lower = loss.mean() < -2 * error["normalized_loss", way]
        return bool(lower and accuracy.mean() >= -2 * error["accuracy", way])

    def words(way: str) -> str:
        loss, accuracy = ("normalized_loss", way), ("accuracy", way)
        return (
            f"at {way.rpartition(', ')[2]} accuracy {100 * found[accuracy].mean():+.1f} ± "
            f"{100 * error[accuracy]:.1f} points, loss {found[loss].mean():+.4f} ± "
            f"{error[loss]:.4f} of ln V"
        )

    note = f"{table['seed'].nunique()} seeds; with a teacher instead of plain healing: "
    note += "; ".join(map(words, TEACHING[:2]))
    same_steps, same_time = (better(way) for way in TEACHING[:2])
    return VERDICTS[0] if same_time else VERDICTS[1] if same_steps else VERDICTS[2], note


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
    return VERDICTS[0] if differ >= 1 - MOST else VERDICTS[1] if differ else VERDICTS[2], note


def families(tables: Tables) -> Outcome:
    """Claim 16."""
    table = tables.families.dropna(subset=["fraction", "layers"])
    table = table[table["healing"] != "none"]
    before = []
    for _, rows in table.groupby(["task", "shots"]):
        pairs = rows.merge(rows, how="cross", suffixes=("", "_deeper"))
        pairs = pairs[pairs["layers_deeper"] > pairs["layers"]]
        before += list(pairs["fraction_deeper"] > pairs["fraction"])
    if not before:
        raise Untestable("no two models of different depth with a fitted transition")
    share = float(np.mean(before))
    note = (
        f"in {percent(share)} of {len(before)} comparisons of two models on one task the deeper "
        "one's accuracy falls at a larger fraction"
    )
    return VERDICTS[0] if share == 1 else VERDICTS[1] if share >= MOST else VERDICTS[2], note
