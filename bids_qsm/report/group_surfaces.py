"""Significant clusters within translucent nuclei, seen from several sides.

Each volume is met by parallel rays; where a ray first enters it, its surface is shaded by the
direction that it faces.  Surfaces of nuclei let through what is behind them, less at their rims.
There is no mesh, so there are no seams, and no order of triangles that depends on the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.images import voxel_sizes_mm
from bids_qsm.numerics.geometry import Bool
from bids_qsm.report.group_style import WIDTH_IN, as_chart
from bids_qsm.report.slices import reoriented

PALE = "#ebebeb"
PIXELS_PER_MM = 5.0
DEPTH_STEP_MM = 0.7
MARGIN_MM = 2.0
NUCLEUS_LEVEL, NUCLEUS_BLUR_VOXELS = 0.45, 0.8  # blur makes what is round a little smaller
CLUSTER_LEVEL, CLUSTER_BLUR_VOXELS = 0.3, 0.5
"""So low that two voxels are still seen."""
CLEAR, RIM = 0.26, 0.9
"""Opacity of a nucleus where it faces the eye, and at its rim."""
NEARER_MM = 0.8
"""Clusters at the surface of a nucleus are drawn before it."""
COLUMNS = 2
LEGEND_ROW_IN = 0.19
RAISED, LOWERED = (255, 96, 32), (64, 132, 255)
NUCLEUS_COLOURS = (
    (150, 205, 236),
    (160, 225, 180),
    (206, 180, 240),
    (250, 226, 140),
    (130, 218, 214),
    (240, 180, 225),
    (205, 225, 140),
    (222, 196, 164),
)

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


VIEWS = (
    View("from above", 0.0, 90.0),
    View("from behind", 0.0, 0.0),
    View("from the left", -90.0, 0.0),
    View("oblique", 40.0, 28.0),
)


@dataclass(frozen=True)
class _Surface:
    """A region as a smooth volume in its box, with how it is drawn.

    ``points_mm``, shape (3, n), are its voxels on the border; ``corner_mm`` is the first voxel of
    the box.
    """

    field: NDArray[np.float32]
    points_mm: Vector
    corner_mm: Vector
    voxel_mm: Vector
    level: float
    colour: tuple[int, int, int]
    is_opaque: bool


@dataclass(frozen=True)
class _Frame:
    """The picture's plane: its axes, the place of its upper left corner, and its size."""

    axes: Vector
    left_mm: float
    top_mm: float
    shape: tuple[int, int]


@dataclass(frozen=True)
class _Layer:
    """What is seen of one surface: depth (infinite where it is not met), colour and opacity."""

    depth_mm: NDArray[np.float32]
    colour: NDArray[np.float32]
    opacity: NDArray[np.float32]


@as_chart
def cluster_views(
    significant: Bool,
    labels: NDArray,
    affine: NDArray,
    *,
    names: Mapping[int, str],
    statistic: NDArray | None = None,
    views: Sequence[View] = VIEWS,
    meaning: tuple[str, str] = ("significant, above zero", "significant, below zero"),
    note: str = "",
) -> Figure:
    """Return significant clusters in three dimensions within the nuclei.

    Parameters
    ----------
    significant : ndarray of bool, shape (x, y, z)
    labels : ndarray of int, shape (x, y, z)
    affine : ndarray, shape (4, 4)
        Of all volumes, in any orientation; a tilt of the volume is not drawn.
    names : mapping of int to str
        The nuclei to draw; those of the same name (left and right) share a colour.
    statistic : ndarray, shape (x, y, z), optional
        Its sign tells clusters apart.
    views : sequence of View
    meaning : tuple of str
        What red and blue are.
    note : str
        What significant means.

    Returns
    -------
    Chart

    Raises
    ------
    ValueError
        If the volumes differ in shape, there is no view, or none of the labels has a voxel.
    """
    for other in (labels, statistic):
        if other is not None and other.shape != significant.shape:
            raise ValueError(
                f"the volumes of clusters must have one shape, got {significant.shape} and "
                f"{other.shape}."
            )
    if not views:
        raise ValueError("clusters are seen from one side or more, none is given.")
    upright, voxel_mm = reoriented(labels, affine), _upright_voxel_mm(affine)
    colours = _nucleus_colours(upright, names)
    if not colours:
        raise ValueError("none of the named labels has a voxel to draw.")
    boxes = dict(enumerate(ndimage.find_objects(upright), start=1))
    nuclei = [
        _surface(upright == index, boxes[index], voxel_mm, colours[name], is_opaque=False)
        for index, name in names.items()
        if boxes.get(index) is not None
    ]
    found = significant.astype(bool)
    parts = [found] if statistic is None else [found & (statistic > 0), found & (statistic < 0)]
    clusters, legend = [], []
    for part, colour, text in zip(parts, (RAISED, LOWERED), meaning, strict=False):
        apart, count = ndimage.label(reoriented(part, affine), np.ones((3, 3, 3)))
        for box_of, number in zip(ndimage.find_objects(apart), range(1, count + 1), strict=True):
            clusters.append(_surface(apart == number, box_of, voxel_mm, colour, is_opaque=True))
        if count:
            legend.append((text, colour))
    return _arranged([*nuclei, *clusters], views, [*legend, *colours.items()], note, bool(clusters))


