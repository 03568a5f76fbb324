from __future__ import annotations

import numba
import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.statistics.glm import fit_voxels
from bids_qsm.statistics.smoothness import Smoothness, estimate_smoothness

SIGMA = np.sqrt(8 * np.log(2))


def noise(
    fwhm: tuple[float, float, float], shape: tuple[int, int, int], n: int, seed: int = 1
) -> np.ndarray:
    """Return images of unit variance; they repeat without a seam."""
    random = np.random.default_rng(seed)
    sigma = np.array(fwhm) / SIGMA
    images = np.stack(
        [
            ndimage.gaussian_filter(random.standard_normal(shape), sigma, mode="wrap")
            for _ in range(n)
        ]
    )
    return (images / images.std()).astype(np.float32)


def estimate(images: np.ndarray, mask: np.ndarray, **options: object) -> Smoothness:
    values = images[:, mask]
    x = np.column_stack([np.ones(len(values)), np.arange(len(values)) % 2])
    fit = fit_voxels(values, x)
    return estimate_smoothness(values, fit, mask, options.get("voxel_mm", (1.0, 1.0, 1.0)))  # type: ignore[arg-type]


def blobs(shape: tuple[int, int, int]) -> np.ndarray:
    """Return two bodies, one with a hole through it."""
    x, y, z = np.indices(shape)
    ring = (x - 10) ** 2 + (y - 10) ** 2
    return ((ring < 70) & (ring > 8) & (z > 3) & (z < 15)) | (
        (x - 26) ** 2 + (y - 20) ** 2 + (z - 12) ** 2 < 45
    )


def test_fwhm_is_that_of_the_noise() -> None:
    images = noise((4, 5, 6), (48, 40, 40), 20)
    found = estimate(images, np.ones((48, 40, 40), np.bool_), voxel_mm=(1.0, 2.0, 0.5))
    np.testing.assert_allclose(found.fwhm_voxels, [4, 5, 6], rtol=0.02)
    np.testing.assert_allclose(found.fwhm_mm, found.fwhm_voxels * [1, 2, 0.5])
    assert found.mean_resels_per_voxel == pytest.approx(1 / 120, rel=0.04)


def test_few_degrees_of_freedom_do_not_bias_the_fwhm() -> None:
    found = [
        estimate(noise((4, 4, 4), (32, 32, 32), 14, seed), np.ones((32, 32, 32), np.bool_))
        for seed in range(6)
    ]
    assert np.mean([f.fwhm_voxels for f in found]) == pytest.approx(4, rel=0.02)
    true = np.array([1, 3 * 31 / 4, 3 * (31 / 4) ** 2, (31 / 4) ** 3])
    np.testing.assert_allclose(np.mean([f.local_resels for f in found], axis=0), true, rtol=0.04)
    np.testing.assert_allclose(np.mean([f.resels for f in found], axis=0), true, rtol=0.04)


def counted_resels(mask: np.ndarray, fwhm: np.ndarray) -> list[float]:
    """Return resels by counting points, edges, squares and cubes (Worsley 1996)."""

    def count(*steps: int) -> int:
        shape = tuple(n - (axis in steps) for axis, n in enumerate(mask.shape))
        whole = np.ones(shape, np.bool_)
        for corner in np.ndindex(*(2 if axis in steps else 1 for axis in range(3))):
            whole &= mask[tuple(slice(c, c + n) for c, n in zip(corner, shape, strict=True))]
        return int(whole.sum())

    points, cubes = count(), count(0, 1, 2)
    edges = [count(a) for a in range(3)]
    squares = {(a, b): count(a, b) for a, b in ((0, 1), (0, 2), (1, 2))}
    rx, ry, rz = 1 / fwhm
    xy, xz, yz = squares.values()
    return [
        points - sum(edges) + sum(squares.values()) - cubes,
        rx * (edges[0] - xy - xz + cubes)
        + ry * (edges[1] - xy - yz + cubes)
        + rz * (edges[2] - xz - yz + cubes),
        rx * ry * (xy - cubes) + rx * rz * (xz - cubes) + ry * rz * (yz - cubes),
        rx * ry * rz * cubes,
    ]


def test_resels_are_counted_as_by_worsley_1996() -> None:
    shape = (36, 32, 24)
    mask = blobs(shape)
    found = estimate(noise((4, 5, 4), shape, 12), mask)
    np.testing.assert_allclose(found.resels, counted_resels(mask, found.fwhm_voxels), rtol=1e-9)
    assert found.resels[0] == 1  # a ring and a ball
    assert found.n_voxels == mask.sum()


def test_local_resels_of_even_noise_are_those_of_the_whole() -> None:
    shape = (36, 32, 24)
    mask = blobs(shape)
    found = estimate(noise((4, 5, 4), shape, 60), mask)
    np.testing.assert_allclose(found.local_resels, found.resels, rtol=0.06)
    assert found.resels_per_voxel[: mask.sum()].mean() == pytest.approx(
        found.mean_resels_per_voxel, rel=0.06
    )


