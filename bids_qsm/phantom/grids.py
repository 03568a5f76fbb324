"""Grids of the simulation: resampling of a label map onto one, with random deformation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.images import Image
from bids_qsm.phantom.noise import slabs

CONTROL_POINT_MM = 12.0
DEFORMATION_LENGTH_MM = 22.0


def simulation_grid(
    labels: Image, sampling_mm: tuple[float, float, float], tilt_deg: float, margin_mm: float
) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Return shape and affine of a grid that holds the head, with slices tilted about x."""
    rotation = rotation_about_x(tilt_deg)
    low, high = _head_box(labels, rotation)
    low, high = low - margin_mm, high + margin_mm
    x, y, z = (
        int(np.ceil((b - a) / v)) + 1 for a, b, v in zip(low, high, sampling_mm, strict=True)
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(sampling_mm)
    affine[:3, 3] = rotation @ low
    return (x, y, z), affine


def rotation_about_x(angle_deg: float) -> NDArray[np.float64]:
    """Return the 3 x 3 rotation about x."""
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def random_pose(
    rng: np.random.Generator, centre_mm: NDArray, largest_deg: float, largest_mm: float
) -> NDArray[np.float64]:
    """Return a small random rigid motion (4 x 4, mm) about a point: rotation about x and z."""
    nod, turn = rng.uniform(-largest_deg, largest_deg, 2)
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    rotation = rotation_about_x(nod) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = centre_mm - rotation @ centre_mm + rng.uniform(-largest_mm, largest_mm, 3)
    return pose


def trimmed(
    labels: NDArray[np.int16], affine: NDArray[np.float64], margin_voxels: int = 4
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Return the labels and the affine of the part of a grid that holds the head."""
    part = tuple(
        slice(max(s.start - margin_voxels, 0), s.stop + margin_voxels) for s in _filled(labels)
    )
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ np.array([s.start for s in part])
    return np.ascontiguousarray(labels[part]), moved


def _filled(labels: NDArray) -> tuple[slice, ...]:
    """Return the part of an array that holds all that is not 0; everything if all is 0."""
    part = []
    for axis in range(3):
        lines = np.flatnonzero((labels != 0).any(axis=tuple({0, 1, 2} - {axis})))
        part.append(
            slice(int(lines[0]), int(lines[-1]) + 1) if lines.size else slice(0, labels.shape[axis])
        )
    return tuple(part)


def _head_box(labels: Image, rotation: NDArray) -> tuple[NDArray, NDArray]:
    """Return the corners, along the rotated axes, of a box around all that is not air."""
    part = _filled(np.asarray(labels.data))
    corners = np.array(list(itertools.product(*((s.start, s.stop - 1) for s in part))))
    world = corners @ labels.affine[:3, :3].T + labels.affine[:3, 3]
    turned = world @ rotation
    return turned.min(axis=0), turned.max(axis=0)


def displacement(
    rng: np.random.Generator, labels: Image, deformation_mm: float
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Draw a smooth random displacement with a random change of size.

    Returns
    -------
    field_mm : ndarray of float32, shape (3, x, y, z)
        Displacement at control points, ``CONTROL_POINT_MM`` apart, from the label map's corner.
    corner_mm : ndarray, shape (3,)
        Position of the first control point.
    """
    first = labels.affine[:3, 3]
    last = first + labels.affine[:3, :3] @ (np.array(labels.shape) - 1)
    corner = np.minimum(first, last) - CONTROL_POINT_MM
    shape = tuple(int(np.ceil(e / CONTROL_POINT_MM)) + 3 for e in np.abs(last - first))
    field = np.empty((3, *shape), np.float32)
    sizes = rng.normal(0, 0.25 * deformation_mm / 100, 3)
    for axis in range(3):
        noise = ndimage.gaussian_filter(
            rng.standard_normal(shape), DEFORMATION_LENGTH_MM / CONTROL_POINT_MM, mode="reflect"
        )
        noise *= deformation_mm / max(np.sqrt(np.mean(noise * noise)), 1e-12)
        line = np.arange(shape[axis]) * CONTROL_POINT_MM + corner[axis]
        noise += sizes[axis] * line.reshape([-1 if a == axis else 1 for a in range(3)])
        field[axis] = noise
    return field, corner


def resample_labels(
    labels: Image,
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
    field: tuple[NDArray[np.float32], NDArray[np.float64]] | None = None,
) -> NDArray[np.int16]:
    """Return the nearest label at each voxel of another grid, each displaced if asked.

    Parameters
    ----------
    labels : Image
    shape, affine
        The grid.
    field : tuple, optional
        What :func:`displacement` returned.

    Returns
    -------
    ndarray of int16
    """
    result = np.empty(shape, np.int16)
    source = np.asarray(labels.data, np.int16)
    to_voxel = np.linalg.inv(labels.affine)
    for slab in slabs(shape[0]):
        position = positions(affine, shape, slab)
        if field is not None:
            at = [(p - c) / CONTROL_POINT_MM for p, c in zip(position, field[1], strict=True)]
            for p, f in zip(position, field[0], strict=True):
                p += ndimage.map_coordinates(f, at, order=1, mode="nearest")
        voxel = transformed(to_voxel, position)
        result[slab] = ndimage.map_coordinates(source, voxel, order=0, mode="constant", cval=0)
    return result


def positions(
    affine: NDArray[np.float64], shape: tuple[int, int, int], slab: slice
) -> list[NDArray[np.float64]]:
    """Return the three coordinates of the voxels of some planes of a grid."""
    lines = [np.arange(slab.start, slab.stop), *(np.arange(n) for n in shape[1:])]
    return transformed(affine, np.ix_(*lines))


def transformed(affine: NDArray[np.float64], points: Sequence[NDArray]) -> list[NDArray]:
    """Return the three coordinates of points after an affine map."""
    x, y, z = points
    return [row[0] * x + row[1] * y + row[2] * z + row[3] for row in affine[:3]]
