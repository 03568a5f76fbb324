from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.numerics.geometry import Geometry
from bids_qsm.numerics.masking import METHODS, brain_mask, magnitude_mask

VOXEL_MM = (2.0, 2.5, 3.0)
RADIUS_MM = 66.0


def head(rng, voxel_mm=VOXEL_MM, cut_mm=0.0):
    """Brain (ball) in a dark shell in a bright scalp, with a neck, a bias field and noise."""
    shape = tuple(int(np.ceil(180 / v)) for v in voxel_mm)
    x, y, z = (i * v - 90 for i, v in zip(np.indices(shape), voxel_mm, strict=True))
    radius = np.sqrt(x**2 + y**2 + z**2)
    brain = radius < RADIUS_MM
    image = np.where(radius < RADIUS_MM + 14, 120.0, 0.0)
    image[(x**2 + y**2 < 40**2) & (z < -60)] = 80.0
    image[radius < RADIUS_MM + 6] = 5.0
    image[brain] = 100.0
    image *= 1 + 0.3 * x / 90
    image = np.abs(image + 3 * rng.normal(size=shape) + 3j * rng.normal(size=shape))
    first = int(cut_mm / voxel_mm[2])
    return image.astype(np.float32)[:, :, first:], brain[:, :, first:]


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("voxel_mm", [(2.0, 2.5, 3.0), (3.0, 2.0, 2.0)])
@pytest.mark.parametrize("cut_mm", [0.0, 50.0])
def test_brain_of_a_ball_in_a_shell(voxel_mm, cut_mm, rng):
    image, truth = head(rng, voxel_mm, cut_mm)
    mask = brain_mask(image, voxel_mm)
    assert dice(mask, truth) > 0.95
    assert (mask & ~ndimage.binary_dilation(truth)).sum() < 0.005 * truth.sum()


def test_brain_of_any_scale_axis_order_and_direction(rng):
    image, truth = head(rng)
    mask = brain_mask(image, VOXEL_MM)
    np.testing.assert_array_equal(brain_mask(image * np.float32(1024), VOXEL_MM), mask)
    turned = np.flip(image.transpose(2, 0, 1), 0)
    back = np.flip(brain_mask(turned, (3.0, 2.0, 2.5)), 0).transpose(1, 2, 0)
    assert dice(back, mask) > 0.985
    assert dice(back, truth) > 0.95


def test_brain_with_dark_fluid(rng):
    image, truth = head(rng)
    radius = ndimage.distance_transform_edt(truth, sampling=VOXEL_MM)
    image[(radius > 0) & (radius < 4)] *= 0.35
    image[radius > 50] *= 0.35
    # the fluid at the rim may be left out
    assert dice(brain_mask(image, VOXEL_MM, contrast="t1w"), truth) > 0.85


def test_brain_survives_values_that_are_not_finite(rng):
    image, truth = head(rng)
    image[30, 30, 30], image[0, 0, 0] = np.nan, np.inf
    assert dice(brain_mask(image, VOXEL_MM), truth) > 0.95


def test_brain_errors_are_sentences():
    with pytest.raises(ValueError, match="has no signal"):
        brain_mask(np.zeros((20, 20, 20), np.float32), VOXEL_MM)
    with pytest.raises(ValueError, match="contrast must be one of gre, t1w"):
        brain_mask(np.ones((20, 20, 20), np.float32), VOXEL_MM, contrast="t2w")


def test_magnitude_mask_is_the_head(rng):
    image, _ = head(rng)
    truth = ndimage.binary_fill_holes(image > 30)
    mask = magnitude_mask(image)
    assert dice(mask, truth) > 0.99
    np.testing.assert_array_equal(magnitude_mask(np.flip(image, 1)), np.flip(mask, 1))
    np.testing.assert_array_equal(magnitude_mask(image * np.float32(0.25)), mask)


@pytest.fixture
def ball():
    """A brain, its quality with a bad corner and a bad core, and the magnitude."""
    geometry = Geometry((60, 60, 40), (1.0, 1.0, 1.5))
    x, y, z = (
        i * v - 30 for i, v in zip(np.indices(geometry.shape), geometry.voxel_mm, strict=True)
    )
    brain = x**2 + y**2 + z**2 < 26**2
    quality = np.where(brain, 0.8, 0.05).astype(np.float32)
    sinus = (x - 26) ** 2 + y**2 + z**2 < 9**2
    vein = x**2 + y**2 < 2**2
    quality[sinus | (vein & (np.abs(z) < 9))] = 0.1
    return geometry, brain, quality, sinus, vein & (np.abs(z) < 7)


def test_bad_phase_is_removed_at_the_edge_and_kept_inside(ball):
    geometry, brain, quality, sinus, vein = ball
    mask = METHODS["brain-and-quality"](brain, quality, brain.astype(np.float32), geometry)
    assert mask[vein].all()
    assert not mask[ndimage.binary_erosion(sinus, iterations=2)].any()
    assert mask[ndimage.binary_erosion(brain & ~ndimage.binary_dilation(sinus), iterations=2)].all()
    assert not mask[~brain].any()


def test_quality_without_a_brain(ball):
    geometry, brain, quality, sinus, vein = ball
    mask = METHODS["quality"](np.zeros_like(brain), quality, brain.astype(np.float32), geometry)
    assert mask[vein].all()
    assert dice(mask, brain & ~sinus) > 0.97


def test_brain_alone_is_one_piece_without_holes(ball):
    geometry, brain, quality, _, vein = ball
    broken = brain & ~vein
    broken[0, 0, 0] = True
    np.testing.assert_array_equal(METHODS["brain"](broken, quality, quality, geometry), brain)


@pytest.mark.parametrize("name", METHODS)
def test_masks_follow_flips_and_permutations(name, ball):
    geometry, brain, quality, *_ = ball
    magnitude = brain.astype(np.float32)
    there = METHODS[name](brain, quality, magnitude, geometry)
    turned = [np.flip(a.transpose(1, 2, 0), 1) for a in (brain, quality, magnitude)]
    (a, b, c), (u, v, w) = geometry.shape, geometry.voxel_mm
    back = METHODS[name](*turned, Geometry((b, c, a), (v, w, u)))
    np.testing.assert_array_equal(np.flip(there.transpose(1, 2, 0), 1), back)


@pytest.mark.parametrize("name", METHODS)
def test_an_empty_brain_gives_an_empty_mask(name, ball):
    geometry, brain, quality, *_ = ball
    nothing = np.zeros_like(brain)
    assert not METHODS[name](nothing, np.zeros_like(quality), nothing * 1.0, geometry).any()
