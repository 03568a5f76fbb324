"""Leads for deep brain stimulation, found by the artefact of their metal in a CT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.geometry import Bool
from bids_qsm.numerics.lead_curves import STEP_MM, Curve, centred, longest_curve, stretch
from bids_qsm.numerics.lead_fit import Crop, fit_end
from bids_qsm.numerics.lead_models import ASSUMED, LEAD_MODELS, LeadModel, lead_model
from bids_qsm.numerics.registry import Methods

Float = NDArray[np.floating]

UNKNOWN = "unknown"
GIVEN, ESTIMATED, ASSUMED_HOW = "given", "estimated", "assumed"
SMALLEST_MM3 = 2.0
TAKEN_MM = 2.0
CENTRE_RADII_MM = (2.2, 1.8, 1.5, 1.5)
"""Cross-sections shrink while the middle is found: another lead may lie beside it."""
CORE_SHARE, MOST_CORE_HU = 0.6, 2000.0
"""Of the brightest metal: what is brighter is the core of the artefact."""
BLOCK_MM, BLOCKS, MOST_FILLED = 3.0, 5, 0.15
"""Cubes of so many blocks, and the share of them that may be metal: more is bone, or a clip."""
RIM_MM, MOST_IN_RIM = (3.5, 6.0), 0.16
LEAST_FILLED = 0.75
MOST_LEADS, MOST_TRIALS = 8, 16
CLEARLY_WORSE = 1.15
"""How much worse other models must fit for one to be told by its contacts."""
MARGIN_MM, END_MARGIN_MM = 12.0, 8.0


@dataclass(frozen=True)
class Lead:
    """A lead as its artefact shows it; points in the world of the CT (RAS, mm).

    Attributes
    ----------
    tip_mm : ndarray, shape (3,)
        The lead's end: below the lowest contact by what the model has there.
    axis : ndarray, shape (3,)
        Unit vector at the contacts, upwards from the tip.
    path_mm : ndarray, shape (n, 3)
        The middle line every 0.5 mm from the tip to where it leaves the region.
    contacts_mm : ndarray, shape (k, 3)
        Middles of the contacts, the lowest first.
    model : str
    how : str
        Whether the model was ``given``, ``estimated`` from the contacts' own brightness, or
        ``assumed`` where these do not show.
    length_mm, bend_mm : float
        Length within the region, and the largest distance from the straight line through its ends.
    width_mm : float
        Full width of the artefact at half of its height.
    """

    tip_mm: Float
    axis: Float
    path_mm: Float
    contacts_mm: Float
    model: str
    how: str
    length_mm: float
    bend_mm: float
    width_mm: float


def find_leads(
    hu: NDArray[np.integer] | NDArray[np.floating],
    affine: Float,
    region: Bool,
    *,
    model: str = UNKNOWN,
    threshold_hu: float = 800.0,
    least_length_mm: float = 20.0,
) -> tuple[Lead, ...]:
    """Find leads in a CT.

    What is brighter than a threshold in the brain is searched for straight lines, the longest
    first; each is grown to a curve of at most third order through the centres of the artefact's
    cross-sections, weighted by brightness.  Its lower end is where a row of blurred contacts, cut
    at the scale's end, explains the image best.  Lines with bright surroundings are bone.

    Parameters
    ----------
    hu : ndarray, shape (x, y, z)
    affine : ndarray, shape (4, 4)
        Of the CT, without shear.
    region : ndarray of bool, shape (x, y, z)
        The brain, a few millimetres within the skull.
    model : str
        Number of the leads' model, of :data:`bids_qsm.numerics.lead_models.LEAD_MODELS`;
        ``unknown`` estimates it, as far as the contacts show.
    threshold_hu : float
        What is brighter is metal, or bone; after Husch et al. 2018.
    least_length_mm : float
        Of a lead within the region.

    Returns
    -------
    tuple of Lead
        The longest first.  Memory: a bool volume of the region's box and some of a lead's.

    References
    ----------
    Husch et al. 2018, 10.1016/j.nicl.2017.10.004.
    """
    known = None if model == UNKNOWN else lead_model(model)
    box = _box(region)
    if box is None:
        return ()
    voxel_mm = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    part = hu[box]
    metal = (part > threshold_hu) & region[box]
    voxels = _thin(_without_specks(metal, voxel_mm), voxel_mm)
    bright = part[tuple(voxels.T)]
    if not bright.size:
        return ()
    core_hu = min(CORE_SHARE * float(np.percentile(bright, 99)), MOST_CORE_HU)
    places = voxels + [span.start for span in box]
    points = np.einsum("ij,nj->ni", affine[:3, :3], places) + affine[:3, 3]
    leads: list[Lead] = []
    # cores of leads that touch lie apart; where wires are too faint for that, all metal is taken
    for least_hu in (core_hu, threshold_hu):
        for curve in _curves(points[bright > least_hu], least_length_mm, voxel_mm):
            lead = _lead(hu, affine, region, curve, threshold_hu, known)
            if lead is not None and lead.length_mm >= least_length_mm:
                leads.append(lead)
            if len(leads) == MOST_LEADS:
                break
        if leads:
            break
    return tuple(sorted(leads, key=lambda lead: -lead.length_mm))


def _curves(points: Float, least_length_mm: float, voxel_mm: Float) -> Iterator[Curve]:
    """Yield curves through points, the longest first, each without the points of those before."""
    gap_mm = 1.5 * max(float(voxel_mm.max()), 1.3)
    for _ in range(MOST_TRIALS):
        curve = longest_curve(points, least_length_mm, gap_mm)
        if curve is None:
            return
        along, across = curve.parts(points)
        taken = (along >= curve.first - 3) & (along <= curve.last + 3)
        taken &= (across**2).sum(axis=1) < TAKEN_MM**2
        if not taken.any():
            return
        points = points[~taken]
        yield curve


METHODS: Methods = {"artefact": find_leads}


def radial_error(lead_tip_mm: Float, axis: Float, target_mm: Float) -> tuple[float, float]:
    """Return how far a target lies from a lead: perpendicular to its axis, and along it (mm).

    The first is the radial error, in the plane of the target perpendicular to the trajectory
    (Rasouli et al. 2018, 10.1093/ons/opx131).  The second is positive where the point of the axis
    beside the target is above the tip.
    """
    offset = np.asarray(target_mm) - lead_tip_mm
    depth = float(offset @ axis)
    return float(np.linalg.norm(offset - depth * axis)), depth


def _box(region: Bool) -> tuple[slice, slice, slice] | None:
    """Return the box around a region; None where it is empty."""
    spans = []
    for axis in range(3):
        planes = np.flatnonzero(region.any(axis=tuple({0, 1, 2} - {axis})))
        if not planes.size:
            return None
        spans.append(slice(int(planes[0]), int(planes[-1]) + 1))
    return spans[0], spans[1], spans[2]


def _without_specks(metal: Bool, voxel_mm: Float) -> NDArray[np.intp]:
    """Return the voxels of metal that hangs together, shape (n, 3)."""
    labels, count = ndimage.label(metal, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = sizes * np.prod(voxel_mm) >= SMALLEST_MM3
    kept[0] = False
    return np.argwhere(kept[labels])


def _thin(voxels: NDArray[np.intp], voxel_mm: Float) -> NDArray[np.intp]:
    """Return the voxels around which there is little metal: those of wires, not of bone."""
    if not len(voxels):
        return voxels
    blocks = (voxels * voxel_mm / BLOCK_MM).astype(int)
    filled = np.zeros(blocks.max(axis=0) + 1)
    np.add.at(filled, tuple(blocks.T), float(np.prod(voxel_mm)) / BLOCK_MM**3)
    share = ndimage.uniform_filter(filled, BLOCKS, mode="constant")
    return voxels[share[tuple(blocks.T)] < MOST_FILLED]


def _lead(
    hu: NDArray,
    affine: Float,
    region: Bool,
    curve: Curve,
    threshold_hu: float,
    known: LeadModel | None,
) -> Lead | None:
    """Return the lead along a curve; None where it is no lead but bone."""
    crop = Crop.around(hu, affine, curve.at(np.linspace(curve.first, curve.last, 30)), MARGIN_MM)
    for radius_mm in CENTRE_RADII_MM:
        curve = centred(crop, curve, radius_mm)
    t = np.arange(curve.first, curve.last, STEP_MM)
    if len(t) < 10 or not _is_tube(crop, curve, t, threshold_hu):
        return None
    curve = _upwards(curve, affine, region)
    distal = np.linspace(curve.first, min(curve.first + 15.0, curve.last), 30)
    ends = curve.at(distal[[0, -1]])
    axis = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    patterns = _patterns() if known is None else [known]
    end = Crop.around(hu, affine, curve.at(distal), END_MARGIN_MM)
    fits = [fit_end(end, curve.at(distal), axis, patterns[0])]
    first = (fits[0].start_mm,)
    fits += [fit_end(end, curve.at(distal), axis, found, first) for found in patterns[1:]]
    best = int(np.argmin([fit.misfit for fit in fits]))
    model, how = _chosen(patterns, [fit.misfit for fit in fits], best, known)
    fit = fits[patterns.index(model)]
    # places along the curve, from the one where metal begins
    start = curve.first + fit.start_mm / stretch(curve, distal)
    path = _path(curve, start - model.tip_mm / stretch(curve, distal), affine, region)
    run = np.append(0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1)))
    contacts = np.stack([np.interp(model.centres_mm, run, line) for line in path.T], axis=1)
    axis = contacts[-1] - contacts[0]
    axis /= np.linalg.norm(axis)
    return Lead(
        tip_mm=path[0],
        axis=axis,
        path_mm=path,
        contacts_mm=contacts,
        model=model.name,
        how=how,
        length_mm=float(run[-1]),
        bend_mm=_bend(path),
        width_mm=fit.width_mm,
    )


def _patterns() -> list[LeadModel]:
    """Return one model for each pattern of contacts."""
    first: dict[tuple[int, float, float], LeadModel] = {}
    for model in LEAD_MODELS.values():
        first.setdefault(model.pattern, model)
    return list(first.values())


def _chosen(
    patterns: list[LeadModel], misfits: list[float], best: int, known: LeadModel | None
) -> tuple[LeadModel, str]:
    """Return the model, and how it is known: it is estimated only where the others fit worse."""
    if known is not None:
        return known, GIVEN
    second = sorted(misfits)[1]
    if second > CLEARLY_WORSE * misfits[best]:
        return patterns[best], ESTIMATED
    return LEAD_MODELS[ASSUMED], ASSUMED_HOW


def _is_tube(crop: Crop, curve: Curve, t: Float, threshold_hu: float) -> bool:
    """Return whether a curve runs through a bright core with dark surroundings: bone does not."""
    points = curve.at(t)
    core = crop.values(points)
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    circle = np.cos(angles)[:, None] * curve.frame[1] + np.sin(angles)[:, None] * curve.frame[2]
    rims = [
        crop.values((points[:, None] + radius * circle).reshape(-1, 3)) for radius in (*RIM_MM, 4.7)
    ]
    in_rim = float(np.mean(np.stack(rims) > threshold_hu))
    return bool(np.mean(core > threshold_hu) > LEAST_FILLED and in_rim < MOST_IN_RIM)


def _upwards(curve: Curve, affine: Float, region: Bool) -> Curve:
    """Return the curve with its first end in the depth: the other one leaves the region sooner."""
    reach = np.arange(0, 60.0, 0.5)
    ways = []
    for places in (curve.first - reach, curve.last + reach):
        inside = _inside(curve.at(places), affine, region)
        ways.append(int(np.argmin(inside)) if not inside.all() else len(inside))
    up = np.array([0.0, 0.0, 1.0]) @ curve.frame[0]
    turned = ways[0] < ways[1] if ways[0] != ways[1] else up < 0
    if not turned:
        return curve
    frame = curve.frame.copy()
    frame[0] = -frame[0]
    signs = (-1.0) ** np.arange(len(curve.coefficients))[:, None]
    return Curve(curve.origin, frame, curve.coefficients * signs, -curve.last, -curve.first)


def _inside(points: Float, affine: Float, region: Bool) -> Bool:
    inverse = np.linalg.inv(affine)
    voxels = np.rint(np.einsum("ij,nj->ni", inverse[:3, :3], points) + inverse[:3, 3]).astype(int)
    there = ((voxels >= 0) & (voxels < region.shape)).all(axis=1)
    clipped = np.clip(voxels, 0, np.array(region.shape) - 1)
    return np.asarray(there & region[tuple(clipped.T)])


def _path(curve: Curve, start: float, affine: Float, region: Bool) -> Float:
    """Return points every 0.5 mm from a place up to where the curve leaves the region."""
    fine = np.arange(start, curve.last + 40.0, 0.05)
    points = curve.at(fine)
    inside = _inside(points, affine, region)
    beyond = np.flatnonzero((fine > curve.last) & ~inside)
    end = int(beyond[0]) if beyond.size else len(fine)
    points = points[:end]
    run = np.append(0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
    at = np.arange(0, run[-1], STEP_MM)
    return np.stack([np.interp(at, run, line) for line in points.T], axis=1)


def _bend(path: Float) -> float:
    """Return the largest distance of a path from the straight line through its ends."""
    chord = (path[-1] - path[0]) / np.linalg.norm(path[-1] - path[0])
    offset = path - path[0]
    across = offset - np.einsum("nc,c->n", offset, chord)[:, None] * chord
    return float(np.sqrt((across**2).sum(axis=1)).max())


def lead_mask(shape: tuple[int, ...], affine: Float, leads: Mapping[int, Float]) -> NDArray:
    """Return a volume (uint8) with a lead's number within 1 mm of its path."""
    volume = np.zeros(shape, np.uint8)
    voxel_mm = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    inverse = np.linalg.inv(affine)
    reach = np.ceil(1.0 / voxel_mm).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1)
    for number, path in leads.items():
        places = np.einsum("ij,nj->ni", inverse[:3, :3], path) + inverse[:3, 3]
        voxels = np.rint(places).astype(int)[:, None] + steps.reshape(-1, 3)
        offset = (voxels - places[:, None]) @ affine[:3, :3].T
        near = (offset**2).sum(axis=-1) <= max(1.0, (voxel_mm.max() / 2) ** 2)
        found = voxels[near]
        found = found[((found >= 0) & (found < shape)).all(axis=1)]
        volume[tuple(found.T)] = number
    return volume
