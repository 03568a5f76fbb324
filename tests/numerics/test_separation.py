from __future__ import annotations

import numba
import numpy as np
import pytest
from scipy import fft

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Geometry, crop, dipole_kernel, pad
from bids_qsm.numerics.separation import METHODS, _voxel_by_voxel, gre, r2prime

B0_T = 3.0
RELAXIVITY_PER_S_PPM = 45.7 * B0_T
NUCLEUS = (13.0, 22.0, 16.0)
LEFT_OVER = (29.0, 22.0, 16.0)


def head(ball, rng, noise_ppm=0.0, b0_direction=(0.0, 0.28, 0.96)):
    """Return field, susceptibility, R2 and the truth: a nucleus of both kinds in white matter."""
    geometry = Geometry((44, 46, 34), (1.5, 1.5, 2.0), b0_direction)
    middle = (21.0, 22.0, 16.0)
    mask = ball(geometry, middle, 28.0)
    positive = np.zeros(geometry.shape, np.float32)
    negative = np.zeros_like(positive)
    inner = ball(geometry, middle, 23.0)
    positive[inner], negative[inner] = 0.006, 0.036
    for centre, values in ((NUCLEUS, (0.12, 0.015)), (LEFT_OVER, (0.05, 0.05))):
        nucleus = ball(geometry, centre, 6.0)
        positive[nucleus], negative[nucleus] = values
    twice = geometry.with_shape(tuple(2 * n for n in geometry.shape))
    field = crop(convolve(pad(positive - negative, twice.shape), dipole_kernel(twice)), mask.shape)
    field = np.where(mask, field + noise_ppm * rng.normal(size=mask.shape), 0).astype(np.float32)
    noise = np.full(mask.shape, 0.002, np.float32)
    local = FieldMap(field, noise, np.ones_like(noise), mask, geometry)
    r2 = np.where(mask, np.float32(14), np.float32(0))
    r2star = r2 + np.float32(RELAXIVITY_PER_S_PPM) * (positive + negative)
    return local, positive, negative, r2, r2star


def spread(chi):
    """What an inversion does to a map: some of each voxel's value in its neighbours."""
    return (0.6 * chi + 0.2 * np.roll(chi, 1, 2) + 0.2 * np.roll(chi, -1, 2)).astype(np.float32)


def test_true_maps_stay_as_they_are(ball, rng) -> None:
    local, positive, negative, r2, r2star = head(ball, rng)
    found = r2prime(local, positive - negative, r2star, B0_T, r2)
    np.testing.assert_allclose(found.paramagnetic_ppm, positive, atol=2e-3)
    np.testing.assert_allclose(found.diamagnetic_ppm, -negative, atol=2e-3)
    assert found.paramagnetic_ppm.dtype == found.diamagnetic_ppm.dtype == np.float32


def test_sources_that_cancel_each_other_in_the_field_are_seen(ball, rng) -> None:
    local, positive, negative, r2, r2star = head(ball, rng, 0.001)
    found = r2prime(local, spread(positive - negative), r2star, B0_T, r2)
    inside = ball(local.geometry, LEFT_OVER, 4.0)
    assert found.paramagnetic_ppm[inside].mean() == pytest.approx(0.05, abs=0.004)
    assert found.diamagnetic_ppm[inside].mean() == pytest.approx(-0.05, abs=0.004)


def test_the_field_mends_the_map(ball, rng) -> None:
    """With data consistency the sources are nearer the truth than voxel by voxel."""
    local, positive, negative, r2, r2star = head(ball, rng, 0.001)
    shrunk = np.float32(0.7) * (positive - negative)
    errors = []
    for iterations in (0, 20):
        found = r2prime(local, shrunk, r2star, B0_T, r2, iterations=iterations)
        difference = (found.paramagnetic_ppm - positive)[local.mask]
        errors.append(np.sqrt(np.mean(difference**2)))
    assert errors[1] < 0.8 * errors[0]


def test_share_of_r2star_stands_in_for_r2prime(ball, rng) -> None:
    local, positive, negative, _, r2star = head(ball, rng)
    chi = positive - negative
    by_share = gre(local, chi, r2star, B0_T, share=0.3)
    by_r2 = r2prime(local, chi, r2star, B0_T, np.where(local.mask, 0.7 * r2star, 0))
    np.testing.assert_allclose(by_share.paramagnetic_ppm, by_r2.paramagnetic_ppm, atol=1e-5)


def test_the_zero_of_the_map_does_not_fight_the_field(ball, rng) -> None:
    """A shift of the map moves each source by half of it where there are both."""
    local, positive, negative, r2, r2star = head(ball, rng)
    chi = np.where(local.mask, positive - negative + 0.004, 0).astype(np.float32)
    found = r2prime(local, chi, r2star, B0_T, r2)
    inside = ball(local.geometry, LEFT_OVER, 4.5)
    assert found.paramagnetic_ppm[inside].mean() == pytest.approx(0.052, abs=0.0004)
    assert found.diamagnetic_ppm[inside].mean() == pytest.approx(-0.048, abs=0.0004)


