"""What sidecars and headers say of an acquisition: echo times, field strength, grid."""

from __future__ import annotations

import itertools
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import DAMAGED, read_header, voxel_sizes_mm
from bids_qsm.numerics.geometry import GYROMAGNETIC_RATIO_HZ_PER_T

LONGEST_TE_S = 1.0
"""No gradient echo is as late as this: a larger number is in milliseconds."""

B0_RANGE_T = (0.05, 25.0)

LARGEST_NUMBER = 1e30

FEWEST_SLICES = 3


@dataclass(frozen=True)
class Grid:
    """Where an image lies, by its header.

    Attributes
    ----------
    shape : tuple of int
        The three spatial sizes.
    n_volumes : int
    affine : ndarray of float64, shape (4, 4)
    is_oriented : bool
        Whether the header says how the image lies in the scanner.
    """

    shape: tuple[int, int, int]
    n_volumes: int
    affine: NDArray[np.float64]
    is_oriented: bool


def read_grid(path: Path) -> Grid:
    """Read an image's header.

    Raises
    ------
    UnreadableInputError
        If there is no such file, it is no NIfTI image, or it has no usable geometry.
    """
    if not path.exists():
        link = " (it is a link without its target: fetch the content)" if path.is_symlink() else ""
        raise UnreadableInputError(f"{path}: there is no such file{link}.")
    if not path.is_file():
        raise UnreadableInputError(f"{path}: this is no ordinary file.")
    try:
        header = read_header(path)
        affine = np.asarray(header.get_best_affine(), np.float64)
    except DAMAGED as error:
        raise _unreadable(path, error) from None
    shape = header.get_data_shape()
    sizes = [*shape, 1, 1, 1][: max(3, len(shape))]
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UnreadableInputError(
            f"{path}: the header's affine has no volume, so that voxel sizes and B0 are unknown."
        )
    codes = (header["sform_code"], header["qform_code"])
    x, y, z = (int(n) for n in sizes[:3])
    return Grid(
        (x, y, z), math.prod(int(n) for n in sizes[3:]), affine, any(int(code) for code in codes)
    )


def _unreadable(path: Path, error: Exception) -> UnreadableInputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UnreadableInputError(f"{path}: the image's header cannot be read ({reason}).")


def common_grid(paths: Sequence[Path]) -> Grid:
    """Return the grid that all images share.

    Raises
    ------
    UnreadableInputError
        If shapes or affines differ, or there are too few slices.
    """
    first = read_grid(paths[0])
    for path in paths[1:]:
        other = read_grid(path)
        if (other.shape, other.n_volumes) != (first.shape, first.n_volumes):
            raise UnreadableInputError(
                f"{path}: its shape {_sizes(other)} differs from {_sizes(first)} of "
                f"{paths[0].name}; all echoes and parts of a series must have one grid."
            )
        if _farthest_shift_mm(first, other) > 0.05 * min(voxel_sizes_mm(first.affine)):
            raise UnreadableInputError(
                f"{path}: its affine differs from that of {paths[0].name}; all echoes and parts "
                "of a series must lie at the same place."
            )
    if min(first.shape) < FEWEST_SLICES:
        raise UnreadableInputError(
            f"{paths[0]}: the image has the shape {_sizes(first)}; at least {FEWEST_SLICES} slices "
            "are needed."
        )
    return first


def _sizes(grid: Grid) -> str:
    return "x".join(map(str, (*grid.shape, grid.n_volumes)[: 4 if grid.n_volumes > 1 else 3]))


def _farthest_shift_mm(a: Grid, b: Grid) -> float:
    """Return how far apart the two affines put a corner of the volume."""
    if np.array_equal(a.affine, b.affine):
        return 0.0
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in a.shape], [1], indexing="ij"), -1)
    shift = corners.reshape(-1, 4) @ (a.affine - b.affine).T
    return float(np.linalg.norm(shift[:, :3], axis=1).max())


