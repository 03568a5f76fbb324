"""Pictures of trajectories: the profile of χ, and cuts through it along the line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bids_qsm.clinical.drawing import drawn
from bids_qsm.clinical.trajectories import Course, crossed, layers_of, sampled_chi
from bids_qsm.labelling import Anatomy, Structures
from bids_qsm.maps import Maps
from bids_qsm.numerics.geometry import Float32
from bids_qsm.numerics.trajectories import sample_layers, scores
from bids_qsm.report.group_style import COLOURS, INK, MUTED
from bids_qsm.report.picture import Picture

SECTION = "Trajectories"
MOST = 8
"""Trajectories that are drawn."""
BEFORE_MM = 30.0
"""How far before the target a picture begins."""
ASIDE_MM = 15.0
PIXEL_MM = 0.5
HEIGHT_IN, LEFT_IN, PROFILE_IN, GAP_IN = 4.8, 0.65, 4.6, 0.2
NAMES_SHARE = 0.45
"""Of the profile's width: room for the names of structures beside the line."""
CHI_PPB = (-100.0, 200.0)


@dataclass(frozen=True)
class Cut:
    """A plane through a line.

    Attributes
    ----------
    title, low, high : str
        What it is, and what lies at its left and right.
    chi_ppm : ndarray of float32, shape (depths, aside)
    scores : ndarray of float32, shape (structures, depths, aside)
    """

    title: str
    low: str
    high: str
    chi_ppm: Float32
    scores: Float32


def draw_trajectories(
    courses: Sequence[Course], structures: Structures, maps: Maps, anatomy: Anatomy
) -> Iterator[Picture]:
    """Yield a picture for each trajectory."""
    names = structures.atlas.table.set_index("index")["name"].to_dict()
    for place, course in enumerate(courses[:MOST], start=1):
        cuts = [
            cut_along(course, structures, maps, anatomy, side, *words)
            for side, *words in (
                (np.array([1.0, 0, 0]), "left to right", "L", "R"),
                (np.array([0, 1.0, 0]), "back to front", "P", "A"),
            )
        ]
        yield Picture(
            SECTION,
            f"trajectory{place}",
            f"Trajectory {course.trajectory.name}",
            "χ along the line, with its standard deviation where that is known, and the structures "
            "that the line crosses; beside it two cuts through χ along the line, with the borders "
            "of these. Depth is the distance to the target: positive before it. Dashed: what was "
            "recorded.",
            (("", drawn(along, course, names, cuts)),),
        )


def cut_along(
    course: Course,
    structures: Structures,
    maps: Maps,
    anatomy: Anatomy,
    side: NDArray[np.float64],
    title: str,
    low: str,
    high: str,
) -> Cut:
    """Return a cut through the line and the direction nearest to ``side`` across it."""
    entry, target = (
        np.asarray(end) for end in (course.trajectory.entry_mm, course.trajectory.target_mm)
    )
    down = (target - entry) / np.linalg.norm(target - entry)
    across = side - np.einsum("i,i->", side, down) * down
    across /= np.linalg.norm(across)
    depth_mm, aside_mm = depths(course), asides()
    points = target - depth_mm[:, None, None] * down + aside_mm[None, :, None] * across
    chi_ppm, _ = sampled_chi(maps, anatomy, points)
    layers = layers_of(structures, course.trajectory)
    indices = np.concatenate([layer.indices for layer in layers])
    wanted = [course.spans.indices[k] for k in crossed(course)]
    of_plane = scores(sample_layers(layers, points))
    chosen = [int(np.flatnonzero(indices == index)[0]) for index in wanted]
    return Cut(title, low, high, chi_ppm, of_plane[chosen])


def depths(course: Course) -> NDArray[np.float64]:
    """Return the depths of a picture's rows, the entry first."""
    depth = course.line.depth_mm
    return np.arange(min(depth[0], BEFORE_MM), depth[-1] - PIXEL_MM / 2, -PIXEL_MM)


def asides() -> NDArray[np.float64]:
    """Return the distances from the line of a picture's columns."""
    return np.arange(-ASIDE_MM, ASIDE_MM + PIXEL_MM / 2, PIXEL_MM)


