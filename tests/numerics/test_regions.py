from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.regions import WITHOUT_VEINS, region_statistics, statistics_without

VOXEL_MM3 = 2.0


def naive(values, labels, index, valid) -> list[tuple]:
    rows = []
    for label in index:
        inside = labels == label
        used = values[inside & valid & np.isfinite(values)].astype(np.float64)
        rows.append(
            (
                label,
                used.mean(),
                np.median(used),
                used.std(ddof=1),
                np.percentile(used, 5),
                np.percentile(used, 95),
                used.size,
                inside.sum() * VOXEL_MM3,
                used.size / inside.sum(),
            )
        )
    return rows


@pytest.fixture
def maps(rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values = rng.normal(size=(14, 13, 12)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    labels = rng.choice([0, 3, 7, 11, 1035], values.shape).astype(np.int16)
    return values, labels, rng.random(values.shape) < 0.8


def test_values_are_those_of_a_plain_loop(maps) -> None:
    values, labels, valid = maps
    index = [11, 3, 1035]
    table = region_statistics(values, labels, index, VOXEL_MM3, valid)
    statistics = ["mean", "median", "sd", "p05", "p95"]
    assert list(table.columns) == ["index", *statistics, "n_voxels", "volume_mm3", "coverage"]
    np.testing.assert_allclose(
        table.to_numpy(float), np.array(naive(values, labels, index, valid), float), rtol=1e-10
    )


def test_flips_and_permuted_axes_change_nothing(maps) -> None:
    table = region_statistics(maps[0], maps[1], [3, 7], VOXEL_MM3, maps[2])
    turned = [np.transpose(m, (2, 0, 1))[::-1] for m in maps]
    other = region_statistics(turned[0], turned[1], [3, 7], VOXEL_MM3, turned[2])
    np.testing.assert_allclose(other.to_numpy(float), table.to_numpy(float), rtol=1e-12)


def test_absent_and_uncovered_labels_have_rows_without_values(maps) -> None:
    values, labels, valid = maps
    valid[labels == 7] = False
    table = region_statistics(values, labels, [5, 7, 3], VOXEL_MM3, valid).set_index("index")
    assert table.n_voxels.to_list()[:2] == [0, 0]
    assert table.loc[[5, 7], ["mean", "median", "sd", "p05", "p95"]].isna().all(axis=None)
    assert table.volume_mm3[5] == 0
    assert np.isnan(table.coverage[5])
    assert table.coverage[7] == 0
    assert table.volume_mm3[7] == (labels == 7).sum() * VOXEL_MM3
    assert np.isfinite(table["mean"][3])


def test_one_voxel_has_a_mean_but_no_spread() -> None:
    labels = np.zeros((3, 3, 3), np.int32)
    labels[1, 1, 1] = 4
    values = np.full(labels.shape, 0.25, np.float32)
    row = region_statistics(values, labels, [4], 1.0, np.ones(labels.shape, bool)).iloc[0]
    assert row["mean"] == row["median"] == row["p95"] == 0.25
    assert np.isnan(row["sd"])


def test_without_veins_is_what_is_left_of_the_region(maps, rng) -> None:
    values, labels, valid = maps
    veins = rng.random(values.shape) < 0.3
    index = [11, 3, 5]
    table = region_statistics(values, labels, index, VOXEL_MM3, valid)
    both = statistics_without(table, values, labels, VOXEL_MM3, valid, veins)
    assert list(both.columns) == [*table.columns, *WITHOUT_VEINS]
    np.testing.assert_array_equal(both[table.columns].to_numpy(), table.to_numpy())
    for _, row in both.iloc[:2].iterrows():
        measured = (labels == row["index"]) & valid & np.isfinite(values)
        assert row.n_vein_voxels == (measured & veins).sum() > 0
        left = values[measured & ~veins].astype(float)
        assert row.mean_without_veins == pytest.approx(left.mean(), rel=1e-12)
        assert row.median_without_veins == pytest.approx(np.median(left), rel=1e-12)
        assert row.sd_without_veins == pytest.approx(left.std(ddof=1), rel=1e-12)
    assert both.n_vein_voxels[2] == 0 and np.isnan(both.mean_without_veins[2])


def test_a_region_that_is_all_vein_has_no_value_without(maps) -> None:
    values, labels, valid = maps
    table = region_statistics(values, labels, [3, 7], VOXEL_MM3, valid)
    both = statistics_without(table, values, labels, VOXEL_MM3, valid, labels == 3)
    assert both.n_vein_voxels.to_list() == [table.n_voxels[0], 0]
    assert np.isnan(both.mean_without_veins[0]) and np.isfinite(both["mean"][0])
    assert both.mean_without_veins[1] == both["mean"][1]
