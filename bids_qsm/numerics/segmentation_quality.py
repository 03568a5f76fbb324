"""Checks that find a failed segmentation by itself: sizes, sides, places, and contrasts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.geometry import Bool, Float32

Labels = NDArray[np.integer]

PATTERNS = {
    "thalamus": r"^thalam|^tha?l?$",
    "caudate": r"caudate|^ca(u|ud)?$",
    "putamen": r"putamen|^put?$",
    "pallidum": r"pallid|^pal$|^gp[ei]?$",
    "accumbens": r"accumb|^nac$|^acc$",
    "hippocampus": r"^hippocamp|^hip$",
    "amygdala": r"^amygdala|^amy$",
    "lateral ventricle": r"^lateral[ _-]ventricle|^lv$",
}
"""What names of atlases mean; several labels may make one structure: both parts of the pallidum."""

VOLUMES_ML = {
    "thalamus": (3.5, 12.0),
    "caudate": (1.8, 6.5),
    "putamen": (2.3, 9.0),
    "pallidum": (0.8, 3.2),
    "accumbens": (0.2, 1.2),
    "hippocampus": (1.8, 6.5),
    "amygdala": (0.6, 3.0),
    "lateral ventricle": (1.5, 70.0),
}
"""On one side.  About half to 1.7 times the adult means of FreeSurfer (Potvin et al. 2016,
10.1016/j.neuroimage.2016.05.016), so that atrophy and another tool's borders pass."""

LARGEST_ASYMMETRY = 0.4
"""Of volumes, (L - R) / mean; four standard deviations or more (Guadalupe et al. 2017,
10.1007/s11682-016-9629-z).  Ventricles differ more by nature."""
LARGEST_VENTRICLE_ASYMMETRY = 1.2
LARGEST_CHI_DIFFERENCE_PPB = {"thalamus": 40, "caudate": 45, "putamen": 45, "pallidum": 70}
"""Between the sides; about three standard deviations."""
LEAST_CONTRAST_PPB = 40.0
"""Pallidum over thalamus in adults (Langkammer et al. 2012, 10.1016/j.neuroimage.2012.05.049;
Lim et al. 2013, 10.1016/j.neuroimage.2013.05.022); children have less iron."""
LEAST_LOW_CONTRAST_PPB = 10.0
"""Of the pallidum's lower quarter: less where labels lie half beside it."""
LEAST_R2STAR_CONTRAST = 2.0
MOST_VENTRICLE_R2STAR = 12.0
LEAST_FLUID_IN_VENTRICLES = 0.6
MOST_FLUID_IN_NUCLEI = 0.2
LEAST_IN_ONE_PIECE = 0.85
LEAST_VENTRICLE_IN_ONE_PIECE = 0.5
LEAST_COVERAGE = 0.9
LEAST_BRAIN_DICE = 0.85
DEEP_GREY = ("thalamus", "caudate", "putamen", "pallidum")

# (first, second, axis, least mm): on axis 0 the first lies further from the midplane, on axis 1
# further to the front, on axis 2 higher
ORDER = (
    ("putamen", "pallidum", 0, 1.5),
    ("pallidum", "thalamus", 0, 2.0),
    ("caudate", "thalamus", 1, 5.0),
    ("pallidum", "thalamus", 1, 5.0),
    ("caudate", "pallidum", 2, 3.0),
)
AXES = ("to the side", "to the front", "up")


@dataclass(frozen=True)
class Check:
    """One check of a segmentation.

    Attributes
    ----------
    check : str
        What is looked at: ``volume``, ``volume asymmetry``, ...
    name, hemisphere : str
        The structure; a pair of structures reads ``a - b``.  L, R or B for both.
    value, low, high : float
        What was found and what is expected; a bound may be infinite.
    units : str
    passed : bool
    sentence : str
        For the report.
    """

    check: str
    name: str
    hemisphere: str
    value: float
    low: float
    high: float
    units: str
    passed: bool
    sentence: str


@dataclass(frozen=True)
class _Structure:
    """One structure of one side: its voxels as indices into the flat volume."""

    name: str
    side: str
    voxels: NDArray[np.int64]

    @property
    def title(self) -> str:
        return f"{ {'L': 'Left ', 'R': 'Right '}.get(self.side, '') }{self.name}"


