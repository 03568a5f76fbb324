"""Convolution of a real volume with a kernel that is known by its spectrum.

Transforms and product are made in three passes over the memory: planes to their frequencies,
blocks of rows along the first axis to theirs, times the kernel, and back, and planes back.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from bids_qsm.numerics.fourier import axis_of, transform
from bids_qsm.numerics.rows import row_kernel

Float32 = NDArray[np.float32]

_LANES = 64
"""Rows that are transformed together along the first axis: their block stays in the cache."""
_CHUNKS = 16
"""Of planes that one thread takes with the same memory."""


def convolve(volume: Float32, half_spectrum: Float32) -> Float32:
    """Convolve periodically with a kernel that is given by its half spectrum.

    Parameters
    ----------
    volume : ndarray of float32, shape (x, y, z)
    half_spectrum : ndarray of float32, shape (x, y, z // 2 + 1)
        Of a kernel that is real and symmetric about the origin.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Memory: this and a volume of frequencies.
    """
    nx, ny, nz = volume.shape
    re, im = np.empty((2, *half_spectrum.shape), np.float32)
    in_x, in_y, in_z = axis_of(nx), axis_of(ny), axis_of(nz)
    _to_frequencies(np.ascontiguousarray(volume, np.float32), re, im, in_y, in_z)
    kernel = np.ascontiguousarray(half_spectrum, np.float32)
    _along_x(re.reshape(nx, -1), im.reshape(nx, -1), kernel.reshape(nx, -1), in_x)
    out = np.empty(volume.shape, np.float32)
    _from_frequencies(re, im, out, np.float32(1 / (nx * ny * nz)), in_y, in_z)
    return out


@numba.njit(parallel=True, cache=True)
def _along_x(re, im, kernel, axis):  # type: ignore[no-untyped-def]
    n, rows = re.shape
    for block in numba.prange((rows + _LANES - 1) // _LANES):
        first = block * _LANES
        lanes = min(_LANES, rows - first)
        room = np.empty((4, n * lanes), np.float32)
        for x in range(n):
            room[0, x * lanes : (x + 1) * lanes] = re[x, first : first + lanes]
            room[1, x * lanes : (x + 1) * lanes] = im[x, first : first + lanes]
        a, b, c, d = transform(room[0], room[1], room[2], room[3], lanes, axis)
        for x in range(n):
            here = slice(x * lanes, (x + 1) * lanes)
            _multiply(a[here], b[here], kernel[x, first : first + lanes])
        b, a, d, c = transform(b, a, d, c, lanes, axis)  # exchanged: the inverse
        for x in range(n):
            re[x, first : first + lanes] = a[x * lanes : (x + 1) * lanes]
            im[x, first : first + lanes] = b[x * lanes : (x + 1) * lanes]


@row_kernel()
def _multiply(re, im, kernel):  # type: ignore[no-untyped-def]
    for i in range(len(kernel)):
        re[i] *= kernel[i]
        im[i] *= kernel[i]


# Two real rows are one complex row: those of the plane's second half are the imaginary part of
# those of its first.  Their spectra are the even and the odd part of the one of both.


@numba.njit(parallel=True, cache=True)
def _to_frequencies(volume, re, im, in_y, in_z):  # type: ignore[no-untyped-def]
    nx, ny, nz = volume.shape
    half_y, half_z = (ny + 1) // 2, nz // 2 + 1
    half = np.float32(0.5)
    for chunk in numba.prange(_CHUNKS):
        rows = np.zeros((4, half_y * nz), np.float32)
        room = np.empty((4, ny * half_z), np.float32)
        for x in range(chunk * nx // _CHUNKS, (chunk + 1) * nx // _CHUNKS):
            a, b, c, d = rows[0], rows[1], rows[2], rows[3]
            for z in range(nz):
                for y in range(half_y):
                    a[z * half_y + y] = volume[x, y, z]
                for y in range(ny - half_y):
                    b[z * half_y + y] = volume[x, half_y + y, z]
                if ny % 2:
                    b[z * half_y + half_y - 1] = 0
            a, b, c, d = transform(a, b, c, d, half_y, in_z)
            for y in range(half_y):
                for z in range(half_z):
                    i, j = z * half_y + y, (nz - z) % nz * half_y + y
                    room[0, y * half_z + z] = half * (a[i] + a[j])
                    room[1, y * half_z + z] = half * (b[i] - b[j])
                    if half_y + y < ny:
                        room[0, (half_y + y) * half_z + z] = half * (b[i] + b[j])
                        room[1, (half_y + y) * half_z + z] = half * (a[j] - a[i])
            e, f, _, _ = transform(room[0], room[1], room[2], room[3], half_z, in_y)
            re[x], im[x] = e.reshape(ny, half_z), f.reshape(ny, half_z)


@numba.njit(parallel=True, cache=True)
def _from_frequencies(re, im, volume, scale, in_y, in_z):  # type: ignore[no-untyped-def]
    nx, ny, nz = volume.shape
    half_y, half_z = (ny + 1) // 2, nz // 2 + 1
    for chunk in numba.prange(_CHUNKS):
        rows = np.empty((4, half_y * nz), np.float32)
        room = np.empty((4, ny * half_z), np.float32)
        for x in range(chunk * nx // _CHUNKS, (chunk + 1) * nx // _CHUNKS):
            room[0], room[1] = re[x].reshape(-1), im[x].reshape(-1)
            f, e, _, _ = transform(room[1], room[0], room[3], room[2], half_z, in_y)
            a, b, c, d = rows[0], rows[1], rows[2], rows[3]
            for z in range(half_z):
                for y in range(half_y):
                    i, j = z * half_y + y, (nz - z) % nz * half_y + y
                    k, l = y * half_z + z, min(half_y + y, ny - 1) * half_z + z  # noqa: E741
                    # where rows are odd the last has no partner: what it gets is not read
                    a[j], b[j] = e[k] + f[l], e[l] - f[k]
                    a[i], b[i] = e[k] - f[l], f[k] + e[l]
            b, a, d, c = transform(b, a, d, c, half_y, in_z)
            for y in range(half_y):
                for z in range(nz):
                    volume[x, y, z] = scale * a[z * half_y + y]
            for y in range(ny - half_y):
                for z in range(nz):
                    volume[x, half_y + y, z] = scale * b[z * half_y + y]
