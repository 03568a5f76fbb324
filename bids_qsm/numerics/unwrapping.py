"""Unwrapping of the phase of all echoes, and the phase-quality map.

The phase should be free of its offset (see ``coils.py``), so that it grows from zero with the
echo time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_qsm.numerics.geometry import Bool, Float32, bounding_box, place
from bids_qsm.numerics.poisson import solve_poisson, wrapped_steps
from bids_qsm.numerics.quantiles import median
from bids_qsm.numerics.romeo import edge_costs, grow_regions, mean_weights
from bids_qsm.numerics.unwrapping_in_time import predict_phase, unwrap_in_time

_TURN = 2 * np.pi
_LARGEST_RATIO = 3.0
"""Of the second echo's time to the template's: it is by how much the template's noise grows."""


def romeo(
    phase: Float32,
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    *,
    each_echo: bool = False,
) -> Float32:
    """Unwrap by region growing along the most reliable edges between voxels (ROMEO).

    One early echo, the template, is unwrapped in space.  The others follow from it in time, each
    from a line through all echoes that are already unwrapped: from the template alone, its noise
    and what is left of its offset would grow with the echo time.  Whole turns of a connected part
    of the mask are free: they are chosen so that the median of the template is nearest to zero.

    Parameters
    ----------
    phase : ndarray of float32, shape (x, y, z, echo)
        Wrapped, in radians; overwritten with the result unless ``each_echo`` is set.
    magnitude : ndarray of float32, shape (x, y, z, echo)
        In any unit.
    te_s : sequence of float
        Echo times, rising.
    mask : ndarray of bool, shape (x, y, z)
    each_echo : bool
        Unwrap every echo in space; time then only gives the whole turns of each part.

    Returns
    -------
    ndarray of float32, shape (x, y, z, echo)
        In radians; zero outside the mask.

    Raises
    ------
    ValueError
        If the mask is empty.

    References
    ----------
    Dymerska et al. 2021, 10.1002/mrm.28563.
    """
    times = np.asarray(te_s, np.float64)

    def unwrap(
        wrapped: Float32, strength: Float32, inside: Bool, echo: int, predicted: Float32 | None
    ) -> Float32:
        return _unwrap_echo(wrapped, strength, times, echo, inside, predicted)

    if each_echo:
        return _echo_by_echo(unwrap, phase, magnitude, te_s, mask)
    box = bounding_box(mask)
    inside = np.ascontiguousarray(mask[box])
    order = _echo_order(te_s)
    template = _unwrap_echo(phase[box], magnitude[box], times, order[0], inside)
    corner = (box[0].start, box[1].start, box[2].start)
    # in place: a new array would take longer to get than to fill
    everywhere = np.ascontiguousarray(mask)
    unwrap_in_time(template, corner, phase, magnitude, times, np.array(order), everywhere)
    return phase


def laplacian(
    phase: Float32,
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
    *,
    whole_turns: bool = True,
) -> Float32:
    """Unwrap each echo by its Laplacian, which the wrapped phase gives too, and Poisson's equation.

    The Laplacian is that of the wrapped steps between neighbours, and the equation is solved in
    the mask, with no flow through its rim: where no true step is larger than half a turn, the
    solution is the true phase, for any voxel size and without loss of harmonic fields.  Where some
    are larger, the solution bends around them.  Time gives the whole turns of each connected part,
    as in :func:`romeo`.

    Parameters
    ----------
    phase, magnitude, te_s, mask
        Those of :func:`romeo`.
    whole_turns : bool
        Return the wrapped phase with the whole turns that bring it nearest to the solution
        (exact).  Otherwise return the solution itself: smooth, free of jumps, but no longer a
        whole number of turns from the phase.

    Returns
    -------
    ndarray of float32, shape (x, y, z, echo)
        In radians; zero outside the mask.  Memory: ten volumes of the mask's box besides.

    Raises
    ------
    ValueError
        If the mask is empty.

    References
    ----------
    Schofield and Zhu 2003, 10.1364/OL.28.001194; without whole turns: Li et al. 2011,
    10.1016/j.neuroimage.2010.11.088.
    """

    def unwrap(
        wrapped: Float32, strength: Float32, inside: Bool, echo: int, predicted: Float32 | None
    ) -> Float32:
        own_phase = np.ascontiguousarray(wrapped[..., echo])
        solution = solve_poisson(wrapped_steps(own_phase, inside), inside)
        _set_free_constants(solution, own_phase, strength[..., echo], inside)
        if whole_turns:
            solution = _nearest_turn(own_phase, solution) * inside
        return _near_prediction(solution, predicted, inside)

    return _echo_by_echo(unwrap, phase, magnitude, te_s, mask)


