"""Susceptibility with sparse edges: weighted least squares with total variation, by ADMM."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Float32, crop, place
from bids_qsm.numerics.inversion.admm import Problem, total_variation
from bids_qsm.numerics.inversion.solver import edge_strength


def tv(
    local: FieldMap,
    *,
    regularisation: float = 0.8,
    background_price: float = 0.1,
    edge_fraction: float = 0.1,
    edge_scale: float = 4.0,
    data_pace: float = 20.0,
    max_iterations: int = 20,
    iterations_from_start: int = 8,
    tolerance: float = 0.004,
    margin_mm: float = 20.0,
) -> Float32:
    r"""Find the susceptibility that explains the field with few and small edges.

    Minimises :math:`\frac12 \|w (d * \chi - f)\|^2 + \lambda \|\nabla\chi\|_{2,1}`, where the
    weights *w* are the inverse noise, of mean one, and
    :math:`\lambda = r \sigma^2 / s`, with the median noise :math:`\sigma` and the spread *s* of
    the field *f*: the most probable map if the noise is Gaussian and edges, of a size in
    proportion to the field, are exponentially distributed.  So one value of *r* serves every
    noise level, and the result scales with the field.  The data term is split from the
    regularisation, so that each step is solved exactly, in space or in frequency.

    Parameters
    ----------
    local : FieldMap
        Local field.
    regularisation : float
        The factor *r*.
    background_price : float
        What edges outside the mask cost, against those within; a constant, linear terms and the
        squared distance are free.  What background removal left behind, or took too much, is then
        made good by sources outside, and not by false ones along the edge of the brain.  With 1
        they cost as much and the terms are not free: best for a local field that is exact.
    edge_fraction : float
        Share of the magnitude's differences between neighbours that are edges and not penalised.
    edge_scale, data_pace : float
        Edges shrink in steps of the first times *s*, and misfits the faster the higher the second
        is: they change the speed, not the solution.
    max_iterations, tolerance : int, float
        When to stop: number of iterations, relative change of the map in one.
    iterations_from_start : int
        Number of iterations where background removal left a map to start from.
    margin_mm : float
        Zeros around the brain, for sources and against the wrap-around of the dipole kernel.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Susceptibility in ppm, zero outside the mask.  Memory: some thirteen padded volumes.

    References
    ----------
    Bilgic 2014, 10.1002/mrm.25029; Milovic 2018, 10.1002/mrm.27073 (the weighted data term);
    Liu Z 2017, 10.1002/mrm.26331 (sources outside too).
    """
    brain, box = local.boxed()
    strength, spread = edge_strength(brain, regularisation)
    if not spread:
        return np.zeros(local.mask.shape, np.float32)
    problem = Problem.of(
        brain,
        strength=strength,
        threshold=edge_scale * spread,
        margin_mm=margin_mm,
        data_pace=data_pace,
        edge_fraction=edge_fraction,
        background_price=None if background_price == 1 else background_price,
    )
    start = brain.chi_start_ppm
    iterations = max_iterations if start is None else iterations_from_start
    chi = crop(total_variation(problem, iterations, tolerance, start), brain.mask.shape)
    return place(np.where(brain.mask, chi, np.float32(0)), box, local.mask.shape)
