from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bids_qsm.numerics.geometry import dipole_kernel
from bids_qsm.numerics.inversion.tikhonov import tikhonov
from bids_qsm.numerics.inversion.tkd import tkd


def test_a_nucleus_comes_back_with_its_amplitude(make_head) -> None:
    head = make_head()
    found = tikhonov(head.local)
    assert head.contrast(found) == pytest.approx(head.contrast(head.chi), rel=0.1)
    assert head.error(found) < 0.35


def test_it_is_the_solution_of_the_normal_equations(make_head) -> None:
    head = make_head((0.2, 0.1, np.sqrt(0.95)))
    field = replace(head.local, mask=np.ones_like(head.local.mask))
    found = tikhonov(field, regularisation=0.05, margin_mm=0.0)
    kernel = dipole_kernel(head.local.geometry.with_shape(found.shape)).astype(float)
    left = np.fft.rfftn(found) * (kernel**2 + 0.05)
    right = kernel * np.fft.rfftn(head.local.field_ppm)
    known = np.abs(kernel) > 0.1
    ratio = (left[known] / right[known]).real
    # the same factor everywhere: the correction for a point source
    assert np.median(ratio) > 1
    assert np.percentile(np.abs(ratio / np.median(ratio) - 1), 95) < 1e-3


def test_more_regularisation_leaves_less_noise(make_head) -> None:
    noisy, quiet = make_head(noise=0.01).local, make_head(noise=0.0).local
    noise = [
        np.std(tikhonov(noisy, regularisation=r) - tikhonov(quiet, regularisation=r))
        for r in (0.001, 0.05)
    ]
    assert noise[1] < 0.7 * noise[0]


def test_little_regularisation_is_less_streaky_than_a_threshold(make_head) -> None:
    head = make_head()
    assert head.error(tikhonov(head.local)) < head.error(tkd(head.local))


def test_it_scales(assert_scales) -> None:
    assert_scales(tikhonov)


def test_it_turns(assert_turns) -> None:
    assert_turns(tikhonov, 2e-5)


def test_it_is_sound(assert_sound) -> None:
    assert_sound(tikhonov)


@pytest.mark.parametrize("regularisation", [0.0, -1.0, float("nan")])
def test_a_regularisation_out_of_range_is_refused(regularisation, make_head) -> None:
    with pytest.raises(ValueError, match="above 0"):
        tikhonov(make_head().local, regularisation=regularisation)
