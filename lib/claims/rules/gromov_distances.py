"""The rules of claims 6 and 7 of Gromov et al., about distances between layers.

Distances of one model are measured on the same sequences. They are taken as independent here, so
that the error of a difference is too large where they rise and fall together; that of a mean over
blocks is the mean of their errors.
"""

import numpy as np
import pandas as pd

from lib.claims.rules.judging import (
    CONTRAST,
    LAST,
    MOST,
    NOT_REPRODUCED,
    PARTLY,
    REPRODUCED,
    Check,
    Outcome,
    above,
    all_of,
    at_least,
    condition,
    graded,
    judged,
    measured,
    share,
)
from lib.claims.rules.reading import Tables, percent


def shallow_over_deep(table: pd.DataFrame) -> tuple[float, float]:
    """Mean distance of shallow blocks over deep ones, and its relative standard error; n ≤ L/2,
    the last layer left out."""
    n_layers = table["n"].max() + 1
    inner = table[(table["start"] + table["n"] < n_layers) & (table["n"] <= n_layers // 2)]
    deep = inner["start"] + inner["n"] / 2 >= n_layers / 2
    means = [inner[rows][["distance", "stderr"]].mean() for rows in (~deep, deep)]
    relative = np.hypot(*(mean["stderr"] / mean["distance"] for mean in means))
    return float(means[0]["distance"] / means[1]["distance"]), float(relative)


def deeper_similar(tables: Tables) -> Outcome:
    found, error = shallow_over_deep(tables.angular_distances)
    untrained, other = shallow_over_deep(tables.untrained_distances)
    note = (
        f"shallow blocks are {found:.2f} times as dissimilar as deep ones (n ≤ L/2, the last layer "
        f"left out), in the untrained twin {untrained:.2f} times"
    )
    ratio = measured(found, found * error)
    over = measured(found / untrained, found / untrained * float(np.hypot(error, other)))

    def rule(held: list[bool]) -> str:
        enough, more, clearly = held
        if not (enough and more):
            return NOT_REPRODUCED
        return REPRODUCED if clearly else PARTLY

    return judged(
        note,
        rule,
        at_least("ratio", ratio, CONTRAST),
        above("ratio over the twin's", over, 1),
        at_least("the same, clearly", over, CONTRAST),
    )


def _weighed(d: np.ndarray, error: np.ndarray, factors: dict[int, float]) -> Check:
    """That a sum of factors times distances is positive; a position may be named twice by its
    index from either end."""
    weights = np.zeros(len(d))
    for position, factor in factors.items():
        weights[position] += factor
    value = measured(weights @ d, float(np.sqrt((weights * error) @ (weights * error))))
    return condition("", value)


def _ends(table: pd.DataFrame) -> tuple[list[Check], list[Check]]:
    """Of each row n ≤ L/2, whether the block with the last layer is near-maximal, and whether it is
    farther apart than the block just before it."""
    n_layers = table["n"].max() + 1
    near, farther = [], []
    for _, row in table[table["n"] <= n_layers // 2].groupby("n"):
        row = row.sort_values("start")
        d, error = row["distance"].to_numpy(), row["stderr"].to_numpy()
        # Its place between the least and the largest distance of the row is at least LAST.
        near.append(_weighed(d, error, {-1: 1, int(d.argmax()): -LAST, int(d.argmin()): LAST - 1}))
        before = measured(d[-1] - d[-2], float(np.hypot(error[-1], error[-2])))
        farther.append(above("", before, 0))
    return near, farther


def last_layer(tables: Tables) -> Outcome:
    table = tables.angular_distances
    near, farther = _ends(table)
    shares = [share(cases).value for cases in (near, farther)]
    note = (
        f"blocks with the last layer are near-maximal in {percent(shares[0])} of the rows "
        f"n ≤ L/2, and farther apart than the block just before them in {percent(shares[1])}"
    )
    normed = tables.distances_after_norm if "distances_after_norm" in tables else []
    if len(normed):  # some decoders project what the norm gives to another width
        others = table[table["start"] + table["n"] <= table["n"].max()]
        shares = [share(cases).value for cases in _ends(pd.concat([others, normed]))]
        note += (
            f" (in {percent(shares[0])} and {percent(shares[1])} where the last layer's output "
            "is taken after the final norm)"
        )
    return graded(
        note,
        at_least("(a) share of rows near-maximal", share(near), MOST),
        all_of("(b) farther apart in every row", farther),
    )
