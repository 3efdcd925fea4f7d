"""Linear CKA against its definition, and on representations whose likeness is known."""

from itertools import permutations

import numpy as np
import pytest

from lib.evaluation.cka import linear_cka

RANDOM = np.random.default_rng(0)


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimator as sums over different inputs (Song et al., eq. 4)."""

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n = range(len(k))
        two = np.mean([k[i, j] * m[i, j] for i, j in permutations(n, 2)])
        three = np.mean([k[i, j] * m[i, q] for i, j, q in permutations(n, 3)])
        four = np.mean([k[i, j] * m[q, r] for i, j, q, r in permutations(n, 4)])
        return float(two + four - 2 * three)

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def test_it_is_as_defined() -> None:
    x = RANDOM.standard_normal((9, 4))
    y = x @ RANDOM.standard_normal((4, 5)) + 0.5 * RANDOM.standard_normal((9, 5))
    assert linear_cka(x, y)[0] == pytest.approx(by_definition(x, y), rel=1e-9)


def test_a_rotation_a_shift_and_a_factor_change_nothing() -> None:
    x = RANDOM.standard_normal((64, 8))
    rotation, _ = np.linalg.qr(RANDOM.standard_normal((8, 8)))
    value, stderr = linear_cka(x, 3 * x @ rotation + 100)
    assert value == pytest.approx(1) and stderr == pytest.approx(0, abs=1e-9)


def test_independent_ones_have_nothing_in_common_within_the_error() -> None:
    found = [linear_cka(*(RANDOM.standard_normal((64, 100)) for _ in range(2))) for _ in range(20)]
    values, errors = np.array(found).T
    assert abs(values.mean()) < 4 * values.std() / len(values) ** 0.5  # without bias
    assert 0.5 < errors.mean() / values.std() < 2


def test_what_does_not_vary_has_no_likeness() -> None:
    assert np.isnan(linear_cka(np.ones((32, 3)), RANDOM.standard_normal((32, 3)))[0])


@pytest.mark.parametrize("counts", [(8, 9), (7, 7)])
def test_other_numbers_of_inputs_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="inputs"):
        linear_cka(*(RANDOM.standard_normal((count, 3)) for count in counts))
