from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from bids_qsm.numerics.inversion.nltv import nltv
from bids_qsm.numerics.inversion.tv import tv

# what holds after each iteration needs few of them
few = partial(nltv, max_iterations=15)


def test_a_nucleus_comes_back(make_head) -> None:
    head = make_head()
    found = nltv(head.local)
    assert head.contrast(found) == pytest.approx(head.contrast(head.chi), rel=0.1)
    assert head.error(found) < 0.2


def test_small_phases_are_the_linear_case(make_head) -> None:
    local = make_head().local
    plain = {"background_price": 1.0, "edge_scale": 0.5, "data_pace": 1.0, "max_iterations": 60}
    linear = tv(local, regularisation=0.8, **plain)
    np.testing.assert_allclose(
        nltv(local, regularisation=0.8, radians_per_ppm=0.1), linear, atol=1e-4
    )


def test_a_whole_turn_changes_nothing_and_wrong_phases_little(make_head) -> None:
    head = make_head()
    wrong = head.local.field_ppm.copy()
    wrong[10:26:3, 12:28:3, 13] += np.float32(2 * np.pi / 16)
    plain, found = nltv(head.local), nltv(head.with_field(wrong))
    linear = tv(head.with_field(wrong))
    assert head.error(found) < 1.5 * head.error(plain)
    assert head.error(linear) > 2 * head.error(found)


def test_it_scales_with_the_phase_of_a_ppm(make_head) -> None:
    local = make_head().local
    tripled = type(local)(
        3 * local.field_ppm, 3 * local.noise_ppm, local.magnitude, local.mask, local.geometry
    )
    plain = few(local, radians_per_ppm=15.0)
    np.testing.assert_allclose(
        few(tripled, radians_per_ppm=5.0), 3 * plain, atol=3e-4 * np.abs(plain).max()
    )


def test_it_turns(assert_turns) -> None:
    # forward differences see an edge from one side: equal up to the error of the map
    assert_turns(few, 0.005)


def test_it_is_sound(assert_sound) -> None:
    assert_sound(few)


def test_no_phase_is_refused(make_head) -> None:
    with pytest.raises(ValueError, match="radians_per_ppm of nltv must be positive"):
        nltv(make_head().local, radians_per_ppm=0.0)
