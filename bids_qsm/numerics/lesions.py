"""T2 lesions of the white matter from FLAIR and T1-weighted images, without trained weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.geometry import Bool, Float32, bounding_box, place

GREY, WHITE, FLUID, STEM = range(4)
_EM_ROUNDS = 25
_EM_VOXELS = 150_000
_FLOOR = 0.02
"""Least probability of any tissue anywhere: templates do not fit each head."""
_NEIGHBOURS_MM = 1.5
_LOCAL_MM = 20.0
_SURE, _SURE_THERE = 0.9, 0.8
_OUTLYING = 2.5
_MAD_TO_SD = 1.4826
_CUT_SD = 1.1
"""Standard deviation of a Gaussian over that of its part within 2.5 of them, by the MAD."""
_SD_AT_95 = 1.645
"""Standard deviations from the mean to the 95th percentile of a Gaussian."""
_STEP_SD, _STEPS = 0.5, 4
"""What hangs together with something that is no lesion is tried again, so much brighter."""
_BRIGHT_SHARE = 0.1
"""Of a bright spot's voxels must be too bright for grey matter, lest it counts as cortex."""
_FACES = ndimage.generate_binary_structure(3, 1)
_CORNERS = ndimage.generate_binary_structure(3, 3)

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class FlairLevels:
    """What normal tissue looks like in the FLAIR image.

    Attributes
    ----------
    means, sds : tuple of float
        Of grey matter, white matter, fluid and brain stem.
    bright_grey_sd : float
        Of grey matter above its mean: what is below also comes from fluid in the same voxels.
    """

    means: tuple[float, ...]
    sds: tuple[float, ...]
    bright_grey_sd: float


@dataclass(frozen=True)
class T2Lesions:
    """Lesions found, and how far from normal each voxel is.

    Attributes
    ----------
    mask : ndarray of bool, shape (x, y, z)
    belief : ndarray of float32, shape (x, y, z)
        FLAIR intensity above what is expected there, in standard deviations; zero outside the
        brain.
    white : ndarray of bool, shape (x, y, z)
        Normal-appearing white matter.
    levels : FlairLevels
    """

    mask: Bool
    belief: Float32
    white: Bool
    levels: FlairLevels


