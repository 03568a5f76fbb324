"""Smooth random fields that are the same whatever the grid they are asked for on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float32 = NDArray[np.float32]


def smooth_noise(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    voxel_mm: tuple[float, float, float],
    length_mm: float,
) -> Float32:
    """Return smooth Gaussian noise of mean 0 and standard deviation 1.

    Parameters
    ----------
    rng : Generator
    shape : tuple of int
    voxel_mm : tuple of float
    length_mm : float
        Standard deviation of the Gaussian that makes it smooth.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
    """
    # drawn on a coarse grid and interpolated: the cost does not grow with the voxel number
    coarse = tuple(
        int(np.ceil(n * v / length_mm)) + 3 for n, v in zip(shape, voxel_mm, strict=True)
    )
    noise = ndimage.gaussian_filter(rng.standard_normal(coarse), 1.0, mode="wrap")
    noise -= noise.mean()
    noise /= np.sqrt(np.mean(noise * noise))
    return stretched(noise, shape, tuple(v / length_mm for v in voxel_mm))


def stretched(
    coarse: NDArray[np.floating], shape: tuple[int, ...], step: tuple[float, ...]
) -> Float32:
    """Return ``coarse`` interpolated linearly at index ``i * step`` along each axis."""
    volume = np.asarray(coarse, np.float32)
    for axis, (n, s) in enumerate(zip(shape, step, strict=True)):
        position = np.minimum(np.arange(n) * s, volume.shape[axis] - 1)
        low = np.minimum(position.astype(int), max(volume.shape[axis] - 2, 0))
        weight = (position - low).astype(np.float32)
        weight = weight.reshape([-1 if a == axis else 1 for a in range(volume.ndim)])
        high = np.minimum(low + 1, volume.shape[axis] - 1)
        volume = volume.take(low, axis) * (1 - weight) + volume.take(high, axis) * weight
    return volume


def slabs(n: int, thickness: int = 8) -> Iterator[slice]:
    """Return slices that cover ``n`` planes, so that temporaries stay small."""
    for start in range(0, n, thickness):
        yield slice(start, min(start + thickness, n))
