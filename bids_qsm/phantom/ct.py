"""A CT of a head after leads for deep brain stimulation were put in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.lead_models import lead_model
from bids_qsm.phantom.grids import random_pose, transformed
from bids_qsm.phantom.head import Phantom
from bids_qsm.phantom.metal import (
    WIRE_HU,
    SimulatedLead,
    add_points,
    add_streaks,
    bowed_path,
    filling,
    lead_density,
    tube,
    wire_below_scalp,
    wire_directions,
)
from bids_qsm.phantom.noise import slabs
from bids_qsm.phantom.options import CtOptions
from bids_qsm.phantom.structural import upright_grid
from bids_qsm.phantom.tissues import is_brain

Float64 = NDArray[np.float64]
LEAST_HU, LARGEST_HU, AIR_HU = -1024, 3071, -1000.0
SOFT_HU = 40.0
TISSUE_HU = {
    "air": AIR_HU,
    "white matter": 28.0,
    "corpus callosum": 28.0,
    "grey matter": 38.0,
    "CSF": 6.0,
    "eye and spinal fluid": 8.0,
    "lesion": 24.0,
    "vein": 52.0,
    "muscle": 55.0,
    "fat and skin": -80.0,
    "dura": 60.0,
    "cortical bone": 1500.0,
    "spongy bone": 550.0,
}
"""Usual values at 120 kV (Kamalian et al. 2016, 10.1016/B978-0-444-53485-9.00001-5); other tissue
has that of soft tissue."""
BLUR_MM = 0.4
TURN_DEGREES, SHIFT_MM = 10.0, 15.0
SUBTHALAMIC_MM = np.array([1.5, 3.0, 5.0])
"""From the middle of the substantia nigra to that of the subthalamic nucleus: out, front, top."""
TARGETS = {"stn": ((27, 59), (28, 60)), "gpi": ((13, 52),)}
"""Labels, left and right, whose middle is the target; the first that the head has."""
ENTRY_DIRECTION = np.array([0.35, 0.42, 0.84])
"""From target to skull: out, front, top."""
FILLINGS_MM = ((24.0, 62.0, -78.0), (-20.0, 68.0, -80.0), (28.0, 50.0, -78.0))
"""From the middle of the brain."""
BONE_LABELS = (515, 516)


@dataclass(frozen=True)
class SimulatedCt:
    """A CT image.

    Attributes
    ----------
    data : ndarray of int16, shape (x, y, z)
        HU.
    affine : ndarray, shape (4, 4)
    pose : ndarray, shape (4, 4)
        Where the head lies in the CT (mm).
    leads : tuple of SimulatedLead
        In the world of the simulated head: ``lead.moved(pose)`` is in the CT's.
    """

    data: NDArray[np.int16]
    affine: Float64
    pose: Float64
    leads: tuple[SimulatedLead, ...]


def simulate_ct(phantom: Phantom, options: CtOptions, seed: int) -> SimulatedCt:
    """Simulate a CT with noise, the scanner's blur, leads, and the artefacts of their metal.

    Metal goes beyond the scale, which ends at 3071 HU; rays run from it in the slices' plane.

    Parameters
    ----------
    phantom : Phantom
    options : CtOptions
    seed : int
        Decides noise, rays and the head's position (10 degrees, 15 mm at most).

    Returns
    -------
    SimulatedCt

    Raises
    ------
    ValueError
        If the head lacks the target's labels, or the lead's model is not known.
    """
    rng = np.random.default_rng(seed)
    pose = random_pose(rng, phantom.centre_mm(), TURN_DEGREES, SHIFT_MM)
    source = pose @ phantom.affine
    low = (0, 0, phantom.first_plane(options.below_brain_mm))
    shape, affine = upright_grid(low, phantom.labels.shape, source, options.voxel_mm)
    leads = tuple(_lead(phantom, side, options) for side in options.sides)
    volume = np.empty(shape, np.float32)
    hu = phantom.table([TISSUE_HU.get(t.name, SOFT_HU) for t in phantom.tissues])[phantom.labels]
    for slab, part in _anatomy(phantom, hu, shape, affine, source, options):
        part += _noise(rng, part.shape, options)
        volume[:, :, slab] = part
    _add_metal(volume, affine, phantom, leads, pose, options, rng)
    data = np.rint(np.clip(volume, LEAST_HU, LARGEST_HU)).astype(np.int16)
    return SimulatedCt(data, affine, pose, leads)


def _anatomy(
    phantom: Phantom,
    hu: NDArray[np.float32],
    shape: tuple[int, int, int],
    affine: Float64,
    source: Float64,
    options: CtOptions,
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Return the head without metal, a few slices at a time."""
    # linear interpolation blurs by some 0.4 voxels; a slice's thickness by its part of a box's
    wanted = np.array([BLUR_MM, BLUR_MM, np.hypot(BLUR_MM, options.voxel_mm[2] / np.sqrt(12))])
    has = 0.4 * np.array(phantom.voxel_mm)
    sigma = np.sqrt(np.maximum(wanted**2 - has**2, 0)) / phantom.voxel_mm
    if options.brain_shift_mm:
        hu = _shifted(phantom, hu, options.brain_shift_mm)
    hu = ndimage.gaussian_filter(hu, sigma, truncate=3.0)
    to_source = np.linalg.inv(source) @ affine
    for slab in slabs(shape[2]):
        lines = np.ix_(np.arange(shape[0]), np.arange(shape[1]), np.arange(slab.start, slab.stop))
        voxel = transformed(to_source, lines)
        yield (
            slab,
            ndimage.map_coordinates(hu, voxel, np.float32, order=1, mode="constant", cval=AIR_HU),
        )


