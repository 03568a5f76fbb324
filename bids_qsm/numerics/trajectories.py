"""Straight lines through a head: what maps and labels are along them, and how long in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from bids_qsm.numerics.geometry import Bool, Float32

Float64 = NDArray[np.float64]

COVERAGE = (2.5, 97.5)
"""Percentiles of the draws between which a span is said to lie."""
SHORTEST_MM = 1.0
"""Two ends nearer than this give a line no direction."""
POINTS_AT_ONCE = 1 << 18
REACH_SD = 4.0
"""Structures farther from a line than this many standard deviations are not looked at."""


@dataclass(frozen=True)
class Line:
    """Points of a trajectory, the entry first.

    Attributes
    ----------
    points_mm : ndarray of float64, shape (n, 3)
    depth_mm : ndarray of float64, shape (n,)
        Distance to the target along the line: positive before it, towards the entry, and negative
        beyond it.
    """

    points_mm: Float64
    depth_mm: Float64


@dataclass(frozen=True)
class Layers:
    """Structures on one grid.

    Attributes
    ----------
    indices : ndarray of int, shape (n,)
        Their labels.
    values : ndarray of uint8, bool or float, shape (n, x, y, z)
        Probability of each, times ``scale``.
    affine : ndarray of float64, shape (4, 4)
    scale : float
    """

    indices: NDArray[np.integer]
    values: NDArray
    affine: Float64
    scale: float = 1.0


@dataclass(frozen=True)
class Spans:
    """Where a line crosses structures; all arrays have one entry for each structure, in mm.

    Attributes
    ----------
    indices : ndarray of int
    entry, exit : ndarray
        Depths of the first and the last border; NaN where the structure is not met.
    span : ndarray
        Length within the structure.
    span_mean, span_sd, span_low, span_high : ndarray
        Of the draws: mean, standard deviation and 95 % interval.
    entry_sd, exit_sd : ndarray
        Of the draws that meet the structure; NaN where fewer than two do.
    chance : ndarray
        Share of the draws that meet it.
    n_pieces : ndarray of float
        More than one where the line leaves the structure and comes back.
    """

    indices: NDArray[np.integer]
    entry: Float64
    exit: Float64
    span: Float64
    span_mean: Float64
    span_sd: Float64
    span_low: Float64
    span_high: Float64
    entry_sd: Float64
    exit_sd: Float64
    chance: Float64
    n_pieces: Float64


def line_through(
    entry_mm: ArrayLike, target_mm: ArrayLike, *, step_mm: float = 0.25, beyond_mm: float = 0.0
) -> Line:
    """Return points of a line from an entry to a target and on beyond it, evenly spaced.

    The target is one of the points; the first one is the entry, or less than a step behind it.

    Parameters
    ----------
    entry_mm, target_mm : sequence of three floats
    step_mm, beyond_mm : float

    Raises
    ------
    ValueError
        If entry and target are not apart.
    """
    entry, target = np.asarray(entry_mm, np.float64), np.asarray(target_mm, np.float64)
    length_mm = float(np.linalg.norm(target - entry))
    if not length_mm >= SHORTEST_MM:
        raise ValueError(f"entry and target are {length_mm:.2g} mm apart: this gives no direction")
    before = int(np.floor(length_mm / step_mm + 1e-9))
    after = int(np.floor(beyond_mm / step_mm + 1e-9))
    depth_mm = step_mm * np.arange(before, -after - 1, -1, dtype=np.float64)
    points_mm = target - depth_mm[:, None] * (target - entry) / length_mm
    return Line(points_mm, depth_mm)


def moved(points_mm: Float64, mapping: Float64) -> Float64:
    """Return points (..., 3) through an affine mapping of shape (4, 4)."""
    turned: Float64 = np.einsum("ij,...j->...i", mapping[:3, :3], points_mm) + mapping[:3, 3]
    return turned


def sample(
    values: NDArray, affine: Float64, points_mm: Float64, *, valid: Bool | None = None
) -> Float32:
    """Return a volume at points of its world, linearly interpolated.

    Parameters
    ----------
    values : ndarray, shape (x, y, z)
    affine : ndarray, shape (4, 4)
    points_mm : ndarray, shape (..., 3)
    valid : ndarray of bool, shape (x, y, z), optional
        Where the volume can be trusted: the other voxels have no weight, and a point with less
        than half of its weight in valid ones has no value.

    Returns
    -------
    ndarray of float32, shape (...)
        NaN outside the volume (beyond the centres of its outermost voxels) or without a value.
    """
    at = np.moveaxis(moved(points_mm, _inverse(affine)), -1, 0)
    if valid is None:
        return _interpolated(values, at, np.nan)
    weight = _interpolated(valid.astype(np.float32), at, 0.0)
    total = _interpolated(np.where(valid, values, 0).astype(np.float32), at, 0.0)
    known = weight >= 0.5
    found = np.full(weight.shape, np.nan, np.float32)
    np.divide(total, weight, out=found, where=known)
    return found


def sample_layers(layers: Sequence[Layers], points_mm: Float64) -> Float32:
    """Return the probability of each structure at points, shape (structures, ...).

    Layers that come later get what the earlier ones leave.  Outside a grid there is nothing.
    """
    parts: list[Float32] = []
    left = np.ones(points_mm.shape[:-1], np.float32)
    for layer in layers:
        at = np.moveaxis(moved(points_mm, _inverse(layer.affine)), -1, 0)
        found = np.empty((len(layer.indices), *left.shape), np.float32)
        for k, values in enumerate(layer.values):
            found[k] = _interpolated(values, at, 0.0) / np.float32(layer.scale)
        found *= left
        left = np.maximum(left - found.sum(axis=0, dtype=np.float32), 0)
        parts.append(found)
    return np.concatenate(parts)


def scores(probabilities: Float32) -> Float32:
    """Return how each structure stands against its strongest rival: above 0.5, it wins.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (structures, ...)
        What they leave to one is that of none.

    Returns
    -------
    ndarray of float32, of the same shape
        ``p / (p + p of the rival)``, the rival being the likeliest other one, or none: the border
        of the labels lies at 0.5.
    """
    if not len(probabilities):
        return probabilities
    none = np.clip(1 - probabilities.sum(axis=0, dtype=np.float32), 0, 1)
    order = np.sort(np.concatenate([probabilities, none[None]]), axis=0)
    first, second = order[-1], order[-2]
    rival = np.where(probabilities == first, second, first)
    total = probabilities + rival
    found = np.zeros_like(probabilities)
    np.divide(probabilities, total, out=found, where=total > 0)
    return found


def crossings(depth_mm: Float64, score: Float32, level: ArrayLike = 0.5) -> tuple[Float64, ...]:
    """Return where a score lies above a level along a line, its borders linearly interpolated.

    Parameters
    ----------
    depth_mm : ndarray, shape (n,)
        Falling.
    score : ndarray, shape (..., n)
    level : float or ndarray, shape (...)

    Returns
    -------
    tuple of ndarray, shape (...)
        Depth of the first border and of the last one (NaN where the score never is above the
        level), length above it, and number of pieces.  A structure that reaches an end of the line
        has its border there.
    """
    above = np.asarray(score, np.float64) - np.asarray(level, np.float64)[..., None]
    inside = above > 0
    step = depth_mm[:-1] - depth_mm[1:]
    # which share of each interval between two samples lies inside
    start, stop = above[..., :-1], above[..., 1:]
    slope = np.abs(start - stop)
    mixed = inside[..., :-1] != inside[..., 1:]
    part = np.divide(np.maximum(start, stop), slope, out=np.zeros_like(slope), where=mixed)
    share = np.where(mixed, part, inside[..., :-1] & inside[..., 1:])
    length = np.einsum("...i,i->...", share, step)
    met = inside.any(axis=-1)
    first = inside.argmax(axis=-1)
    last = depth_mm.size - 1 - inside[..., ::-1].argmax(axis=-1)
    before = np.maximum(first - 1, 0)
    after = np.minimum(last, step.size - 1)
    lead = np.take_along_axis(share, before[..., None], -1)[..., 0] * step[before]
    tail = np.take_along_axis(share, after[..., None], -1)[..., 0] * step[after]
    entry = depth_mm[first] + np.where(first > 0, lead, 0)
    leave = depth_mm[last] - np.where(last < depth_mm.size - 1, tail, 0)
    begins = np.diff(inside.astype(np.int8), axis=-1, prepend=0) == 1
    return (
        np.where(met, entry, np.nan),
        np.where(met, leave, np.nan),
        length,
        begins.sum(axis=-1),
    )


def follow(
    entry_mm: ArrayLike,
    target_mm: ArrayLike,
    layers: Sequence[Layers],
    seed: int,
    *,
    step_mm: float = 0.25,
    beyond_mm: float = 10.0,
    position_sd_mm: float = 0.5,
    draws: int = 400,
) -> tuple[Line, Spans]:
    """Follow a line from an entry through a target: where each structure begins and ends.

    Parameters
    ----------
    entry_mm, target_mm : sequence of three floats
    layers : sequence of Layers
        In the line's world.
    seed : int
    step_mm : float
        Distance of the points of the profile, in mm.
    beyond_mm : float
        How far the line goes on beyond the target, in mm.
    position_sd_mm : float
        Standard deviation of the line's place against the labels, in each direction, in mm:
        registration, shift of the brain.
    draws : int
        Number of lines drawn for the uncertainty.

    Raises
    ------
    ValueError
        If entry and target are not apart, or an option makes no sense.
    """
    if not (step_mm > 0 and beyond_mm >= 0 and position_sd_mm >= 0 and draws > 1):
        raise ValueError(
            "'step_mm' must be above zero, 'beyond_mm' and 'position_sd_mm' not below it, and "
            "'draws' above one"
        )
    line = line_through(entry_mm, target_mm, step_mm=step_mm, beyond_mm=beyond_mm)
    return line, spans(line, layers, position_sd_mm=position_sd_mm, draws=draws, seed=seed)


METHODS = {"labels": follow}
"""How trajectories are followed."""


def spans(
    line: Line,
    layers: Sequence[Layers],
    *,
    position_sd_mm: float,
    draws: int,
    seed: int,
) -> Spans:
    """Return where a line crosses each structure, for how long, and how sure that is.

    Entry, exit and span are those of the labels.  For their uncertainty the line is drawn many
    times, shifted at random; with each draw, the border at the entry and that at the exit are put
    at levels of the structures' :func:`scores` that are uniform between 0 and 1, each by itself, so
    that the mean span is the integral of the score along the line.  A draw whose first level the
    score does not reach does not meet the structure.

    Parameters
    ----------
    line : Line
    layers : sequence of Layers
        In the line's world.
    position_sd_mm, draws, seed
        As in :func:`follow`.

    Returns
    -------
    Spans
        Of the structures that the line comes near to.  Memory: some 30 MB for 30 of them.
    """
    layers = [_near(layer, line, REACH_SD * position_sd_mm) for layer in layers]
    indices = np.concatenate([layer.indices for layer in layers])
    nominal = scores(sample_layers(layers, line.points_mm))
    entry, leave, span, pieces = crossings(line.depth_mm, nominal)
    drawn = _drawn_spans(line, layers, position_sd_mm, draws, seed)
    met = drawn[2] > 0
    low, high = np.percentile(drawn[2], COVERAGE, axis=0)
    return Spans(
        indices,
        entry,
        leave,
        span,
        drawn[2].mean(axis=0),
        drawn[2].std(axis=0, ddof=1),
        low,
        high,
        _sd_where(drawn[0], met),
        _sd_where(drawn[1], met),
        met.mean(axis=0),
        pieces,
    )


def _near(layer: Layers, line: Line, margin_mm: float) -> Layers:
    """Return the structures of which there is something in the box around a line."""
    at = moved(line.points_mm, _inverse(layer.affine))
    margin = margin_mm / np.sqrt((layer.affine[:3, :3] ** 2).sum(axis=0)) + 1
    low = np.maximum(np.floor(at.min(axis=0) - margin), 0).astype(int)
    high = np.maximum(np.ceil(at.max(axis=0) + margin) + 1, 0).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    kept = layer.values[(slice(None), *box)].any(axis=(1, 2, 3))
    return replace(layer, indices=layer.indices[kept], values=layer.values[kept])


def _drawn_spans(
    line: Line, layers: Sequence[Layers], position_sd_mm: float, draws: int, seed: int
) -> Float64:
    """Return entry, exit and length of each draw, shape (3, draws, structures)."""
    random = np.random.default_rng(seed)
    shifts = position_sd_mm * random.standard_normal((draws, 3))
    # evenly spread levels in random order: fewer draws do
    even = (np.arange(draws) + 0.5) / draws
    levels, others = random.permutation(even), random.permutation(even)
    count = max(1, POINTS_AT_ONCE // (4 * line.depth_mm.size))
    parts = []
    for start in range(0, draws, count):
        chosen = slice(start, start + count)
        points = line.points_mm[None] + shifts[chosen, None]
        found = scores(sample_layers(layers, points))
        entry, leave, length, _ = crossings(line.depth_mm, found, levels[chosen])
        _, other_leave, other_length, _ = crossings(line.depth_mm, found, others[chosen])
        both = (length > 0) & (other_length > 0)
        leave = np.where(both, other_leave, leave)
        # each border moves one half of what lies between
        length = np.where(both, (length + other_length) / 2, length)
        parts.append(np.stack([entry, leave, length]))
    return np.moveaxis(np.concatenate(parts, axis=-1), 1, -1)


def _sd_where(values: Float64, chosen: Bool) -> Float64:
    count = chosen.sum(axis=0)
    enough = count > 1
    mean = np.where(chosen, values, 0).sum(axis=0) / np.maximum(count, 1)
    squares = np.where(chosen, values - mean, 0) ** 2
    sd = np.sqrt(squares.sum(axis=0) / np.maximum(count - 1, 1))
    return np.where(enough, sd, np.nan)


def _inverse(affine: Float64) -> Float64:
    return np.asarray(np.linalg.inv(affine), np.float64)


def _interpolated(values: NDArray, at: Float64, outside: float) -> Float32:
    found: Float32 = ndimage.map_coordinates(
        values, at, np.float32, order=1, mode="constant", cval=outside
    )
    return found
