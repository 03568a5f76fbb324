"""Surfaces of regions in three dimensions, seen from any side: arrays in, pixels out.

Each volume is met by parallel rays; where a ray first enters it, its surface is shaded by the
direction that it faces.  Some surfaces let through what is behind them, less at their rims.
There is no mesh, so there are no seams, and no order of triangles that depends on the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.images import voxel_sizes_mm
from bids_qsm.numerics.geometry import Bool
from bids_qsm.numerics.ray_casting import first_hits

MARGIN_MM = 2.0
MARGIN_VOXELS = 3
NORMAL_BLUR_VOXELS = 0.9
BLUR_REACH = 4.0
"""Standard deviations after which a Gaussian is cut off."""
EDGES = (("right", "left"), ("top", "bottom"))

Colour = tuple[int, int, int]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """Where the scene is seen from.

    Attributes
    ----------
    name : str
    azimuth_deg : float
        0 from behind, 90 from the subject's right, 180 from the front.
    elevation_deg : float
        90 from above.
    """

    name: str
    azimuth_deg: float
    elevation_deg: float

    @property
    def axes(self) -> NDArray[np.float64]:
        """Right, up and forward of the picture as rows of (right, anterior, superior)."""
        azimuth, elevation = np.deg2rad([self.azimuth_deg, self.elevation_deg])
        level = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
        top = np.array([0.0, 0.0, 1.0])
        towards = np.cos(elevation) * level + np.sin(elevation) * top
        up = -np.sin(elevation) * level + np.cos(elevation) * top
        return np.stack([np.cross(-towards, up), up, -towards])

    @property
    def sides(self) -> dict[str, str]:
        """What lies at the picture's right, left, top and bottom (L, R, A, P, S, I), if one does.

        A tilted view has no name for an edge that is none of these.
        """
        found = {}
        for direction, edges in zip(self.axes[:2], EDGES, strict=True):
            axis = int(np.abs(direction).argmax())
            if abs(direction[axis]) > 0.7:
                is_up = int(direction[axis] > 0)
                letters = ("LR", "PA", "IS")[axis]
                found |= {edges[0]: letters[is_up], edges[1]: letters[1 - is_up]}
        return found


@dataclass(frozen=True)
class Look:
    """How a region is drawn.

    Attributes
    ----------
    blur_voxels, level : float
        The surface is where the region, blurred so much, has this value.  Blur makes what is round
        a little smaller.
    clear, rim : float
        Opacity where the surface faces the eye, and at its rim.
    nearer_mm : float
        How much before its place it is drawn: what lies at another surface is then before it.
    pixels : int
        Side of the squares of the picture that are computed at once; large for what is smooth.
    """

    blur_voxels: float
    level: float
    clear: float = 1.0
    rim: float = 1.0
    nearer_mm: float = 0.0
    pixels: int = 1

    @property
    def reach_voxels(self) -> float:
        """How far what is zero lies from the surface, at least."""
        return int(BLUR_REACH * self.blur_voxels + 0.5) - 1.0

    @property
    def is_opaque(self) -> bool:
        """Whether nothing is seen through it."""
        return min(self.clear, self.rim) >= 1


@dataclass(frozen=True)
class Surface:
    """A region as a smooth volume in its box, with how it is drawn.

    ``points_mm``, shape (3, n), are its voxels on the border; ``corner_mm`` is the first voxel of
    the box.
    """

    field: NDArray[np.float32]
    points_mm: Vector
    corner_mm: Vector
    voxel_mm: Vector
    colour: Colour
    look: Look


@dataclass(frozen=True)
class Frame:
    """The picture's plane: its axes, the place of its upper left corner, its size and its scale."""

    axes: Vector
    left_mm: float
    top_mm: float
    shape: tuple[int, int]
    pixels_per_mm: float = 5.0
    depth_step_mm: float = 0.7


