"""Fewer streaks from unreliable voxels: the map is made twice, with them and without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Bool, Float32
from bids_qsm.numerics.registry import Methods

Reconstruct = Callable[[FieldMap], tuple[Float32, Bool]]
"""From the total field to susceptibility (ppm) and the mask in which it is known."""


def off(total: FieldMap, quality: Float32, chi_ppm: Float32, reconstruct: Reconstruct) -> Float32:
    """Leave the map as it is."""
    return chi_ppm


def two_pass(
    total: FieldMap,
    quality: Float32,
    chi_ppm: Float32,
    reconstruct: Reconstruct,
    *,
    quality_threshold: float = 0.3,
    noise_factor: float = 10.0,
) -> Float32:
    """Replace the reliable voxels by those of a map that is made without the unreliable ones.

    Where the signal is gone (a calcification, a haemorrhage) the field is arbitrary, and around
    it so strong that any misfit streaks far into the brain.  The further map is made of the
    reliable voxels alone: background removal takes the field of what lies in the holes for
    background, like that of what lies outside the brain.  Unreliable voxels keep their value from
    the map of the whole mask.  Where strong sources still have a signal, two passes know less of
    their field than one: the marks of the unreliable are therefore set to lost signal.

    Parameters
    ----------
    total : FieldMap
        Total field, within the whole mask.
    quality : ndarray of float32, shape (x, y, z)
        Phase quality, 0 to 1.
    chi_ppm : ndarray of float32, shape (x, y, z)
        The map of the whole mask.
    reconstruct : callable
        Background removal and inversion: returns susceptibility in ppm and where it is known.
    quality_threshold : float
        Quality above which a voxel is reliable; noise has about 0.05, tissue 0.7 to 0.9.
    noise_factor : float
        Noise, in units of its median, below which a voxel is reliable.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Susceptibility in ppm.  Each map is known up to a constant: the reliable voxels' is set so
        that their median is that of the map of the whole mask.  Memory: four volumes besides
        that of ``reconstruct``.

    References
    ----------
    Stewart et al. 2022, 10.1002/mrm.29048.
    """
    reliable = _reliable(total, quality, quality_threshold, noise_factor)
    if not reliable.any() or reliable.sum() == total.mask.sum():
        return chi_ppm
    field_ppm = np.where(reliable, total.field_ppm, np.float32(0))
    noise_ppm = np.where(reliable, total.noise_ppm, np.float32(np.inf))
    first_ppm, known = reconstruct(
        replace(total, field_ppm=field_ppm, noise_ppm=noise_ppm, mask=reliable)
    )
    if not known.any():
        return chi_ppm
    constant = np.median(chi_ppm[known]) - np.median(first_ppm[known])
    return np.where(known, first_ppm + np.float32(constant), chi_ppm)


def _reliable(
    total: FieldMap, quality: Float32, quality_threshold: float, noise_factor: float
) -> Bool:
    """Return the mask's voxels of good quality and little noise; holes stay open."""
    reliable = total.mask & (quality > quality_threshold) & np.isfinite(total.noise_ppm)
    if reliable.any():
        reliable &= total.noise_ppm <= noise_factor * np.median(total.noise_ppm[reliable])
    return reliable


METHODS: Methods = {"off": off, "two-pass": two_pass}
