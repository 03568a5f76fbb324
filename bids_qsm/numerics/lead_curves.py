"""Curves through the metal of leads: found among bright voxels, and brought to their middle."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bids_qsm.numerics.lead_fit import Crop

Float = NDArray[np.floating]

NEAR_MM = 1.6
STEP_MM = 0.5
STIFF_MM = 0.04
"""A higher order is taken where it lowers the rms distance of the centres by as much as this."""


@dataclass(frozen=True)
class Curve:
    """A polynomial along a direction: ``origin + t * direction + coefficients @ t**k * across``."""

    origin: Float
    frame: Float  # rows: direction, and two across it
    coefficients: Float  # (order + 1, 2)
    first: float
    last: float

    def at(self, t: Float) -> Float:
        """Return points of the curve, shape (n, 3)."""
        powers = np.asarray(t)[:, None] ** np.arange(len(self.coefficients))
        across = np.einsum("nk,kj->nj", powers, self.coefficients)
        return self.origin + np.einsum("nj,jc->nc", np.column_stack([t, across]), self.frame)

    def parts(self, points: Float) -> tuple[Float, Float]:
        """Return the place of points along the direction, and their offset from the curve."""
        local = np.einsum("nc,jc->nj", points - self.origin, self.frame)
        powers = local[:, :1] ** np.arange(len(self.coefficients))
        return local[:, 0], local[:, 1:] - np.einsum("nk,kj->nj", powers, self.coefficients)


def longest_curve(points: Float, least_length_mm: float, gap_mm: float) -> Curve | None:
    """Return the curve along most of the points, grown from the best line through two of them.

    A larger gap between points ends it.
    """
    if len(points) < 20:
        return None
    rng = np.random.default_rng(0)
    some = points[rng.choice(len(points), min(len(points), 1500), replace=False)]
    best, most = None, 0.0
    pairs = rng.integers(0, len(some), (1200, 2))
    for first, second in some[pairs]:
        length = np.linalg.norm(second - first)
        if not least_length_mm / 4 < length < 80:
            continue
        direction = (second - first) / length
        offset = some - first
        along = np.einsum("nc,c->n", offset, direction)
        near = (offset**2).sum(axis=1) - along**2 < NEAR_MM**2
        run = _run(along[near], gap_mm)
        if run[1] - run[0] > most:
            best, most = (first, direction, run), run[1] - run[0]
    if best is None or most < least_length_mm / 2:
        return None
    first, direction, run = best
    curve = Curve(first, _frame(direction), np.zeros((1, 2)), *run)
    for order in (1, 1, 2, 2, 3, 3):
        curve = _grown(points, curve, order, gap_mm)
    return curve if curve.last - curve.first >= 0.8 * least_length_mm else None


def _run(along: Float, gap_mm: float) -> tuple[float, float]:
    """Return the ends of the longest run of places without a gap."""
    if along.size < 2:
        return 0.0, 0.0
    places = np.sort(along)
    breaks = np.flatnonzero(np.diff(places) > gap_mm)
    starts = places[np.append(0, breaks + 1)]
    ends = places[np.append(breaks, places.size - 1)]
    longest = int(np.argmax(ends - starts))
    return float(starts[longest]), float(ends[longest])


def _frame(direction: Float) -> Float:
    """Return three unit vectors as rows, the first along the direction."""
    other = np.eye(3)[int(np.argmin(np.abs(direction)))]
    second = np.cross(direction, other)
    second /= np.linalg.norm(second)
    return np.stack([direction, second, np.cross(direction, second)])


def _grown(points: Float, curve: Curve, order: int, gap_mm: float) -> Curve:
    """Return the curve fitted again to the points near it, in a run from its middle."""
    along, across = curve.parts(points)
    near = (across**2).sum(axis=1) < NEAR_MM**2
    # a curve is trusted some way beyond the points that it was fitted to
    near &= (along > curve.first - 8) & (along < curve.last + 8)
    first, last = _run(along[near], 1.5 * gap_mm)
    near &= (along >= first) & (along <= last)
    if near.sum() < 10:
        return curve
    direction = curve.frame[0]
    if order == 1:
        centred = points[near] - points[near].mean(axis=0)
        _, vectors = np.linalg.eigh(np.einsum("ni,nj->ij", centred, centred))
        direction = vectors[:, -1] * np.sign(vectors[:, -1] @ curve.frame[0])
    frame, origin = _frame(direction), points[near].mean(axis=0)
    local = np.einsum("nc,jc->nj", points[near] - origin, frame)
    order = min(order, 1 + int((last - first) / 15))
    coefficients = _polynomial(local[:, 0], local[:, 1:], np.ones(len(local)), order)
    return Curve(origin, frame, coefficients, *_ends(local[:, 0]))


def _ends(along: Float) -> tuple[float, float]:
    return float(along.min()), float(along.max())


def _polynomial(t: Float, values: Float, weights: Float, order: int) -> Float:
    """Return coefficients (order + 1, 2) by weighted least squares."""
    scale = max(float(np.abs(t).max()), 1.0)
    powers = (t[:, None] / scale) ** np.arange(order + 1)
    root = np.sqrt(weights)[:, None]
    solved, *_ = np.linalg.lstsq(powers * root, values * root, rcond=None)
    return solved / scale ** np.arange(order + 1)[:, None]


def stretch(curve: Curve, t: Float) -> float:
    """Return how much longer the curve is than its direction."""
    points = curve.at(t)
    length = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
    return float(length / (t[-1] - t[0]))


def centred(crop: Crop, curve: Curve, radius_mm: float) -> Curve:
    """Return the curve through the bright centres of the artefact's cross-sections."""
    t = np.arange(curve.first, curve.last + STEP_MM / 2, STEP_MM)
    line = np.linspace(-radius_mm, radius_mm, 15)
    u, v = (a.ravel() for a in np.meshgrid(line, line, indexing="ij"))
    disc = u**2 + v**2 <= 1.01 * radius_mm**2
    u, v = u[disc], v[disc]
    around = u[:, None] * curve.frame[1] + v[:, None] * curve.frame[2]
    values = crop.values((curve.at(t)[:, None] + around).reshape(-1, 3)).reshape(len(t), -1)
    core = np.percentile(values, 95, axis=1)
    weights = np.maximum(values - 0.35 * core[:, None], 0)
    total = np.maximum(weights.sum(axis=1), 1e-6)
    local, _ = curve.parts(curve.at(t))
    offsets = np.stack([(weights * u).sum(axis=1), (weights * v).sum(axis=1)], axis=1)
    powers = local[:, None] ** np.arange(len(curve.coefficients))
    centres = np.einsum("nk,kj->nj", powers, curve.coefficients) + offsets / total[:, None]
    trusted = (core > 0.5 * np.median(core)).astype(float)
    coefficients = _robust(local, centres, trusted)
    return Curve(curve.origin, curve.frame, coefficients, curve.first, curve.last)


def _robust(t: Float, centres: Float, trusted: Float) -> Float:
    """Return the polynomial of the lowest order that fits, outliers left out (Tukey's weights)."""
    results = []
    for order in (1, 2, 3):
        weights = trusted
        for _ in range(8):
            coefficients = _polynomial(t, centres, weights, order)
            powers = t[:, None] ** np.arange(order + 1)
            distance = np.linalg.norm(centres - powers @ coefficients, axis=1)
            scale = max(1.48 * float(np.median(distance[trusted > 0])), 0.02)
            weights = trusted * np.maximum(1 - (distance / (4.7 * scale)) ** 2, 0) ** 2
        rms = float(np.sqrt((trusted * np.minimum(distance, 1.0) ** 2).sum() / trusted.sum()))
        results.append((rms, coefficients))
    for (rms, coefficients), (better, _) in pairwise(results):
        if rms**2 - better**2 < max(STIFF_MM**2, 0.15 * rms**2):
            return coefficients
    return results[-1][1]
