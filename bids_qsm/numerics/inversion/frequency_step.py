"""The step of ADMM that is solved frequency by frequency.

Two real volumes are one complex volume, so both are transformed at once and in place.  Between the
transforms along the first axis each plane is brought to its frequencies, solved, and brought back,
while it is in the cache: the memory is passed three times in all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from bids_qsm.numerics.fourier import Axis, axis_of, transform
from bids_qsm.numerics.geometry import Float32, Geometry, dipole_kernel
from bids_qsm.numerics.inversion.solver import band_edge_penalty, laplacian_spectrum, step_sizes
from bids_qsm.numerics.rows import row_kernel

_LANES = 64
"""Rows that are transformed together along the first axis: their block stays in the cache."""
_CHUNKS = 16
"""Of planes that one thread takes with the same memory."""


@dataclass(frozen=True)
class System:
    """What is solved, for frequencies (x, z, y) of which x is not negative.

    Attributes
    ----------
    dipole : ndarray of float32, shape (x // 2 + 1, z, y)
    inverse : ndarray of float32, shape (x // 2 + 1, z, y)
        Of the system, over the number of voxels, which the inverse transform does not divide by.
    edge_penalty : float32
    axes : tuple of Axis
    """

    dipole: Float32
    inverse: Float32
    edge_penalty: np.float32
    axes: tuple[Axis, Axis, Axis]

    @staticmethod
    def of(geometry: Geometry, edge_penalty: np.float32) -> System:
        """Return the system of the data's and the edges' splittings; memory: two volumes."""
        (nx, ny, nz), (vx, vy, vz), (bx, by, bz) = (
            geometry.shape,
            geometry.voxel_mm,
            geometry.b0_direction,
        )
        # spectra leave out half of the last axis: let it be x
        turned = Geometry((nz, ny, nx), (vz, vy, vx), (bz, by, bx))
        dipole = dipole_kernel(turned)
        inverse = dipole**2
        inverse += edge_penalty * laplacian_spectrum(turned, step_sizes(turned))
        inverse += band_edge_penalty(turned)
        inverse[0, 0, 0] = 1  # the mean is free: any value but 0
        inverse *= nx * ny * nz
        np.reciprocal(inverse, out=inverse)
        return System(
            np.ascontiguousarray(dipole.transpose(2, 0, 1)),
            np.ascontiguousarray(inverse.transpose(2, 0, 1)),
            edge_penalty,
            (axis_of(nx), axis_of(ny), axis_of(nz)),
        )


def solve(system: System, field: Float32, edges: Float32) -> None:
    """Replace what the field should be by the map, and the edges' target by the map's field.

    Parameters
    ----------
    system : System
    field, edges : ndarray of float32, shape (x, y, z)
        Overwritten.  Memory: two planes for each thread.
    """
    in_x, in_y, in_z = system.axes
    nx = field.shape[0]
    first, second = field.reshape(nx, -1), edges.reshape(nx, -1)
    _along_x(first, second, in_x)
    _planes(first, second, system.dipole, system.inverse, system.edge_penalty, in_y, in_z)
    _along_x(second, first, in_x)  # exchanged: the inverse


@numba.njit(parallel=True, cache=True)
def _along_x(re, im, axis):  # type: ignore[no-untyped-def]
    n, rows = re.shape
    for block in numba.prange((rows + _LANES - 1) // _LANES):
        first = block * _LANES
        lanes = min(_LANES, rows - first)
        a, b, c, d = (
            np.empty(n * lanes, np.float32),
            np.empty(n * lanes, np.float32),
            np.empty(n * lanes, np.float32),
            np.empty(n * lanes, np.float32),
        )
        for x in range(n):
            a[x * lanes : (x + 1) * lanes] = re[x, first : first + lanes]
            b[x * lanes : (x + 1) * lanes] = im[x, first : first + lanes]
        a, b, c, d = transform(a, b, c, d, lanes, axis)
        for x in range(n):
            re[x, first : first + lanes] = a[x * lanes : (x + 1) * lanes]
            im[x, first : first + lanes] = b[x * lanes : (x + 1) * lanes]


@numba.njit(parallel=True, cache=True)
def _planes(first, second, dipole, inverse, edge_penalty, in_y, in_z):  # type: ignore[no-untyped-def]
    """Solve the planes of each pair of frequencies along x, k and -k."""
    nx = len(first)
    half, nz, ny = dipole.shape
    for chunk in numba.prange(_CHUNKS):
        a, b = np.empty((4, ny * nz), np.float32), np.empty((4, ny * nz), np.float32)
        mirrored = np.empty((2, ny), np.float32)
        for x in range(chunk * half // _CHUNKS, (chunk + 1) * half // _CHUNKS):
            opposite = (nx - x) % nx
            is_pair = x != opposite
            ar, ai, sr, si = _to_frequencies(first[x], second[x], a, in_y, in_z)
            br, bi, tr, ti = ar, ai, sr, si
            if is_pair:
                br, bi, tr, ti = _to_frequencies(first[opposite], second[opposite], b, in_y, in_z)
            for z in range(nz if is_pair else nz // 2 + 1):
                z1 = (nz - z) % nz
                here, there = slice(z * ny, (z + 1) * ny), slice(z1 * ny, (z1 + 1) * ny)
                _mirror(br[there], mirrored[0])
                _mirror(bi[there], mirrored[1])
                _solve_row(
                    *(ar[here], ai[here], mirrored[0], mirrored[1]),
                    *(dipole[x, z], inverse[x, z], edge_penalty),
                )
                if is_pair or z != z1:
                    _mirror(mirrored[0], br[there])
                    _mirror(mirrored[1], bi[there])
            _from_frequencies(ar, ai, sr, si, first[x], second[x], in_y, in_z)
            if is_pair:
                _from_frequencies(br, bi, tr, ti, first[opposite], second[opposite], in_y, in_z)


@numba.njit(cache=True)
def _to_frequencies(re, im, room, in_y, in_z):  # type: ignore[no-untyped-def]
    """Return the transform of a plane, of the order (z, y), and what is left of the room."""
    ny, nz = len(in_y[1]), len(in_z[1])
    room[0], room[1] = re, im
    a, b, c, d = transform(room[0], room[1], room[2], room[3], nz, in_y)
    _transpose(a, c, ny, nz)
    _transpose(b, d, ny, nz)
    return transform(c, d, a, b, ny, in_z)


@numba.njit(cache=True)
def _from_frequencies(a, b, c, d, re, im, in_y, in_z):  # type: ignore[no-untyped-def]
    """Write the plane of which a and b are the transform."""
    ny, nz = len(in_y[1]), len(in_z[1])
    b, a, d, c = transform(b, a, d, c, ny, in_z)
    _transpose(a, c, nz, ny)
    _transpose(b, d, nz, ny)
    d, c, b, a = transform(d, c, b, a, nz, in_y)
    re[:], im[:] = c, d


@numba.njit(cache=True)
def _transpose(source, target, rows, columns):  # type: ignore[no-untyped-def]
    for column in range(columns):
        for row in range(rows):
            target[column * rows + row] = source[row * columns + column]


@row_kernel()
def _mirror(source, target):  # type: ignore[no-untyped-def]
    """Write the row of opposite frequencies."""
    n = len(source)
    target[0] = source[0]
    for i in range(np.uint64(1), np.uint64(n)):
        target[i] = source[np.uint64(n) - i]


@row_kernel()
def _solve_row(re, im, other_re, other_im, dipole, inverse, edge_penalty):  # type: ignore[no-untyped-def]
    """Solve a row of frequencies and the opposite ones.

    The spectra of the two real volumes are the even and the odd part of the one of both.
    """
    half = np.float32(0.5)
    for i in range(len(re)):
        field_re, field_im = half * (re[i] + other_re[i]), half * (im[i] - other_im[i])
        edges_re, edges_im = half * (im[i] + other_im[i]), half * (other_re[i] - re[i])
        chi_re = inverse[i] * (dipole[i] * field_re + edge_penalty * edges_re)
        chi_im = inverse[i] * (dipole[i] * field_im + edge_penalty * edges_im)
        re[i], im[i] = chi_re - dipole[i] * chi_im, chi_im + dipole[i] * chi_re
        other_re[i], other_im[i] = chi_re + dipole[i] * chi_im, dipole[i] * chi_re - chi_im
