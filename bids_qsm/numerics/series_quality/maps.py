"""Metrics of the maps: field, masks, background that is left, streaks, noise in fluid."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.distance import distance_mm
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    Bool,
    Float32,
    Geometry,
    bounding_box,
    dipole_kernel,
    forward_fft,
    frequencies,
    pad,
    padded_geometry,
)
from bids_qsm.numerics.series_quality.echoes import DARK, middle_of
from bids_qsm.numerics.series_quality.metrics import Value

EDGE_MM = 5.0
_COARSE_MM = 2.0
"""Voxels of this size are fine enough to tell the edge from the inside."""
_CONE = 0.1
"""Largest magnitude of the dipole kernel that counts as its cone of zeros."""
_MOST_VOXELS = 96
_SAMPLES = 100_000
_LEAST_VOXELS = 8
"""Along each axis, of a box whose k-space is looked at."""


def field_values(field_hz: Float32, noise_hz: Float32, mask: Bool) -> list[Value]:
    """Measure the total field in a mask: its noise and its range."""
    voxels = np.flatnonzero(mask)
    voxels = voxels[:: max(1, voxels.size // _SAMPLES)]
    field, noise = field_hz.reshape(-1)[voxels], noise_hz.reshape(-1)[voxels]
    known = np.isfinite(noise)
    if not known.any():
        return [("field_noise", "field", float("nan")), ("field_range", "field", float("nan"))]
    low, high = np.percentile(field[known].astype(np.float64), (1, 99))
    return [
        ("field_noise", "field", float(np.median(noise[known]))),
        ("field_range", "field", float(high - low)),
    ]


def mask_values(local: FieldMap, brain: Bool) -> list[Value]:
    """Measure the mask of the local field against the brain."""
    n_mask, n_brain = np.count_nonzero(local.mask), np.count_nonzero(brain)
    if not n_mask or not n_brain:
        return [(key, "mask", float("nan")) for key in ("mask_leak", "brain_left_out")]
    voxels = np.flatnonzero(brain)
    level = np.median(local.magnitude.reshape(-1)[voxels[:: max(1, n_brain // _SAMPLES)]])
    leak = local.mask & (~brain | (local.magnitude < DARK * level))
    left_out = np.count_nonzero(brain & ~local.mask)
    return [
        ("mask_leak", "mask", float(np.count_nonzero(leak) / n_mask)),
        ("brain_left_out", "mask", float(left_out / n_brain)),
    ]


def local_values(local: FieldMap, ppm_hz: float) -> list[Value]:
    """Measure what is left of the background: its strength, and how much lies at the edge.

    Parameters
    ----------
    local : FieldMap
    ppm_hz : float
        1 ppm of B0 in Hz.

    Notes
    -----
    Memory: one volume of float64 on a grid of about 2 mm.
    """
    if not local.mask.any():
        return [(key, "local field", float("nan")) for key in ("local_field", "edge_background")]
    box = bounding_box(local.mask)
    voxel_mm = local.geometry.voxel_mm
    steps = [max(1, int(_COARSE_MM / v)) for v in voxel_mm]
    coarse = tuple(slice(None, None, step) for step in steps)
    mask, field = local.mask[box][coarse], local.field_ppm[box][coarse]
    # what lies beyond the box is outside, too
    coarse_mm = [v * step for v, step in zip(voxel_mm, steps, strict=True)]
    depth = distance_mm(np.pad(mask, 1), coarse_mm)[1:-1, 1:-1, 1:-1]
    inside = depth > EDGE_MM
    edge, rest = (_spread(field[part]) for part in (mask & ~inside, inside))
    strength = float(np.sqrt(np.mean(field[mask].astype(np.float64) ** 2)))
    return [
        ("local_field", "local field", ppm_hz * strength),
        ("edge_background", "local field", edge / rest if rest > 0 else float("nan")),
    ]


def _spread(values: Float32) -> float:
    """Return the median distance to the median: veins and air spaces at the edge are few."""
    return float(np.median(np.abs(values - np.median(values)))) if values.size else float("nan")


def chi_values(chi_ppm: Float32, mask: Bool, fluid: Bool | None, geometry: Geometry) -> list[Value]:
    """Measure susceptibility; ``fluid`` is the reference region, None where that is another."""
    spread = float("nan")
    if fluid is not None and fluid.any():
        spread = float(chi_ppm[fluid].std(dtype=np.float64))
    return [
        ("streaks", "susceptibility", streak_index(chi_ppm, mask, geometry)),
        ("csf_noise", "susceptibility", spread),
    ]


def streak_index(chi_ppm: Float32, mask: Bool, geometry: Geometry) -> float:
    """Return the power near the dipole kernel's cone of zeros over that elsewhere.

    The middle of the brain is taken, faded out with a Hann window, so that the mask's edge is
    not seen.  The two powers are compared at the same ``|k|``, from four periods on.

    Parameters
    ----------
    chi_ppm : ndarray of float32, shape (x, y, z)
    mask : ndarray of bool, shape (x, y, z)
    geometry : Geometry

    Returns
    -------
    float
        NaN for a brain of few voxels.

    References
    ----------
    Milovic et al. 2021, 10.1002/mrm.28435 (the regions of k-space, to choose a regularisation).
    """
    part = middle_of(mask, _MOST_VOXELS, 0.6)
    volume = chi_ppm[part].astype(np.float32)
    if min(volume.shape) < _LEAST_VOXELS or not mask[part].any():
        return float("nan")
    volume -= volume[mask[part]].mean(dtype=np.float64)
    volume *= mask[part]
    for axis, n in enumerate(volume.shape):
        window = np.hanning(n + 2)[1:-1].astype(np.float32)
        volume *= window.reshape([-1 if a == axis else 1 for a in range(3)])
    padded = padded_geometry(geometry.with_shape(volume.shape), (0, 0, 0))
    spectrum = forward_fft(pad(volume, padded.shape))
    power = spectrum.real.astype(np.float64) ** 2 + spectrum.imag.astype(np.float64) ** 2
    kx, ky, kz = frequencies(padded)
    k = np.sqrt(kx**2 + ky**2 + kz**2)
    step = 1 / min(n * v for n, v in zip(volume.shape, geometry.voxel_mm, strict=True))
    known = (k > 4 * step) & (k < 0.5 / max(geometry.voxel_mm))
    cone = np.abs(dipole_kernel(padded)) < _CONE
    shell = (k / step).astype(np.int64)
    return _ratio(power[known], shell[known], cone[known])


def _ratio(power: np.ndarray, shell: np.ndarray, cone: np.ndarray) -> float:
    """Return the summed power of the cone over what it would be at the others' mean by shell."""
    n = int(shell.max()) + 1 if shell.size else 1
    in_cone, others = np.bincount(shell[cone], minlength=n), np.bincount(shell[~cone], minlength=n)
    rest = np.bincount(shell[~cone], power[~cone], minlength=n)
    usable = (in_cone > 0) & (others > 0)
    expected = (rest[usable] / others[usable] * in_cone[usable]).sum()
    found = np.bincount(shell[cone], power[cone], minlength=n)[usable].sum()
    return float(found / expected) if expected > 0 else float("nan")