def check_segmentation(
    labels: Labels,
    table: pd.DataFrame,
    affine: NDArray[np.float64],
    *,
    chi_ppm: Float32 | None = None,
    r2star_per_s: Float32 | None = None,
    fluid: Float32 | None = None,
    valid: Bool | None = None,
    brain: Bool | None = None,
    t1w_brain: Bool | None = None,
    head_scale: float = 1.0,
) -> tuple[Check, ...]:
    """Check labels of the deep grey matter against what is known of adults' brains.

    Parameters
    ----------
    labels : ndarray of int, shape (x, y, z)
    table : pandas.DataFrame
        Columns ``index, name, hemisphere``; structures that no check knows are passed over.
    affine : ndarray, shape (4, 4)
        Voxel index to mm, axes to the right, front and top.
    chi_ppm, r2star_per_s : ndarray of float32, shape (x, y, z), optional
        Maps on the same grid; each adds its checks.
    fluid : ndarray of float32, shape (x, y, z), optional
        Share of fluid (0 to 1) that the T1w image shows.
    valid : ndarray of bool, shape (x, y, z), optional
        Where the maps can be trusted.
    brain, t1w_brain : ndarray of bool, shape (x, y, z), optional
        Brain of the gradient echo and of the T1w image, both on the labels' grid.
    head_scale : float
        Size of the head over the usual one: the expected volumes are multiplied by it.

    Returns
    -------
    tuple of Check
        In a fixed order.

    Notes
    -----
    Memory: one volume of labels, and the voxels of each structure.
    """
    structures = _structures(labels, table)
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    checks = [_volume(s, voxel_ml, head_scale) for s in structures]
    present = [s for s in structures if s.voxels.size]
    checks += [_pieces(s, labels.shape) for s in present]
    checks += [_inside(s, labels.shape) for s in present]
    checks += _asymmetries(present)
    checks += _places(present, labels.shape, affine)
    if valid is not None:
        checks += [_coverage(s, valid) for s in present]
    usable = np.ones(labels.shape, bool) if valid is None else valid
    if chi_ppm is not None:
        checks += _chi_checks(present, 1000 * _values(chi_ppm, usable))
    if r2star_per_s is not None:
        checks += _r2star_checks(present, _values(r2star_per_s, usable))
    if fluid is not None:
        checks += _fluid_checks(present, fluid.ravel())
    if brain is not None and t1w_brain is not None:
        checks.append(_brains(brain, t1w_brain))
    return tuple(checks)


def checks_table(checks: Sequence[Check]) -> pd.DataFrame:
    """Return one row for each check; infinite bounds are NaN."""
    columns = list(Check.__dataclass_fields__)
    table = pd.DataFrame([asdict(check) for check in checks], columns=columns)
    return table.replace([np.inf, -np.inf], np.nan)


def failures(checks: Sequence[Check]) -> tuple[str, ...]:
    """Return the sentences of the checks that failed."""
    return tuple(check.sentence for check in checks if not check.passed)


def _structures(labels: Labels, table: pd.DataFrame) -> list[_Structure]:
    """Return the known structures in a fixed order; absent ones have no voxels."""
    names = table["name"].astype(str).str.lower()
    bare = names.str.replace(r"^(left|right|lh|rh|l|r)[\s_.-]+", "", regex=True)
    bare = bare.str.replace(r"[\s_.-]+(left|right|lh|rh|l|r)$", "", regex=True)
    flat = labels.ravel()
    wanted = np.flatnonzero(flat)
    found = flat[wanted]
    structures = []
    for name, pattern in PATTERNS.items():
        rows = table[[bool(re.search(pattern, text)) for text in bare]]
        for side in ("L", "R", "B"):
            index = rows.loc[rows["hemisphere"] == side, "index"].to_numpy()
            if index.size:
                structures.append(_Structure(name, side, wanted[np.isin(found, index)]))
    return structures


def _checked(
    check: str,
    structure: tuple[str, str, str],
    value: float,
    low: float,
    high: float,
    units: str,
    advice: str,
) -> Check:
    """Return a check; ``structure`` is name, side and title.  A value that is NaN fails."""
    name, side, title = structure
    passed = bool(low <= value <= high)
    if np.isfinite(low) and np.isfinite(high):
        expected = f"expected {low:g} to {high:g}"
    else:
        expected = (
            f"expected at least {low:g}" if np.isfinite(low) else f"expected at most {high:g}"
        )
    end = "as expected" if passed else f"{expected}: {advice}"
    sentence = f"{title}: {check} {value:.3g} {units}".rstrip() + f", {end}."
    return Check(check, name, side, float(value), low, high, units, passed, sentence)


