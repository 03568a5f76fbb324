"""How smooth the noise of a voxel-wise fit is: FWHM, and resels of the whole mask and of voxels.

Normalised residuals (of each voxel, divided by their root sum of squares) of two neighbours differ
by a vector whose squared length is ``2 (1 - r)``, with the correlation ``r`` of their noise.
Where the noise has a Gaussian autocorrelation, ``-2 log(r)`` is the squared distance of the two
voxels on the scale on which the noise has unit roughness, whatever the distance.  So the mask
becomes a body with a metric of its own, whose intrinsic volumes are its resels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bids_qsm.statistics.glm import Bool, Float32, Float64, VoxelFit

Index = NDArray[np.int64]

# Along the axes, then along both diagonals of the squares x y, x z and y z.
_STEPS = np.array(
    [
        *([1, 0, 0], [0, 1, 0], [0, 0, 1]),
        *([1, 1, 0], [1, -1, 0], [1, 0, 1], [1, 0, -1], [0, 1, 1], [0, 1, -1]),
    ]
)
_IMAGES_AT_ONCE = 16
_LEAST_CORRELATION = 0.02
_LEAST_DF = 5
_RESEL_LENGTH = math.sqrt(4 * math.log(2))
"""FWHM of a Gaussian autocorrelation's kernel where the roughness is one."""


@dataclass(frozen=True, eq=False)
class Smoothness:
    """Smoothness of the noise in a mask.

    Attributes
    ----------
    fwhm_voxels, fwhm_mm : ndarray of float64, shape (3,)
        Full width at half maximum of the smoothing kernel that white noise would need, by axis.
    resels : ndarray of float64, shape (4,)
        Resels of the mask in 0 to 3 dimensions (Euler characteristic, diameter, surface, volume)
        if the noise is equally smooth everywhere.
    local_resels : ndarray of float64, shape (4,)
        The same from each voxel's own smoothness.
    resels_per_voxel : ndarray of float32, shape (n_voxels,)
        Resels that a voxel takes up, by its own smoothness; 0 where it is not in the mask.
    mean_resels_per_voxel : float
        Those of a voxel if the noise is equally smooth everywhere.
    n_voxels : int
        Number of voxels searched.
    df : int
        Degrees of freedom of the residuals.
    """

    fwhm_voxels: Float64
    fwhm_mm: Float64
    resels: Float64
    local_resels: Float64
    resels_per_voxel: Float32
    mean_resels_per_voxel: float
    n_voxels: int
    df: int


def estimate_smoothness(
    values: NDArray[np.floating],
    fit: VoxelFit,
    mask: Bool,
    voxel_mm: tuple[float, float, float],
) -> Smoothness:
    """Estimate the smoothness of the noise from the residuals of a fit.

    Parameters
    ----------
    values : ndarray or memmap, shape (n_images, n_voxels)
        What was fitted, read a few images at a time.
    fit : VoxelFit
    mask : ndarray of bool, shape (x, y, z)
        ``values[:, i]`` belongs to ``np.argwhere(mask)[i]``; voxels that are not valid are left
        out.
    voxel_mm : tuple of float

    Returns
    -------
    Smoothness
        Memory: some 50 numbers for each voxel; never the residuals of all images.

    Raises
    ------
    ValueError
        If the mask does not fit to the values, no two voxels are neighbours along some axis, or
        there are less than 5 degrees of freedom.

    References
    ----------
    Kiebel 1999, 10.1006/nimg.1999.0508 (smoothness of normalised residuals); Jenkinson 2000,
    FMRIB report TR00MJ3 (the logarithm); Worsley 1996, 10.1002/(SICI)1097-0193(1996)4:1<58
    (resels of a mask); Worsley 1999, 10.1002/(SICI)1097-0193(1999)8:2/3<98 and Taylor 2007,
    10.1198/016214507000000031 (noise whose smoothness varies); Hayasaka 2004,
    10.1016/j.neuroimage.2004.01.041 (resels of a voxel).
    """
    if values.shape != (len(fit.design), np.count_nonzero(mask)):
        raise ValueError(
            f"the values have the shape {values.shape}, but there are {len(fit.design)} images "
            f"and {np.count_nonzero(mask)} voxels in the mask."
        )
    if fit.df_residual < _LEAST_DF:
        raise ValueError(
            f"smoothness cannot be estimated from {fit.df_residual} degrees of freedom: "
            f"at least {_LEAST_DF} are needed, so give more images or fewer regressors."
        )
    near = _neighbours(mask, fit.valid)
    if not (near[:3] >= 0).any(axis=1).all():
        raise ValueError("no two valid voxels of the mask are neighbours: give a larger mask.")
    squares = _step_squares(values, fit, near)
    return _describe(squares, near, fit, voxel_mm)


