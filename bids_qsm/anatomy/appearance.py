"""Labels fitted to what a head looks like: a Gaussian for each structure, an atlas as the prior."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.anatomy.deep_grey import Contrasts
from bids_qsm.numerics.geometry import Bool, Float32

Float64 = NDArray[np.float64]

REACH_MM = 6.0
"""How far from the atlas' structures a voxel may still belong to one."""
LEAST_DOUBT_MM, DOUBT_OF_RADIUS = 0.7, 0.25
BACKGROUND_QUANTILES = (0.05, 0.4, 0.9)
"""Where in the T1w's brightness the background's classes begin: fluid, grey, white."""
NEIGHBOURS_MM = 0.8
PLAUSIBLE = 1e-3
"""Expectation below which a label has no neighbours to draw."""
SHARES = (0.125, 0.375, 0.625, 0.875)
"""How much of a mixed voxel may be the first of its two classes."""
LEAST_PAIR = 0.002
"""Expectation of both classes, multiplied, below which no voxel is mixed of them."""
UNLIKE_SHARES = 0.2
"""How far the shares of χ, whose voxels are larger and lie otherwise, may be from the T1w's."""
NOISE = (0.02, 0.004)
"""Least deviation of T1w (of white matter's brightness) and of χ (ppm)."""
USUAL_VOXELS = 20.0
"""How many voxels the usual covariance of a structure is worth beside its own."""
OUTLIER = 25.0
"""Squared Mahalanobis distance beyond which a voxel is no less likely: a vein, a calcification."""


@dataclass(frozen=True)
class _Features:
    """The voxels that are fitted: T1w and, where there is one, χ; ``complete`` where χ holds."""

    values: Float64
    complete: Bool


@dataclass(frozen=True)
class _Part:
    """The box around a class: its shape, which of the fitted voxels it has, and where in it."""

    shape: tuple[int, ...]
    which: NDArray[np.int64]
    places: tuple[NDArray[np.int64], ...]


def fit_to_appearance(
    priors: Float32,
    contrasts: Contrasts,
    *,
    doubt_mm: float = 2.0,
    coupling: float = 2.0,
    iterations: int = 8,
) -> Float32:
    """Return the probability of each label, given where an atlas expects it and how it looks.

    Each label has one Gaussian of T1w and χ together, what lies around has three.  A voxel is
    taken as two halves, each of which belongs to a class as the atlas expects it; where the two
    differ it is a mixture of unknown shares, and goes to the class with the larger one: borders
    come to lie half way between what is on either side.  Means and covariances are fitted to the
    unmixed voxels by expectation-maximisation, starting from where the atlas is sure.  Neighbours
    draw a voxel to their label (mean field).

    Parameters
    ----------
    priors : ndarray of float32, shape (labels, x, y, z)
        What the registered atlas says, 0 to 1; the background has the rest.
    contrasts : Contrasts
        On the same grid.  Where χ is exactly zero there is none, and the T1w decides alone.
    doubt_mm : float
        How far the atlas' borders may be wrong: its labels are blurred by this, small ones by
        a quarter of their radius.
    coupling : float
        How much neighbours count.
    iterations : int

    Returns
    -------
    ndarray of float32, shape (labels, x, y, z)

    Notes
    -----
    The memory is some four times that of ``priors``.

    References
    ----------
    Van Leemput et al. 1999, 10.1109/42.811270; Ashburner & Friston 2005,
    10.1016/j.neuroimage.2005.02.018; mixed voxels: Van Leemput et al. 2003,
    10.1109/TMI.2002.806587.
    """
    voxel_mm = contrasts.t1w.geometry.voxel_mm
    expected = priors.sum(axis=0)
    if not (expected >= 0.5).any():
        return priors
    near = ndimage.distance_transform_edt(expected < 0.5, sampling=voxel_mm) <= REACH_MM
    region = near & (contrasts.t1w.data > 0)
    prior = np.stack([_doubted(p, doubt_mm, voxel_mm)[region] for p in priors]).astype(np.float64)
    background = np.clip(1 - prior.sum(axis=0), 1e-4, 1)
    features = _features(contrasts, region)
    means, covariances = _first_guess(prior, features)
    n_labels, n_background = len(prior), len(means) - len(prior)
    parts = _parts(np.concatenate([prior, background[None]]), region, voxel_mm)
    shares = np.full(n_background, 1 / n_background)
    posterior = np.concatenate([prior, background * shares[:, None]])
    pull = np.zeros_like(posterior)
    for iteration in range(iterations):
        expected_now = np.concatenate([prior, background * shares[:, None]])
        logarithm = np.log(expected_now / expected_now.sum(axis=0) + 1e-6) + coupling * pull
        drawn = np.exp(logarithm - logarithm.max(axis=0))
        drawn /= drawn.sum(axis=0)
        posterior, unmixed = _posteriors(drawn, features, means, covariances)
        if iteration < iterations - 3:  # the last ones settle the neighbours
            certain = np.concatenate([unmixed[:n_labels] * prior, unmixed[n_labels:]])
            means, covariances = _fitted(certain, features, means, covariances)
            weights = posterior[n_labels:].sum(axis=1)
            shares = weights / weights.sum()
        pull = _pull_of_neighbours(posterior, parts, voxel_mm)
    fitted = np.zeros_like(priors)
    for label in range(n_labels):
        fitted[label][region] = posterior[label]
    return fitted


