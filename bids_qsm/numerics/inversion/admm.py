"""ADMM for noise-weighted data and sparse edges: what inversions with total variation share.

The field of the map and the map's gradient are split off, so that each step is solved exactly, in
space or in frequency.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    Bool,
    Float32,
    Geometry,
    dipole_kernel,
    margin_voxels,
    pad,
    padded_geometry,
)
from bids_qsm.numerics.inversion.edges import OUTSIDE, RELAXATION, edge_step, edge_target_of
from bids_qsm.numerics.inversion.frequency_step import System, solve
from bids_qsm.numerics.inversion.solver import (
    has_settled,
    magnitude_edges,
    step_sizes,
)
from bids_qsm.numerics.polynomial_terms import TERMS, set_terms
from bids_qsm.numerics.rows import row_kernel

_NEWTON_STEPS = 4


@dataclass(frozen=True)
class Problem:
    """What stays the same from step to step, on the padded grid.

    Attributes
    ----------
    field, weight : ndarray of float32, shape (x, y, z)
        Field in ppm, and squared weights over the penalty of the data's splitting.
    radians_per_ppm : float32
        Phase of a shift of 1 ppm, if complex signals are compared; 0: fields are.
    edge_penalty : float32
        Penalty of the gradient's splitting.
    thresholds : ndarray of float32, shape (2,)
        The edge (ppm) that it shrinks to nothing, inside and outside the mask; the weight of the
        edges in the cost is the product of penalty and threshold.
    flags : ndarray of uint8, shape (x, y, z)
        Bits 0 to 2 are set where the gradient along that axis is not penalised, bit 3 outside.
    polynomial : ndarray of float64, shape (5, 5)
        Inverse normal matrix of a polynomial that the data leave free; zero where there is none.
    geometry : Geometry
    """

    field: Float32
    weight: Float32
    radians_per_ppm: np.float32
    edge_penalty: np.float32
    thresholds: Float32
    flags: NDArray[np.uint8]
    polynomial: NDArray[np.float64]
    geometry: Geometry

    @staticmethod
    def of(
        brain: FieldMap,
        *,
        strength: float,
        threshold: float,
        margin_mm: float,
        data_pace: float = 1.0,
        radians_per_ppm: float = 0.0,
        edge_fraction: float = 0.0,
        background_price: float | None = None,
    ) -> Problem:
        """Return the problem of a field map within a margin of zeros.

        Parameters
        ----------
        brain : FieldMap
            Boxed.
        strength : float
            Weight of the edges against the noise-weighted data.
        threshold : float
            Edges (ppm) shrink by this in a step; it changes the speed, not the solution.
        margin_mm : float
            Zeros around the brain.
        data_pace : float
            Mean squared weight over the penalty of the data's splitting; speed, not the solution.
        radians_per_ppm : float
            See the attribute.
        edge_fraction : float
            Share of the magnitude's differences that are edges of the map too, and are free.
        background_price : float or None
            What edges between voxels of which one is outside the mask cost, against those within.
            If it is given, a polynomial is free, too; None takes all edges for the same.
        """
        geometry = padded_geometry(brain.geometry, margin_voxels(brain.geometry, margin_mm))
        flags = _flags(brain, geometry, edge_fraction)
        outside = 1.0 if background_price is None else background_price
        weight = pad(np.float32(data_pace) * brain.weights() ** 2, geometry.shape)
        polynomial = np.zeros((TERMS, TERMS))
        if background_price is not None:
            matrix = _normal_matrix(weight, *_coordinates(geometry)).sum(axis=0)
            # a mask that is flat along an axis has no linear term there
            polynomial = np.linalg.pinv(matrix, rcond=1e-9, hermitian=True)
        return Problem(
            pad(brain.field_ppm, geometry.shape),
            weight,
            np.float32(radians_per_ppm),
            np.float32(data_pace * strength / threshold),
            np.float32(threshold) * np.array([1, outside], np.float32),
            flags,
            polynomial,
            geometry,
        )


def _flags(brain: FieldMap, geometry: Geometry, edge_fraction: float) -> NDArray[np.uint8]:
    flags = np.zeros(geometry.shape, np.uint8)
    if edge_fraction > 0:
        edges = magnitude_edges(brain.magnitude, brain.mask, edge_fraction, brain.geometry)
        bits = (edges * np.array([1, 2, 4], np.uint8)[:, None, None, None]).sum(0)
        flags = pad(bits.astype(np.uint8), geometry.shape)
    flags[~_within(pad(brain.mask, geometry.shape))] = OUTSIDE
    return flags


def _within(mask: Bool) -> Bool:
    """Return the voxels of which the next one along each axis is in the mask too."""
    inside = mask.copy()
    for axis in range(3):
        inside &= np.roll(mask, -1, axis)
    return inside


def _coordinates(geometry: Geometry) -> tuple[Float32, Float32, Float32]:
    """Return the position along each axis, about -1 to 1 within a head."""
    x, y, z = (
        ((np.arange(n) - (n - 1) / 2) * voxel / 100).astype(np.float32)
        for n, voxel in zip(geometry.shape, geometry.voxel_mm, strict=True)
    )
    return x, y, z


@dataclass
class State:
    """What is handed from one iteration to the next; ``field`` is that of the map."""

    edges: Float32
    split: Float32
    dual: Float32
    field: Float32
    chi: Float32

    @staticmethod
    def zero(shape: tuple[int, int, int]) -> State:
        """Return the start at a map of zeros."""
        return State(
            np.zeros((3, *shape), np.float32), *(np.zeros(shape, np.float32) for _ in range(4))
        )

    @staticmethod
    def at(chi_ppm: Float32, problem: Problem) -> State:
        """Return the start at a map within the margin."""
        state = State.zero(problem.geometry.shape)
        state.chi = pad(chi_ppm, problem.geometry.shape)
        state.field = convolve(state.chi, dipole_kernel(problem.geometry))
        state.split = state.field.copy()
        steps = step_sizes(problem.geometry)
        edge_step(state.chi, state.edges, steps, problem.thresholds, problem.flags)
        return state


DataStep = Callable[[Problem, Float32, Float32, Float32], None]


def total_variation(
    problem: Problem, max_iterations: int, tolerance: float, start: Float32 | None = None
) -> Float32:
    """Return the susceptibility (ppm) on the padded grid that is best with sparse edges.

    The iteration begins at ``start``, a map within the margin, or at zero.  Memory: some thirteen
    padded volumes.

    References
    ----------
    Bilgic 2014, 10.1002/mrm.25029; Milovic 2018, 10.1002/mrm.27073; Eckstein and Bertsekas 1992,
    10.1007/BF01581204 (over-relaxation).
    """
    state = State.zero(problem.geometry.shape) if start is None else State.at(start, problem)
    if problem.radians_per_ppm and start is None:
        # a signal far from the one measured might settle a turn away from it: start there
        state.field += problem.field
        state.split += problem.field
    advance(state, problem, data_step, max_iterations, tolerance)
    return state.chi


def advance(
    state: State, problem: Problem, step: DataStep, max_iterations: int, tolerance: float
) -> None:
    """Iterate until the map changes, in one iteration, by less than ``tolerance`` of its size."""
    steps = step_sizes(problem.geometry)
    system = System.of(problem.geometry, problem.edge_penalty)
    target = np.empty(problem.geometry.shape, np.float32)
    for _ in range(max_iterations):
        step(problem, state.field, state.split, state.dual)
        edge_target_of(state.edges, steps, problem.thresholds, problem.flags, target)
        solve(system, state.field, target)
        before, state.chi, state.field = state.chi, state.field, target
        edge_step(state.chi, state.edges, steps, problem.thresholds, problem.flags)
        if tolerance > 0 and has_settled(before, state.chi, tolerance):
            break
        target = before  # its place is free


def data_step(problem: Problem, field: Float32, split: Float32, dual: Float32) -> None:
    """Move the split-off field and its dual on; leave in ``field`` what the model's should be."""
    if problem.radians_per_ppm:
        _signal_step(field, split, dual, problem.field, problem.weight, problem.radians_per_ppm)
        return
    axes = _coordinates(problem.geometry)
    moments = _relax(field, split, dual, problem.field, problem.weight, *axes).sum(axis=0)
    amounts = np.einsum("ij,j->i", problem.polynomial, moments).astype(np.float32)
    _field_step(field, split, dual, problem.field, problem.weight, *axes, amounts)


