from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.ndimage import gaussian_filter, generate_binary_structure, label

from bids_qsm.statistics.clusters import (
    Regions,
    cluster_table,
    find_clusters,
    peak_table,
    region_shares,
    significant_by_region,
)

SHAPE = (16, 14, 12)
MASK = np.ones(SHAPE, np.bool_)
MASK[:3, 8:] = False
AFFINE = np.array([[-2.0, 0, 0, 10], [0, 1.5, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])


def field(seed: int = 1) -> NDArray[np.float64]:
    smooth = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 1.0)
    return 1.5 * smooth / smooth.std()


@pytest.mark.parametrize(("connectivity", "rank"), [(6, 1), (18, 2), (26, 3)])
def test_clusters_are_those_of_scipy_for_each_sign(connectivity: int, rank: int) -> None:
    volume = field()
    found = np.zeros(SHAPE, int)
    found[MASK] = find_clusters(volume[MASK], MASK, 1.2, connectivity=connectivity)
    structure = generate_binary_structure(3, rank)
    pairs = set()
    for sign in (1, -1):
        expected, _ = label(MASK & (sign * volume > 1.2), structure)
        assert (found[expected > 0] > 0).all()
        inside = expected > 0
        pairs |= set(zip(sign * expected[inside], found[inside], strict=True))
    assert len(pairs) == len({e for e, _ in pairs}) == len({f for _, f in pairs}) == found.max()
    assert found[~(MASK & (np.abs(volume) > 1.2))].max() == 0
    sizes = np.bincount(found.ravel())[1:]
    assert (np.diff(sizes) <= 0).all()


def test_one_sign_and_small_clusters_can_be_left_out() -> None:
    volume = field()
    all_of_them = find_clusters(volume[MASK], MASK, 1.2)
    positive = find_clusters(volume[MASK], MASK, 1.2, both_signs=False)
    assert (volume[MASK][positive > 0] > 1.2).all()
    large = find_clusters(volume[MASK], MASK, 1.2, min_voxels=10)
    np.testing.assert_array_equal(
        large, np.where(np.bincount(all_of_them)[all_of_them] >= 10, all_of_them, 0)
    )
    assert 0 < large.max() < all_of_them.max()


def two_bumps() -> NDArray[np.float64]:
    """One cluster with a high and a low top, 8 voxels of 1.5 mm apart, and one below zero."""
    volume = np.zeros(SHAPE)
    volume[8, 2:11, 6] = [4.0, 5.0, 4.5, 4.0, 3.5, 3.6, 4.2, 4.8, 4.1]
    volume[13, 3, 3] = -6.0
    volume[13, 3, 4] = -5.0
    return volume


def test_table_says_size_place_and_peaks() -> None:
    volume = two_bumps()
    clusters = find_clusters(volume[MASK], MASK, 3)
    table = cluster_table(volume[MASK], clusters, MASK, AFFINE)
    assert table["n_voxels"].tolist() == [9, 2]
    assert table["volume_mm3"].tolist() == [81.0, 18.0]
    assert table["sign"].tolist() == [1, -1]
    assert table["peak_statistic"].tolist() == [5.0, -6.0]
    assert table[["peak_i", "peak_j", "peak_k"]].to_numpy().tolist() == [[8, 3, 6], [13, 3, 3]]
    places = table[["peak_x_mm", "peak_y_mm", "peak_z_mm"]].to_numpy()
    np.testing.assert_allclose(places, [[-6, -15.5, 23], [-16, -15.5, 14]])
    assert table["sub_peaks"].tolist() == ["4.80 (-6, -6, 23 mm)", ""]
    near = cluster_table(volume[MASK], clusters, MASK, AFFINE, peak_distance_mm=9.5)
    assert near["sub_peaks"].tolist() == ["", ""]
    peaks = peak_table(volume[MASK], clusters, MASK, AFFINE)
    assert peaks[["cluster", "peak"]].to_numpy().tolist() == [[1, 1], [1, 2], [2, 1]]


def test_table_names_the_structures() -> None:
    volume = two_bumps()
    labels = np.zeros(SHAPE, int)
    labels[8, :5], labels[8, 5:8], labels[8, 8:] = 12, 51, 99
    regions = Regions(labels[MASK], {51: "Right putamen", 12: "Left putamen"})
    clusters = find_clusters(volume[MASK], MASK, 3)
    table = cluster_table(volume[MASK], clusters, MASK, AFFINE, regions=regions)
    assert table["regions"].tolist() == [
        "Left putamen 33 %; Right putamen 33 %; elsewhere 33 %",
        "elsewhere 100 %",
    ]
    assert table["peak_region"].tolist() == ["Left putamen", "elsewhere"]
    assert region_shares(labels[MASK] == 51, regions) == "Right putamen 100 %"


