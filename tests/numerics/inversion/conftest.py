"""A simulated head, and what must hold for every inversion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numba
import numpy as np
import pytest
from scipy import fft

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Geometry, crop, dipole_kernel, pad

_MIDDLE, _NUCLEUS = (17.0, 18.5, 13.0), (12.0, 18.0, 12.0)


@dataclass(frozen=True)
class Head:
    """A brain of grey and white matter with nuclei."""

    local: FieldMap
    chi: np.ndarray
    nucleus: np.ndarray  # mask, within the nucleus

    def error(self, found: np.ndarray) -> float:
        """Return the error of a map over the truth, both without their mean in the mask."""
        mask = self.local.mask
        found, truth = found[mask] - found[mask].mean(), self.chi[mask] - self.chi[mask].mean()
        return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))

    def contrast(self, found: np.ndarray) -> float:
        """Return the nucleus less the brain's mean."""
        return float(found[self.nucleus].mean() - found[self.local.mask].mean())

    def with_field(self, field: np.ndarray) -> FieldMap:
        """Return the local field with other values, zero outside the mask."""
        inside = np.where(self.local.mask, field, 0).astype(np.float32)
        return replace(self.local, field_ppm=inside)


@pytest.fixture
def make_head(ball, rng) -> Callable[..., Head]:
    """Head in a field along a direction, with noise (ppm)."""

    def make(b0_direction=(0.0, 0.0, 1.0), noise: float = 0.0005) -> Head:
        geometry = Geometry((36, 40, 27), (1.8, 1.8, 2.4), b0_direction)
        chi = np.zeros(geometry.shape, np.float32)
        chi[ball(geometry, _MIDDLE, 23.0)] = -0.03
        chi[ball(geometry, _NUCLEUS, 6.5)] = 0.12
        chi[ball(geometry, (24.0, 19.0, 14.0), 5.5)] = 0.05
        mask = ball(geometry, _MIDDLE, 28.0)
        # twice the size: no wrap-around
        twice = geometry.with_shape(tuple(2 * n for n in geometry.shape))
        field = crop(convolve(pad(chi, twice.shape), dipole_kernel(twice)), geometry.shape)
        field = np.where(mask, field + rng.normal(0, noise, field.shape), 0).astype(np.float32)
        noise_ppm = np.where(mask, noise, np.inf).astype(np.float32)
        local = FieldMap(field, noise_ppm, mask.astype(np.float32), mask, geometry)
        return Head(local, chi, ball(geometry, _NUCLEUS, 4.5))

    return make


@pytest.fixture
def assert_scales(make_head) -> Callable[..., None]:
    """Check that a map triples with the field and its noise."""

    def check(invert: Callable[..., np.ndarray], **options: float) -> None:
        local = make_head().local
        plain = invert(local, **options)
        tripled = invert(
            replace(local, field_ppm=3 * local.field_ppm, noise_ppm=3 * local.noise_ppm),
            **options,
        )
        np.testing.assert_allclose(tripled, 3 * plain, atol=3e-4 * np.abs(plain).max())

    return check


@pytest.fixture
def assert_turns(make_head) -> Callable[..., None]:
    """Check that flipping and permuting axes and B0 does so to the map, up to an error (ppm)."""

    def check(invert: Callable[..., np.ndarray], error_ppm: float) -> None:
        head = make_head((0.0, 0.28, 0.96))
        plain = invert(head.local)
        given = head.local.geometry
        for axes, signs in (((0, 1, 2), (-1, 1, -1)), ((2, 0, 1), (1, -1, 1))):

            def turn(volume, axes=axes, signs=signs):
                view = tuple(slice(None, None, s) for s in signs)
                return np.transpose(volume, axes)[view].copy()

            turned = Geometry(
                tuple(given.shape[a] for a in axes),
                tuple(given.voxel_mm[a] for a in axes),
                tuple(given.b0_direction[a] * s for a, s in zip(axes, signs, strict=True)),
            )
            local = FieldMap(
                turn(head.local.field_ppm),
                turn(head.local.noise_ppm),
                turn(head.local.magnitude),
                turn(head.local.mask),
                turned,
            )
            difference = (invert(local) - turn(plain))[local.mask]
            assert np.sqrt(np.mean(difference**2)) < error_ppm

    return check


@pytest.fixture
def assert_sound(make_head) -> Callable[..., None]:
    """Check that a map is zero outside the mask, and stands threads, gaps and an empty field."""

    def check(invert: Callable[..., np.ndarray]) -> None:
        head = make_head()
        results = []
        before = numba.get_num_threads()
        for threads in (1, 2):
            numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
            with fft.set_workers(threads):
                results.append(invert(head.local))
        numba.set_num_threads(before)
        np.testing.assert_array_equal(results[0], results[1])
        assert results[0].dtype == np.float32
        assert not results[0][~head.local.mask].any()

        field = head.local.field_ppm.copy()
        field[17:19, 30, 13] = np.nan
        gaps = invert(replace(head.local, field_ppm=field))
        assert np.isfinite(gaps).all()
        assert head.contrast(gaps) == pytest.approx(head.contrast(results[0]), abs=0.003)
        assert not invert(head.with_field(np.zeros_like(field))).any()

    return check
