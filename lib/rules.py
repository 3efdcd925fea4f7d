"""How each claim is decided: a rule reads a study's tables and returns a verdict and its numbers.

Every rule and margin here was written down before the first pruned score of the embedded model was
seen. Standard errors of a mean over prunings of one model are taken as the mean of the standard
errors: the prunings answer the same questions, so their errors do not average out.
"""

from pathlib import Path

import numpy as np
import pandas as pd

VERDICTS = ("reproduced", "partly", "not reproduced", "not testable here")
FLAT_LOSS = 0.05  # accuracy that a flat region may lose (claim 1)
FLAT_FRACTION = 0.20  # how far a flat region has to reach (claim 1; the paper's smallest is 20%)
NEAR = 0.10  # fractions that count as the same place (claim 4)
JUMP = 2.0  # steepest step over mean slope that is still "no jump" (claim 5)
LINEAR = 0.90  # R² of a straight line that is still "about linear" (claim 5)
CONTRAST = 1.25  # mean distance of shallow over deep blocks (claim 6)
LAST = 0.90  # position in its row's range that is "near-maximal" (claim 7)
MOST = 0.75  # share of cases that counts as "generally" (claims 7, 12)
COMPARABLE = 0.05  # difference in accuracy or normalised loss that is small (claims 8, 9)


