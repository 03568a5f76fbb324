from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.numerics.labels import labels_at


def _some_labels(shape=(9, 8, 7), seed=1):
    return np.random.default_rng(seed).integers(0, 5, shape).astype(np.int16) * 7


def test_at_voxels_labels_are_their_own() -> None:
    labels = _some_labels()
    found = labels_at(labels, np.indices(labels.shape))
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_largest_share_as_each_label_interpolated_by_itself(dtype) -> None:
    labels = _some_labels().astype(dtype)
    at = np.random.default_rng(2).uniform(-1.5, 9, (3, 400))
    shares = [
        ndimage.map_coordinates((padded == v).astype(float), at + 2, order=1)
        for padded in (np.pad(labels, 2),)
        for v in range(0, 35, 7)
    ]
    shares[0] += 1 - sum(shares)  # what lies beyond the padding is 0 too
    np.testing.assert_array_equal(labels_at(labels, at), 7 * np.argmax(shares, axis=0))


def test_nearest_of_two_halves_and_the_lower_of_equals() -> None:
    labels = np.zeros((2, 3, 3), np.int32)
    labels[0], labels[1] = 4, 9
    ones = np.ones(5)
    found = labels_at(labels, (np.array([0.0, 0.49, 0.5, 0.51, 1.0]), ones, ones))
    np.testing.assert_array_equal(found, [4, 4, 4, 9, 9])


def test_a_shift_keeps_a_ball_in_its_place() -> None:
    """Labels of a shifted grid lie where they were; those by the nearest voxel all move."""
    grid = np.indices((24, 24, 24), float)
    ball = (((grid - 11.7) ** 2).sum(axis=0) < 60).astype(np.uint8)
    centre = np.argwhere(ball).mean(axis=0)
    shift = 0.48
    moved = labels_at(ball, grid + shift)
    nearest = ndimage.map_coordinates(ball, grid + shift, order=0)
    by_share = np.abs(np.argwhere(moved).mean(axis=0) + shift - centre).max()
    by_nearest = np.abs(np.argwhere(nearest).mean(axis=0) + shift - centre).max()
    assert by_share < 0.15 < 0.4 < by_nearest
    assert moved.sum() == pytest.approx(ball.sum(), rel=0.02)


def test_positions_broadcast_and_flips_agree() -> None:
    labels = _some_labels()
    lines = np.ix_(np.arange(9) + 0.3, np.arange(8) - 0.2, np.arange(7) + 0.4)
    found = labels_at(labels, lines)
    assert found.shape == labels.shape
    flipped = [n - 1 - line for n, line in zip(labels.shape, lines, strict=True)]
    np.testing.assert_array_equal(labels_at(labels[::-1, ::-1, ::-1], flipped), found)
