"""Measures of likeness and dimension on representations whose answer is known, and against their
definitions and a peer library."""

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import CCA

from lib.evaluation.cka import linear_cka
from lib.evaluation.intrinsic import FEWEST, two_nearest_neighbours
from lib.evaluation.likeness import GROUPS, KEPT, MEASURES, Side, likeness

TOKENS, WIDTH = 600, 12
GROUP = torch.arange(TOKENS) * GROUPS // TOKENS


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(seed: int, width: int = WIDTH) -> torch.Tensor:
    return torch.linalg.qr(random(seed, width, width)).Q


def found(x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    group = torch.arange(len(x)) * GROUPS // len(x)
    return {name: value for name, (value, _) in likeness(Side(x, group), Side(y, group)).items()}


X = random(0, TOKENS, WIDTH) * torch.linspace(3, 0.5, WIDTH)


def test_a_rotation_a_shift_and_a_factor_change_nothing() -> None:
    turned = 2.5 * X @ rotation(1) + 7
    same = found(X, turned)
    assert same.keys() == set(MEASURES)
    assert [same[name] for name in MEASURES] == pytest.approx([1.0] * 5, abs=1e-5)


def test_a_linear_map_is_found_by_those_that_allow_for_one() -> None:
    mapped = found(X, X @ (random(2, WIDTH, WIDTH) + 3 * torch.eye(WIDTH)))
    assert mapped["linear"] == pytest.approx(1, abs=1e-6)
    assert mapped["linear_update"] == pytest.approx(1, abs=1e-6)
    assert mapped["cka"] < 0.99 and mapped["procrustes"] < 0.99
    square = X @ torch.diag(torch.linspace(1, 2, WIDTH).double())  # every direction is kept
    assert found(X, square)["svcca"] == pytest.approx(1, abs=1e-6)


def test_independent_representations_are_not_alike() -> None:
    apart = found(random(3, 4000, WIDTH), random(4, 4000, WIDTH))
    assert apart["cka"] == pytest.approx(0, abs=0.01)
    assert apart["linear"] == pytest.approx(0, abs=0.02)
    assert apart["svcca"] < 0.1  # the correlations that chance leaves in 4,000 tokens
    assert apart["procrustes"] < 0.1


def test_noise_of_known_size_leaves_the_share_that_it_does_not_hold() -> None:
    """y = x + noise of a quarter of the variance: 1 / 1.25 is explained, and of y − x nothing."""
    x = random(5, 20_000, 6)
    noisy = found(x, x + 0.5 * random(6, 20_000, 6))
    assert noisy["linear"] == pytest.approx(0.8, abs=0.01)
    assert noisy["linear_update"] == pytest.approx(0, abs=0.01)


def test_cka_is_that_of_the_kernels() -> None:
    y = X.square() + random(7, TOKENS, WIDTH)
    assert found(X, y)["cka"] == pytest.approx(linear_cka(X.numpy(), y.numpy())[0], abs=1e-10)


def test_svcca_is_that_of_a_peer_on_the_same_directions() -> None:
    y = X @ random(8, WIDTH, WIDTH) + 2 * random(9, TOKENS, WIDTH)

    def kept(states: torch.Tensor) -> np.ndarray:
        centred = (states - states.mean(0)).numpy()
        left, values, _ = np.linalg.svd(centred, full_matrices=False)
        share = np.cumsum(values**2) / np.sum(values**2)
        count = int(np.searchsorted(share, KEPT)) + 1
        return left[:, :count] * values[:count]

    a, b = kept(X), kept(y)
    count = min(a.shape[1], b.shape[1])
    of_a, of_b = CCA(n_components=count, max_iter=20_000, tol=1e-12).fit(a, b).transform(a, b)
    peer = np.mean([np.corrcoef(of_a[:, i], of_b[:, i])[0, 1] for i in range(count)])
    assert found(X, y)["svcca"] == pytest.approx(float(peer), abs=1e-4)


def test_procrustes_is_the_best_rotation() -> None:
    from scipy.linalg import orthogonal_procrustes

    y = X @ random(10, WIDTH, WIDTH) + random(11, TOKENS, WIDTH)
    a, b = ((one - one.mean(0)).numpy() for one in (X, y))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    turn, total = orthogonal_procrustes(a, b)
    left = np.linalg.norm(a @ turn - b) ** 2
    value = found(X, y)["procrustes"]
    assert value == pytest.approx(total, abs=1e-9)
    assert left == pytest.approx(2 * (1 - value), abs=1e-9)


def test_the_map_is_tried_on_tokens_that_it_has_not_seen() -> None:
    """As many directions as tokens of noise: fitted on them it would explain everything."""
    x, y = random(12, 60, 40), random(13, 60, 40)
    assert found(x, y)["linear"] < 0


def test_errors_are_those_of_fresh_samples() -> None:
    """The scatter over 40 samples, within what 40 samples and 5 groups can tell."""
    mixing, values, errors = random(14, WIDTH, WIDTH), [], []
    for seed in range(100, 140):
        x = random(seed, TOKENS, WIDTH)
        one = likeness(
            Side(x, GROUP), Side(x @ mixing + 3 * random(seed + 1000, TOKENS, WIDTH), GROUP)
        )
        values.append([one[name][0] for name in MEASURES])
        errors.append([one[name][1] for name in MEASURES])
    ratio = np.sqrt(np.mean(np.square(errors), axis=0)) / np.std(values, axis=0, ddof=1)
    assert (ratio > 0.6).all() and (ratio < 1.7).all(), dict(zip(MEASURES, ratio, strict=True))


def test_what_does_not_vary_is_like_nothing() -> None:
    nothing = found(torch.zeros(TOKENS, WIDTH), X)
    assert all(np.isnan(value) for value in nothing.values())


def test_too_few_tokens_tell_no_directions_apart() -> None:
    assert np.isnan(found(random(15, 40, WIDTH), random(16, 40, WIDTH))["svcca"])


@pytest.mark.parametrize("dimension", [1, 2, 5, 8])
def test_the_dimension_of_a_sphere_is_found(dimension: int) -> None:
    points = random(17, 2000, dimension + 1)
    points /= points.norm(dim=1, keepdim=True)
    lifted = points @ rotation(18, 24)[: dimension + 1] + 5
    value, stderr = two_nearest_neighbours(lifted)
    # Of few points in many dimensions the border of each neighbourhood counts: about 5% at 8.
    assert abs(value - dimension) < 3 * stderr + 0.06 * dimension
    assert stderr == pytest.approx(value / 1998**0.5, rel=0.01)


def test_the_same_point_again_counts_once() -> None:
    points = random(19, 500, 3)
    once = two_nearest_neighbours(points)
    assert two_nearest_neighbours(torch.cat([points, points[:200]])) == once
    assert np.isnan(two_nearest_neighbours(points[: FEWEST - 1])[0])
    assert np.isnan(two_nearest_neighbours(torch.ones(500, 3))[0])
