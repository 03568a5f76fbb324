"""How well a nucleus stands out in an image, and the sum of two images in which it does so best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bids_qsm.frames import pd
from bids_qsm.numerics.distance import distance_mm
from bids_qsm.numerics.geometry import Bool, Float32

Float64 = NDArray[np.float64]

FEWEST_VOXELS = 10
"""Of a region, below which nothing is said of it."""
UNLABELLED = "unlabelled"
WEAKEST, NEIGHBOUR = "weakest", "neighbour"
AGAINST = (WEAKEST, UNLABELLED, NEIGHBOUR)


@dataclass(frozen=True)
class Nucleus:
    """A nucleus of one side, on the grid of the images.

    Attributes
    ----------
    inside : ndarray of bool, shape (x, y, z)
    parts : mapping of str to ndarray of bool, shape (x, y, z)
        The tissues that it lies among, by name: what has no label (:data:`UNLABELLED`), and the
        nucleus that it must be told apart from.
    """

    inside: Bool
    parts: Mapping[str, Bool]


@dataclass(frozen=True)
class Moments:
    """Means and covariances of c images in a nucleus and in its surround.

    Attributes
    ----------
    mean, surround_mean : ndarray of float64, shape (c,)
    covariance, surround_covariance : ndarray of float64, shape (c, c)
        With N - 1.
    n, n_surround : int
        Numbers of voxels.
    """

    mean: Float64
    surround_mean: Float64
    covariance: Float64
    surround_covariance: Float64
    n: int
    n_surround: int

    @property
    def difference(self) -> Float64:
        """The means' difference, shape (c,)."""
        return self.mean - self.surround_mean

    @property
    def pooled(self) -> Float64:
        """The mean of the two covariances, shape (c, c)."""
        return (self.covariance + self.surround_covariance) / 2


def surround(
    nucleus: Nucleus,
    voxel_mm: tuple[float, float, float],
    *,
    gap_mm: float,
    shell_mm: float,
) -> dict[str, Bool]:
    """Return the parts of a shell around a nucleus.

    Parameters
    ----------
    nucleus : Nucleus
    voxel_mm : tuple of float
    gap_mm : float
        Voxels up to this distance are left out: they hold some of the nucleus.
    shell_mm : float
        Thickness of the shell behind the gap.

    Returns
    -------
    dict of str to ndarray of bool, shape (x, y, z)
        By the names of the nucleus' parts.  Memory: these volumes, and a box around the nucleus.
    """
    empty = {name: np.zeros(nucleus.inside.shape, bool) for name in nucleus.parts}
    if not nucleus.inside.any():
        return empty
    reach_mm = gap_mm + shell_mm
    box = []
    for axis, voxel in enumerate(voxel_mm):
        others = tuple({0, 1, 2} - {axis})
        here = np.flatnonzero(nucleus.inside.any(axis=others))
        margin = int(np.ceil(reach_mm / voxel)) + 1
        box.append(slice(max(0, int(here[0]) - margin), int(here[-1]) + margin + 1))
    part = (box[0], box[1], box[2])
    away = distance_mm(~nucleus.inside[part], voxel_mm)
    shell = (away > gap_mm) & (away <= reach_mm)
    for name, allowed in nucleus.parts.items():
        empty[name][part] = shell & allowed[part]
    return empty


def moments(images: Sequence[Float32], inside: Bool, outside: Bool) -> Moments | None:
    """Return the moments of images in two regions; None where one of these is too small."""
    parts = []
    for region in (inside, outside):
        values = np.stack([image[region] for image in images]).astype(np.float64)
        if values.shape[1] < FEWEST_VOXELS:
            return None
        mean = values.mean(axis=1)
        centred = values - mean[:, None]
        covariance = np.einsum("in,jn->ij", centred, centred) / (values.shape[1] - 1)
        parts.append((mean, covariance, values.shape[1]))
    (mean, covariance, n), (other_mean, other_covariance, n_other) = parts
    return Moments(mean, other_mean, covariance, other_covariance, n, n_other)


