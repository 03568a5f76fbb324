"""Morphology-enabled inversion: the map has edges where the magnitude has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    Bool,
    Float32,
    Geometry,
    crop,
    dipole_kernel,
    margin_voxels,
    pad,
    padded_geometry,
    place,
    sphere_kernel,
)
from bids_qsm.numerics.inversion.solver import (
    conjugate_gradient,
    edge_strength,
    gradient,
    gradient_adjoint,
    inner,
    laplacian_spectrum,
    magnitude_edges,
    step_sizes,
)

_SMOOTHING = 0.1
"""The absolute value is smoothed below this part of the field's spread, to be differentiable."""
_OUTLIER = 6.0
"""Residuals beyond this many standard deviations are errors of the model, not noise."""
_FLUID_R2STAR_PER_S = 5.0
_FLUID_RADIUS_MM = 30.0


def medi(
    local: FieldMap,
    *,
    regularisation: float = 0.4,
    edge_fraction: float = 0.1,
    nonlinear: bool = True,
    radians_per_ppm: float = 4.0,
    merit: bool = True,
    smv_radius_mm: float = 0.0,
    csf_weight: float = 0.0,
    max_iterations: int = 10,
    tolerance: float = 0.05,
    max_cg_iterations: int = 60,
    cg_tolerance: float = 0.03,
    margin_mm: float = 20.0,
) -> Float32:
    r"""Find the susceptibility with few edges save where the magnitude has edges too.

    Minimises :math:`\frac12 \|w (e^{i\gamma d * \chi} - e^{i\gamma f})\|^2 / \gamma^2 +
    \lambda \|M \nabla\chi\|_1 + \frac{c}{2} \|\chi - \bar\chi\|^2_\mathrm{CSF}` by Gauss-Newton
    steps, each solved by conjugate gradients.  The weights *w* are the inverse noise, of mean
    one; *M* is zero on the strongest edges of the magnitude; :math:`\lambda` is the noise's
    variance over the field's spread, times ``regularisation``.

    Parameters
    ----------
    local : FieldMap
        Local field, with magnitude; with R2* if ``csf_weight`` is to act.
    regularisation : float
        Strength of the penalty on edges, the same for every noise level and unit.
    edge_fraction : float
        Share of the magnitude's differences between neighbours that are edges and not penalised.
    nonlinear : bool
        Compare complex signals, whose noise is Gaussian, rather than fields.
    radians_per_ppm : float
        Phase of a shift of 1 ppm in those signals; 4 is that of 5 ms at 3 T.  A field of more
        than pi radians is taken for another one: values below pi over the largest field are safe.
    merit : bool
        After each step reduce the weight of voxels that the model cannot explain.
    smv_radius_mm : float
        Radius of a sphere whose mean is taken from both the field and the model, against what
        background removal left; 0: none.  Voxels to which it does not fit are lost.
    csf_weight : float
        Penalty *c* on the variance within cerebrospinal fluid, relative to the data's; 0.1 is
        usual.  Fluid is where R2* is below 5/s in the middle of the brain; without R2*, or where
        there is none, the penalty is left out.
    max_iterations, tolerance : int, float
        When to stop: number of Gauss-Newton steps, relative change of the map in one.
    max_cg_iterations, cg_tolerance : int, float
        The same for conjugate gradients within a step.
    margin_mm : float
        Zeros around the brain, against the wrap-around of the dipole kernel.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Susceptibility in ppm, zero outside the mask.  Memory: some twenty padded volumes.

    References
    ----------
    Liu 2012, 10.1016/j.neuroimage.2011.08.082 (edges); Liu 2013, 10.1002/mrm.24272 (signals,
    errors of the model); Liu 2018, 10.1002/mrm.26946 (fluid); Liu 2011, 10.1002/mrm.22816
    (weights).
    """
    brain, box = local.boxed()
    strength, spread = edge_strength(brain, regularisation)
    if not spread:
        return np.zeros(local.mask.shape, np.float32)
    phase_scale = radians_per_ppm if nonlinear else 0.0
    problem, weights, mask = _prepare(
        brain, strength, spread, edge_fraction, phase_scale, smv_radius_mm, csf_weight, margin_mm
    )
    chi = np.zeros(weights.shape, np.float32)
    for _ in range(max_iterations):
        operator, downhill = _linearise(problem, weights, chi)
        step = conjugate_gradient(
            operator,
            downhill,
            tolerance=cg_tolerance,
            max_iterations=max_cg_iterations,
            precondition=lambda x: convolve(x, problem.inverse),
        ).value
        chi += step
        if inner(step, step) <= tolerance**2 * inner(chi, chi):
            break
        if merit:
            weights = _without_outliers(problem, weights, chi)
    inside = np.where(mask, crop(chi, mask.shape), np.float32(0))
    return place(inside, box, local.mask.shape)


@dataclass(frozen=True)
class _Problem:
    """What stays the same from step to step, on the padded grid."""

    field: Float32
    kernel: Float32
    inverse: Float32  # half spectrum of the operator's, were all weights one and all edges small
    penalised: Bool  # of shape (3, x, y, z)
    fluid: Bool
    steps: Float32
    strength: np.float32
    smallest_edge: np.float32
    csf_weight: np.float32
    phase_scale: np.float32  # radians per ppm; 0 for the linear data term


