from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.geometry import dipole_kernel, forward_fft, inverse_fft
from bids_qsm.numerics.inversion.solver import gradient, gradient_adjoint, step_sizes
from bids_qsm.numerics.inversion.tgv import (
    _bend_step,
    _difference_spectra,
    _jump_step,
    _solve,
    _targets,
    tgv,
)

# what holds after each iteration needs few of them
few = partial(tgv, max_iterations=15)

PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def bends_of(slopes: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the symmetrised gradient, by backward differences."""
    back = [(slopes - np.roll(slopes, 1, 1 + axis)) / steps[axis] for axis in range(3)]
    return np.stack([(back[i][j] + back[j][i]) / 2 for i, j in PAIRS])


def bends_adjoint(bends: np.ndarray, steps: np.ndarray) -> np.ndarray:
    out = np.zeros((3, *bends.shape[1:]))
    for bend, (i, j) in zip(bends, PAIRS, strict=True):
        for a, b in {(i, j), (j, i)}:
            out[a] += (bend - np.roll(bend, -1, b)) / steps[b]
    return out


def shrunk(values: np.ndarray, size: np.ndarray, threshold: float) -> np.ndarray:
    return values * np.maximum(1 - threshold / size, 0)


def sizes(jumps: np.ndarray, bends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.sqrt((jumps**2).sum(0)),
        np.sqrt((bends[:3] ** 2).sum(0) + 2 * (bends[3:] ** 2).sum(0)),
    )


def test_a_nucleus_comes_back(make_head) -> None:
    head = make_head()
    found = tgv(head.local)
    assert head.contrast(found) == pytest.approx(head.contrast(head.chi), rel=0.1)
    assert head.error(found) < 0.25


def test_a_slope_is_cheaper_than_by_total_variation(make_head, rng) -> None:
    head = make_head()
    mask, geometry = head.local.mask, head.local.geometry
    ramp = np.linspace(-0.1, 0.1, geometry.shape[0], dtype=np.float32)[:, None, None]
    chi = np.where(mask, ramp, np.float32(0))
    field = convolve(chi, dipole_kernel(geometry)) + rng.normal(0, 0.002, chi.shape)
    noise = np.where(mask, np.float32(0.002), np.float32(np.inf))
    local = replace(head.with_field(field), noise_ppm=noise)
    # bends that cost much leave jumps alone: total variation
    sloped, stepped = (tgv(local, regularisation=4.0, bend_ratio=b) for b in (2.0, 100.0))
    assert np.std((sloped - chi)[mask]) < np.std((stepped - chi)[mask])


def test_it_scales(assert_scales) -> None:
    assert_scales(few)


def test_it_turns(assert_turns) -> None:
    assert_turns(few, 0.005)


def test_it_is_sound(assert_sound) -> None:
    assert_sound(few)


def test_map_and_slopes_solve_their_equations(oblique_geometry, rng) -> None:
    shape, steps = oblique_geometry.shape, step_sizes(oblique_geometry)
    kernel = dipole_kernel(oblique_geometry)
    penalty, ratio = np.float32(0.3), np.float32(2.0)
    data, jump = rng.normal(size=(2, *shape)).astype(np.float32)
    slope = rng.normal(size=(3, *shape)).astype(np.float32)
    first, second = forward_fft(data), forward_fft(jump)
    spectra = tuple(forward_fft(s) for s in slope)
    _solve(first, second, spectra, kernel, _difference_spectra(oblique_geometry), penalty, ratio)
    chi, field = inverse_fft(first.copy(), shape), inverse_fft(second, shape)
    slopes = np.stack([inverse_fft(s, shape) for s in spectra])
    np.testing.assert_allclose(field, convolve(chi, kernel), atol=1e-4)
    jumps = gradient(chi, steps) - slopes
    left = convolve(field, kernel) + penalty * gradient_adjoint(jumps, steps)
    right = convolve(data, kernel) + penalty * (jump - jump.mean())
    np.testing.assert_allclose(left, right, atol=2e-4)
    np.testing.assert_allclose(
        ratio * bends_adjoint(bends_of(slopes, steps), steps) - jumps, slope, atol=2e-4
    )


def test_the_symmetrised_gradient_and_its_adjoint(oblique_geometry, rng) -> None:
    steps = step_sizes(oblique_geometry)
    slopes = rng.normal(size=(3, *oblique_geometry.shape))
    bends = rng.normal(size=(6, *oblique_geometry.shape))
    counted = np.array([1, 1, 1, 2, 2, 2])[:, None, None, None]
    assert np.vdot(bends_of(slopes, steps), counted * bends) == pytest.approx(
        np.vdot(slopes, bends_adjoint(bends, steps)), rel=1e-9
    )


def test_kernels_are_those_of_plain_admm(oblique_geometry, rng) -> None:
    steps, threshold, ratio = step_sizes(oblique_geometry), np.float32(0.8), np.float32(1.5)
    shape = oblique_geometry.shape
    jumps = rng.normal(size=(3, *shape)).astype(np.float32)
    bends = rng.normal(size=(6, *shape)).astype(np.float32)
    splits = [
        shrunk(values, size, threshold)
        for values, size in zip((jumps, bends), sizes(jumps, bends), strict=True)
    ]
    next_jumps, next_bends = 2 * splits[0] - jumps, 2 * splits[1] - bends
    jump_target, slope_target = np.empty(shape, np.float32), np.empty((3, *shape), np.float32)
    _targets(jumps, bends, steps, threshold, ratio, jump_target, slope_target)
    np.testing.assert_allclose(
        jump_target, gradient_adjoint(next_jumps.astype(np.float32), steps), atol=2e-5
    )
    np.testing.assert_allclose(
        slope_target, ratio * bends_adjoint(next_bends, steps) - next_jumps, atol=2e-5
    )

    chi = rng.normal(size=shape).astype(np.float32)
    slopes = rng.normal(size=(3, *shape)).astype(np.float32)
    new_jumps = 1.7 * (gradient(chi, steps) - slopes) - 1.7 * splits[0] + jumps
    new_bends = 1.7 * bends_of(slopes, steps) - 1.7 * splits[1] + bends
    _jump_step(chi, slopes, jumps, steps, threshold)
    _bend_step(slopes, bends, steps, threshold)
    np.testing.assert_allclose(jumps, new_jumps, atol=3e-5)
    np.testing.assert_allclose(bends, new_bends, atol=3e-5)
