from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.numerics import background, inversion
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Geometry, dipole_kernel, forward_fft, inverse_fft
from bids_qsm.numerics.two_pass import METHODS, off, two_pass

GEOMETRY = Geometry((36, 40, 32), (2.0, 2.0, 2.0), (0.0, 0.0, 1.0))
X, Y, Z = np.meshgrid(*[np.arange(n) - n // 2 for n in GEOMETRY.shape], indexing="ij")
BRAIN = (X / 16) ** 2 + (Y / 18) ** 2 + (Z / 14) ** 2 < 1
NUCLEI = sum((abs(X) - 6) ** 2 + (Y - y) ** 2 + Z**2 < 2.7**2 for y in (-6, 2)) > 0
VOID = X**2 + (Y - 10) ** 2 + Z**2 < 2.3**2
"""A calcification or haemorrhage in the midline: it has no signal."""
DISTANCE_MM = 2 * ndimage.distance_transform_edt(~VOID)
SHELL = (DISTANCE_MM > 6) & (DISTANCE_MM < 22) & ndimage.binary_erosion(BRAIN, iterations=2)


@cache
def head(strength_ppm: float) -> tuple[FieldMap, np.ndarray]:
    """Return the total field and the phase quality of a brain with a source without signal.

    Where the strength is 0 there is tissue with a signal instead.
    """
    chi_ppm = np.where(VOID, strength_ppm, 0.1 * NUCLEI).astype(np.float32)
    padding = [(n // 2, n // 2) for n in GEOMETRY.shape]
    padded = np.pad(chi_ppm, padding)
    kernel = dipole_kernel(Geometry(padded.shape, GEOMETRY.voxel_mm, GEOMETRY.b0_direction))
    field = inverse_fft(forward_fft(padded) * kernel, padded.shape)
    field = field[tuple(slice(n // 2, n // 2 + n) for n in GEOMETRY.shape)]
    rng = np.random.default_rng(3)
    field = field + 0.002 * rng.normal(size=field.shape)
    lost = VOID if strength_ppm else np.zeros_like(VOID)
    field = np.where(lost, rng.uniform(-1, 1, field.shape), field)
    maps = (
        np.where(BRAIN, field, 0),
        np.where(BRAIN, np.where(lost, 0.2, 0.002), np.inf),
        np.where(BRAIN, np.where(lost, 0.01, 1.0), 0),
    )
    quality = np.where(lost, 0.05, 0.8).astype(np.float32)
    return FieldMap(*(m.astype(np.float32) for m in maps), BRAIN, GEOMETRY), quality


def reconstruct(invert, total: FieldMap) -> tuple[np.ndarray, np.ndarray]:
    local = background.pdf(total, coarse_iterations=12, max_iterations=6, margin_mm=12.0)
    return invert(local), local.mask


@cache
def streaks_ppb(method: str, strength_ppm: float) -> dict[str, tuple[float, float]]:
    """Return what the source adds to the map, as SD, in a single pass and in two."""
    invert = partial(inversion.METHODS[method], margin_mm=12.0)
    total, quality = head(strength_ppm)
    free, _ = reconstruct(invert, head(0.0)[0])
    single, _ = reconstruct(invert, total)
    double = two_pass(total, quality, single, partial(reconstruct, invert))
    regions = {"nuclei": NUCLEI, "shell": SHELL}
    return {
        name: tuple(1000 * float((chi - free)[region].std()) for chi in (single, double))
        for name, region in regions.items()
    }


@pytest.mark.parametrize("strength_ppm", [-3.0, 3.0])
@pytest.mark.parametrize(("method", "share"), [("tkd", 0.2), ("rts", 0.5)])
def test_streaks_shrink_and_do_not_reach_the_nuclei(method, share, strength_ppm) -> None:
    streaks = streaks_ppb(method, strength_ppm)
    single, double = streaks["shell"]
    assert double < share * single
    assert double < 20
    single, double = streaks["nuclei"]
    assert double < share * single
    assert double < 5


def test_unreliable_voxels_keep_their_value_and_the_others_their_median() -> None:
    total, quality = head(3.0)
    single = np.where(BRAIN, 0.2 + 0.01 * X, 0).astype(np.float32)
    seen: list[FieldMap] = []

    def invert(reliable: FieldMap) -> tuple[np.ndarray, np.ndarray]:
        seen.append(reliable)
        eroded = reliable.mask & (X > -13)  # as background removal may do
        return np.where(eroded, 0.02 * X - 5, 0).astype(np.float32), eroded

    found = two_pass(total, quality, single, invert)
    (reliable,) = seen
    assert np.array_equal(reliable.mask, BRAIN & ~VOID)
    assert not reliable.field_ppm[VOID].any()
    assert np.isinf(reliable.noise_ppm[VOID]).all()
    known = BRAIN & ~VOID & (X > -13)
    assert np.array_equal(found[~known], single[~known])
    assert np.median(found[known]) == pytest.approx(np.median(single[known]), abs=1e-6)
    slope = np.polyfit(X[known], found[known], 1)[0]
    assert slope == pytest.approx(0.02, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [("quality_threshold", 0.01), ("noise_factor", 1000.0)],
)
def test_either_mark_makes_a_voxel_unreliable(name, value) -> None:
    """The quality alone leaves the void out, and so does its noise."""
    total, quality = head(3.0)
    masks: list[np.ndarray] = []

    def invert(reliable: FieldMap) -> tuple[np.ndarray, np.ndarray]:
        masks.append(reliable.mask)
        return reliable.field_ppm, reliable.mask

    two_pass(total, quality, total.field_ppm, invert, **{name: value})
    assert np.array_equal(masks[0], BRAIN & ~VOID)
    both = {"quality_threshold": 0.01, "noise_factor": 1000.0}
    assert two_pass(total, quality, total.field_ppm, invert, **both) is total.field_ppm
    assert len(masks) == 1


def test_without_unreliable_or_reliable_voxels_there_is_one_pass() -> None:
    total, quality = head(0.0)

    def never(_: FieldMap) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError

    chi_ppm = total.field_ppm
    assert two_pass(total, quality, chi_ppm, never) is chi_ppm
    assert two_pass(total, np.zeros_like(quality), chi_ppm, never) is chi_ppm
    assert off(total, quality, chi_ppm, never) is chi_ppm
    assert set(METHODS) == {"off", "two-pass"}
