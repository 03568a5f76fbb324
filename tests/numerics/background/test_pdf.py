from __future__ import annotations

import dataclasses

import numba
import numpy as np
import pytest
from scipy import fft

from bids_qsm.numerics.background import METHODS
from bids_qsm.numerics.background.outside import Data, coarsened, padded_to_multiples
from bids_qsm.numerics.background.pdf import pdf
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Geometry

SHAPE = (48, 45, 38)
B0 = (0.0, 0.28, 0.96)
HEAD = (23.0, 22.0, 18.0)
NO_BLOCKS = {"pdf": {"coarse_voxel_mm": 0.1}}
# what holds after each iteration needs few of them, and little space around the head
FEW = {
    "joint": {"far_iterations": 20, "coarse_iterations": 5, "iterations": 3, "margin_mm": 12.0},
    "pdf": {"coarse_iterations": 20, "max_iterations": 5, "margin_mm": 12.0},
    "vsharp": {},
}


def total_field(field: np.ndarray, mask: np.ndarray, geometry: Geometry) -> FieldMap:
    noise = np.full(mask.shape, 0.001, np.float32)
    masked = np.where(mask, field, 0).astype(np.float32)
    return FieldMap(masked, noise, np.ones(mask.shape, np.float32), mask, geometry)


@pytest.fixture
def geometry() -> Geometry:
    return Geometry(SHAPE, (1.5, 1.5, 2.0), B0)


@pytest.fixture
def head(geometry, ball) -> np.ndarray:
    return ball(geometry, HEAD, 27.0)


def relative_rms(left: np.ndarray, right: np.ndarray, where: np.ndarray) -> float:
    left, right = left[where] - left[where].mean(), right[where] - right[where].mean()
    return float(np.linalg.norm(left) / np.linalg.norm(right))


@pytest.mark.parametrize("method", ["joint", "pdf", "vsharp"])
def test_field_of_a_sphere_outside_is_removed(method, geometry, head, ball, sphere_field) -> None:
    field = 9 * sphere_field(geometry, (23.0, 22.0, 38.0), 8.0)
    local = METHODS[method](total_field(field, head, geometry))
    core = ball(geometry, HEAD, 21.0)
    assert relative_rms(local.field_ppm, field, core) < 0.03


@pytest.mark.parametrize("method", ["joint", "pdf", "vsharp"])
def test_field_of_a_sphere_inside_is_kept(method, geometry, head, ball, sphere_field) -> None:
    centre = (20.0, 24.0, 19.0)
    field = sphere_field(geometry, centre, 5.0)
    local = METHODS[method](total_field(field, head, geometry))
    near = ball(geometry, centre, 12.0) & ~ball(geometry, centre, 6.0)
    slope = np.polyfit(field[near], local.field_ppm[near], 1)[0]
    assert slope == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("method", ["pdf", "vsharp"])
def test_result_scales_with_the_field_and_flips_with_the_head(method, geometry, head, rng) -> None:
    field = rng.normal(size=SHAPE).astype(np.float32)
    total = total_field(field, head, geometry)
    local = METHODS[method](total, **FEW[method]).field_ppm
    threefold = dataclasses.replace(total, field_ppm=3 * total.field_ppm)
    tripled = METHODS[method](threefold, **FEW[method])
    difference = tripled.field_ppm - 3 * local
    assert np.linalg.norm(difference) < 0.003 * np.linalg.norm(3 * local)

    b0_direction = (B0[0], -B0[1], B0[2])
    flipped = total_field(
        field[:, ::-1], head[:, ::-1], dataclasses.replace(geometry, b0_direction=b0_direction)
    )
    options = {**FEW[method], **NO_BLOCKS.get(method, {})}
    result = METHODS[method](flipped, **options)
    if method in NO_BLOCKS:  # blocks of coarse voxels begin at one end
        local = METHODS[method](total, **options).field_ppm
    difference = result.field_ppm[:, ::-1] - local
    assert np.linalg.norm(difference) < 0.01 * np.linalg.norm(local)


