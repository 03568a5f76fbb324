"""Metrics of the images as they were acquired: noise, ghosts, scale of the phase, lost signal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.geometry import Bool, Float32, bounding_box
from bids_qsm.numerics.noise import sigma_from_details
from bids_qsm.numerics.phase import TURN, large_scale_spread_rad, wrap
from bids_qsm.numerics.series_quality.metrics import Value

DARK = 0.2
"""Of the brain's median magnitude."""
_MOST_VOXELS = 64
"""Along each axis, of the part in which noise is measured."""
_SAMPLES = 50_000
_GHOST_VOXELS, _LARGE_SCALE_VOXELS, _SLICE_VOXELS = 64, 40, 32
"""Along each axis: what is looked for is found on coarse grids."""
_HEAD = 0.6
_GHOST_MARGIN_MM = 8.0
_LEAST_AIR = 100
"""Voxels, of what is compared for ghosts."""
_AXES = ("first axis", "second axis", "third axis")
_MAD_OF_UNIT_NORMAL = 0.674490


def echo_values(
    magnitude: Float32,
    phase: Float32 | None,
    te_s: Sequence[float],
    brain: Bool,
    voxel_mm: tuple[float, float, float],
) -> list[Value]:
    """Measure the images of a series.

    Parameters
    ----------
    magnitude, phase : ndarray of float32, shape (x, y, z, echo)
        Any unit, and wrapped (rad); phase may be None.
    te_s : sequence of float
        Rising.
    brain : ndarray of bool, shape (x, y, z)
    voxel_mm : tuple of float

    Returns
    -------
    list of Value

    Notes
    -----
    Memory: two volumes of one echo.
    """
    first = np.ascontiguousarray(magnitude[..., 0])
    inside = first.reshape(-1)[_sampled(np.flatnonzero(brain))]
    level = float(np.median(inside)) if inside.size else 0.0
    part = middle_of(brain, _MOST_VOXELS)
    sigma = sigma_from_details(first[part], brain[part])
    values: list[Value] = [
        ("snr", "first echo", level / sigma if sigma > 0 else float("nan")),
        ("clipping", "first echo", _clipped(first, brain)),
        ("dark_brain", "first echo", _share(inside < DARK * level)),
        ("dark_slice", "magnitude", _darkest_slice(magnitude, brain)),
        ("echo_rise", "magnitude", _largest_rise(magnitude, brain)),
    ]
    ghosts = ghost_to_signal(first, level, voxel_mm)
    values += [("ghosting", axis, ghost) for axis, ghost in zip(_AXES, ghosts, strict=True)]
    if phase is not None:
        sample = _sampled(phase.reshape(-1))
        levels = np.unique(_sampled(phase.reshape(-1, len(te_s)))[:, 0]).size
        coarse = coarse_steps(first.shape, _LARGE_SCALE_VOXELS)
        spread = large_scale_spread_rad(phase[coarse], magnitude[coarse], te_s)
        values += [
            ("phase_noise", "first echo", phase_noise_rad(phase[..., 0][part], brain[part])),
            ("phase_span", "phase", float(np.ptp(sample) / TURN)),
            ("phase_levels", "phase", float(levels)),
            ("large_scale_phase", "phase", spread),
        ]
    return values


def middle_of(mask: Bool, most_voxels: int, share: float = 1.0) -> tuple[slice, ...]:
    """Return the middle part of a mask's bounding box; of an empty mask, of the array."""
    box = bounding_box(mask) if mask.any() else tuple(slice(0, n) for n in mask.shape)
    part = []
    for span in box:
        size = min(most_voxels, max(1, round(share * (span.stop - span.start))))
        start = (span.start + span.stop - size) // 2
        part.append(slice(start, start + size))
    return tuple(part)


def phase_noise_rad(phase: Float32, mask: Bool) -> float:
    """Return the standard deviation of the noise of wrapped phase, from its finest detail.

    The mixed difference over 2 x 2 x 2 voxels, wrapped: smooth phase has none, and whole turns
    fall out.  It holds the noise of eight voxels.

    Returns
    -------
    float
        NaN where no such block lies in the mask.
    """
    detail, inside = np.asarray(phase, np.float32), mask
    for axis in range(3):
        detail = np.diff(detail, axis=axis)
        n = inside.shape[axis]
        inside = inside.take(range(n - 1), axis) & inside.take(range(1, n), axis)
    found = np.abs(wrap(detail[inside]))
    if not found.size:
        return float("nan")
    return float(np.median(found) / (_MAD_OF_UNIT_NORMAL * np.sqrt(8)))


