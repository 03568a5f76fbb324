"""Pictures of a participant's structures and lesions in three dimensions: arrays in, PNG out."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.geometry import Bool
from bids_qsm.report.annotations import Colour, add_footer, draw_scale, draw_view
from bids_qsm.report.figures import Labels
from bids_qsm.report.slices import reoriented
from bids_qsm.report.surfaces import (
    Frame,
    Look,
    Surface,
    View,
    bounds_mm,
    rendered,
    surface_of,
    upright_voxel_mm,
)

VIEWS = (
    View("from the front", 180.0, 0.0),
    View("from the left", -90.0, 0.0),
    View("from above", 0.0, 90.0),
    View("from the left, front and above", -140.0, 28.0),
)
SOLID = Look(blur_voxels=0.8, level=0.45)
LESION = Look(blur_voxels=0.5, level=0.3)
GLASS = Look(blur_voxels=1.0, level=0.5, clear=0.09, rim=0.75, pixels=3)
GLASS_COLOUR = (190, 205, 215)
GLASS_VOXEL_MM = 2.0
WIDTH_PX = 1000
COLUMNS = 2
SHADES = 32
DEPTH_STEP_MM = 1.0
BAR_MM = 20.0
KIND_MM = 10.0
"""How much one kind of lesions is drawn before the other."""


def structures_scene(labels: Labels, affine: NDArray, colours: Mapping[str, Colour]) -> bytes:
    """Return a picture of structures, seen from several sides.

    Parameters
    ----------
    labels : Labels
        Those that are drawn; the volume may be in any orientation, a tilt of it is not drawn.
    affine : ndarray, shape (4, 4)
    colours : mapping of str to tuple of int
        Of each name.

    Returns
    -------
    bytes
        PNG.

    Raises
    ------
    ValueError
        If none of the labels has a voxel.
    """
    surfaces = _surfaces(labels, affine, colours, SOLID)
    if not surfaces:
        raise ValueError("None of the structures to draw has a voxel.")
    return _picture(surfaces, {name: colours[name] for name in labels.colours})


def lesions_scene(
    brain: Bool, kinds: Mapping[str, NDArray], affine: NDArray, colours: Mapping[str, Colour]
) -> bytes:
    """Return a picture of lesions within the brain, which lets light through.

    Parameters
    ----------
    brain : ndarray of bool, shape (x, y, z)
    kinds : mapping of str to ndarray of int, shape (x, y, z)
        Numbers of the lesions of each kind; those of later kinds are drawn before the others, in
        which they may lie.
    affine : ndarray, shape (4, 4)
        Of all of them.
    colours : mapping of str to tuple of int
        Of the kinds that are drawn.

    Returns
    -------
    bytes
        PNG.

    Raises
    ------
    ValueError
        If the brain has no voxel.
    """
    voxel_mm = upright_voxel_mm(affine)
    every = np.maximum(1, np.rint(GLASS_VOXEL_MM / voxel_mm)).astype(int)
    coarse = reoriented(brain, affine)[tuple(slice(None, None, int(n)) for n in every)]
    boxes = ndimage.find_objects(coarse.astype(np.uint8))
    if not boxes:
        raise ValueError("The brain to draw lesions in has no voxel.")
    surfaces = [surface_of(coarse[boxes[0]], boxes[0], voxel_mm * every, GLASS_COLOUR, GLASS)]
    for place, (kind, numbers) in enumerate(kinds.items()):
        if kind in colours:
            one_kind = Labels(numbers, dict.fromkeys(range(1, int(numbers.max()) + 1), kind))
            look = replace(LESION, nearer_mm=place * KIND_MM)
            surfaces += _surfaces(one_kind, affine, colours, look)
    return _picture(surfaces, colours)


def _surfaces(
    labels: Labels, affine: NDArray, colours: Mapping[str, Colour], look: Look
) -> list[Surface]:
    upright, voxel_mm = reoriented(labels.volume, affine), upright_voxel_mm(affine)
    boxes = dict(enumerate(ndimage.find_objects(upright), start=1))
    return [
        surface_of(upright[box] == index, box, voxel_mm, colours[name], look)
        for index, name in labels.names.items()
        if (box := boxes.get(index)) is not None
    ]


def _picture(surfaces: Sequence[Surface], legend: Mapping[str, Colour]) -> bytes:
    """Return the views in rows, all of one scale, with a legend and a scale bar below them."""
    bounds = [bounds_mm(surfaces, view.axes) for view in VIEWS]
    width_px = WIDTH_PX // COLUMNS
    sizes_mm = np.array([(high - low)[:2] for low, high in bounds])
    pixels_per_mm = width_px / float(sizes_mm[:, 0].max())
    rows = []
    for start in range(0, len(VIEWS), COLUMNS):
        these = slice(start, start + COLUMNS)
        height_px = int(np.ceil(sizes_mm[these, 1].max() * pixels_per_mm))
        tiles = []
        for view, (low, high) in zip(VIEWS[these], bounds[these], strict=True):
            shape = (height_px, width_px)
            left, top = (low + high)[:2] / 2 + np.array([-width_px, height_px]) / 2 / pixels_per_mm
            frame = Frame(view.axes, left, top, shape, pixels_per_mm, DEPTH_STEP_MM)
            tiles.append(rendered(surfaces, frame))
        rows.append(np.concatenate(tiles, axis=1))
    image = add_footer(_fewer_shades(np.concatenate(rows)), legend)
    top = 0
    for start, row in zip(range(0, len(VIEWS), COLUMNS), rows, strict=True):
        for place, view in enumerate(VIEWS[start : start + COLUMNS]):
            box = (place * width_px, top, (place + 1) * width_px, top + row.shape[0])
            draw_view(image, box, view.name, view.sides)
        top += row.shape[0]
    draw_scale(image, BAR_MM * pixels_per_mm, f"{BAR_MM:.0f} mm")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _fewer_shades(canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture with :data:`SHADES` of each colour channel, which takes less room."""
    step = 255 / (SHADES - 1)
    table = np.rint(np.rint(np.arange(256) / step) * step).astype(np.uint8)
    return table[canvas]