def test_sources_have_their_signs_and_end_at_the_mask(ball, rng) -> None:
    local, positive, negative, r2, r2star = head(ball, rng, 0.005)
    noisy = r2star + rng.normal(0, 4, r2star.shape).astype(np.float32)
    chi = positive - negative + rng.normal(0, 0.02, r2star.shape).astype(np.float32)
    for found in (gre(local, chi, noisy, B0_T), r2prime(local, chi, noisy, B0_T, r2)):
        assert found.paramagnetic_ppm.min() == 0 == found.diamagnetic_ppm.max()
        assert not found.paramagnetic_ppm[~local.mask].any()
        assert not found.diamagnetic_ppm[~local.mask].any()
        assert not np.signbit(found.diamagnetic_ppm[found.diamagnetic_ppm == 0]).any()


def test_each_voxel_has_the_best_values_of_both_sources(rng) -> None:
    chi = rng.normal(0, 0.05, 200).astype(np.float32)
    total = np.abs(rng.normal(0, 0.05, 200)).astype(np.float32)
    weight = 0.7
    positive, negative = _voxel_by_voxel(chi, total, weight)

    def cost(p, n):
        return (p - n - chi) ** 2 + weight**2 * (p + n - total) ** 2

    best = cost(positive, negative)
    for dp, dn in rng.normal(0, 0.003, (50, 2)):
        p, n = np.maximum(positive + dp, 0), np.maximum(negative + dn, 0)
        assert (cost(p, n) >= best - 1e-8).all()
    assert min(positive.min(), negative.min()) >= -1e-8


def test_unknown_voxels_are_left_out(ball, rng) -> None:
    local, positive, negative, r2, r2star = head(ball, rng)
    plain = r2prime(local, positive - negative, r2star, B0_T, r2)
    unknown = ball(local.geometry, (21.0, 34.0, 16.0), 3.0)
    r2[unknown] = 0
    r2star[20, 10, 15] = np.nan
    unknown[20, 10, 15] = True
    found = r2prime(local, positive - negative, r2star, B0_T, r2)
    assert not found.paramagnetic_ppm[unknown].any()
    assert not found.diamagnetic_ppm[unknown].any()
    np.testing.assert_allclose(
        found.paramagnetic_ppm[~unknown], plain.paramagnetic_ppm[~unknown], atol=1e-3
    )


@pytest.mark.parametrize(
    ("axes", "signs"), [((0, 1, 2), (-1, 1, 1)), ((0, 1, 2), (1, 1, -1)), ((2, 0, 1), (1, 1, 1))]
)
def test_flips_and_permuted_axes(axes, signs, ball, rng) -> None:
    local, positive, negative, _, r2star = head(ball, rng, 0.001)
    chi, geometry = spread(positive - negative), local.geometry
    view = tuple(slice(None, None, s) for s in signs)
    turned = Geometry(
        tuple(geometry.shape[a] for a in axes),
        tuple(geometry.voxel_mm[a] for a in axes),
        tuple(geometry.b0_direction[a] * s for a, s in zip(axes, signs, strict=True)),
    )

    def turn(volume):
        return np.transpose(volume, axes)[view]

    maps = (local.field_ppm, local.noise_ppm, local.magnitude, local.mask)
    found = gre(FieldMap(*map(turn, maps), turned), turn(chi), turn(r2star), B0_T)
    plain = gre(local, chi, r2star, B0_T)
    np.testing.assert_allclose(found.paramagnetic_ppm, turn(plain.paramagnetic_ppm), atol=1e-5)


def test_threads_do_not_change_a_bit(ball, rng) -> None:
    local, positive, negative, _, r2star = head(ball, rng, 0.001)
    results = []
    before = numba.get_num_threads()
    for threads in (1, 2):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        with fft.set_workers(threads):
            found = gre(local, positive - negative, r2star, B0_T)
            results.append((found.paramagnetic_ppm, found.diamagnetic_ppm))
    numba.set_num_threads(before)
    np.testing.assert_array_equal(results[0], results[1])


def test_what_makes_no_sense_is_refused(ball, rng) -> None:
    local, positive, negative, r2, r2star = head(ball, rng)
    chi = positive - negative
    with pytest.raises(ValueError, match="between 0 and 1"):
        gre(local, chi, r2star, B0_T, share=1.2)
    with pytest.raises(ValueError, match="differ in shape"):
        gre(local, chi[1:], r2star, B0_T)
    with pytest.raises(ValueError, match="differ in shape"):
        r2prime(local, chi, r2star, B0_T, r2[1:])
    with pytest.raises(ValueError, match="no positive value"):
        r2prime(local, chi, r2star, B0_T, np.zeros_like(r2))
    for function, given in zip(METHODS.values(), ((), (r2,)), strict=True):
        with pytest.raises(ValueError, match="must be positive"):
            function(local, chi, r2star, B0_T, *given, relaxation_weight=0.0)