def test_resels_do_not_depend_on_how_space_is_stretched() -> None:
    """Noise stretched twofold along a part of x has the resels that it had before."""
    shape = (32, 24, 24)
    images = noise((6, 6, 6), shape, 40)
    place = np.concatenate([np.arange(0, 16), np.arange(16, 31, 0.5)])
    stretched = np.stack(
        [
            ndimage.map_coordinates(
                image,
                np.meshgrid(place, np.arange(24), np.arange(24), indexing="ij"),
                order=5,
                mode="grid-wrap",
            )
            for image in images
        ]
    )
    before = estimate(images[:, :31], np.ones((31, 24, 24), np.bool_))
    after = estimate(stretched, np.ones(stretched.shape[1:], np.bool_))
    np.testing.assert_allclose(after.local_resels, before.local_resels, rtol=0.03)
    density = after.resels_per_voxel.reshape(stretched.shape[1:])
    assert density[20:].mean() / density[:14].mean() == pytest.approx(0.5, rel=0.15)


def test_flipped_images_have_flipped_resels() -> None:
    shape = (20, 18, 16)
    mask = blobs((36, 32, 24))[:20, :18, :16]
    images = noise((4, 4, 5), shape, 10)
    there = estimate(images, mask)
    back = estimate(images[:, ::-1, :, ::-1], mask[::-1, :, ::-1])
    np.testing.assert_allclose(back.local_resels, there.local_resels, rtol=1e-6)
    a, b = np.zeros(shape), np.zeros(shape)
    a[mask], b[mask[::-1, :, ::-1]] = there.resels_per_voxel, back.resels_per_voxel
    np.testing.assert_allclose(b[::-1, :, ::-1], a, rtol=1e-5)


def test_turned_axes_turn_the_fwhm() -> None:
    images = noise((4, 5, 7), (24, 26, 28), 10)
    mask = np.ones(images.shape[1:], np.bool_)
    there = estimate(images, mask)
    turned = estimate(images.transpose(0, 3, 1, 2), mask.transpose(2, 0, 1))
    np.testing.assert_allclose(turned.fwhm_voxels, there.fwhm_voxels[[2, 0, 1]], rtol=1e-6)
    np.testing.assert_allclose(turned.local_resels, there.local_resels, rtol=1e-6)


def test_fwhm_is_that_of_the_whole_residuals() -> None:
    shape = (9, 8, 7)
    images = noise((3, 3, 3), shape, 21)  # more than are read at once
    values = images.reshape(21, -1)
    x = np.column_stack([np.ones(21), np.arange(21.0)])
    residuals = values - x @ np.linalg.lstsq(x, values, rcond=None)[0]
    units = (residuals / np.sqrt((residuals**2).sum(0))).reshape(21, *shape)
    found = estimate_smoothness(
        values, fit_voxels(values, x), np.ones(shape, np.bool_), (1.0, 1.0, 1.0)
    )
    for axis in range(3):
        square = (np.diff(units, axis=axis + 1) ** 2).sum(0).mean()
        expected = np.sqrt(4 * np.log(2) / (-2 * np.log(1 - square / 2) * 17 / 18))
        assert found.fwhm_voxels[axis] == pytest.approx(expected, rel=1e-5)


def test_voxels_that_are_not_valid_are_no_part_of_the_mask() -> None:
    shape = (16, 14, 12)
    images = noise((4, 4, 4), shape, 12)
    mask = np.ones(shape, np.bool_)
    smaller = mask.copy()
    smaller[8, 7, 3] = smaller[:3] = False
    expected = estimate(images, smaller)
    images[4, 8, 7, 3] = np.nan
    images[:, :3] = 2
    found = estimate(images, mask)
    np.testing.assert_allclose(found.local_resels, expected.local_resels, rtol=1e-9)
    np.testing.assert_allclose(found.resels, expected.resels, rtol=1e-9)
    assert not found.resels_per_voxel.reshape(shape)[~smaller].any()
    assert found.n_voxels == smaller.sum()


def test_threads_change_nothing() -> None:
    images = noise((4, 4, 4), (16, 14, 12), 20)
    mask = np.ones((16, 14, 12), np.bool_)
    expected = estimate(images, mask)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        found = estimate(images, mask)
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(found.resels_per_voxel, expected.resels_per_voxel)
    np.testing.assert_array_equal(found.local_resels, expected.local_resels)


def test_what_cannot_be_estimated() -> None:
    mask = np.ones((6, 6, 6), np.bool_)
    images = noise((2, 2, 2), (6, 6, 6), 8)
    with pytest.raises(ValueError, match="no two valid voxels of the mask are neighbours"):
        estimate(images[:, :, :, :1], mask[:, :, :1])
    with pytest.raises(ValueError, match="2 degrees of freedom: at least 5"):
        estimate(images[:4], mask)
    fit = fit_voxels(images[:, mask], np.ones((8, 1)))
    with pytest.raises(ValueError, match="8 images and 180 voxels"):
        estimate_smoothness(images[:, mask], fit, mask[1:], (1.0, 1.0, 1.0))