def _noise(
    rng: np.random.Generator, shape: tuple[int, ...], options: CtOptions
) -> NDArray[np.float32]:
    """Return noise that hangs together in the slices' plane."""
    white = rng.standard_normal(shape, np.float32)
    smooth = ndimage.gaussian_filter(white, (0.7, 0.7, 0), truncate=3.0)
    return smooth * np.float32(options.noise_hu / max(float(smooth.std()), 1e-6))


def _shifted(phantom: Phantom, hu: NDArray[np.float32], shift_mm: float) -> NDArray[np.float32]:
    """Return the head with its brain sunk back from the forehead, and air in its place."""
    inside = is_brain(phantom.labels)
    lines = np.flatnonzero(inside.any(axis=(0, 2)))
    middle, last = (lines[0] + lines[-1]) / 2, lines[-1]
    share = np.clip((np.arange(hu.shape[1]) - middle) / (last - middle), 0, 1) ** 2
    # voxel y shows what was shift * share(y) in front of it
    at = np.arange(hu.shape[1]) + shift_mm / phantom.voxel_mm[1] * share
    low = np.minimum(at.astype(int), hu.shape[1] - 2)
    weight = (at - low).astype(np.float32)[:, None]
    moved = hu[:, low] * (1 - weight) + hu[:, low + 1] * weight
    left = inside & ~inside[:, np.minimum(np.rint(at).astype(int), hu.shape[1] - 1)]
    return np.where(left, np.float32(AIR_HU), np.where(inside, moved, hu))


def _lead(phantom: Phantom, side: str, options: CtOptions) -> SimulatedLead:
    """Put a lead in: its second contact lies at the target."""
    model = lead_model(options.model)
    out = np.array([-1.0 if side == "L" else 1.0, 1.0, 1.0])
    target = _target(phantom, side, options.target)
    direction = out * ENTRY_DIRECTION / np.linalg.norm(ENTRY_DIRECTION)
    skull = _last_on_ray(phantom, target, direction, BONE_LABELS)
    tip = target - direction * model.centres_mm[1]
    path = bowed_path(tip, target + direction * skull, options.bend_mm, out * [1.0, 0.3, 0.0])
    return SimulatedLead(side, model, path)


def _target(phantom: Phantom, side: str, name: str) -> Float64:
    for pair in TARGETS[name]:
        voxels = np.argwhere(phantom.labels == pair[side == "R"])
        if len(voxels):
            middle = phantom.affine[:3, :3] @ voxels.mean(axis=0) + phantom.affine[:3, 3]
            sided = np.array([-1.0 if side == "L" else 1.0, 1.0, 1.0])
            return middle + (sided * SUBTHALAMIC_MM if pair == TARGETS["stn"][0] else 0)
    raise ValueError(f"the label map has no structure that tells where the target {name!r} is.")


def _last_on_ray(
    phantom: Phantom, start: Float64, direction: Float64, labels: tuple[int, ...] | None
) -> float:
    """Return the distance (mm) of the last of some labels, or of all but air, along a ray."""
    steps = np.arange(0, 160.0, 0.5)
    points = start + steps[:, None] * direction
    inverse = np.linalg.inv(phantom.affine)
    voxels = (np.einsum("ij,nj->in", inverse[:3, :3], points).T + inverse[:3, 3]).T
    found = ndimage.map_coordinates(phantom.labels, voxels, order=0)
    hits = np.flatnonzero(np.isin(found, labels) if labels else found > 0)
    return float(steps[hits[-1]]) if hits.size else 60.0


def _add_metal(
    volume: NDArray[np.float32],
    affine: Float64,
    phantom: Phantom,
    leads: tuple[SimulatedLead, ...],
    pose: Float64,
    options: CtOptions,
    rng: np.random.Generator,
) -> None:
    """Add leads, their wires to the neck and dental fillings, with rays around each."""
    brain = np.argwhere(is_brain(phantom.labels[::4, ::4, ::4])) * 4
    middle = phantom.affine[:3, :3] @ brain.mean(axis=0) + phantom.affine[:3, 3]
    pieces = []
    for lead in leads:
        moved = lead.moved(pose)
        pieces.append((moved.path_mm, *tube(moved.path_mm, lead_density(lead, rng), _radius(lead))))
        way = _moved(_wire(phantom, lead, middle), pose)
        pieces.append((way, *tube(way, np.full(len(way), WIRE_HU), _radius(lead))))
    for offset in FILLINGS_MM if options.fillings else ():
        place = middle + offset
        voxel = np.rint((np.linalg.inv(phantom.affine) @ [*place, 1])[:3]).astype(int)
        if (voxel >= 0).all() and (voxel < phantom.labels.shape).all():
            centre = _moved(place[None], pose)
            pieces.append((centre, *filling(centre[0])))
    for path, points, masses in pieces:
        add_points(volume, affine, points, masses, BLUR_MM)
        add_streaks(volume, affine, path, rng, options.streaks)


def _radius(lead: SimulatedLead) -> float:
    return lead.model.diameter_mm / 2


def _wire(phantom: Phantom, lead: SimulatedLead, middle: Float64) -> Float64:
    """Return the wire's way between skull and scalp to behind the ear."""
    side = -1.0 if lead.side == "L" else 1.0
    down = np.array([side * 0.75, -0.6, -0.28])
    down /= np.linalg.norm(down)
    start = lead.path_mm[-1]
    directions = wire_directions(start, middle, down, 40)
    radii = [_last_on_ray(phantom, middle, d, BONE_LABELS) + 2.5 for d in directions]
    return wire_below_scalp(start, middle, down, radii)


def _moved(points_mm: Float64, pose: Float64) -> Float64:
    return np.einsum("ij,nj->ni", pose[:3, :3], points_mm) + pose[:3, 3]
