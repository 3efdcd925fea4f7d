"""Scores question by question: numbers from 0 to 1, mostly one of the two.

Records hold them by task in `correct`: a string of 0 and 1, or the numbers themselves where some
lie between. The mean of N of them has the standard error √(Σ (xᵢ − x̄)² / (N (N−1))), which is
√(p (1−p) / (N−1)) of right and wrong answers.
"""

import math
from collections.abc import Sequence

import numpy as np

Correct = dict[str, str | list[float]]


def spelled(scores: Sequence[float]) -> str | list[float]:
    """As records hold them."""
    if all(score in (0, 1) for score in scores):
        return "".join(str(int(score)) for score in scores)
    return list(scores)


def scores(of_task: str | list[float]) -> np.ndarray:
    """[questions] of a record's numbers."""
    return np.array([float(one) for one in of_task])


def of_all_tasks(correct: Correct) -> np.ndarray:
    """[questions] of all tasks, in the order in which they stand there."""
    return np.concatenate([scores(of_task) for of_task in correct.values()])


def mean(values: np.ndarray) -> float:
    return math.fsum(values) / len(values)


def variance(values: np.ndarray) -> float:
    """Of the mean, its standard error squared; of one question alone, that of two alike."""
    share, count = mean(values), len(values)
    # Σ (x − x̄)² / N, written so that of 0 and 1 it is p (1 − p) to the last bit.
    spread = share * (1 - share) - mean(values * (1 - values))
    return max(spread, 0.0) / max(count - 1, 1)
