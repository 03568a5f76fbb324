"""Maps of a statistic over slices of the template: arrays in, PNG and SVG out.

Slices are those with most significant voxels.  What is significant is drawn in full colours within
a line; the rest of what was tested is the paler the weaker it is, so that nothing is hidden (Taylor
et al. 2023, doi:10.1016/j.neuroimage.2023.120138).  The subject's left is on the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.images import voxel_sizes_mm
from bids_qsm.numerics.geometry import Bool
from bids_qsm.report.annotations import CONVENTION
from bids_qsm.report.group_style import WIDTH_IN, as_chart, plain_ticks
from bids_qsm.report.slices import (
    AXIAL,
    CORONAL,
    Cell,
    cut,
    enlarged,
    enlarged_region,
    reoriented,
    reoriented_affine,
)

PALE = "#ebebeb"
MUTED_ON_BLACK = "#a8a8a8"
PIXELS_PER_MM = 3.0
LEAST_GAP_MM = 5.0
"""Between two slices, so that they show different parts."""
STRONGEST_PALE = 0.6
"""Opacity of what is at the limit of the colours and yet not significant."""
BRIGHTEST = 0.8
"""Of the background, so that the colours stand out."""
FOOTER_IN = 0.72
GAP_IN = 0.04

COLD_HOT = LinearSegmentedColormap.from_list(
    "cold_hot",
    [
        (0.0, "#b8f2ff"),
        (0.2, "#35a7ff"),
        (0.45, "#1434a4"),
        (0.5, "#1c1c1c"),
        (0.55, "#a8200d"),
        (0.8, "#ff7a1a"),
        (1.0, "#fff0a0"),
    ],
)
"""Blue below zero, red to yellow above, dark in the middle (to be seen on grey)."""
HOT = LinearSegmentedColormap.from_list("hot_half", COLD_HOT(np.linspace(0.5, 1, 128)))


@dataclass(frozen=True)
class StatisticScale:
    """How a statistic is shown.

    Attributes
    ----------
    label : str
        At the colour bar, such as ``t (patients − controls)``.
    limit : float
        The end of the colours; the other one is its negative.
    is_signed : bool
        Whether it can be negative (t); else the colours start at zero (F).
    """

    label: str = "t"
    limit: float = 6.0
    is_signed: bool = True

    @property
    def colours(self) -> LinearSegmentedColormap:
        """The colour map."""
        return COLD_HOT if self.is_signed else HOT

    @property
    def norm(self) -> Normalize:
        """From the statistic to the colour map."""
        return Normalize(-self.limit if self.is_signed else 0.0, self.limit, clip=True)


@dataclass(frozen=True)
class _Volumes:
    """All volumes in the order right, anterior, superior, with what is common to the slices."""

    background: NDArray
    statistic: NDArray
    tested: Bool
    significant: Bool
    labels: NDArray | None
    affine: NDArray
    box: tuple[slice, slice, slice]
    grey: tuple[float, float]


@as_chart
def statistic_map(
    background: NDArray,
    statistic: NDArray,
    significant: Bool,
    affine: NDArray,
    *,
    mask: Bool | None = None,
    labels: NDArray | None = None,
    scale: StatisticScale = StatisticScale(),
    note: str = "p < 0.05",
    n_axial: int = 3,
    n_coronal: int = 3,
    margin_mm: float = 14.0,
) -> Figure:
    """Return axial and coronal slices with a statistic in colours.

    Parameters
    ----------
    background : ndarray, shape (x, y, z)
        The template's T1w image.
    statistic : ndarray, shape (x, y, z)
        Such as t.
    significant : ndarray of bool, shape (x, y, z)
        Voxels of significant clusters (or peaks).
    affine : ndarray, shape (4, 4)
        Of all volumes, in any orientation.
    mask : ndarray of bool, optional
        What was tested; where the statistic is finite and not zero if not given.
    labels : ndarray of int, optional
        Structures whose borders are drawn.
    scale : StatisticScale
    note : str
        What significant means.
    n_axial, n_coronal : int
        Numbers of slices.
    margin_mm : float
        Shown around what was tested.

    Returns
    -------
    Chart

    Raises
    ------
    ValueError
        If the volumes differ in shape, or nothing was tested.
    """
    tested = np.isfinite(statistic) & (statistic != 0) if mask is None else mask.astype(bool)
    for other in (statistic, significant, tested, labels):
        if other is not None and other.shape != background.shape:
            raise ValueError(
                f"the volumes of a map must have one shape, got {background.shape} and "
                f"{other.shape}."
            )
    if not tested.any():
        raise ValueError("the map of the statistic has no tested voxel.")
    significant = significant.astype(bool) & tested
    volumes = _volumes(background, statistic, tested, significant, labels, affine, margin_mm)
    rows = [
        (axis, chosen_slices(volumes.significant, volumes.tested, axis, count, volumes.affine))
        for axis, count in ((AXIAL, n_axial), (CORONAL, n_coronal))
        if count > 0
    ]
    figure, axes = _grid(rows, volumes)
    for (axis, indices), row in zip(rows, axes, strict=True):
        for place, (index, ax) in enumerate(zip(indices, row, strict=True)):
            _draw_slice(ax, _cell(axis, index, volumes), volumes, scale, is_first=place == 0)
    found = f"outlined: {note}" if significant.any() else f"no voxel is significant ({note})"
    _footer(figure, scale, found)
    return figure


def chosen_slices(
    significant: Bool, tested: Bool, axis: int, count: int, affine: NDArray
) -> list[int]:
    """Return the slices with most significant voxels, not too near to each other, in order.

    Where there are not as many, those with most tested voxels follow.

    Parameters
    ----------
    significant, tested : ndarray of bool, shape (x, y, z)
    axis : int
    count : int
    affine : ndarray, shape (4, 4)
        Of these volumes: for the distance of slices.
    """
    others = tuple({0, 1, 2} - {axis})
    gap = LEAST_GAP_MM / voxel_sizes_mm(affine)[axis]
    chosen: list[int] = []
    for area in (significant.sum(axis=others), tested.sum(axis=others)):
        for index in np.argsort(-area, kind="stable"):
            if len(chosen) == count or not area[index]:
                break
            if all(abs(int(index) - other) >= gap for other in chosen):
                chosen.append(int(index))
    return sorted(chosen)


def _volumes(
    background: NDArray,
    statistic: NDArray,
    tested: Bool,
    significant: Bool,
    labels: NDArray | None,
    affine: NDArray,
    margin_mm: float,
) -> _Volumes:
    tested_there = reoriented(tested, affine)
    upright = reoriented_affine(affine, background.shape)
    voxel_mm = voxel_sizes_mm(upright)
    box = []
    for axis, size_mm in enumerate(voxel_mm):
        where = np.flatnonzero(tested_there.any(axis=tuple({0, 1, 2} - {axis})))
        margin = round(margin_mm / size_mm)
        first, last = int(where[0]) - margin, int(where[-1]) + margin + 1
        box.append(slice(max(0, first), min(tested_there.shape[axis], last)))
    picture = np.nan_to_num(reoriented(background, affine)).astype(np.float32)
    low, high = np.percentile(picture[tuple(box)], (1, 99.5))
    return _Volumes(
        picture,
        np.nan_to_num(reoriented(statistic, affine)).astype(np.float32),
        tested_there,
        reoriented(significant, affine),
        None if labels is None else reoriented(labels, affine),
        upright,
        (box[0], box[1], box[2]),
        (float(low), float(max(high, low + 1e-6))),
    )


def _cell(axis: int, index: int, volumes: _Volumes) -> Cell:
    """Return a slice with its size in pixels."""
    width_mm, height_mm = _size_mm(axis, volumes)
    centre = [(part.start + part.stop - 1) / 2 for part in volumes.box]
    centre[axis] = index
    position_mm = float((volumes.affine @ [*centre, 1.0])[axis])
    width, height = round(width_mm * PIXELS_PER_MM), round(height_mm * PIXELS_PER_MM)
    return Cell(axis, index, position_mm, 0, 0, width, height)


def _size_mm(axis: int, volumes: _Volumes) -> tuple[float, float]:
    sizes = [
        (part.stop - part.start) * size_mm
        for part, size_mm in zip(volumes.box, voxel_sizes_mm(volumes.affine), strict=True)
    ]
    return sizes[0], sizes[1 if axis == AXIAL else 2]


def _grid(
    rows: Sequence[tuple[int, list[int]]], volumes: _Volumes
) -> tuple[Figure, list[list[Axes]]]:
    """Return a black figure with axes of the shape of the slices."""
    columns = max(len(indices) for _, indices in rows)
    width_in = (WIDTH_IN - (columns - 1) * GAP_IN) / columns
    heights_in = []
    for axis, _ in rows:
        width_mm, height_mm = _size_mm(axis, volumes)
        heights_in.append(width_in * height_mm / width_mm)
    height = sum(heights_in) + GAP_IN * len(rows) + FOOTER_IN
    figure = Figure(figsize=(WIDTH_IN, height), facecolor="black")
    axes, top = [], height
    for (_, indices), height_in in zip(rows, heights_in, strict=True):
        places = [place * (width_in + GAP_IN) / WIDTH_IN for place in range(len(indices))]
        bottom, size = (top - height_in) / height, (width_in / WIDTH_IN, height_in / height)
        axes.append([figure.add_axes((left, bottom, *size)) for left in places])
        top -= height_in + GAP_IN
    return figure, axes


def _draw_slice(
    ax: Axes, cell: Cell, volumes: _Volumes, scale: StatisticScale, *, is_first: bool
) -> None:
    ax.set_axis_off()
    ax.imshow(_blended(cell, volumes, scale), interpolation="none", aspect="auto")
    if volumes.labels is not None:
        shown = cut(volumes.labels, volumes.box, cell)
        for index in np.unique(shown[shown > 0]):
            _outline(ax, shown == index, cell, "#d9d9d9", 0.45)
    _outline(ax, cut(volumes.significant, volumes.box, cell), cell, "white", 1.1)
    ax.set(xlim=(-0.5, cell.width - 0.5), ylim=(cell.height - 0.5, -0.5))
    rim = [withStroke(linewidth=2, foreground="black")]
    letters = {"color": PALE, "transform": ax.transAxes, "path_effects": rim}
    position = f"{'xyz'[cell.axis]} = {cell.position_mm:.0f} mm".replace("-", "−")
    ax.text(0.02, 0.02, position, va="bottom", fontsize=7.5, **letters)
    if is_first:
        ax.text(0.02, 0.98, "L", va="top", fontsize=10, fontweight="bold", **letters)
        ax.text(0.98, 0.98, "R", va="top", ha="right", fontsize=10, fontweight="bold", **letters)


def _blended(cell: Cell, volumes: _Volumes, scale: StatisticScale) -> NDArray[np.uint8]:
    """Return a slice of the background with the statistic over it, shape (height, width, 3)."""
    low, high = volumes.grey
    grey = np.clip((enlarged(cut(volumes.background, volumes.box, cell), cell) - low), 0, None)
    colours = np.repeat(np.clip(grey / (high - low), 0, 1)[..., None] * BRIGHTEST, 3, axis=-1)
    tested = cut(volumes.tested, volumes.box, cell)
    if tested.any():
        values = cut(volumes.statistic, volumes.box, cell)
        nearest = ndimage.distance_transform_edt(~tested, return_indices=True)[1]
        values = enlarged(values[tuple(nearest)], cell)  # its border is as strong as it is
        significant = enlarged_region(cut(volumes.significant, volumes.box, cell), cell)
        opacity = STRONGEST_PALE * np.clip(np.abs(values) / scale.limit, 0, 1)
        opacity = np.where(significant, 1.0, opacity) * enlarged_region(tested, cell)
        over = scale.colours(scale.norm(values))[..., :3]
        colours += opacity[..., None] * (over - colours)
    return np.rint(colours * 255).astype(np.uint8)


def _outline(ax: Axes, region: Bool, cell: Cell, colour: str, width: float) -> None:
    if not region.any():
        return
    padded = np.pad(enlarged(region.astype(np.float32), cell), 1)
    x, y = np.arange(cell.width + 2) - 1.0, np.arange(cell.height + 2) - 1.0
    ax.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=[width])


def _footer(figure: Figure, scale: StatisticScale, found: str) -> None:
    height_in = figure.get_figheight()
    bar = figure.add_axes((0.03, 0.38 / height_in, 0.3, 0.13 / height_in))
    extend = "both" if scale.is_signed else "max"
    shades = ScalarMappable(scale.norm, scale.colours)
    drawn = figure.colorbar(shades, cax=bar, orientation="horizontal", extend=extend)
    drawn.outline.set_edgecolor(MUTED_ON_BLACK)
    bar.tick_params(colors=PALE, labelsize=7.5, length=2)
    bar.grid(False)
    bar.locator_params(axis="x", nbins=7)
    plain_ticks(bar, "x")
    middle = (0.38 + 0.065) / height_in
    figure.text(0.36, middle, scale.label, color=PALE, va="center", fontsize=8.5)
    figure.text(0.985, middle, found, color=PALE, va="center", ha="right", fontsize=8)
    low = 0.13 / height_in
    style = {"color": MUTED_ON_BLACK, "va": "center", "ha": "right", "fontsize": 7}
    figure.text(0.985, low, f"paler: tested, not significant · {CONVENTION}", **style)