@dataclass(frozen=True)
class _Layer:
    """What is seen of one surface: depth (infinite where it is not met), colour and opacity.

    It holds a part of the frame, from the row ``top`` and the column ``left``.
    """

    top: int
    left: int
    depth_mm: NDArray[np.float32]
    colour: NDArray[np.float32]
    opacity: NDArray[np.float32]

    @property
    def part(self) -> tuple[slice, slice]:
        height, width = self.depth_mm.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def upright_voxel_mm(affine: NDArray) -> Vector:
    """Return the voxel's size along the axes nearest to right, anterior, superior."""
    order = np.abs(affine[:3, :3]).argmax(axis=0)
    sizes = np.empty(3)
    sizes[order] = voxel_sizes_mm(affine)
    return sizes


def surface_of(
    region: Bool, box: tuple[slice, ...], voxel_mm: Vector, colour: Colour, look: Look
) -> Surface:
    """Return a region as a smooth volume.

    Parameters
    ----------
    region : ndarray of bool, shape (x, y, z)
        Cut to its box; the axes run to the right, anterior, superior.
    box : tuple of slice
        Where it lies.
    voxel_mm : ndarray, shape (3,)
    colour : tuple of int
    look : Look
    """
    padded = np.pad(region, MARGIN_VOXELS)
    corner_mm = (np.array([side.start for side in box]) - MARGIN_VOXELS) * voxel_mm
    border = np.argwhere(padded & ~ndimage.binary_erosion(padded))
    field = ndimage.gaussian_filter(
        padded.astype(np.float32), look.blur_voxels, truncate=BLUR_REACH
    )
    points_mm = (border * voxel_mm + corner_mm).T
    return Surface(field, points_mm, corner_mm, voxel_mm, colour, look)


def bounds_mm(surfaces: Sequence[Surface], axes: Vector) -> tuple[Vector, Vector]:
    """Return the least and greatest coordinate along each axis of a picture, with a margin."""
    along = [axes @ surface.points_mm for surface in surfaces]
    low = np.min([part.min(axis=1) for part in along], axis=0)
    high = np.max([part.max(axis=1) for part in along], axis=0)
    return low - MARGIN_MM, high + MARGIN_MM


def rendered(surfaces: Sequence[Surface], frame: Frame) -> NDArray[np.uint8]:
    """Return a picture of surfaces, shape (height, width, 3), black where there is none."""
    depth = np.full(frame.shape, np.inf, np.float32)
    picture = np.zeros((*frame.shape, 3), np.float32)
    layers = []
    for surface in surfaces:
        seen = _seen(surface, frame)
        if surface.look.is_opaque:
            is_nearer = seen.depth_mm < depth[seen.part]
            depth[seen.part][is_nearer] = seen.depth_mm[is_nearer]
            picture[seen.part][is_nearer] = seen.colour[is_nearer]
        else:
            layers.append(seen)
    if layers:
        _lay_over(picture, layers, depth)
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint8)


def _lay_over(
    picture: NDArray[np.float32], layers: Sequence[_Layer], depth: NDArray[np.float32]
) -> None:
    """Lay what lets light through over a picture, the farthest first."""
    depths = np.full((len(layers), *depth.shape), np.inf, np.float32)
    colours = np.zeros((*depths.shape, 3), np.float32)
    opacities = np.zeros_like(depths)
    for place, layer in enumerate(layers):
        depths[place][layer.part] = layer.depth_mm
        colours[place][layer.part] = layer.colour
        opacities[place][layer.part] = layer.opacity
    opacities[depths >= depth] = 0.0  # behind what is opaque
    rows, columns = np.indices(depth.shape)
    for farthest in np.argsort(-depths, axis=0, kind="stable"):
        where = (farthest, rows, columns)
        picture += opacities[where][..., None] * (colours[where] - picture)