def _prepare(
    brain: FieldMap,
    strength: float,
    spread: float,
    edge_fraction: float,
    phase_scale: float,
    smv_radius_mm: float,
    csf_weight: float,
    margin_mm: float,
) -> tuple[_Problem, Float32, Bool]:
    """Return the problem, the data's first weights, and the mask of what will be known."""
    geometry = padded_geometry(
        brain.geometry, margin_voxels(brain.geometry, max(margin_mm, 2 * smv_radius_mm))
    )
    kernel, field = dipole_kernel(geometry), pad(brain.field_ppm, geometry.shape)
    mask, weights = pad(brain.mask, geometry.shape), pad(brain.weights(), geometry.shape)
    penalised = ~magnitude_edges(
        pad(brain.magnitude, geometry.shape), mask, edge_fraction, geometry
    )
    if smv_radius_mm > 0:
        sphere = sphere_kernel(geometry, smv_radius_mm)
        mask = mask & (convolve(mask.astype(np.float32), sphere) > 1 - 1e-5)
        kernel *= 1 - sphere
        field -= convolve(field, sphere)
        weights *= mask
    fluid = np.zeros(mask.shape, bool)
    if csf_weight > 0 and brain.r2star_per_s is not None:
        fluid = pad(central_fluid(brain.r2star_per_s, brain.mask, brain.geometry), geometry.shape)
    steps, smallest_edge = step_sizes(geometry), np.float32(_SMOOTHING * spread)
    inverse = kernel**2
    inverse += np.float32(strength) / smallest_edge * laplacian_spectrum(geometry, steps)
    inverse[0, 0, 0] = 1  # the mean is free: any value but 0
    problem = _Problem(
        field * mask,
        kernel,
        np.reciprocal(inverse, out=inverse),
        penalised,
        fluid,
        steps,
        np.float32(strength),
        smallest_edge,
        np.float32(csf_weight if fluid.any() else 0),
        np.float32(phase_scale),
    )
    return problem, weights, crop(mask, brain.mask.shape)


def central_fluid(r2star_per_s: Float32, mask: Bool, geometry: Geometry) -> Bool:
    """Return the two largest pieces of fluid in the middle of the brain: the lateral ventricles.

    Parameters
    ----------
    r2star_per_s : ndarray of float32, shape (x, y, z)
        Fluid has less than 5/s.
    mask : ndarray of bool, shape (x, y, z)
        Brain; its middle is what lies within 3 cm of its centroid.
    geometry : Geometry

    Returns
    -------
    ndarray of bool, shape (x, y, z)

    References
    ----------
    Liu 2018, 10.1002/mrm.26946.
    """
    squared_mm = np.zeros(mask.shape, np.float32)
    for axis, (voxel, n) in enumerate(zip(geometry.voxel_mm, mask.shape, strict=True)):
        others = tuple({0, 1, 2} - {axis})
        centre = np.average(np.arange(n), weights=mask.sum(axis=others))
        away = ((np.arange(n) - centre) * voxel) ** 2
        squared_mm += np.expand_dims(away, others).astype(np.float32)
    middle = mask & (squared_mm <= _FLUID_RADIUS_MM**2)
    pieces, count = ndimage.label(middle & (r2star_per_s < _FLUID_R2STAR_PER_S))
    if not count:
        return np.zeros(mask.shape, bool)
    sizes = np.bincount(pieces.ravel())[1:]
    return np.isin(pieces, 1 + np.argsort(-sizes, kind="stable")[:2])


def _linearise(problem: _Problem, weights: Float32, chi: Float32):  # type: ignore[no-untyped-def]
    """Return the Gauss-Newton operator at ``chi``, and minus the gradient of the cost there."""
    squared = weights**2
    edges = gradient(chi, problem.steps)
    edges *= problem.penalised
    # the quadratic that touches the smoothed absolute value at this size of edge
    bend = problem.strength / np.sqrt(edges**2 + problem.smallest_edge**2)
    bend *= problem.penalised

    def others(x: Float32) -> Float32:
        slopes = gradient(x, problem.steps)
        slopes *= bend
        out = gradient_adjoint(slopes, problem.steps)
        if problem.csf_weight:
            out[problem.fluid] += problem.csf_weight * _less_mean(x[problem.fluid])
        return out

    def operator(x: Float32) -> Float32:
        out = convolve(squared * convolve(x, problem.kernel), problem.kernel)
        out += others(x)
        return out

    residual = _residual(problem, chi)
    if problem.phase_scale:
        residual = np.sin(problem.phase_scale * residual) / problem.phase_scale
    downhill = convolve(squared * residual, problem.kernel)
    downhill += others(chi)
    return operator, np.negative(downhill, out=downhill)


def _less_mean(values: Float32) -> Float32:
    return values - np.float32(values.mean(dtype=np.float64))


def _residual(problem: _Problem, chi: Float32) -> Float32:
    """Return the field of ``chi`` less the one measured."""
    residual = convolve(chi, problem.kernel)
    residual -= problem.field
    return residual


def _without_outliers(problem: _Problem, weights: Float32, chi: Float32) -> Float32:
    """Divide the weights of outliers by the square of how far out they lie."""
    residual = _residual(problem, chi)
    if problem.phase_scale:  # length of the difference of two complex signals
        residual = np.sin(problem.phase_scale / 2 * residual) * (2 / problem.phase_scale)
    residual *= weights
    known = residual[weights > 0]
    limit = np.float32(_OUTLIER * known.std(dtype=np.float64))
    if not limit:
        return weights
    return weights / np.maximum(np.abs(residual) / limit, np.float32(1)) ** 2
