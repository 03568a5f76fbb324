from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics import background, inversion
from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Geometry, crop, dipole_kernel, pad
from bids_qsm.numerics.referencing import reference_to
from bids_qsm.numerics.uncertainty import replay

GEOMETRY = Geometry((30, 32, 24), (1.5, 1.5, 2.0), (0.0, 0.28, 0.96))
MIDDLE = (14.5, 15.5, 11.5)


def noisy(mask: np.ndarray, noise_ppm: np.ndarray, field: np.ndarray | float = 0.0) -> FieldMap:
    field_ppm = np.where(mask, field, 0).astype(np.float32)
    ones = np.ones(mask.shape, np.float32)
    return FieldMap(field_ppm, noise_ppm.astype(np.float32), ones, mask, GEOMETRY)


def as_it_is(total: FieldMap) -> tuple[np.ndarray, np.ndarray]:
    return total.field_ppm, total.mask


@pytest.fixture
def brain(ball) -> np.ndarray:
    return ball(GEOMETRY, MIDDLE, 20.0)


@pytest.fixture
def noise_ppm(brain) -> np.ndarray:
    """Noise that grows along x, not known in a corner and outside."""
    x = np.arange(GEOMETRY.shape[0])[:, None, None]
    return np.where(brain, 0.001 * (1 + x / 10), np.inf)


def test_without_steps_the_noise_itself_comes_back(brain, noise_ppm) -> None:
    found = replay(noisy(brain, noise_ppm), as_it_is, 1, replays=8)
    ratio = (found / noise_ppm)[brain]
    assert np.median(ratio) == pytest.approx(1, abs=0.02)
    assert np.percentile(ratio, 5) > 0.9
    assert np.percentile(ratio, 95) < 1.1
    assert not found[~brain].any()


def test_without_pooling_it_is_the_standard_deviation_of_the_replays(brain, noise_ppm) -> None:
    maps = []

    def curved(total: FieldMap) -> tuple[np.ndarray, np.ndarray]:
        chi_ppm = 0.05 + total.field_ppm + 100 * total.field_ppm**2
        maps.append(chi_ppm)
        return chi_ppm, total.mask

    total = noisy(brain, noise_ppm, 0.02)
    found = replay(total, curved, 1, replays=5, noise_share=1.0, pooling_mm=0.0)
    naive = np.std(maps, axis=0, ddof=1, dtype=np.float64)
    np.testing.assert_allclose(found[brain], naive[brain], rtol=1e-3)


def test_it_is_known_where_susceptibility_is(brain, ball, noise_ppm) -> None:
    inner = ball(GEOMETRY, MIDDLE, 15.0)

    def loud_outside(total: FieldMap) -> tuple[np.ndarray, np.ndarray]:
        return np.where(inner, total.field_ppm, 1000 * total.field_ppm), inner

    found = replay(noisy(brain, noise_ppm), loud_outside, 1, replays=4)
    assert (found[inner] < 0.01).all()
    assert (found[inner] > 0).all()
    assert not found[~inner].any()


def test_unknown_noise_is_as_large_as_any(brain, ball, noise_ppm) -> None:
    corner = ball(GEOMETRY, (8.0, 14.0, 11.0), 7.0)
    unknown = np.where(corner, np.inf, noise_ppm)
    found = replay(noisy(brain, unknown), as_it_is, 1, replays=50, pooling_mm=0.0)
    assert np.median(found[corner]) == pytest.approx(noise_ppm[brain].max(), rel=0.02)


def test_it_scales_with_the_noise_and_follows_the_seed(brain, noise_ppm) -> None:
    found = replay(noisy(brain, noise_ppm), as_it_is, 3)
    np.testing.assert_array_equal(found, replay(noisy(brain, noise_ppm), as_it_is, 3))
    twice = replay(noisy(brain, 2 * noise_ppm), as_it_is, 3)
    np.testing.assert_allclose(twice, 2 * found, rtol=1e-5)
    other = replay(noisy(brain, noise_ppm), as_it_is, 4)
    assert (other != found)[brain].mean() > 0.9
    np.testing.assert_allclose(np.median(other[brain]), np.median(found[brain]), rtol=0.05)


def test_what_cannot_be_told_is_refused(brain, noise_ppm) -> None:
    with pytest.raises(ValueError, match="must be 2 or more, got 1"):
        replay(noisy(brain, noise_ppm), as_it_is, 1, replays=1)
    with pytest.raises(ValueError, match="must be above 0"):
        replay(noisy(brain, noise_ppm), as_it_is, 1, noise_share=0.0)
    with pytest.raises(ValueError, match="not known in any voxel"):
        replay(noisy(brain, np.full(brain.shape, np.inf)), as_it_is, 1)


@pytest.mark.parametrize("inverted_by", ["tkd", "l2", "rts", "tv"])
def test_repeated_noise_stays_within_it(brain, ball, noise_ppm, inverted_by) -> None:
    """Of independent repeats, about 95 % of the voxels lie within 1.96 standard deviations."""
    chi = np.zeros(GEOMETRY.shape, np.float32)
    chi[ball(GEOMETRY, MIDDLE, 16.0)] = -0.03
    for centre, radius, value in (
        ((9, 15, 11), 5, 0.1),
        ((20, 15, 12), 4, 0.06),
        ((15, 22, 8), 2, 0.3),
    ):
        chi[ball(GEOMETRY, centre, radius)] = value
    twice = GEOMETRY.with_shape(tuple(2 * n for n in GEOMETRY.shape))
    field = crop(convolve(pad(chi, twice.shape), dipole_kernel(twice)), GEOMETRY.shape)
    field += 0.01 * np.arange(GEOMETRY.shape[1])[:, None]  # a background
    noise_ppm = noise_ppm / 3
    known = np.where(brain, noise_ppm, 0)

    def reconstruct(total: FieldMap) -> tuple[np.ndarray, np.ndarray]:
        local = background.vsharp(total)
        found = inversion.METHODS[inverted_by](local, margin_mm=8.0)
        return reference_to(found, local.mask, local.mask).chi_ppm, local.mask

    def measured(seed: int) -> FieldMap:
        noise = known * np.random.default_rng(seed).standard_normal(field.shape)
        return noisy(brain, noise_ppm, field + noise)

    found = replay(measured(0), reconstruct, 1)
    inner = found > 0
    repeats = np.array([reconstruct(measured(seed))[0][inner] for seed in range(1, 6)])
    spread = (repeats - repeats.mean(axis=0)) * np.sqrt(5 / 4)  # the mean has noise of its own
    assert 0.9 < np.mean(np.abs(spread) < 1.96 * found[inner]) < 0.98
