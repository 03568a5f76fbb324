"""Files that are missing or broken, on request: one function for each kind of fault."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft


@dataclass(frozen=True)
class SeriesFile:
    """One file of a multi-echo series, before it is written.

    Attributes
    ----------
    stem : str
        File name without extension.
    part : str
        ``mag``, ``phase``, ``real`` or ``imag``.
    echo : int
        From 1; 0 if all echoes are in the file.
    data : ndarray
        Stored values.
    affine : ndarray, shape (4, 4)
    slope, intercept : float
    sidecar : mapping
    share_kept : float
        How much of the compressed file is written: less than 1 cuts it short.
    """

    stem: str
    part: str
    echo: int
    data: NDArray
    affine: NDArray[np.float64]
    slope: float
    intercept: float
    sidecar: Mapping[str, Any]
    share_kept: float = 1.0


def high_pass_filtered(signal: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Return a series with the phase that is used for SWI: smooth phase divided out.

    The homodyne filter of Haacke 2004, 10.1002/mrm.20198, with a window of a quarter of each
    slice's lines.
    """
    window = np.ones((1, 1))
    for axis, n in enumerate(signal.shape[:2]):
        position = np.abs(np.fft.fftfreq(n)) * 8
        hann = np.where(position < 1, 0.5 + 0.5 * np.cos(np.pi * position), 0.0)
        window = window * hann.reshape((-1, 1) if axis == 0 else (1, -1))
    smooth = fft.ifftn(
        fft.fftn(signal, axes=(0, 1)) * window[:, :, None, None].astype(np.float32), axes=(0, 1)
    )
    size = np.maximum(np.abs(smooth), np.finfo(np.float32).tiny)
    return (signal * np.conj(smooth) / size).astype(np.complex64)


def broken(files: list[SeriesFile], kind: str) -> list[SeriesFile]:
    """Return the files of a series with a fault of one of the kinds of ``options.BREAKAGES``.

    Where one file is enough, it is the last echo's second part (phase or imaginary).
    """
    target = max((f for f in files if f.part in ("phase", "imag")), key=lambda f: f.echo)
    if kind == "missing-phase-echo":
        return [f for f in files if f is not target]
    if kind in SINGLE:
        return [SINGLE[kind](f) if f is target else f for f in files]
    if kind in WHOLE:
        return [WHOLE[kind](f) for f in files]
    return files


def _te_in_ms(file: SeriesFile) -> SeriesFile:
    te_s = file.sidecar["EchoTime"]
    te_ms = [t * 1000 for t in te_s] if isinstance(te_s, list) else te_s * 1000
    return dataclasses.replace(file, sidecar={**file.sidecar, "EchoTime": te_ms})


def _without(key: str) -> Callable[[SeriesFile], SeriesFile]:
    def remove(file: SeriesFile) -> SeriesFile:
        kept = {k: v for k, v in file.sidecar.items() if k != key}
        return dataclasses.replace(file, sidecar=kept)

    return remove


def _nan(file: SeriesFile) -> SeriesFile:
    return dataclasses.replace(file, data=np.full(file.data.shape, np.nan, np.float32))


def _constant(file: SeriesFile) -> SeriesFile:
    return dataclasses.replace(file, data=np.full_like(file.data, 1))


def _truncated(file: SeriesFile) -> SeriesFile:
    return dataclasses.replace(file, share_kept=0.5)


def _shorter(file: SeriesFile) -> SeriesFile:
    return dataclasses.replace(file, data=file.data[:, :-1])


def _shifted(file: SeriesFile) -> SeriesFile:
    affine = file.affine.copy()
    affine[:3, 3] += 5.0
    return dataclasses.replace(file, affine=affine)


def _unknown_scale(file: SeriesFile) -> SeriesFile:
    if file.part not in ("phase", "imag"):
        return file
    lowest, highest = float(file.data.min()), float(file.data.max())
    odd = 370.0 * (file.data - lowest) / max(highest - lowest, 1e-30) - 123.0
    return dataclasses.replace(file, data=odd.astype(np.float32), slope=1.0, intercept=0.0)


def _two_slices(file: SeriesFile) -> SeriesFile:
    middle = file.data.shape[2] // 2
    return dataclasses.replace(file, data=file.data[:, :, middle : middle + 2])


SINGLE: Mapping[str, Callable[[SeriesFile], SeriesFile]] = {
    "nan": _nan,
    "constant": _constant,
    "truncated": _truncated,
    "shape-mismatch": _shorter,
    "affine-mismatch": _shifted,
}
WHOLE: Mapping[str, Callable[[SeriesFile], SeriesFile]] = {
    "te-in-ms": _te_in_ms,
    "no-echo-times": _without("EchoTime"),
    "no-field-strength": _without("MagneticFieldStrength"),
    "unknown-phase-scale": _unknown_scale,
    "two-slices": _two_slices,
}
