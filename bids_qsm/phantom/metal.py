"""Metal in a CT: leads with contacts, wires below the scalp, dental fillings, and their streaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from bids_qsm.numerics.lead_models import LeadModel

Float64 = NDArray[np.float64]

# mean HU over the lead's cross-section, as if the scale had no end
CONTACT_HU, WIRE_HU, FILLING_HU = 16000.0, 6000.0, 12000.0
HU_SPREAD = 0.3
BLOOMING = (0.15, 2.2)
"""Share of the metal's brightness that is blurred more widely, and how many times."""
STEP_MM = 0.2
FILLING_MM = 3.0
STREAK_REACH_MM, STREAK_HU, STREAK_WAVES = 25.0, 450.0, (2, 3, 4, 5, 7, 9)


@dataclass(frozen=True)
class SimulatedLead:
    """A lead as it was put in.

    Attributes
    ----------
    side : str
        ``L`` or ``R``.
    model : LeadModel
    path_mm : ndarray of float64, shape (n, 3)
        Points every 0.2 mm from the lead's end (the tip) to the outside of the skull.
    """

    side: str
    model: LeadModel
    path_mm: Float64

    def contacts_mm(self) -> Float64:
        """Return the middles of the contacts, the lowest first, shape (n, 3)."""
        at = self.model.centres_mm / STEP_MM
        steps = np.arange(len(self.path_mm))
        return np.stack([np.interp(at, steps, line) for line in self.path_mm.T], axis=1)

    def moved(self, matrix: Float64) -> SimulatedLead:
        """Return the lead in another world."""
        path = np.einsum("ij,nj->ni", matrix[:3, :3], self.path_mm) + matrix[:3, 3]
        return SimulatedLead(self.side, self.model, path)


