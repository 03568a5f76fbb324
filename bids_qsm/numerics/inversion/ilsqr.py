"""Iterative least squares whose streaks are estimated from the map's smooth parts, and removed."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Float32, forward_fft, inverse_fft
from bids_qsm.numerics.inversion.solver import (
    Domain,
    conjugate_gradient,
    gradient,
    gradient_adjoint,
    step_sizes,
    weighted_least_squares,
)

_SIGN_FADES = (0.01, 0.3)
"""Parts of k-space, sorted by the kernel's magnitude: below the first the fast estimate takes its
neighbours' mean, above the second its own value."""
_EDGES_FADE = (50, 70)
"""Percentiles of the gradient in the brain between which a difference becomes an edge."""


def ilsqr(
    local: FieldMap,
    *,
    threshold: float = 0.04,
    max_iterations: int = 30,
    tolerance: float = 0.01,
    streak_iterations: int = 40,
    streak_tolerance: float = 0.03,
    margin_mm: float = 20.0,
) -> Float32:
    r"""Invert by least squares, then remove what a smooth brain would not show.

    The start is weighted least squares.  Its streaks lie at the frequencies *C* that the kernel
    hardly passes, and are the *a* that minimises :math:`\|E\,\nabla(\chi - C a)\|^2`, where *E*
    leaves out the edges.  These come from a fast estimate, the field times the sign of the kernel,
    whose values in the cone give way to the mean of those around.

    Parameters
    ----------
    local : FieldMap
        Local field.
    threshold : float
        Magnitude of the kernel below which streaks are sought; 0 to 2/3, exclusive.
    max_iterations, tolerance : int, float
        When to stop the least squares: iterations, residual of the normal equations over the
        right side.
    streak_iterations, streak_tolerance : int, float
        The same for the streaks.
    margin_mm : float
        Zeros around the brain, against the wrap-around of the dipole kernel.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Susceptibility in ppm, zero outside the mask.  Memory: some fourteen padded volumes.

    Raises
    ------
    ValueError
        If the threshold is out of range.

    References
    ----------
    Li 2015, 10.1016/j.neuroimage.2014.12.043.
    """
    if not 0 < threshold < 2 / 3:
        raise ValueError(f"The threshold of iLSQR must lie between 0 and 2/3, got {threshold}.")
    domain = Domain.of(local, margin_mm)
    start = weighted_least_squares(
        domain, domain.kernel, tolerance=tolerance, max_iterations=max_iterations
    ).value
    smooth = _smooth_places(domain, _fast_estimate(domain))
    cone = (np.abs(domain.kernel) < np.float32(threshold)).astype(np.float32)
    steps = step_sizes(domain.geometry)

    def rise(chi: Float32) -> Float32:
        """Return the part in the cone of the smooth places' gradient's adjoint."""
        return convolve(gradient_adjoint(smooth * gradient(chi, steps), steps), cone)

    streaks = conjugate_gradient(
        rise, rise(start), tolerance=streak_tolerance, max_iterations=streak_iterations
    ).value
    return domain.within_mask(start - streaks)


def _fast_estimate(domain: Domain) -> Float32:
    """Return a map with the right edges and a free scale, on the padded grid.

    Twice: k-space times the kernel's sign in the first pass, then smoothed in and near the cone.
    Neighbours in k-space are averaged by a window in space, around the brain's centre.
    """
    size = np.abs(domain.kernel)
    low, high = np.quantile(size, _SIGN_FADES)
    own = np.clip((size - low) / (high - low), 0, 1).astype(np.float32)
    mask = domain.padded(domain.brain.mask.astype(np.float32))
    window = _neighbours_window(domain)
    chi = convolve(domain.padded(domain.brain.field_ppm), np.sign(domain.kernel))
    for _ in range(2):
        around = forward_fft(chi * window)
        spectrum = forward_fft(chi)
        spectrum = own * spectrum + (1 - own) * around
        chi = inverse_fft(spectrum, domain.geometry.shape)
        chi *= mask
    return chi


def _neighbours_window(domain: Domain) -> Float32:
    """Return what a mean over 3 x 3 x 3 frequencies is in space, about the brain's centre."""
    window = np.ones(domain.geometry.shape, np.float32)
    for axis, (n, m) in enumerate(zip(domain.geometry.shape, domain.brain.mask.shape, strict=True)):
        turns = (np.arange(n) - (m - 1) / 2) / n
        line = (1 + 2 * np.cos(2 * np.pi * turns)) / 3
        window *= np.expand_dims(line, [a for a in range(3) if a != axis]).astype(np.float32)
    return window


def _smooth_places(domain: Domain, estimate: Float32) -> Float32:
    """Return weights of each difference: one in smooth parts of the brain, none at edges."""
    steps = np.abs(gradient(estimate, step_sizes(domain.geometry)))
    mask = domain.padded(domain.brain.mask)
    for axis, differences in enumerate(steps):
        inside = mask & np.roll(mask, -1, axis)
        if inside.any():
            low, high = np.percentile(differences[inside], _EDGES_FADE).astype(np.float32)
            fade = max(high - low, np.finfo(np.float32).tiny)
            np.clip((high - differences) / fade, 0, 1, out=differences)
        differences *= inside
    return steps
