"""The forward model: from a head to its field and its multi-echo gradient-echo signal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from bids_qsm.images import b0_direction
from bids_qsm.numerics.geometry import Geometry, hz_per_ppm
from bids_qsm.phantom.field import field_ppm, shim
from bids_qsm.phantom.grids import random_pose
from bids_qsm.phantom.head import Phantom
from bids_qsm.phantom.noise import slabs
from bids_qsm.phantom.options import Acquisition
from bids_qsm.phantom.tissues import is_brain

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Megre:
    """A multi-echo series with its truth on the same grid.

    Attributes
    ----------
    signal : ndarray of complex64, shape (x, y, z, echo)
        Phase grows with the field.
    affine : ndarray, shape (4, 4)
    brain_mean, noise_sd : float
        Mean brain magnitude of the first echo, and the standard deviation of the noise in the
        real and in the imaginary part.
    pose : ndarray, shape (4, 4)
        Where the head was moved to (mm in the scanner).
    chi_ppm, r2star_per_s : ndarray of float32, shape (x, y, z)
        Means of the simulation's voxels in each voxel; susceptibility is 0 outside the brain.
    labels : ndarray of int16, shape (x, y, z)
        At the centre of each voxel.
    brain : ndarray of bool, shape (x, y, z)
        CSF within the skull included.
    total_field_hz, local_field_hz : ndarray of float32, shape (x, y, z)
        After the shim; and what the brain's own susceptibility gives.
    """

    signal: NDArray[np.complex64]
    affine: NDArray[np.float64]
    brain_mean: float
    noise_sd: float
    pose: NDArray[np.float64]
    chi_ppm: Float32
    r2star_per_s: Float32
    labels: NDArray[np.int16]
    brain: Bool
    total_field_hz: Float32
    local_field_hz: Float32


def simulate_megre(phantom: Phantom, acquisition: Acquisition) -> Megre:
    """Simulate the series of a head.

    The signal of the simulation's voxels is Fourier transformed and cut to the series' k-space:
    dephasing within voxels, and ringing, are those of a real scan.

    Parameters
    ----------
    phantom : Phantom
    acquisition : Acquisition

    Returns
    -------
    Megre

    Raises
    ------
    ValueError
        If the head has no brain, or the echo times do not fit the repetition time.
    """
    _check_echo_times(acquisition)
    rng = np.random.default_rng(acquisition.seed)
    pose = np.eye(4)
    skip = np.zeros(3, int)
    if acquisition.repositioned:
        pose = random_pose(rng, phantom.centre_mm(), 3.0, 4.0)
        skip = rng.integers(0, acquisition.subvoxels)
    affine = pose @ phantom.affine
    geometry = Geometry(phantom.labels.shape, phantom.voxel_mm, b0_direction(affine))
    part = _slab(phantom, acquisition, skip)
    brain = is_brain(phantom.labels[part])
    scale = np.float32(hz_per_ppm(acquisition.b0_t))
    total = field_ppm(phantom.chi_ppm, geometry)[part] * scale
    shim(total, brain, phantom.voxel_mm, acquisition.shim_order)
    inside = phantom.chi_ppm * is_brain(phantom.labels)
    local = field_ppm(inside, geometry, 0.0)[part] * scale
    signal, brain_mean = _signal(phantom, part, total, brain, acquisition, rng)
    mean = _block_mean
    blocks = acquisition.subvoxels
    centre = tuple(slice(n // 2, None, n) for n in blocks)
    return Megre(
        signal,
        _voxel_affine(affine, part, blocks),
        brain_mean,
        brain_mean / acquisition.snr,
        pose,
        mean(inside[part], blocks),
        mean(phantom.r2star_per_s[part], blocks),
        np.ascontiguousarray(phantom.labels[part][centre]),
        np.ascontiguousarray(brain[centre]),
        mean(total, blocks),
        mean(local, blocks),
    )


def _check_echo_times(acquisition: Acquisition) -> None:
    if not acquisition.te_s or max(acquisition.te_s) >= acquisition.repetition_time_s:
        raise ValueError(
            f"the last echo time must be shorter than the repetition time, "
            f"{acquisition.repetition_time_s} s, got {acquisition.te_s}."
        )


def _slab(phantom: Phantom, acquisition: Acquisition, skip: NDArray) -> tuple[slice, ...]:
    """Return the part of the simulation that is imaged: whole voxels, from below the brain up."""
    first = skip + np.array([0, 0, phantom.first_plane(acquisition.below_brain_mm)])
    return tuple(
        slice(int(a), int(a) + (n - int(a)) // b * b)
        for a, n, b in zip(first, phantom.labels.shape, acquisition.subvoxels, strict=True)
    )


def _voxel_affine(
    affine: NDArray, part: tuple[slice, ...], blocks: tuple[int, int, int]
) -> NDArray[np.float64]:
    """Return the affine of voxels that are blocks of the simulation's."""
    result = affine.copy()
    result[:3, :3] *= np.array(blocks)
    centre = [p.start + (b - 1) / 2 for p, b in zip(part, blocks, strict=True)]
    result[:3, 3] += affine[:3, :3] @ np.array(centre)
    return result


