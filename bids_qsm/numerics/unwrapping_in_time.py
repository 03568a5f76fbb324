"""ROMEO's kernels for the later echoes: each voxel by itself, along a line through its echoes.

References
----------
Dymerska et al. 2021, 10.1002/mrm.28563.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from bids_qsm.numerics.geometry import Bool, Float32

_TURN = 2 * math.pi
_DARK = 1e-30


@njit(cache=True, inline="always")
def _line_weight(te_s, magnitude, brightest):  # type: ignore[no-untyped-def]
    # never nothing, so that the line stays defined
    return te_s * max((magnitude / brightest) ** 2, 1e-6)


@njit(parallel=True, cache=True)
def predict_phase(
    unwrapped: Float32,
    magnitude: Float32,
    te_s: NDArray[np.float64],
    known: NDArray[np.int64],
    echo: int,
    mask: Bool,
) -> Float32:
    """Return what the echoes that are unwrapped say of another one.

    In each voxel a line through zero at an echo time of zero is fitted to the known echoes, each
    weighted by its squared magnitude.

    Parameters
    ----------
    unwrapped, magnitude : ndarray of float32, shape (x, y, z, echo)
    te_s : ndarray of float64, shape (echo,)
    known : ndarray of int64
        Echoes that are unwrapped.
    echo : int
        The echo to predict.
    mask : ndarray of bool, shape (x, y, z)

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Zero outside the mask.
    """
    nx, ny, nz = mask.shape
    predicted = np.zeros((nx, ny, nz), np.float32)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                brightest = max(magnitude[x, y, z].max(), _DARK)
                phase_sum, te_sum = 0.0, 0.0
                for k in known:
                    weight = _line_weight(te_s[k], magnitude[x, y, z, k], brightest)
                    phase_sum += weight * unwrapped[x, y, z, k]
                    te_sum += weight * te_s[k]
                predicted[x, y, z] = te_s[echo] * phase_sum / te_sum
    return predicted


@njit(parallel=True, cache=True)
def unwrap_in_time(
    template: Float32,
    corner: tuple[int, int, int],
    phase: Float32,
    magnitude: Float32,
    te_s: NDArray[np.float64],
    order: NDArray[np.int64],
    mask: Bool,
) -> None:
    """Set each echo to the turns nearest to what :func:`predict_phase` makes of those before it.

    Parameters
    ----------
    template : ndarray of float32, shape (a, b, c)
        The first echo in ``order``, unwrapped, in a box that holds the mask.
    corner : tuple of int
        The box's first voxel.
    phase : ndarray of float32, shape (x, y, z, echo)
        Wrapped; the unwrapped phase takes its place in the mask, zero outside.
    magnitude : ndarray of float32, shape (x, y, z, echo)
    te_s : ndarray of float64, shape (echo,)
    order : ndarray of int64, shape (echo,)
        That in which the echoes are unwrapped.
    mask : ndarray of bool, shape (x, y, z)
    """
    nx, ny, nz = mask.shape
    turn = np.float32(_TURN)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    for k in range(order.size):
                        phase[x, y, z, k] = 0
                    continue
                brightest = _DARK
                for k in range(order.size):
                    brightest = max(brightest, magnitude[x, y, z, k])
                value = template[x - corner[0], y - corner[1], z - corner[2]]
                phase_sum, te_sum = 0.0, 0.0
                for i in range(order.size):
                    k = order[i]
                    if i > 0:
                        own = phase[x, y, z, k]
                        predicted = np.float32(te_s[k] * phase_sum / te_sum)
                        value = own + turn * np.rint((predicted - own) / turn)
                    phase[x, y, z, k] = value
                    weight = _line_weight(te_s[k], magnitude[x, y, z, k], brightest)
                    phase_sum += weight * value
                    te_sum += weight * te_s[k]
