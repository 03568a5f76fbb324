"""Non-linear dipole inversion: the complex signal's phase, regularised by stopping early."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Float32
from bids_qsm.numerics.inversion.solver import Domain, inner


def ndi(
    local: FieldMap,
    *,
    radians_per_ppm: float = 8.0,
    max_iterations: int = 25,
    margin_mm: float = 20.0,
) -> Float32:
    r"""Find the susceptibility whose phase explains the complex signal, in few steps from zero.

    Descends :math:`\|w (e^{i s\, d * \chi} - e^{i s f})\|^2` with the weights *w* of the inverse
    noise and a phase of *s* radians per ppm, by conjugate gradients with Gauss-Newton's step
    length.  A misfit counts by its sine: the larger it is, the less it pulls, and whole turns do
    not count.  What the kernel hardly passes comes last, so that stopping early regularises.

    Parameters
    ----------
    local : FieldMap
        Local field.
    radians_per_ppm : float
        The factor *s*: :math:`2 \pi` times the Larmor frequency in MHz times an echo time, so
        16 at 3 T and 20 ms.  Sources whose field turns the phase by more than :math:`\pi` are
        lost: the default keeps 0.39 ppm.  The smaller, the more linear the model.
    max_iterations : int
        Number of steps; more sharpen the map, and amplify noise and streaks.
    margin_mm : float
        Zeros around the brain, against the wrap-around of the dipole kernel.

    Returns
    -------
    ndarray of float32, shape (x, y, z)
        Susceptibility in ppm, zero outside the mask.  Memory: some twelve padded volumes.

    Raises
    ------
    ValueError
        If ``radians_per_ppm`` is not above 0.

    References
    ----------
    Polak 2020, 10.1002/nbm.4271; Polak and Ribiere 1969, 10.1051/m2an/196903R100351.
    """
    if not radians_per_ppm > 0:
        raise ValueError(f"The phase in radians per ppm must be above 0, got {radians_per_ppm}.")
    domain = Domain.of(local, margin_mm)
    return domain.within_mask(_descend(domain, np.float32(radians_per_ppm), max_iterations))


def _descend(domain: Domain, scale: np.float32, max_iterations: int) -> Float32:
    """Return the susceptibility on the padded grid."""
    measured = domain.padded(domain.brain.field_ppm)
    weights = domain.padded(domain.brain.weights()) ** 2
    chi, field, direction = (np.zeros_like(measured) for _ in range(3))
    descent, squared = direction, 0.0
    for _ in range(max_iterations):
        misfit = np.sin(scale * (measured - field))
        misfit *= weights / scale
        previous, descent = descent, convolve(misfit, domain.kernel)
        # Polak and Ribiere's turn; below 0 it would undo progress: start again, downhill
        overlap, before = inner(descent, previous), squared
        squared = inner(descent, descent)
        turn = max(0.0, (squared - overlap) / before) if before else 0.0
        direction *= np.float32(turn)
        direction += descent
        change = convolve(direction, domain.kernel)
        curvature = inner(weights * change, change)
        if curvature <= 0:
            break
        step = np.float32(inner(descent, direction) / curvature)
        chi += step * direction
        field += step * change
    return chi
