"""Removal of the phase that the receive coils give: the phase at an echo time of zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bids_qsm.numerics.bins import add_turns, bin_phasors, bins_of, echo_values, plane_starts
from bids_qsm.numerics.geometry import Bool, Float32, Geometry, bounding_box, place
from bids_qsm.numerics.phase import TURN
from bids_qsm.numerics.smoothing import smooth_phase
from bids_qsm.numerics.unwrapping import unwrap_volume

_EVEN_SPACING = 0.02
_OFFSET_LEFT_IN_RAD = 0.5
"""Circular standard deviation over the brain; tissue itself has below 0.1."""
_SLAB = 8
_FIELD_BIN_MM, _OFFSET_BIN_MM = 2.0, 4.0
"""Phase is unwrapped in bins of this size; within them it must not turn."""
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


def left_in(phase0_rad: Float32, mask: Bool) -> tuple[str, ...]:
    """Return a warning where the phase at an echo time of zero varies too much to be left in.

    Parameters
    ----------
    phase0_rad : ndarray of float32, shape (x, y, z)
        As the fit of the field has it.
    mask : ndarray of bool, shape (x, y, z)
    """
    known = phase0_rad[mask & np.isfinite(phase0_rad)]
    if not known.size:
        return ()
    # a constant does no harm, and whole turns are free
    phasor = np.exp(1j * known)
    resultant = abs(phasor.mean(dtype=np.complex128))
    spread_rad = float(np.sqrt(-2 * np.log(np.clip(resultant, 1e-12, 1.0))))
    if spread_rad < _OFFSET_LEFT_IN_RAD:
        return ()
    return (
        f"The phase at an echo time of zero varies by {spread_rad:.1f} rad over the brain: the "
        "coils' offset is in the phase, and may have put whole turns of echoes wrong; remove it "
        '(`[offset] method = "mcpc3ds"`).',
    )


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
    echoes = _Echoes(phase[box], magnitude[box], inside, plane_starts(inside), geometry.voxel_mm)
    field_rad_per_s = _field_from_difference(echoes, te_s, second)
    grid = geometry.with_shape(inside.shape)
    offsets = [
        _smooth_offset(echoes, te_s[echo], echo, field_rad_per_s, grid, sigma_mm)
        for echo in range(2 if bipolar else 1)
    ]
    _subtract(echoes.phase, np.stack(offsets), inside, echoes.starts)
    offset = np.zeros(inside.shape, np.float32)
    offset[inside] = offsets[0]
    return OffsetResult(phase, place(offset, box, mask.shape), warnings)


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
    sums = _bend_sums(phase[box], magnitude[box], np.ascontiguousarray(mask[box])).sum(axis=0)
    total, steps, strength = sums[0], sums[1:4], sums[4].real
    if abs(total) > 0.5 * strength and abs(np.angle(total)) > _BIPOLAR_PHASE_RAD:
        return True
    sizes = [side.stop - side.start for side in box]
    return any(
        abs(np.angle(step)) * (n - 1) > _BIPOLAR_PHASE_RAD
        for step, n in zip(steps, sizes, strict=True)
    )


@njit(parallel=True, cache=True)
def _bend_sums(phase, magnitude, mask):  # type: ignore[no-untyped-def]
    """Return sums over slabs of the phasors of the bend: their own, their steps', their lengths'.

    Returns
    -------
    ndarray of complex128, shape (slab, 5)
        Sum of the phasors; of their products with the next one's along x, y and z; of lengths.
    """
    nx, ny, nz = mask.shape
    sums = np.zeros((-(-nx // _SLAB), 5), np.complex128)
    for slab in prange(sums.shape[0]):
        before = np.zeros((ny, nz), np.complex64)
        here = np.zeros((ny, nz), np.complex64)
        start = slab * _SLAB
        # a slab's first step is to the plane before it
        for x in range(max(start - 1, 0), min(start + _SLAB, nx)):
            before, here = here, before
            for y in range(ny):
                for z in range(nz):
                    here[y, z] = 0
                    if mask[x, y, z]:
                        three = phase[x, y, z]
                        bend = three[0] - 2 * three[1] + three[2]
                        length = magnitude[x, y, z, 2]
                        here[y, z] = complex(length * np.cos(bend), length * np.sin(bend))
                        if x >= start:
                            sums[slab, 4] += length
            if x >= start:
                _add_sums(before, here, sums[slab])
    return sums


@njit(cache=True)
def _add_sums(before, here, sums):  # type: ignore[no-untyped-def]
    for y in range(here.shape[0]):
        for z in range(here.shape[1]):
            own = here[y, z]
            if own == 0:
                continue
            sums[0] += own
            sums[1] += own * np.conj(before[y, z])
            if y > 0:
                sums[2] += own * np.conj(here[y - 1, z])
            if z > 0:
                sums[3] += own * np.conj(here[y, z - 1])


def second_echo(te_s: Sequence[float]) -> int:
    """Return the echo to set against the first.

    It is the second, unless the first comes so late that its phase would be extrapolated by more
    than twice the spacing, which lets noise and misfit grow: then the next that is far enough.
    """
    for echo in range(1, len(te_s)):
        if te_s[0] <= 2 * (te_s[echo] - te_s[0]):
            return echo
    return len(te_s) - 1


@dataclass(frozen=True)
class _Echoes:
    """Phase and magnitude in the mask's box, the mask, and where its planes begin."""

    phase: Float32
    magnitude: Float32
    mask: Bool
    starts: NDArray[np.int64]
    voxel_mm: tuple[float, float, float]

    def phase_of(self, echo: int) -> Float32:
        return echo_values(self.phase, echo, self.mask, self.starts)

    def magnitude_of(self, echo: int) -> Float32:
        return echo_values(self.magnitude, echo, self.mask, self.starts)

    def unwrapped(self, phase: Float32, weights: Float32, bin_mm: float) -> Float32:
        """Unwrap, in place, the phase of the mask's voxels: the bins first, from them the rest."""
        bins = bins_of(bin_mm, self.voxel_mm)
        sums = bin_phasors(phase, weights, self.mask, self.starts, bins)
        strength = np.hypot(*sums)
        unwrapped = unwrap_volume(np.arctan2(sums[1], sums[0]), np.sqrt(strength), strength > 0)
        add_turns(phase, unwrapped, self.mask, self.starts, bins)
        return phase


