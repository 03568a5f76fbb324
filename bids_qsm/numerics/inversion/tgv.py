"""Total generalised variation of second order: piecewise linear maps rather than constant ones."""

from __future__ import annotations

import numba
import numpy as np

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    Float32,
    Geometry,
    crop,
    dipole_kernel,
    forward_fft,
    frequencies,
    inverse_fft,
    place,
)
from bids_qsm.numerics.inversion.admm import Problem, data_step
from bids_qsm.numerics.inversion.edges import RELAXATION
from bids_qsm.numerics.inversion.solver import (
    edge_strength,
    has_settled,
    step_sizes,
)


def tgv(
    local: FieldMap,
    *,
    regularisation: float = 0.4,
    bend_ratio: float = 2.0,
    edge_scale: float = 0.5,
    max_iterations: int = 60,
    tolerance: float = 0.004,
    margin_mm: float = 20.0,
) -> Float32:
    r"""Find the susceptibility that explains the field with few edges between linear pieces.

    Minimises :math:`\frac12 \|w (d * \chi - f)\|^2 + \lambda \min_v (\|\nabla\chi - v\|_{2,1} +
    b \|\mathcal{E} v\|_{F,1})`, with the symmetrised gradient :math:`\mathcal{E}`: slopes *v* cost
    nothing, only where they change does the map pay.  The map and its slopes are found together,
    in closed form for each frequency.

    Parameters
    ----------
    local : FieldMap
        Local field.
    regularisation : float
        Strength of the penalty on edges, the same for every noise level and unit.
    bend_ratio : float
        The factor *b*, in voxels: the larger, the more the map is like one of total variation.
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
        Susceptibility in ppm, zero outside the mask.  Memory: some thirty padded volumes.

    References
    ----------
    Bredies 2010, 10.1137/090769521; Langkammer 2015, 10.1016/j.neuroimage.2015.02.041.
    """
    brain, box = local.boxed()
    strength, spread = edge_strength(brain, regularisation)
    if not spread:
        return np.zeros(local.mask.shape, np.float32)
    problem = Problem.of(
        brain, strength=strength, threshold=edge_scale * spread, margin_mm=margin_mm
    )
    found = _admm(problem, np.float32(bend_ratio), max_iterations, tolerance)
    chi = np.where(brain.mask, crop(found, brain.mask.shape), np.float32(0))
    return place(chi, box, local.mask.shape)


def _admm(
    problem: Problem, bend_ratio: np.float32, max_iterations: int, tolerance: float
) -> Float32:
    """Return the susceptibility on the padded grid.

    The penalty of the splitting of bends is that of jumps times ``bend_ratio``, so that both
    shrink by the same threshold.
    """
    shape, steps = problem.geometry.shape, step_sizes(problem.geometry)
    kernel, differences = dipole_kernel(problem.geometry), _difference_spectra(problem.geometry)
    threshold = problem.thresholds[0]
    jumps, slopes = (np.zeros((3, *shape), np.float32) for _ in range(2))
    bends = np.zeros((6, *shape), np.float32)
    split, dual, chi, field = (np.zeros(shape, np.float32) for _ in range(4))
    jump_target, slope_target = np.empty(shape, np.float32), np.empty((3, *shape), np.float32)
    for _ in range(max_iterations):
        data_step(problem, field, split, dual)
        _targets(jumps, bends, steps, threshold, bend_ratio, jump_target, slope_target)
        chi_spectrum, field_spectrum = forward_fft(field), forward_fft(jump_target)
        spectra = tuple(forward_fft(target) for target in slope_target)
        _solve(
            chi_spectrum,
            field_spectrum,
            spectra,
            kernel,
            differences,
            problem.edge_penalty,
            bend_ratio,
        )
        before = chi
        chi = inverse_fft(chi_spectrum, shape)
        field = inverse_fft(field_spectrum, shape)
        for axis, spectrum in enumerate(spectra):
            slopes[axis] = inverse_fft(spectrum, shape)
        _jump_step(chi, slopes, jumps, steps, threshold)
        _bend_step(slopes, bends, steps, threshold)
        if has_settled(before, chi, tolerance):
            break
    return chi


def _difference_spectra(geometry: Geometry) -> tuple[np.ndarray, ...]:
    """Return the spectra of forward differences along each axis, of one dimension each."""
    return tuple(
        ((np.exp(2j * np.pi * k.ravel().astype(np.float64) * voxel) - 1) / step).astype(
            np.complex64
        )
        for k, voxel, step in zip(
            frequencies(geometry), geometry.voxel_mm, step_sizes(geometry), strict=True
        )
    )


