"""How well susceptibility is known: the noise of the field, carried through to the map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Bool, Float32, Geometry
from bids_qsm.numerics.registry import Methods
from bids_qsm.numerics.smoothing import blurred


def replay(
    total: FieldMap,
    reconstruct: Callable[[FieldMap], tuple[Float32, Bool]],
    seed: int,
    *,
    replays: int = 2,
    noise_share: float = 0.5,
    pooling_mm: float = 3.0,
) -> Float32:
    """Return the standard deviation of susceptibility that the noise of the field makes.

    Noise is drawn from the noise map, a share of it is added to the total field, and background
    removal and inversion are run again, several times.  The variance among these replays, over
    the share squared, is averaged over a small neighbourhood, without which a few replays tell
    little.  The map as it is does not enter: a method that is not linear answers to more noise
    with another mean, which is no spread.  What is not in the noise map is not in the result:
    motion, what background removal leaves behind, noise that neighbours share, the bias of the
    method.

    Parameters
    ----------
    total : FieldMap
        Total field.  Where its noise is not known it counts as the largest that is.
    reconstruct : callable
        From the total field to susceptibility in ppm, with the zero that the map is to have, and
        the mask in which it is known: all steps as they were run.
    seed : int
        Of the random numbers; the same seed gives the same map.
    replays : int
        Number of times that noise is added, 2 or more; each takes as long as ``reconstruct``.
    noise_share : float
        Share of the noise that is added.  The data are noisy as they are: with all of it, methods
        with a threshold are more sensitive than they were; with too little, it shows where
        iterations stop.
    pooling_mm : float
        Standard deviation of the Gaussian that averages over the neighbourhood.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        In ppm, zero where susceptibility is not known.  Memory: six volumes beside that of
        ``reconstruct``.

    Raises
    ------
    ValueError
        If there are fewer than two replays, no noise is added, or it is nowhere known.

    References
    ----------
    Robson 2008, 10.1002/mrm.21728 (pseudo replicas); Welford 1962, 10.2307/1266577 (the sums).
    """
    if replays < 2:
        raise ValueError(f"The number of replays must be 2 or more, got {replays}.")
    if not noise_share > 0:
        raise ValueError(f"The share of the noise must be above 0, got {noise_share}.")
    noise_ppm = _known_everywhere(total) * np.float32(noise_share)
    mean, squares = (np.zeros(total.mask.shape, np.float32) for _ in range(2))
    mask = total.mask
    for count, generator in enumerate(np.random.default_rng(seed).spawn(replays), start=1):
        field_ppm = total.field_ppm.copy()
        field_ppm[total.mask] += noise_ppm * generator.standard_normal(
            noise_ppm.size, dtype=np.float32
        )
        chi_ppm, known = reconstruct(replace(total, field_ppm=field_ppm))
        mask = mask & known
        change = chi_ppm - mean
        mean += change / np.float32(count)
        squares += change * (chi_ppm - mean)
    squares /= np.float32((replays - 1) * noise_share**2)
    return _pooled_root(squares, mask, total.geometry, pooling_mm)


def _known_everywhere(total: FieldMap) -> Float32:
    """Return the noise in the voxels of the mask, the largest where it is not known."""
    noise_ppm = total.noise_ppm[total.mask]
    known = np.isfinite(noise_ppm)
    if not known.any():
        raise ValueError("The noise of the field is not known in any voxel of the mask.")
    return np.where(known, noise_ppm, noise_ppm[known].max())


def _pooled_root(squares: Float32, mask: Bool, geometry: Geometry, sigma_mm: float) -> Float32:
    """Return the root of the squares' weighted mean over each voxel's neighbours in the mask."""
    share = blurred(mask.astype(np.float32), geometry.voxel_mm, sigma_mm)
    squares = blurred(np.where(mask, squares, 0), geometry.voxel_mm, sigma_mm)
    # running sums may leave a rest of either sign where there is nothing
    np.maximum(squares, 0, out=squares)
    return np.sqrt(np.divide(squares, share, out=np.zeros_like(squares), where=mask))


METHODS: Methods = {"replay": replay}
