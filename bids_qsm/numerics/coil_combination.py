"""One complex image for each echo from the images of the single receive coils."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bids_qsm.numerics.coils import second_echo
from bids_qsm.numerics.geometry import Float32, Geometry
from bids_qsm.numerics.smoothing import blurred
from bids_qsm.numerics.unwrapping import unwrap_volume

Complex64 = NDArray[np.complex64]


def combine_coils(
    signal_of: Callable[[int], Complex64],
    n_coils: int,
    te_s: Sequence[float],
    geometry: Geometry,
    *,
    sigma_mm: float = 7.0,
) -> tuple[Float32, Float32]:
    """Combine uncombined coils without a reference scan (MCPC-3D-S).

    The phase that the field brings between two echoes, summed over the coils, is taken off each
    coil's first echo; what is left, smoothed, is that coil's sensitivity with its phase offset.
    Weighted by the conjugate sensitivities the coils add up in phase.  What the field's estimate
    has wrong (with bipolar read-out: a ramp) is common to all coils and stays in the phase as an
    offset, for the removal of which see ``coils.py``.

    Parameters
    ----------
    signal_of : callable
        Returns the complex signal of the coil with a number from 0, shape (x, y, z, echo); it is
        called twice for each coil.
    n_coils : int
    te_s : sequence of float
        Echo times, rising; two at least.
    geometry : Geometry
    sigma_mm : float
        Standard deviation of the Gaussian that smooths the sensitivities.

    Returns
    -------
    magnitude, phase : ndarray of float32, shape (x, y, z, echo)
        The magnitude is scaled as the root of the coils' sum of squares, but its noise is that of
        one coil; the phase is wrapped, in radians.  Memory: what two coils have, and ten volumes.

    Raises
    ------
    ValueError
        If there is a single echo, which does not tell the coils' phase from the field's.

    References
    ----------
    Eckstein et al. 2018, 10.1002/mrm.26963; weights: Roemer et al. 1990, 10.1002/mrm.1910160203.
    """
    if len(te_s) < 2:
        raise ValueError("The coils of a single echo cannot be combined: two echoes are needed.")
    without_field = np.exp(-1j * _field_phase(signal_of, n_coils, te_s, geometry)).astype(
        np.complex64
    )
    combined = np.zeros((*geometry.shape, len(te_s)), np.complex64)
    squares = np.zeros(geometry.shape, np.float32)
    for coil in range(n_coils):
        signal = signal_of(coil)
        sensitivity = signal[..., 0] * without_field
        for part in (sensitivity.real, sensitivity.imag):
            part[...] = blurred(part, geometry.voxel_mm, sigma_mm)
        squares += sensitivity.real**2 + sensitivity.imag**2
        np.conjugate(sensitivity, out=sensitivity)
        for echo in range(len(te_s)):
            combined[..., echo] += sensitivity * signal[..., echo]
        del signal
    length = np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny))
    magnitude = np.abs(combined)
    magnitude /= length[..., None]
    return magnitude, np.angle(combined)


def _field_phase(
    signal_of: Callable[[int], Complex64], n_coils: int, te_s: Sequence[float], geometry: Geometry
) -> Float32:
    """Return the phase that the field brings by the first echo, whatever the coils' own phase."""
    second = second_echo(te_s)
    product = np.zeros(geometry.shape, np.complex64)
    for coil in range(n_coils):
        signal = signal_of(coil)
        product += np.conjugate(signal[..., 0]) * signal[..., second]
        del signal
    everywhere = np.ones(geometry.shape, np.bool_)
    unwrapped = unwrap_volume(np.angle(product), np.sqrt(np.abs(product)), everywhere)
    return unwrapped * np.float32(te_s[0] / (te_s[second] - te_s[0]))