@numba.njit(parallel=True, cache=True)
def _solve(  # type: ignore[no-untyped-def]
    first, second, slopes, kernel, differences, edge_penalty, bend_ratio
):
    """Solve for the map and its slopes, frequency by frequency.

    With the spectra g of the forward and b = -conj(g) of the backward differences, and with the
    matrix B = 1 + r / 2 (b^H b + b b^H) that the slopes v see, whose inverse is closed, the map x
    and the slopes obey::

        (d^2 + p (g^H g - g^H B^-1 g)) x = d first + p (second + g^H B^-1 slopes)
        B v = slopes + g x

    ``first`` becomes the spectrum of the map, ``second`` that of its field.
    """
    nx, ny, nz = kernel.shape
    sx, sy, sz = slopes
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                gx, gy, gz = differences[0][x], differences[1][y], differences[2][z]
                cx, cy, cz = gx.conjugate(), gy.conjugate(), gz.conjugate()
                squared = np.float64((gx * cx).real + (gy * cy).real + (gz * cz).real)
                diagonal = 1 + bend_ratio / 2 * squared
                rank_one = bend_ratio / 2 / (diagonal + bend_ratio / 2 * squared)
                across = gx * gx + gy * gy + gz * gz  # -b^H g
                across2 = np.float64(across.real) ** 2 + np.float64(across.imag) ** 2
                stiffness = squared - (squared - rank_one * across2) / diagonal
                # g^H B^-1 slopes
                along = gx * sx[x, y, z] + gy * sy[x, y, z] + gz * sz[x, y, z]  # -b^H slopes
                straight = cx * sx[x, y, z] + cy * sy[x, y, z] + cz * sz[x, y, z]
                pulled = (straight - rank_one * across.conjugate() * along) / diagonal
                dipole = np.float64(kernel[x, y, z])
                system = dipole * dipole + edge_penalty * stiffness
                target = dipole * first[x, y, z] + edge_penalty * (second[x, y, z] + pulled)
                chi = target / system if system > 0 else 0 * target  # the mean is free
                first[x, y, z] = chi
                second[x, y, z] = dipole * chi
                share = rank_one * (along + across * chi)
                sx[x, y, z] = (sx[x, y, z] + gx * chi - share * cx) / diagonal
                sy[x, y, z] = (sy[x, y, z] + gy * chi - share * cy) / diagonal
                sz[x, y, z] = (sz[x, y, z] + gz * chi - share * cz) / diagonal


# In the kernels below one array holds what ADMM keeps as two.  With t = (jump + scaled dual), the
# split variable is keep * t and the dual (1 - keep) * t; likewise for bends, whose components are
# xx, yy, zz, xy, xz, yz.


@numba.njit(cache=True)
def _keep_jump(jumps, x, y, z, threshold):  # type: ignore[no-untyped-def]
    size = np.sqrt(jumps[0, x, y, z] ** 2 + jumps[1, x, y, z] ** 2 + jumps[2, x, y, z] ** 2)
    return np.float32(1) - threshold / size if size > threshold else np.float32(0)


@numba.njit(cache=True)
def _keep_bend(bends, x, y, z, threshold):  # type: ignore[no-untyped-def]
    straight = bends[0, x, y, z] ** 2 + bends[1, x, y, z] ** 2 + bends[2, x, y, z] ** 2
    mixed = bends[3, x, y, z] ** 2 + bends[4, x, y, z] ** 2 + bends[5, x, y, z] ** 2
    size = np.sqrt(straight + np.float32(2) * mixed)
    return np.float32(1) - threshold / size if size > threshold else np.float32(0)


@numba.njit(cache=True)
def _next(values, component, x, y, z, keep):  # type: ignore[no-untyped-def]
    """Return the split variable less the dual: what the component should be next."""
    return (np.float32(2) * keep - np.float32(1)) * values[component, x, y, z]


