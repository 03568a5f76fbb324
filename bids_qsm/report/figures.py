"""Pictures of volumes: arrays in, PNG bytes out.

Slices are tiled on one canvas (see ``slices.py`` for which ones, and for the convention of sides).
There is no plotting state, no date and no version in the bytes, so that the same arrays always
give the same picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from bids_qsm.numerics.geometry import Bool
from bids_qsm.report.annotations import (
    Colour,
    add_footer,
    draw_colour_bar,
    draw_positions,
    encode_png,
    write_names,
)
from bids_qsm.report.slices import Cell, Layout, cut, enlarged, enlarged_region, lay_out, reoriented

MAX_BYTES = 210_000
SHADES_AND_WIDTHS_PX = ((64, 1200), (32, 1200), (24, 1080), (20, 960), (16, 840), (12, 720))
"""Numbers of shades and widths: the first that keeps a picture below :data:`MAX_BYTES` is used."""
OUTLINE = (255, 70, 40)
EDGES = (255, 176, 0)
EDGE_SCALE_MM = 1.5
LABEL_COLOURS = (
    (86, 180, 233),
    (255, 149, 0),
    (80, 220, 120),
    (255, 90, 110),
    (190, 140, 255),
    (255, 224, 70),
    (0, 205, 205),
    (240, 130, 220),
    (170, 210, 60),
    (200, 140, 90),
    (110, 140, 255),
    (250, 190, 170),
)

RGB = NDArray[np.uint8]


@dataclass(frozen=True)
class Scale:
    """How the values of a map are shown.

    Attributes
    ----------
    label : str
        The quantity and its unit, at the colour bar.
    lower, upper : float or None
        The values of the colour map's ends; None takes them from the volume.
    colours : str
        Name of a matplotlib colour map.
    symmetric : bool
        Whether ends taken from the volume are made symmetric about zero.
    cyclic : bool
        Whether values are angles (rad), whose ends are the same.
    inside_only : bool
        Whether the map has values within the region only; the rest is black.
    """

    label: str
    lower: float | None = None
    upper: float | None = None
    colours: str = "gray"
    symmetric: bool = False
    cyclic: bool = False
    inside_only: bool = False


MAGNITUDE = Scale("signal (arbitrary units)", lower=0.0)
T1W = Scale("T1w signal (arbitrary units)", lower=0.0)
FLAIR = Scale("FLAIR signal (arbitrary units)", lower=0.0)
PHASE = Scale("phase (rad)", -np.pi, np.pi, "twilight", cyclic=True)
PHASE_QUALITY = Scale("phase quality", 0.0, 1.0, "viridis")
TOTAL_FIELD = Scale("total field (Hz)", colours="RdBu_r", symmetric=True, inside_only=True)
LOCAL_FIELD = Scale("local field (Hz)", symmetric=True, inside_only=True)
CHI = Scale("χ (ppm)", -0.1, 0.2, inside_only=True)
R2STAR = Scale("R2* (1/s)", lower=0.0, colours="inferno", inside_only=True)


@dataclass(frozen=True)
class Labels:
    """Structures whose borders are drawn over a volume.

    Attributes
    ----------
    volume : ndarray of int, shape (x, y, z)
    names : mapping of int to str
        The structures to draw; those of the same name (left and right) share a colour.
    """

    volume: NDArray
    names: Mapping[int, str]

    @property
    def colours(self) -> dict[str, Colour]:
        """The colour of each name that has a voxel, in the order of the labels' numbers."""
        present = sorted(set(self.names) & set(np.unique(self.volume).tolist()))
        names = list(dict.fromkeys(self.names[index] for index in present))
        return {name: LABEL_COLOURS[i % len(LABEL_COLOURS)] for i, name in enumerate(names)}


