"""Rules of claims 10 to 17, about ablations, costs and open questions.

Like those in `lib.claims.rules`, each was written down before the numbers that it judges were seen.
"""

import numpy as np
import pandas as pd

from lib.claims.judging import (
    COMPARABLE,
    LINEAR,
    MOST,
    VERDICTS,
    Check,
    Outcome,
    Tables,
    Untestable,
    above,
    at_least,
    at_most,
    decided,
    graded,
    of_task,
    percent,
    series,
    straight_line,
    testable_tasks,
)
from lib.experiments.conditions import TEACHING

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
    alike = np.maximum(COMPARABLE, 2 * orders["stderr"]) - orders["difference"].abs()
    most = shots.loc[shots["shots"].idxmax()]
    noise = 2 * most["stderr"]
    little = min(most["difference"] + noise, COMPARABLE + noise - most["difference"])
    note = (
        "healed, means over the fractions: other orders change accuracy by "
        + ", ".join(_points(row) for row in orders.itertuples())
        + f" points; {most['compared']} instead of {most['base']} by {_points(most)} points"
    )
    return graded(
        note,
        at_least("(a) the largest change by an order", alike.min(), 0),
        at_least("(b) gain of more examples", little, 0),
    )


def seeds(tables: Tables) -> Outcome:
    """Claim 11."""
    pairs, table = tables.healing_seeds_compared, tables.healing_seeds
    if pairs.empty:
        raise Untestable("one seed only")
    alike = np.maximum(COMPARABLE, 2 * pairs["stderr"]) - pairs["difference"].abs()
    loss = table[table["metric"] == "normalized_loss"].groupby("n")["value"]
    spread = float((loss.max() - loss.min()).max())
    worst = pairs.loc[pairs["difference"].abs().idxmax()]
    note = (
        f"{table['seed'].nunique()} seeds: accuracy differs by at most {_points(worst)} points "
        f"({worst['task']}, {worst['compared']}), loss by at most {spread:.3f} of ln V"
    )
    return graded(
        note,
        at_least("(a) the largest difference in accuracy", alike.min(), 0),
        at_most("(b) spread of the loss", spread, COMPARABLE, " of ln V"),
    )


def lower_rank(tables: Tables) -> Outcome:
    table = tables.lora_rank
    low, high = table["rank"].min(), table["rank"].max()
    if table["rank"].nunique() < 2:
        raise Untestable("fewer than two ranks were healed")
    keys = ["metric", "task", "shots", "strategy", "n"]
    both = table[table["rank"] == low].merge(
        table[table["rank"] == high], on=keys, suffixes=("", "_high")
    )
    both["gain"] = both["value"] - both["value_high"]
    accuracy = both[both["metric"] == "accuracy"]
    error = float(np.hypot(accuracy["stderr"], accuracy["stderr_high"]).mean())
    gain = float(accuracy["gain"].mean())
    worse = float((both[both["metric"] != "accuracy"]["gain"] > 0).mean())
    note = (
        f"rank {low} against {high}: accuracy {100 * gain:+.1f} ± {100 * error:.1f} points, loss "
        f"higher in {percent(worse)} of the cases"
    )
    return graded(
        note,
        above("(a) gain in accuracy", gain, 2 * error),
        at_least("(b) share of losses that are higher", worse, MOST),
    )


def healing_by_role(tables: Tables) -> Outcome:
    qa = tables.qa
    gains: dict[str, float] = {}
    errors: dict[str, float] = {}
    for role in ("knowledge", "reading"):
        merged = [
            series(part, strategy, "healed").merge(
                series(part, strategy, "control"), on="n", suffixes=("", "_before")
            )
            for task in testable_tasks(qa)
            for strategy in ("similarity", "simple")
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
        f"healing adds {100 * gains['reading']:+.1f} points to reading and "
        f"{100 * gains['knowledge']:+.1f} to knowledge: {100 * more:+.1f} ± {100 * error:.1f} more"
    )
    return graded(note, above("the larger gain in accuracy", more, 2 * error))


def _straight(table: pd.DataFrame, column: str) -> float:
    """R² of the line through a column against the fraction; 0 where it rises."""
    slope, _, fit = straight_line(table["fraction"].to_numpy(), table[column].to_numpy(float))
    return fit if slope < 0 else 0.0


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
    return graded(
        note,
        at_least("(a) variance of memory explained", fits["bytes"], LINEAR),
        at_least("(b) variance of times explained", times, LINEAR),
    )


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
    if min(map(len, found.values())) < 2:
        raise Untestable("fewer than two seeds were healed in every way")
    error = {key: values.std(ddof=1) / np.sqrt(len(values)) for key, values in found.items()}

    def better(way: str) -> Check:
        loss, accuracy = ("normalized_loss", way), ("accuracy", way)
        lower = above("", -found[loss].mean(), 2 * error[loss])
        kept = at_least("", found[accuracy].mean(), -2 * error[accuracy])
        slack = min(lower.slack, kept.slack)
        return Check(lower.passed and kept.passed, way.rpartition(", ")[2], slack)

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
    verdict = VERDICTS[1] if same_steps.passed else VERDICTS[2]
    return decided(VERDICTS[0] if same_time.passed else verdict, note, same_steps, same_time)


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
    often = at_least("share of choices that differ", differ, 1 - MOST)
    verdict = VERDICTS[1] if differ else VERDICTS[2]
    return decided(VERDICTS[0] if often.passed else verdict, note, often)


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
    checks = at_least("all comparisons", share, 1), at_least("most of them", share, MOST)
    verdict = VERDICTS[1] if checks[1].passed else VERDICTS[2]
    return decided(VERDICTS[0] if checks[0].passed else verdict, note, *checks)
