from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize

from bids_qsm.numerics.geometry import crop
from bids_qsm.numerics.inversion.admm import Problem, data_step, nearest_signal, total_variation
from bids_qsm.numerics.inversion.solver import edge_strength
from bids_qsm.numerics.inversion.tv import tv


def invert(local, edge_fraction: float = 0.0) -> np.ndarray:
    strength, spread = edge_strength(local, 0.8)
    problem = Problem.of(
        local,
        strength=strength,
        threshold=0.5 * spread,
        margin_mm=20.0,
        edge_fraction=edge_fraction,
    )
    return crop(total_variation(problem, 60, 0.004), local.mask.shape)


def test_without_edges_it_is_total_variation(make_head) -> None:
    head = make_head()
    local, box = head.local.boxed()
    plain = {"background_price": 1.0, "edge_scale": 0.5, "data_pace": 1.0, "max_iterations": 60}
    expected = tv(head.local, **plain)[box]
    found = np.where(local.mask, invert(local), 0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_edges_of_the_magnitude_sharpen_the_map(make_head) -> None:
    head = make_head(noise=0.003)
    magnitude = np.where(head.local.mask, 1 - 3 * head.chi, 0).astype(np.float32)
    local, box = replace(head.local, magnitude=magnitude).boxed()
    errors = []
    for fraction in (0.0, 0.02):
        found = np.zeros_like(head.chi)
        found[box] = invert(local, fraction)
        errors.append(head.error(found))
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize(("offset", "weight"), [(0.05, 1.0), (-0.15, 3.0), (0.3, 0.5), (0.0, 2.0)])
def test_the_nearest_signal_has_the_least_cost(offset, weight) -> None:
    scale = 16.0
    cost = lambda d: weight * (1 - np.cos(scale * d)) / scale**2 + (d - offset) ** 2 / 2  # noqa: E731
    expected = optimize.minimize_scalar(cost, bounds=(-0.5, 0.5), options={"xatol": 1e-7}).x
    found = nearest_signal(np.float32(offset), np.float32(weight), np.float32(scale))
    assert cost(found) <= cost(expected) + 1e-6


@pytest.mark.parametrize("scale", [0.0, 0.001])
def test_the_data_step_is_that_of_plain_admm(scale, make_head, rng) -> None:
    local = make_head().local
    problem = replace(
        Problem.of(local, strength=1.0, threshold=1.0, margin_mm=0.0, radians_per_ppm=scale),
        field=rng.normal(size=local.mask.shape).astype(np.float32),
        weight=rng.uniform(0.1, 3, local.mask.shape).astype(np.float32),
        geometry=local.geometry,
    )
    field, split, dual = rng.normal(size=(3, *local.mask.shape)).astype(np.float32)
    relaxed = 1.7 * field - 0.7 * split + dual
    expected = (problem.weight * problem.field + relaxed) / (problem.weight + 1)
    data_step(problem, field, split, dual)
    np.testing.assert_allclose(split, expected, atol=1e-3)
    np.testing.assert_allclose(dual, relaxed - split, atol=1e-5)
    np.testing.assert_allclose(field, split - dual, atol=1e-5)
