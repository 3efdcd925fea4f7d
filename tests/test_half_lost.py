"""The share kept above chance, and where half of it is lost: of curves whose answer is known."""

import math

import numpy as np
import pytest

from lib.statistics.half_lost import half_lost, share_kept

F = np.linspace(0, 1, 9)
LINE = 0.85 - 0.6 * F  # from 0.85 to chance: half is lost in the middle
NONE = np.zeros(9)


def test_a_straight_line_has_lost_half_in_the_middle():
    assert half_lost(F, LINE, NONE, 0.25) == pytest.approx(("reached", 0.5, 0.5, 0.5))
    # To chance at 0.4 of it.
    assert half_lost(F, np.maximum(0.85 - 1.5 * F, 0.25), NONE, 0.25).fraction == pytest.approx(0.2)


def test_between_two_points_it_is_where_the_line_between_them_says():
    found = half_lost(np.array([0, 0.2, 0.6]), np.array([1.0, 0.9, 0.5]), np.zeros(3), 0.5)
    assert found.fraction == pytest.approx(0.2 + 0.4 * 0.15 / 0.4)


def test_what_rises_again_by_noise_does_not_count_twice():
    """The dip at 0.25 and the rise after it are pooled to what they are together."""
    bumpy = np.array([0.9, 0.9, 0.56, 0.84, 0.8, 0.7, 0.3, 0.26, 0.25])
    found = half_lost(F, bumpy, NONE, 0.25).fraction
    assert F[5] < found < F[6]
    assert found == pytest.approx(F[5] + (0.7 - 0.575) / 0.4 / 8)


def test_not_reached():
    found = half_lost(F, 0.85 - 0.1 * F, np.full(9, 0.02), 0.25)
    assert found.outcome == "not reached"
    assert all(map(math.isnan, found[1:]))


def test_undecided_where_some_draws_reach_it():
    """The last point alone is at half of the height, as near to one side as to the other."""
    accuracy = np.array([0.85, 0.84, 0.56])
    found = half_lost(np.array([0, 0.25, 0.5]), accuracy, np.full(3, 0.03), 0.25)
    assert found.outcome == "undecided"
    assert math.isnan(found.fraction) and math.isnan(found.high) and 0.25 < found.low < 0.5


def test_a_model_at_chance_has_nothing_to_lose():
    errors = np.full(9, 0.05)
    found = half_lost(F, LINE - 0.5, errors, 0.25)
    assert found.outcome == "not testable" and all(map(math.isnan, found[1:]))
    assert half_lost(F, np.full(9, 0.39), errors, 0.25).outcome == "not testable"
    assert half_lost(F, LINE, NONE, None).outcome == "not testable"


@pytest.mark.parametrize("fractions", [F[::-1], F + 0.1, np.zeros(9)])
def test_fractions_rise_from_nothing_dropped(fractions):
    with pytest.raises(ValueError, match="rise from 0"):
        half_lost(fractions, LINE, NONE, 0.25)


def test_the_interval_is_that_of_the_line_through_the_two_points_around():
    """Of two points, the second with an error, half is lost at (1 − c)/(2 (1 − a))."""
    found = half_lost(np.array([0.0, 1.0]), np.array([1.0, 0.25]), np.array([0, 0.02]), 0.25)
    ends = [0.375 / (1 - (0.25 + 1.96 * side * 0.02)) for side in (-1, 1)]
    assert found.fraction == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx(ends, abs=0.003)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng, held = np.random.default_rng(1), []
    for _ in range(60):
        accuracy = rng.binomial(400, LINE) / 400
        found = half_lost(F, accuracy, np.sqrt(accuracy * (1 - accuracy) / 399), 0.25)
        held.append(found.low <= 0.5 <= found.high)
    assert np.mean(held) > 0.85


def test_the_share_kept():
    kept, error = share_kept(np.array([0.85, 0.55, 0.25, 0.2]), np.full(4, 0.03), 0.25)
    assert kept == pytest.approx([1, 0.5, 0, -1 / 12])
    assert error == pytest.approx([0, 0.05 * math.sqrt(1.25), 0.05, 0.05 * math.hypot(1, 1 / 12)])


def test_no_share_of_nothing():
    kept, error = share_kept(np.array([0.25, 0.3]), np.array([0.1, 0.1]), 0.25)
    assert np.isnan(kept).all() and np.isnan(error).all()