def test_no_cluster_is_an_empty_table_with_its_columns() -> None:
    volume = two_bumps()
    clusters = find_clusters(volume[MASK], MASK, 30)
    table = cluster_table(volume[MASK], clusters, MASK, AFFINE)
    assert len(table) == 0
    whole = cluster_table(volume[MASK], find_clusters(volume[MASK], MASK, 3), MASK, AFFINE)
    assert table.columns.tolist() == whole.columns.tolist()


def study() -> tuple[NDArray[np.float32], Regions, NDArray[np.bool_], list[str]]:
    rng = np.random.default_rng(3)
    values = rng.normal(30, 3, (11, 100)).astype(np.float32)
    labels = np.repeat([10, 11, 12, 0], 25)
    groups = ["patient"] * 5 + ["control"] * 6
    values[:5, :60] += 4
    significant = np.zeros(100, np.bool_)
    significant[5:40] = True
    return (
        values,
        Regions(labels, {12: "Putamen", 10: "Thalamus", 11: "Caudate"}),
        significant,
        groups,
    )


def test_significant_part_is_what_scipy_says() -> None:
    values, regions, significant, groups = study()
    table = significant_by_region(values, regions, significant, groups).set_index("name")
    assert table.index.tolist() == ["Putamen", "Thalamus", "Caudate"]
    assert table["percent_significant"].tolist() == [0, 80, 60]
    assert table["n_significant"].tolist() == [0, 20, 15]
    means = values[:, 25:40].astype(float).mean(axis=1)
    expected = stats.ttest_ind(means[5:], means[:5], equal_var=False)
    row = table.loc["Caudate"]
    assert (row["group_a"], row["group_b"], row["n_a"], row["n_b"]) == ("control", "patient", 6, 5)
    assert row["mean_a"] == pytest.approx(means[5:].mean(), rel=1e-12)
    assert row["sd_b"] == pytest.approx(means[:5].std(ddof=1), rel=1e-12)
    assert row["difference"] == pytest.approx(means[5:].mean() - means[:5].mean(), rel=1e-12)
    assert row["p_welch"] == pytest.approx(expected.pvalue, rel=1e-9)
    assert row["df"] == pytest.approx(expected.df)
    assert np.isnan(table.loc["Putamen", ["mean_a", "p_welch"]].astype(float)).all()


def test_groups_can_be_turned_and_files_mapped(tmp_path) -> None:
    values, regions, significant, groups = study()
    there = significant_by_region(values, regions, significant, groups)
    np.save(tmp_path / "values.npy", values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    back = significant_by_region(
        mapped, regions, significant, groups, group_order=("patient", "control")
    )
    pd.testing.assert_series_equal(back["difference"], -there["difference"])
    pd.testing.assert_series_equal(back["mean_b"], there["mean_a"], check_names=False)
    pd.testing.assert_series_equal(back["p_welch"], there["p_welch"])


def test_subjects_without_values_are_not_counted() -> None:
    values, regions, significant, groups = study()
    values[0] = np.nan
    values[1, 25] = np.nan
    row = (
        significant_by_region(values, regions, significant, groups).set_index("name").loc["Caudate"]
    )
    means = np.append(values[1, 26:40].mean(), values[2:5, 25:40].mean(axis=1))
    assert (row["n_a"], row["n_b"]) == (6, 4)
    assert row["mean_b"] == pytest.approx(means.mean(), rel=1e-6)


def test_bad_input_is_refused_in_a_sentence() -> None:
    values, regions, significant, groups = study()
    with pytest.raises(ValueError, match="must be above 0, and is -1"):
        find_clusters(np.zeros(MASK.sum()), MASK, -1)
    with pytest.raises(ValueError, match="the statistic must have one value"):
        find_clusters(np.zeros(3), MASK, 2)
    with pytest.raises(ValueError, match="6, 18 or 26"):
        find_clusters(np.zeros(MASK.sum()), MASK, 2, connectivity=4)
    with pytest.raises(ValueError, match="there are 3: a, b, c"):
        significant_by_region(values, regions, significant, list("aabbccabcab"))
    with pytest.raises(ValueError, match="'patient' has one subject"):
        significant_by_region(values, regions, significant, ["patient"] + ["control"] * 10)
    with pytest.raises(ValueError, match="11 images and 2 groups"):
        significant_by_region(values, regions, significant, groups[4:6])
    with pytest.raises(ValueError, match="the significant voxels must have one value"):
        significant_by_region(values, regions, significant[1:], groups)
