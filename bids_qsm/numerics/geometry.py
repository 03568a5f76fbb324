"""Voxel size and B0 direction, the kernels that depend on them, and real 3D FFTs.

The number of FFT threads is the caller's: wrap calls in ``scipy.fft.set_workers``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

GYROMAGNETIC_RATIO_HZ_PER_T = 42.577478e6
"""Proton gyromagnetic ratio over 2 pi."""

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Geometry:
    """Where an array lies in the scanner.

    Attributes
    ----------
    shape : tuple of int
        Number of voxels along x, y, z.
    voxel_mm : tuple of float
        Voxel size along x, y, z.
    b0_direction : tuple of float
        Unit vector of the main field in voxel axes.
    """

    shape: tuple[int, int, int]
    voxel_mm: tuple[float, float, float]
    b0_direction: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"shape must be three positive integers, got {self.shape}")
        if len(self.voxel_mm) != 3 or not all(v > 0 for v in self.voxel_mm):
            raise ValueError(f"voxel_mm must be three positive lengths, got {self.voxel_mm}")
        if abs(np.linalg.norm(self.b0_direction) - 1.0) > 1e-3:
            raise ValueError(f"b0_direction must be a unit vector, got {self.b0_direction}")

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel in mm3."""
        return float(np.prod(self.voxel_mm))

    def with_shape(self, shape: tuple[int, int, int]) -> Geometry:
        """Return the same voxels and field on another grid size."""
        return Geometry(shape, self.voxel_mm, self.b0_direction)


def hz_per_ppm(b0_t: float) -> float:
    """Return the frequency (Hz) of a field shift of 1 ppm at ``b0_t`` tesla."""
    return GYROMAGNETIC_RATIO_HZ_PER_T * b0_t * 1e-6


def forward_fft(volume: NDArray[np.floating]) -> NDArray[np.complexfloating]:
    """Return the half spectrum ``(nx, ny, nz // 2 + 1)`` of a real volume."""
    return fft.rfftn(volume)


def inverse_fft(
    spectrum: NDArray[np.complexfloating], shape: tuple[int, ...]
) -> NDArray[np.floating]:
    """Return the real volume of ``shape`` of a half spectrum, which is overwritten."""
    return fft.irfftn(spectrum, s=shape, overwrite_x=True)


def frequencies(geometry: Geometry) -> tuple[Float32, Float32, Float32]:
    """Return broadcastable spatial frequencies (1/mm) of the half spectrum."""
    (nx, ny, nz), (vx, vy, vz) = geometry.shape, geometry.voxel_mm
    kx = np.fft.fftfreq(nx, vx).astype(np.float32)[:, None, None]
    ky = np.fft.fftfreq(ny, vy).astype(np.float32)[None, :, None]
    kz = np.fft.rfftfreq(nz, vz).astype(np.float32)[None, None, :]
    return kx, ky, kz


def dipole_kernel(geometry: Geometry) -> Float32:
    r"""Return the unit dipole's half spectrum, :math:`1/3 - (k \cdot b)^2 / k^2`.

    The value at :math:`k = 0` is zero: the mean field is free.  On Nyquist planes the terms in
    which ``+k`` and ``-k`` differ are averaged out, so that the kernel is that of a real,
    symmetric operator for every B0 direction and every (odd or even) size.

    Returns
    -------
    ndarray of float32, shape (nx, ny, nz // 2 + 1)

    References
    ----------
    Salomir et al. 2003, 10.1002/cmr.b.10083; Marques and Bowtell 2005, 10.1002/cmr.b.20034.
    """
    k = frequencies(geometry)
    b = geometry.b0_direction
    # odd functions of k have no value on a Nyquist plane
    odd = [_without_nyquist(ki, n) for ki, n in zip(k, geometry.shape, strict=True)]
    squared = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    squared[0, 0, 0] = 1.0
    along = sum((np.float32(bi**2) * ki**2 for bi, ki in zip(b, k, strict=True)), np.float32(0))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        along = along + np.float32(2 * b[i] * b[j]) * (odd[i] * odd[j])
    kernel = np.float32(1 / 3) - along / squared
    kernel[0, 0, 0] = 0.0
    return np.asarray(kernel, np.float32)


def _without_nyquist(k: Float32, n: int) -> Float32:
    if n % 2:
        return k
    k = k.copy()
    k.reshape(-1)[n // 2] = 0.0
    return k


def sphere_kernel(geometry: Geometry, radius_mm: float) -> Float32:
    """Return the half spectrum of a normalised sphere, for spherical-mean filters.

    Voxels whose centre lies within ``radius_mm`` of the origin have equal weight; the sum is 1.

    Returns
    -------
    ndarray of float32, shape (nx, ny, nz // 2 + 1)
    """
    axes = [
        np.fft.fftfreq(n, 1 / n) * v for n, v in zip(geometry.shape, geometry.voxel_mm, strict=True)
    ]
    distance_squared = (
        axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2
    )
    ball = (distance_squared <= radius_mm**2 * (1 + 1e-6)).astype(np.float32)
    ball /= ball.sum(dtype=np.float64)
    return np.ascontiguousarray(forward_fft(ball).real, dtype=np.float32)


def padded_geometry(geometry: Geometry, margin_voxels: tuple[int, int, int]) -> Geometry:
    """Return the geometry with at least ``margin_voxels`` more at the end of each axis.

    Sizes are rounded up to ones for which the real FFT is fast.
    """
    x, y, z = (
        fft.next_fast_len(n + m, real=True)
        for n, m in zip(geometry.shape, margin_voxels, strict=True)
    )
    return geometry.with_shape((x, y, z))


def pad(volume: NDArray, shape: tuple[int, int, int]) -> NDArray:
    """Return ``volume`` in the first corner of a zero array of ``shape``."""
    padded = np.zeros(shape, volume.dtype)
    padded[tuple(slice(n) for n in volume.shape)] = volume
    return padded


def crop(volume: NDArray, shape: tuple[int, int, int]) -> NDArray:
    """Return the first corner of ``volume``: the inverse of :func:`pad`."""
    return np.ascontiguousarray(volume[tuple(slice(n) for n in shape)])


def bounding_box(mask: Bool) -> tuple[slice, slice, slice]:
    """Return the smallest box that holds the mask.

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    if not mask.any():
        raise ValueError("The mask is empty: there is no voxel in which the field is known.")
    spans = []
    for axis in range(3):
        occupied = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        spans.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return spans[0], spans[1], spans[2]


def place(volume: NDArray, box: tuple[slice, slice, slice], shape: tuple[int, int, int]) -> NDArray:
    """Return ``volume`` in its ``box`` of a zero array of ``shape``: undoes ``volume[box]``."""
    full = np.zeros(shape, volume.dtype)
    full[box] = volume
    return full


def margin_voxels(geometry: Geometry, margin_mm: float) -> tuple[int, int, int]:
    """Return the number of voxels that make up at least ``margin_mm`` along each axis."""
    x, y, z = (math.ceil(margin_mm / v) for v in geometry.voxel_mm)
    return x, y, z
