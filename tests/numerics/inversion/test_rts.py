from __future__ import annotations

import pytest

from bids_qsm.numerics.inversion.rts import rts
from bids_qsm.numerics.inversion.solver import Domain, weighted_least_squares


def test_a_nucleus_comes_back(make_head) -> None:
    head = make_head()
    found = rts(head.local)
    assert head.contrast(found) == pytest.approx(head.contrast(head.chi), rel=0.1)
    assert head.error(found) < 0.25


def test_the_second_step_removes_streaks_and_keeps_what_is_known(make_head) -> None:
    head = make_head()
    domain = Domain.of(head.local, 20.0)
    first = weighted_least_squares(domain, domain.kernel, tolerance=0.0, max_iterations=20)
    assert head.error(rts(head.local)) < 0.8 * head.error(domain.within_mask(first.value))


def test_it_scales(assert_scales) -> None:
    assert_scales(rts)


def test_it_turns(assert_turns) -> None:
    # forward differences see an edge from one side: equal up to the error of the map
    assert_turns(rts, 0.004)


def test_it_is_sound(assert_sound) -> None:
    assert_sound(rts)


@pytest.mark.parametrize("threshold", [0.0, 0.7])
def test_a_threshold_out_of_range_is_refused(threshold, make_head) -> None:
    with pytest.raises(ValueError, match="between 0 and 2/3"):
        rts(make_head().local, threshold=threshold)