def _of(structure: _Structure) -> tuple[str, str, str]:
    return structure.name, structure.side, structure.title


def _volume(structure: _Structure, voxel_ml: float, head_scale: float) -> Check:
    sides = 2 if structure.side == "B" else 1
    low, high = (sides * head_scale * bound for bound in VOLUMES_ML[structure.name])
    volume = structure.voxels.size * voxel_ml
    advice = "its outline is wrong, or the brain unusual"
    return _checked("volume", _of(structure), volume, low, high, "mL", advice)


def _pieces(structure: _Structure, shape: tuple[int, ...]) -> Check:
    """Check how much of a structure hangs together; one of both sides has a piece on each."""
    sites = np.array(np.unravel_index(structure.voxels, shape))
    low = sites.min(axis=1)
    volume = np.zeros(sites.max(axis=1) - low + 1, bool)
    volume[tuple(sites - low[:, None])] = True
    pieces, _ = ndimage.label(volume, np.ones((3, 3, 3), int))
    sizes = np.sort(np.bincount(pieces[volume]))[::-1]
    main = sizes[: 2 if structure.side == "B" else 1].sum() / sizes.sum()
    least = LEAST_IN_ONE_PIECE
    if structure.name == "lateral ventricle":
        least = LEAST_VENTRICLE_IN_ONE_PIECE  # its horns are thin
    advice = f"it lies in {np.count_nonzero(sizes)} pieces"
    return _checked("share in one piece", _of(structure), main, least, 1.0, "", advice)


def _inside(structure: _Structure, shape: tuple[int, ...]) -> Check:
    sites = np.unravel_index(structure.voxels, shape)
    edge = np.zeros(structure.voxels.size, bool)
    for site, size in zip(sites, shape, strict=True):
        edge |= (site == 0) | (site == size - 1)
    advice = "the field of view cuts it"
    return _checked("voxels at the edge", _of(structure), edge.sum(), 0, 0, "", advice)


def _coverage(structure: _Structure, valid: Bool) -> Check:
    share = float(valid.ravel()[structure.voxels].mean())
    advice = "much of it was not measured"
    return _checked("coverage", _of(structure), share, LEAST_COVERAGE, 1.0, "", advice)


def _pairs(structures: Sequence[_Structure]) -> list[tuple[_Structure, _Structure]]:
    by = {(s.name, s.side): s for s in structures}
    return [(by[n, "L"], by[n, "R"]) for n in PATTERNS if (n, "L") in by and (n, "R") in by]


def _asymmetries(structures: Sequence[_Structure]) -> list[Check]:
    checks = []
    for left, right in _pairs(structures):
        sizes = left.voxels.size, right.voxels.size
        value = 2 * (sizes[0] - sizes[1]) / sum(sizes)
        most = LARGEST_ASYMMETRY
        if left.name == "lateral ventricle":
            most = LARGEST_VENTRICLE_ASYMMETRY
        title = left.name.capitalize()
        advice = "one side's outline is wrong, or one side is shrunken"
        checks.append(
            _checked("volume asymmetry", (left.name, "B", title), value, -most, most, "", advice)
        )
    return checks


def _places(
    structures: Sequence[_Structure], shape: tuple[int, ...], affine: NDArray[np.float64]
) -> list[Check]:
    """Check sides, and how structures lie to each other: found where labels were exchanged."""
    centre = {(s.name, s.side): _centre_mm(s, shape, affine) for s in structures}
    checks = []
    for left, _ in _pairs(structures):
        apart = centre[left.name, "R"][0] - centre[left.name, "L"][0]
        title = left.name.capitalize()
        advice = "left and right are exchanged, or the image is mirrored"
        place = (left.name, "B", title)
        checks.append(_checked("right beyond left", place, apart, 2.0, np.inf, "mm", advice))
    for first, second, axis, least in ORDER:
        for side, outward in (("L", -1.0), ("R", 1.0)):
            if (first, side) in centre and (second, side) in centre:
                step = (centre[first, side] - centre[second, side])[axis]
                value = step * outward if axis == 0 else step
                word = {"L": "Left", "R": "Right"}[side]
                place = (f"{first} - {second}", side, f"{word} {first} against {second}")
                advice = "labels are exchanged or lie in the wrong place"
                check = f"distance {AXES[axis]}"
                checks.append(_checked(check, place, value, least, np.inf, "mm", advice))
    return checks


