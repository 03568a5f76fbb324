from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.background.polynomial import without_polynomial
from bids_qsm.numerics.geometry import Geometry

GEOMETRY = Geometry((20, 17, 14), (1.0, 1.2, 2.0))


def test_a_quadratic_is_removed_and_the_rest_is_a_weighted_least_squares_residual(ball, rng):
    mask = ball(GEOMETRY, (9.0, 8.0, 7.0), 8.0)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in GEOMETRY.shape], indexing="ij")
    weights = rng.uniform(0.5, 2, GEOMETRY.shape).astype(np.float32)
    quadratic = (3 + x - 2 * y * z + 4 * z * z).astype(np.float32)
    assert np.abs(without_polynomial(quadratic, weights, mask, GEOMETRY, 2)).max() < 1e-4

    noise = rng.normal(size=GEOMETRY.shape).astype(np.float32)
    terms = [np.ones_like(x), x, y, z]
    matrix = np.stack([(weights * t)[mask] for t in terms], 1)
    fit = np.linalg.lstsq(matrix, (weights * noise)[mask], rcond=None)[0]
    expected = noise - sum(a * t for a, t in zip(fit, terms, strict=True))
    found = without_polynomial(quadratic * 0 + noise, weights, mask, GEOMETRY, 1)
    np.testing.assert_allclose(found[mask], expected[mask], atol=1e-4)
    assert (found[~mask] == 0).all()


@pytest.mark.parametrize("order", [0, 2])
def test_a_flat_mask_and_no_order_are_allowed(order, rng) -> None:
    field = rng.normal(size=GEOMETRY.shape).astype(np.float32)
    flat = np.zeros(GEOMETRY.shape, bool)
    flat[:, :, 7] = True
    weights = np.ones(GEOMETRY.shape, np.float32)
    found = without_polynomial(field, weights, flat, GEOMETRY, order)
    assert abs(found[flat].mean()) < 1e-5
    np.testing.assert_array_equal(
        without_polynomial(field, weights, flat, GEOMETRY, -1), np.where(flat, field, 0)
    )
