from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from bids_qsm.numerics.geometry import Geometry
from bids_qsm.numerics.inversion.medi import (
    _linearise,
    _prepare,
    _without_outliers,
    central_fluid,
    medi,
)

quick = partial(medi, max_iterations=4, max_cg_iterations=15, margin_mm=12.0)


@pytest.fixture
def head(make_head):
    """Head whose magnitude shows its nuclei."""
    plain = make_head()
    magnitude = np.where(plain.local.mask, 1 - 3 * plain.chi, 0).astype(np.float32)
    return replace(plain, local=replace(plain.local, magnitude=magnitude))


def prepared(local, phase_scale=0.0, smv_radius_mm=0.0, csf_weight=0.0):
    return _prepare(local, 1e-3, 0.01, 0.02, phase_scale, smv_radius_mm, csf_weight, 10.0)


def test_a_nucleus_comes_back(head) -> None:
    found = medi(head.local)
    assert head.contrast(found) == pytest.approx(head.contrast(head.chi), rel=0.1)
    assert head.error(found) < 0.25


def test_edges_of_the_magnitude_sharpen_the_map(make_head, head, rng) -> None:
    noise = np.where(head.local.mask, np.float32(0.003), np.float32(np.inf))
    field = head.local.field_ppm + rng.normal(0, 0.003, head.chi.shape)
    noisy = replace(head.with_field(field), noise_ppm=noise)
    blind = quick(replace(noisy, magnitude=head.local.mask.astype(np.float32)))
    assert head.error(quick(noisy, edge_fraction=0.02)) < 0.9 * head.error(blind)


def test_linear_and_nonlinear_agree_for_small_phases(head) -> None:
    linear = quick(head.local, nonlinear=False)
    nonlinear = quick(head.local, radians_per_ppm=0.1)
    np.testing.assert_allclose(nonlinear, linear, atol=2e-4)


def test_errors_of_the_model_lose_their_weight(head) -> None:
    field = head.local.field_ppm.copy()
    field[13:24:3, 14:24:3, 14] += 0.15
    wrong = head.with_field(field)
    errors = [head.error(quick(wrong, merit=merit)) for merit in (False, True)]
    assert errors[1] < 0.9 * errors[0]


def test_only_outliers_lose_weight_by_the_square(head, rng) -> None:
    problem, weights, _ = prepared(head.local)
    noise = rng.normal(0, 1, weights.shape).astype(np.float32)
    noise[18, 20, 14] = 100.0
    found = _without_outliers(replace(problem, field=noise), weights, np.zeros_like(noise))
    ratio = found[weights > 0] / weights[weights > 0]
    assert (ratio < 1).sum() == 1
    known = (noise * weights)[weights > 0]
    expected = (6 * known.std() / np.abs(known).max()) ** 2
    assert ratio.min() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("phase_scale", [0.0, 16.0])
def test_downhill_is_minus_the_gradient_of_the_cost(phase_scale, head, rng) -> None:
    r2star = np.where(head.nucleus, 2, 20).astype(np.float32)
    local = replace(head.local, r2star_per_s=r2star)
    problem, weights, _ = prepared(local, phase_scale, 4.0, 0.3)
    chi = rng.normal(0, 0.03, weights.shape).astype(np.float32)
    direction = rng.normal(0, 1, weights.shape).astype(np.float32)
    _, downhill = _linearise(problem, weights, chi)
    step = 1e-4
    slope = (
        cost(problem, weights, chi + step * direction)
        - cost(problem, weights, chi - step * direction)
    ) / (2 * step)
    assert -np.vdot(downhill.astype(float), direction) == pytest.approx(slope, rel=0.01)


def cost(problem, weights, chi) -> float:
    """Return the cost that is to be least, in float64."""
    kernel = problem.kernel.astype(float)
    residual = np.fft.irfftn(np.fft.rfftn(chi.astype(float)) * kernel, s=chi.shape, axes=(0, 1, 2))
    residual -= problem.field
    scale = float(problem.phase_scale)
    misfit = 2 * (1 - np.cos(scale * residual)) / scale**2 if scale else residual**2
    edges = [(np.roll(chi, -1, i).astype(float) - chi) / problem.steps[i] for i in range(3)]
    smooth = np.sqrt(np.square(edges) + float(problem.smallest_edge) ** 2)
    fluid = chi[problem.fluid].astype(float)
    return float(
        (weights.astype(float) ** 2 * misfit).sum() / 2
        + problem.strength * smooth[problem.penalised].sum()
        + problem.csf_weight * ((fluid - fluid.mean()) ** 2).sum() / 2
    )


def test_fluid_becomes_even(head) -> None:
    fluid = head.nucleus
    r2star = np.where(fluid, 2, 20).astype(np.float32)
    with_r2star = replace(head.local, r2star_per_s=r2star)
    plain = quick(head.local)
    np.testing.assert_array_equal(quick(with_r2star), plain)
    np.testing.assert_array_equal(quick(head.local, csf_weight=1.0), plain)
    even = quick(with_r2star, csf_weight=10.0)
    assert even[fluid].std() < 0.5 * plain[fluid].std()
    assert head.error(even) < 1.2 * head.error(plain)


def test_central_fluid_is_the_two_largest_pieces_near_the_middle(ball) -> None:
    geometry = Geometry((60, 60, 40), (1.5, 1.5, 2.0))
    mask = ball(geometry, (30, 30, 20), 42)
    left, right = ball(geometry, (25, 30, 20), 5), ball(geometry, (35, 30, 20), 6)
    r2star = np.full(mask.shape, 20, np.float32)
    small, rim = ball(geometry, (30, 40, 20), 3), mask & ~ball(geometry, (30, 30, 20), 36)
    r2star[left | right | small | rim] = 2
    np.testing.assert_array_equal(central_fluid(r2star, mask, geometry), left | right)
    assert not central_fluid(np.full_like(r2star, 20), mask, geometry).any()


def test_a_spherical_mean_takes_out_what_background_removal_left(head, ball) -> None:
    ramp = np.linspace(-0.03, 0.03, head.chi.shape[1], dtype=np.float32)[None, :, None]
    rest = head.with_field(head.local.field_ppm + ramp)
    deep = quick(rest, smv_radius_mm=5.0)
    mask = head.local.mask
    assert 0.4 * mask.sum() < (deep != 0).sum() < 0.8 * mask.sum()
    core = replace(head, local=replace(head.local, mask=deep != 0))
    assert core.error(deep) < 0.6 * core.error(quick(rest))


def test_it_scales_with_the_phase_of_a_ppm(head) -> None:
    local = head.local
    tripled = replace(local, field_ppm=3 * local.field_ppm, noise_ppm=3 * local.noise_ppm)
    plain = quick(local, radians_per_ppm=6.0)
    np.testing.assert_allclose(
        quick(tripled, radians_per_ppm=2.0), 3 * plain, atol=3e-3 * np.abs(plain).max()
    )


def test_it_turns(assert_turns) -> None:
    # forward differences see an edge from one side: equal up to the error of the map
    assert_turns(quick, 0.006)


def test_it_is_sound(assert_sound) -> None:
    assert_sound(quick)
