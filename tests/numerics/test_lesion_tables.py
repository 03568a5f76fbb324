from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_qsm.numerics.lesion_tables import label_lesions, lesion_load, lesion_table, with_map

AFFINE = np.array([[0, -2.0, 0, 10], [1.0, 0, 0, -20], [0, 0, 1.5, 5], [0, 0, 0, 1]])
VOXEL_MM3 = 3.0
SHAPE = (20, 18, 16)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[2:4, 2:4, 2:4] = True  # 8 voxels
    mask[10:13, 9:12, 8:11] = True  # 27
    mask[16, 16, 14] = True
    mask[17, 17, 15] = True  # shares a corner with the last
    return mask


@pytest.fixture
def regions() -> dict[str, np.ndarray]:
    ventricles, cortex, below = (np.zeros(SHAPE, bool) for _ in range(3))
    ventricles[15, 9:12, 8:11] = True  # 3 voxels of 1 mm from the large lesion
    cortex[15, 16, 14] = True
    below[:, :, :4] = True
    return {"ventricles": ventricles, "cortex": cortex, "infratentorial": below}


def test_pieces_are_numbered_by_size_and_corners_join(mask):
    labels = label_lesions(mask, VOXEL_MM3)
    assert labels.dtype == np.int16
    np.testing.assert_array_equal(np.bincount(labels.ravel())[1:], [27, 8, 2])
    assert labels[11, 10, 9] == 1 and labels[16, 16, 14] == labels[17, 17, 15] == 3
    np.testing.assert_array_equal(np.unique(label_lesions(mask, VOXEL_MM3, 24.0)), [0, 1, 2])
    assert not label_lesions(np.zeros(SHAPE, bool), VOXEL_MM3).any()


def test_volume_place_and_distance(mask, regions):
    labels = label_lesions(mask, VOXEL_MM3)
    table = lesion_table(labels, AFFINE, **regions)
    assert table["index"].tolist() == [1, 2, 3]
    assert table["volume_mm3"].tolist() == [81.0, 24.0, 6.0]
    for row in table.itertuples():
        middle = np.argwhere(labels == row.index).mean(axis=0)
        np.testing.assert_allclose(
            (row.x_mm, row.y_mm, row.z_mm), AFFINE[:3, :3] @ middle + AFFINE[:3, 3]
        )
    assert table["location"].tolist() == ["periventricular", "infratentorial", "juxtacortical"]
    voxels = np.argwhere(regions["ventricles"])
    for row in table.itertuples():
        steps = (np.argwhere(labels == row.index)[:, None] - voxels) @ AFFINE[:3, :3].T
        assert row.ventricle_distance_mm == pytest.approx(np.linalg.norm(steps, axis=-1).min())


def test_what_is_not_given_is_not_told(mask, regions):
    labels = label_lesions(mask, VOXEL_MM3)
    plain = lesion_table(labels, AFFINE)
    assert plain["location"].isna().all() and plain["lobe"].isna().all()
    assert plain["ventricle_distance_mm"].isna().all()
    only = lesion_table(labels, AFFINE, cortex=regions["cortex"])
    assert only["location"].tolist() == ["deep white", "deep white", "juxtacortical"]


def test_lobes_are_those_of_most_voxels_or_the_nearest(mask):
    lobes = np.zeros(SHAPE, np.int16)
    lobes[:, :10] = 4
    lobes[:12, 10:] = 6
    lobes[2:4, 2:4, 2:4] = 9  # has no name
    labels = label_lesions(mask, VOXEL_MM3)
    table = lesion_table(labels, AFFINE, lobes=lobes, lobe_names={4: "frontal", 6: "parietal"})
    assert table["lobe"].tolist() == ["parietal", "frontal", "parietal"]


def test_maps_are_measured_and_the_load_is_their_sum(mask, regions, rng):
    labels = label_lesions(mask, VOXEL_MM3)
    values = rng.normal(0, 1, SHAPE).astype(np.float32)
    valid = np.ones(SHAPE, bool)
    valid[2, 2, 2] = False
    valid[16:, 16:] = False
    table = with_map(
        lesion_table(labels, AFFINE, **regions), "chi_ppm", values, labels, valid
    ).set_index("index")
    used = values[(labels == 2) & valid].astype(float)
    assert table.loc[2, "chi_ppm_mean"] == pytest.approx(used.mean())
    assert table.loc[2, "chi_ppm_sd"] == pytest.approx(used.std(ddof=1))
    assert table["chi_ppm_n_voxels"].tolist() == [27, 7, 0]
    assert np.isnan(table.loc[3, "chi_ppm_mean"])
    load = lesion_load(table.reset_index()).set_index("location")
    assert load.loc["all"].tolist() == [3, pytest.approx(0.111)]
    assert load.loc["periventricular"].tolist() == [1, pytest.approx(0.081)]
    assert load.loc["deep white", "n_lesions"] == 0
    assert load["volume_ml"].iloc[1:].sum() == pytest.approx(load.loc["all", "volume_ml"])


def test_no_lesions_give_the_same_columns_and_no_rows(mask, regions):
    none = np.zeros(SHAPE, np.int16)
    table = lesion_table(none, AFFINE, **regions, lobes=none + 1, lobe_names={1: "frontal"})
    full = lesion_table(label_lesions(mask, VOXEL_MM3), AFFINE)
    pd.testing.assert_index_equal(table.columns, full.columns)
    assert len(table) == 0
    assert lesion_load(table)["volume_ml"].tolist() == [0.0] * 5