def echo_time_s(images: Mapping[Path, Mapping[str, Any]]) -> float:
    """Return the echo time that the sidecars of one echo's parts agree on.

    Parameters
    ----------
    images : mapping of Path to mapping
        Images of the same echo, with their metadata.
    """
    first = next(iter(images))
    times = {}
    for path, fields in images.items():
        value = fields.get("EchoTime")
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if value is not None:
            times[path] = _checked_te(path, value)
    if not times:
        raise UnreadableInputError(f"{first}: EchoTime is missing in the sidecar.")
    if max(times.values()) - min(times.values()) > 1e-6:
        stated = ", ".join(f"{te:g} s ({path.name})" for path, te in times.items())
        raise UnreadableInputError(f"{first}: the parts of one echo differ in EchoTime: {stated}.")
    return times.get(first, next(iter(times.values())))


def echo_times_of_stack_s(path: Path, fields: Mapping[str, Any], n: int) -> tuple[float, ...]:
    """Return the echo times of a 4D image: the list ``EchoTime`` (or ``EchoTimes``)."""
    value = fields.get("EchoTimes", fields.get("EchoTime"))
    if value is None:
        raise UnreadableInputError(f"{path}: EchoTime is missing in the sidecar.")
    if not isinstance(value, list) or len(value) != n:
        raise UnreadableInputError(
            f"{path}: the image has {n} volumes, so that the sidecar's EchoTime must be a list of "
            f"{n} times in seconds, got {reprlib.repr(value)}."
        )
    te_s = tuple(_checked_te(path, te) for te in value)
    if list(te_s) != sorted(te_s):
        raise UnreadableInputError(f"{path}: the volumes must be in the order of their EchoTime.")
    return te_s


def check_distinct(te_s: Sequence[float], path: Path) -> None:
    """Refuse two echoes at one time; ``te_s`` is sorted."""
    for earlier, later in itertools.pairwise(te_s):
        if later - earlier < 1e-6:
            raise UnreadableInputError(f"{path}: two echoes have the same EchoTime, {later:g} s.")


def _checked_te(path: Path, value: Any) -> float:
    if not _is_number(value) or not value > 0:
        raise UnreadableInputError(
            f"{path}: EchoTime must be a positive number of seconds, got {reprlib.repr(value)}."
        )
    if value > LONGEST_TE_S:
        raise UnreadableInputError(
            f"{path}: EchoTime is {value:g}, which looks like milliseconds; BIDS has seconds: "
            "divide it by 1000 in the sidecar."
        )
    return float(value)


def field_strength_t(path: Path, fields: Mapping[str, Any]) -> tuple[float, tuple[str, ...]]:
    """Return B0 in tesla, and what was assumed.

    ``MagneticFieldStrength`` is often nominal: a "3 T" magnet may run at 2.89 T.  Where
    ``ImagingFrequency`` (MHz) says so, within 5 %, it is believed.
    """
    stated = _number(path, fields, "MagneticFieldStrength")
    mhz = _number(path, fields, "ImagingFrequency")
    measured = None if mhz is None else mhz * 1e6 / GYROMAGNETIC_RATIO_HZ_PER_T
    if stated is None and measured is None:
        raise UnreadableInputError(
            f"{path}: the sidecar has neither MagneticFieldStrength nor ImagingFrequency; "
            "add one of them."
        )
    if stated is None:
        b0_t = float(measured)  # type: ignore[arg-type]
        note = f"B0 is {b0_t:.3f} T by ImagingFrequency; MagneticFieldStrength is missing."
    elif measured is None or abs(measured / stated - 1) < 0.01:
        b0_t, note = stated, ""
    elif abs(measured / stated - 1) < 0.05:
        b0_t = measured
        note = f"B0 is {b0_t:.3f} T by ImagingFrequency; MagneticFieldStrength says {stated:g} T."
    else:
        b0_t = stated
        note = (
            f"B0 is {b0_t:g} T by MagneticFieldStrength; ImagingFrequency says {measured:.3f} T "
            "and was not believed."
        )
    if not B0_RANGE_T[0] <= b0_t <= B0_RANGE_T[1]:
        raise UnreadableInputError(f"{path}: a field strength of {b0_t:g} T cannot be right.")
    return b0_t, (note,) if note else ()


def _number(path: Path, fields: Mapping[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if not _is_number(value) or not value > 0:
        raise UnreadableInputError(
            f"{path}: {name} must be a positive number, got {reprlib.repr(value)}."
        )
    return float(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < LARGEST_NUMBER  # not so for inf and nan; an integer of JSON has no limit
