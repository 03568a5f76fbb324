"""Fluid, grey and white matter of a T1-weighted image: shares of each in every voxel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from bids_qsm.numerics.geometry import Bool, Float32

TISSUES = ("CSF", "GM", "WM")
_PAIRS = ((0, 1), (1, 2))
_N_CLASSES = len(TISSUES) + len(_PAIRS)
"""The pure tissues in the order of brightness, then the mixtures of neighbours among them."""
_CENTRES = np.array([0.0, 1.0, 2.0, 0.5, 1.5])
"""Each class' place between fluid (0) and white matter (2)."""
_BINS = 512
_EM_ROUNDS = 60
_FIELD_ROUNDS = 6
_LOCAL_REACH_MM = 12.0
_LOCAL_VOTES_MM3 = 400.0
"""So much of a tissue around a voxel has as much say in its brightness there as the whole head."""


@dataclass(frozen=True)
class TissueMixture:
    """What the brightness of a voxel says about its tissue.

    Attributes
    ----------
    means, sds : ndarray, shape (3,)
        Brightness of pure fluid, grey and white matter.
    weights : ndarray, shape (5,)
        Share of the voxels that are pure (3) and mixed (fluid with grey, grey with white).
    """

    means: NDArray[np.float64]
    sds: NDArray[np.float64]
    weights: NDArray[np.float64]