@numba.njit(parallel=True, cache=True)
def _normal_matrix(weight, xs, ys, zs):  # type: ignore[no-untyped-def]
    """Return the normal matrix of the polynomial, a part for each x.

    What counts in the data step is the weight over the weight plus one, its penalty.
    """
    nx, ny, nz = weight.shape
    parts = np.zeros((nx, TERMS, TERMS))
    for x in numba.prange(nx):
        terms = np.empty(TERMS)
        for y in range(ny):
            for z in range(nz):
                if weight[x, y, z] > 0:
                    share = weight[x, y, z] / (weight[x, y, z] + np.float32(1))
                    set_terms(terms, xs[x], ys[y], zs[z])
                    for i in range(TERMS):
                        for j in range(TERMS):
                            parts[x, i, j] += share * terms[i] * terms[j]
    return parts


@row_kernel()
def _relax_row(  # type: ignore[no-untyped-def]
    field, split, dual, measured, weight, y, misfits, along_y, along_y2
):
    """Relax a row of the field; add what is missed of the data to sums over rows."""
    relax, one = RELAXATION, np.float32(1)
    for z in range(len(field)):
        new = relax * field[z] + (one - relax) * split[z] + dual[z]
        field[z] = new
        misfit = weight[z] / (weight[z] + one) * (measured[z] - new)
        misfits[z] += misfit
        along_y[z] += y * misfit
        along_y2[z] += y * y * misfit


