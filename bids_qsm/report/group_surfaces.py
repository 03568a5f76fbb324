"""Clusters of a statistic in three dimensions within the nuclei, seen from several sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.geometry import Bool
from bids_qsm.report.group_style import WIDTH_IN, as_chart
from bids_qsm.report.slices import reoriented
from bids_qsm.report.surfaces import (
    Colour,
    Frame,
    Look,
    Surface,
    View,
    bounds_mm,
    rendered,
    surface_of,
    upright_voxel_mm,
)

PALE = "#ebebeb"
PIXELS_PER_MM = 5.0
NUCLEUS = Look(blur_voxels=0.8, level=0.45, clear=0.26, rim=0.9)
CLUSTER = Look(blur_voxels=0.5, level=0.3, nearer_mm=0.8)
"""The level is so low that two voxels are still seen; those at the surface of a nucleus are drawn
before it."""
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


VIEWS = (
    View("from above", 0.0, 90.0),
    View("from behind", 0.0, 0.0),
    View("from the left", -90.0, 0.0),
    View("oblique", 40.0, 28.0),
)


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
    upright, voxel_mm = reoriented(labels, affine), upright_voxel_mm(affine)
    colours = _nucleus_colours(upright, names)
    if not colours:
        raise ValueError("none of the named labels has a voxel to draw.")
    boxes = dict(enumerate(ndimage.find_objects(upright), start=1))
    nuclei = [
        surface_of(upright[box] == index, box, voxel_mm, colours[name], NUCLEUS)
        for index, name in names.items()
        if (box := boxes.get(index)) is not None
    ]
    found = significant.astype(bool)
    parts = [found] if statistic is None else [found & (statistic > 0), found & (statistic < 0)]
    clusters, legend = [], []
    for part, colour, text in zip(parts, (RAISED, LOWERED), meaning, strict=False):
        apart, count = ndimage.label(reoriented(part, affine), np.ones((3, 3, 3)))
        for box_of, number in zip(ndimage.find_objects(apart), range(1, count + 1), strict=True):
            clusters.append(surface_of(apart[box_of] == number, box_of, voxel_mm, colour, CLUSTER))
        if count:
            legend.append((text, colour))
    return _arranged([*nuclei, *clusters], views, [*legend, *colours.items()], note, bool(clusters))


def _nucleus_colours(labels: NDArray, names: Mapping[int, str]) -> dict[str, Colour]:
    present = set(np.unique(labels).tolist())
    shown = list(dict.fromkeys(name for index, name in names.items() if index in present))
    return {name: NUCLEUS_COLOURS[i % len(NUCLEUS_COLOURS)] for i, name in enumerate(shown)}


def _arranged(
    surfaces: Sequence[Surface],
    views: Sequence[View],
    legend: Sequence[tuple[str, Colour]],
    note: str,
    has_clusters: bool,
) -> Figure:
    """Return the views in a grid, all of one scale, with a legend below them."""
    bounds = [bounds_mm(surfaces, view.axes) for view in views]
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
        picture = rendered(surfaces, Frame(view.axes, left, top, shape, PIXELS_PER_MM))
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
    places = {
        "right": (0.985, 0.5, "right", "center"),
        "left": (0.015, 0.5, "left", "center"),
        "top": (0.5, 0.985, "center", "top"),
        "bottom": (0.5, 0.015, "center", "bottom"),
    }
    for edge, letter in view.sides.items():
        x, y, across, upward = places[edge]
        place = {"ha": across, "va": upward, "fontsize": 10, "fontweight": "bold"}
        ax.text(x, y, letter, **place, **style)
