from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.geometry import dipole_kernel
from bids_qsm.numerics.inversion.l2 import l2
from bids_qsm.numerics.inversion.solver import (
    conjugate_gradient,
    gradient,
    gradient_adjoint,
    step_sizes,
)


def test_a_nucleus_comes_back(make_head) -> None:
    head = make_head()
    found = l2(head.local)
    assert head.contrast(found) == pytest.approx(head.contrast(head.chi), rel=0.15)
    assert head.error(found) < 0.35


def test_it_is_what_conjugate_gradients_find_in_space(make_head) -> None:
    local = make_head((0.2, 0.1, np.sqrt(0.95))).local
    local = replace(local, mask=np.ones_like(local.mask))
    found = l2(local, regularisation=0.1, margin_mm=0.0)
    geometry, steps = local.geometry, step_sizes(local.geometry)
    kernel = dipole_kernel(geometry)
    expected = conjugate_gradient(
        lambda x: (
            convolve(convolve(x, kernel), kernel)
            + np.float32(0.1) * gradient_adjoint(gradient(x, steps), steps)
        ),
        convolve(local.field_ppm, kernel),
        tolerance=1e-5,
        max_iterations=400,
    )
    assert expected.relative_residual <= 1e-5
    np.testing.assert_allclose(found, expected.value, atol=1e-4)


def test_it_scales(assert_scales) -> None:
    assert_scales(l2)


def test_it_turns(assert_turns) -> None:
    assert_turns(l2, 2e-5)


def test_it_is_sound(assert_sound) -> None:
    assert_sound(l2)


@pytest.mark.parametrize("regularisation", [0.0, -1.0])
def test_a_regularisation_out_of_range_is_refused(regularisation, make_head) -> None:
    with pytest.raises(ValueError, match="above 0"):
        l2(make_head().local, regularisation=regularisation)