def best_path(phase: Float32, magnitude: Float32, te_s: Sequence[float], mask: Bool) -> Float32:
    """Unwrap each echo along the path on which the phase bends least (scikit-image).

    The magnitude only weighs the echoes in the prediction of whole turns: time gives those of
    each connected part, as in :func:`romeo`.

    Parameters
    ----------
    phase, magnitude, te_s, mask
        Those of :func:`romeo`.

    Returns
    -------
    ndarray of float32, shape (x, y, z, echo)
        In radians; zero outside the mask.  Memory: some 30 volumes of the mask's box besides.

    Raises
    ------
    ValueError
        If the mask is empty.

    References
    ----------
    Abdul-Rahman et al. 2007, 10.1364/AO.46.006623.
    """
    from skimage.restoration import unwrap_phase  # slow to import

    def unwrap(
        wrapped: Float32, strength: Float32, inside: Bool, echo: int, predicted: Float32 | None
    ) -> Float32:
        # the rim makes axes of one voxel longer, which scikit-image does not like
        own_phase = np.pad(wrapped[..., echo] * inside, 1)
        outside = np.pad(~inside, 1, constant_values=True)
        found = unwrap_phase(np.ma.array(own_phase, mask=outside), rng=0)
        inner = found[1:-1, 1:-1, 1:-1].filled(0).astype(np.float32)
        return _near_prediction(inner, predicted, inside)

    return _echo_by_echo(unwrap, phase, magnitude, te_s, mask)


def unwrap_volume(phase: Float32, magnitude: Float32, mask: Bool) -> Float32:
    """Unwrap one volume in space; each connected part has its median within half a turn of zero.

    Parameters
    ----------
    phase, magnitude : ndarray of float32, shape (x, y, z)
    mask : ndarray of bool, shape (x, y, z)

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        In radians; zero outside the mask.
    """
    return _unwrap_echo(phase[..., None], magnitude[..., None], np.ones(1), 0, mask)


def quality_map(phase: Float32, magnitude: Float32, te_s: Sequence[float]) -> Float32:
    """Return the phase quality of each voxel, 0 to 1: the mean weight of its edges.

    A smooth phase offset does not matter, so that it need not be removed first; where it was
    removed inside a mask only, the mask's outline is visible.

    Parameters
    ----------
    phase, magnitude : ndarray of float32, shape (x, y, z, echo)
        Phase wrapped, in radians; magnitude in any unit.
    te_s : sequence of float

    Returns
    -------
    ndarray of float32, shape (x, y, z)
    """
    everywhere = np.ones(phase.shape[:3], np.bool_)
    times = np.asarray(te_s, np.float64)
    costs = _costs_of_echo(phase, magnitude, times, template_echo(te_s), everywhere)
    return mean_weights(costs)


def template_echo(te_s: Sequence[float]) -> int:
    """Return the echo that is unwrapped in space: the earliest that can tell the next one."""
    for echo in range(len(te_s) - 1):
        if te_s[echo + 1] <= _LARGEST_RATIO * te_s[echo]:
            return echo
    return len(te_s) - 1


def _echo_order(te_s: Sequence[float]) -> list[int]:
    """Return the echoes as they are unwrapped: the template, the later ones, the earlier ones."""
    template = template_echo(te_s)
    return [template, *range(template + 1, len(te_s)), *reversed(range(template))]