def t2_lesions(
    flair: Float32,
    t1w: Float32,
    brain: Bool,
    white_prior: Float32,
    grey_prior: Float32,
    voxel_mm: tuple[float, float, float],
    *,
    stem: Bool | None = None,
    free_of_grey: Bool | None = None,
    core_sd: float = 4.0,
    rim_sd: float = 2.75,
    core_fraction: float = 0.1,
    edge_fraction: float = 0.4,
    white_contact: float = 0.75,
    bright_white_contact: float = 0.5,
    fluid_contact: float = 0.5,
    minimum_mm3: float = 10.0,
    smoothing_mm: float = 0.7,
    reach_mm: float = 5.0,
) -> T2Lesions:
    """Find voxels of white matter that are brighter in FLAIR than tissue there should be.

    The T1-weighted image, with the priors, tells the tissues.  What is *expected* at a voxel is
    told by the priors and the tissue of its neighbours, not by its own brightness: a lesion is
    dark in T1w and would pass for grey matter.  The FLAIR intensity expected, and its variance,
    are those of this mixture, so that the borders of tissues need stronger evidence than the
    midst of white matter: this *belief* tells whether there is a lesion.  How far it reaches is
    told by its contrast to normal white matter alone, as a reader draws it: as in the lesion
    growth algorithm (Schmidt et al. 2012), voxels far from normal (``core_sd``) grow to
    neighbours less far from it (``rim_sd``), though not into cortex and fluid; each lesion then
    keeps what exceeds a share of its own local contrast.  Bright spots that touch grey matter
    (cortex) or fluid (septum, choroid plexus, flow) more than white matter are tried again at
    higher thresholds, lest a bridge to the cortex costs a lesion, and then dropped; so is what
    has little core.  What is as far above grey matter as a core must be above what is expected
    is no cortex: it may touch more of it.

    Parameters
    ----------
    flair, t1w : ndarray of float32, shape (x, y, z)
        On one grid, without receive fields; any scale.
    brain : ndarray of bool, shape (x, y, z)
    white_prior, grey_prior : ndarray of float32, shape (x, y, z)
        Probability (0 to 1) of white and of grey matter at a place, from a template; the rest
        is fluid.
    voxel_mm : tuple of float
    stem : ndarray of bool, shape (x, y, z), optional
        Brain stem, brighter in FLAIR than other white matter: it gets levels of its own.
    free_of_grey : ndarray of bool, shape (x, y, z), optional
        Where no grey matter is, whatever its prior says: beside the ventricles templates take
        mixtures of white matter and fluid for it.
    core_sd : float
        Belief that starts a lesion.
    rim_sd : float
        Contrast to white matter that it grows to, in white matter's standard deviations.
    core_fraction : float
        Least part of a lesion that is core: white matter that is a little bright far and wide,
        as around lesions, is grown into from a speck of noise otherwise.
    edge_fraction : float
        Of the largest contrast nearby in the lesion: above it a voxel is inside.
    white_contact : float
        Least part of the grey and white matter two voxels from a lesion that is white.
    bright_white_contact : float
        The same for a lesion that is too bright for grey matter.
    fluid_contact : float
        Largest part of what is two voxels away that is fluid.
    minimum_mm3 : float
        Smaller lesions are dropped.
    smoothing_mm : float
        Standard deviation of the Gaussian that takes noise from the FLAIR image.
    reach_mm : float
        How far the largest contrast is sought.

    Returns
    -------
    T2Lesions
        Memory: some 25 float32 volumes of the brain's bounding box.

    Raises
    ------
    ValueError
        If the brain is empty, or no pure grey or white matter is found in it.

    References
    ----------
    Schmidt et al. 2012, 10.1016/j.neuroimage.2011.11.032; Van Leemput et al. 2001,
    10.1109/42.938237.
    """
    if not brain.any():
        raise ValueError("the brain mask is empty")
    box = bounding_box(brain)
    inside = brain[box]
    priors = _priors(white_prior[box], grey_prior[box])
    tissue = tissue_probabilities(t1w[box], inside, priors)
    expected = _expected_tissue(priors, tissue, None if stem is None else stem[box], voxel_mm)
    smooth = _blurred(flair[box], smoothing_mm, voxel_mm)
    smooth, levels, white = _normalised(smooth, inside, tissue, expected, voxel_mm)
    belief, contrast = _belief(smooth, inside, expected, levels)
    grey = expected[GREY] >= 0.5
    if free_of_grey is not None:
        grey &= ~free_of_grey[box]
    around = tissue * (1 - expected[STEM])
    around[WHITE] += expected[STEM] * (1 - tissue[FLUID])
    around[FLUID] = tissue[FLUID]
    contacts = (white_contact, bright_white_contact, fluid_contact)
    found = _grown(
        belief > core_sd,
        contrast,
        inside & ~grey & (expected[FLUID] < 0.5),
        _Surroundings(around, smooth > levels.means[GREY] + core_sd * levels.bright_grey_sd),
        _Rules(rim_sd, core_fraction, edge_fraction, minimum_mm3, contacts, reach_mm),
        voxel_mm,
    )
    return T2Lesions(
        mask=place(found, box, brain.shape),
        belief=place(belief, box, brain.shape),
        white=place(white & ~found, box, brain.shape),
        levels=levels,
    )