def mosaic(
    volume: NDArray,
    affine: NDArray,
    scale: Scale,
    *,
    region: Bool | None = None,
    support: Bool | None = None,
    outline: Bool | None = None,
    labels: Labels | None = None,
) -> bytes:
    """Return a picture of axial, coronal and sagittal slices with a colour bar.

    Parameters
    ----------
    volume : ndarray, shape (x, y, z)
        NaN is drawn black.
    affine : ndarray, shape (4, 4)
        Says which way the axes run (any orientation) and the voxel size.
    scale : Scale
        Such as :data:`CHI`.
    region : ndarray of bool, optional
        What the slices are taken from and cropped to, such as the brain; all of the volume if not
        given.  Pictures of one grid with the same region show the same slices.
    support : ndarray of bool, optional
        Where the map has values; the rest is black.  If not given, this is the region for scales
        that are ``inside_only``, else everywhere.
    outline : ndarray of bool, optional
        A mask whose border is drawn.
    labels : Labels, optional

    Returns
    -------
    bytes
        PNG.

    Raises
    ------
    ValueError
        If the arrays differ in shape.
    """
    arrays = (region, support, outline, None if labels is None else labels.volume)
    _refuse_other_shapes(volume, *arrays)
    region = np.ones(volume.shape, bool) if region is None else region
    if support is None and scale.inside_only:
        support = region
    drawn = np.isfinite(volume) if support is None else np.isfinite(volume) & support
    limits = _limits(volume[region & drawn], scale)
    shown, drawn = reoriented(volume, affine), reoriented(drawn, affine)
    legend = {} if labels is None else labels.colours
    overlays = _overlays(affine, outline, labels, legend)

    def draw(shades: int, width_px: int) -> list[Image.Image]:
        layout = lay_out(region, affine, width_px)
        canvas = np.zeros((layout.height, layout.width, 3), np.uint8)
        for cell in layout.cells:
            tile = _coloured(shown, drawn, layout, cell, scale, limits, shades)
            for overlay, colours in overlays:
                _draw_borders(tile, cut(overlay, layout.box, cell), cell, colours)
            _put(canvas, tile, cell)
        image = add_footer(canvas, legend)
        draw_positions(image, layout)
        draw_colour_bar(image, scale.label, scale.colours, _ticks(scale, limits))
        return [image]

    return _small_enough(draw)[0]


def registration_pair(
    fixed: NDArray,
    moved: NDArray,
    affine: NDArray,
    *,
    region: Bool,
    names: tuple[str, str],
) -> tuple[bytes, bytes]:
    """Return two pictures of the same slices, to be looked at in turn.

    The edges of the second image are drawn on both: where they lie on the structures of the first
    one, the two are aligned.

    Parameters
    ----------
    fixed, moved : ndarray, shape (x, y, z)
        On the same grid.
    affine : ndarray, shape (4, 4)
    region : ndarray of bool
        The brain: it sets slices and contrast.
    names : tuple of str
        What the two images are.

    Returns
    -------
    tuple of bytes
        Two PNG of the same size.
    """
    _refuse_other_shapes(fixed, moved, region)
    inside, lined = reoriented(region, affine), reoriented(moved, affine)
    shown = [
        (reoriented(v, affine), reoriented(np.isfinite(v), affine), _limits(v[region], MAGNITUDE))
        for v in (fixed, moved)
    ]

    def draw(shades: int, width_px: int) -> list[Image.Image]:
        layout = lay_out(region, affine, width_px)
        edges = {cell: _edges(lined, inside, layout, cell) for cell in layout.cells}
        images = []
        for (volume, drawn, limits), name in zip(shown, names, strict=True):
            canvas = np.zeros((layout.height, layout.width, 3), np.uint8)
            for cell in layout.cells:
                tile = _coloured(volume, drawn, layout, cell, MAGNITUDE, limits, shades)
                tile[edges[cell]] = EDGES
                _put(canvas, tile, cell)
            image = add_footer(canvas, {})
            draw_positions(image, layout)
            write_names(image, name, f"lines: edges of {names[1]}", EDGES)
            images.append(image)
        return images

    first, second = _small_enough(draw)
    return first, second


def _small_enough(draw: Callable[[int, int], list[Image.Image]]) -> list[bytes]:
    """Return pictures, all of one width, as fine as :data:`MAX_BYTES` allows for each."""
    for shades, width_px in SHADES_AND_WIDTHS_PX:
        pngs = [encode_png(image) for image in draw(shades, width_px)]
        if max(map(len, pngs)) <= MAX_BYTES:
            break
    return pngs


