"""Projection onto dipole fields: the background is what sources outside the mask can make."""

from __future__ import annotations

from bids_qsm.numerics.background.outside import (
    Data,
    coarsened,
    factors_for,
    outer_field,
    outer_sources,
    padded_to_multiples,
    refined,
)
from bids_qsm.numerics.fieldmap import FieldMap


def pdf(
    total: FieldMap,
    *,
    regularisation: float = 1e-6,
    coarse_voxel_mm: float = 3.0,
    coarse_iterations: int = 100,
    max_iterations: int = 10,
    tolerance: float = 0.001,
    margin_mm: float = 25.0,
) -> FieldMap:
    """Remove the field that is best explained by sources outside the mask.

    The total field is fitted, weighted by its noise, by dipole sources in every voxel outside
    the mask, together with a constant, three linear terms and one quadratic term.  Sources on a
    coarse grid take most of the field at little cost; fine ones then fit what is left.

    Parameters
    ----------
    total : FieldMap
        Total field.
    regularisation : float
        Weight of the sources' squared norm against weights of mean one.
    coarse_voxel_mm : float
        Voxel size aimed at on the coarse grid.
    coarse_iterations, max_iterations : int
        Most steps of the conjugate gradients, on the coarse and on the full grid.
    tolerance : float
        Relative residual at which either fit stops.
    margin_mm : float
        Space around the brain for sources, and against the wrap-around of the dipole kernel.

    Returns
    -------
    FieldMap
        Local field, same mask.  Memory: some seven padded volumes and eight values for each
        voxel of the mask.

    References
    ----------
    Liu 2011, 10.1002/nbm.1670.
    """
    brain, _ = total.boxed()
    factors = factors_for(brain.geometry, coarse_voxel_mm)
    geometry = padded_to_multiples(brain.geometry, margin_mm, factors)
    data = Data.of(brain, geometry)
    coarse = coarsened(data, factors)
    sources = outer_sources(coarse, regularisation, tolerance, coarse_iterations)
    local = data.values - outer_field(refined(sources, factors), data)
    rest = data.with_values(local)
    sources = outer_sources(rest, regularisation, tolerance, max_iterations)
    local -= outer_field(sources, rest)
    local -= rest.terms_of(local)
    return total.with_values(local)