@numba.njit(parallel=True, cache=True)
def _relax(field, split, dual, measured, weight, xs, ys, zs):  # type: ignore[no-untyped-def]
    """Write the relaxed field plus dual; return what the polynomial sees of the misfit."""
    nx, ny, nz = field.shape
    parts = np.zeros((nx, TERMS))
    for x in numba.prange(nx):
        sums = np.zeros((3, nz))
        for y in range(ny):
            _relax_row(
                field[x, y],
                split[x, y],
                dual[x, y],
                measured[x, y],
                weight[x, y],
                np.float64(ys[y]),
                sums[0],
                sums[1],
                sums[2],
            )
        for z in range(nz):
            across = np.float64(xs[x]) ** 2 + np.float64(zs[z]) ** 2
            parts[x, 0] += sums[0, z]
            parts[x, 1] += xs[x] * sums[0, z]
            parts[x, 2] += sums[1, z]
            parts[x, 3] += zs[z] * sums[0, z]
            parts[x, 4] += across * sums[0, z] + sums[2, z]
    return parts


@row_kernel()
def _field_row(  # type: ignore[no-untyped-def]
    field, split, dual, measured, weight, free, linear, squared, zs
):
    """Make the split-off field, its dual and the model's next field along a row."""
    one, two = np.float32(1), np.float32(2)
    for z in range(len(field)):
        new = field[z]
        polynomial = free + linear * zs[z] + squared * zs[z] * zs[z]
        shift = weight[z] / (weight[z] + one) * (new - measured[z] + polynomial)
        dual[z] = shift
        split[z] = new - shift
        field[z] = new - two * shift


@numba.njit(parallel=True, cache=True)
def _field_step(  # type: ignore[no-untyped-def]
    field, split, dual, measured, weight, xs, ys, zs, amounts
):
    """From the relaxed field make the split-off one, its dual, and the model's next field."""
    nx, ny, _ = field.shape
    for x in numba.prange(nx):
        for y in range(ny):
            squares = amounts[4] * (xs[x] * xs[x] + ys[y] * ys[y])
            free = amounts[0] + amounts[1] * xs[x] + amounts[2] * ys[y] + squares
            _field_row(
                field[x, y],
                split[x, y],
                dual[x, y],
                measured[x, y],
                weight[x, y],
                free,
                amounts[3],
                amounts[4],
                zs,
            )


@numba.njit(cache=True)
def nearest_signal(offset, weight, scale):  # type: ignore[no-untyped-def]
    """Return the d with the least weight (1 - cos(scale d)) / scale^2 + (d - offset)^2 / 2.

    Newton's method from the solution for small angles; where the cosine is negative its size is
    taken, so that each step goes downhill.
    """
    one = np.float32(1)
    d = offset / (weight + one)
    for _ in range(_NEWTON_STEPS):
        slope = weight * np.sin(scale * d) / scale + d - offset
        d -= slope / (one + weight * abs(np.cos(scale * d)))
    return d


@numba.njit(parallel=True, cache=True)
def _signal_step(field, split, dual, measured, weight, scale):  # type: ignore[no-untyped-def]
    relax, one = RELAXATION, np.float32(1)
    nx, ny, nz = field.shape
    for x in numba.prange(nx):
        for y in range(ny):
            for z in range(nz):
                new = relax * field[x, y, z] + (one - relax) * split[x, y, z] + dual[x, y, z]
                if weight[x, y, z] > 0:
                    offset = new - measured[x, y, z]
                    dual[x, y, z] = offset - nearest_signal(offset, weight[x, y, z], scale)
                split[x, y, z] = new - dual[x, y, z]
                field[x, y, z] = new - 2 * dual[x, y, z]
