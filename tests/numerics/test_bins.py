"""Bins of voxels against plain loops and known maps."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.bins import (
    add_turns,
    at_voxels,
    bin_phasors,
    bins_of,
    echo_values,
    plane_starts,
)

SHAPE = (13, 10, 7)
BINS = (3, 2, 1)


@pytest.fixture
def mask(rng):
    mask = rng.random(SHAPE) < 0.5
    mask[4] = False  # a plane without voxels
    return mask


@pytest.mark.parametrize(
    ("size_mm", "voxel_mm", "expected"),
    [
        (2.0, (1.0, 1.0, 2.0), (2, 2, 1)),
        (3.5, (1.0, 2.0, 5.0), (4, 2, 1)),
        (2.0, (0.8, 0.5, 0.3), (3, 4, 7)),
    ],
)
def test_bins_have_about_the_size(size_mm, voxel_mm, expected):
    assert bins_of(size_mm, voxel_mm) == expected


def test_echo_values_are_those_of_the_mask(rng, mask):
    echoes = rng.random((*SHAPE, 3)).astype(np.float32)
    for echo in range(3):
        values = echo_values(echoes, echo, mask, plane_starts(mask))
        np.testing.assert_array_equal(values, echoes[mask, echo])


def test_sums_are_those_of_a_plain_loop(rng, mask):
    phase, weights = rng.normal(size=(2, mask.sum())).astype(np.float32)
    sums = bin_phasors(phase, weights, mask, plane_starts(mask), BINS)
    expected = np.zeros((5, 5, 7), complex)
    for voxel, angle, weight in zip(np.argwhere(mask), phase, weights, strict=True):
        expected[tuple(voxel // BINS)] += weight * np.exp(1j * angle)
    np.testing.assert_allclose(sums[0] + 1j * sums[1], expected, atol=1e-5)


def test_turns_bring_the_phase_near_its_bin(rng, mask):
    near = rng.uniform(-20, 20, (5, 5, 7)).astype(np.float32)
    of_voxels = near[tuple((np.argwhere(mask) // BINS).T)]
    truth = of_voxels + rng.uniform(-3, 3, of_voxels.size)
    phase = np.angle(np.exp(1j * truth)).astype(np.float32)
    add_turns(phase, near, mask, plane_starts(mask), BINS)
    np.testing.assert_allclose(phase, truth, atol=1e-5)


def test_a_ramp_is_interpolated_exactly(mask):
    centres = np.meshgrid(
        *((np.arange(n) + 0.5) * b - 0.5 for n, b in zip((5, 5, 7), BINS, strict=True)),
        indexing="ij",
    )
    x, y, z = centres
    maps = np.stack([x - 2 * y + 3 * z, y + 0.5]).astype(np.float32)
    values = at_voxels(maps, mask, plane_starts(mask), BINS)
    i, j, k = np.argwhere(mask).T
    # beyond the outermost centres a map goes on as it is there
    i, j = np.clip(i, 1, 13), np.clip(j, 0.5, 8.5)
    np.testing.assert_allclose(values, np.stack([i - 2 * j + 3 * k, j + 0.5], 1), atol=1e-4)
