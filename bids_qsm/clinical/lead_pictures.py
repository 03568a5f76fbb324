"""Pictures of leads: cuts through χ along each, and the CT over the T1w image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from bids_qsm.anatomy.grids import near
from bids_qsm.clinical.case import Case
from bids_qsm.clinical.leads import PlacedLead, Target
from bids_qsm.clinical.nuclei import GPI, STN, structures_with
from bids_qsm.clinical.trajectories import Trajectory, layers_of, sampled_chi
from bids_qsm.images import Image, voxel_sizes_mm
from bids_qsm.labelling import Anatomy, Structures
from bids_qsm.numerics.geometry import Float32
from bids_qsm.numerics.lead_models import LEAD_MODELS
from bids_qsm.numerics.trajectories import sample, sample_layers, scores
from bids_qsm.report.figures import registration_pair
from bids_qsm.report.group_style import COLOURS, MUTED, as_chart
from bids_qsm.report.picture import Picture

SECTION = "Leads"
BELOW_MM, ABOVE_MM, ASIDE_MM, PIXEL_MM = 10.0, 26.0, 16.0, 0.4
CHI_PPB, CT_HU, WINDOW_HU = (-100.0, 200.0), (-50.0, 2500.0), (0.0, 100.0)
RIM_MM = 10.0
LEAD, TARGET = "#FFE046", "#FF5A6E"
SIDES = (((1.0, 0.0, 0.0), "left to right", "L", "R"), ((0.0, 1.0, 0.0), "back to front", "P", "A"))


@dataclass(frozen=True)
class Cut:
    """A plane through a lead's axis; ``values`` has shape (upwards, aside), the tip at (0, 0)."""

    title: str
    low: str
    high: str
    values: Float32
    limits: tuple[float, float]
    scores: Mapping[str, Float32]
    across: NDArray[np.floating]


def draw_leads(
    leads: Sequence[PlacedLead], targets: Sequence[Target], ct: Image, case: Case, anatomy: Anatomy
) -> Iterator[Picture]:
    """Yield a picture of each lead, and that of the CT's registration."""
    t1w = anatomy.t1w
    region = near(t1w.brain.data, RIM_MM, voxel_sizes_mm(t1w.brain.affine))
    window = np.clip(ct.data, *WINDOW_HU).astype(np.float32)
    pair = registration_pair(
        t1w.image.data, window, t1w.image.affine, region=region, names=("T1w", "CT")
    )
    yield Picture(
        SECTION,
        "ct",
        "CT on the T1w image",
        "The T1w image and the CT's brain window (0 to 100 HU) in turn; the lines, edges of the "
        "CT, lie on the brain's border and on the ventricles where the two are aligned.",
        (("1", pair[0]), ("2", pair[1])),
    )
    found = structures_with(case.structures, [STN]) or structures_with(case.structures, [GPI])
    structures = found[0] if found else next(iter(case.structures), None)
    for lead in leads:
        cuts = [
            _cut(lead, side, words, ct, case, anatomy, structures, of_ct=of_ct)
            for (side, *words), of_ct in ((SIDES[0], False), (SIDES[1], False), (SIDES[0], True))
        ]
        own = [target for target in targets if target.hemisphere == lead.hemisphere]
        yield Picture(
            SECTION,
            f"lead{lead.number}",
            f"Lead {lead.number} ({lead.hemisphere}), {lead.lead.model}",
            "Cuts along the axis at the contacts, two through χ (or the T1w image where there is "
            "none) and one through the CT: contacts with their numbers, borders of the nuclei, and "
            "the target (cross) where one was given. The vertical is the distance to the tip.",
            (("", along_lead(lead, cuts, own).png),),
        )


def _cut(
    lead: PlacedLead,
    side: tuple[float, ...],
    words: list[str],
    ct: Image,
    case: Case,
    anatomy: Anatomy,
    structures: Structures | None,
    *,
    of_ct: bool,
) -> Cut:
    tip, axis = lead.lead.tip_mm, lead.lead.axis
    across = np.asarray(side) - np.einsum("i,i->", np.asarray(side), axis) * axis
    across /= np.linalg.norm(across)
    up, aside = places()
    points = tip + up[:, None, None] * axis + aside[None, :, None] * across
    title, low, high = words
    if of_ct:
        values = sample(ct.data, ct.affine, points)
        return Cut(f"CT, {title}", low, high, values, CT_HU, {}, across)
    chi_ppm, _ = sampled_chi(case.maps, anatomy, points)
    if np.isfinite(chi_ppm).any():
        name, values, limits = "χ", 1000 * chi_ppm, CHI_PPB
    else:
        image = anatomy.t1w.image
        name, values = "T1w", sample(image.data, image.affine, points)
        limits = (0.0, float(np.nanpercentile(values, 99)))
    of_plane = {} if structures is None else _scores(lead, structures, points)
    return Cut(f"{name}, {title}", low, high, values, limits, of_plane, across)