def _doubted(prior: Float32, doubt_mm: float, voxel_mm: tuple[float, ...]) -> Float32:
    """Return a label blurred by how far its border may be wrong."""
    volume_mm3 = float(prior.sum(dtype=np.float64)) * float(np.prod(voxel_mm))
    radius_mm = float(np.cbrt(3 * volume_mm3 / (4 * np.pi)))
    sigma_mm = min(doubt_mm, max(LEAST_DOUBT_MM, DOUBT_OF_RADIUS * radius_mm))
    return ndimage.gaussian_filter(prior, [sigma_mm / v for v in voxel_mm])


def _features(contrasts: Contrasts, region: Bool) -> _Features:
    t1w = contrasts.t1w.data[region].astype(np.float64)
    if contrasts.chi is None:
        return _Features(t1w[:, None], np.ones(len(t1w), bool))
    chi = contrasts.chi.data[region].astype(np.float64)
    return _Features(np.stack([t1w, chi], axis=1), chi != 0)


def _first_guess(prior: Float64, features: _Features) -> tuple[Float64, Float64]:
    """Return means and covariances of the labels, where the atlas is sure, and the background."""
    values = features.values[features.complete]
    prior = prior[:, features.complete]
    noise = np.diag(np.square(NOISE[: values.shape[1]]))
    means, covariances = [], []
    for expected in prior:
        core = values[expected >= 0.9 * expected.max()] if expected.any() else values
        mean = np.median(core, axis=0)
        deviation = 1.4826 * np.median(np.abs(core - mean), axis=0)
        means.append(mean)
        covariances.append(np.diag(deviation**2) + noise)
    around = values[prior.sum(axis=0) < 0.3]
    around = around if len(around) > 100 else values
    starts = np.quantile(around[:, 0], BACKGROUND_QUANTILES)
    nearest = np.abs(around[:, :1] - starts).argmin(axis=1)
    for k in range(len(starts)):
        members = around[nearest == k] if (nearest == k).sum() > 10 else around
        means.append(members.mean(axis=0))
        covariances.append(np.diag(members.var(axis=0)) + 4 * noise)
    return np.stack(means), np.stack(covariances)


def _fitted(
    weights: Float64, features: _Features, means: Float64, covariances: Float64
) -> tuple[Float64, Float64]:
    """Return the weighted means and covariances; a class that has hardly a voxel keeps its own."""
    values = features.values[features.complete]
    weights = weights[:, features.complete]
    noise = np.diag(np.square(NOISE[: values.shape[1]]))
    usual = np.median(covariances, axis=0)
    new_means, new_covariances = means.copy(), covariances.copy()
    for k, weight in enumerate(weights):
        total = weight.sum()
        if total < USUAL_VOXELS:
            continue
        new_means[k] = (weight[:, None] * values).sum(axis=0) / total
        off = values - new_means[k]
        scatter = np.einsum("v,vi,vj->ij", weight, off, off) + USUAL_VOXELS * usual
        new_covariances[k] = scatter / (total + USUAL_VOXELS) + noise
    return new_means, new_covariances


def _posteriors(
    expected: Float64, features: _Features, means: Float64, covariances: Float64
) -> tuple[Float64, Float64]:
    """Return each class' probability in each voxel (classes, voxels), and that of it alone.

    The first has the voxels of which more than half is of the class, the second those that are
    not mixed.
    """
    by_t1w, by_both = _densities(means, covariances)
    posterior, unmixed = _shared(
        np.ascontiguousarray(expected.T),
        features.values,
        features.complete & (features.values.shape[1] > 1),
        by_t1w,
        by_both,
        np.array(SHARES) > 0.5,
    )
    return posterior.T, unmixed.T