def _describe(
    squares: Float64, near: Index, fit: VoxelFit, voxel_mm: tuple[float, float, float]
) -> Smoothness:
    df, n_voxels = fit.df_residual, int(np.count_nonzero(fit.valid))
    fwhm = np.array([_fwhm(squares[d][near[d] >= 0], df) for d in range(3)])
    lengths = -2 * np.log(np.maximum(1 - squares / 2, _LEAST_CORRELATION)) / _RESEL_LENGTH**2
    local, per_voxel = _local_resels(lengths, near, fit.valid)
    same = np.einsum("sa,a->s", np.abs(_STEPS), fwhm**-2)
    uniform, _ = _local_resels(np.repeat(same[:, None], near.shape[1], 1), near, fit.valid)
    return Smoothness(
        fwhm_voxels=fwhm,
        fwhm_mm=fwhm * np.asarray(voxel_mm, np.float64),
        resels=uniform,
        local_resels=local,
        resels_per_voxel=per_voxel.astype(np.float32),
        mean_resels_per_voxel=float(np.prod(1 / fwhm)),
        n_voxels=n_voxels,
        df=df,
    )


def _fwhm(squares: Float64, df: int) -> float:
    """Return the FWHM in steps whose squared differences are given.

    The squared length of a normalised residual's slope is too large on average by
    ``(df - 1) / (df - 2)``, because a chi-squared variable stands below it (Kiebel 1999).
    """
    mean = float(squares.mean())
    roughness = -2 * math.log(max(1 - mean / 2, _LEAST_CORRELATION)) * (df - 2) / (df - 1)
    return _RESEL_LENGTH / math.sqrt(roughness)


def _neighbours(mask: Bool, valid: Bool) -> Index:
    """Return the index of each voxel's neighbour in each of the steps, -1 if there is none."""
    index = np.full(tuple(n + 2 for n in mask.shape), -1, np.int64)
    places = np.argwhere(mask) + 1
    index[tuple(places.T)] = np.where(valid, np.arange(len(places)), -1)
    found = np.stack([index[tuple((places + step).T)] for step in _STEPS])
    found[:, ~valid] = -1
    return found


def _step_squares(values: NDArray[np.floating], fit: VoxelFit, near: Index) -> Float64:
    """Return the squared length of the normalised residuals' difference in each of the steps."""
    scale = np.zeros(fit.residual_ss.size)
    scale[fit.valid] = 1 / np.sqrt(fit.residual_ss[fit.valid])
    squares = np.zeros(near.shape)
    for start in range(0, len(values), _IMAGES_AT_ONCE):
        images = np.ascontiguousarray(values[start : start + _IMAGES_AT_ONCE], np.float32)
        rows = fit.design[start : start + _IMAGES_AT_ONCE]
        residuals = _normalised_residuals(images, rows, fit.betas, scale)
        _add_squares(residuals, near, squares)
    return squares


@njit(parallel=True, cache=True)
def _normalised_residuals(images, rows, betas, scale):  # type: ignore[no-untyped-def]
    """Return normalised residuals, shape (n_voxels, n_images), 0 where the scale is 0."""
    n_images, n_voxels = images.shape
    residuals = np.zeros((n_voxels, n_images), np.float32)
    for v in prange(n_voxels):
        if scale[v] > 0:
            for i in range(n_images):
                fitted = 0.0
                for j in range(rows.shape[1]):
                    fitted += rows[i, j] * betas[j, v]
                residuals[v, i] = (images[i, v] - fitted) * scale[v]
    return residuals


@njit(parallel=True, cache=True)
def _add_squares(residuals, near, squares):  # type: ignore[no-untyped-def]
    n_steps, n_voxels = near.shape
    for v in prange(n_voxels):
        for step in range(n_steps):
            other = near[step, v]
            if other >= 0:
                total = np.float32(0)
                for i in range(residuals.shape[1]):
                    difference = residuals[other, i] - residuals[v, i]
                    total += difference * difference
                squares[step, v] += total


