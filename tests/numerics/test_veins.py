from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.geometry import Geometry
from bids_qsm.numerics.veins import eigenvalues, tube_measure, vein_mask

GEOMETRY = Geometry((48, 44, 31), (0.8, 0.9, 1.3))
WHOLE = np.ones(GEOMETRY.shape, bool)
VEIN_PPM, NUCLEUS_PPM = 0.25, 0.12
VEIN_R2STAR, NUCLEUS_R2STAR, TISSUE_R2STAR = 50.0, 40.0, 20.0
DIRECTIONS = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, -1, 1), (0.3, 0.2, 1)]


def offsets_mm(geometry: Geometry) -> np.ndarray:
    axes = [
        (np.arange(n) - n // 2) * v for n, v in zip(geometry.shape, geometry.voxel_mm, strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def share_inside(signed_mm: np.ndarray, geometry: Geometry = GEOMETRY) -> np.ndarray:
    """Share of each voxel within a shape, from the distance of its centre to the surface."""
    edge_mm = geometry.voxel_mm3 ** (1 / 3)
    return np.clip(0.5 - signed_mm / edge_mm, 0, 1).astype(np.float32)


def tube(direction, radius_mm, geometry: Geometry = GEOMETRY) -> np.ndarray:
    unit = np.asarray(direction) / np.linalg.norm(direction)
    offsets = offsets_mm(geometry)
    across = offsets - (offsets @ unit)[..., None] * unit
    return share_inside(np.linalg.norm(across, axis=-1) - radius_mm, geometry)


def ellipsoid(radii_mm) -> np.ndarray:
    relative = np.linalg.norm(offsets_mm(GEOMETRY) / radii_mm, axis=-1)
    return share_inside((relative - 1) * min(radii_mm))


def sheet(normal, thickness_mm) -> np.ndarray:
    unit = np.asarray(normal) / np.linalg.norm(normal)
    return share_inside(np.abs(offsets_mm(GEOMETRY) @ unit) - thickness_mm / 2)


def maps_of(share, chi_ppm, r2star, rng, geometry: Geometry = GEOMETRY):
    """Maps of a shape in noisy tissue."""
    noise = rng.normal(size=(2, *geometry.shape)).astype(np.float32)
    chi = share * np.float32(chi_ppm) + 0.008 * noise[0]
    return chi, TISSUE_R2STAR + share * np.float32(r2star - TISSUE_R2STAR) + noise[1]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("radius_mm", [0.8, 1.3, 1.8])
def test_tubes_of_any_direction_are_found_and_nothing_else(direction, radius_mm, rng) -> None:
    share = tube(direction, radius_mm)
    veins = vein_mask(*maps_of(share, VEIN_PPM, VEIN_R2STAR, rng), WHOLE, GEOMETRY)
    inner = np.zeros(WHOLE.shape, bool)
    inner[3:-3, 3:-3, 3:-3] = True  # the ends of a tube are not looked at
    assert veins[inner & (share > 0.7)].mean() > (0.9 if radius_mm < 1.5 else 0.8)
    near = tube(direction, radius_mm + 1.5) > 0
    assert veins[~near].sum() == 0


@pytest.mark.parametrize("radii_mm", [(3, 3, 3), (5, 4, 8), (2.5, 4, 6), (6, 6, 6)])
def test_nuclei_are_not_veins(radii_mm, rng) -> None:
    share = ellipsoid(radii_mm)
    maps = maps_of(share, NUCLEUS_PPM, NUCLEUS_R2STAR, rng)
    assert not vein_mask(*maps, WHOLE, GEOMETRY)[share > 0].any()


@pytest.mark.parametrize("radii_mm", [(5, 4, 8), (2.5, 4, 6), (6, 6, 6)])
def test_nuclei_with_much_iron_are_hardly_marked(radii_mm, rng) -> None:
    share = ellipsoid(radii_mm)
    maps = maps_of(share, 2 * NUCLEUS_PPM, 2 * NUCLEUS_R2STAR, rng)
    assert vein_mask(*maps, WHOLE, GEOMETRY)[share > 0].mean() < 0.1


@pytest.mark.parametrize("normal", [(1, 0, 0), (0, 0, 1), (1, 1, 1)])
def test_sheets_are_not_veins(normal, rng) -> None:
    share = sheet(normal, 2.5)
    veins = vein_mask(*maps_of(share, NUCLEUS_PPM, NUCLEUS_R2STAR, rng), WHOLE, GEOMETRY)
    assert not veins.any()


def test_tubes_in_which_r2star_is_not_raised_are_artefacts(rng) -> None:
    share = tube((1, 1, 1), 1.3)
    chi, r2star = maps_of(share, VEIN_PPM, TISSUE_R2STAR, rng)
    assert not vein_mask(chi, r2star, WHOLE, GEOMETRY).any()
    assert vein_mask(chi, None, WHOLE, GEOMETRY)[share > 0.7].mean() > 0.9
    unknown = np.full_like(r2star, np.nan)
    unknown[0] = 20.0
    assert not vein_mask(chi, unknown, WHOLE, GEOMETRY).any()


def test_short_and_dark_tubes_are_not_veins(rng) -> None:
    share = tube((1, 1, 0), 1.3) * ellipsoid((1.6, 1.6, 1.6))
    assert not vein_mask(*maps_of(share, VEIN_PPM, 50, rng), WHOLE, GEOMETRY).any()
    share = tube((1, 1, 0), 1.3)
    assert not vein_mask(*maps_of(share, -VEIN_PPM, 50, rng), WHOLE, GEOMETRY).any()


def test_noise_and_steps_hold_no_veins(rng) -> None:
    step = share_inside(offsets_mm(GEOMETRY)[..., 0])
    assert not vein_mask(*maps_of(step, 0.1, 30, rng), WHOLE, GEOMETRY).any()
    ball = ellipsoid((14, 14, 14)) == 1
    chi, r2star = maps_of(np.float32(ball), 0.0, 20, rng)
    chi[~ball] = 9.0  # what is outside the mask does not count
    assert not vein_mask(chi, r2star, ball, GEOMETRY).any()
    chi[~ball] = np.nan
    assert not vein_mask(chi, r2star, np.ones_like(ball), GEOMETRY).any()


def test_constant_flips_and_axes_do_not_matter(rng) -> None:
    share = np.maximum(tube((1, -1, 1), 1.2), tube((0.2, 1, 0.1), 0.9))
    chi, r2star = maps_of(share, VEIN_PPM, VEIN_R2STAR, rng)
    mask = ellipsoid((16, 17, 17)) > 0.5
    veins = vein_mask(chi, r2star, mask, GEOMETRY)
    assert veins.any() and not veins[~mask].any()
    shifted = vein_mask(chi + np.float32(0.1), r2star, mask, GEOMETRY)
    assert (shifted != veins).sum() <= 0.005 * veins.sum()
    turned = [np.ascontiguousarray(np.flip(a, 1).transpose(2, 0, 1)) for a in (chi, r2star, mask)]
    vx, vy, vz = GEOMETRY.voxel_mm
    other = vein_mask(*turned, Geometry(turned[0].shape, (vz, vx, vy)))
    back = np.flip(other.transpose(1, 2, 0), 1)
    assert (back != veins).sum() <= 0.005 * veins.sum()


def test_coarse_voxels_and_empty_masks_have_no_veins(rng) -> None:
    coarse = Geometry((30, 30, 20), (2.0, 2.0, 3.0))
    share = tube((1, 0, 0), 2.0, coarse)
    maps = maps_of(share, VEIN_PPM, VEIN_R2STAR, rng, coarse)
    assert not vein_mask(*maps, np.ones(coarse.shape, bool), coarse).any()
    chi, r2star = maps_of(tube((1, 0, 0), 1.0), VEIN_PPM, VEIN_R2STAR, rng)
    assert not vein_mask(chi, r2star, ~WHOLE, GEOMETRY).any()


@pytest.mark.parametrize("radius_mm", [1.0, 1.6, 2.4])
def test_the_best_scale_tells_the_width(radius_mm) -> None:
    geometry = Geometry((41, 41, 21), (0.5, 0.5, 1.0))
    share = tube((0, 0, 1), radius_mm, geometry)
    scales = [float(s) for s in np.geomspace(0.4, 4, 24)]
    whole = np.ones(share.shape, bool)
    measure, scale = tube_measure(0.02 * share, whole, geometry.voxel_mm, scales, 0.05)
    assert scales[scale[20, 20, 10]] == pytest.approx(radius_mm / np.sqrt(2), rel=0.15)
    # the curvatures in the middle of a tube are 1/e of its contrast, both; see Notes of Frangi 1998
    norm = 0.02 * np.sqrt(2) / np.e / 0.05
    expected = (1 - np.exp(-2)) * (1 - np.exp(-0.5 * norm**2))
    assert measure[20, 20, 10] == pytest.approx(expected, rel=0.25)


def test_eigenvalues_are_those_of_linear_algebra(rng) -> None:
    matrices = rng.normal(size=(200, 3, 3)) * 10.0 ** rng.integers(-4, 3, (200, 1, 1))
    matrices += matrices.transpose(0, 2, 1)
    for m in matrices:
        found = eigenvalues(m[0, 0], m[1, 1], m[2, 2], m[0, 1], m[0, 2], m[1, 2])
        np.testing.assert_allclose(
            found, np.linalg.eigvalsh(m), rtol=1e-6, atol=1e-7 * np.abs(m).max()
        )
    assert eigenvalues(2.0, 2.0, 2.0, 0.0, 0.0, 0.0) == (2.0, 2.0, 2.0)
    np.testing.assert_allclose(eigenvalues(1.0, 3.0, 2.0, 0.0, 0.0, 0.0), (1, 2, 3), rtol=1e-12)
