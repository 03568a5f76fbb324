"""T1w and FLAIR of a head."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.images import b0_direction, voxel_sizes_mm
from bids_qsm.phantom.structural import simulate_structural


def _mean(image, label) -> float:
    return float(image.data[image.labels == label].mean())


def test_contrasts_are_those_of_t1w_and_flair(make_head):
    head = make_head(lesions=8)
    t1w = simulate_structural(head, "t1w", 1, voxel_mm=3.0)
    flair = simulate_structural(head, "flair", 2, voxel_mm=3.0)
    assert t1w.data.dtype == np.int16
    assert _mean(t1w, 2) > _mean(t1w, 3) > _mean(t1w, 43)
    assert _mean(flair, 77) > 1.15 * _mean(flair, 2) and _mean(flair, 3) > _mean(flair, 2)
    assert _mean(t1w, 511) > _mean(t1w, 2) > 5 * _mean(t1w, 0)


def test_grid_is_upright_and_holds_the_head_where_it_says(make_head):
    head = make_head(tilt_deg=20.0)
    image = simulate_structural(head, "t1w", 1, voxel_mm=3.0)
    assert voxel_sizes_mm(image.affine) == (3.0, 3.0, 3.0)
    assert b0_direction(image.affine) == (0.0, 0.0, 1.0)
    index = np.argwhere(image.labels == 52).mean(axis=0)
    found = image.affine[:3, :3] @ index + image.affine[:3, 3]
    moved = image.pose @ [20.0, 0.0, 0.0, 1.0]
    np.testing.assert_allclose(found, moved[:3], atol=1.0)


def test_step_is_small_and_rigid(make_head):
    pose = simulate_structural(make_head(), "t1w", 3, voxel_mm=6.0).pose
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    angle = np.rad2deg(np.arccos((np.trace(pose[:3, :3]) - 1) / 2))
    assert 0 < angle < 3 and 0 < np.abs(pose[:3, 3]).max() < 8


def test_air_can_be_masked_and_noise_is_rician(make_head):
    head = make_head()
    noisy = simulate_structural(head, "t1w", 1, voxel_mm=3.0)
    masked = simulate_structural(head, "t1w", 1, voxel_mm=3.0, mask_air=True)
    corner = np.s_[:4, :4, :4]
    assert noisy.data[corner].mean() == pytest.approx(500 * 0.016 * np.sqrt(np.pi / 2), rel=0.1)
    assert (masked.data[corner] == 0).all()
    bright = noisy.data > 60
    np.testing.assert_array_equal(masked.data[bright], noisy.data[bright])


def test_same_seed_same_image(make_head):
    head = make_head()
    one, two, other = (simulate_structural(head, "t1w", s, 6.0).data for s in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert one.shape != other.shape or not np.array_equal(one, other)
