"""Removal of the phase that the receive coils give: the phase at an echo time of zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_qsm.numerics.geometry import Bool, Float32, Geometry, bounding_box, place
from bids_qsm.numerics.phase import wrap
from bids_qsm.numerics.smoothing import smooth_phase
from bids_qsm.numerics.unwrapping import unwrap_volume

_EVEN_SPACING = 0.02
_BIPOLAR_PHASE_RAD = 0.5
"""Across the mask; what is not linear in time in the tissue itself stays below 0.1."""


@dataclass(frozen=True)
class OffsetResult:
    """Phase without its offset.

    Attributes
    ----------
    phase : ndarray of float32, shape (x, y, z, echo)
        Wrapped to (-pi, pi]; outside the mask it is as it came.
    offset_rad : ndarray of float32, shape (x, y, z)
        What was taken off (with bipolar read-out: off the first echo); zero outside the mask.
    warnings : tuple of str
    """

    phase: Float32
    offset_rad: Float32
    warnings: tuple[str, ...] = ()


def off(
    phase: Float32, magnitude: Float32, te_s: Sequence[float], mask: Bool, geometry: Geometry
) -> OffsetResult:
    """Leave the phase as it is."""
    return OffsetResult(phase, np.zeros(geometry.shape, np.float32))


def mcpc3ds(
    phase: Float32,
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    geometry: Geometry,
    *,
    sigma_mm: float = 7.0,
    bipolar: bool = False,
) -> OffsetResult:
    """Remove the phase offset of coil-combined echoes (MCPC-3D-S).

    The unwrapped phase difference of two echoes gives the phase that the field has brought by
    the first of them; the rest of that echo's phase, smoothed, is the offset.

    With bipolar read-out, gradient delays give odd and even echoes different offsets.  Two odd
    echoes then give the field, and the even echoes' own offset is found in the same way.

    Parameters
    ----------
    phase : ndarray of float32, shape (x, y, z, echo)
        Wrapped, in radians; overwritten.
    magnitude : ndarray of float32, shape (x, y, z, echo)
    te_s : sequence of float
        Echo times, rising; they need not be evenly spaced.
    mask : ndarray of bool, shape (x, y, z)
    geometry : Geometry
    sigma_mm : float
        Standard deviation of the Gaussian that smooths the offset.
    bipolar : bool
        Whether every second echo was read in the opposite direction; needs three echoes.  If it
        is not set and the phase alternates from echo to echo, there is a warning.

    Returns
    -------
    OffsetResult

    Raises
    ------
    ValueError
        If the mask is empty.

    References
    ----------
    Eckstein et al. 2018, 10.1002/mrm.26963.
    """
    if len(te_s) == 1:
        warning = "One echo does not tell the phase offset from the field; it was not removed."
        return OffsetResult(phase, np.zeros(geometry.shape, np.float32), (warning,))
    warnings: tuple[str, ...] = ()
    if bipolar and len(te_s) < 3:
        warnings = ("Two echoes do not tell the bipolar read-out's phase; it was not removed.",)
        bipolar = False
    elif not bipolar and looks_bipolar(phase, magnitude, te_s, mask):
        warnings = (
            "The phase alternates from echo to echo, as with bipolar read-out; if that is what it "
            "was, put `bipolar = true` under `[offset]` in the settings file.",
        )
    second = 2 if bipolar else second_echo(te_s)
    box = bounding_box(mask)
    inside = np.ascontiguousarray(mask[box])
    grid = geometry.with_shape(inside.shape)
    views = phase[box], magnitude[box]
    field_rad_per_s = _field_from_difference(*views, te_s, second, inside)
    offsets = [
        _smooth_offset(*views, te_s[echo], echo, field_rad_per_s, inside, grid, sigma_mm)
        for echo in range(2 if bipolar else 1)
    ]
    for echo in range(len(te_s)):
        offset = offsets[echo % len(offsets)]
        corrected = views[0][..., echo]
        corrected[inside] = wrap((corrected - offset)[inside])
    return OffsetResult(phase, place(offsets[0], box, mask.shape), warnings)


def looks_bipolar(phase: Float32, magnitude: Float32, te_s: Sequence[float], mask: Bool) -> bool:
    """Return whether the phase alternates from echo to echo, as after bipolar read-out.

    Of three evenly spaced echoes, the phase of the first and third less twice that of the second
    is nil; with bipolar read-out it is a ramp, or a constant.  Whole turns do not matter.

    Parameters
    ----------
    phase, magnitude : ndarray of float32, shape (x, y, z, echo)
        Phase wrapped, in radians; magnitude in any unit.
    te_s : sequence of float
        With fewer than three echoes, or unevenly spaced ones, the answer is no.
    mask : ndarray of bool, shape (x, y, z)
    """
    if len(te_s) < 3 or abs((te_s[2] - te_s[1]) / (te_s[1] - te_s[0]) - 1) > _EVEN_SPACING:
        return False
    box = bounding_box(mask)
    bend = phase[box][..., 0] - 2 * phase[box][..., 1] + phase[box][..., 2]
    strength = magnitude[box][..., 2] * mask[box]
    phasor = strength * np.exp(1j * bend)
    total = phasor.sum(dtype=np.complex128)
    if (
        abs(total) > 0.5 * strength.sum(dtype=np.float64)
        and abs(np.angle(total)) > _BIPOLAR_PHASE_RAD
    ):
        return True
    for axis, n in enumerate(phasor.shape):
        low, high = (np.moveaxis(phasor, axis, 0)[part] for part in (slice(-1), slice(1, None)))
        step = np.angle((high * np.conjugate(low)).sum(dtype=np.complex128))
        if abs(step) * (n - 1) > _BIPOLAR_PHASE_RAD:
            return True
    return False


def second_echo(te_s: Sequence[float]) -> int:
    """Return the echo to set against the first.

    It is the second, unless the first comes so late that its phase would be extrapolated by more
    than twice the spacing, which lets noise and misfit grow: then the next that is far enough.
    """
    for echo in range(1, len(te_s)):
        if te_s[0] <= 2 * (te_s[echo] - te_s[0]):
            return echo
    return len(te_s) - 1


def _field_from_difference(
    phase: Float32, magnitude: Float32, te_s: Sequence[float], second: int, mask: Bool
) -> Float32:
    """Return the angular frequency from the unwrapped Hermitian product of two echoes."""
    difference = wrap(phase[..., second] - phase[..., 0])
    strength = np.sqrt(magnitude[..., 0] * magnitude[..., second])
    unwrapped = unwrap_volume(difference, strength, mask)
    return unwrapped / np.float32(te_s[second] - te_s[0])


def _smooth_offset(
    phase: Float32,
    magnitude: Float32,
    te_s: float,
    echo: int,
    field_rad_per_s: Float32,
    mask: Bool,
    geometry: Geometry,
    sigma_mm: float,
) -> Float32:
    """Return what the field does not explain of an echo's phase, smoothed."""
    strength = np.ascontiguousarray(magnitude[..., echo])
    rest = wrap(phase[..., echo] - field_rad_per_s * np.float32(te_s))
    rest = unwrap_volume(rest, strength, mask)  # the smoothing's polynomial needs it
    weights = strength[mask].astype(np.float64) ** 2
    smooth = np.zeros(mask.shape, np.float32)
    smooth[mask] = smooth_phase(rest[mask].astype(np.float64), weights, mask, geometry, sigma_mm)
    return smooth


METHODS = {"mcpc3ds": mcpc3ds, "off": off}
