"""The field that a susceptibility distribution makes, and the shim that the scanner sets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from bids_qsm.numerics.geometry import Geometry, frequencies
from bids_qsm.phantom.noise import slabs
from bids_qsm.phantom.tissues import AIR_CHI_PPM

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]


def field_ppm(chi_ppm: Float32, geometry: Geometry, outside_ppm: float = AIR_CHI_PPM) -> Float32:
    """Return the field of a susceptibility map in an endless surrounding.

    Parameters
    ----------
    chi_ppm : ndarray of float32, shape (x, y, z)
    geometry : Geometry
    outside_ppm : float
        Susceptibility of what surrounds the map.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Relative to B0, up to a constant.

    References
    ----------
    Salomir et al. 2003, 10.1002/cmr.b.10083; Marques and Bowtell 2005, 10.1002/cmr.b.20034.
    """
    # half as many voxels again, of the surrounding's value, keep periodic copies far away; the
    # padding along x and y exists for a few planes at a time only, to save memory
    nx, ny, nz = geometry.shape
    x, y, z = (_fast_odd_length(n + n // 2) for n in geometry.shape)
    padded = geometry.with_shape((x, y, z))
    spectrum = fft.rfft(chi_ppm - np.float32(outside_ppm), n=z, axis=2)
    for planes in slabs(spectrum.shape[2]):
        part = fft.fft2(spectrum[:, :, planes], s=(x, y), axes=(0, 1))
        part *= _dipole(padded, planes)
        spectrum[:, :, planes] = fft.ifft2(part, axes=(0, 1), overwrite_x=True)[:nx, :ny]
    return np.ascontiguousarray(fft.irfft(spectrum, n=z, axis=2, overwrite_x=True)[:, :, :nz])


def _fast_odd_length(n: int) -> int:
    """Return the next length that is fast and odd: an oblique dipole has no Nyquist frequency."""
    while n % 2 == 0 or fft.next_fast_len(n) != n:
        n += 1
    return n


def _dipole(geometry: Geometry, planes: slice) -> Float32:
    """Return the unit dipole's spectrum for some planes along kz.

    The products of two frequencies, which an oblique field brings in, jump in sign from one end
    of the sampled band to the other and would ring along the axes: they fade out from half the
    band on.  Against the analytic field around a sphere this lowers the error eightfold.
    """
    kx, ky, kz = frequencies(geometry)
    k = (kx, ky, kz[:, :, planes])
    faded = [_faded(ki, v) for ki, v in zip(k, geometry.voxel_mm, strict=True)]
    squared = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    b = geometry.b0_direction
    along = sum((np.float32(bi**2) * ki**2 for bi, ki in zip(b, k, strict=True)), np.float32(0))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        along = along + np.float32(2 * b[i] * b[j]) * (faded[i] * faded[j])
    kernel = np.float32(1 / 3) - along / np.where(squared == 0, np.float32(1), squared)
    return np.where(squared == 0, np.float32(0), kernel).astype(np.float32)


def _faded(k: Float32, voxel_mm: float) -> Float32:
    """Return frequencies (1/mm) that fall to zero from half the band to its end."""
    # the cosine in float64: in float32 its last digit differs between machines
    share = np.clip(4 * voxel_mm * np.abs(k.astype(np.float64)) - 1, 0, 1)
    return (k * np.cos(np.pi / 2 * share) ** 2).astype(np.float32)


def shim(field: Float32, brain: Bool, voxel_mm: tuple[float, float, float], order: int) -> None:
    """Subtract, in place, the harmonic polynomial that fits the field in the brain best.

    Parameters
    ----------
    field : ndarray of float32, shape (x, y, z)
    brain : ndarray of bool, shape (x, y, z)
    voxel_mm : tuple of float
    order : int
        -1 (nothing), 0 (centre frequency), 1 (and gradients) or 2 (and second-order shims).
    """
    if order < 0:
        return
    stride = tuple(slice(None, None, max(n // 48, 1)) for n in field.shape)
    axes = [((np.arange(n) - n / 2) * v / 100) for n, v in zip(field.shape, voxel_mm, strict=True)]
    sampled = np.ix_(*(a[s] for a, s in zip(axes, stride, strict=True)))
    chosen = brain[stride]
    columns = np.stack(
        [np.broadcast_to(p, chosen.shape)[chosen] for p in _harmonics(sampled, order)]
    )
    weights = np.linalg.lstsq(columns.T, field[stride][chosen].astype(np.float64), rcond=None)[0]
    for slab in slabs(field.shape[0]):
        polynomials = _harmonics(np.ix_(axes[0][slab], *axes[1:]), order)
        field[slab] -= sum(w * p for w, p in zip(weights, polynomials, strict=True))


def _harmonics(axes: tuple[NDArray, ...], order: int) -> list[NDArray]:
    """Return the solid harmonics up to an order: 1, 4 or 9 of them."""
    x, y, z = axes
    harmonics = [np.ones((1, 1, 1)), x, y, z, x * y, x * z, y * z, x**2 - y**2]
    harmonics.append(2 * z**2 - x**2 - y**2)
    return harmonics[: (1, 4, 9)[order]]