def _refuse_other_shapes(volume: NDArray, *others: NDArray | None) -> None:
    for other in others:
        if other is not None and other.shape != volume.shape:
            raise ValueError(
                f"The arrays of a picture must have one shape, got {volume.shape} and "
                f"{other.shape}."
            )


def _limits(values: NDArray, scale: Scale) -> tuple[float, float]:
    """Return the ends of the colour map, round numbers where they come from the volume."""
    if scale.lower is not None and scale.upper is not None:
        return scale.lower, scale.upper
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, (1, 99)) if values.size else (0.0, 1.0)
    if scale.symmetric:
        high = _rounded_up(float(max(abs(low), abs(high))))
        return -high, high
    lower = float(low) if scale.lower is None else scale.lower
    return lower, max(_rounded_up(float(high)), lower + 1e-6)


def _rounded_up(value: float) -> float:
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
    return float(power * next((s for s in steps if s * power >= value * (1 - 1e-9)), 10))


def _ticks(scale: Scale, limits: tuple[float, float]) -> tuple[str, str, str]:
    """Return the texts at the start, middle and end of the colour bar."""
    if scale.cyclic:
        return "−π", "0", "π"
    values = (limits[0], sum(limits) / 2, limits[1])
    start, middle, end = (
        (f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")
        for value in values
    )
    return start, middle, end


def _coloured(
    volume: NDArray,
    drawn: Bool,
    layout: Layout,
    cell: Cell,
    scale: Scale,
    limits: tuple[float, float],
    shades: int,
) -> RGB:
    """Return a slice in colours, shape (height, width, 3)."""
    where = cut(drawn, layout.box, cell)
    values = np.where(where, cut(volume, layout.box, cell), 0).astype(np.float32)
    if scale.cyclic:
        pixels = np.arctan2(enlarged(np.sin(values), cell), enlarged(np.cos(values), cell))
    else:
        pixels = enlarged(values, cell)
    lower, upper = limits
    unit = np.clip((pixels - lower) / (upper - lower), 0, 1)
    table = matplotlib.colormaps[scale.colours](np.linspace(0, 1, shades))[:, :3]
    tile = np.rint(table * 255).astype(np.uint8)[np.rint(unit * (shades - 1)).astype(np.intp)]
    tile[~enlarged_region(where, cell)] = 0
    return tile


def _overlays(
    affine: NDArray, outline: Bool | None, labels: Labels | None, legend: Mapping[str, Colour]
) -> list[tuple[NDArray, dict[int, Colour]]]:
    """Return reoriented label volumes with the colour of each label."""
    overlays: list[tuple[NDArray, dict[int, Colour]]] = []
    if labels is not None:
        of_index = {i: legend[name] for i, name in labels.names.items() if name in legend}
        overlays.append((reoriented(labels.volume, affine), of_index))
    if outline is not None:
        overlays.append((reoriented(outline, affine), {1: OUTLINE}))
    return overlays


def _draw_borders(tile: RGB, labels: NDArray, cell: Cell, colours: Mapping[int, Colour]) -> None:
    for index in np.unique(labels):
        if int(index) in colours:
            tile[_border(enlarged_region(labels == index, cell))] = colours[int(index)]


def _border(region: Bool) -> Bool:
    return region & ~ndimage.binary_erosion(region, border_value=1)


def _edges(volume: NDArray, inside: Bool, layout: Layout, cell: Cell) -> Bool:
    """Return the edges of a slice: zero crossings of its Laplacian where the gradient is strong."""
    within = enlarged_region(cut(inside, layout.box, cell), cell)
    if not within.any():
        return within
    pixels = enlarged(np.nan_to_num(cut(volume, layout.box, cell)), cell)
    sigma_px = EDGE_SCALE_MM * layout.pixels_per_mm
    crossing = _border(ndimage.gaussian_laplace(pixels, sigma_px) > 0)
    gradient = ndimage.gaussian_gradient_magnitude(pixels, sigma_px)
    usual, steep = np.percentile(gradient[within], (60, 99))
    return crossing & within & (gradient > max(usual, 0.1 * steep))


def _put(canvas: RGB, tile: RGB, cell: Cell) -> None:
    canvas[cell.top : cell.top + cell.height, cell.left : cell.left + cell.width] = tile