def along(course: Course, names: Mapping[int, str], cuts: Sequence[Cut]) -> Figure:
    """Return the profile of a trajectory and cuts along it, beside each other, on one scale."""
    depth_mm, aside_mm = depths(course), asides()
    height_mm, width_mm = depth_mm[0] - depth_mm[-1], aside_mm[-1] - aside_mm[0]
    cut_in = HEIGHT_IN * width_mm / height_mm
    size = (LEFT_IN + PROFILE_IN + len(cuts) * (cut_in + GAP_IN) + GAP_IN, HEIGHT_IN + 0.9)
    figure = Figure(figsize=size)

    def panel(left_in: float, width_in: float) -> Axes:
        return figure.add_axes(
            (left_in / size[0], 0.55 / size[1], width_in / size[0], HEIGHT_IN / size[1])
        )

    colours = {k: COLOURS[i % len(COLOURS)] for i, k in enumerate(crossed(course))}
    profile = panel(LEFT_IN, PROFILE_IN)
    profile.set_ylim(depth_mm[-1], depth_mm[0])
    _draw_profile(profile, course, names, colours)
    for place, cut in enumerate(cuts):
        ax = panel(LEFT_IN + PROFILE_IN + GAP_IN + place * (cut_in + GAP_IN), cut_in)
        _draw_cut(ax, cut, depth_mm, aside_mm, list(colours.values()))
    return figure


def _draw_cut(
    ax: Axes, cut: Cut, depth_mm: NDArray, aside_mm: NDArray, colours: Sequence[str]
) -> None:
    ax.set_facecolor("black")
    ax.imshow(
        1000 * cut.chi_ppm,
        cmap="gray",
        vmin=CHI_PPB[0],
        vmax=CHI_PPB[1],
        extent=(aside_mm[0], aside_mm[-1], depth_mm[-1], depth_mm[0]),
        interpolation="bilinear",
        aspect="auto",
    )
    for score, colour in zip(cut.scores, colours, strict=True):
        if score.max() > 0.5 > score.min():
            ax.contour(aside_mm, depth_mm, score, levels=[0.5], colors=[colour], linewidths=1.2)
    ax.axvline(0, color="white", linewidth=0.8)
    ax.plot([0], [0], marker="o", markersize=4, color="white")
    ax.grid(False)
    ax.set_title(cut.title)
    ax.set_xticks([-10, 0, 10])
    ax.set_yticklabels([])
    ax.set_xlabel("across (mm)")
    for x, word in ((0.04, cut.low), (0.96, cut.high)):
        ax.text(x, 0.98, word, color="white", transform=ax.transAxes, va="top", ha="center")


def _draw_profile(
    ax: Axes, course: Course, names: Mapping[int, str], colours: Mapping[int, str]
) -> None:
    spans, line = course.spans, course.line
    deepest, highest = ax.get_ylim()
    for k, colour in colours.items():
        index = int(spans.indices[k])
        length = f"{spans.span[k]:.1f} ± {spans.span_sd[k]:.1f} mm"
        shown = np.clip((spans.exit[k], spans.entry[k]), deepest, highest)
        ax.axhspan(spans.exit[k], spans.entry[k], color=colour, alpha=0.18, linewidth=0)
        ax.text(
            0.985,
            shown.mean(),
            f"{names.get(index, f'label {index}')}\n{length}",
            transform=ax.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=7.5,
            color=INK,
            clip_on=True,
        )
    chi_ppb, sd_ppb = 1000 * course.chi_ppm, 1000 * course.chi_sd_ppm
    if np.isfinite(sd_ppb).any():
        ax.fill_betweenx(
            line.depth_mm, chi_ppb - sd_ppb, chi_ppb + sd_ppb, color=MUTED, alpha=0.3, linewidth=0
        )
    ax.plot(chi_ppb, line.depth_mm, color=INK)
    ax.set_ylim(deepest, highest)
    recorded = (course.trajectory.recorded_entry_mm, course.trajectory.recorded_exit_mm)
    for depth in recorded:
        if np.isfinite(depth):
            ax.axhline(depth, color=INK, linestyle="--", linewidth=1)
    ax.axhline(0, color=MUTED, linewidth=1)
    ax.annotate(
        "target",
        (0.01, 0),
        xycoords=ax.get_yaxis_transform(),
        va="bottom",
        fontsize=7.5,
        color=MUTED,
    )
    low, high = ax.get_xlim() if np.isfinite(chi_ppb).any() else CHI_PPB
    ax.set_xticks([tick for tick in ax.get_xticks() if low <= tick <= high])
    ax.set_xlim(low, low + (high - low) / (1 - NAMES_SHARE))
    ax.set_xlabel("χ (ppb)")
    ax.set_ylabel("depth before the target (mm)")
