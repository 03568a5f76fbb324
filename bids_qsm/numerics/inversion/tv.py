"""Susceptibility with sparse edges: weighted least squares with total variation, by ADMM."""

from __future__ import annotations

import numba
import numpy as np

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    Float32,
    crop,
    dipole_kernel,
    forward_fft,
    inverse_fft,
    margin_voxels,
    pad,
    padded_geometry,
    place,
)
from bids_qsm.numerics.inversion.solver import inner, laplacian_spectrum, step_sizes

_EDGE_THRESHOLD_PPM = 0.003


def tv(
    local: FieldMap,
    *,
    regularisation: float = 35.0,
    max_iterations: int = 80,
    tolerance: float = 0.003,
    margin_mm: float = 20.0,
) -> Float32:
    """Invert by ADMM with a total-variation penalty.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Susceptibility in ppm, zero outside the mask.
    """
    brain, box = local.boxed()
    geometry = padded_geometry(brain.geometry, margin_voxels(brain.geometry, margin_mm))
    steps = step_sizes(geometry)
    kernel = dipole_kernel(geometry)
    threshold = np.float32(_EDGE_THRESHOLD_PPM)
    penalty = np.float32(regularisation * _typical_noise(brain) ** 2 / threshold)
    share = pad(brain.weights(), geometry.shape) ** 2
    share /= share + 1
    field = pad(np.where(brain.mask, brain.field_ppm, np.float32(0)), geometry.shape)
    inverse = kernel**2 + penalty * laplacian_spectrum(geometry, steps)
    inverse[0, 0, 0] = 1
    np.reciprocal(inverse, out=inverse)
    state = np.zeros((3, *geometry.shape), np.float32)
    dual, forward, chi, edges = (np.zeros(geometry.shape, np.float32) for _ in range(4))
    for _ in range(max_iterations):
        _data_step(forward, dual, field, share)
        _edges_adjoint(state, steps, threshold, edges)
        chi_spectrum, field_spectrum = forward_fft(forward), forward_fft(edges)
        _combine(chi_spectrum, field_spectrum, kernel, inverse, np.float32(1), penalty)
        change = chi
        chi = inverse_fft(chi_spectrum, geometry.shape)
        forward = inverse_fft(field_spectrum, geometry.shape)
        _edge_step(chi, state, steps, threshold)
        change -= chi
        if inner(change, change) <= tolerance**2 * inner(chi, chi):
            break
    inside = np.where(brain.mask, crop(chi, brain.mask.shape), np.float32(0))
    return place(inside, box, local.mask.shape)


def _typical_noise(brain):
    n = brain.noise_ppm[brain.mask]
    n = n[np.isfinite(n) & (n > 0)]
    return float(np.median(n)) if n.size else 0.0


@numba.njit(parallel=True, cache=True)
def _data_step(forward, dual, field, share):
    nx, ny, nz = forward.shape
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                q = forward[x, y, z] + dual[x, y, z]
                s = share[x, y, z] * (q - field[x, y, z])
                dual[x, y, z] = s
                forward[x, y, z] = q - 2 * s


@numba.njit(inline="always")
def _keep(t, x, y, z, thr):
    n = np.sqrt(t[0, x, y, z] ** 2 + t[1, x, y, z] ** 2 + t[2, x, y, z] ** 2)
    return np.float32(1) - thr / n if n > thr else np.float32(0)


@numba.njit(parallel=True, cache=True)
def _edge_step(chi, t, steps, thr):
    nx, ny, nz = chi.shape
    for x in numba.prange(nx):
        x1 = x + 1 if x + 1 < nx else 0
        for y in range(ny):
            y1 = y + 1 if y + 1 < ny else 0
            for z in range(nz):
                z1 = z + 1 if z + 1 < nz else 0
                r = np.float32(1) - _keep(t, x, y, z, thr)
                here = chi[x, y, z]
                t[0, x, y, z] = (chi[x1, y, z] - here) / steps[0] + r * t[0, x, y, z]
                t[1, x, y, z] = (chi[x, y1, z] - here) / steps[1] + r * t[1, x, y, z]
                t[2, x, y, z] = (chi[x, y, z1] - here) / steps[2] + r * t[2, x, y, z]


@numba.njit(parallel=True, cache=True)
def _edges_adjoint(t, steps, thr, out):
    _, nx, ny, nz = t.shape
    one = np.float32(1)
    two = np.float32(2)
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                k = two * _keep(t, x, y, z, thr) - one
                kx = two * _keep(t, x - 1, y, z, thr) - one
                ky = two * _keep(t, x, y - 1, z, thr) - one
                kz = two * _keep(t, x, y, z - 1, thr) - one
                out[x, y, z] = (
                    (kx * t[0, x - 1, y, z] - k * t[0, x, y, z]) / steps[0]
                    + (ky * t[1, x, y - 1, z] - k * t[1, x, y, z]) / steps[1]
                    + (kz * t[2, x, y, z - 1] - k * t[2, x, y, z]) / steps[2]
                )


@numba.njit(parallel=True, cache=True)
def _combine(a, b, kernel, inverse, mu2, mu1):
    nx, ny, nz = kernel.shape
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                d = kernel[x, y, z]
                v = (mu2 * d * a[x, y, z] + mu1 * b[x, y, z]) * inverse[x, y, z]
                a[x, y, z] = v
                b[x, y, z] = d * v