class Tables:
    """The tables of one study by name, as the sections wrote them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getattr__(self, name: str) -> pd.DataFrame:
        path = self.folder / f"{name}.csv"
        if not path.exists():
            raise Untestable(f"{name}.csv has not been measured yet")
        return pd.read_csv(path)

    def __contains__(self, name: str) -> bool:
        return (self.folder / f"{name}.csv").exists()


class Untestable(Exception):
    """This study cannot decide the claim; the message says why."""


Outcome = tuple[str, str]  # verdict, the numbers behind it


def graded(*passed: bool) -> str:
    """Reproduced where all conditions hold, partly where some do."""
    return VERDICTS[0] if all(passed) else VERDICTS[1] if any(passed) else VERDICTS[2]


def testable_tasks(qa: pd.DataFrame) -> list[tuple[str, int]]:
    """Tasks on which the unpruned, unhealed model is above chance by three standard errors."""
    base = qa[(qa["strategy"] == "none") & (qa["healing"] == "none") & (qa["weights"] != "nf4")]
    good = base[base["accuracy"] > base["chance"] + 3 * base["stderr"]]
    if good.empty:
        raise Untestable("the unpruned model is not above chance on any task")
    return list(zip(good["task"], good["shots"], strict=True))


def _series(table: pd.DataFrame, strategy: str, healed: bool, four_bit: bool) -> pd.DataFrame:
    """One curve against fraction, the unpruned model first."""
    rows = table[table["strategy"].isin([strategy, "none"])]
    rows = rows[(rows["healing"] != "none") == healed]
    rows = rows[(rows["weights"] == "nf4") == four_bit]
    return rows.sort_values("fraction")


def _of_task(qa: pd.DataFrame, task: tuple[str, int]) -> pd.DataFrame:
    return qa[(qa["task"] == task[0]) & (qa["shots"] == task[1])]


def _named(task: str, shots: int) -> str:
    return f"{task} ({shots}-shot)"


def percent(value: float) -> str:
    return f"{100 * value:.3g}%"


def flat_region(tables: Tables) -> Outcome:
    qa = tables.qa
    reached, notes = [], []
    for task in testable_tasks(qa):
        curve = _series(_of_task(qa, task), "similarity", healed=True, four_bit=True)
        lost = curve["accuracy"].iloc[0] - curve["accuracy"]
        noise = 2 * np.hypot(curve["stderr"], curve["stderr"].iloc[0])
        flat = (lost <= np.maximum(FLAT_LOSS, noise)).cumprod().astype(bool)
        reached.append(curve["fraction"][flat].max())
        notes.append(f"{_named(*task)}: flat up to {percent(reached[-1])} of the layers")
    return graded(*(value >= FLAT_FRACTION for value in reached)), "; ".join(notes)


def _transition_rows(tables: Tables, healed: bool, four_bit: bool) -> pd.DataFrame:
    rows = tables.transitions
    rows = rows[(rows["healing"] != "none") == healed]
    return rows[(rows["weights"] == "nf4") == four_bit].dropna(subset=["fraction"])


def sharp(tables: Tables) -> Outcome:
    rows = _transition_rows(tables, healed=True, four_bit=True)
    rows = rows[rows["strategy"] == "similarity"]
    if rows.empty:
        raise Untestable("no accuracy falls far enough for a transition to be fitted")
    passed, notes = [], []
    for row in rows.itertuples():
        flat = row.fraction - row.width / 2
        passed.append(row.width < flat)
        notes.append(
            f"{_named(row.task, row.shots)}: width {row.width:.2f} "
            f"[{row.width_low:.2f}, {row.width_high:.2f}] after a flat {flat:.2f}"
        )
    return graded(*passed), "; ".join(notes)


def healing_moves(tables: Tables) -> Outcome:
    after = _transition_rows(tables, healed=True, four_bit=True)
    before = _transition_rows(tables, healed=False, four_bit=True)
    both = after.merge(before, on=["task", "shots", "strategy"], suffixes=("", "_before"))
    if both.empty:
        raise Untestable("no transition could be fitted both before and after healing")
    shifts = both["fraction"] - both["fraction_before"]
    gains = []
    for strategy in ("similarity", "simple"):
        curves = [_series(tables.loss, strategy, healed, True) for healed in (True, False)]
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
    return graded(bool((shifts > 0).mean() > 0.5), all(gains)), note


def loss_transition(tables: Tables) -> Outcome:
    curve = _series(tables.loss, "similarity", healed=False, four_bit=False)
    f, loss = curve["fraction"].to_numpy(), curve["normalized_loss"].to_numpy()
    middle = (loss[0] + 1) / 2
    above = np.flatnonzero(loss >= middle)
    if loss[0] >= 1:
        raise Untestable("the unpruned model's loss is above ln V already")
    if not len(above):
        note = f"the unhealed loss never gets half-way to ln V (at most {max(loss):.2f})"
        return VERDICTS[2], note
    i = above[0]
    crossing = f[i - 1] + (middle - loss[i - 1]) / (loss[i] - loss[i - 1]) * (f[i] - f[i - 1])
    rows = _transition_rows(tables, healed=False, four_bit=False)
    rows = rows[rows["strategy"] == "similarity"]
    if rows.empty:
        raise Untestable("no accuracy falls far enough for a transition to be fitted")
    apart = (rows["fraction"] - crossing).abs()
    note = f"loss is half-way to ln V at {crossing:.2f}; accuracy falls at " + ", ".join(
        f"{row.fraction:.2f} for {_named(row.task, row.shots)}" for row in rows.itertuples()
    )
    return graded(bool(apart.min() <= NEAR), bool(apart.max() <= 2 * NEAR)), note


def loss_continuous(tables: Tables) -> Outcome:
    curve = _series(tables.loss, "similarity", healed=True, four_bit=True)
    rows = _transition_rows(tables, healed=True, four_bit=True)
    if rows[rows["strategy"] == "similarity"].empty:
        raise Untestable("no accuracy falls far enough for a transition to be fitted")
    if len(curve) < 4:
        raise Untestable("fewer than three healed fractions")
    f, loss = curve["fraction"].to_numpy(), curve["normalized_loss"].to_numpy()
    slope, intercept = np.polyfit(f, loss, 1)
    fit = 1 - ((loss - slope * f - intercept) ** 2).sum() / ((loss - loss.mean()) ** 2).sum()
    steepest = float(np.max(np.diff(loss) / np.diff(f)) / ((loss[-1] - loss[0]) / (f[-1] - f[0])))
    note = (
        f"a straight line explains {fit:.2f} of the variance up to {percent(f[-1])}; "
        f"the steepest step is {steepest:.1f} times the mean slope"
    )
    return graded(fit >= LINEAR, steepest <= JUMP), note


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
    if found < CONTRAST or found <= untrained:
        return VERDICTS[2], note
    return (VERDICTS[0] if found >= CONTRAST * untrained else VERDICTS[1]), note


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
    return graded(near >= MOST, all(farther)), note


def _strategy_gap(
    tables: Tables, healed: bool, up_to: float
) -> tuple[list[float], list[float], float, str]:
    """Mean accuracy lead of similarity by task, its error, the mean lead in normalised loss, and
    all of it in words."""
    qa, loss = tables.qa, tables.loss
    leads, errors = [], []
    tasks = testable_tasks(qa)
    for task in tasks:
        a, b = (_series(_of_task(qa, task), s, healed, healed) for s in ("similarity", "simple"))
        both = a.merge(b, on="n", suffixes=("", "_simple"))
        both = both[(both["fraction"] > 0) & (both["fraction"] <= up_to)]
        leads.append(float((both["accuracy"] - both["accuracy_simple"]).mean()))
        errors.append(float(np.hypot(both["stderr"], both["stderr_simple"]).mean()))
    a, b = (_series(loss, s, healed, healed) for s in ("similarity", "simple"))
    both = a.merge(b, on="n", suffixes=("", "_simple"))
    both = both[(both["fraction"] > 0) & (both["fraction"] <= up_to)]
    if both.empty:
        raise Untestable(f"no pruning of at most {percent(up_to)} of the layers")
    lower = float((both["normalized_loss_simple"] - both["normalized_loss"]).mean())
    points = ", ".join(
        f"{100 * lead:+.1f} ± {100 * error:.1f} on {_named(*task)}"
        for lead, error, task in zip(leads, errors, tasks, strict=True)
    )
    words = f"similarity leads by {points} (points of accuracy) and by {lower:+.3f} of ln V in loss"
    return leads, errors, lower, words


def simple_worse(tables: Tables) -> Outcome:
    leads, errors, loss, words = _strategy_gap(tables, healed=False, up_to=0.6)
    ahead = any(
        lead >= COMPARABLE and lead > 2 * error for lead, error in zip(leads, errors, strict=True)
    )
    return graded(ahead, loss >= COMPARABLE), f"unhealed, up to 60%: {words}"


def healed_comparable(tables: Tables) -> Outcome:
    leads, errors, loss, words = _strategy_gap(tables, healed=True, up_to=1.0)
    close = all(
        abs(lead) <= max(COMPARABLE, 2 * error) for lead, error in zip(leads, errors, strict=True)
    )
    return graded(close, abs(loss) <= COMPARABLE), f"healed: {words}"


def lower_rank(tables: Tables) -> Outcome:
    table = tables.lora_rank
    low, high = table["rank"].min(), table["rank"].max()
    if low == high:
        raise Untestable("only one rank was healed")
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
    return graded(gain > 2 * error, worse >= MOST), note


def healing_by_role(tables: Tables) -> Outcome:
    qa = tables.qa
    gains: dict[str, float] = {}
    errors: dict[str, float] = {}
    for role in ("knowledge", "reading"):
        merged = [
            _series(part, strategy, True, True).merge(
                _series(part, strategy, False, True), on="n", suffixes=("", "_before")
            )
            for task in testable_tasks(qa)
            for strategy in ("similarity", "simple")
            if (part := _of_task(qa, task))["role"].iloc[0] == role
        ]
        if not merged:
            raise Untestable(f"no task of the kind '{role}' that the unpruned model can do")
        both = pd.concat(merged).query("n > 0")
        gains[role] = float((both["accuracy"] - both["accuracy_before"]).mean())
        errors[role] = float(np.hypot(both["stderr"], both["stderr_before"]).mean())
    more = gains["reading"] - gains["knowledge"]
    error = float(np.hypot(errors["reading"], errors["knowledge"]))
    note = (
        f"healing adds {100 * gains['reading']:+.1f} points to reading and "
        f"{100 * gains['knowledge']:+.1f} to knowledge: {100 * more:+.1f} ± {100 * error:.1f} more"
    )
    return (VERDICTS[0] if more > 2 * error else VERDICTS[2]), note