def rendered(surfaces: Sequence[_Surface], frame: _Frame) -> NDArray[np.uint8]:
    """Return a picture of surfaces, shape (height, width, 3), black where there is none."""
    depth = np.full(frame.shape, np.inf, np.float32)
    picture = np.zeros((*frame.shape, 3), np.float32)
    layers = []
    for surface in surfaces:
        seen = _seen(surface, frame)
        if surface.is_opaque:
            is_nearer = seen.depth_mm < depth
            depth[is_nearer], picture[is_nearer] = seen.depth_mm[is_nearer], seen.colour[is_nearer]
        else:
            layers.append(seen)
    if layers:
        depths = np.stack([layer.depth_mm for layer in layers])
        colours = np.stack([layer.colour for layer in layers])
        opacities = np.stack([layer.opacity for layer in layers])
        opacities[depths >= depth] = 0.0  # behind a cluster
        rows, columns = np.indices(frame.shape)
        for farthest in np.argsort(-depths, axis=0, kind="stable"):
            where = (farthest, rows, columns)
            picture += opacities[where][..., None] * (colours[where] - picture)
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint8)


def _upright_voxel_mm(affine: NDArray) -> Vector:
    order = np.abs(affine[:3, :3]).argmax(axis=0)
    sizes = np.empty(3)
    sizes[order] = voxel_sizes_mm(affine)
    return sizes


def _nucleus_colours(labels: NDArray, names: Mapping[int, str]) -> dict[str, tuple[int, int, int]]:
    present = set(np.unique(labels).tolist())
    shown = list(dict.fromkeys(name for index, name in names.items() if index in present))
    return {name: NUCLEUS_COLOURS[i % len(NUCLEUS_COLOURS)] for i, name in enumerate(shown)}


def _surface(
    region: Bool,
    box: tuple[slice, slice, slice],
    voxel_mm: Vector,
    colour: tuple[int, int, int],
    *,
    is_opaque: bool,
) -> _Surface:
    """Return a region, all of which lies in a box, as a smooth volume."""
    margin = 3
    part = np.pad(region[box], margin)
    corner_mm = (np.array([side.start for side in box]) - margin) * voxel_mm
    border = np.argwhere(part & ~ndimage.binary_erosion(part))
    blur = CLUSTER_BLUR_VOXELS if is_opaque else NUCLEUS_BLUR_VOXELS
    return _Surface(
        ndimage.gaussian_filter(part.astype(np.float32), blur),
        (border * voxel_mm + corner_mm).T,
        corner_mm,
        voxel_mm,
        CLUSTER_LEVEL if is_opaque else NUCLEUS_LEVEL,
        colour,
        is_opaque,
    )


def _bounds_mm(surfaces: Sequence[_Surface], axes: Vector) -> tuple[Vector, Vector]:
    """Return the least and greatest coordinate along each axis of a picture, with a margin."""
    along = np.concatenate([axes @ surface.points_mm for surface in surfaces], axis=1)
    return along.min(axis=1) - MARGIN_MM, along.max(axis=1) + MARGIN_MM