def _echo_by_echo(
    unwrap: Callable[[Float32, Float32, Bool, int, Float32 | None], Float32],
    phase: Float32,
    magnitude: Float32,
    te_s: Sequence[float],
    mask: Bool,
) -> Float32:
    """Unwrap the template echo, then the others with what the known ones predict, in the box.

    ``unwrap`` is given wrapped phase, magnitude, mask, the echo and its prediction (None for the
    template), and returns the echo.
    """
    box = bounding_box(mask)
    inside = np.ascontiguousarray(mask[box])
    wrapped, strength = (np.ascontiguousarray(echoes[box]) for echoes in (phase, magnitude))
    times = np.asarray(te_s, np.float64)
    unwrapped = np.zeros(wrapped.shape, np.float32)
    known: list[int] = []
    predicted = None
    for echo in _echo_order(te_s):
        if known:
            predicted = predict_phase(unwrapped, strength, times, np.array(known), echo, inside)
        unwrapped[..., echo] = unwrap(wrapped, strength, inside, echo, predicted)
        known.append(echo)
    return place(unwrapped, box, phase.shape)


def _costs_of_echo(
    phase: Float32, magnitude: Float32, te_s: NDArray[np.float64], echo: int, mask: Bool
) -> NDArray[np.uint32]:
    """Return the edge costs of an echo, which the next one (for the last: the one before) backs."""
    other = echo + 1 if echo + 1 < len(te_s) else max(echo - 1, 0)
    shorter = min(te_s[echo], te_s[other])
    scales = (shorter / te_s[echo], shorter / te_s[other])
    return edge_costs(phase[..., echo], phase[..., other], scales, magnitude[..., echo], mask)


def _unwrap_echo(
    phase: Float32,
    magnitude: Float32,
    te_s: NDArray[np.float64],
    echo: int,
    mask: Bool,
    predicted: Float32 | None = None,
) -> Float32:
    """Unwrap an echo in space; the turns of each part bring its median near the prediction."""
    costs = _costs_of_echo(phase, magnitude, te_s, echo, mask)
    own_phase = np.ascontiguousarray(phase[..., echo])
    unwrapped, order, starts = grow_regions(own_phase, costs, mask)
    for start, stop in pairwise(starts):
        part = order[start:stop]
        excess = unwrapped[part] if predicted is None else unwrapped[part] - predicted.flat[part]
        turns = np.rint(np.float32(median(excess)) / _TURN)
        if turns:
            unwrapped[part] -= np.float32(_TURN * turns)
    return unwrapped.reshape(mask.shape)


def _nearest_turn(phase: Float32, predicted: Float32) -> Float32:
    """Return the phase with the whole turns that bring it nearest to the prediction."""
    turns = np.rint((predicted - phase) / np.float32(_TURN))
    return phase + np.float32(_TURN) * turns


def _near_prediction(unwrapped: Float32, predicted: Float32 | None, mask: Bool) -> Float32:
    """Return the phase with the turns that bring each part's median near the prediction's."""
    excess = unwrapped if predicted is None else unwrapped - predicted
    parts, n_parts = ndimage.label(mask)
    medians = ndimage.median(excess, parts, np.arange(1, n_parts + 1))
    turns = np.concatenate([[0.0], np.rint(np.asarray(medians) / _TURN)])
    return unwrapped - (_TURN * turns).astype(np.float32)[parts]


def _set_free_constants(solution: Float32, phase: Float32, magnitude: Float32, mask: Bool) -> None:
    """Add to each part of the solution the constant at which it agrees best with the phase."""
    parts, n_parts = ndimage.label(mask)
    between = magnitude * np.exp(1j * (phase - solution))
    sums = [
        np.bincount(parts.ravel(), part.ravel(), n_parts + 1)
        for part in (between.real, between.imag)
    ]
    constants = np.arctan2(sums[1], sums[0]).astype(np.float32)
    constants[0] = 0.0
    solution += constants[parts]


METHODS = {"romeo": romeo, "laplacian": laplacian, "best-path": best_path}
