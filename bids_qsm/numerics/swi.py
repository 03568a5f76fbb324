"""Susceptibility-weighted images: the magnitude, darkened where the phase shows iron or veins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit, prange
from scipy import fft, ndimage

from bids_qsm.numerics.geometry import Bool, Float32, Geometry
from bids_qsm.numerics.masking import magnitude_mask
from bids_qsm.numerics.poisson import solve_poisson
from bids_qsm.numerics.registry import Methods


def clear(
    phase: Float32,
    magnitude: Float32,
    te_s: Sequence[float],
    geometry: Geometry,
    *,
    filter_mm: float = 4.0,
    mask_power: float = 4.0,
    mask_width: float = 4.0,
    sensitivity_mm: float = 30.0,
    knee: float = 0.3,
) -> Float32:
    r"""Weight a homogeneous magnitude of all echoes by the field of all echoes (CLEAR-SWI).

    The phase differences of neighbours are wrapped and fitted over the echoes; the field whose
    Laplacian follows from them has no wraps, and a Gaussian takes its large scales away.
    The magnitude is the root sum of squares over the echoes, less the receive sensitivity.  A
    softplus takes the darkest part of it further down: vessels stand out, and air is black.

    The phase mask is :math:`(1 + e^{2(\phi/w - 1)})^{-p}` relative to its value at zero, and 1 for
    a negative phase: a softplus in the exponent, smooth where the classic mask has corners.  Its
    width *w* goes with the phase that the head itself has, not with field strength or TE.

    Parameters
    ----------
    phase : ndarray of float32, shape (x, y, z, echo)
        Wrapped, in radians, positive where the field is higher.  A smooth offset does not matter.
    magnitude : ndarray of float32, shape (x, y, z, echo)
        In any unit.
    te_s : sequence of float
        Echo times.
    geometry : Geometry
    filter_mm : float
        Standard deviation of the Gaussian: larger structures lose their phase.
    mask_power : float
        The exponent *p*.
    mask_width : float
        The width *w*, in medians of the positive phase in the head; less makes veins darker, and
        noise and tissue too.
    sensitivity_mm : float
        Standard deviation of the Gaussian that smooths the receive sensitivity.
    knee : float
        Where the softplus bends, as part of the head's median; 0 leaves the magnitude as it is.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Of the head's median one or a little less.  Memory: some eight volumes.

    Raises
    ------
    ValueError
        If the shapes and echo times disagree, or a length or width is not positive.

    References
    ----------
    Eckstein et al. 2021, 10.1016/j.neuroimage.2021.118175; Schofield and Zhu 2003,
    10.1364/OL.28.001194 (the Laplacian).
    """
    _check(phase, magnitude, te_s, geometry)
    if min(filter_mm, mask_power, mask_width, sensitivity_mm) <= 0 or knee < 0:
        raise ValueError("The options of CLEAR-SWI must be positive; only 'knee' may be 0.")
    combined = _root_sum_of_squares(magnitude)
    head = magnitude_mask(combined)
    field = _filtered_field(phase, magnitude, te_s, head, geometry, filter_mm)
    positive = field[head & (field > 0)]
    width = mask_width * float(np.median(positive)) if positive.size else 1.0
    even = _homogeneous(combined, head, geometry, sensitivity_mm)
    if knee > 0:
        even = _softplus(even, knee)
    return even * _soft_mask(field / np.float32(width)) ** np.float32(mask_power)


def classic(
    phase: Float32,
    magnitude: Float32,
    te_s: Sequence[float],
    geometry: Geometry,
    *,
    filter_mm: float = 8.0,
    mask_power: float = 4.0,
    long_te_s: float = 0.02,
) -> Float32:
    r"""Weight the magnitude of one echo by its homodyne-filtered phase (Haacke 2004).

    In each plane across the slice axis the complex image is divided by its own low frequencies
    (a Hann window).  The mask falls from 1 at zero phase to 0 at :math:`\pi`.

    Parameters
    ----------
    phase, magnitude, te_s, geometry
        As in :func:`clear`.
    filter_mm : float
        Shortest wavelength within the window: longer ones lose their phase.  8 mm are the usual
        64 of 512 samples over 256 mm.
    mask_power : float
        How often the mask is multiplied.
    long_te_s : float
        The echo whose time is nearest to this is used.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        In the unit of the magnitude.  Memory: some six volumes.

    References
    ----------
    Haacke et al. 2004, 10.1002/mrm.20198; Noll et al. 1991, 10.1109/42.79473 (homodyne).
    """
    _check(phase, magnitude, te_s, geometry)
    if min(filter_mm, mask_power) <= 0:
        raise ValueError("The options of the classic SWI must be positive.")
    echo = int(np.argmin(np.abs(np.asarray(te_s) - long_te_s)))
    filtered = _homodyne(phase[..., echo], magnitude[..., echo], geometry, filter_mm)
    mask = np.clip(1 - filtered / np.pi, 0, 1) ** mask_power
    return (magnitude[..., echo] * mask).astype(np.float32)


METHODS: Methods = {"clear": clear, "classic": classic}


def minimum_intensity_projection(
    image: Float32, mask: Bool, geometry: Geometry, *, thickness_mm: float = 16.0
) -> Float32:
    """Return the lowest value in a slab around each slice.

    The slab slides along the axis that is nearest to B0, so that veins are seen along their course
    in axial slices, whatever the order of the axes.  It holds an odd number of slices.

    Parameters
    ----------
    image : ndarray of float32, shape (x, y, z)
    mask : ndarray of bool, shape (x, y, z)
        The brain: the dark skull around it is left out.
    geometry : Geometry
    thickness_mm : float
        Of the slab.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Zero outside the mask.  Memory: two volumes.
    """
    axis = int(np.argmax(np.abs(geometry.b0_direction)))
    slices = 2 * round((thickness_mm / geometry.voxel_mm[axis] - 1) / 2) + 1
    inside = np.where(mask, image, np.float32(np.inf))
    lowest = ndimage.minimum_filter1d(inside, max(slices, 1), axis, mode="constant", cval=np.inf)
    return np.where(mask, lowest, np.float32(0))


def _check(phase: Float32, magnitude: Float32, te_s: Sequence[float], geometry: Geometry) -> None:
    expected = (*geometry.shape, len(te_s))
    if phase.shape != expected or magnitude.shape != expected:
        raise ValueError(
            f"phase {phase.shape} and magnitude {magnitude.shape} must fit the grid "
            f"{geometry.shape} and the {len(te_s)} echo times."
        )


def _root_sum_of_squares(magnitude: Float32) -> Float32:
    known = np.nan_to_num(magnitude, posinf=0.0, neginf=0.0)
    squares: Float32 = np.einsum("...e,...e->...", known, known)
    return np.sqrt(squares)


def _filtered_field(
    phase: Float32,
    magnitude: Float32,
    te_s: Sequence[float],
    head: Bool,
    geometry: Geometry,
    sigma_mm: float,
) -> Float32:
    """Return the field (rad/s) of all echoes, high-pass filtered; zero outside the head."""
    steps = _field_steps(phase, magnitude, np.asarray(te_s, np.float64), head)
    field = solve_poisson(steps, head, tolerance=1e-2)
    field -= _local_mean(field, head, geometry, sigma_mm)
    field[~head] = 0
    return field


@njit(parallel=True, cache=True)
def _field_steps(phase, magnitude, te_s, head):  # type: ignore[no-untyped-def]
    """Return the steps of the field (rad/s) between neighbours in the head, else zero.

    A step is the least-squares slope of the wrapped phase differences over the echo times.
    """
    nx, ny, nz = head.shape
    steps = np.zeros((3, nx, ny, nz), np.float32)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                for axis in range(3):
                    i, j, k = x + (axis == 0), y + (axis == 1), z + (axis == 2)
                    if i == nx or j == ny or k == nz or not (head[x, y, z] and head[i, j, k]):
                        continue
                    products = squares = 0.0
                    for e in range(te_s.size):
                        step = np.float64(phase[i, j, k, e]) - phase[x, y, z, e]
                        weight = np.float64(magnitude[i, j, k, e]) * magnitude[x, y, z, e]
                        step -= 2 * np.pi * np.rint(step / (2 * np.pi))
                        products += weight * te_s[e] * step
                        squares += weight * te_s[e] ** 2
                    if squares > 0 and np.isfinite(products):
                        steps[axis, x, y, z] = products / squares
    return steps


def _local_mean(values: Float32, head: Bool, geometry: Geometry, sigma_mm: float) -> Float32:
    """Return the Gaussian mean of the head's values around each voxel; it ends smoothly outside."""
    sigma = [sigma_mm / v for v in geometry.voxel_mm]
    inside = np.where(head, values, np.float32(0))
    total: Float32 = ndimage.gaussian_filter(inside, sigma, mode="constant")
    share = ndimage.gaussian_filter(head.astype(np.float32), sigma, mode="constant")
    total /= np.maximum(share, np.float32(1e-3))
    return total