def contrast_to_noise(found: Sequence[Moments], weights: Sequence[float]) -> float:
    """Return the contrast-to-noise ratio of a weighted sum of the images.

    It is the size of the difference of the means over the noise's standard deviation, and the noise
    is what varies within the two regions: the root of the mean of their variances.  Of several
    nuclei (two sides) differences and variances are averaged, so that what differs between the
    sides is no noise.  It does not change with an image's scale or zero.

    Parameters
    ----------
    found : sequence of Moments
    weights : sequence of float, length c
    """
    difference, pooled = _averaged(found)
    w = np.asarray(weights, np.float64)
    variance = float(np.einsum("i,ij,j->", w, pooled, w))
    contrast = abs(float(np.einsum("i,i->", w, difference)))
    return contrast / np.sqrt(variance) if variance > 0 else np.nan


def optimal(
    t1w: Float32,
    chi_ppm: Float32,
    nuclei: Sequence[Nucleus],
    voxel_mm: tuple[float, float, float],
    unit: float,
    *,
    against: str = WEAKEST,
    gap_mm: float = 1.0,
    shell_mm: float = 2.0,
) -> float:
    """Weight susceptibility so that the contrast-to-noise ratio of the nucleus is the highest.

    Against one tissue that is Fisher's linear discriminant, its weights scaled so that that of T1w
    is one.  Against several tissues it is the sum in which the one that the nucleus stands out from
    least is stood out from most: at the discriminant of one of them, or where two are equal, which
    are the roots of a polynomial.

    Parameters
    ----------
    t1w, chi_ppm : ndarray of float32, shape (x, y, z)
    nuclei : sequence of Nucleus
        The nucleus of each side.
    voxel_mm : tuple of float
    unit : float
        Not used.
    against : str
        What the nucleus shall stand out from: ``weakest`` (each tissue around it), ``unlabelled``
        (what has no label), or ``neighbour`` (the nucleus beside it: the external pallidum).
    gap_mm : float
        Voxels this near to the nucleus do not count to its surround, in mm.
    shell_mm : float
        Thickness of the surround, in mm.

    Returns
    -------
    float
        k, in the T1w image's units for each ppm.

    Raises
    ------
    ValueError
        If a region is too small, or no such k exists.

    References
    ----------
    Wei et al. 2019, 10.3171/2019.7.JNS191254; Fisher 1936, 10.1111/j.1469-1809.1936.tb02137.x.
    """
    if against not in AGAINST:
        raise ValueError(f"'against' must be one of {', '.join(AGAINST)}, got {against!r}")
    found: dict[str, list[Moments]] = {}
    for nucleus in nuclei:
        shell = surround(nucleus, voxel_mm, gap_mm=gap_mm, shell_mm=shell_mm)
        for name, outside in shell.items():
            of_side = moments((t1w, chi_ppm), nucleus.inside, outside)
            kind = UNLABELLED if name == UNLABELLED else NEIGHBOUR
            if of_side is not None and against in (WEAKEST, kind):
                found.setdefault(name, []).append(of_side)
    if not found:
        raise ValueError(
            f"neither side has {FEWEST_VOXELS} voxels of the nucleus and of its surround with "
            "susceptibility"
        )
    return best_weight(list(found.values()))


def fixed(
    t1w: Float32,
    chi_ppm: Float32,
    nuclei: Sequence[Nucleus],
    voxel_mm: tuple[float, float, float],
    unit: float,
    *,
    k: float = -1.0,
    gap_mm: float = 1.0,
    shell_mm: float = 2.0,
) -> float:
    """Weight susceptibility as the user says.

    Parameters
    ----------
    t1w, chi_ppm, nuclei, voxel_mm
        Not used.
    unit : float
        The T1w image's median signal in the brain.
    k : float
        Weight of susceptibility for each ppm, in units of the T1w image's median signal in the
        brain (so that it does not depend on the scanner's scale).
    gap_mm, shell_mm : float
        As for ``optimal``; of the table alone.

    Returns
    -------
    float
        k, in the T1w image's units for each ppm.
    """
    return k * unit


METHODS = {"optimal": optimal, "fixed": fixed}
"""How susceptibility is weighted in the hybrid contrast."""


