"""Projection onto dipole fields, with a prior that leaves the brain its own sources."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    Bool,
    Float32,
    convolve,
    crop,
    dipole_kernel,
    margin_voxels,
    pad,
    padded_geometry,
    place,
)
from bids_qsm.numerics.inversion.solver import conjugate_gradient


def pdf(
    total: FieldMap,
    *,
    inner_sources: float = 0.1,
    regularisation: float = 1e-5,
    tolerance: float = 0.001,
    max_iterations: int = 30,
    margin_mm: float = 40.0,
) -> FieldMap:
    """Remove the field that is best explained by sources outside the mask.

    The total field is fitted, weighted by its noise, by the dipole fields of independent sources
    everywhere.  Those inside the mask are expected to be weaker than those outside; the
    field of the outer ones is the background.  Letting the inner ones take part keeps the outer
    ones from explaining what the brain itself gives rise to.  With ``inner_sources`` 0 this is
    the published method.

    Parameters
    ----------
    total : FieldMap
        Total field.
    inner_sources : float
        Expected size of the sources inside the mask over that of those outside.
    regularisation : float
        Weight of the sources' squared norm.
    tolerance, max_iterations : float, int
        When the conjugate gradients stop: relative residual, number of steps.
    margin_mm : float
        Space around the brain for sources, and against the wrap-around of the dipole kernel.

    Returns
    -------
    FieldMap
        Local field, same mask.  Memory: some nine padded volumes.

    References
    ----------
    Liu 2011, 10.1002/nbm.1670.  Different expectations for sources inside and outside: Liu 2017,
    10.1002/mrm.26331.
    """
    brain, box = total.boxed()
    geometry = padded_geometry(brain.geometry, margin_voxels(brain.geometry, margin_mm))
    kernel = dipole_kernel(geometry)
    mask = pad(brain.mask, geometry.shape)
    weights = pad(brain.weights(), geometry.shape)
    expected = np.where(mask, np.float32(inner_sources), np.float32(1))

    def weighted(field: Float32) -> Float32:
        """Weight, take the mean out (it is free), weight again."""
        field *= weights
        field -= weights * np.float32((field * weights).sum(dtype=np.float64) / norm)
        field *= weights
        return field

    def normal(sources: Float32) -> Float32:
        image = convolve(weighted(convolve(expected * sources, kernel)), kernel)
        image *= expected
        image += np.float32(regularisation) * sources
        return image

    norm = float((weights.astype(np.float64) ** 2).sum())
    field = pad(np.where(brain.mask, brain.field_ppm, 0), geometry.shape)
    right_side = expected * convolve(weighted(field), kernel)
    sources = conjugate_gradient(
        normal, right_side, tolerance=tolerance, max_iterations=max_iterations
    ).value
    background = convolve(np.where(mask, 0, sources), kernel)
    local = brain.field_ppm - crop(background, brain.mask.shape)
    local_field = _without_mean(local, brain.mask, brain.weights())
    return FieldMap(
        place(local_field, box, total.mask.shape),
        total.noise_ppm,
        total.magnitude,
        total.mask,
        total.geometry,
    )


def _without_mean(field: Float32, mask: Bool, weights: Float32) -> Float32:
    """Return the field less its weighted mean, zero outside the mask."""
    mean = np.average(field[mask], weights=weights[mask].astype(np.float64))
    return np.where(mask, field - np.float32(mean), np.float32(0))
