from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from bids_qsm.statistics.mcd import deterministic_mcd, robust_distances
from bids_qsm.statistics.robust import robust_z


def scored(x: np.ndarray) -> np.ndarray:
    bounds = np.full(x.shape[1], np.nan)
    return robust_z(x, bounds, bounds).z


@pytest.fixture
def mixed(rng) -> np.ndarray:
    """Six columns that go together, 120 rows."""
    return rng.normal(0, 1, (120, 6)) @ rng.normal(0, 1, (6, 6))


def test_the_determinant_is_the_least_of_all_subsets(rng) -> None:
    """Of 13 rows in two columns, against all 715 choices of nine."""
    for _ in range(3):
        x = rng.normal(0, 1, (13, 2))
        x[:3] += (6, -5)
        h = 10  # of (n + p + 1) / 2 = 8 to n = 13, three quarters on the way from half to all
        least = min(np.linalg.det(np.cov(x[list(rows)].T)) for rows in combinations(range(13), h))
        _, covariance = deterministic_mcd(x)
        assert np.linalg.det(covariance) == pytest.approx(least, rel=0.02)


def test_a_fifth_of_outliers_changes_little(mixed) -> None:
    clean_centre, clean = deterministic_mcd(mixed)
    spoilt = mixed.copy()
    spoilt[:24] += 50 * mixed.std(axis=0)
    centre, covariance = deterministic_mcd(spoilt)
    scale = np.sqrt(np.diag(clean))
    assert np.abs((centre - clean_centre) / scale).max() < 0.4
    assert np.abs(np.log(np.linalg.eigvals(np.linalg.solve(clean, covariance)).real)).max() < 0.8


def test_a_row_against_the_pattern_is_found_though_no_column_is_unusual(rng) -> None:
    common = rng.normal(0, 1, 100)
    x = np.stack([common + 0.1 * rng.normal(0, 1, 100) for _ in range(3)], axis=1)
    x[0] = (1.5, -1.5, 1.5)
    z = scored(x)
    assert np.abs(z[0]).max() < 2.5
    found = robust_distances(z)
    assert found is not None
    assert np.flatnonzero(found.score > found.score_cutoff).tolist() == [0]
    assert found.n_components == 3


def test_with_few_rows_components_take_the_place_of_the_columns(rng) -> None:
    pattern = rng.normal(0, 1, (3, 20))
    x = rng.normal(0, 1, (30, 3)) @ pattern + 0.05 * rng.normal(0, 1, (30, 20))
    x[4] += 2 * np.linalg.qr(np.c_[pattern.T, rng.normal(0, 1, 20)])[0][:, -1]
    found = robust_distances(x)
    assert found is not None
    assert found.n_components == 6
    is_far = (found.score > found.score_cutoff) | (found.orthogonal > found.orthogonal_cutoff)
    assert np.flatnonzero(is_far).tolist() == [4]
    assert found.orthogonal_cutoff < np.inf
    assert robust_distances(x[:9]) is None
    assert robust_distances(x[:, :1]) is None


def test_the_order_of_rows_does_not_matter(mixed, rng) -> None:
    z, order = scored(mixed), rng.permutation(len(mixed))
    found, again = robust_distances(z), robust_distances(z[order])
    assert found is not None and again is not None
    np.testing.assert_allclose(found.score[order], again.score, rtol=1e-9)
    assert found.score_cutoff == pytest.approx(again.score_cutoff)


@pytest.mark.parametrize(("n", "p"), [(20, 12), (60, 12), (200, 12)])
def test_usual_rows_are_seldom_beyond_the_cutoff(n, p, rng) -> None:
    shares = []
    for _ in range(8):
        found = robust_distances(scored(rng.normal(0, 1, (n, p))), alpha=0.001)
        assert found is not None
        shares.append(np.mean(found.score > found.score_cutoff))
        shares.append(np.mean(found.orthogonal > found.orthogonal_cutoff))
    assert np.mean(shares) < 0.01
