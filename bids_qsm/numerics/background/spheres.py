"""Spherical means on a padded grid: what the methods built on the mean value theorem share.

A harmonic field equals its mean over any sphere, so that the field less its spherical mean holds
nothing of the sources outside the mask wherever the sphere lies within the mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    Bool,
    Float32,
    Geometry,
    forward_fft,
    inverse_fft,
    margin_voxels,
    pad,
    padded_geometry,
    place,
)


@dataclass(frozen=True)
class Padded:
    """A field map's bounding box with room for a sphere at the end of each axis.

    Attributes
    ----------
    field, weights : ndarray of float32
        Field (ppm), and :meth:`FieldMap.weights`; zero in the margin.
    mask : ndarray of bool
    geometry : Geometry
        Of the padded grid.
    box : tuple of slice
        Where the bounding box lies in the whole grid.
    """

    field: Float32
    weights: Float32
    mask: Bool
    geometry: Geometry
    box: tuple[slice, slice, slice]

    @staticmethod
    def of(total: FieldMap, margin_mm: float) -> Padded:
        """Return the box of ``total`` with a margin of at least ``margin_mm`` and a voxel.

        Raises
        ------
        ValueError
            If the mask is empty.
        """
        brain, box = total.boxed()
        geometry = padded_geometry(
            brain.geometry,
            margin_voxels(brain.geometry, margin_mm + max(total.geometry.voxel_mm)),
        )
        field, weights, mask = (
            pad(volume, geometry.shape) for volume in (brain.field_ppm, brain.weights(), brain.mask)
        )
        return Padded(field, weights, mask, geometry, box)

    def local_map(self, total: FieldMap, local: Float32, mask: Bool) -> FieldMap:
        """Return ``total`` with the local field in the smaller mask, both on the padded grid."""
        inside = tuple(slice(s.stop - s.start) for s in self.box)
        shape = total.mask.shape
        return FieldMap(
            place(np.where(mask[inside], local[inside], np.float32(0)), self.box, shape),
            total.noise_ppm,
            total.magnitude,
            place(mask[inside], self.box, shape),
            total.geometry,
        )


def spherical_mean(
    spectrum: NDArray[np.complexfloating], sphere: Float32, shape: tuple[int, ...]
) -> Float32:
    """Return the means over a sphere of the volume whose half spectrum is given."""
    return np.asarray(inverse_fft(spectrum * sphere, shape), np.float32)


def where_it_fits(mask: Bool, mask_spectrum: NDArray[np.complexfloating], sphere: Float32) -> Bool:
    """Return the voxels of the mask around which the whole sphere lies within the mask."""
    # such a sphere holds nothing but ones
    return (spherical_mean(mask_spectrum, sphere, mask.shape) > 1 - 1e-5) & mask


def eroded(mask: Bool, sphere: Float32) -> Bool:
    """Return the mask eroded by a sphere.

    Raises
    ------
    ValueError
        If nothing is left.
    """
    left = where_it_fits(mask, forward_fft(mask.astype(np.float32)), sphere)
    if not left.any():
        raise ValueError(
            "The sphere fits nowhere into the mask: choose a smaller radius or another method."
        )
    return left


def deconvolve(filtered: Float32, sphere: Float32, threshold: float) -> Float32:
    """Undo the high-pass filter 1 - sphere, save where it is weaker than the threshold."""
    high_pass = 1 - sphere
    strong = np.abs(high_pass) >= threshold
    inverse = np.zeros_like(high_pass)
    inverse[strong] = 1 / high_pass[strong]
    return convolve(filtered, inverse)