def _centre_mm(
    structure: _Structure, shape: tuple[int, ...], affine: NDArray[np.float64]
) -> NDArray[np.float64]:
    voxel = np.array(np.unravel_index(structure.voxels, shape)).mean(axis=1)
    return affine[:3, :3] @ voxel + affine[:3, 3]


def _values(values: Float32, usable: Bool) -> NDArray[np.float64]:
    """Return the flat map, NaN where it cannot be trusted."""
    flat = values.ravel().astype(np.float64)
    flat[~usable.ravel() | ~np.isfinite(flat)] = np.nan
    return flat


def _percentile(structure: _Structure, values: NDArray[np.float64], percent: float = 50) -> float:
    found = values[structure.voxels]
    found = found[~np.isnan(found)]
    return float(np.percentile(found, percent)) if found.size else float("nan")


def _contrasts(
    structures: Sequence[_Structure],
    values: NDArray[np.float64],
    least: float,
    check: str,
    units: str,
    percent: float = 50,
) -> list[Check]:
    """Check that the pallidum has more than the thalamus' median on each side."""
    by = {(s.name, s.side): s for s in structures}
    checks = []
    for side in ("L", "R", "B"):
        if ("pallidum", side) in by and ("thalamus", side) in by:
            pallidum, thalamus = by["pallidum", side], by["thalamus", side]
            value = _percentile(pallidum, values, percent) - _percentile(thalamus, values)
            place = ("pallidum - thalamus", side, f"{pallidum.title} over thalamus")
            advice = "labels do not fit the map (in adults; children have less iron)"
            checks.append(_checked(check, place, value, least, np.inf, units, advice))
    return checks


def _chi_checks(structures: Sequence[_Structure], chi_ppb: NDArray[np.float64]) -> list[Check]:
    checks = _contrasts(structures, chi_ppb, LEAST_CONTRAST_PPB, "χ contrast", "ppb")
    low = LEAST_LOW_CONTRAST_PPB
    checks += _contrasts(structures, chi_ppb, low, "χ contrast of the lower quarter", "ppb", 25)
    for left, right in _pairs(structures):
        if left.name in DEEP_GREY:
            value = _percentile(left, chi_ppb) - _percentile(right, chi_ppb)
            most = float(LARGEST_CHI_DIFFERENCE_PPB[left.name])
            title = left.name.capitalize()
            advice = "one side's labels do not fit, or a bleed or vein lies in one"
            place = (left.name, "B", title)
            checks.append(
                _checked("χ of left over right", place, value, -most, most, "ppb", advice)
            )
    return checks


def _r2star_checks(structures: Sequence[_Structure], r2star: NDArray[np.float64]) -> list[Check]:
    checks = _contrasts(structures, r2star, LEAST_R2STAR_CONTRAST, "R2* contrast", "1/s")
    for structure in structures:
        if structure.name == "lateral ventricle":
            value = _percentile(structure, r2star)
            advice = "it holds tissue: the labels are shifted, or the ventricle is slim"
            most = MOST_VENTRICLE_R2STAR
            checks.append(_checked("R2*", _of(structure), value, -np.inf, most, "1/s", advice))
    return checks


def _fluid_checks(structures: Sequence[_Structure], fluid: NDArray[np.floating]) -> list[Check]:
    """Check that ventricles are fluid and nuclei are not."""
    checks = []
    for structure in structures:
        share = float(fluid[structure.voxels].mean(dtype=np.float64))
        if structure.name == "lateral ventricle":
            low, high, advice = (
                LEAST_FLUID_IN_VENTRICLES,
                1.0,
                "it holds tissue: labels are shifted",
            )
        elif structure.name in DEEP_GREY:
            low, high, advice = 0.0, MOST_FLUID_IN_NUCLEI, "it holds fluid: labels are shifted"
        else:
            continue
        checks.append(_checked("share of fluid", _of(structure), share, low, high, "", advice))
    return checks


def _brains(brain: Bool, t1w_brain: Bool) -> Check:
    dice = 2 * (brain & t1w_brain).sum() / max(1, brain.sum() + t1w_brain.sum())
    place = ("brain", "B", "Brain of the T1w and of the gradient echo")
    advice = "one mask is wrong, or the two images do not lie on each other"
    return _checked("overlap (Dice)", place, float(dice), LEAST_BRAIN_DICE, 1.0, "", advice)
