"""Differences between models that answered the same questions.

Two models of one study are right and wrong on much the same questions, so the error of a difference
is that of the differences question by question, not of two accuracies side by side. Scores may take
any value from 0 to 1:

    d_q = mean over prunings of (a_q − b_q),   d = mean of d_q,   standard error = s(d_q) / √N
"""

import numpy as np


def paired(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Mean difference and its standard error; both [prunings, questions]."""
    by_question = (first.astype(float) - second).mean(axis=0)
    count = len(by_question)
    return float(by_question.mean()), float(by_question.std(ddof=1) / np.sqrt(count))
