from __future__ import annotations

import numba
import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.anatomy import appearance
from bids_qsm.anatomy.appearance import fit_to_appearance
from bids_qsm.anatomy.deep_grey import Contrasts
from bids_qsm.images import Image

SHAPE = (40, 36, 38)


def ball(centre: tuple[float, ...], radius: float) -> np.ndarray:
    x = np.indices(SHAPE)
    return sum((x[k] - centre[k]) ** 2 for k in range(3)) < radius**2


@pytest.fixture
def truth() -> np.ndarray:
    """A putamen (1) with a pallidum (2) beside it, in white matter."""
    labels = np.zeros(SHAPE, np.int16)
    labels[ball((16, 18, 19), 8)] = 1
    labels[ball((26, 18, 19), 6)] = 2
    return labels


@pytest.fixture
def contrasts(truth, rng) -> Contrasts:
    """On T1w the pallidum is as white matter is; χ shows it best."""
    t1w = np.choose(truth, [0.95, 0.75, 0.94]) + 0.03 * rng.standard_normal(SHAPE)
    chi = np.choose(truth, [-0.03, 0.05, 0.12]) + 0.01 * rng.standard_normal(SHAPE)
    grid = Image(np.zeros(SHAPE), np.eye(4))
    return Contrasts(grid.like(t1w.astype(np.float32)), grid.like(chi.astype(np.float32)))


def priors_of(labels: np.ndarray, shift: tuple[int, ...] = (0, 0, 0)) -> np.ndarray:
    moved = np.roll(labels, shift, axis=(0, 1, 2))
    return np.stack([(moved == k).astype(np.float32) for k in (1, 2)])


def jaccard(fitted: np.ndarray, truth: np.ndarray, label: int) -> float:
    full = np.concatenate([1 - fitted.sum(axis=0, keepdims=True), fitted])
    found = full.argmax(axis=0) == label
    return (found & (truth == label)).sum() / (found | (truth == label)).sum()


def test_borders_move_to_the_images(truth, contrasts):
    priors = priors_of(truth, (1, 2, -1))
    fitted = fit_to_appearance(priors, contrasts)
    for label in (1, 2):
        assert jaccard(priors, truth, label) < 0.65
        assert jaccard(fitted, truth, label) > 0.93


def test_susceptibility_tells_the_pallidum(truth, contrasts):
    priors = priors_of(truth, (1, 2, -1))
    alone = fit_to_appearance(priors, Contrasts(contrasts.t1w))
    both = fit_to_appearance(priors, contrasts)
    assert jaccard(both, truth, 2) > jaccard(alone, truth, 2) + 0.15
    assert jaccard(alone, truth, 1) > 0.85


def test_where_nothing_is_seen_the_atlas_is_kept(truth, contrasts, rng):
    blind = contrasts.t1w.like((0.9 + 0.03 * rng.standard_normal(SHAPE)).astype(np.float32))
    priors = priors_of(truth)
    fitted = fit_to_appearance(priors, Contrasts(blind))
    for label in (1, 2):
        assert jaccard(fitted, truth, label) > 0.7


def test_without_susceptibility_in_a_part_the_t1w_decides_there(truth, contrasts):
    half = np.array(contrasts.chi.data)
    half[:, 18:] = 0
    priors = priors_of(truth, (1, 2, -1))
    fitted = fit_to_appearance(priors, Contrasts(contrasts.t1w, contrasts.t1w.like(half)))
    assert jaccard(fitted, truth, 1) > 0.9
    alone = fit_to_appearance(priors, Contrasts(contrasts.t1w))
    assert jaccard(fitted, truth, 2) > jaccard(alone, truth, 2)


def test_veins_are_left_out(truth, contrasts):
    chi = np.array(contrasts.chi.data)
    vein = np.zeros(SHAPE, bool)
    vein[13:15, 17:19, :] = True
    chi[vein] = 0.4
    seen = Contrasts(contrasts.t1w, contrasts.t1w.like(chi))
    fitted = fit_to_appearance(priors_of(truth), seen)
    rest = np.where(vein, 0, truth)
    assert jaccard(np.where(vein, 0, fitted), rest, 1) > 0.93


def test_mirrored_and_ordered_otherwise_it_is_the_same(truth, contrasts):
    priors = priors_of(truth, (1, 2, -1))
    fitted = fit_to_appearance(priors, contrasts)
    flipped = Contrasts(
        contrasts.t1w.like(contrasts.t1w.data[::-1]), contrasts.t1w.like(contrasts.chi.data[::-1])
    )
    again = fit_to_appearance(np.ascontiguousarray(priors[::-1, ::-1]), flipped)
    np.testing.assert_allclose(again[::-1, ::-1], fitted, atol=1e-3)


