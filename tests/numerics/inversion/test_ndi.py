from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bids_qsm.numerics.inversion.ndi import ndi
from bids_qsm.numerics.inversion.solver import Domain, weighted_least_squares


def test_a_nucleus_comes_back(make_head) -> None:
    head = make_head()
    found = ndi(head.local)
    # stopped early: what is smooth along the field is not there yet
    assert head.contrast(found) == pytest.approx(head.contrast(head.chi), rel=0.3)
    assert head.error(found) < 0.5


def test_for_small_phases_it_is_weighted_least_squares(make_head) -> None:
    local = make_head((0.2, 0.1, np.sqrt(0.95))).local
    noise = local.noise_ppm * np.where(np.arange(36) < 18, 1, 2)[:, None, None]
    local = replace(local, noise_ppm=noise.astype(np.float32))
    found = ndi(local, radians_per_ppm=1e-3, max_iterations=8, margin_mm=20.0)
    domain = Domain.of(local, 20.0)
    linear = weighted_least_squares(domain, domain.kernel, tolerance=0.0, max_iterations=8)
    np.testing.assert_allclose(found, domain.within_mask(linear.value), atol=2e-4)


def test_whole_turns_of_the_phase_do_not_count(make_head) -> None:
    head = make_head()
    wrapped = head.local.field_ppm.copy()
    wrapped[20:24, 10:14, 10:14] += np.float32(2 * np.pi / 8)
    found = ndi(head.with_field(wrapped), radians_per_ppm=8.0)
    np.testing.assert_allclose(found, ndi(head.local, radians_per_ppm=8.0), atol=2e-4)


def test_a_wrong_voxel_pulls_less_than_by_its_square(make_head) -> None:
    head = make_head()
    field = head.local.field_ppm.copy()
    field[20, 12, 12] += 0.36
    wrong = head.with_field(field)
    errors = []
    for scale in (8.0, 0.01):
        options = {"radians_per_ppm": scale, "max_iterations": 5}
        errors.append(np.abs(ndi(wrong, **options) - ndi(head.local, **options)).mean())
    assert errors[0] < 0.5 * errors[1]


def test_voxels_without_a_known_field_do_not_count(make_head) -> None:
    head = make_head()
    noise = head.local.noise_ppm.copy()
    noise[14:18, 26:28, 12:14] = np.inf
    unknown = replace(head.local, noise_ppm=noise)
    field = np.where(np.isfinite(noise), head.local.field_ppm, np.float32(0.2))
    np.testing.assert_array_equal(ndi(replace(unknown, field_ppm=field)), ndi(unknown))


def test_it_turns(assert_turns) -> None:
    assert_turns(ndi, 2e-4)


def test_it_is_sound(assert_sound) -> None:
    assert_sound(ndi)


@pytest.mark.parametrize("scale", [0.0, -16.0])
def test_a_scale_out_of_range_is_refused(scale, make_head) -> None:
    with pytest.raises(ValueError, match="above 0"):
        ndi(make_head().local, radians_per_ppm=scale)
