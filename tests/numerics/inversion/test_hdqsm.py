from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from bids_qsm.numerics.inversion.hdqsm import _limited_step, hd_qsm
from bids_qsm.numerics.inversion.tv import tv

# what holds after each iteration needs few of them
few = partial(hd_qsm, first_iterations=10, max_iterations=12)


def test_a_nucleus_comes_back(make_head) -> None:
    head = make_head()
    found = hd_qsm(head.local)
    assert head.contrast(found) == pytest.approx(head.contrast(head.chi), rel=0.05)
    assert head.error(found) < 0.15


def test_where_all_misfits_are_noise_it_is_total_variation(make_head) -> None:
    head = make_head()
    options = {"max_iterations": 100, "tolerance": 5e-4, "edge_scale": 0.5}
    found = hd_qsm(head.local, outlier=1e6, **options)
    plain = tv(head.local, background_price=1, data_pace=1, **options)
    difference = (found - plain)[head.local.mask]
    assert np.sqrt(np.mean(difference**2)) < 0.002


def test_wrong_voxels_pull_little(make_head, rng) -> None:
    head = make_head()
    wrong = (rng.random(head.chi.shape) < 0.01) & head.local.mask
    field = head.local.field_ppm + np.where(wrong, rng.normal(0, 0.2, wrong.shape), 0)
    local = head.with_field(field)
    assert head.error(hd_qsm(local)) < 0.5 * head.error(tv(local))


def test_voxels_without_a_known_field_do_not_count(make_head) -> None:
    head = make_head()
    noise = head.local.noise_ppm.copy()
    noise[14:18, 26:28, 12:14] = np.inf
    field = np.where(np.isfinite(noise), head.local.field_ppm, np.float32(0.2))
    unknown = replace(head.local, noise_ppm=noise)
    found = few(replace(unknown, field_ppm=field))
    assert np.abs(found - few(unknown)).max() < 0.002


def test_the_first_stage_splits_as_plain_admm_does(oblique_geometry, rng) -> None:
    shape = oblique_geometry.shape
    field, split, dual, measured = rng.normal(size=(4, *shape)).astype(np.float32)
    limit = rng.random(shape).astype(np.float32)
    dual = np.clip(dual, -limit, limit)
    relaxed = 1.7 * field - 0.7 * split + dual
    offset = relaxed - measured
    new_split = measured + np.sign(offset) * np.maximum(np.abs(offset) - limit, 0)
    new_dual = relaxed - new_split
    _limited_step(field, split, dual, measured, limit)
    np.testing.assert_allclose(split, new_split, atol=1e-5)
    np.testing.assert_allclose(dual, new_dual, atol=1e-5)
    np.testing.assert_allclose(field, new_split - new_dual, atol=1e-5)


def test_it_scales(assert_scales) -> None:
    assert_scales(few)


def test_it_turns(assert_turns) -> None:
    # forward differences see an edge from one side: equal up to the error of the map
    assert_turns(few, 0.004)


def test_it_is_sound(assert_sound) -> None:
    assert_sound(few)
