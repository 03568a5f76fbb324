from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.layout import copy_volume, root_sum_of_squares


@pytest.mark.parametrize("shape", [(1, 1, 1), (16, 3, 5), (35, 4, 7), (7, 9, 33)])
@pytest.mark.parametrize("order", ["F", "C"])
def test_volume_becomes_one_echo_of_all(shape, order) -> None:
    values = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    echoes = np.full((*shape, 3), -1, np.float32)
    copy_volume(np.asarray(values, order=order), echoes[..., 1])
    np.testing.assert_array_equal(echoes[..., 1], values)
    assert (echoes[..., [0, 2]] == -1).all()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (17, 3, 5, 5), (8, 7, 2, 12)])
def test_echoes_are_combined_voxel_by_voxel_whatever_the_threads(shape) -> None:
    echoes = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    combined = root_sum_of_squares(echoes, 1)
    np.testing.assert_allclose(combined, np.linalg.norm(echoes.astype(float), axis=3), rtol=1e-6)
    np.testing.assert_array_equal(root_sum_of_squares(echoes, 3), combined)
