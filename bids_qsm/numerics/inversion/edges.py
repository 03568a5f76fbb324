"""Sparse edges of a map, split off by ADMM.

One array holds what ADMM keeps as two.  With t = (gradient + scaled dual), the split variable is
keep * t and the dual (1 - keep) * t, where keep is the factor of soft thresholding.
"""

from __future__ import annotations

import numba
import numpy as np

from bids_qsm.numerics.rows import row_kernel

RELAXATION = np.float32(1.7)
"""Over-relaxation of all splittings; 1 is plain ADMM, 2 the limit of convergence."""
OUTSIDE = np.uint8(8)
"""Flag of a voxel, or its next one, outside the mask; 1, 2 and 4 are edges that are free."""
_PLANES = 8
"""That one thread takes in turn: the first one's left neighbours are computed twice."""


@row_kernel()
def _keep(along_x, along_y, along_z, flags, inside, outside, keep):  # type: ignore[no-untyped-def]
    """Write the factors by which soft thresholding shrinks the penalised part of edges."""
    zero, one = np.float32(0), np.float32(1)
    for z in range(len(keep)):
        bits = flags[z]
        squared = zero if bits & 1 else along_x[z] * along_x[z]
        squared += zero if bits & 2 else along_y[z] * along_y[z]
        squared += zero if bits & 4 else along_z[z] * along_z[z]
        size = np.sqrt(squared)
        threshold = outside if bits & OUTSIDE else inside
        keep[z] = one - threshold / size if size > threshold else zero


@row_kernel()
def _advance(here, after, step, keep, flags, free, edge):  # type: ignore[no-untyped-def]
    """Take differences into the edges along one axis."""
    relax, one = RELAXATION, np.float32(1)
    for z in range(len(here)):
        kept = one if flags[z] & free else keep[z]
        edge[z] = relax * (after[z] - here[z]) / step + (one - relax * kept) * edge[z]


@row_kernel()
def _aim(edge, keep, flags, free, out):  # type: ignore[no-untyped-def]
    """Write the split variable less the dual: what the difference should be next."""
    two, one = np.float32(2), np.float32(1)
    for z in range(len(out)):
        out[z] = edge[z] * (one if flags[z] & free else two * keep[z] - one)


@row_kernel()
def _adjoint(left, below, before, x, y, z, steps, out):  # type: ignore[no-untyped-def]
    """Write the adjoint of the gradient along a row, of edges there and one voxel back."""
    for i in range(len(out)):
        out[i] = (
            (left[i] - x[i]) / steps[0]
            + (below[i] - y[i]) / steps[1]
            + (before[i] - z[i]) / steps[2]
        )


@numba.njit(parallel=True, cache=True)
def edge_step(chi, edges, steps, thresholds, flags):  # type: ignore[no-untyped-def]
    """Take the gradient of ``chi`` into ``edges``."""
    nx, ny, nz = chi.shape
    for x in numba.prange(nx):
        keep, after = np.empty(nz, np.float32), np.empty(nz, np.float32)
        next_plane = chi[x + 1 if x + 1 < nx else 0]
        for y in range(ny):
            here, bits = chi[x, y], flags[x, y]
            along_x, along_y, along_z = edges[0, x, y], edges[1, x, y], edges[2, x, y]
            _keep(along_x, along_y, along_z, bits, thresholds[0], thresholds[1], keep)
            after[:-1], after[-1] = here[1:], here[0]
            _advance(here, next_plane[y], steps[0], keep, bits, 1, along_x)
            _advance(here, chi[x, y + 1 if y + 1 < ny else 0], steps[1], keep, bits, 2, along_y)
            _advance(here, after, steps[2], keep, bits, 4, along_z)


@numba.njit(parallel=True, cache=True)
def edge_target_of(edges, steps, thresholds, flags, out):  # type: ignore[no-untyped-def]
    """Write the adjoint of the gradient of the edges that ``chi`` should have next."""
    _, nx, ny, nz = edges.shape
    inside, outside = thresholds
    for first in numba.prange((nx + _PLANES - 1) // _PLANES):
        keep, aimed = np.empty(nz, np.float32), np.empty((3, nz), np.float32)
        before, below = np.empty(nz, np.float32), np.empty(nz, np.float32)
        left = np.empty((ny, nz), np.float32)
        # index -1 is the last voxel: periodic
        for x in range(first * _PLANES - 1, min(nx, (first + 1) * _PLANES)):
            for y in range(-1, ny):
                along_x, along_y, along_z = edges[0, x, y], edges[1, x, y], edges[2, x, y]
                bits = flags[x, y]
                _keep(along_x, along_y, along_z, bits, inside, outside, keep)
                _aim(along_x, keep, bits, 1, aimed[0])
                _aim(along_y, keep, bits, 2, aimed[1])
                _aim(along_z, keep, bits, 4, aimed[2])
                if y >= 0:
                    if x >= first * _PLANES:
                        before[1:], before[0] = aimed[2, :-1], aimed[2, -1]
                        _adjoint(
                            left[y], below, before, aimed[0], aimed[1], aimed[2], steps, out[x, y]
                        )
                    left[y] = aimed[0]
                below[:] = aimed[1]
