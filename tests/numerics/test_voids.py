"""Notches of a mask."""

from __future__ import annotations

import numpy as np

from bids_qsm.numerics.geometry import Geometry
from bids_qsm.numerics.voids import notches


def test_a_notch_is_found_and_a_flat_side_is_none(ball):
    geometry = Geometry((44, 40, 30), (1.0, 1.0, 1.5))
    mask = ball(geometry, (22, 20, 15), 15.0)
    whole, _ = notches(mask, geometry.voxel_mm, 12.0, 1.9)
    assert len(whole) == 0
    mask &= ~ball(geometry, (9, 20, 15), 3.2)
    mask &= ~ball(geometry, (24, 20, 15), 2.6)
    points, depth = notches(mask, geometry.voxel_mm, 12.0, 1.9)
    away = (points - np.array((9, 20, 15))) * geometry.voxel_mm
    in_notch = np.sqrt((away**2).sum(axis=1)) < 3
    assert in_notch.any()
    hole = (points == (24, 20, 15)).all(axis=1)
    assert hole.sum() == 1 and 2.5 < depth[hole][0] < 3.5
    assert (in_notch | (np.abs(points - (24, 20, 15)).max(axis=1) <= 1)).all()


def test_an_empty_mask_has_none():
    points, depth = notches(np.zeros((5, 5, 5), bool), (1.0, 1.0, 1.0), 12.0, 1.9)
    assert points.shape == (0, 3) and depth.size == 0
