"""T1w and FLAIR images of a head, each on its own grid in the scanner's axes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.labels import labels_at
from bids_qsm.phantom.grids import positions, random_pose, transformed
from bids_qsm.phantom.head import Phantom
from bids_qsm.phantom.noise import slabs, smooth_noise

CONTRASTS = ("t1w", "flair")
NOISE_SHARE, MASKED_SHARE = 0.016, 0.08
"""Noise, and what is masked as air, relative to white matter."""


@dataclass(frozen=True)
class Structural:
    """An anatomical image.

    Attributes
    ----------
    data : ndarray of int16, shape (x, y, z)
    labels : ndarray of int16, shape (x, y, z)
        True labels on the same grid.
    affine : ndarray, shape (4, 4)
    pose : ndarray, shape (4, 4)
        Where the head had been moved to since (or before) its other images (mm, scanner).
    """

    data: NDArray[np.int16]
    labels: NDArray[np.int16]
    affine: NDArray[np.float64]
    pose: NDArray[np.float64]


def simulate_structural(
    phantom: Phantom,
    contrast: str,
    seed: int,
    voxel_mm: float = 1.0,
    pose: NDArray[np.float64] | None = None,
    below_brain_mm: float = 40.0,
    mask_air: bool = False,
    white_matter_units: float = 500.0,
) -> Structural:
    """Simulate a T1w or FLAIR image with blur, bias field and Rician noise.

    Parameters
    ----------
    phantom : Phantom
    contrast : str
        ``t1w`` or ``flair``.
    seed : int
        Decides noise, bias field and the small step (2 degrees, 2 mm at most) of the head.
    voxel_mm : float
        Edge of the cubic voxels.
    pose : ndarray, shape (4, 4), optional
        Where the session has the head; the step comes on top.
    below_brain_mm : float
        How far the image reaches below the brain.
    mask_air : bool
        Whether the image is zero where there is hardly any signal.
    white_matter_units : float
        Stored T1w value of white matter.

    Returns
    -------
    Structural
    """
    rng = np.random.default_rng(seed)
    base = np.eye(4) if pose is None else pose
    moved = random_pose(rng, base[:3, :3] @ phantom.centre_mm() + base[:3, 3], 2.0, 2.0) @ base
    source = moved @ phantom.affine
    low = (0, 0, phantom.first_plane(below_brain_mm))
    shape, affine = upright_grid(low, phantom.labels.shape, source, (voxel_mm,) * 3)
    image = _weighted(phantom, contrast, rng, voxel_mm)
    bias = smooth_noise(rng, shape, (voxel_mm,) * 3, 55.0)
    data, labels = np.empty(shape, np.int16), np.empty(shape, np.int16)
    to_source = np.linalg.inv(source)
    for slab in slabs(shape[0]):
        voxel = transformed(to_source, positions(affine, shape, slab))
        value = ndimage.map_coordinates(image, voxel, np.float64, order=1)
        value *= 1 + 0.12 * np.clip(bias[slab], -2.5, 2.5)
        real = value + NOISE_SHARE * rng.standard_normal(value.shape)
        imaginary = NOISE_SHARE * rng.standard_normal(value.shape)
        size = np.sqrt(real**2 + imaginary**2)
        if mask_air:
            size[size < MASKED_SHARE] = 0
        data[slab] = np.rint(size * white_matter_units)
        labels[slab] = labels_at(phantom.labels, voxel)
    return Structural(data, labels, affine, moved)


def _weighted(
    phantom: Phantom, contrast: str, rng: np.random.Generator, voxel_mm: float
) -> NDArray[np.float32]:
    """Return the image before sampling: texture, and the blur of the voxels to come."""
    image = phantom.table([getattr(tissue, contrast) for tissue in phantom.tissues])[phantom.labels]
    image *= 1 + np.float32(0.03) * smooth_noise(rng, image.shape, phantom.voxel_mm, 2.0)
    # a voxel's own blur is some half of its size; the simulation's voxels have theirs already
    sigma = [0.5 * voxel_mm / v for v in phantom.voxel_mm]
    return ndimage.gaussian_filter(image, sigma, truncate=3.0)


def upright_grid(
    low: Sequence[int],
    high: Sequence[int],
    affine: NDArray,
    voxel_mm: tuple[float, float, float],
) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Return a grid along the scanner's axes that holds a box of another one's voxels."""
    corners = np.array(list(itertools.product(*zip(low, high, strict=True))))
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    first, last = world.min(axis=0), world.max(axis=0)
    x, y, z = (int(np.ceil((b - a) / v)) + 1 for a, b, v in zip(first, last, voxel_mm, strict=True))
    upright = np.diag([*voxel_mm, 1.0])
    upright[:3, 3] = first
    return (x, y, z), upright