def _block_mean(volume: Float32, blocks: tuple[int, int, int]) -> Float32:
    (x, y, z), (a, b, c) = volume.shape, blocks
    split = volume.reshape(x // a, a, y // b, b, z // c, c)
    return split.mean(axis=(1, 3, 5), dtype=np.float64).astype(np.float32)


def _signal(
    phantom: Phantom,
    part: tuple[slice, ...],
    field_hz: Float32,
    brain: Bool,
    acquisition: Acquisition,
    rng: np.random.Generator,
) -> tuple[NDArray[np.complex64], float]:
    blocks = acquisition.subvoxels
    amplitude = phantom.table(
        [_steady_state(t.m0, t.r1_per_s, acquisition) for t in phantom.tissues]
    )
    shape = tuple((p.stop - p.start) // b for p, b in zip(part, blocks, strict=True))
    coil = _coil(rng, shape) if acquisition.coil_phase else np.ones(shape)
    small_brain = brain[tuple(slice(n // 2, None, n) for n in blocks)]
    signal = np.empty((*shape, len(acquisition.te_s)), np.complex64)
    brain_mean = 0.0
    for echo, te_s in enumerate(acquisition.te_s):
        volume = coil * sampled_echo(
            phantom.labels[part], phantom.r2star_per_s[part], field_hz, amplitude, te_s, blocks
        )
        if echo == 0:
            brain_mean = float(np.abs(volume[small_brain]).mean())
        noise_sd = brain_mean / acquisition.snr
        volume += noise_sd * rng.standard_normal(shape)
        volume += 1j * noise_sd * rng.standard_normal(shape)
        signal[..., echo] = volume
    return signal, brain_mean


def _steady_state(m0: float, r1_per_s: float, acquisition: Acquisition) -> float:
    """Return the spoiled gradient echo's signal at echo time 0 (Ernst 1966, 10.1063/1.1719961)."""
    flip = np.deg2rad(acquisition.flip_angle_deg)
    e1 = np.exp(-acquisition.repetition_time_s * r1_per_s)
    return float(m0 * np.sin(flip) * (1 - e1) / (1 - np.cos(flip) * e1))


def _coil(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.complex128]:
    """Return a smooth receive sensitivity with a smooth phase, polynomials of third order."""
    x, y, z = np.ix_(*(np.linspace(-1, 1, n) for n in shape))
    terms = [1, x, y, z, x * y, y * z, x * z, x**2, y**2, z**2, x**3, y**3, z**3]
    phase = sum(w * t for w, t in zip(rng.uniform(-1.2, 1.2, len(terms)), terms, strict=True))
    shading = sum(w * t for w, t in zip(rng.uniform(-0.06, 0.06, len(terms)), terms, strict=True))
    sensitivity = 1 + shading + 0.25 * (x**2 + y**2 + z**2)
    return np.clip(sensitivity, 0.4, 2.5) * (np.cos(phase) + 1j * np.sin(phase))


def sampled_echo(
    labels: NDArray[np.int16],
    r2star_per_s: Float32,
    field_hz: Float32,
    amplitude: Float32,
    te_s: float,
    blocks: tuple[int, int, int],
) -> NDArray[np.complex128]:
    """Return one echo at the series' voxels: the centre of the simulation's k-space.

    Parameters
    ----------
    labels : ndarray of int16, shape (x, y, z)
        Of the simulation; sizes are multiples of ``blocks``.
    r2star_per_s, field_hz : ndarray of float32, shape (x, y, z)
    amplitude : ndarray of float32
        Signal at echo time 0 of each label.
    te_s : float
    blocks : tuple of int
        How many of the simulation's voxels make one along each axis.

    Returns
    -------
    ndarray of complex128, one block mean's place for each voxel
    """
    x, y, z = (n // b for n, b in zip(labels.shape, blocks, strict=True))
    spectrum = np.empty((labels.shape[0], y, z), np.complex128)
    for slab in slabs(labels.shape[0]):
        # float64: its rounding vanishes in the stored integers, on every machine
        size = amplitude[labels[slab]] * np.exp(-te_s * r2star_per_s[slab].astype(np.float64))
        phase = 2 * np.pi * te_s * field_hz[slab].astype(np.float64)
        planes = np.empty(size.shape, np.complex128)
        planes.real, planes.imag = size * np.cos(phase), size * np.sin(phase)
        planes = _low_frequencies(planes, 1, y)
        spectrum[slab] = _low_frequencies(planes, 2, z)
    spectrum = _low_frequencies(spectrum, 0, x)
    return fft.ifftn(spectrum, overwrite_x=True)


def _low_frequencies(volume: NDArray, axis: int, size: int) -> NDArray[np.complex128]:
    """Return the ``size`` lowest frequencies along an axis, centred on blocks of voxels."""
    n = volume.shape[axis]
    low = fft.ifftshift(np.arange(size) - size // 2)
    spectrum = fft.fft(volume, axis=axis, overwrite_x=True).take(low % n, axis)
    # a block's centre lies half a block from its first voxel's
    ramp = np.exp(2j * np.pi * low / n * (n / size - 1) / 2) * (size / n)
    return spectrum * ramp.reshape([-1 if a == axis else 1 for a in range(volume.ndim)])