@pytest.mark.parametrize("method", ["joint", "pdf", "vsharp"])
def test_threads_do_not_change_a_bit(method, geometry, head, rng) -> None:
    total = total_field(rng.normal(size=SHAPE), head, geometry)
    results = []
    before = numba.get_num_threads()
    for threads in (1, 2):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        with fft.set_workers(threads):
            results.append(METHODS[method](total, **FEW[method]).field_ppm)
    numba.set_num_threads(before)
    np.testing.assert_array_equal(results[0], results[1])


@pytest.mark.parametrize("method", ["joint", "pdf", "vsharp"])
def test_values_that_are_no_numbers_do_not_spread(method, geometry, head, sphere_field) -> None:
    total = total_field(sphere_field(geometry, (23.0, 22.0, 38.0), 8.0), head, geometry)
    total.field_ppm[20:22, 20, 20] = np.nan
    total.noise_ppm[20:22, 20, 20] = np.nan
    assert np.isfinite(METHODS[method](total, **FEW[method]).field_ppm).all()


def test_noise_free_map_and_uniform_noise_give_the_same(geometry, head, sphere_field) -> None:
    total = total_field(sphere_field(geometry, (23.0, 22.0, 38.0), 8.0), head, geometry)
    zero = dataclasses.replace(total, noise_ppm=np.zeros(SHAPE, np.float32))
    plain, noisy = (pdf(given, **FEW["pdf"]).field_ppm for given in (zero, total))
    np.testing.assert_allclose(plain, noisy, atol=1e-6)
    assert np.abs(plain).max() > 1e-3


def test_a_quadratic_that_is_not_harmonic_is_removed(geometry, head) -> None:
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    scaled = (x * SHAPE[0] * 1.5) ** 2 + (y * SHAPE[1] * 1.5) ** 2 + (z * SHAPE[2] * 2.0) ** 2
    field = scaled / scaled.max() + 0.3 * x + 5
    assert np.abs(pdf(total_field(field, head, geometry)).field_ppm).max() < 0.01 * field.max()


def test_unreliable_voxels_do_not_rule_the_fit(geometry, head, ball, sphere_field, rng) -> None:
    field = 9 * sphere_field(geometry, (23.0, 22.0, 38.0), 8.0)
    total = total_field(field, head, geometry)
    clean = pdf(total).field_ppm
    bad = ball(geometry, (23.0, 22.0, 29.0), 6.0) & head
    total.field_ppm[bad] += rng.normal(size=int(bad.sum())).astype(np.float32)
    total.noise_ppm[bad] = np.inf
    core = ball(geometry, HEAD, 15.0)
    assert np.abs(pdf(total).field_ppm - clean)[core].max() < 0.01


def test_the_coarse_grid_holds_weighted_means(geometry, head, rng) -> None:
    factors = (2, 2, 1)
    total = total_field(rng.normal(size=SHAPE), head, geometry)
    brain, _ = total.boxed()
    data = Data.of(brain, padded_to_multiples(brain.geometry, 10.0, factors))
    coarse = coarsened(data, factors)
    assert coarse.geometry.voxel_mm == (3.0, 3.0, 2.0)
    volume, weights = data.scatter(data.values), data.scatter(data.weights**2)
    for x, y, z in ((10, 9, 12), (4, 11, 15)):
        block = (slice(2 * x, 2 * x + 2), slice(2 * y, 2 * y + 2), z)
        expected = np.average(volume[block], weights=weights[block])
        assert coarse.scatter(coarse.values)[x, y, z] == pytest.approx(expected, rel=1e-4)


def test_an_empty_mask_is_refused_with_a_sentence(geometry) -> None:
    nothing = np.zeros(SHAPE, bool)
    with pytest.raises(ValueError, match="mask is empty"):
        pdf(total_field(np.zeros(SHAPE), nothing, geometry))
