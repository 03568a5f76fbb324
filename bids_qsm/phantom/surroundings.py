"""CSF, dura, skull, scalp, face, neck, eyes and air spaces around a brain in MNI space.

Made of shells by distance from the brain and of ellipsoids; sizes and places follow the averages
of the adult head closely enough for realistic background fields, no more.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bids_qsm.phantom.noise import stretched
from bids_qsm.phantom.shapes import Bool, Ellipsoid, Grid, Labels, both_sides, fill, union
from bids_qsm.phantom.tissues import is_brain

CSF, DURA, CORTICAL_BONE, SPONGY_BONE, FAT, MUSCLE = 24, 514, 515, 516, 511, 507
MUCOSA, EYE, EYE_MUSCLE, CORD, SPINAL_CSF, OPTIC_NERVE = 509, 506, 508, 512, 513, 530
AIR = 0

# outer radius of each shell around the brain, in mm from its closed surface
SHELLS = (
    (2.0, CSF),
    (3.0, DURA),
    (4.5, CORTICAL_BONE),
    (7.0, SPONGY_BONE),
    (8.5, CORTICAL_BONE),
    (10.0, MUSCLE),
    (15.0, FAT),
)
SKULL_MM = (3.0, 8.5)

FACE_AND_NECK = (
    Ellipsoid((0, 30, -62), (63, 62, 78)),
    Ellipsoid((0, -38, -105), (60, 68, 78)),
    Ellipsoid((0, 92, -62), (14, 18, 20)),
    *both_sides(Ellipsoid((58, 20, -55), (18, 40, 35))),
)
FACIAL_BONES = (
    Ellipsoid((0, 68, -84), (34, 16, 10)),
    Ellipsoid((0, 84, -38), (9, 5, 12)),
    *both_sides(
        Ellipsoid((44, 62, -62), (14, 9, 8)),
        Ellipsoid((62, 25, -55), (5, 26, 6)),
        Ellipsoid((50, 5, -85), (6, 14, 26)),
        Ellipsoid((36, -20, -42), (24, 11, 10)),
        Ellipsoid((60, -34, -46), (11, 14, 18)),
    ),
)
SINUSES = (
    Ellipsoid((1, 19, -39), (11, 10, 8)),  # sphenoid
    *both_sides(
        Ellipsoid((6, 45, -44), (4.5, 19, 9)),  # ethmoid
        Ellipsoid((9, 71, -22), (8, 5, 10)),  # frontal
        Ellipsoid((27, 52, -68), (12, 15, 14)),  # maxillary
        Ellipsoid((6, 58, -66), (3.5, 28, 12)),  # nasal cavity
    ),
)
AIRWAY = (
    Ellipsoid((0, 12, -82), (10, 7, 30)),
    Ellipsoid((0, 5, -112), (8, 7, 25)),
    Ellipsoid((0, 48, -101), (22, 22, 2.5)),
)
EAR_CANALS = both_sides(
    Ellipsoid((68, -19, -42), (18, 3.5, 3.5)), Ellipsoid((47, -19, -41), (5, 4, 4))
)
MASTOIDS = both_sides(Ellipsoid((60, -34, -48), (8, 11, 14)))
ORBITS = both_sides(Ellipsoid((31, 56, -42), (18, 24, 17)))
EYES = both_sides(Ellipsoid((32, 63, -42), (12.2, 12.2, 12.2)))
LENSES = both_sides(Ellipsoid((32, 73, -42), (4.5, 2.2, 4.5)))
EYE_MUSCLES = both_sides(
    Ellipsoid((22, 48, -42), (2, 18, 4)),
    Ellipsoid((42, 50, -42), (2, 16, 4)),
    Ellipsoid((30, 48, -30), (4, 16, 1.8)),
    Ellipsoid((30, 48, -53), (4, 16, 1.8)),
)
OPTIC_NERVES = both_sides(Ellipsoid((23, 36, -41), (2.2, 18, 2.2)))
TEMPORAL_MUSCLES = both_sides(Ellipsoid((72, 8, -18), (9, 34, 36)))
VERTEBRAE = Ellipsoid((0, -30, -112), (17, 24, 42))


def add(labels: Labels, grid: Grid) -> None:
    """Label what is around the brain, in place; brain labels stay, 0 becomes air."""
    brain = is_brain(labels)
    _add_cord(labels, grid)
    distance = _distance_mm(brain)
    head = closed((distance < SHELLS[-1][0]) | union(grid, FACE_AND_NECK), 12.0)
    free = head & (labels == AIR)
    depth = ndimage.distance_transform_edt(head).astype(np.float32)
    labels[free] = np.where(depth < 5, FAT, MUSCLE)[free]
    _add_bones(labels, grid, head & ~brain & (depth > 4))
    inner = 0.0
    for outer, label in SHELLS:
        shell = free & (distance >= inner) & (distance < outer)
        # the outer shells belong to the scalp: in the face they are what is there already
        labels[shell & (depth < 20) if outer > SKULL_MM[1] else shell] = label
        inner = outer
    scalp = free & (distance >= SKULL_MM[1])
    for muscle in TEMPORAL_MUSCLES:
        fill(labels, grid, muscle, MUSCLE, where=scalp & (depth > 3))
    _add_cord_canal(labels, grid, brain)
    _add_orbits(labels, grid, scalp)
    _add_air(labels, grid, free & (distance >= 2.0), depth > 3)


def _distance_mm(brain: Bool, closing_mm: float = 10.0) -> np.ndarray:
    """Return the distance from the brain with its sulci and fissures closed (float32)."""
    return ndimage.distance_transform_edt(~closed(brain, closing_mm)).astype(np.float32)


def fill_gaps(labels: Labels, voxel_mm: float = 1.0) -> Labels:
    """Return a whole-head label map without air in the gaps and fissures of the brain.

    Segmentations leave some voxels within the brain without a label; as air they would make
    strong fields.  They become CSF.
    """
    gaps = closed(is_brain(labels), 6.0 / voxel_mm) & (labels == AIR)
    return np.where(gaps, np.int16(CSF), labels)


def closed(mask: Bool, mm: float) -> Bool:
    """Fill up gaps of 1 mm voxels narrower than twice ``mm``; the neck goes on below the grid."""
    # worked out on every second voxel, for speed: the distance is smooth enough to interpolate
    rim = int(mm) // 2 + 2
    coarse = np.pad(mask[::2, ::2, ::2], ((rim, rim), (rim, rim), (0, rim)))
    dilated = ndimage.distance_transform_edt(~coarse, sampling=2.0) <= mm
    depth = ndimage.distance_transform_edt(dilated, sampling=2.0)[rim:-rim, rim:-rim, :-rim]
    return mask | (stretched(depth, mask.shape, (0.5, 0.5, 0.5)) > mm)


def _add_cord(labels: Labels, grid: Grid) -> None:
    free = labels == AIR
    x, y, z = grid.axes_mm()
    inside = ((x / 6) ** 2 + ((y + 42 - (z + 60) * 0.1) / 5) ** 2 < 1) & (z < -55)
    labels[inside & free] = CORD


def _add_cord_canal(labels: Labels, grid: Grid, brain: Bool) -> None:
    """CSF around the cord, through the foramen magnum."""
    x, y, z = grid.axes_mm()
    centre = -42 + (z + 60) * 0.1
    inside = ((x / 10) ** 2 + ((y - centre) / 9) ** 2 < 1) & (z < -50)
    fluid = inside & ~brain & (labels != CORD)
    labels[fluid & (z >= -68)] = CSF
    labels[fluid & (z < -68)] = SPINAL_CSF


def _add_bones(labels: Labels, grid: Grid, where: Bool) -> None:
    for bone in (*FACIAL_BONES, VERTEBRAE):
        fill(labels, grid, bone, CORTICAL_BONE, where=where)
        fill(labels, grid, bone.grown(-2.0), SPONGY_BONE, where=where)


def _add_orbits(labels: Labels, grid: Grid, where: Bool) -> None:
    for shapes, label in (
        (ORBITS, FAT),
        (EYE_MUSCLES, EYE_MUSCLE),
        (OPTIC_NERVES, OPTIC_NERVE),
        (EYES, EYE),
        (LENSES, EYE_MUSCLE),
    ):
        for shape in shapes:
            fill(labels, grid, shape, label, where=where)


def _add_air(labels: Labels, grid: Grid, where: Bool, below_skin: Bool) -> None:
    """Air with a lining of mucosa; the mastoid is a sponge of small cells; ears are open."""
    for shape in EAR_CANALS:
        fill(labels, grid, shape, AIR, where=where)
    where = where & below_skin
    for shape in (*SINUSES, *AIRWAY):
        fill(labels, grid, shape.grown(1.5), MUCOSA, where=where)
    for shape in (*SINUSES, *AIRWAY):
        fill(labels, grid, shape, AIR, where=where)
    x, y, z = grid.axes_mm()
    cells = np.sin(x * 1.1) + np.sin(y * 0.9 + 1) + np.sin(z * 1.0 + 2) > -0.4
    for shape in MASTOIDS:
        fill(labels, grid, shape, AIR, where=where & cells)