def _densities(means: Float64, covariances: Float64) -> tuple[Float64, Float64]:
    """Return what tells the densities of classes (a, a) and of mixtures (a, b) by their shares.

    By the T1w alone it is the mean, the precision and the logarithm of the variance; by both
    the two means, the precisions' matrix (three) and the logarithm of the determinant.
    """
    n, n_contrasts = means.shape
    share = np.array([0.0, *SHARES])  # 0: the class alone
    a, b = (slice(None), None), (None, slice(None))
    mean = np.multiply.outer(means[a], 1 - share) + np.multiply.outer(means[b], share)
    spread = np.multiply.outer(covariances[a], 1 - share) + np.multiply.outer(covariances[b], share)
    mean, spread = np.moveaxis(mean, -1, 2), np.moveaxis(spread, -1, 2)
    variance = spread[..., 0, 0]
    by_t1w = np.stack([mean[..., 0], 1 / variance, np.log(variance)], axis=-1)
    if n_contrasts == 1:
        return by_t1w, np.zeros((n, n, len(share), 6))
    unlike = UNLIKE_SHARES * (means[a][..., 1] - means[b][..., 1])
    spread[:, :, 1:, 1, 1] += np.square(unlike)[..., None]
    precision = np.linalg.inv(spread)
    parts = [mean[..., 0], mean[..., 1], precision[..., 0, 0], precision[..., 0, 1]]
    parts += [precision[..., 1, 1], np.log(np.linalg.det(spread))]
    return by_t1w, np.stack(parts, axis=-1)


@numba.njit(cache=True)
def _far(value, other, both, by_t1w, by_both):  # type: ignore[no-untyped-def]
    """Return the squared Mahalanobis distance, and the logarithm of the determinant."""
    if not both:
        off = value - by_t1w[0]
        return by_t1w[1] * off * off, by_t1w[2]
    off, off_chi = value - by_both[0], other - by_both[1]
    crossed = 2 * by_both[3] * off * off_chi
    return by_both[2] * off * off + crossed + by_both[4] * off_chi * off_chi, by_both[5]


@numba.njit(parallel=True, cache=True)
def _shared(expected, values, complete, by_t1w, by_both, is_second):  # type: ignore[no-untyped-def]
    """Return probabilities (voxels, classes) of what a voxel mostly is, and of what it is alone."""
    n_voxels, n_classes = expected.shape
    mostly = np.zeros((n_voxels, n_classes))
    alone = np.zeros((n_voxels, n_classes))
    n_shares = len(is_second)
    for v in numba.prange(n_voxels):
        value, other, both = values[v, 0], values[v, -1], complete[v]
        top = -np.inf
        for a in range(n_classes):
            far, spread = _far(value, other, both, by_t1w[a, a, 0], by_both[a, a, 0])
            alone[v, a] = -0.5 * (min(far, OUTLIER) + spread)
            top = max(top, alone[v, a])
        for a in range(n_classes):
            alone[v, a] = expected[v, a] ** 2 * np.exp(alone[v, a] - top)
            mostly[v, a] = alone[v, a]
        for a in range(n_classes):
            for b in range(a):
                pair = expected[v, a] * expected[v, b]
                if pair < LEAST_PAIR:
                    continue
                for s in range(n_shares):
                    far, spread = _far(
                        value, other, both, by_t1w[a, b, s + 1], by_both[a, b, s + 1]
                    )
                    weight = 2 * pair / n_shares * np.exp(-0.5 * (far + spread) - top)
                    mostly[v, b if is_second[s] else a] += weight
        total = mostly[v].sum()
        mostly[v] /= total
        alone[v] /= total
    return mostly, alone


def _parts(expected: Float64, region: Bool, voxel_mm: tuple[float, ...]) -> list[_Part]:
    """Return the box of each label, with room for its neighbours, and of the background."""
    voxels = np.argwhere(region)
    margin = np.ceil(4 * NEIGHBOURS_MM / np.array(voxel_mm)).astype(int)
    parts = []
    for one in expected:
        own = voxels[one > PLAUSIBLE] if (one > PLAUSIBLE).any() else voxels[:1]
        first = own.min(axis=0) - margin
        last = own.max(axis=0) + margin + 1
        which = np.flatnonzero(((voxels >= first) & (voxels < last)).all(axis=1))
        parts.append(_Part(tuple(last - first), which, tuple((voxels[which] - first).T)))
    return parts


def _pull_of_neighbours(
    posterior: Float64, parts: list[_Part], voxel_mm: tuple[float, ...]
) -> Float64:
    """Return how much of each class is around a voxel; the background's classes are one."""
    sigma = [NEIGHBOURS_MM / v for v in voxel_mm]
    out = np.zeros_like(posterior)
    n_labels = len(parts) - 1
    for label, part in enumerate(parts):
        is_label = label < n_labels
        image = np.full(part.shape, 0 if is_label else 1, np.float32)
        own = posterior[label] if is_label else posterior[n_labels:].sum(axis=0)
        image[part.places] = own[part.which]
        around = ndimage.gaussian_filter(image, sigma, mode="nearest")[part.places]
        if is_label:
            out[label, part.which] = around
        else:
            out[n_labels:, part.which] = around
    return out