def _field_from_difference(echoes: _Echoes, te_s: Sequence[float], second: int) -> Float32:
    """Return the voxels' angular frequency from the unwrapped Hermitian product of two echoes."""
    difference = echoes.phase_of(second) - echoes.phase_of(0)
    weights = echoes.magnitude_of(second) * echoes.magnitude_of(0)
    return echoes.unwrapped(difference, weights, _FIELD_BIN_MM) / np.float32(te_s[second] - te_s[0])


def _smooth_offset(
    echoes: _Echoes,
    te_s: float,
    echo: int,
    field_rad_per_s: Float32,
    geometry: Geometry,
    sigma_mm: float,
) -> Float32:
    """Return what the field does not explain of an echo's phase, smoothed, in the voxels."""
    weights = echoes.magnitude_of(echo) ** 2
    rest = echoes.phase_of(echo) - field_rad_per_s * np.float32(te_s)
    rest = echoes.unwrapped(rest, weights, _OFFSET_BIN_MM)  # the smoothing's polynomial needs it
    return smooth_phase(rest, weights, echoes.mask, geometry, sigma_mm)


@njit(parallel=True, cache=True)
def _subtract(phase, offsets, mask, starts):  # type: ignore[no-untyped-def]
    """Take the offsets, in turn, off the echoes, in place; the phase stays wrapped."""
    nx, ny, nz, n_echoes = phase.shape
    for x in prange(nx):
        i = starts[x]
        for y in range(ny):
            for z in range(nz):
                if mask[x, y, z]:
                    for echo in range(n_echoes):
                        corrected = phase[x, y, z, echo] - offsets[echo % offsets.shape[0], i]
                        phase[x, y, z, echo] = corrected - TURN * np.ceil(
                            corrected / TURN - np.float32(0.5)
                        )
                    i += 1


METHODS = {"mcpc3ds": mcpc3ds, "off": off}