def _soft_mask(phase: Float32) -> Float32:
    """Return a logistic that is one at zero and below, and falls to zero over widths of one."""
    fall = np.exp(-np.logaddexp(np.float32(0), 2 * (phase - 1)))
    return np.minimum(fall * np.float32(1 + np.exp(-2)), np.float32(1))


def _homogeneous(magnitude: Float32, head: Bool, geometry: Geometry, sigma_mm: float) -> Float32:
    """Return the magnitude over its local mean within the head, of median one there."""
    if not head.any():
        return magnitude
    sensitivity = _local_mean(magnitude, head, geometry, sigma_mm)
    least = max(np.float32(0.05) * np.median(sensitivity[head]), np.finfo(np.float32).tiny)
    even = magnitude / np.maximum(sensitivity, least)
    return even / np.median(even[head])


def _softplus(values: Float32, knee: float) -> Float32:
    """Return values bent down below the knee, zero at zero and nearly unchanged in slope above."""
    steepness = np.float32(2 / knee)
    bend = np.logaddexp(np.float32(0), steepness * (values - np.float32(knee)))
    at_zero, at_one = np.logaddexp(0, [-2.0, float(steepness) * (1 - knee)])
    return (bend - np.float32(at_zero)) / np.float32(at_one - at_zero)


def _homodyne(
    phase: Float32, magnitude: Float32, geometry: Geometry, wavelength_mm: float
) -> Float32:
    """Return the phase of a complex image over its low frequencies in each plane."""
    slice_axis = int(np.argmax(np.abs(geometry.b0_direction)))
    in_plane = tuple(axis for axis in range(3) if axis != slice_axis)
    signal = (np.nan_to_num(magnitude) * np.exp(1j * np.nan_to_num(phase))).astype(np.complex64)
    smooth = fft.fftn(signal, axes=in_plane)
    for axis in in_plane:
        n, size_mm = geometry.shape[axis], geometry.voxel_mm[axis]
        position = np.minimum(np.abs(np.fft.fftfreq(n, size_mm)) * wavelength_mm, 1)
        hann = (0.5 + 0.5 * np.cos(np.pi * position)).astype(np.float32)
        smooth *= hann.reshape([-1 if i == axis else 1 for i in range(3)])
    smooth = fft.ifftn(smooth, axes=in_plane, overwrite_x=True)
    return np.angle(signal * np.conj(smooth)).astype(np.float32)