def tissue_probabilities(t1w: Float32, brain: Bool, priors: Float32) -> Float32:
    """Return the probability of each tissue from T1w intensity and location.

    One Gaussian for each tissue, fitted by expectation-maximisation to a regular choice of
    voxels; the priors stay where they are.

    Parameters
    ----------
    t1w : ndarray of float32, shape (x, y, z)
    brain : ndarray of bool, shape (x, y, z)
    priors : ndarray of float32, shape (k, x, y, z)
        Positive; their sum does not matter.

    Returns
    -------
    ndarray of float32, shape (k, x, y, z)
        Zero outside the brain.

    References
    ----------
    Ashburner and Friston 2005, 10.1016/j.neuroimage.2005.02.018.
    """
    values = t1w[brain].astype(np.float64)
    prior = priors[:, brain].astype(np.float64)
    prior /= prior.sum(axis=0)
    every = max(1, values.size // _EM_VOXELS)
    some, some_prior = values[::every], prior[:, ::every]
    # only where a prior is sure does it tell a first mean
    weight = some_prior**4
    mean = (weight * some).sum(axis=1) / weight.sum(axis=1)
    least_sd = 1e-3 * (float(some.std()) + 1e-30)
    sd = np.full(len(mean), float(some.std()) / 2 + least_sd)
    for _ in range(_EM_ROUNDS):
        share = _posterior(some, some_prior, mean, sd)
        total = share.sum(axis=1) + 1e-30
        mean = (share * some).sum(axis=1) / total
        sd = np.sqrt((share * (some - mean[:, None]) ** 2).sum(axis=1) / total) + least_sd
    probabilities = np.zeros(priors.shape, np.float32)
    probabilities[:, brain] = _posterior(values, prior, mean, sd)
    return probabilities


def _posterior(values: Float64, prior: Float64, mean: Float64, sd: Float64) -> Float64:
    distance = (values - mean[:, None]) / sd[:, None]
    likelihood = prior * np.exp(-0.5 * distance**2) / sd[:, None] + 1e-300
    return np.asarray(likelihood / likelihood.sum(axis=0), np.float64)


def _priors(white: Float32, grey: Float32) -> Float32:
    priors = np.stack([grey, white, np.clip(1 - white - grey, 0, 1)]) + np.float32(_FLOOR)
    return np.asarray(priors, np.float32)


def _expected_tissue(
    priors: Float32, tissue: Float32, stem: Bool | None, voxel_mm: tuple[float, float, float]
) -> Float32:
    """Return what tissue should be at each voxel by the priors and its neighbours."""
    expected = np.zeros((4, *tissue.shape[1:]), np.float32)
    for k in (GREY, WHITE, FLUID):
        expected[k] = priors[k] * (_blurred(tissue[k], _NEIGHBOURS_MM, voxel_mm) + 1e-3)
    expected /= expected.sum(axis=0)
    if stem is not None:
        soft = _blurred(stem.astype(np.float32), 1.0, voxel_mm) * (1 - expected[FLUID])
        expected *= 1 - soft
        expected[STEM] = soft
    return expected


def _normalised(
    flair: Float32,
    brain: Bool,
    tissue: Float32,
    expected: Float32,
    voxel_mm: tuple[float, float, float],
) -> tuple[Float32, FlairLevels, Bool]:
    """Return the FLAIR image with white matter equally bright everywhere, and its levels."""
    sure = brain & (tissue[WHITE] > _SURE)
    mean, sd = _robust(flair[sure & (expected[WHITE] > _SURE_THERE)], "white matter")
    normal = sure & (expected[WHITE] > 0.5) & (np.abs(flair - mean) < _OUTLYING * sd)
    weight = _blurred(normal.astype(np.float32), _LOCAL_MM, voxel_mm)
    total = _blurred(np.where(normal, flair, 0).astype(np.float32), _LOCAL_MM, voxel_mm)
    # where white matter is far away the mean of all of it stands in
    local = (total + 2e-3 * mean) / (weight + 2e-3)
    flat = (flair * (mean / local)).astype(np.float32)
    grey, pure_white = (
        flat[brain & (tissue[k] > _SURE) & (expected[k] > _SURE_THERE)] for k in (GREY, WHITE)
    )
    levels = [_robust(grey, "grey matter"), _robust(pure_white, "white matter")]
    fluid = flat[brain & (tissue[FLUID] > _SURE) & (expected[FLUID] > _SURE_THERE)]
    stem = flat[brain & (expected[STEM] > _SURE_THERE)]
    # fluid near vessels and plexus varies widely; nothing in it is a lesion of white matter
    levels.append((_robust(fluid, "")[0] if fluid.size else 0.0, levels[GREY][1]))
    levels.append(_robust(stem, "") if stem.size else levels[WHITE])
    bright_grey_sd = (float(np.percentile(grey, 95)) - levels[GREY][0]) / _SD_AT_95
    means, sds = zip(*levels, strict=True)
    return flat, FlairLevels(means, sds, bright_grey_sd), normal


def _robust(values: Float32, what: str) -> tuple[float, float]:
    """Return mean and standard deviation of the bulk of values that may hold outliers."""
    if not values.size:
        raise ValueError(f"no pure {what} was found in the brain: check the registration")
    middle = float(np.median(values))
    sd = _MAD_TO_SD * float(np.median(np.abs(values - middle)))
    for _ in range(5):
        bulk = values[np.abs(values - middle) <= _OUTLYING * sd]
        middle = float(np.median(bulk))
        sd = _CUT_SD * _MAD_TO_SD * float(np.median(np.abs(bulk - middle)))
    return middle, sd


def _belief(
    flair: Float32, brain: Bool, expected: Float32, levels: FlairLevels
) -> tuple[Float32, Float32]:
    """Return the excess over the expected mixture, and the contrast to white matter, in SDs."""
    means = np.array(levels.means, np.float32)
    mean = np.einsum("k,k...->...", means, expected)
    variance = np.zeros_like(mean)
    for k, sd in enumerate(levels.sds):
        variance += expected[k] * (np.float32(sd) ** 2 + (means[k] - mean) ** 2)
    belief = np.where(brain, (flair - mean) / np.sqrt(np.maximum(variance, 1e-12)), 0)
    # without white matter nearby the level is that of white matter
    stem = expected[STEM] / (expected[WHITE] + expected[STEM] + _FLOOR)
    white = means[WHITE] + stem * (means[STEM] - means[WHITE])
    spread = np.float32(levels.sds[WHITE])
    spread = spread + stem * (np.float32(levels.sds[STEM]) - spread)
    contrast = (flair - white) / np.maximum(spread, 1e-6)
    return belief.astype(np.float32), contrast.astype(np.float32)


@dataclass(frozen=True)
class _Rules:
    """What a lesion keeps, and what it must be: see :func:`t2_lesions`."""

    rim_sd: float
    core_fraction: float
    edge_fraction: float
    minimum_mm3: float
    contacts: tuple[float, float, float]
    reach_mm: float


@dataclass(frozen=True)
class _Surroundings:
    """Tissue probabilities, and where it is too bright for grey matter."""

    tissue: Float32
    beyond_grey: Bool


def _grown(
    core: Bool,
    contrast: Float32,
    allowed: Bool,
    around: _Surroundings,
    rules: _Rules,
    voxel_mm: tuple[float, float, float],
) -> Bool:
    """Return lesions grown from the core; what fails is tried again at higher thresholds."""
    # the voxels within reach of a voxel are a cube: cheap, and the lesion bounds it
    reach = [2 * max(1, round(rules.reach_mm / v)) + 1 for v in voxel_mm]
    found, left = np.zeros_like(core), core.copy()
    for step in range(_STEPS):
        rim = contrast > rules.rim_sd + step * _STEP_SD
        pieces, count = ndimage.label((allowed & rim) | left, _FACES)
        kept = np.zeros(count + 1, bool)
        kept[np.unique(pieces[left])] = True
        kept[0] = False
        candidates = kept[pieces]
        peak = ndimage.maximum_filter(np.where(candidates, contrast, 0), size=reach)
        candidates &= (contrast > rules.edge_fraction * peak) & ~found
        added = _among_white(candidates, left, around, rules, float(np.prod(voxel_mm)))
        found |= added
        left &= ~ndimage.binary_dilation(added, _CORNERS)
        if not left.any():
            break
    return np.asarray(ndimage.binary_fill_holes(found), bool)


def _among_white(
    candidates: Bool,
    core: Bool,
    around: _Surroundings,
    rules: _Rules,
    voxel_mm3: float,
) -> Bool:
    """Return the candidates with enough core that are large enough and lie in white matter."""
    least_white, least_white_bright, most_fluid = rules.contacts
    least_core = max(rules.core_fraction, 1e-9)  # some there must be
    pieces, _ = ndimage.label(candidates, _CORNERS)
    found = np.zeros_like(candidates)
    for number, part in enumerate(ndimage.find_objects(pieces), start=1):
        box = tuple(slice(max(0, s.start - 2), s.stop + 2) for s in part)
        piece = pieces[box] == number
        core_part = core[box][piece].mean()
        if piece.sum() * voxel_mm3 < rules.minimum_mm3 or core_part < least_core:
            continue
        # the voxels right at the lesion hold a part of it
        shell = ndimage.binary_dilation(piece, iterations=2) & ~ndimage.binary_dilation(piece)
        tissue = around.tissue[:, *box]
        grey, white, fluid = (float(tissue[k][shell].sum()) for k in (GREY, WHITE, FLUID))
        bright = around.beyond_grey[box][piece].mean() >= _BRIGHT_SHARE
        least = least_white_bright if bright else least_white
        if white >= least * (white + grey) and fluid <= most_fluid * (white + grey + fluid):
            found[box] |= piece
    return found


def _blurred(volume: Float32, sigma_mm: float, voxel_mm: tuple[float, float, float]) -> Float32:
    if sigma_mm == 0:
        return volume
    sigma = [sigma_mm / v for v in voxel_mm]
    return np.asarray(ndimage.gaussian_filter(volume, sigma, truncate=3.0), np.float32)