def _seen(surface: _Surface, frame: _Frame) -> _Layer:
    """Return what is seen of one surface."""
    layer = _Layer(
        np.full(frame.shape, np.inf, np.float32),
        np.zeros((*frame.shape, 3), np.float32),
        np.zeros(frame.shape, np.float32),
    )
    low, high = _bounds_mm([surface], frame.axes)
    left = max(0, int((low[0] - frame.left_mm) * PIXELS_PER_MM))
    top = max(0, int((frame.top_mm - high[1]) * PIXELS_PER_MM))
    width = min(frame.shape[1] - left, int((high[0] - low[0]) * PIXELS_PER_MM) + 2)
    height = min(frame.shape[0] - top, int((high[1] - low[1]) * PIXELS_PER_MM) + 2)
    start_mm = np.array(
        [frame.left_mm + left / PIXELS_PER_MM, frame.top_mm - top / PIXELS_PER_MM, low[2]]
    )
    steps = int((high[2] - low[2]) / DEPTH_STEP_MM) + 2
    right, up, forward = frame.axes
    moves = np.stack([-up / PIXELS_PER_MM, right / PIXELS_PER_MM, forward * DEPTH_STEP_MM], axis=1)
    to_voxels = moves / surface.voxel_mm[:, None]
    origin = (frame.axes.T @ start_mm - surface.corner_mm) / surface.voxel_mm
    along = ndimage.affine_transform(
        surface.field, to_voxels, origin, (height, width, steps), order=1, mode="constant"
    )
    inside = along > surface.level
    hit = inside.any(axis=2)
    rows, columns = np.nonzero(hit)
    entered = inside[rows, columns].argmax(axis=1)
    after, before = along[rows, columns, entered], along[rows, columns, np.maximum(entered - 1, 0)]
    step = entered - (after - surface.level) / np.maximum(after - before, 1e-6)
    place = origin[:, None] + to_voxels @ np.stack([rows, columns, step])
    facing = frame.axes @ _normals(surface, place)
    where = (rows + top, columns + left)
    layer.depth_mm[where] = (
        low[2] + step * DEPTH_STEP_MM - (NEARER_MM if surface.is_opaque else 0.0)
    )
    layer.colour[where] = np.outer(_light(facing), surface.colour) + 70 * _gloss(facing)[:, None]
    rim = (1 - np.clip(-facing[2], 0, 1)) ** 2
    layer.opacity[where] = 1.0 if surface.is_opaque else CLEAR + (RIM - CLEAR) * rim
    return layer


def _normals(surface: _Surface, place: Vector) -> Vector:
    """Return the outward normals (right, anterior, superior) at places in voxels."""
    smooth = ndimage.gaussian_filter(surface.field, 0.9)
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


def _arranged(
    surfaces: Sequence[_Surface],
    views: Sequence[View],
    legend: Sequence[tuple[str, tuple[int, int, int]]],
    note: str,
    has_clusters: bool,
) -> Figure:
    """Return the views in a grid, all of one scale, with a legend below them."""
    bounds = [_bounds_mm(surfaces, view.axes) for view in views]
    size_mm = 1.1 * np.max([high[:2] - low[:2] for low, high in bounds], axis=0)
    columns = min(COLUMNS, len(views))
    rows = -(-len(views) // columns)
    width_in = WIDTH_IN / columns
    height_in = width_in * float(size_mm[1] / size_mm[0])
    legend_rows = -(-len(legend) // 4)
    below_in = LEGEND_ROW_IN * legend_rows + 0.42
    total_in = rows * height_in + below_in
    figure = Figure(figsize=(WIDTH_IN, total_in), facecolor="black")
    shape = (round(size_mm[1] * PIXELS_PER_MM), round(size_mm[0] * PIXELS_PER_MM))
    for place, (view, (low, high)) in enumerate(zip(views, bounds, strict=True)):
        middle = (low + high) / 2
        left, top = float(middle[0] - size_mm[0] / 2), float(middle[1] + size_mm[1] / 2)
        row, column = divmod(place, columns)
        bottom = (total_in - (row + 1) * height_in) / total_in
        ax = figure.add_axes((column / columns, bottom, 1 / columns, height_in / total_in))
        picture = rendered(surfaces, _Frame(view.axes, left, top, shape))
        ax.imshow(picture, interpolation="bicubic", aspect="auto")
        ax.set_axis_off()
        _name_sides(ax, view)
    handles = [Patch(facecolor=np.array(colour) / 255, label=text) for text, colour in legend]
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.005, 0.24 / total_in),
        ncols=4,
        labelcolor=PALE,
        fontsize=7.5,
        handlelength=1.0,
        handleheight=0.8,
        columnspacing=1.4,
    )
    said = note if has_clusters else f"no voxel is significant{f' ({note})' if note else ''}"
    figure.text(0.015, 0.13 / total_in, said, color=PALE, va="center", fontsize=8)
    return figure


def _name_sides(ax: Axes, view: View) -> None:
    """Write which way the picture's edges are, where an edge is nearly one, and the view's name."""
    rim = [withStroke(linewidth=2, foreground="black")]
    style = {"transform": ax.transAxes, "color": PALE, "path_effects": rim}
    ax.text(0.015, 0.985, view.name, va="top", fontsize=8, **style)
    edges = (
        (view.axes[0], 1, (0.985, 0.5, "right", "center")),
        (view.axes[0], -1, (0.015, 0.5, "left", "center")),
        (view.axes[1], 1, (0.5, 0.985, "center", "top")),
        (view.axes[1], -1, (0.5, 0.015, "center", "bottom")),
    )
    for direction, sign, (x, y, across, upward) in edges:
        axis = int(np.abs(direction).argmax())
        if abs(direction[axis]) > 0.7:
            letter = ("LR", "PA", "IS")[axis][int(sign * direction[axis] > 0)]
            place = {"ha": across, "va": upward, "fontsize": 10, "fontweight": "bold"}
            ax.text(x, y, letter, **place, **style)
