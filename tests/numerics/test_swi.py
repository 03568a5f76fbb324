from __future__ import annotations

import numba
import numpy as np
import pytest
from scipy import fft, ndimage

from bids_qsm.numerics.geometry import Geometry
from bids_qsm.numerics.phase import wrap
from bids_qsm.numerics.swi import (
    METHODS,
    _filtered_field,
    _homodyne,
    classic,
    clear,
    minimum_intensity_projection,
)

TE_S = (0.006, 0.013, 0.021)
VOXEL_MM = (1.0, 1.2, 2.0)
SHAPE = (56, 50, 34)
VEIN_RAD_PER_S = 80.0


def head(rng, b0_t=3.0, noise=0.0):
    """A ball with a steep background field, a vein along B0 that raises it, coils and noise."""
    geometry = Geometry(SHAPE, VOXEL_MM)
    axes = [(np.arange(n) - n / 2) * v for n, v in zip(SHAPE, VOXEL_MM, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    inside = x**2 + y**2 + z**2 < 23**2
    vein = inside & (np.abs(x - 6.1) < 1) & (np.abs(y - 3) < 1.3)
    field = b0_t / 3 * (6 * x + 0.4 * (y**2 - z**2) + VEIN_RAD_PER_S * vein)
    te = np.asarray(TE_S)
    decay = inside[..., None] * np.exp(-20 * te) * (1.4 + x / 50)[..., None]
    signal = decay * np.exp(1j * (field[..., None] * te + 0.8 + 0.02 * y[..., None]))
    signal += noise * (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape))
    return (
        np.angle(signal).astype(np.float32),
        np.abs(signal).astype(np.float32),
        geometry,
        inside,
        vein,
    )


def contrast(image, inside, vein):
    """Vein over the tissue around it."""
    around = inside & ndimage.binary_dilation(vein, iterations=5)
    around &= ~ndimage.binary_dilation(vein, iterations=2)
    return image[vein].mean() / image[around].mean()


@pytest.mark.parametrize("method", METHODS)
def test_veins_are_dark_and_tissue_is_not(method, rng) -> None:
    phase, magnitude, geometry, inside, vein = head(rng, noise=0.005)
    image = METHODS[method](phase, magnitude, TE_S, geometry)
    deep = ndimage.binary_erosion(inside, iterations=4)
    assert image.dtype == np.float32
    assert contrast(image, deep, vein) < 0.35
    opposite = METHODS[method](-phase, magnitude, TE_S, geometry)
    assert contrast(opposite, deep, vein) > 0.95  # a lower field leaves the magnitude as it is


def test_steep_fields_leave_no_wraps_in_clear_swi(rng) -> None:
    phase, magnitude, geometry, inside, vein = head(rng, noise=0.001)
    assert (np.abs(np.diff(phase[..., 2], axis=0)) > 3).sum() > 100  # there are wraps
    depth_mm = ndimage.distance_transform_edt(inside, VOXEL_MM)
    tissue = (depth_mm > 10) & ~ndimage.binary_dilation(vein, None, 4)
    image = clear(phase, magnitude, TE_S, geometry)
    unweighted = clear(np.zeros_like(phase), magnitude, TE_S, geometry)
    assert (image / unweighted)[tissue].min() > 0.75


def test_the_coils_shading_is_taken_off(rng) -> None:
    _, magnitude, geometry, inside, _ = head(rng)
    image = clear(np.zeros_like(magnitude), magnitude, TE_S, geometry, sensitivity_mm=6.0, knee=0.0)
    deep = ndimage.binary_erosion(inside, iterations=2)
    combined = np.sqrt((magnitude**2).sum(axis=-1))
    assert np.ptp(image[deep]) / image[deep].mean() < 0.25
    assert np.ptp(combined[deep]) / combined[deep].mean() > 0.55


def test_filtered_field_is_that_of_a_gaussian_high_pass(rng) -> None:
    geometry = Geometry((40, 36, 30), (1.0, 1.5, 2.0))
    field = ndimage.gaussian_filter(rng.normal(size=geometry.shape), 1.5)
    field = (40 * field / field.std() + 5 * np.arange(30)).astype(np.float32)
    phase = wrap(field[..., None] * np.asarray(TE_S, np.float32))
    magnitude = 1 + rng.random(phase.shape, np.float32)
    everywhere = np.ones(geometry.shape, bool)
    found = _filtered_field(phase, magnitude, TE_S, everywhere, geometry, 5.0)
    sigma = [5 / v for v in geometry.voxel_mm]
    low, share = (
        ndimage.gaussian_filter(v, sigma, mode="constant") for v in (field, np.ones_like(field))
    )
    np.testing.assert_allclose(found, field - low / share, atol=1.0)


def test_homodyne_removes_a_smooth_phase_of_any_size() -> None:
    geometry = Geometry((64, 48, 9), (1.0, 1.0, 2.0))
    x, y, _ = np.meshgrid(*(np.arange(n) for n in geometry.shape), indexing="ij")
    smooth = 3 * np.cos(2 * np.pi * x / 64) + 2 * np.sin(2 * np.pi * y / 48)
    vein = (np.abs(x - 30) < 1) & (np.abs(y - 20) < 1)
    for added in (0.0, 1.0):
        phase = np.angle(np.exp(1j * (smooth + added * vein))).astype(np.float32)
        found = _homodyne(phase, np.ones_like(phase), geometry, 6.0)
        assert np.abs(found[~vein]).max() < 0.15
        assert found[vein].mean() == pytest.approx(0.95 * added, abs=0.05)


def test_clear_swi_depends_neither_on_scale_nor_on_field_strength(rng) -> None:
    phase, magnitude, geometry, inside, _ = head(rng)
    plain = clear(phase, magnitude, TE_S, geometry)
    np.testing.assert_allclose(clear(phase, 1024 * magnitude, TE_S, geometry), plain, rtol=1e-4)
    weaker, *_ = head(rng, b0_t=2.4)
    deep = ndimage.binary_erosion(inside, iterations=2)
    other = clear(weaker, magnitude, TE_S, geometry)
    assert np.abs(other - plain)[deep].max() < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_flips_and_permuted_axes(method, rng) -> None:
    phase, magnitude, geometry, _, _ = head(rng, noise=0.01)
    plain = METHODS[method](phase, magnitude, TE_S, geometry)

    def turn(volume):
        return np.ascontiguousarray(np.moveaxis(volume, 2, 0)[:, ::-1])

    turned = Geometry((34, 56, 50), (2.0, 1.0, 1.2), (1.0, 0.0, 0.0))
    found = METHODS[method](turn(phase), turn(magnitude), TE_S, turned)
    np.testing.assert_allclose(found, turn(plain), atol=1e-3)
    projected = minimum_intensity_projection(plain, plain > 0.1, geometry)
    again = minimum_intensity_projection(turn(plain), turn(plain > 0.1), turned)
    np.testing.assert_array_equal(again, turn(projected))


def test_values_that_are_no_numbers_stay_where_they_are(rng) -> None:
    phase, magnitude, geometry, inside, _ = head(rng)
    plain = clear(phase, magnitude, TE_S, geometry)
    phase[20, 20, 15, 1] = magnitude[20, 21, 15, 0] = np.nan
    found = clear(phase, magnitude, TE_S, geometry)
    assert np.isfinite(found).all()
    far = ndimage.binary_erosion(inside, iterations=4)
    far[10:30, 10:32, 5:25] = False
    assert np.abs(found - plain)[far].max() < 0.02


def test_threads_do_not_change_a_bit(rng) -> None:
    phase, magnitude, geometry, _, _ = head(rng, noise=0.01)
    results = []
    before = numba.get_num_threads()
    for threads in (1, 2):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        with fft.set_workers(threads):
            results.append(
                [function(phase, magnitude, TE_S, geometry) for function in METHODS.values()]
            )
    numba.set_num_threads(before)
    np.testing.assert_array_equal(results[0], results[1])


def test_classic_takes_the_echo_nearest_to_the_usual_time(rng) -> None:
    phase, magnitude, geometry, _, _ = head(rng)
    one = classic(phase[..., 1:2], magnitude[..., 1:2], TE_S[1:2], geometry)
    chosen = classic(phase, magnitude, TE_S, geometry, long_te_s=0.012)
    np.testing.assert_array_equal(chosen, one)


def test_projection_is_the_minimum_of_a_slab_within_the_brain(rng) -> None:
    geometry = Geometry((6, 5, 21), (1.0, 1.0, 2.0))
    image = 1 + rng.random(geometry.shape, np.float32)
    mask = rng.random(geometry.shape) > 0.2
    found = minimum_intensity_projection(image, mask, geometry, thickness_mm=6.0)
    for z in range(21):
        slab = np.where(mask, image, np.inf)[..., max(z - 1, 0) : z + 2].min(axis=2)
        np.testing.assert_array_equal(found[..., z], np.where(mask[..., z], slab, 0))
    single = minimum_intensity_projection(image, mask, geometry, thickness_mm=0.1)
    np.testing.assert_array_equal(single, image * mask)


def test_what_does_not_fit_is_refused(rng) -> None:
    phase, magnitude, geometry, _, _ = head(rng)
    for function in METHODS.values():
        with pytest.raises(ValueError, match="echo times"):
            function(phase, magnitude, TE_S[:2], geometry)
        with pytest.raises(ValueError, match="positive"):
            function(phase, magnitude, TE_S, geometry, filter_mm=0.0)
