"""Whether two runs differ by more than chance, where they cannot agree to the last digits.

Accuracies are paired over questions where both runs answered the same ones; otherwise they have
both standard errors. Rounding on another processor moves training as another seed might, and what
that makes is not in the errors over questions. So to those of healed models comes what the
published run measured over seeds of healing, pooled over tasks and fractions; between two runs that
is √2 of a standard deviation. Losses have both standard errors, as if the sequences were different
ones, and those of healed models the seeds' too; but losses of healed models on the same sequences
differ by what seeds make alone, where that is known with `KNOWN` degrees of freedom. Tests are
t-tests, with degrees of freedom after Welch and Satterthwaite. Where errors are counted twice, runs
are named too seldom rather than too often.

A record is one comparison, that of distances with Bonferroni's correction over its blocks; over all
comparisons Holm's correction holds.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t

from lib.book.pairing import Judged, Pair
from lib.evidence.records import Record
from lib.sections.comparisons import paired

LEVEL = 0.05  # the chance to name any record of two runs that are alike
KNOWN = 4  # degrees of freedom from which on a spread over seeds stands alone
CLOSE = 1e-5  # relative: the same number but for rounding
COUNTS = ("n_questions", "guess", "constant", "n_tokens", "n_sequences")


class Spread(NamedTuple):
    """Standard deviation over seeds of healing with its degrees of freedom: of accuracies, and of
    losses relative to themselves."""

    accuracy: tuple[float, int] = (0.0, 0)
    loss: tuple[float, int] = (0.0, 0)


def spread(seeds: pd.DataFrame | None) -> Spread:
    """What other seeds of healing change, from the table healing_seeds; 0 where there is none."""
    if seeds is None or seeds.empty:
        return Spread()
    found = {}
    cells = ["task", "shots", "strategy", "n", "healing", "weights"]
    for metric, rows in seeds.groupby("metric"):
        values = rows.astype({"value": float}).groupby(cells, dropna=False)["value"]
        free = values.count() - 1
        scale = 1.0 if metric == "accuracy" else values.mean()
        squares = (values.var() / scale**2 * free)[free > 0]
        if len(squares):
            found[metric] = math.sqrt(squares.sum() / free.sum()), int(free.sum())
    return Spread(found.get("accuracy", (0.0, 0)), found.get("normalized_loss", (0.0, 0)))


def by_chance(pair: Pair, seeds: Spread) -> Judged:
    """An accuracy, a loss or distances, with the p of their difference (two-sided)."""
    if pair.own["kind"] == "distances":
        return _distances(pair)
    one, other = (record["value"] for record in pair[:2])
    for key in COUNTS:
        if not pair.differs and one.get(key) != other.get(key):
            return Judged(pair, "differs", f"{key} {one.get(key)} / {other.get(key)}")
    if pair.own["kind"] == "qa":
        key, errors = "accuracy", _errors_of_accuracies(pair, seeds)
    else:
        key, errors = "loss", _errors_of_losses(pair, seeds)
    size, p = _test(one[key], other[key], errors)
    says = f"{key} " + " / ".join(
        f"{side[key]:.4g} ± {side['stderr']:.2g}" for side in (one, other)
    )
    close = key == "loss" and not size  # answers may turn and leave the accuracy
    outcome = "equal" if one == other else "within" if close else "chance"
    return Judged(pair, outcome, says, size, p)


def beyond_chance(judged: Sequence[Judged]) -> None:
    """Say of each comparison that has a p whether it differs, given how many there are."""
    tests = [(one, one.p) for one in judged if one.p is not None]
    for (one, p), rejected in zip(tests, holm([p for _, p in tests]), strict=True):
        if rejected:
            one.outcome = "differs"
            one.says += f": p = {p:.1g}, beyond chance among {len(tests):,} comparisons"


def holm(p: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which of several null hypotheses are rejected, so that the chance to reject any true one is
    at most `level` (Holm 1979)."""
    rejected = [False] * len(p)
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[i] > level / (len(p) - rank):
            break
        rejected[i] = True
    return rejected


def right(record: Record) -> np.ndarray:
    """For each question of a record of answers, 1 where it was right, else 0; by sub-task."""
    correct = record["value"]["correct"]
    return np.array([int(one) for name in sorted(correct) for one in correct[name]])


Error = tuple[float, int]  # a standard error and its degrees of freedom


def _errors_of_accuracies(pair: Pair, seeds: Spread) -> list[Error]:
    deviation, free = seeds.accuracy
    by_seed = [(math.sqrt(2) * deviation, free)] if deviation else []
    first, second = right(pair.published), right(pair.own)
    if _alike(pair, "task", "source") and len(first) == len(second) > 1:
        return [(paired(second[None], first[None])[1], len(first) - 1), *by_seed]
    sides = (record["value"] for record in pair[:2])
    return [*((side["stderr"], side["n_questions"] - 1) for side in sides), *by_seed]


def _errors_of_losses(pair: Pair, seeds: Spread) -> list[Error]:
    one, other = (record["value"] for record in pair[:2])
    deviation, free = seeds.loss
    mean = (one["loss"] + other["loss"]) / 2
    by_seed = [(math.sqrt(2) * deviation * mean, free)] if deviation else []
    if by_seed and free >= KNOWN and _alike(pair, "text", "sample"):
        return by_seed
    return [*((side["stderr"], side["n_sequences"] - 1) for side in (one, other)), *by_seed]


def _alike(pair: Pair, *keys: str) -> bool:
    return all(pair.published["inputs"][key] == pair.own["inputs"][key] for key in keys)


def _distances(pair: Pair) -> Judged:
    """Block by block; what is told is the block that is farthest apart."""
    tests = []
    for part in ("table", "after_norm"):
        sides = [record["value"][part] for record in pair[:2]]
        blocks = [list(zip(side["n"], side["start"], strict=True)) for side in sides]
        if blocks[0] != blocks[1]:
            return Judged(pair, "differs", "of a model with another number of layers")
        for i, (n, start) in enumerate(blocks[0]):
            one, other = (side["distance"][i] for side in sides)
            errors = [(side["stderr"][i], side["n_sequences"][i] - 1) for side in sides]
            size, p = _test(one, other, errors)
            values = f"{one:.4g} ± {errors[0][0]:.2g} / {other:.4g} ± {errors[1][0]:.2g}"
            tests.append((p, size, f"block of {n} at {start}: {values}"))
    p, size, says = min(tests)
    outcome = "equal" if pair.published["value"] == pair.own["value"] else "chance"
    return Judged(pair, outcome, says, size, min(1.0, p * len(tests)))


def _test(one: float, other: float, errors: Sequence[Error]) -> tuple[float, float]:
    """A difference in standard errors, and how likely one as large is (two-sided).

    errors: independent ones of the difference."""
    variance = sum(error**2 for error, _ in errors)
    if math.isclose(one, other, rel_tol=CLOSE):
        return 0.0, 1.0
    if not variance:
        return math.inf, 0.0
    size = abs(other - one) / math.sqrt(variance)
    free = variance**2 / sum(error**4 / max(count, 1) for error, count in errors)
    return size, float(2 * t.sf(size, free))
