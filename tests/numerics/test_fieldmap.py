from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import Geometry


def field_map(noise: np.ndarray, mask: np.ndarray) -> FieldMap:
    zero = np.zeros(mask.shape, np.float32)
    return FieldMap(zero, noise, zero, mask, Geometry(mask.shape, (1, 1, 1)))


def test_weights_are_inverse_noise_with_mean_one(rng) -> None:
    mask = np.zeros((6, 6, 6), bool)
    mask[1:5] = True
    noise = rng.uniform(1, 2, mask.shape).astype(np.float32)
    noise[2, 2, 2] = np.inf
    weights = field_map(noise, mask).weights()
    assert weights[mask].mean() == pytest.approx(1.0, abs=1e-6)
    assert weights[2, 2, 2] == 0
    assert not weights[~mask].any()
    ratio = weights[3, 3, 3] / weights[4, 4, 4]
    assert ratio == pytest.approx(noise[4, 4, 4] / noise[3, 3, 3], rel=1e-5)


def test_weights_do_not_depend_on_the_unit_of_noise(rng) -> None:
    mask = np.ones((4, 4, 4), bool)
    noise = rng.uniform(1, 50, mask.shape).astype(np.float32)
    np.testing.assert_allclose(
        field_map(noise, mask).weights(), field_map(noise * 1e-3, mask).weights(), rtol=1e-5
    )


@pytest.mark.parametrize("value", [0.0, np.inf, np.nan])
def test_unknown_noise_gives_equal_weights(value) -> None:
    mask = np.ones((3, 3, 3), bool)
    assert (field_map(np.full(mask.shape, value, np.float32), mask).weights() == 1).all()


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="noise_ppm has shape"):
        field_map(np.zeros((2, 2, 2), np.float32), np.ones((3, 3, 3), bool))


def test_relaxation_is_boxed_along_and_must_have_the_shape_of_the_rest(rng) -> None:
    mask = np.zeros((6, 7, 8), bool)
    mask[1:4, 2:6, 3:5] = True
    plain = field_map(np.ones(mask.shape, np.float32), mask)
    assert plain.boxed()[0].r2star_per_s is None
    r2star = rng.uniform(2, 60, mask.shape).astype(np.float32)
    boxed, box = dataclasses.replace(plain, r2star_per_s=r2star).boxed()
    np.testing.assert_array_equal(boxed.r2star_per_s, r2star[1:4, 2:6, 3:5])
    assert r2star[box].shape == boxed.mask.shape
    with pytest.raises(ValueError, match="r2star_per_s has shape"):
        dataclasses.replace(plain, r2star_per_s=r2star[:5])
