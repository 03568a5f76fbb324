"""Checks of labels against maps: coverage, χ, R2*, fluid, and the masks of the brain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bids_qsm.numerics.geometry import Bool, Float32
from bids_qsm.numerics.segmentation_quality.check import Check, checked
from bids_qsm.numerics.segmentation_quality.structures import DEEP_GREY, Structure, pairs

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
LEAST_COVERAGE = 0.9
LEAST_BRAIN_DICE = 0.85


def coverage_checks(structures: Sequence[Structure], valid: Bool) -> list[Check]:
    """Check that structures lie where the maps are known."""
    advice, flat = "much of it was not measured", valid.ravel()
    return [
        checked("coverage", s.identity, flat[s.voxels].mean(), LEAST_COVERAGE, 1.0, "", advice)
        for s in structures
    ]


def _values(values: Float32, usable: Bool) -> NDArray[np.float64]:
    """Return the flat map, NaN where it cannot be trusted."""
    flat = values.ravel().astype(np.float64)
    flat[~usable.ravel() | ~np.isfinite(flat)] = np.nan
    return flat


def _percentile(structure: Structure, values: NDArray[np.float64], percent: float = 50) -> float:
    found = values[structure.voxels]
    found = found[~np.isnan(found)]
    return float(np.percentile(found, percent)) if found.size else float("nan")


def _contrasts(
    structures: Sequence[Structure],
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
            checks.append(checked(check, place, value, least, np.inf, units, advice))
    return checks


def chi_checks(structures: Sequence[Structure], chi_ppm: Float32, usable: Bool) -> list[Check]:
    """Check that the pallidum stands out in the susceptibility, and that the sides are alike."""
    chi_ppb = 1000 * _values(chi_ppm, usable)
    checks = _contrasts(structures, chi_ppb, LEAST_CONTRAST_PPB, "χ contrast", "ppb")
    low = LEAST_LOW_CONTRAST_PPB
    checks += _contrasts(structures, chi_ppb, low, "χ contrast of the lower quarter", "ppb", 25)
    for left, right in pairs(structures):
        if left.name in DEEP_GREY:
            value = _percentile(left, chi_ppb) - _percentile(right, chi_ppb)
            most = float(LARGEST_CHI_DIFFERENCE_PPB[left.name])
            title = left.name.capitalize()
            advice = "one side's labels do not fit, or a bleed or vein lies in one"
            place = (left.name, "B", title)
            checks.append(checked("χ of left over right", place, value, -most, most, "ppb", advice))
    return checks


def r2star_checks(
    structures: Sequence[Structure], r2star_per_s: Float32, usable: Bool
) -> list[Check]:
    """Check that the pallidum has more R2* than the thalamus, and ventricles have little."""
    r2star = _values(r2star_per_s, usable)
    checks = _contrasts(structures, r2star, LEAST_R2STAR_CONTRAST, "R2* contrast", "1/s")
    for structure in structures:
        if structure.name == "lateral ventricle":
            value = _percentile(structure, r2star)
            advice = "it holds tissue: the labels are shifted, or the ventricle is slim"
            most = MOST_VENTRICLE_R2STAR
            checks.append(checked("R2*", structure.identity, value, -np.inf, most, "1/s", advice))
    return checks


def fluid_checks(structures: Sequence[Structure], fluid: Float32) -> list[Check]:
    """Check that ventricles are fluid and nuclei are not."""
    checks, flat = [], fluid.ravel()
    for structure in structures:
        share = float(flat[structure.voxels].mean(dtype=np.float64))
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
        checks.append(checked("share of fluid", structure.identity, share, low, high, "", advice))
    return checks


def brain_check(brain: Bool, t1w_brain: Bool) -> Check:
    """Check that the brains of the T1w and of the gradient echo lie on each other."""
    dice = 2 * (brain & t1w_brain).sum() / max(1, brain.sum() + t1w_brain.sum())
    place = ("brain", "B", "Brain of the T1w and of the gradient echo")
    advice = "one mask is wrong, or the two images do not lie on each other"
    return checked("overlap (Dice)", place, float(dice), LEAST_BRAIN_DICE, 1.0, "", advice)
