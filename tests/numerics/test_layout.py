from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.layout import copy_volume


@pytest.mark.parametrize("shape", [(1, 1, 1), (16, 3, 5), (35, 4, 7), (7, 9, 33)])
@pytest.mark.parametrize("order", ["F", "C"])
def test_volume_becomes_one_echo_of_all(shape, order) -> None:
    values = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    echoes = np.full((*shape, 3), -1, np.float32)
    copy_volume(np.asarray(values, order=order), echoes[..., 1])
    np.testing.assert_array_equal(echoes[..., 1], values)
    assert (echoes[..., [0, 2]] == -1).all()
