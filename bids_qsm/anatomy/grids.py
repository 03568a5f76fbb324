"""Grids: coarser copies of an image, and values on another image's grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.images import Image, voxel_sizes_mm
from bids_qsm.numerics.labels import labels_at


def coarser(image: Image, voxel_mm: float) -> Image:
    """Return the means of blocks of voxels that are about ``voxel_mm`` wide (float32)."""
    factors = [max(1, round(voxel_mm / v)) for v in voxel_sizes_mm(image.affine)]
    sizes = [max(1, n // f) for n, f in zip(image.shape, factors, strict=True)]
    data = image.data[tuple(slice(n * f) for n, f in zip(sizes, factors, strict=True))]
    blocks = data.reshape([k for pair in zip(sizes, factors, strict=True) for k in pair])
    step = np.diag([*factors, 1.0])
    step[:3, 3] = (np.array(factors) - 1) / 2
    return Image(blocks.mean(axis=(1, 3, 5), dtype=np.float32), image.affine @ step)


def on_grid(image: Image, reference: Image, order: int = 1) -> Image:
    """Return ``image`` on the grid of ``reference`` as their affines say; outside it is zero.

    ``order`` is that of the spline: 0 takes the nearest voxel and keeps the type.
    """
    to_voxel = np.linalg.inv(image.affine) @ reference.affine
    data = image.data if order == 0 else image.data.astype(np.float32)
    resampled = ndimage.affine_transform(
        data, to_voxel[:3, :3], to_voxel[:3, 3], reference.shape, order=order, mode="constant"
    )
    return reference.like(resampled)


def labels_on_grid(labels: Image, reference: Image) -> Image:
    """Return labels on the grid of ``reference``, each voxel with the one of the largest share."""
    to_voxel = np.linalg.inv(labels.affine) @ reference.affine
    i, j, k = np.ix_(*(np.arange(n) for n in reference.shape))
    voxels = [row[0] * i + row[1] * j + row[2] * k + row[3] for row in to_voxel[:3]]
    return reference.like(labels_at(labels.data, voxels))


def near(mask: NDArray[np.bool_], radius_mm: float, voxel_mm: tuple[float, ...]) -> NDArray:
    """Return the voxels within ``radius_mm`` of a mask: its dilation by a ball."""
    return ndimage.distance_transform_edt(~mask, sampling=voxel_mm) <= radius_mm


def deep_inside(mask: NDArray[np.bool_], radius_mm: float, voxel_mm: tuple[float, ...]) -> NDArray:
    """Return the voxels further than ``radius_mm`` from outside a mask: its erosion by a ball."""
    return ndimage.distance_transform_edt(mask, sampling=voxel_mm) > radius_mm


def largest_component(mask: NDArray[np.bool_], within: NDArray[np.bool_] | None = None) -> NDArray:
    """Return the connected part with most voxels (``within`` a region, where it is given)."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    counted = labels if within is None else labels[within]
    sizes = np.bincount(counted.ravel(), minlength=count + 1)
    return labels == 1 + int(np.argmax(sizes[1:]))