def bowed_path(tip_mm: Float64, end_mm: Float64, sag_mm: float, towards: Float64) -> Float64:
    """Return points, ``STEP_MM`` apart, of a bow from the tip to the skull."""
    chord = end_mm - tip_mm
    length = float(np.linalg.norm(chord))
    across = towards - chord * (towards @ chord) / length**2
    across /= np.linalg.norm(across)
    fine = np.linspace(0, 1, 20 * int(np.ceil(length)))[:, None]
    points = tip_mm + fine * chord + sag_mm * 4 * fine * (1 - fine) * across
    run = np.append(0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
    at = np.arange(0, run[-1], STEP_MM)
    return np.stack([np.interp(at, run, line) for line in points.T], axis=1)


def lead_density(lead: SimulatedLead, rng: np.random.Generator) -> Float64:
    """Return HU at each point of a lead's path: contacts, and wires above the lowest of them."""
    model = lead.model
    wire_hu, contact_hu = np.array([WIRE_HU, CONTACT_HU]) * rng.uniform(
        1 - HU_SPREAD, 1 + HU_SPREAD, 2
    )
    along = STEP_MM * np.arange(len(lead.path_mm))
    hu = np.where(along < model.tip_mm, 0.0, wire_hu)
    for centre in model.centres_mm:
        hu[np.abs(along - centre) <= model.contact_mm / 2 + 1e-6] = contact_hu
    return hu


def tube(path_mm: Float64, hu: Float64, radius_mm: float) -> tuple[Float64, Float64]:
    """Return points that fill a tube, and their masses (HU mm3): 19 around each of the path's."""
    along = np.gradient(path_mm, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    first = np.cross(along, [0.31, 0.87, 0.38])
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(along, first)
    rings = [(0.0, 0.0)]
    # rings of 6 and 12 points, each point standing for the same area of the disc
    for n, radius in ((6, 0.46), (12, 0.84)):
        angles = 2 * np.pi * (np.arange(n) + 0.5) / n
        rings += list(zip(radius * np.cos(angles), radius * np.sin(angles), strict=True))
    points = [path_mm + radius_mm * (a * first + b * second) for a, b in rings]
    mass = hu * STEP_MM * np.pi * radius_mm**2 / len(rings)
    return np.concatenate(points), np.tile(mass, len(rings))


def filling(centre_mm: Float64) -> tuple[Float64, Float64]:
    """Return points that fill a ball, and their masses (HU mm3)."""
    line = np.arange(-FILLING_MM, FILLING_MM + 0.1, 0.6)
    grid = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
    ball = grid[(grid**2).sum(axis=1) <= FILLING_MM**2]
    return centre_mm + ball, np.full(len(ball), FILLING_HU * 0.6**3)


def add_points(
    volume: NDArray[np.float32],
    affine: Float64,
    points_mm: Float64,
    masses: Float64,
    sigma_mm: float,
) -> None:
    """Add point masses to an upright volume, blurred in the plane and over the slice, in place.

    A part of each is blurred more widely: metal blooms.  The slice's profile is a box of its
    thickness, blurred likewise.
    """
    share, times = BLOOMING
    _add_blurred(volume, affine, points_mm, (1 - share) * masses, sigma_mm)
    # every third point is enough for what is smooth
    _add_blurred(volume, affine, points_mm[::3], 3 * share * masses[::3], times * sigma_mm)


def _add_blurred(
    volume: NDArray[np.float32],
    affine: Float64,
    points_mm: Float64,
    masses: Float64,
    sigma_mm: float,
) -> None:
    voxel_mm = np.diag(affine)[:3]
    places = (points_mm - affine[:3, 3]) / voxel_mm
    reach = np.ceil((4 * sigma_mm + np.array([0, 0, voxel_mm[2] / 2])) / voxel_mm).astype(int)
    seen = (masses > 0) & ((places > reach) & (places < volume.shape - reach - 1)).all(axis=1)
    steps = [np.arange(-r, r + 1) for r in reach]
    scale = sigma_mm * np.sqrt(2)
    half = voxel_mm[2] / 2
    for start in range(0, int(seen.sum()), 2000):
        own, mass = places[seen][start : start + 2000], masses[seen][start : start + 2000]
        nearest = np.rint(own).astype(int)
        index = [nearest[:, axis, None] + steps[axis] for axis in range(3)]
        x, y, z = ((index[axis] - own[:, axis, None]) * voxel_mm[axis] for axis in range(3))
        flat = [np.exp(-((d / scale) ** 2)) / (scale * np.sqrt(np.pi)) for d in (x, y)]
        deep = (erf((z + half) / scale) - erf((z - half) / scale)) / (2 * voxel_mm[2])
        part = np.einsum("n,nx,ny,nz->nxyz", mass, *flat, deep).astype(np.float32)
        where = (index[0][:, :, None, None], index[1][:, None, :, None], index[2][:, None, None])
        np.add.at(volume, where, part)


def add_streaks(
    volume: NDArray[np.float32],
    affine: Float64,
    path_mm: Float64,
    rng: np.random.Generator,
    strength: float = 1.0,
) -> None:
    """Add bright and dark rays around metal in each slice that it passes, in place.

    Their pattern turns slowly from slice to slice; on the whole the surroundings become darker.
    """
    voxel_mm = np.diag(affine)[:3]
    places = (path_mm - affine[:3, 3]) / voxel_mm
    phases = rng.uniform(0, 2 * np.pi, len(STREAK_WAVES))
    sizes = rng.uniform(0.4, 1.0, len(STREAK_WAVES)) / np.sqrt(len(STREAK_WAVES))
    slices = np.rint(places[:, 2]).astype(int)
    for z in np.unique(slices[(slices >= 0) & (slices < volume.shape[2])]):
        here = places[slices == z, :2].mean(axis=0)
        phases = phases + rng.normal(0, 0.25 * np.sqrt(voxel_mm[2]), len(phases))
        reach = np.ceil(STREAK_REACH_MM / voxel_mm[:2]).astype(int)
        low = np.maximum(np.rint(here).astype(int) - reach, 0)
        high = np.minimum(np.rint(here).astype(int) + reach + 1, volume.shape[:2])
        if (low >= high).any():
            continue
        x = ((np.arange(low[0], high[0]) - here[0]) * voxel_mm[0])[:, None]
        y = (np.arange(low[1], high[1]) - here[1]) * voxel_mm[1]
        angle, distance = np.arctan2(y, x), np.hypot(x, y)
        rays = sum(
            (
                size * np.cos(wave * angle + phase)
                for size, wave, phase in zip(sizes, STREAK_WAVES, phases, strict=True)
            ),
            start=np.float64(-0.3),
        )
        part = (
            strength * STREAK_HU * rays * (distance / 1.5) ** 2 / (1 + (distance / 1.5) ** 2) ** 2
        )
        volume[low[0] : high[0], low[1] : high[1], z] += part


def wire_below_scalp(
    start_mm: Float64, centre_mm: Float64, down: Float64, radii_mm: Sequence[float]
) -> Float64:
    """Return the way of a wire over the skull: from a hole towards ``down`` around the centre.

    ``radii_mm`` are its distances from the centre at each of the evenly spaced steps.
    """
    directions = wire_directions(start_mm, centre_mm, down, len(radii_mm))
    points = centre_mm + directions * np.asarray(radii_mm)[:, None]
    run = np.append(0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
    at = np.arange(0, run[-1], STEP_MM)
    return np.stack([np.interp(at, run, line) for line in points.T], axis=1)


def wire_directions(start_mm: Float64, centre_mm: Float64, down: Float64, number: int) -> Float64:
    """Return unit vectors from the centre that turn from the start to ``down``, shape (n, 3)."""
    first = (start_mm - centre_mm) / np.linalg.norm(start_mm - centre_mm)
    across = down - first * (down @ first)
    across /= np.linalg.norm(across)
    angles = np.linspace(0, np.arccos(np.clip(down @ first, -1, 1)), number)[:, None]
    return first * np.cos(angles) + across * np.sin(angles)
