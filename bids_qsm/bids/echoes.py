"""The pixels of a series: magnitude and wrapped phase of all echoes, checked."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from bids_qsm.bids.inputs import Series
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import load_image, voxel_sizes_mm
from bids_qsm.numerics.coil_combination import combine_coils
from bids_qsm.numerics.geometry import Float32, Geometry
from bids_qsm.numerics.layout import copy_volume
from bids_qsm.numerics.phase import (
    find_range,
    find_units_per_turn,
    looks_high_pass_filtered,
    to_polar,
    to_radians,
    undo_slice_alternation,
)
from bids_qsm.settings import Processing


@dataclass(frozen=True)
class Echoes:
    """The signal of a series.

    Attributes
    ----------
    magnitude : ndarray of float32, shape (x, y, z, echo)
    phase : ndarray of float32, shape (x, y, z, echo), or None
        Wrapped, in radians; None where only magnitude was acquired.
    te_s : tuple of float
    b0_t : float
    geometry : Geometry
    affine : ndarray of float64, shape (4, 4)
    warnings : tuple of str
        What was assumed of the files and mended in the pixels.
    """

    magnitude: Float32
    phase: Float32 | None
    te_s: tuple[float, ...]
    b0_t: float
    geometry: Geometry
    affine: NDArray[np.float64]
    warnings: tuple[str, ...]


def load_echoes(series: Series, processing: Processing) -> Echoes:
    """Read the images of a series; uncombined coils are read one by one and combined.

    Raises
    ------
    UnreadableInputError
        If an image is damaged, empty of numbers or constant, or if the phase has no known scale
        or is high-pass filtered.
    """
    warnings = list(series.assumptions)
    geometry = Geometry(series.shape, voxel_sizes_mm(series.affine), series.b0_direction)
    if series.n_coils == 1:
        magnitude, phase = _magnitude_and_phase(series, processing, warnings)
    else:

        def signal_of(coil: int) -> NDArray[np.complex64]:
            return _as_complex(*_magnitude_and_phase(series.of_coil(coil), processing, warnings))

        magnitude, phase = combine_coils(signal_of, series.n_coils, series.te_s, geometry)
    if phase is not None:
        if processing.phase.sign < 0:
            np.negative(phase, out=phase)
        if not processing.phase.accept_filtered:
            _check_unfiltered(phase, magnitude, series)
    unique = tuple(dict.fromkeys(warnings))
    return Echoes(magnitude, phase, series.te_s, series.b0_t, geometry, series.affine, unique)


def _magnitude_and_phase(
    series: Series, processing: Processing, warnings: list[str]
) -> tuple[Float32, Float32 | None]:
    if series.form == "complex":
        return _from_complex(series, warnings)
    magnitude = _stack(series, series.magnitude, warnings)
    if series.form == "magnitude":
        return magnitude, None
    phase = _stack(series, series.phase, warnings)
    return magnitude, _in_radians(phase, series.phase[0], processing)


def _as_complex(magnitude: Float32, phase: Float32) -> NDArray[np.complex64]:
    signal = np.empty(magnitude.shape, np.complex64)
    for echo in range(magnitude.shape[3]):  # one by one, to need little memory
        signal[..., echo].real = magnitude[..., echo] * np.cos(phase[..., echo])
        signal[..., echo].imag = magnitude[..., echo] * np.sin(phase[..., echo])
    return signal


def _stack(series: Series, paths: Sequence[Path], warnings: list[str]) -> Float32:
    """Return the echoes of one part, as stored, in one array."""
    if series.stacked:
        stored = load_image(paths[0]).data.reshape(*series.shape, -1)
        for echo in range(stored.shape[3]):
            _check_volume(stored[..., echo], f"{paths[0]}: volume {echo + 1}", warnings)
        return stored
    stored = np.empty((*series.shape, len(paths)), np.float32)

    def read(echo: int) -> list[str]:
        found: list[str] = []
        volume = load_image(paths[echo], order="K").data.reshape(series.shape)
        _check_volume(volume, f"{paths[echo]}: the image", found)
        copy_volume(volume, stored[..., echo])
        return found

    # unpacking takes longest, and leaves other threads free
    with ThreadPoolExecutor(scipy.fft.get_workers()) as pool:
        for found in pool.map(read, range(len(paths))):
            warnings += found
    return stored


def _check_volume(volume: Float32, what: str, warnings: list[str]) -> None:
    """Set the few voxels that are no number to zero; refuse a volume that says nothing."""
    lowest, highest = volume.min(), volume.max()  # no numbers where there is one that is none
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        unknown = ~np.isfinite(volume)
        n_unknown = int(unknown.sum())
        if n_unknown == volume.size:
            raise UnreadableInputError(f"{what} holds no number at all (NaN); convert it again.")
        volume[unknown] = 0
        warnings.append(f"{what} has {n_unknown} voxels that are no number; they were set to 0.")
        lowest, highest = volume.min(), volume.max()
    if lowest == highest:
        raise UnreadableInputError(
            f"{what} is constant, with {volume.flat[0]:g} everywhere; convert it again."
        )


def _in_radians(stored: Float32, path: Path, processing: Processing) -> Float32:
    """Scale the phase of all echoes by one rule."""
    units = processing.phase.units_per_turn
    if units is None:
        lowest, highest, is_integer = find_range(stored)
        try:
            units = find_units_per_turn(lowest, highest, is_integer)
        except ValueError as error:
            raise UnreadableInputError(f"{path}: {error}") from None
    return to_radians(stored, units)


def _check_unfiltered(phase: Float32, magnitude: Float32, series: Series) -> None:
    if looks_high_pass_filtered(phase, magnitude, series.te_s, None):
        path = (series.phase or series.real)[0]
        raise UnreadableInputError(
            f"{path}: the phase looks high-pass filtered, as for SWI, which has removed most of "
            "the susceptibility; export the unfiltered phase, or, if you know better, set "
            "accept_filtered = true in the table [phase] of the settings file."
        )


def _from_complex(series: Series, warnings: list[str]) -> tuple[Float32, Float32]:
    """Return magnitude and phase of real and imaginary parts."""
    real = _stack(series, series.real, warnings)
    imaginary = _stack(series, series.imaginary, warnings)
    real, imaginary, alternated = undo_slice_alternation(real, imaginary)
    if alternated:
        warnings.append("The sign of the complex images changed from slice to slice; undone.")
    to_polar(real, imaginary)
    return real, imaginary
