from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

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
