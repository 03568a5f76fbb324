"""Sources outside and inside the brain fitted together: neither explains the other's field."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from bids_qsm.numerics.background.outside import (
    Data,
    coarsened,
    factors_for,
    outer_field,
    outer_sources,
    padded_to_multiples,
    refined,
)
from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import crop, dipole_kernel, place
from bids_qsm.numerics.inversion.admm import Problem, total_variation
from bids_qsm.numerics.inversion.solver import edge_strength


def joint(
    total: FieldMap,
    *,
    far_voxel_mm: float = 4.0,
    far_iterations: int = 100,
    far_tolerance: float = 0.001,
    coarse_voxel_mm: float = 2.0,
    coarse_iterations: int = 40,
    voxel_mm: float = 1.0,
    iterations: int = 16,
    regularisation: float = 8.0,
    background_price: float = 0.0,
    edge_scale: float = 8.0,
    data_pace: float = 30.0,
    margin_mm: float = 25.0,
) -> FieldMap:
    r"""Remove the field of outer sources that were found beside sparse inner ones.

    Sources outside the mask can imitate much of what tissue near its edge, or all of the brain on
    a large scale, does to the field.  Fitted alone, as by projection onto dipole fields, they take
    it away.  Here the susceptibility inside is fitted too, with a price on its edges: what it
    explains with few of them is left to it.  That happens after sources outside alone, on a very
    coarse grid, have taken most of the background; first on a coarse grid, where few iterations
    reach far, then on a fine one, where the edges are.  A constant, three linear terms and one
    quadratic term are taken as well.  The fine fit is not brought to its end: it would go on to
    give to the outside what little tells the data of tissue from those of its surroundings.

    Parameters
    ----------
    total : FieldMap
        Total field.
    far_voxel_mm, far_iterations, far_tolerance : float, int, float
        Grid, most steps, and relative residual at which to stop, of the first fit, of outer
        sources alone.
    coarse_voxel_mm, voxel_mm : float
        Grids aimed at for the joint fits.
    coarse_iterations, iterations : int
        Of the joint fits; 0 leaves one out.
    regularisation : float
        Price of inner edges; see ``tv``.
    background_price : float
        What edges outside the mask cost, against those within.
    edge_scale, data_pace : float
        See ``tv``.
    margin_mm : float
        Space around the brain for sources, and against the wrap-around of the dipole kernel.

    Returns
    -------
    FieldMap
        Local field, same mask; if the last fit was on the full grid, with its susceptibility to
        start from: a coarser one's blocks would have to be undone.  Memory: some fifteen padded
        volumes and eight values for each voxel of the mask.

    References
    ----------
    Liu Z 2017, 10.1002/mrm.26331; Chatnuntawech 2017, 10.1002/nbm.3570 (total-field inversion);
    Liu T 2011, 10.1002/nbm.1670 (sources outside).
    """
    brain, box = total.boxed()
    fits = [
        (factors_for(brain.geometry, coarse_voxel_mm), coarse_iterations),
        (factors_for(brain.geometry, voxel_mm), iterations),
    ]
    far_factors = factors_for(brain.geometry, far_voxel_mm)
    x, y, z = (math.lcm(*along) for along in zip(far_factors, fits[0][0], fits[1][0], strict=True))
    data = Data.of(brain, padded_to_multiples(brain.geometry, margin_mm, (x, y, z)))
    far = outer_sources(coarsened(data, far_factors), 1e-6, far_tolerance, far_iterations)
    local = data.values - outer_field(refined(far, far_factors), data)
    local -= data.terms_of(local)

    start = None
    for factors, n in fits:
        if n == 0:
            continue
        coarse = coarsened(data.with_values(local), factors)
        field = _as_field_map(coarse, brain)
        strength, spread = edge_strength(field, regularisation)
        if not spread:
            continue
        problem = Problem.of(
            field,
            strength=strength,
            threshold=edge_scale * spread,
            margin_mm=0,
            data_pace=data_pace,
            background_price=background_price,
        )
        chi = crop(total_variation(problem, n, 0.0), coarse.mask.shape)
        local -= outer_field(refined(chi, factors), data)
        inner = refined(chi * coarse.mask, factors)
        local -= data.terms_of(local - convolve(inner, dipole_kernel(data.geometry))[data.mask])
        inner = crop(inner, brain.mask.shape) * brain.mask
        start = place(inner, box, total.mask.shape) if factors == (1, 1, 1) else None
    return replace(total.with_values(local), chi_start_ppm=start)


def _as_field_map(coarse: Data, brain: FieldMap) -> FieldMap:
    """Return coarse data with the noise that a voxel of the full grid has."""
    weights = brain.weights()[brain.mask]
    noise = brain.noise_ppm[brain.mask]
    known = np.isfinite(noise) & (noise > 0) & (weights > 0)
    unit = np.float32(np.median(noise[known] * weights[known])) if known.any() else np.float32(0)
    noise_ppm = np.full(coarse.mask.shape, np.inf, np.float32)
    unknown = np.full(coarse.weights.shape, np.inf, np.float32)
    noise_ppm[coarse.mask] = np.divide(unit, coarse.weights, out=unknown, where=coarse.weights > 0)
    return FieldMap(
        coarse.scatter(coarse.values),
        noise_ppm,
        coarse.mask.astype(np.float32),
        coarse.mask,
        coarse.geometry,
    )