@njit(cache=True)
def _local_resels(lengths, near, valid):  # type: ignore[no-untyped-def]
    """Return the resels of the mask and of each voxel from the squared lengths of the steps.

    The mask is the union of its voxels' centres, of the edges and squares between them, and of
    the cubes, each taken without its border and as a parallelepiped: without its border a cell
    has intrinsic volumes of alternating sign, and those of a parallelepiped are the sums of
    its edges and of its areas, and its volume.  Each edge and each square has its own length
    and area in all cells of which it is a part, so that what is noise in them cancels inside.
    """
    n = valid.size
    resels = np.zeros(4)
    volumes = np.zeros(n)
    cubes = np.zeros(n, np.int32)
    edge_share = np.zeros((3, n))
    area_share = np.zeros((3, n))
    areas = np.zeros((3, n))
    for v in range(n):
        if not valid[v]:
            continue
        resels[0] += 1
        for axis in range(3):
            if near[axis, v] >= 0:
                resels[0] -= 1
                edge_share[axis, v] += 1
        for face in range(3):
            if _is_square(near, v, face):
                a, b = _sides(face)
                resels[0] += 1
                for axis, w in ((a, v), (a, near[b, v]), (b, v), (b, near[a, v])):
                    edge_share[axis, w] -= 0.5
                aa, bb, ab = _square(lengths, near, v, face)
                areas[face, v] = math.sqrt(max(aa * bb - ab * ab, 0.0))
                area_share[face, v] += 1
        if not _is_cube(near, v):
            continue
        resels[0] -= 1
        x, y, z = near[0, v], near[1, v], near[2, v]
        corners = (v, x, y, z, near[3, v], near[5, v], near[7, v], near[7, x])
        for axis in range(3):
            b, c = (axis + 1) % 3, (axis + 2) % 3
            far = near[c, near[b, v]]
            for w in (v, near[b, v], near[c, v], far):
                edge_share[axis, w] += 0.25
        for face, w in ((0, z), (1, y), (2, x)):
            area_share[face, v] -= 0.5
            area_share[face, w] -= 0.5
        volume = _volume(lengths, near, v)
        resels[3] += volume
        for corner in corners:
            volumes[corner] += volume
            cubes[corner] += 1
    for v in range(n):
        for axis in range(3):
            resels[1] += edge_share[axis, v] * math.sqrt(lengths[axis, v])
            resels[2] += area_share[axis, v] * areas[axis, v]
    mean = volumes.sum() / max(cubes.sum(), 1)
    for v in range(n):
        if cubes[v]:
            volumes[v] /= cubes[v]
        elif valid[v]:
            volumes[v] = mean  # a voxel in no cube of the mask
    return resels, volumes


@njit(cache=True)
def _sides(face):  # type: ignore[no-untyped-def]
    """Return the axes of the squares x y, x z and y z."""
    return face // 2, 1 + (face + 1) // 2


@njit(cache=True)
def _is_square(near, v, face):  # type: ignore[no-untyped-def]
    a, b = _sides(face)
    return near[a, v] >= 0 and near[b, v] >= 0 and near[3 + 2 * face, v] >= 0


@njit(cache=True)
def _is_cube(near, v):  # type: ignore[no-untyped-def]
    for face in range(3):
        if not _is_square(near, v, face):
            return False
    return near[7, near[0, v]] >= 0


@njit(cache=True)
def _square(lengths, near, v, face):  # type: ignore[no-untyped-def]
    """Return squared lengths and inner product of the sides of the square that begins at v."""
    a, b = _sides(face)
    aa = (lengths[a, v] + lengths[a, near[b, v]]) / 2
    bb = (lengths[b, v] + lengths[b, near[a, v]]) / 2
    ab = (lengths[3 + 2 * face, v] - lengths[4 + 2 * face, near[b, v]]) / 4
    return aa, bb, ab


@njit(cache=True)
def _volume(lengths, near, v):  # type: ignore[no-untyped-def]
    """Return the volume of the cube that begins at v, by the mean of its opposite squares."""
    products = np.zeros((3, 3))
    for face, opposite in ((0, near[2, v]), (1, near[1, v]), (2, near[0, v])):
        a, b = _sides(face)
        for w in (v, opposite):
            aa, bb, ab = _square(lengths, near, w, face)
            products[a, a] += aa / 4
            products[b, b] += bb / 4
            products[a, b] += ab / 2
    xx, yy, zz = products[0, 0], products[1, 1], products[2, 2]
    xy, xz, yz = products[0, 1], products[0, 2], products[1, 2]
    determinant = xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    return math.sqrt(max(determinant, 0.0))
