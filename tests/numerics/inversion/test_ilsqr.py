from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.inversion.ilsqr import _fast_estimate, _neighbours_window, ilsqr
from bids_qsm.numerics.inversion.solver import Domain


def test_a_nucleus_comes_back(make_head) -> None:
    head = make_head()
    found = ilsqr(head.local)
    assert head.contrast(found) == pytest.approx(head.contrast(head.chi), rel=0.25)
    assert head.error(found) < 0.35


def test_removing_streaks_helps(make_head) -> None:
    head = make_head()
    start = ilsqr(head.local, streak_iterations=0)
    assert head.error(ilsqr(head.local)) < 0.9 * head.error(start)


def test_streaks_are_in_the_cone_alone(make_head) -> None:
    head = make_head()
    whole = np.ones_like(head.local.mask)
    local = type(head.local)(
        head.local.field_ppm,
        head.local.noise_ppm,
        head.local.magnitude,
        whole,
        head.local.geometry,
    )
    change = ilsqr(local, margin_mm=0.0) - ilsqr(local, streak_iterations=0, margin_mm=0.0)
    kernel = Domain.of(local, 0.0).kernel
    spectrum = np.abs(np.fft.rfftn(change))
    assert spectrum[np.abs(kernel) >= 0.1].max() < 1e-4 * spectrum.max()


def test_the_window_is_a_mean_over_neighbours_in_k_space(make_head, rng) -> None:
    domain = Domain.of(make_head().local, 20.0)
    shape, centre = domain.geometry.shape, [(n - 1) / 2 for n in domain.brain.mask.shape]
    volume = rng.normal(size=shape)
    phase = sum(
        np.expand_dims(np.fft.fftfreq(n) * c, [a for a in range(3) if a != axis])
        for axis, (n, c) in enumerate(zip(shape, centre, strict=True))
    )
    # with the brain's centre at the origin
    spectrum = np.fft.fftn(volume) * np.exp(2j * np.pi * phase)
    mean = sum(
        np.roll(spectrum, (i, j, k), (0, 1, 2))
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
        for k in (-1, 0, 1)
    )
    expected = np.fft.fftn(volume * _neighbours_window(domain)) * np.exp(2j * np.pi * phase)
    inner = (slice(2, 5),) * 3  # away from the ends, where the half-voxel phase does not close
    np.testing.assert_allclose((mean / 27)[inner], expected[inner], atol=1e-3)


def test_the_fast_estimate_shows_the_nucleus(make_head) -> None:
    head = make_head()
    domain = Domain.of(head.local, 20.0)
    estimate = domain.within_mask(_fast_estimate(domain))[head.local.mask]
    assert np.corrcoef(estimate, head.chi[head.local.mask])[0, 1] > 0.8


def test_it_scales(assert_scales) -> None:
    assert_scales(ilsqr)


def test_it_turns(assert_turns) -> None:
    # forward differences see an edge from one side: equal up to the error of the map
    assert_turns(ilsqr, 0.004)


def test_it_is_sound(assert_sound) -> None:
    assert_sound(ilsqr)


@pytest.mark.parametrize("threshold", [0.0, 0.7])
def test_a_threshold_out_of_range_is_refused(threshold, make_head) -> None:
    with pytest.raises(ValueError, match="between 0 and 2/3"):
        ilsqr(make_head().local, threshold=threshold)
