"""Rapid two steps: well-conditioned frequencies by least squares, the rest by sparse edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Float32, forward_fft, inverse_fft
from bids_qsm.numerics.inversion.edges import edge_step, edge_target_of
from bids_qsm.numerics.inversion.solver import (
    Domain,
    edge_strength,
    has_settled,
    laplacian_spectrum,
    step_sizes,
    weighted_least_squares,
)


def rts(
    local: FieldMap,
    *,
    threshold: float = 0.08,
    first_iterations: int = 6,
    regularisation: float = 0.2,
    edge_scale: float = 2.0,
    max_iterations: int = 30,
    tolerance: float = 0.004,
    margin_mm: float = 20.0,
) -> Float32:
    r"""Fit the frequencies that the kernel passes; fill in the others with few and small edges.

    Well-conditioned are the frequencies *M* at which the kernel is above the threshold.  The first
    step finds :math:`\chi_1` there by weighted least squares, stopped early; the second minimises
    :math:`\frac12 \|M (\chi - \chi_1)\|^2 + r s \|\nabla\chi\|_{2,1}`, with the spread *s* of
    the field, so that the result scales with the field.

    Parameters
    ----------
    local : FieldMap
        Local field.
    threshold : float
        Magnitude of the kernel above which a frequency is well-conditioned; 0 to 2/3, exclusive.
    first_iterations : int
        Number of iterations of the first step.
    regularisation : float
        The factor *r*.
    edge_scale : float
        Edges shrink in steps of this times *s*: it changes the speed, not the solution.
    max_iterations, tolerance : int, float
        When to stop the second step: number of iterations, relative change of the map in one.
    margin_mm : float
        Zeros around the brain, against the wrap-around of the dipole kernel.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Susceptibility in ppm, zero outside the mask.  Memory: some ten padded volumes.

    Raises
    ------
    ValueError
        If the threshold is out of range.

    References
    ----------
    Kames 2018, 10.1016/j.neuroimage.2017.11.018.
    """
    if not 0 < threshold < 2 / 3:
        raise ValueError(f"The threshold of RTS must lie between 0 and 2/3, got {threshold}.")
    domain = Domain.of(local, margin_mm)
    _, spread = edge_strength(domain.brain, regularisation)
    if not spread:
        return np.zeros(domain.shape, np.float32)
    conditioned = (np.abs(domain.kernel) > np.float32(threshold)).astype(np.float32)
    # what is sought is the map times the kernel's magnitude: all its frequencies pass alike
    first = weighted_least_squares(
        domain,
        np.sign(domain.kernel) * conditioned,
        tolerance=0.0,
        max_iterations=first_iterations,
    )
    known = forward_fft(first.value)
    known *= conditioned / np.maximum(np.abs(domain.kernel), np.float32(threshold))
    found = _fill_in(
        domain,
        known,
        conditioned,
        np.float32(regularisation / edge_scale),
        np.float32(edge_scale * spread),
        (max_iterations, tolerance),
    )
    return domain.within_mask(found)


def _fill_in(
    domain: Domain,
    known: NDArray[np.complexfloating],
    conditioned: Float32,
    penalty: np.float32,
    threshold: np.float32,
    stop: tuple[int, float],
) -> Float32:
    """Return the map of sparse edges with the known spectrum, on the padded grid, by ADMM."""
    shape, steps = domain.geometry.shape, step_sizes(domain.geometry)
    inverse = penalty * laplacian_spectrum(domain.geometry, steps)
    inverse += conditioned
    inverse[0, 0, 0] = 1  # the mean is free: any value but 0
    np.reciprocal(inverse, out=inverse)
    edges = np.zeros((3, *shape), np.float32)
    chi, target = np.zeros(shape, np.float32), np.empty(shape, np.float32)
    flags, thresholds = np.zeros(shape, np.uint8), np.full(2, threshold)
    max_iterations, tolerance = stop
    for _ in range(max_iterations):
        edge_target_of(edges, steps, thresholds, flags, target)
        spectrum = forward_fft(target)
        spectrum *= penalty
        spectrum += known
        spectrum *= inverse
        before, chi = chi, inverse_fft(spectrum, shape)
        edge_step(chi, edges, steps, thresholds, flags)
        if has_settled(before, chi, tolerance):
            break
    return chi
