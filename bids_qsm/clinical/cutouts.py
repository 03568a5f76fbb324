"""Pictures of small findings: a piece of some maps around each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.images import voxel_sizes_mm
from bids_qsm.maps import Maps
from bids_qsm.report.group_style import INK, as_chart
from bids_qsm.report.picture import Picture
from bids_qsm.report.slices import reoriented, reoriented_affine

MOST = 24
"""Findings that are drawn."""
PER_ROW = 4
HALF_WIDTH_MM = 16.0
BORDER = "#ff4628"
CHI_PPM, RIM_PPM = (-0.3, 0.5), (-0.1, 0.15)


@dataclass(frozen=True)
class View:
    """A map that is cut out, and the values that are black and white."""

    volume: NDArray
    limits: tuple[float, float]


def draw_inclusions(
    maps: Maps, labels: NDArray[np.int16], table: pd.DataFrame
) -> Iterator[Picture]:
    """Yield the picture of microbleeds and calcifications, the surest first."""
    if not len(table):
        return
    columns = (table[name] for name in ("index", "moment_ppm_mm3", "confidence"))
    titles = {
        int(number): f"{number}: {moment:.3g} ppm mm³, {min(100 * confidence, 99):.0f} %"
        for number, moment, confidence in zip(*columns, strict=True)
    }
    views = (magnitude_view(maps), View(maps.chi[0].result.chi_ppm, CHI_PPM))
    left_out = f" The first {MOST} of {len(table)} are shown." if len(table) > MOST else ""
    chart = cutouts(views, labels, titles, maps.magnitude.affine)
    yield Picture(
        "Microbleeds and calcifications",
        "microbleeds",
        "Microbleeds and calcifications",
        "Axial slices through each: magnitude, and χ from −0.3 (black) to 0.5 ppm (white), the "
        "subject's left on the left; number as in the table, total susceptibility, confidence. "
        f"The line is the border of its voxels.{left_out}",
        (("", chart.png),),
    )


def magnitude_view(maps: Maps) -> View:
    """Return the magnitude, black without signal."""
    data = maps.magnitude.data
    return View(data, (0.0, float(np.percentile(data[maps.brain], 99))))


@as_chart
def cutouts(
    views: Sequence[View],
    labels: NDArray[np.integer],
    titles: dict[int, str],
    affine: NDArray[np.float64],
) -> Figure:
    """Return axial cut-outs of each view beside each other, for each title's label."""
    shown = reoriented(labels, affine)
    volumes = [View(reoriented(v.volume, affine), v.limits) for v in views]
    sizes = voxel_sizes_mm(reoriented_affine(affine, labels.shape))
    boxes = ndimage.find_objects(shown)
    numbers = [n for n in titles if n <= len(boxes) and boxes[n - 1] is not None][:MOST]
    rows = max(math.ceil(len(numbers) / PER_ROW), 1)
    figure = Figure(figsize=(9.6, 0.3 + 1.45 * rows), layout="constrained")
    axes = figure.subplots(rows, PER_ROW * len(views), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for place, number in enumerate(numbers):
        row, column = divmod(place, PER_ROW)
        box = boxes[number - 1]
        centre = [(s.start + s.stop - 1) // 2 for s in box]
        centre[2] = box[2].start + int((shown[box] == number).sum(axis=(0, 1)).argmax())
        for k, view in enumerate(volumes):
            ax = axes[row, column * len(views) + k]
            _cut(ax, view, shown == number, centre, sizes)
            if k == 0:
                ax.set_title(titles[number], fontsize=6.5, loc="left", color=INK)
    return figure


def _cut(
    ax: Axes,
    view: View,
    region: NDArray[np.bool_],
    centre: Sequence[int],
    sizes: tuple[float, float, float],
) -> None:
    part = [
        slice(max(c - round(HALF_WIDTH_MM / v), 0), c + round(HALF_WIDTH_MM / v) + 1)
        for c, v in zip(centre[:2], sizes[:2], strict=True)
    ]
    low, high = view.limits
    extent = tuple(
        edge * v
        for p, v, n in zip(part, sizes[:2], view.volume.shape[:2], strict=True)
        for edge in (p.start - 0.5, min(p.stop, n) - 0.5)
    )
    ax.imshow(
        view.volume[part[0], part[1], centre[2]].T,
        cmap="gray",
        vmin=low,
        vmax=high,
        origin="lower",
        extent=extent,
        aspect="equal",
    )
    inside = region[part[0], part[1], centre[2]].T
    if inside.any() and not inside.all():
        ax.contour(
            inside.astype(np.float32), levels=[0.5], colors=[BORDER], linewidths=0.7, extent=extent
        )