@numba.njit(parallel=True, cache=True)
def _targets(  # type: ignore[no-untyped-def]
    jumps, bends, steps, threshold, bend_ratio, jump_target, slope_target
):
    """Write the right sides of the equations for the map and for the slopes."""
    nx, ny, nz = jump_target.shape
    hx, hy, hz = steps
    for x in numba.prange(nx):
        x1 = x + 1 if x + 1 < nx else 0
        for y in range(ny):
            y1 = y + 1 if y + 1 < ny else 0
            for z in range(nz):
                z1 = z + 1 if z + 1 < nz else 0
                # index -1 is the last voxel: periodic
                k = _keep_jump(jumps, x, y, z, threshold)
                kx = _keep_jump(jumps, x - 1, y, z, threshold)
                ky = _keep_jump(jumps, x, y - 1, z, threshold)
                kz = _keep_jump(jumps, x, y, z - 1, threshold)
                ax, ay, az = (
                    _next(jumps, 0, x, y, z, k),
                    _next(jumps, 1, x, y, z, k),
                    _next(jumps, 2, x, y, z, k),
                )
                jump_target[x, y, z] = (
                    (_next(jumps, 0, x - 1, y, z, kx) - ax) / hx
                    + (_next(jumps, 1, x, y - 1, z, ky) - ay) / hy
                    + (_next(jumps, 2, x, y, z - 1, kz) - az) / hz
                )
                k = _keep_bend(bends, x, y, z, threshold)
                kx = _keep_bend(bends, x1, y, z, threshold)
                ky = _keep_bend(bends, x, y1, z, threshold)
                kz = _keep_bend(bends, x, y, z1, threshold)
                xy = _next(bends, 3, x, y, z, k)
                xz = _next(bends, 4, x, y, z, k)
                yz = _next(bends, 5, x, y, z, k)
                slope_target[0, x, y, z] = -ax + bend_ratio * (
                    (_next(bends, 0, x, y, z, k) - _next(bends, 0, x1, y, z, kx)) / hx
                    + (xy - _next(bends, 3, x, y1, z, ky)) / hy
                    + (xz - _next(bends, 4, x, y, z1, kz)) / hz
                )
                slope_target[1, x, y, z] = -ay + bend_ratio * (
                    (xy - _next(bends, 3, x1, y, z, kx)) / hx
                    + (_next(bends, 1, x, y, z, k) - _next(bends, 1, x, y1, z, ky)) / hy
                    + (yz - _next(bends, 5, x, y, z1, kz)) / hz
                )
                slope_target[2, x, y, z] = -az + bend_ratio * (
                    (xz - _next(bends, 4, x1, y, z, kx)) / hx
                    + (yz - _next(bends, 5, x, y1, z, ky)) / hy
                    + (_next(bends, 2, x, y, z, k) - _next(bends, 2, x, y, z1, kz)) / hz
                )


@numba.njit(parallel=True, cache=True)
def _jump_step(chi, slopes, jumps, steps, threshold):  # type: ignore[no-untyped-def]
    """Take the map's gradient less the slopes into ``jumps``."""
    relax, one = RELAXATION, np.float32(1)
    nx, ny, nz = chi.shape
    for x in numba.prange(nx):
        x1 = x + 1 if x + 1 < nx else 0
        for y in range(ny):
            y1 = y + 1 if y + 1 < ny else 0
            for z in range(nz):
                z1 = z + 1 if z + 1 < nz else 0
                old = one - relax * _keep_jump(jumps, x, y, z, threshold)
                here = chi[x, y, z]
                dx = (chi[x1, y, z] - here) / steps[0] - slopes[0, x, y, z]
                dy = (chi[x, y1, z] - here) / steps[1] - slopes[1, x, y, z]
                dz = (chi[x, y, z1] - here) / steps[2] - slopes[2, x, y, z]
                jumps[0, x, y, z] = relax * dx + old * jumps[0, x, y, z]
                jumps[1, x, y, z] = relax * dy + old * jumps[1, x, y, z]
                jumps[2, x, y, z] = relax * dz + old * jumps[2, x, y, z]


@numba.njit(cache=True)
def _backward(slopes, component, axis, x, y, z, step):  # type: ignore[no-untyped-def]
    """Return the backward difference of a slope along an axis."""
    here = slopes[component, x, y, z]
    if axis == 0:
        return (here - slopes[component, x - 1, y, z]) / step
    if axis == 1:
        return (here - slopes[component, x, y - 1, z]) / step
    return (here - slopes[component, x, y, z - 1]) / step


@numba.njit(parallel=True, cache=True)
def _bend_step(slopes, bends, steps, threshold):  # type: ignore[no-untyped-def]
    """Take the symmetrised gradient of the slopes into ``bends``."""
    relax, one, half = RELAXATION, np.float32(1), np.float32(0.5)
    _, nx, ny, nz = slopes.shape
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                old = one - relax * _keep_bend(bends, x, y, z, threshold)
                for i in range(3):
                    straight = _backward(slopes, i, i, x, y, z, steps[i])
                    bends[i, x, y, z] = relax * straight + old * bends[i, x, y, z]
                for i in range(2):
                    for j in range(i + 1, 3):
                        mixed = _backward(slopes, j, i, x, y, z, steps[i]) + _backward(
                            slopes, i, j, x, y, z, steps[j]
                        )
                        at = i + j + 2  # xy, xz, yz: 3, 4, 5
                        bends[at, x, y, z] = relax * half * mixed + old * bends[at, x, y, z]
