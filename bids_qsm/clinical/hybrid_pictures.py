"""Pictures of the hybrid contrast: each contrast close to the nuclei."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bids_qsm.clinical.drawing import drawn
from bids_qsm.clinical.nuclei import GPE, GPI, RN, SIDES, SN, STN, Nuclei
from bids_qsm.images import Image, voxel_sizes_mm
from bids_qsm.numerics.geometry import Bool, Float32
from bids_qsm.report.picture import Picture
from bids_qsm.report.slices import AXIAL, CORONAL, reoriented, reoriented_affine

SECTION = "Hybrid contrast"
HALF_MM = (36.0, 30.0, 26.0)
"""Half the size of the shown box to the right, front and top."""
CHI_PPM = (-0.1, 0.2)
PERCENTILES = (1, 99)
TITLES = {"T1w": "T1w", "T2w": "T2w", "Chimap": "χ", "hybrid": "hybrid"}
OUTLINES = {GPE: "#56B4E9", GPI: "#FFE046", STN: "#FF5A6E", SN: "#50DC78", RN: "#F082DC"}
SHORT = {GPE: "GPe", GPI: "GPi", STN: "STN", SN: "SN", RN: "RN"}
VIEWS = ((GPI, AXIAL), (GPI, CORONAL), (STN, AXIAL), (STN, CORONAL))


def draw_hybrid(
    images: Mapping[str, Float32], labels: Image, nuclei: Nuclei, k: float
) -> Iterator[Picture]:
    """Yield the picture of all contrasts, without and with the nuclei's borders."""
    affine = reoriented_affine(labels.affine, labels.shape)
    shown = {name: reoriented(image, labels.affine) for name, image in images.items()}
    volume = reoriented(labels.data, labels.affine)
    masks = {
        name: np.any([nuclei.mask(volume, name, side) for side in SIDES], axis=0)
        for name in OUTLINES
        if nuclei.has(name)
    }
    masks = {name: mask for name, mask in masks.items() if mask.any()}
    if not any(name in masks for name, _ in VIEWS):
        return
    pictures = tuple(
        (suffix, drawn(close_ups, shown, masks, outlined, affine))
        for suffix, outlined in (("1", {}), ("2", masks))
    )
    yield Picture(
        SECTION,
        "hybrid",
        "Nuclei in each contrast",
        f"The hybrid is T1w {k:+.4g} χ (χ in ppm). Axial and coronal cuts through the globus "
        "pallidus interna and the subthalamic nucleus, on the T1w image's grid; in turn without "
        "and with the labels' borders. The subject's left is on the left.",
        pictures,
    )


def close_ups(
    images: Mapping[str, NDArray],
    masks: Mapping[str, Bool],
    outlined: Mapping[str, Bool],
    affine: NDArray,
) -> Figure:
    """Return a row of cuts for each contrast.

    Parameters
    ----------
    images : mapping of str to ndarray, shape (x, y, z)
        By contrast, axes to the right, front and top.
    masks : mapping of str to ndarray of bool
        The nuclei that the cuts go through.
    outlined : mapping of str to ndarray of bool
        Those whose borders are drawn.
    affine : ndarray, shape (4, 4)
    """
    voxel_mm = np.array(voxel_sizes_mm(affine))
    views = [(masks[name], axis) for name, axis in VIEWS if name in masks]
    centres = [np.argwhere(mask).mean(axis=0) for mask, _ in views]
    ratios = [HALF_MM[2 if axis == CORONAL else 1] / HALF_MM[0] for _, axis in views]
    width_in = 2.4
    size = (width_in * len(views), (width_in * max(ratios) + 0.04) * len(images) + 0.35)
    figure = Figure(figsize=size, facecolor="black", layout="constrained")
    rows = figure.subplots(len(images), len(views), squeeze=False)
    for row, (contrast, image) in zip(rows, images.items(), strict=True):
        cuts = [
            _cut(image, axis, centre, voxel_mm)
            for (_, axis), centre in zip(views, centres, strict=True)
        ]
        low, high = CHI_PPM if contrast == "Chimap" else _limits(cuts)
        for place, (ax, cut) in enumerate(zip(row, cuts, strict=True)):
            axis, centre = views[place][1], centres[place]
            aspect = voxel_mm[1 if axis == AXIAL else 2] / voxel_mm[0]
            ax.imshow(cut, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="bicubic")
            for name, mask in outlined.items():
                _outline(ax, _cut(mask, axis, centre, voxel_mm), OUTLINES[name])
            ax.set_axis_off()
            if place == 0:
                ax.text(
                    0.02, 0.97, TITLES[contrast], color="white", transform=ax.transAxes, va="top"
                )
    for place, name in enumerate(outlined):
        figure.text(
            0.01 + 0.07 * place,
            0.004,
            SHORT[name],
            color=OUTLINES[name],
            weight="bold",
            va="bottom",
        )
    figure.get_layout_engine().set(rect=(0, 0.25 / size[1], 1, 1 - 0.25 / size[1]))  # type: ignore[union-attr]
    return figure


def _cut(volume: NDArray, axis: int, centre: NDArray, voxel_mm: NDArray) -> NDArray:
    """Return a cut as rows from top to bottom, columns from left to right."""
    across, up = 0, 1 if axis == AXIAL else 2
    where: list[slice | int] = [slice(None)] * 3
    where[axis] = round(float(centre[axis]))
    for side in (across, up):
        at, half = float(centre[side]), HALF_MM[side] / voxel_mm[side]
        where[side] = slice(max(0, round(at - half)), max(1, round(at + half) + 1))
    return volume[tuple(where)].T[::-1]


def _limits(cuts: Sequence[NDArray]) -> tuple[float, float]:
    values = np.concatenate([cut.ravel() for cut in cuts])
    low, high = np.percentile(values[np.isfinite(values)], PERCENTILES)
    return float(low), float(max(high, low + 1e-6))


def _outline(ax: Axes, mask: NDArray, colour: str) -> None:
    if mask.any():
        ax.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=0.9)
