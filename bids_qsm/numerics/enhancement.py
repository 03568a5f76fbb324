"""Lesions that take up contrast agent, from T1-weighted images before and after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.distance import distance_mm
from bids_qsm.numerics.geometry import Bool, Float32

_MAD_TO_SD = 1.4826
_SIDES_AND_EDGES = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True)
class Enhancement:
    """Enhancing lesions.

    Attributes
    ----------
    labels : ndarray of int16, shape (x, y, z)
        Number of the enhancing region, the largest first; 0 is none.
    increase : ndarray of float32, shape (x, y, z)
        Rise of the signal after the agent as a fraction of white matter's signal; zero outside
        the brain.
    noise : float
        Standard deviation of ``increase`` in white matter that takes up nothing.
    volume_ml : float
    """

    labels: NDArray[np.int16]
    increase: Float32
    noise: float
    volume_ml: float

    @property
    def n_lesions(self) -> int:
        """Number of enhancing lesions."""
        return int(self.labels.max(initial=0))


def enhancing_lesions(
    before: Float32,
    after: Float32,
    brain: Bool,
    white: Bool,
    lesions: Bool,
    voxel_mm: tuple[float, float, float],
    *,
    least_noise_multiple: float = 4.0,
    least_increase: float = 0.2,
    near_mm: float = 2.0,
    minimum_mm3: float = 15.0,
    smoothing_mm: float = 0.6,
) -> Enhancement:
    """Find where T1-weighted signal rose in or beside T2 lesions.

    The image after the agent is divided by the smooth ratio of the two images in normal-appearing
    white matter, which takes the scale and what the receive fields differ by; white matter takes
    up next to nothing behind the intact blood-brain barrier.  What rises by more than the noise
    of that difference, hangs together, and touches a lesion, enhances.

    Parameters
    ----------
    before, after : ndarray of float32, shape (x, y, z)
        The two images on one grid.
    brain, white, lesions : ndarray of bool, shape (x, y, z)
        Brain; normal-appearing white matter; T2 lesions.
    voxel_mm : tuple of float
    least_noise_multiple : float
        Standard deviations of the difference's noise from which a rise counts.
    least_increase : float
        Least rise, as a fraction of white matter's signal, however little the noise.
    near_mm : float
        How far from a T2 lesion enhancement may lie: a ring is often at its edge.
    minimum_mm3 : float
        Smaller regions are vessels or noise.
    smoothing_mm : float
        Standard deviation of the Gaussian applied to the difference.

    Returns
    -------
    Enhancement
        Memory: some six volumes.

    Raises
    ------
    ValueError
        If there is no white matter outside the lesions.

    References
    ----------
    Datta et al. 2007, 10.1016/j.neuroimage.2007.05.049.
    """
    normal = white & brain & ~lesions & (before > 0) & (after > 0)
    if not normal.any():
        raise ValueError("there is no white matter outside the lesions to match the images by")
    increase = _increase(before, after, brain, normal, voxel_mm, smoothing_mm)
    quiet = increase[normal]
    middle = float(np.median(quiet))
    noise = _MAD_TO_SD * float(np.median(np.abs(quiet - middle)))
    rises = increase - middle > max(least_noise_multiple * noise, least_increase)
    near = distance_mm(~lesions, voxel_mm) <= near_mm if lesions.any() else lesions
    labels = _touching(rises & brain & near, lesions, minimum_mm3 / float(np.prod(voxel_mm)))
    volume_ml = float(np.count_nonzero(labels)) * float(np.prod(voxel_mm)) / 1000
    return Enhancement(labels, increase, noise, volume_ml)


def _increase(
    before: Float32,
    after: Float32,
    brain: Bool,
    normal: Bool,
    voxel_mm: tuple[float, float, float],
    smoothing_mm: float,
) -> Float32:
    """Return the rise of the signal in units of white matter's, the images matched in it."""
    ratio = np.ones(before.shape, np.float32)
    ratio[normal] = after[normal] / before[normal]
    typical = float(np.median(ratio[normal]))
    spread = _MAD_TO_SD * float(np.median(np.abs(ratio[normal] - typical)))
    plain = normal & (np.abs(ratio - typical) <= 3 * spread + 1e-6 * typical)
    sigma = [30.0 / v for v in voxel_mm]
    weight = ndimage.gaussian_filter(plain.astype(np.float32), sigma)
    total = ndimage.gaussian_filter(np.where(plain, ratio, 0).astype(np.float32), sigma)
    # far from white matter its typical ratio stands in
    field = (total + 1e-3 * typical) / (weight + 1e-3)
    white_signal = float(np.median(before[normal]))
    increase = np.where(brain, (after / field - before) / white_signal, 0).astype(np.float32)
    return np.asarray(
        ndimage.gaussian_filter(increase, [smoothing_mm / v for v in voxel_mm]) * brain, np.float32
    )


def _touching(rises: Bool, lesions: Bool, minimum_voxels: float) -> NDArray[np.int16]:
    """Return the pieces that share voxels with a lesion and are large enough, largest first."""
    pieces, count = ndimage.label(rises, _SIDES_AND_EDGES)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    shared = np.bincount(pieces[lesions], minlength=count + 1)
    kept = np.flatnonzero((sizes >= minimum_voxels) & (shared > 0))
    kept = kept[kept > 0]
    order = kept[np.argsort(-sizes[kept], kind="stable")]
    number = np.zeros(count + 1, np.int16)
    number[order] = np.arange(1, order.size + 1)
    return number[pieces]
