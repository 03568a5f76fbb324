"""Paramagnetic and diamagnetic susceptibility apart, from field and relaxation (experimental).

Both kinds of sources speed relaxation up, and shift the field in opposite directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    Bool,
    Float32,
    crop,
    dipole_kernel,
    margin_voxels,
    pad,
    padded_geometry,
    place,
)
from bids_qsm.numerics.inversion.solver import inner
from bids_qsm.numerics.registry import Methods

_LARGEST_DIPOLE = 2 / 3


@dataclass(frozen=True)
class Sources:
    """Susceptibility of the two kinds of sources of each voxel.

    Attributes
    ----------
    paramagnetic_ppm : ndarray of float32, shape (x, y, z)
        Zero or more: iron, above all.
    diamagnetic_ppm : ndarray of float32, shape (x, y, z)
        Zero or less: myelin, calcium.
    """

    paramagnetic_ppm: Float32
    diamagnetic_ppm: Float32


def gre(
    local: FieldMap,
    chi_ppm: Float32,
    r2star_per_s: Float32,
    b0_t: float,
    *,
    share: float = 0.4,
    relaxivity_per_s_ppm_t: float = 45.7,
    relaxation_weight: float = 0.3,
    map_weight: float = 0.2,
    iterations: int = 20,
    margin_mm: float = 20.0,
) -> Sources:
    r"""Separate the sources with what a gradient echo alone tells: R2' is a share of R2*.

    Minimises, with :math:`\chi^+ \ge 0 \ge \chi^-`,

    .. math:: \|w (d * (\chi^+ + \chi^-) - f)\|^2 + a^2 \|\chi^+ - \chi^- - R_2'/D\|^2
              + b^2 \|\chi^+ + \chi^- - \chi\|^2

    by projected gradients with momentum, from the best values of each voxel by itself: the
    relaxation bounds the susceptibility where the dipole's field does not tell it, and the given
    map holds what neither tells.

    Parameters
    ----------
    local : FieldMap
        Local field *f*; the weights *w* are the inverse noise.
    chi_ppm : ndarray of float32, shape (x, y, z)
        Susceptibility from the same field, relative to a region with few sources of either kind,
        such as CSF: its zero decides how the sources are shared out.
    r2star_per_s : ndarray of float32, shape (x, y, z)
    b0_t : float
        Main field.
    share : float
        R2' over R2*: about 0.4 at 3 T, with usual values of R2.  A share of all R2* takes fast
        relaxation of other causes for sources, so that both are too large where R2 is high.
    relaxivity_per_s_ppm_t : float
        R2' that sources of 1 ppm make for each tesla; 137 1/s/ppm at 3 T were measured in vivo.
    relaxation_weight, map_weight : float
        The weights *a*, of the relaxation, and *b*, of the given map; the field's is about one.
    iterations : int
        As measured on simulated heads, more of them fit noise.
    margin_mm : float
        Zeros around the brain, against the wrap-around of the dipole kernel.

    Returns
    -------
    Sources
        Zero outside the mask.  Memory: some fifteen volumes.

    Raises
    ------
    ValueError
        If shapes differ or an option is out of its range.

    References
    ----------
    Dimov et al. 2022, 10.1111/jon.13014 (R2* alone); Shin et al. 2021,
    10.1016/j.neuroimage.2021.118371 (the model, and the relaxivity); Chen et al. 2021,
    10.1016/j.neuroimage.2021.118477; Beck and Teboulle 2009, 10.1137/080716542 (the solver).
    """
    if not 0 < share <= 1:
        raise ValueError(f"R2' is a share of R2* between 0 and 1, got {share}.")
    problem = _Problem(
        relaxivity_per_s_ppm_t * b0_t, relaxation_weight, map_weight, iterations, margin_mm
    )
    return _separate(local, chi_ppm, np.float32(share) * r2star_per_s, problem)


def r2prime(
    local: FieldMap,
    chi_ppm: Float32,
    r2star_per_s: Float32,
    b0_t: float,
    r2_per_s: Float32,
    *,
    relaxivity_per_s_ppm_t: float = 45.7,
    relaxation_weight: float = 0.3,
    map_weight: float = 0.2,
    iterations: int = 20,
    margin_mm: float = 20.0,
) -> Sources:
    """Separate the sources with a measured R2: R2' is R2* less R2, and zero where that is less.

    Parameters
    ----------
    local, chi_ppm, r2star_per_s, b0_t
        As in :func:`gre`, as are the options, result and errors.
    r2_per_s : ndarray of float32, shape (x, y, z)
        From spin echoes, on the same grid.  Where it is not positive and finite, it is not known:
        nothing is separated there.

    References
    ----------
    Shin et al. 2021, 10.1016/j.neuroimage.2021.118371; Chen et al. 2021,
    10.1016/j.neuroimage.2021.118477.
    """
    if r2_per_s.shape != r2star_per_s.shape:
        raise ValueError(f"R2 {r2_per_s.shape} and R2* {r2star_per_s.shape} differ in shape.")
    known = local.mask & np.isfinite(r2_per_s) & (r2_per_s > 0)
    if not known.any():
        raise ValueError("The R2 map has no positive value within the mask.")
    problem = _Problem(
        relaxivity_per_s_ppm_t * b0_t, relaxation_weight, map_weight, iterations, margin_mm
    )
    return _separate(local, chi_ppm, np.where(known, r2star_per_s - r2_per_s, np.nan), problem)


METHODS: Methods = {"gre": gre, "r2prime": r2prime}


@dataclass(frozen=True)
class _Problem:
    relaxivity_per_s_ppm: float
    relaxation_weight: float
    map_weight: float
    iterations: int
    margin_mm: float

    def __post_init__(self) -> None:
        if self.relaxivity_per_s_ppm <= 0 or self.relaxation_weight <= 0 or self.map_weight < 0:
            raise ValueError(
                "Relaxivity, field strength and the relaxation's weight must be positive, and the "
                "map's weight not negative."
            )


def _separate(
    local: FieldMap, chi_ppm: Float32, r2prime_per_s: Float32, problem: _Problem
) -> Sources:
    if not local.mask.shape == chi_ppm.shape == r2prime_per_s.shape:
        raise ValueError(
            f"field {local.mask.shape}, susceptibility {chi_ppm.shape} and relaxation "
            f"{r2prime_per_s.shape} differ in shape."
        )
    brain, box = local.boxed()
    chi = np.where(brain.mask, np.nan_to_num(chi_ppm[box]), np.float32(0))
    total = r2prime_per_s[box] / np.float32(problem.relaxivity_per_s_ppm)
    known = brain.mask & np.isfinite(chi_ppm[box]) & np.isfinite(total)
    total = np.where(known, np.maximum(total, 0), np.float32(0))
    start = _voxel_by_voxel(chi * known, total, problem.relaxation_weight)
    positive, negative = _descend(brain, known, chi, total, start, problem)
    signed = (positive, np.float32(0) - negative)  # no minus before a zero
    return Sources(*(place(v, box, local.mask.shape) for v in signed))


def _voxel_by_voxel(chi: Float32, total: Float32, weight: float) -> tuple[Float32, Float32]:
    """Return the sizes of both sources that fit susceptibility and relaxation of each voxel best.

    Where the relaxation is too slow for the susceptibility, there is one kind of source, of the
    weighted mean of both.
    """
    size: Float32 = np.abs(chi)
    one_kind = (size + np.float32(weight**2) * total) / np.float32(1 + weight**2)
    enough = total >= size
    both: Float32 = np.where(enough, total, one_kind)
    net: Float32 = np.where(enough, chi, np.sign(chi) * both)
    half = np.float32(0.5)
    return half * (both + net), half * (both - net)


def _descend(
    brain: FieldMap,
    known: Bool,
    chi: Float32,
    total: Float32,
    start: tuple[Float32, Float32],
    problem: _Problem,
) -> tuple[Float32, Float32]:
    """Return both sources, as sizes, after some steps of projected gradients with momentum."""
    geometry = padded_geometry(brain.geometry, margin_voxels(brain.geometry, problem.margin_mm))
    kernel = dipole_kernel(geometry)
    shape = brain.mask.shape

    def field_of(volume: Float32) -> Float32:
        return crop(convolve(pad(volume, geometry.shape), kernel), shape)

    # a field better known than the mean counts no more: the step must suit the largest weight
    squared_weights = np.minimum(brain.weights(), 1) ** 2
    measured = brain.field_ppm - field_of(np.where(known, np.float32(0), chi))
    # the map's zero is a choice: what shifts all of it is not to be told by the field
    shift = field_of(brain.mask.astype(np.float32))
    misfit = measured - field_of(chi * known)
    energy = inner(squared_weights * shift, shift)
    measured -= np.float32(inner(squared_weights * shift, misfit) / energy if energy else 0) * shift
    pull, hold = np.float32(problem.relaxation_weight**2), np.float32(problem.map_weight**2)
    step = np.float32(1 / (2 * (_LARGEST_DIPOLE**2 + pull + hold)))
    positive, negative = start
    ahead, momentum = start, 1.0
    for _ in range(problem.iterations):
        net, both = ahead[0] - ahead[1], ahead[0] + ahead[1]
        of_net = field_of(squared_weights * (field_of(net) - measured)) + hold * (net - chi)
        of_both = pull * (both - total)
        new = (
            np.maximum(ahead[0] - step * (of_both + of_net), 0) * known,
            np.maximum(ahead[1] - step * (of_both - of_net), 0) * known,
        )
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        carry = np.float32((momentum - 1) / following)
        ahead = (new[0] + carry * (new[0] - positive), new[1] + carry * (new[1] - negative))
        (positive, negative), momentum = new, following
    return positive, negative