def fit_tissue_mixture(
    values: NDArray[np.floating],
    start_means: tuple[float, float, float],
) -> TissueMixture:
    """Fit pure and mixed tissues to the histogram of a brain by expectation-maximisation.

    A mixed voxel holds two tissues in any proportion alike: its density is that of a Gaussian
    whose mean is spread evenly between the two.

    Parameters
    ----------
    values : ndarray
        Brightness of the brain's voxels.
    start_means : tuple of float
        Fluid, grey, white: in rising order.

    Raises
    ------
    ValueError
        If the means do not rise.

    References
    ----------
    Santago and Gage 1993, 10.1109/42.241880; Laidlaw et al. 1998, 10.1109/42.668696.
    """
    means = np.array(start_means, np.float64)
    if not (np.diff(means) > 0).all():
        raise ValueError(f"fluid, grey and white matter must rise in brightness, got {start_means}")
    top = means[2] + (means[2] - means[1])
    edges = np.linspace(min(0.0, float(means[0])), top, _BINS + 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    share = counts / counts.sum()
    centres = (edges[1:] + edges[:-1]) / 2
    sds = np.full(3, 0.15 * (means[2] - means[0]))
    weights = np.full(_N_CLASSES, 1 / _N_CLASSES)
    for _ in range(_EM_ROUNDS):
        density = weights[:, None] * _densities(centres, means[:, None], sds)
        posterior = density / np.maximum(density.sum(axis=0), 1e-30) * share
        weights = posterior.sum(axis=1)
        pure = np.maximum(posterior[:3].sum(axis=1), 1e-9)
        means = (posterior[:3] * centres).sum(axis=1) / pure
        spread = (posterior[:3] * (centres - means[:, None]) ** 2).sum(axis=1) / pure
        sds = np.sqrt(np.maximum(spread, (edges[1] - edges[0]) ** 2))
    return TissueMixture(means, sds, weights / weights.sum())


def _densities(
    values: NDArray[np.floating], means: NDArray[np.floating], sds: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the five classes' densities; ``means`` may differ from voxel to voxel."""
    pure = [
        np.exp(-0.5 * ((values - means[k]) / sds[k]) ** 2) / (sds[k] * np.sqrt(2 * np.pi))
        for k in range(3)
    ]
    mixed = []
    for a, b in _PAIRS:
        sd = (sds[a] + sds[b]) / 2
        step = special.ndtr((values - means[a]) / sd) - special.ndtr((values - means[b]) / sd)
        mixed.append(step / (means[b] - means[a]))
    return np.stack([*pure, *mixed])


def tissue_shares(
    image: Float32,
    mask: Bool,
    voxel_mm: tuple[float, float, float],
    mixture: TissueMixture,
    *,
    neighbours: float = 0.6,
) -> Float32:
    """Return how much fluid, grey and white matter each voxel of a brain holds.

    A Markov random field makes a voxel's class like its six neighbours' (mean-field rounds);
    the tissues' brightness may then drift over some centimetres.  A mixed voxel is parted by
    where its brightness lies between its tissues'.

    Parameters
    ----------
    image : ndarray of float32, shape (x, y, z)
        Brightness, receive field removed.
    mask : ndarray of bool, shape (x, y, z)
        The brain with its fluid.
    voxel_mm : tuple of float
    mixture : TissueMixture
    neighbours : float
        Weight of the neighbours; 0 looks at each voxel alone.

    Returns
    -------
    ndarray of float32, shape (3, x, y, z)
        Shares that sum to 1 in the mask, 0 elsewhere.

    Notes
    -----
    Memory: some 25 floats for each voxel of the mask, and two volumes.

    References
    ----------
    Mean field: Zhang 1992, 10.1109/78.157297.  Partial volumes: Tohka et al. 2004,
    10.1016/j.neuroimage.2004.05.007.  Drift: Rajapakse et al. 1997, 10.1109/42.563663.
    """
    values = image[mask].astype(np.float32)
    means = np.repeat(mixture.means.astype(np.float32)[:, None], values.size, axis=1)
    posterior = _posterior(values, means, mask, mixture, neighbours)
    means = _local_means(values, posterior, mask, voxel_mm, mixture)
    posterior = _posterior(values, means, mask, mixture, neighbours)
    shares = np.zeros((3, *mask.shape), np.float32)
    shares[:, mask] = _parted(values, means, posterior)
    return shares


def _posterior(
    values: Float32, means: Float32, mask: Bool, mixture: TissueMixture, neighbours: float
) -> Float32:
    """Return the five classes' probabilities in the mask, by mean-field rounds."""
    density = _densities(values, means, mixture.sds)
    alone = np.log(np.maximum(density, 1e-20)).astype(np.float32)
    alone += np.log(np.maximum(mixture.weights, 1e-4)).astype(np.float32)[:, None]
    posterior = _normalised(alone)
    if neighbours:
        alike = np.float32(neighbours) * _alike()
        for _ in range(_FIELD_ROUNDS):
            around = _neighbours(posterior, mask)
            # einsum: its sums do not depend on the number of threads
            posterior = _normalised(alone + np.einsum("ij,jv->iv", alike, around))
    return posterior


def _alike() -> Float32:
    """Return how well each two classes lie side by side: less, the further apart they are."""
    return -np.abs(_CENTRES[:, None] - _CENTRES[None, :]).astype(np.float32)


def _normalised(log_density: Float32) -> Float32:
    exponent = np.exp(log_density - log_density.max(axis=0))
    return exponent / exponent.sum(axis=0)


def _neighbours(posterior: Float32, mask: Bool) -> Float32:
    """Return the sum of the six neighbours' posteriors; outside the mask there is none."""
    volume = np.zeros([n + 2 for n in mask.shape], np.float32)
    inner = tuple(slice(1, -1) for _ in range(3))
    around = np.empty_like(posterior)
    for k, values in enumerate(posterior):
        volume[inner][mask] = values
        total = np.zeros(mask.shape, np.float32)
        for axis in range(3):
            for step in (0, 2):
                part = list(inner)
                part[axis] = slice(step, step + mask.shape[axis])
                total += volume[tuple(part)]
        around[k] = total[mask]
    return around


def _local_means(
    values: Float32,
    posterior: Float32,
    mask: Bool,
    voxel_mm: tuple[float, float, float],
    mixture: TissueMixture,
) -> Float32:
    """Return the brightness of grey and white matter around each voxel; fluid is alike all over."""
    sigma = [_LOCAL_REACH_MM / v for v in voxel_mm]
    votes = _LOCAL_VOTES_MM3 / float(np.prod(voxel_mm))
    # a Gaussian's weights sum to 1: this many voxels fill it
    filled = float(np.prod([s * np.sqrt(2 * np.pi) for s in sigma]))
    means = np.empty((3, values.size), np.float32)
    means[0] = mixture.means[0]
    volume = np.zeros(mask.shape, np.float32)
    for k in (1, 2):
        sure = np.where(posterior[k] > 0.8, posterior[k], 0)
        volume[mask] = sure
        amount = _smooth(volume, sigma)[mask] * filled
        volume[mask] = sure * (values - mixture.means[k])
        total = _smooth(volume, sigma)[mask] * filled
        means[k] = mixture.means[k] + total / (amount + votes)
    smallest = 0.3 * (mixture.means[2] - mixture.means[1])
    means[1] = np.minimum(means[1], means[2] - smallest)
    return means


def _smooth(volume: Float32, sigma: list[float]) -> Float32:
    return ndimage.gaussian_filter(volume, sigma, mode="constant", truncate=2.5)


def _parted(values: Float32, means: Float32, posterior: Float32) -> Float32:
    shares = posterior[:3].copy()
    for k, (a, b) in enumerate(_PAIRS, start=3):
        upper = np.clip((values - means[a]) / (means[b] - means[a]), 0, 1)
        shares[a] += posterior[k] * (1 - upper)
        shares[b] += posterior[k] * upper
    return shares / shares.sum(axis=0)