def ghost_to_signal(
    magnitude: Float32, level: float, voxel_mm: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Return how much brighter the air beside the head is than that of the corners, by axis.

    A ghost is the head shifted along an axis: it lies on lines along that axis which pass
    through the head.  Lines of the corners' voxels pass it along all axes.

    Parameters
    ----------
    magnitude : ndarray of float32, shape (x, y, z)
    level : float
        Of the brain; the head has more than three fifths of it, a ghost less.
    voxel_mm : tuple of float

    Returns
    -------
    tuple of float
        Over the brain's level; NaN along an axis with no air beside the head, and without corners.
    """
    steps = coarse_steps(magnitude.shape, _GHOST_VOXELS)
    small = magnitude[steps]
    near = small > _HEAD * level
    for axis in range(3):
        reach = round(_GHOST_MARGIN_MM / (voxel_mm[axis] * steps[axis].step))
        near = ndimage.maximum_filter1d(near, 2 * reach + 1, axis=axis)
    hit = [np.broadcast_to(near.any(axis=axis, keepdims=True), near.shape) for axis in range(3)]
    corners = ~(hit[0] | hit[1] | hit[2])
    if not near.any() or np.count_nonzero(corners) < _LEAST_AIR:
        nan = float("nan")
        return nan, nan, nan
    air = small[corners].mean(dtype=np.float64)
    found = []
    for axis in range(3):
        beside = hit[axis] & ~near
        enough = np.count_nonzero(beside) >= _LEAST_AIR
        mean = small[beside].mean(dtype=np.float64) if enough else np.nan
        found.append(float((mean - air) / level))
    return found[0], found[1], found[2]


def _sampled(values: NDArray[Any]) -> NDArray[Any]:
    """Return some rows, evenly spread; the step is odd, so that it rests on no axis."""
    return values[:: max(1, values.shape[0] // _SAMPLES) | 1]


def coarse_steps(shape: tuple[int, ...], voxels: int) -> tuple[slice, ...]:
    """Return the steps that leave at least so many voxels along each axis, where there are."""
    return tuple(slice(None, None, max(1, n // voxels)) for n in shape)


def _share(found: Bool) -> float:
    return float(found.mean()) if found.size else float("nan")


def _clipped(first: Float32, brain: Bool) -> float:
    """Return the number of the brightest voxels over that of the brain, one voxel being none."""
    # scaling by a slope rounds the stored values
    brightest = int(np.count_nonzero(first >= first.max() * np.float32(1 - 1e-6)))
    return (brightest - 1) / max(1, int(np.count_nonzero(brain)))


def _darkest_slice(magnitude: Float32, brain: Bool) -> float:
    """Return the least ratio of a slice's magnitude to its neighbours', over axes and echoes."""
    least = np.nan
    for axis in range(3):
        others = tuple({0, 1, 2} - {axis})
        steps = list(coarse_steps(brain.shape, _SLICE_VOXELS))
        steps[axis] = slice(None)
        part = tuple(steps)
        area = np.count_nonzero(brain[part], axis=others)
        for echo in {0, magnitude.shape[3] - 1}:
            sums = (magnitude[..., echo][part] * brain[part]).sum(axis=others, dtype=np.float64)
            level = sums / np.maximum(area, 1)
            usable = area > 0.3 * area.max()
            inner = usable[1:-1] & usable[:-2] & usable[2:]
            around = (level[:-2] + level[2:])[inner] / 2
            ratios = level[1:-1][inner] / np.maximum(around, np.finfo(np.float32).tiny)
            if ratios.size:
                least = np.fmin(least, ratios.min())
    return float(least)


def _largest_rise(magnitude: Float32, brain: Bool) -> float:
    """Return the largest ratio of the magnitude in an echo to the one before; NaN with one echo."""
    voxels = _sampled(np.flatnonzero(brain))
    if magnitude.shape[3] < 2 or not voxels.size:
        return float("nan")
    levels = np.median(magnitude.reshape(-1, magnitude.shape[3])[voxels], axis=0)
    return float((levels[1:] / np.maximum(levels[:-1], np.finfo(np.float32).tiny)).max())
