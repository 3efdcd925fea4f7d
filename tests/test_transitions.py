"""The fitted step finds the step that simulated questions were made with, and none elsewhere."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from lib.statistics import transitions
from lib.statistics.transitions import Transition, fit

FRACTIONS = np.arange(12) / 16


def answers(
    critical: float, s: float, seed: int, questions: int = 300, chance: float = 0.25
) -> np.ndarray:
    """[fractions, questions] of 0 and 1. Each question is known up to a fraction of its own,
    drawn from a logistic distribution about `critical`; one that is lost is guessed."""
    random = np.random.default_rng(seed)
    lost_at = random.logistic(critical, s, questions)
    guessed = random.random((len(FRACTIONS), questions)) < chance
    return ((FRACTIONS[:, None] < lost_at) | guessed).astype(int)


@pytest.mark.parametrize(("critical", "s"), [(0.25, 0.02), (0.4, 0.03), (0.5, 0.06)])
def test_a_step_is_found_where_it_was_put(critical: float, s: float) -> None:
    found = fit(FRACTIONS, answers(critical, s, seed=1, questions=2000), chance=0.25)
    assert isinstance(found, Transition)
    assert found.fraction == pytest.approx(critical, abs=0.02)
    assert found.width == pytest.approx(2 * np.log(9) * s, abs=0.06)
    assert found.low <= critical <= found.high
    assert found.low <= found.fraction <= found.high
    assert found.width_low <= found.width <= found.width_high


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    critical, s = 0.4, 0.04
    found = [fit(FRACTIONS, answers(critical, s, seed), 0.25) for seed in range(20)]
    covered = [step.low <= critical <= step.high for step in found]
    width = 2 * np.log(9) * s
    width_covered = [step.width_low <= width <= step.width_high for step in found]
    # 19 are expected; 16 or fewer come about in one of 60 tries, and the seeds are fixed.
    assert sum(covered) >= 17
    assert sum(width_covered) >= 16
    # Nor are they wide enough to say nothing.
    assert np.mean([step.high - step.low for step in found]) < 0.05


def test_many_curves_at_once_are_fitted_as_scipy_fits_each() -> None:
    """Steps, slopes, noise, and what leaves the bounds: never a worse fit than scipy's."""
    random, chance = np.random.default_rng(0), 0.25
    clean = [transitions.step(FRACTIONS, chance, 0.9, at, s) for at in (0.1, 0.5, 0.9) for s in (
        0.001, 0.03, 0.2)]  # fmt: skip
    curves = np.array(clean * 4) + random.normal(0, 0.04, (36, len(FRACTIONS)))
    found = transitions._fitted(FRACTIONS, curves, chance)
    same = 0
    for curve, (critical, width) in zip(curves, found, strict=True):

        def rest(p: np.ndarray, curve: np.ndarray = curve) -> np.ndarray:
            return transitions.step(FRACTIONS, chance, *p) - curve

        bounds = ([chance, 0.0, transitions.NARROWEST], [1 + 1e-6, 1.0, 1.0])
        tries = [least_squares(rest, x0=[0.8, at, 0.05], bounds=bounds) for at in (0.1, 0.5, 0.9)]
        best = min(tries, key=lambda one: one.cost)
        s = width / transitions.TEN_TO_NINETY
        top = transitions.plateau(FRACTIONS, curve, chance, critical, s)
        assert (rest(np.array([top, critical, s])) ** 2).sum() <= 2 * best.cost * (1 + 1e-4)
        same += np.allclose([critical, s], best.x[1:], atol=2e-3)
    assert same >= 30  # others lie in a valley without a slope


def test_more_questions_give_narrower_intervals() -> None:
    few, many = (fit(FRACTIONS, answers(0.4, 0.03, 2, n), 0.25) for n in (100, 1600))
    assert many.high - many.low < 0.6 * (few.high - few.low)


def test_the_same_answers_give_the_same_interval() -> None:
    correct = answers(0.4, 0.03, seed=3)
    assert fit(FRACTIONS, correct, 0.25) == fit(FRACTIONS, correct, 0.25)


def test_the_order_of_the_questions_does_not_move_the_step() -> None:
    correct = answers(0.4, 0.03, seed=3)
    shuffled = correct[:, np.random.default_rng(0).permutation(correct.shape[1])]
    first, second = fit(FRACTIONS, correct, 0.25), fit(FRACTIONS, shuffled, 0.25)
    assert first.fraction == pytest.approx(second.fraction, abs=1e-9)
    assert first.low == pytest.approx(second.low, abs=0.01)


def test_an_abrupt_step_is_narrower_than_the_spacing_of_prunings() -> None:
    found = fit(FRACTIONS, answers(0.41, 1e-4, seed=4), chance=0.25)
    assert FRACTIONS[6] - 0.01 <= found.fraction <= FRACTIONS[7] + 0.01
    assert found.width < 2 / 16


def _at_chance() -> np.ndarray:
    return answers(-1.0, 0.01, seed=5)


def _barely_above_chance() -> np.ndarray:
    """Of 300 questions, 1 in 30 known: two standard errors above chance."""
    correct = answers(0.4, 0.03, seed=6)
    guesses = answers(-1.0, 0.01, seed=7)
    return np.where(np.arange(correct.shape[1]) % 30 == 0, correct, guesses)


def _half_kept() -> np.ndarray:
    """Only a third of the height is lost, at a clear step."""
    correct = answers(0.4, 0.03, seed=8)
    known = answers(9.0, 0.01, seed=8)
    return np.where(np.arange(correct.shape[1]) % 3 == 0, correct, known)


@pytest.mark.parametrize(
    "correct",
    [
        answers(9.0, 0.01, seed=9),
        np.ones((12, 300), dtype=int),
        np.zeros((12, 300), dtype=int),
        _at_chance(),
        _barely_above_chance(),
        _half_kept(),
    ],
    ids=["flat", "always right", "always wrong", "at chance", "barely above", "half kept"],
)
def test_where_nothing_falls_nothing_is_fitted(correct: np.ndarray) -> None:
    assert fit(FRACTIONS, correct, chance=0.25) is None


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_fewer_than_four_prunings_are_not_fitted(rows: int) -> None:
    keep = [0, 6, 11][:rows]
    correct = answers(0.4, 0.03, seed=10)
    assert fit(FRACTIONS[keep], correct[keep], 0.25) is None
    keep = [0, 4, 6, 11]
    assert fit(FRACTIONS[keep], correct[keep], 0.25) is not None


def test_the_curve_runs_from_plateau_to_chance() -> None:
    f = np.array([0.0, 0.4, 1.0])
    curve = transitions.step(f, 0.25, 0.9, 0.4, 0.03)
    assert curve == pytest.approx([0.9, (0.9 + 0.25) / 2, 0.25], abs=1e-4)
    s = 0.03
    ends = transitions.step(np.array([0.4 - np.log(9) * s, 0.4 + np.log(9) * s]), 0, 1, 0.4, s)
    assert ends == pytest.approx([0.9, 0.1])