def _scores(
    lead: PlacedLead, structures: Structures, points: NDArray[np.floating]
) -> Mapping[str, Float32]:
    """Return how likely each nucleus of the segmentation that the plane meets is, by its name."""
    ends = (tuple(lead.lead.path_mm[-1].tolist()), tuple(lead.lead.tip_mm.tolist()))
    layers = layers_of(structures, Trajectory(lead.name, *ends))
    indices = np.concatenate([layer.indices for layer in layers])
    names = structures.atlas.table.set_index("index")["name"].to_dict()
    values = scores(sample_layers(layers, points))
    return {
        names[int(index)]: own
        for index, own in zip(indices, values, strict=True)
        if index in structures.segmentation.indices and own.max() > 0.5
    }


def places() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the heights over the tip of a picture's rows, and the places of its columns."""
    return (
        np.arange(ABOVE_MM, -BELOW_MM - PIXEL_MM / 2, -PIXEL_MM),
        np.arange(-ASIDE_MM, ASIDE_MM + PIXEL_MM / 2, PIXEL_MM),
    )


@as_chart
def along_lead(lead: PlacedLead, cuts: Sequence[Cut], targets: Sequence[Target]) -> Figure:
    """Return the cuts beside each other, with the lead drawn on them."""
    figure = Figure(figsize=(2.7 * len(cuts), 4.2), layout="constrained")
    up, aside = places()
    sizes: dict[str, int] = {}
    for cut in cuts:
        for name, score in cut.scores.items():
            sizes[name] = sizes.get(name, 0) + np.count_nonzero(score > 0.5)
    named = sorted(sizes, key=lambda name: -sizes[name])[: len(COLOURS)]
    colours = dict(zip(named, COLOURS, strict=False))
    for ax, cut in zip(figure.subplots(1, len(cuts), sharey=True), cuts, strict=True):
        ax.imshow(
            cut.values,
            cmap="gray",
            vmin=cut.limits[0],
            vmax=cut.limits[1],
            extent=(aside[0], aside[-1], up[-1], up[0]),
            interpolation="bilinear",
            aspect="equal",
        )
        for name in (name for name in named if name in cut.scores):
            score, colour = cut.scores[name], colours[name]
            ax.contour(aside, up, score, levels=[0.5], colors=[colour], linewidths=1.2)
        _draw_lead(ax, lead, cut)
        for target in targets:
            offset = target.place_mm - lead.lead.tip_mm
            x, y = (float(np.einsum("i,i->", offset, a)) for a in (cut.across, lead.lead.axis))
            if abs(x) < ASIDE_MM and -BELOW_MM < y < ABOVE_MM:
                ax.plot([x], [y], marker="+", markersize=9, color=TARGET, markeredgewidth=1.6)
        ax.grid(False)
        ax.set_title(cut.title, fontsize=9)
        ax.set_xlabel("across (mm)")
        for x, word in ((0.05, cut.low), (0.95, cut.high)):
            ax.text(x, 0.98, word, color="white", transform=ax.transAxes, va="top", ha="center")
    figure.axes[0].set_ylabel("above the tip (mm)")
    figure.axes[0].set_ylim(-BELOW_MM, ABOVE_MM)
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    if handles:
        figure.legend(handles, named, loc="outside lower center", ncols=3, fontsize=7.5)
    return figure


def _draw_lead(ax: Axes, lead: PlacedLead, cut: Cut) -> None:
    """Draw the lead's outline and its contacts."""
    own, model = lead.lead, LEAD_MODELS[lead.lead.model]
    half = model.diameter_mm / 2
    offset = own.path_mm - own.tip_mm
    x = np.einsum("nc,c->n", offset, cut.across)
    y = np.einsum("nc,c->n", offset, own.axis)
    for side in (-half, half):
        ax.plot(x + side, y, color=MUTED, linewidth=0.8)
    for number, point in enumerate(own.contacts_mm - own.tip_mm):
        middle = float(np.einsum("i,i->", point, cut.across))
        height = float(np.einsum("i,i->", point, own.axis))
        corner = (middle - half, height - model.contact_mm / 2)
        box = Rectangle(corner, 2 * half, model.contact_mm, fill=False, edgecolor=LEAD)
        ax.add_patch(box)
        ax.text(middle + half + 0.5, height, str(number), color=LEAD, fontsize=7, va="center")
    ax.set_xlim(-ASIDE_MM, ASIDE_MM)