def _seen(surface: Surface, frame: Frame) -> _Layer:
    """Return what is seen of one surface."""
    pixels = surface.look.pixels
    scale, depth_step_mm = frame.pixels_per_mm / pixels, frame.depth_step_mm * pixels
    low, high = bounds_mm([surface], frame.axes)
    left = max(0, int((low[0] - frame.left_mm) * scale))
    top = max(0, int((frame.top_mm - high[1]) * scale))
    width = min(frame.shape[1] // pixels - left, int((high[0] - low[0]) * scale) + 2)
    height = min(frame.shape[0] // pixels - top, int((high[1] - low[1]) * scale) + 2)
    # squares of several pixels are met in their middles
    middle = (pixels - 1) / 2 / frame.pixels_per_mm
    start_mm = np.array(
        [frame.left_mm + left / scale + middle, frame.top_mm - top / scale - middle, low[2]]
    )
    steps = int((high[2] - low[2]) / depth_step_mm) + 2
    right, up, forward = frame.axes
    moves = np.stack([-up / scale, right / scale, forward * depth_step_mm], axis=1)
    to_voxels = moves / surface.voxel_mm[:, None]
    origin = (frame.axes.T @ start_mm - surface.corner_mm) / surface.voxel_mm
    reach = int(surface.look.reach_voxels * surface.voxel_mm.min() / depth_step_mm)
    met = first_hits(
        surface.field,
        surface.look.level,
        origin,
        to_voxels,
        (height, width, steps),
        max(1, reach),
    )
    hit = np.isfinite(met)
    step = met[hit]
    place = origin[:, None] + to_voxels @ np.stack([*np.nonzero(hit), step])
    facing = frame.axes @ _normals(surface, place)
    layer = _Layer(
        top * pixels,
        left * pixels,
        np.full(hit.shape, np.inf, np.float32),
        np.zeros((*hit.shape, 3), np.float32),
        np.zeros(hit.shape, np.float32),
    )
    layer.depth_mm[hit] = low[2] + step * depth_step_mm - surface.look.nearer_mm
    layer.colour[hit] = np.outer(_light(facing), surface.colour) + 70 * _gloss(facing)[:, None]
    rim = (1 - np.clip(-facing[2], 0, 1)) ** 2
    layer.opacity[hit] = surface.look.clear + (surface.look.rim - surface.look.clear) * rim
    return layer if pixels == 1 else _enlarged(layer, pixels)


def _enlarged(layer: _Layer, pixels: int) -> _Layer:
    """Return a layer in pixels that was computed in squares of several."""
    depth_mm = layer.depth_mm.repeat(pixels, axis=0).repeat(pixels, axis=1)
    smooth = {"order": 1, "mode": "nearest", "grid_mode": True}
    colour = ndimage.zoom(layer.colour, (pixels, pixels, 1), **smooth)
    opacity = ndimage.zoom(layer.opacity, pixels, **smooth)
    return _Layer(layer.top, layer.left, depth_mm, colour, opacity)


def _normals(surface: Surface, place: Vector) -> Vector:
    """Return the outward normals (right, anterior, superior) at places in voxels."""
    smooth = ndimage.gaussian_filter(surface.field, NORMAL_BLUR_VOXELS)
    slopes = np.stack(
        [
            -ndimage.map_coordinates(slope, place, order=1, mode="nearest") / size
            for slope, size in zip(np.gradient(smooth), surface.voxel_mm, strict=True)
        ]
    )
    return slopes / np.maximum(np.linalg.norm(slopes, axis=0), 1e-6)


def _light(facing: Vector) -> Vector:
    """Return the brightness of what faces a direction of the picture (right, up, forward)."""
    lamp = np.array([-0.45, 0.55, -0.7])
    lamp = lamp / np.linalg.norm(lamp)
    return 0.45 + 0.55 * np.clip(lamp @ facing, 0, 1)


def _gloss(facing: Vector) -> Vector:
    halfway = np.array([-0.24, 0.29, -0.93])
    halfway = halfway / np.linalg.norm(halfway)
    return np.clip(halfway @ facing, 0, 1) ** 40
