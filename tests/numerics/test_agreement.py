from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from bids_qsm.numerics.agreement import MEASURES, agreement, surface_distances_mm
from bids_qsm.numerics.geometry import Geometry


def naive_surface_points(mask, voxel_mm) -> np.ndarray:
    """Centres (mm) of the voxels of a mask that lack a neighbour, one by one."""
    padded = np.pad(mask, 1)
    points = []
    for x, y, z in np.argwhere(padded):
        steps = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
        if not all(padded[x + i, y + j, z + k] for i, j, k in steps):
            points.append((x, y, z))
    return np.array(points) * voxel_mm


@pytest.fixture
def pair(rng) -> tuple[np.ndarray, np.ndarray]:
    """Two segmentations in lumps, with the labels 1, 2 and 5, some at the array's edge."""

    def lumps(noise) -> np.ndarray:
        smooth = ndimage.gaussian_filter(noise, 1.5)
        cut = np.quantile(smooth, (0.4, 0.7, 0.85))
        return np.array([0, 1, 2, 5])[np.digitize(smooth, cut)]

    noise = rng.normal(size=(17, 15, 12))
    return lumps(noise), lumps(noise + 0.6 * rng.normal(size=noise.shape))


@pytest.mark.parametrize("voxel_mm", [(1.0, 1.0, 1.0), (0.6, 1.1, 2.5)])
def test_values_are_those_of_point_clouds_and_counting(pair, voxel_mm) -> None:
    a, b = pair
    table = agreement(a, b, [5, 1, 2], voxel_mm).set_index("index")
    assert list(table.index) == [5, 1, 2] and list(table) == list(MEASURES)
    for label, row in table.iterrows():
        inside_a, inside_b = a == label, b == label
        points_a = naive_surface_points(inside_a, voxel_mm)
        points_b = naive_surface_points(inside_b, voxel_mm)
        from_a, _ = cKDTree(points_b).query(points_a)
        from_b, _ = cKDTree(points_a).query(points_b)
        both, either = (inside_a & inside_b).sum(), (inside_a | inside_b).sum()
        hausdorff = max(np.percentile(from_a, 95), np.percentile(from_b, 95))
        mean = (from_a.sum() + from_b.sum()) / (from_a.size + from_b.size)
        sizes_ml = [m.sum() * np.prod(voxel_mm) / 1000 for m in (inside_a, inside_b)]
        change = sizes_ml[1] - sizes_ml[0]
        dice = 2 * both / (inside_a.sum() + inside_b.sum())
        expected = (both / either, dice, hausdorff, mean, *sizes_ml, change)
        expected = (*expected, 100 * change / sizes_ml[0])
        np.testing.assert_allclose(row.to_numpy(), expected, rtol=1e-12)


def test_two_balls_are_as_far_apart_as_they_are(ball) -> None:
    geometry = Geometry((60, 40, 40), (0.5, 0.8, 0.8))
    a, b = ball(geometry, (25, 20, 20), 8.0), ball(geometry, (25, 20, 20), 10.0)
    row = agreement(a.astype(int), b.astype(int), [1], geometry.voxel_mm).iloc[0]
    assert row.jaccard == pytest.approx(0.8**3, abs=0.01)
    assert row.surface_distance_mm == pytest.approx(2.0, abs=0.15)
    assert row.hausdorff95_mm == pytest.approx(2.0, abs=0.6)
    assert row.volume_b_ml == pytest.approx(4 / 3 * np.pi * 10**3 / 1000, rel=0.01)


def test_a_shift_is_measured(ball) -> None:
    geometry = Geometry((40, 30, 30), (1.0, 1.0, 1.0))
    a = ball(geometry, (15, 15, 15), 9.0).astype(int)
    row = agreement(a, np.roll(a, 3, axis=0), [1], geometry.voxel_mm).iloc[0]
    assert 2.5 < row.hausdorff95_mm <= 3.0
    assert row.volume_difference_ml == row.volume_difference_percent == 0


def test_order_and_axes_do_not_matter(pair) -> None:
    a, b = pair
    table = agreement(a, b, [1, 2], (0.6, 1.1, 2.5))
    turned = [np.flip(m, 1).transpose(2, 0, 1) for m in (a, b)]
    turned_table = agreement(*turned, [1, 2], (2.5, 0.6, 1.1))
    np.testing.assert_allclose(turned_table.to_numpy(), table.to_numpy(), rtol=1e-12)
    swapped = agreement(b, a, [1, 2], (0.6, 1.1, 2.5))
    for column in ("jaccard", "dice", "hausdorff95_mm", "surface_distance_mm"):
        np.testing.assert_allclose(swapped[column], table[column], rtol=1e-12)
    np.testing.assert_array_equal(swapped.volume_difference_ml, -table.volume_difference_ml)


def test_a_segmentation_agrees_with_itself(pair) -> None:
    row = agreement(pair[0], pair[0], [2], (1.0, 2.0, 3.0)).iloc[0]
    assert row.jaccard == row.dice == 1
    assert row.hausdorff95_mm == row.surface_distance_mm == row.volume_difference_percent == 0


def test_empty_labels_have_no_values_that_are_not_defined() -> None:
    a, b = np.zeros((2, 5, 5, 5), int)
    a[1:4, 1:4, 1:4] = 7
    table = agreement(a, b, [7, 9], (1.0, 1.0, 2.0)).set_index("index")
    assert table.loc[7, "dice"] == table.loc[7, "jaccard"] == 0
    assert table.loc[7, "volume_a_ml"] == pytest.approx(0.054)
    assert table.loc[7, "volume_difference_percent"] == -100
    assert table.loc[[7, 9], ["hausdorff95_mm", "surface_distance_mm"]].isna().all(axis=None)
    assert table.loc[9, ["jaccard", "dice", "volume_difference_percent"]].isna().all()
    assert table.loc[9, "volume_b_ml"] == 0
    assert agreement(b, a, [7], (1.0, 1.0, 2.0)).volume_difference_percent.isna().all()
    assert all(d.size == 0 for d in surface_distances_mm(a > 0, b > 0, (1.0, 1.0, 1.0)))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        agreement(np.zeros((3, 3, 3), int), np.zeros((3, 3, 4), int), [1], (1.0, 1.0, 1.0))
