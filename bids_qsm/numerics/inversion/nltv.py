"""Total variation with a complex data term, whose noise is Gaussian even where signal is weak."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Float32, crop, place
from bids_qsm.numerics.inversion.admm import Problem, total_variation
from bids_qsm.numerics.inversion.solver import edge_strength


def nltv(
    local: FieldMap,
    *,
    regularisation: float = 0.8,
    edge_fraction: float = 0.0,
    radians_per_ppm: float = 16.0,
    edge_scale: float = 0.5,
    max_iterations: int = 60,
    tolerance: float = 0.004,
    margin_mm: float = 20.0,
) -> Float32:
    r"""Find the susceptibility whose signal is that of the field, with few and small edges.

    Minimises :math:`\frac12 \|w (e^{i\gamma d * \chi} - e^{i\gamma f})\|^2 / \gamma^2 +
    \lambda \|\nabla\chi\|_{2,1}`: as ``tv``, but voxels whose field is wrong by much, by a multiple
    of a turn even, pull the map no further than by a quarter of a turn.

    Parameters
    ----------
    local : FieldMap
        Local field; with magnitude if ``edge_fraction`` is not 0.
    regularisation : float
        Strength of the penalty on edges, the same for every noise level and unit.
    edge_fraction : float
        Share of the magnitude's differences between neighbours that are edges and not penalised.
    radians_per_ppm : float
        Phase of a shift of 1 ppm in the signals that are compared; 16 is that of 20 ms at 3 T.
    edge_scale : float
        Edges shrink in steps of this times the field's spread: it changes the speed, not the
        solution.
    max_iterations, tolerance : int, float
        When to stop: number of iterations, relative change of the map in one.
    margin_mm : float
        Zeros around the brain, against the wrap-around of the dipole kernel.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Susceptibility in ppm, zero outside the mask.  Memory: some thirteen padded volumes.

    Raises
    ------
    ValueError
        If ``radians_per_ppm`` is not positive.

    References
    ----------
    Milovic 2018, 10.1002/mrm.27073.
    """
    if radians_per_ppm <= 0:
        raise ValueError(f"radians_per_ppm of nltv must be positive, got {radians_per_ppm}.")
    brain, box = local.boxed()
    strength, spread = edge_strength(brain, regularisation)
    if not spread:
        return np.zeros(local.mask.shape, np.float32)
    problem = Problem.of(
        brain,
        strength=strength,
        threshold=edge_scale * spread,
        margin_mm=margin_mm,
        radians_per_ppm=radians_per_ppm,
        edge_fraction=edge_fraction,
    )
    chi = crop(total_variation(problem, max_iterations, tolerance), brain.mask.shape)
    return place(np.where(brain.mask, chi, np.float32(0)), box, local.mask.shape)