def best_weight(parts: Sequence[Sequence[Moments]]) -> float:
    """Return k of the sum ``first + k * second`` whose least contrast-to-noise ratio is highest.

    Parameters
    ----------
    parts : sequence of sequence of Moments
        Of two images: for each tissue around the nucleus, those of its sides.

    Raises
    ------
    ValueError
        If the first image has no part in the best sum.
    """
    averages = [_averaged(of_part) for of_part in parts]
    noise = np.mean([np.diag(pooled) for _, pooled in averages], axis=0)
    if not noise.min() > 0:
        raise ValueError("one of the two images is constant around the nucleus")
    scale = float(np.sqrt(noise[0] / noise[1]))  # so that k is of the order of one
    scaled = [(d * (1, scale), v * ((1, scale), (scale, scale**2))) for d, v in averages]
    tried = [k for d, v in scaled for k in _discriminant(d, v)]
    tried += [k for a, b in combinations(scaled, 2) for k in _equal(a, b)]
    worst = [min(_squared_ratio(of_part, 1.0, k) for of_part in scaled) for k in tried]
    without_first = min(_squared_ratio(of_part, 0.0, 1.0) for of_part in scaled)
    if not tried or max(worst) <= (1 + 1e-6) * without_first:
        raise ValueError("the T1w image adds nothing to susceptibility")
    return scale * tried[int(np.argmax(worst))]


def _discriminant(d: Float64, v: Float64) -> list[float]:
    """Return k of the highest ratio against one tissue; nothing where it is infinite."""
    first = v[1, 1] * d[0] - v[0, 1] * d[1]
    second = v[0, 0] * d[1] - v[0, 1] * d[0]
    return [float(second / first)] if abs(first) > 1e-12 * abs(second) else []


def _equal(a: tuple[Float64, Float64], b: tuple[Float64, Float64]) -> list[float]:
    """Return all k whose ratio is the same against two tissues."""
    (d_a, v_a), (d_b, v_b) = a, b
    signal_a, signal_b = (np.polynomial.Polynomial(d) ** 2 for d in (d_a, d_b))
    noise_a, noise_b = (
        np.polynomial.Polynomial([v[0, 0], 2 * v[0, 1], v[1, 1]]) for v in (v_a, v_b)
    )
    roots = np.atleast_1d((signal_a * noise_b - signal_b * noise_a).roots())
    return [float(k.real) for k in roots if abs(k.imag) < 1e-9 * (1 + abs(k))]


def _squared_ratio(of_part: tuple[Float64, Float64], first: float, second: float) -> float:
    d, v = of_part
    signal = first * d[0] + second * d[1]
    noise = first**2 * v[0, 0] + 2 * first * second * v[0, 1] + second**2 * v[1, 1]
    return float(signal**2 / noise)


def contrast_table(
    images: Mapping[str, Float32], inside: Bool, outsides: Mapping[str, Bool]
) -> pd.DataFrame:
    """Return the contrast-to-noise ratio of a nucleus in each image against each surround.

    Parameters
    ----------
    images : mapping of str to ndarray of float32
        By contrast.
    inside : ndarray of bool
        The nucleus.
    outsides : mapping of str to ndarray of bool
        What it is compared with, by name; those that are too small are left out.

    Returns
    -------
    pandas.DataFrame
        Columns ``surround, contrast, cnr, mean, sd, n_voxels, surround_mean, surround_sd,
        surround_n_voxels``.
    """
    rows = []
    for name, outside in outsides.items():
        for contrast, image in images.items():
            found = moments((image,), inside, outside)
            if found is not None:
                rows.append(
                    {
                        "surround": name,
                        "contrast": contrast,
                        "cnr": contrast_to_noise([found], [1.0]),
                        "mean": found.mean[0],
                        "sd": np.sqrt(found.covariance[0, 0]),
                        "n_voxels": found.n,
                        "surround_mean": found.surround_mean[0],
                        "surround_sd": np.sqrt(found.surround_covariance[0, 0]),
                        "surround_n_voxels": found.n_surround,
                    }
                )
    return pd.DataFrame(rows)


def _averaged(found: Sequence[Moments]) -> tuple[Float64, Float64]:
    difference = np.mean([of_side.difference for of_side in found], axis=0)
    pooled = np.mean([of_side.pooled for of_side in found], axis=0)
    return difference, pooled
