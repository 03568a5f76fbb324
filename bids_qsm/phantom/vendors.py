"""How scanners and converters store a complex series."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TURN_UNITS = 4096


@dataclass(frozen=True)
class Part:
    """One part of a series as it is stored.

    Attributes
    ----------
    name : str
        ``mag``, ``phase``, ``real`` or ``imag``.
    data : ndarray, shape (x, y, z, echo)
        Stored values: true value = slope * stored + intercept.
    units : str
        ``rad`` or ``arbitrary``.
    slope, intercept : float
    """

    name: str
    data: NDArray
    units: str = "arbitrary"
    slope: float = 1.0
    intercept: float = 0.0


def stored_parts(signal: NDArray[np.complex64], vendor: str, bits: int = 12) -> tuple[Part, ...]:
    """Return what is stored of a series.

    Parameters
    ----------
    signal : ndarray of complex64, shape (x, y, z, echo)
    vendor : str
        ``radians`` (float), ``siemens`` (0 to 4095), ``siemens-signed`` (-4096 to 4094),
        ``philips`` (integers with slope and intercept, in radians) or ``ge`` (real and imaginary
        integers whose sign changes from slice to slice).
    bits : int
        Precision, at most 12: integer phase has 2 to the power of ``bits`` different values; the
        brightest thousandth of the first echo begins at half as many units of magnitude.

    Returns
    -------
    tuple of Part
    """
    magnitude = np.abs(signal.astype(np.complex128))
    scale = 2 ** (bits - 1) / max(float(np.percentile(magnitude[..., 0], 99.9)), 1e-30)
    if vendor == "ge":
        alternating = np.where(np.arange(signal.shape[2]) % 2, -scale, scale)[:, None]
        return (
            Part("real", _integers(signal.real * alternating)),
            Part("imag", _integers(signal.imag * alternating)),
        )
    phase = np.angle(signal.astype(np.complex128))
    if vendor == "radians":
        part = Part("phase", phase.astype(np.float32), "rad")
        return Part("mag", (magnitude * scale).astype(np.float32)), part
    turn, step = 2**bits, TURN_UNITS // 2**bits
    levels = np.rint((phase + np.pi) / (2 * np.pi) * turn) % turn * step
    if vendor == "siemens":
        part = Part("phase", levels.astype(np.int16))
    elif vendor == "siemens-signed":
        part = Part("phase", (2 * levels - TURN_UNITS).astype(np.int16))
    elif vendor == "philips":
        part = Part("phase", levels.astype(np.int16), "rad", 2 * np.pi / TURN_UNITS, -np.pi)
    else:
        raise ValueError(f"there is no vendor {vendor!r}.")
    return Part("mag", _integers(magnitude * scale)), part


def _integers(values: NDArray[np.floating]) -> NDArray[np.int16]:
    return np.rint(np.clip(values, -32767, 32767)).astype(np.int16)
