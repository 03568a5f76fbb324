"""The largest piece of a mask, and its holes; voxels that share a face belong together.

A mask is taken as runs of voxels along its last axis, of which there are few: runs of neighbouring
lines that touch are joined.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bids_qsm.numerics.geometry import Bool


def largest_piece(mask: Bool) -> Bool:
    """Return the largest piece of a mask; of equals the first.

    Parameters
    ----------
    mask : ndarray of bool, shape (x, y, z)
    """
    return np.asarray(_largest(np.ascontiguousarray(mask)))


def filled(mask: Bool) -> Bool:
    """Fill what is enclosed: all but what is connected to the volume's end.

    Parameters
    ----------
    mask : ndarray of bool, shape (x, y, z)
    """
    return np.asarray(_filled(np.ascontiguousarray(mask)))


@njit(cache=True)
def _runs(mask, value):  # type: ignore[no-untyped-def]
    """Return where the runs of ``value`` begin and end, and the first run of each line."""
    nx, ny, nz = mask.shape
    lines = np.zeros(nx * ny + 1, np.int64)
    for line in range(nx * ny):
        own = mask[line // ny, line % ny]
        count = np.int64(own[0] == value)
        for z in range(1, nz):
            count += (own[z] == value) & (own[z - 1] != value)
        lines[line + 1] = lines[line] + count
    starts, stops = np.empty(lines[-1], np.int32), np.empty(lines[-1], np.int32)
    for line in range(nx * ny):
        own, z = mask[line // ny, line % ny], 0
        for run in range(lines[line], lines[line + 1]):
            while own[z] != value:
                z += 1
            starts[run] = z
            while z < nz and own[z] == value:
                z += 1
            stops[run] = z
    return starts, stops, lines


@njit(cache=True)
def _root(parents, run):  # type: ignore[no-untyped-def]
    """Return the first run of a piece; shorten the way there."""
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


@njit(cache=True)
def _join(parents, starts, stops, here, end, there, other_end):  # type: ignore[no-untyped-def]
    """Join the runs ``here`` to ``end`` of a line with those of another that touch them."""
    while here < end and there < other_end:
        if starts[here] < stops[there] and starts[there] < stops[here]:
            a, b = _root(parents, here), _root(parents, there)
            parents[max(a, b)] = min(a, b)
        if stops[here] < stops[there]:
            here += 1
        else:
            there += 1


@njit(cache=True)
def _pieces(starts, stops, lines, nx, ny):  # type: ignore[no-untyped-def]
    """Return the first run of the piece to which each run belongs."""
    parents = np.arange(starts.size)
    for line in range(nx * ny):
        here, end = lines[line], lines[line + 1]
        if line % ny > 0:
            _join(parents, starts, stops, here, end, lines[line - 1], here)
        if line >= ny:
            before = line - ny
            _join(parents, starts, stops, here, end, lines[before], lines[before + 1])
    for run in range(parents.size):
        parents[run] = parents[parents[run]]
    return parents


@njit(cache=True)
def _largest(mask):  # type: ignore[no-untyped-def]
    nx, ny, _ = mask.shape
    starts, stops, lines = _runs(mask, True)
    pieces = _pieces(starts, stops, lines, nx, ny)
    sizes = np.zeros(starts.size, np.int64)
    for run in range(starts.size):
        sizes[pieces[run]] += stops[run] - starts[run]
    found = np.zeros(mask.shape, np.bool_)
    if sizes.size > 0:
        _paint(found, starts, stops, lines, pieces == sizes.argmax(), True)
    return found


@njit(cache=True)
def _filled(mask):  # type: ignore[no-untyped-def]
    nx, ny, nz = mask.shape
    starts, stops, lines = _runs(mask, False)
    pieces = _pieces(starts, stops, lines, nx, ny)
    is_open = np.zeros(starts.size, np.bool_)
    for line in range(nx * ny):
        at_end = line < ny or line >= (nx - 1) * ny or line % ny == 0 or line % ny == ny - 1
        for run in range(lines[line], lines[line + 1]):
            if at_end or starts[run] == 0 or stops[run] == nz:
                is_open[pieces[run]] = True
    found = np.ones(mask.shape, np.bool_)
    _paint(found, starts, stops, lines, is_open[pieces], False)
    return found


@njit(cache=True)
def _paint(volume, starts, stops, lines, chosen, value):  # type: ignore[no-untyped-def]
    """Set the voxels of the chosen runs."""
    ny = volume.shape[1]
    for line in range(lines.size - 1):
        own = volume[line // ny, line % ny]
        for run in range(lines[line], lines[line + 1]):
            if chosen[run]:
                own[starts[run] : stops[run]] = value
