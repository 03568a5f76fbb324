"""Labels fitted to what a head looks like: a Gaussian for each structure, an atlas as the prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.anatomy.deep_grey import Contrasts
from bids_qsm.numerics.geometry import Bool, Float32

Float64 = NDArray[np.float64]

REACH_MM = 6.0
"""How far from the atlas' structures a voxel may still belong to one."""
LEAST_DOUBT_MM, DOUBT_OF_RADIUS = 0.7, 0.25
BACKGROUND_QUANTILES = (0.05, 0.35, 0.65, 0.9)
"""Where in the T1w's brightness the background's classes begin: fluid, grey, mixed, white."""
NEIGHBOURS_MM = 0.8
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


def fit_to_appearance(
    priors: Float32,
    contrasts: Contrasts,
    *,
    doubt_mm: float = 2.0,
    coupling: float = 2.0,
    iterations: int = 12,
) -> Float32:
    """Return the probability of each label, given where an atlas expects it and how it looks.

    Each label has one Gaussian of T1w and χ together, what lies around has four.  Their means and
    covariances are fitted by expectation-maximisation, starting from where the atlas is sure.
    Neighbours draw a voxel to their label (mean field).

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
    10.1016/j.neuroimage.2005.02.018.
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
    shares = np.full(n_background, 1 / n_background)
    posterior = np.concatenate([prior, background * shares[:, None]])
    pull = np.zeros_like(posterior)
    for iteration in range(iterations):
        expected_now = np.concatenate([prior, background * shares[:, None]])
        logarithm = np.log(expected_now / expected_now.sum(axis=0) + 1e-6) + coupling * pull
        logarithm += _log_likelihood(features, means, covariances)
        posterior = np.exp(logarithm - logarithm.max(axis=0))
        posterior /= posterior.sum(axis=0)
        if iteration < iterations - 3:  # the last ones settle the neighbours
            certain = np.concatenate([posterior[:n_labels] * prior, posterior[n_labels:]])
            means, covariances = _fitted(certain, features, means, covariances)
            weights = posterior[n_labels:].sum(axis=1)
            shares = weights / weights.sum()
        pull = _pull_of_neighbours(posterior, n_labels, region, voxel_mm)
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


def _log_likelihood(features: _Features, means: Float64, covariances: Float64) -> Float64:
    """Return the logarithm of each class' density in each voxel, with what is known there."""
    out = np.empty((len(means), len(features.values)))
    for here, used in ((features.complete, features.values.shape[1]), (~features.complete, 1)):
        if not here.any():
            continue
        values = features.values[here, :used]
        for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
            part = covariance[:used, :used]
            off = values - mean[:used]
            distance = np.einsum("vi,ij,vj->v", off, np.linalg.inv(part), off)
            out[k, here] = -0.5 * (np.minimum(distance, OUTLIER) + np.log(np.linalg.det(part)))
    return out


def _pull_of_neighbours(
    posterior: Float64, n_labels: int, region: Bool, voxel_mm: tuple[float, ...]
) -> Float64:
    """Return how much of each class is around a voxel; the background's classes are one."""
    sigma = [NEIGHBOURS_MM / v for v in voxel_mm]
    out = np.empty_like(posterior)
    image = np.zeros(region.shape, np.float32)
    for label in range(n_labels):
        image[region] = posterior[label]
        out[label] = ndimage.gaussian_filter(image, sigma)[region]
    image[:] = 1
    image[region] = posterior[n_labels:].sum(axis=0)
    out[n_labels:] = ndimage.gaussian_filter(image, sigma)[region]
    return out
