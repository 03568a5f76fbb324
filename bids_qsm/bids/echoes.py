"""The pixels of a series: magnitude and wrapped phase of all echoes, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from bids_qsm.bids.inputs import Series
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, load_image, voxel_sizes_mm
from bids_qsm.numerics.coil_combination import combine_coils
from bids_qsm.numerics.geometry import Float32, Geometry
from bids_qsm.numerics.layout import copy_volume
from bids_qsm.numerics.phase import (
    all_whole,
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


Load = Callable[[Path], Image]


def load_echoes(
    series: Series, processing: Processing, ahead: dict[Path, Future[Image]] | None = None
) -> Echoes:
    """Read the images of a series; uncombined coils are read one by one and combined.

    Parameters
    ----------
    series : Series
    processing : Processing
    ahead : dict of Path to Future, optional
        Images that are being read (:func:`bids_qsm.images.read_ahead`); they are taken out.

    Raises
    ------
    UnreadableInputError
        If an image is damaged, empty of numbers or constant, or if the phase has no known scale
        or is high-pass filtered.
    """

    def load(path: Path) -> Image:
        return ahead.pop(path).result() if ahead else load_image(path, order="K")

    warnings = list(series.assumptions)
    geometry = Geometry(series.shape, voxel_sizes_mm(series.affine), series.b0_direction)
    if series.n_coils == 1:
        magnitude, phase = _magnitude_and_phase(series, processing, load, warnings)
    else:

        def signal_of(coil: int) -> NDArray[np.complex64]:
            parts = _magnitude_and_phase(series.of_coil(coil), processing, load, warnings)
            return _as_complex(*parts)

        magnitude, phase = combine_coils(signal_of, series.n_coils, series.te_s, geometry)
    if phase is not None:
        if processing.phase.sign < 0:
            np.negative(phase, out=phase)
        if not processing.phase.accept_filtered:
            _check_unfiltered(phase, magnitude, series)
    unique = tuple(dict.fromkeys(warnings))
    return Echoes(magnitude, phase, series.te_s, series.b0_t, geometry, series.affine, unique)


def _magnitude_and_phase(
    series: Series, processing: Processing, load: Load, warnings: list[str]
) -> tuple[Float32, Float32 | None]:
    if series.form == "complex":
        return _from_complex(series, load, warnings)
    if series.form == "magnitude":
        (magnitude,) = _stacks(series, (series.magnitude,), load, warnings)
        return magnitude.values, None
    magnitude, phase = _stacks(series, (series.magnitude, series.phase), load, warnings)
    return magnitude.values, _in_radians(phase, series.phase[0], processing)


def _as_complex(magnitude: Float32, phase: Float32) -> NDArray[np.complex64]:
    signal = np.empty(magnitude.shape, np.complex64)
    for echo in range(magnitude.shape[3]):  # one by one, to need little memory
        signal[..., echo].real = magnitude[..., echo] * np.cos(phase[..., echo])
        signal[..., echo].imag = magnitude[..., echo] * np.sin(phase[..., echo])
    return signal


@dataclass(frozen=True)
class _Stored:
    """The echoes of one part as they are stored, side by side, and the range of each of them."""

    values: Float32
    ranges: list[_Range]


@dataclass(frozen=True)
class _Range:
    """The lowest and the highest value, and whether all are whole numbers."""

    lowest: float
    highest: float
    is_whole: bool


def _stacks(
    series: Series, parts: Sequence[Sequence[Path]], load: Load, warnings: list[str]
) -> tuple[_Stored, ...]:
    """Return the echoes of several parts, each part in one array.

    Unpacking takes longest, and leaves other threads free: these go through the files of all
    parts, so that none waits for the last file of each.
    """
    if series.stacked:
        return tuple(_stacked(series, paths[0], warnings) for paths in parts)
    arrays = [np.empty((*series.shape, len(paths)), np.float32) for paths in parts]
    places = [(part, echo) for part, paths in enumerate(parts) for echo in range(len(paths))]

    def read(place: tuple[int, int]) -> tuple[_Range, list[str]]:
        part, echo = place
        found: list[str] = []
        volume = load(parts[part][echo]).data.reshape(series.shape)
        range_of_it = _checked(volume, f"{parts[part][echo]}: the image", found)
        copy_volume(volume, arrays[part][..., echo])
        return range_of_it, found

    ranges: list[list[_Range]] = [[] for _ in parts]
    with ThreadPoolExecutor(scipy.fft.get_workers()) as pool:
        for (part, _), (range_of_it, found) in zip(places, pool.map(read, places), strict=True):
            ranges[part].append(range_of_it)
            warnings += found
    return tuple(_Stored(*stored) for stored in zip(arrays, ranges, strict=True))


def _stacked(series: Series, path: Path, warnings: list[str]) -> _Stored:
    """Return the echoes of one part from one file."""
    stored = load_image(path).data.reshape(*series.shape, -1)
    ranges = [
        _checked(stored[..., echo], f"{path}: volume {echo + 1}", warnings)
        for echo in range(stored.shape[3])
    ]
    return _Stored(stored, ranges)


def _checked(volume: Float32, what: str, warnings: list[str]) -> _Range:
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
    return _Range(float(lowest), float(highest), all_whole(volume))


def _in_radians(stored: _Stored, path: Path, processing: Processing) -> Float32:
    """Scale the phase of all echoes by one rule."""
    units = processing.phase.units_per_turn
    if units is None:
        lowest = min(echo.lowest for echo in stored.ranges)
        highest = max(echo.highest for echo in stored.ranges)
        is_whole = all(echo.is_whole for echo in stored.ranges)
        try:
            units = find_units_per_turn(lowest, highest, is_whole)
        except ValueError as error:
            raise UnreadableInputError(f"{path}: {error}") from None
    return to_radians(stored.values, units)


def _check_unfiltered(phase: Float32, magnitude: Float32, series: Series) -> None:
    if looks_high_pass_filtered(phase, magnitude, series.te_s, None):
        path = (series.phase or series.real)[0]
        raise UnreadableInputError(
            f"{path}: the phase looks high-pass filtered, as for SWI, which has removed most of "
            "the susceptibility; export the unfiltered phase, or, if you know better, set "
            "accept_filtered = true in the table [phase] of the settings file."
        )


def _from_complex(series: Series, load: Load, warnings: list[str]) -> tuple[Float32, Float32]:
    """Return magnitude and phase of real and imaginary parts."""
    stored = _stacks(series, (series.real, series.imaginary), load, warnings)
    real, imaginary, alternated = undo_slice_alternation(*(part.values for part in stored))
    if alternated:
        warnings.append("The sign of the complex images changed from slice to slice; undone.")
    to_polar(real, imaginary)
    return real, imaginary