def test_probabilities(truth, contrasts):
    fitted = fit_to_appearance(priors_of(truth), contrasts)
    assert fitted.dtype == np.float32
    assert (fitted >= 0).all() and (fitted.sum(axis=0) <= 1 + 1e-5).all()
    far = ndimage.distance_transform_edt(truth == 0) > 8
    assert (fitted[:, far] == 0).all()


def test_no_structure_no_change(contrasts):
    nothing = np.zeros((2, *SHAPE), np.float32)
    assert not fit_to_appearance(nothing, contrasts).any()


def test_borders_lie_half_way_where_voxels_are_mixed(rng):
    """Grey matter between fluid and white matter, both borders oblique: all shares occur."""
    x, y, z = np.indices(SHAPE)
    fluid = np.clip(0.07 * y + 0.03 * z + 11.5 - x, 0, 1)
    white = np.clip(x + 0.05 * y - 0.04 * z - 25.5, 0, 1)
    grey = 1 - fluid - white
    t1w = 0.22 * fluid + 0.70 * grey + 0.93 * white + 0.015 * rng.standard_normal(SHAPE)
    chi = 0.02 * fluid + 0.045 * grey - 0.03 * white + 0.004 * rng.standard_normal(SHAPE)
    grid = Image(np.zeros(SHAPE), np.eye(4))
    seen = Contrasts(grid.like(t1w.astype(np.float32)), grid.like(chi.astype(np.float32)))
    prior = np.roll(grey, (1, 2, -1), axis=(0, 1, 2))[None].astype(np.float32)
    found = fit_to_appearance(prior, seen)[0] > 0.5
    inner = np.zeros(SHAPE, bool)
    inner[5:-5, 5:-5, 5:-5] = True
    assert (found == (grey > 0.5))[inner & (np.abs(grey - 0.5) > 0.15)].mean() > 0.995
    for other in (fluid, white):
        mixed = inner & (other > 0) & (other < 1)
        assert abs(found[mixed].sum() / grey[mixed].sum() - 1) < 0.1


def test_mixtures_like_the_formulae(rng):
    means = np.array([[0.7, 0.045], [0.22, 0.02], [0.93, -0.03]])
    covariances = np.array([np.diag(s**2) for s in rng.uniform(0.02, 0.04, (3, 2))])
    covariances[:, 0, 1] = covariances[:, 1, 0] = 2e-4
    expected = rng.dirichlet(np.ones(3), 40).T
    values = np.stack([rng.uniform(0.3, 0.9, 40), rng.uniform(-0.02, 0.05, 40)], axis=1)
    complete = np.arange(40) > 9
    features = appearance._Features(values, complete)
    found, alone = appearance._posteriors(expected, features, means, covariances)
    shares = appearance.SHARES
    for v in range(40):
        used = 2 if complete[v] else 1
        mostly, unmixed = np.zeros(3), np.zeros(3)
        for a in range(3):
            off = values[v, :used] - means[a, :used]
            spread = covariances[a, :used, :used]
            far = min(off @ np.linalg.solve(spread, off), appearance.OUTLIER)
            unmixed[a] = expected[a, v] ** 2 * np.exp(-far / 2) / np.sqrt(np.linalg.det(spread))
            mostly[a] += unmixed[a]
            for b in range(a):
                if expected[a, v] * expected[b, v] < appearance.LEAST_PAIR:
                    continue
                for share in shares:  # of a
                    mean = share * means[a] + (1 - share) * means[b]
                    spread = share * covariances[a] + (1 - share) * covariances[b]
                    spread[1, 1] += (appearance.UNLIKE_SHARES * (means[a, 1] - means[b, 1])) ** 2
                    off, spread = values[v, :used] - mean[:used], spread[:used, :used]
                    density = np.exp(-0.5 * off @ np.linalg.solve(spread, off))
                    density /= np.sqrt(np.linalg.det(spread))
                    pair = 2 * expected[a, v] * expected[b, v] / len(shares)
                    mostly[a if share > 0.5 else b] += pair * density
        np.testing.assert_allclose(found[:, v], mostly / mostly.sum(), rtol=1e-6)
        np.testing.assert_allclose(alone[:, v], unmixed / mostly.sum(), rtol=1e-6, atol=1e-12)


def test_the_same_by_any_number_of_threads(truth, contrasts):
    priors = priors_of(truth, (1, 2, -1))
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        by_one = fit_to_appearance(priors, contrasts)
        numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
        by_two = fit_to_appearance(priors, contrasts)
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(by_one, by_two)
