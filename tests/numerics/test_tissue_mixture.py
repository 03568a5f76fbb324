"""A ball of white matter in grey matter in fluid, whose shares are known in every voxel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.numerics.tissue_mixture import fit_tissue_mixture, tissue_shares

MEANS = np.array([300.0, 900.0, 1300.0])
N, FINE = 40, 3


@pytest.fixture(scope="module")
def shells() -> tuple[np.ndarray, np.ndarray]:
    """Shares (fluid, grey, white) from a finer grid, and the mask."""
    grid = (np.indices([N * FINE] * 3) + 0.5) / FINE - N / 2
    radius = np.sqrt((grid**2).sum(axis=0))
    parts = [radius >= 15, (radius < 15) & (radius >= 11), radius < 11]
    blocks = [
        p.reshape(N, FINE, N, FINE, N, FINE).mean(axis=(1, 3, 5), dtype=np.float32) for p in parts
    ]
    centre = np.linalg.norm(np.indices([N] * 3) + 0.5 - N / 2, axis=0)
    return np.stack(blocks), centre < 18


def noisy(shares: np.ndarray, rng: np.random.Generator, sd: float) -> np.ndarray:
    image = np.tensordot(MEANS, shares, axes=1)
    return (image + sd * rng.standard_normal(image.shape)).astype(np.float32)


def test_means_and_spread_are_found_from_a_poor_start(shells, rng):
    shares, mask = shells
    image = noisy(shares, rng, 40.0)
    mixture = fit_tissue_mixture(image[mask], (380.0, 820.0, 1220.0))
    np.testing.assert_allclose(mixture.means, MEANS, atol=12)
    np.testing.assert_allclose(mixture.sds, 40, rtol=0.25)
    assert mixture.weights.sum() == pytest.approx(1)
    scaled = fit_tissue_mixture(3 * image[mask], (3 * 380.0, 3 * 820.0, 3 * 1220.0))
    np.testing.assert_allclose(scaled.means, 3 * mixture.means, rtol=1e-3)


def test_means_must_rise():
    with pytest.raises(ValueError, match="must rise"):
        fit_tissue_mixture(np.ones(9), (300.0, 900.0, 800.0))


@pytest.mark.parametrize("sd", [10.0, 60.0])
def test_shares_and_volumes_are_true(shells, rng, sd):
    """Partial volumes are found; the volumes are true to 2 %, or 4 % in strong noise."""
    shares, mask = shells
    image = noisy(shares, rng, sd)
    mixture = fit_tissue_mixture(image[mask], tuple(MEANS))
    found = tissue_shares(image, mask, (1.0, 1.0, 1.0), mixture)
    assert found.dtype == np.float32 and (found[:, ~mask] == 0).all()
    np.testing.assert_allclose(found[:, mask].sum(axis=0), 1, atol=1e-5)
    error = np.abs(found - shares)[:, mask].mean()
    assert error < (0.01 if sd == 10 else 0.035)
    volumes = found[:, mask].sum(axis=1) / shares[:, mask].sum(axis=1)
    np.testing.assert_allclose(volumes, 1, atol=0.02 if sd == 10 else 0.04)


def test_neighbours_take_noise_away(shells, rng):
    shares, mask = shells
    image = noisy(shares, rng, 130.0)
    mixture = fit_tissue_mixture(image[mask], tuple(MEANS))
    truth = shares.argmax(axis=0)[mask]

    def wrong(neighbours: float) -> float:
        found = tissue_shares(image, mask, (1.0, 1.0, 1.0), mixture, neighbours=neighbours)
        return float((found.argmax(axis=0)[mask] != truth).mean())

    assert wrong(0.6) < 0.7 * wrong(0.0)


def test_drift_of_the_receive_field_is_followed(shells, rng):
    """White matter that darkens by a quarter of its step to grey from one side to the other."""
    shares, mask = shells
    ramp = np.linspace(1.04, 0.96, N)[:, None, None].astype(np.float32)
    image = noisy(shares, rng, 20.0) * ramp
    mixture = fit_tissue_mixture(image[mask], tuple(MEANS))
    found = tissue_shares(image, mask, (1.0, 1.0, 1.0), mixture)
    deep = ndimage.distance_transform_edt(shares[2] > 0.99) > 3
    assert found[2][deep].mean() > 0.98


def test_flips_and_other_axes_change_nothing(shells, rng):
    shares, mask = shells
    image = noisy(shares, rng, 60.0)
    mixture = fit_tissue_mixture(image[mask], tuple(MEANS))
    straight = tissue_shares(image, mask, (1.0, 1.0, 2.0), mixture)
    turned = tissue_shares(
        np.ascontiguousarray(image.transpose(2, 0, 1)[::-1]),
        np.ascontiguousarray(mask.transpose(2, 0, 1)[::-1]),
        (2.0, 1.0, 1.0),
        mixture,
    )
    np.testing.assert_allclose(turned, straight.transpose(0, 3, 1, 2)[:, ::-1], atol=2e-4)
