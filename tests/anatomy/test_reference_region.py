from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_qsm.anatomy.atlases import load_atlas
from bids_qsm.anatomy.reference_region import (
    ATRIA,
    VENTRICLES,
    atria_box,
    csf_reference_region,
)
from bids_qsm.images import Image

TABLE = pd.DataFrame(
    {
        "index": [4, 10, 43],
        "name": ["Left-Lateral-Ventricle", "Thalamus", "right lateral ventricle"],
    }
)


@pytest.fixture
def labels() -> Image:
    data = np.zeros((40, 30, 20), np.int16)
    data[5:15, 5:25, 5:15] = 4
    data[20:30, 5:25, 5:15] = 43
    data[33:38, 5:25, 5:15] = 10
    return Image(data, np.eye(4))


def test_a_rim_of_a_voxel_is_left_out(labels):
    region = csf_reference_region(labels, TABLE, np.ones(labels.shape, bool))
    assert region.warnings == ()
    expected = np.zeros(labels.shape, bool)
    expected[6:14, 6:24, 6:14] = expected[21:29, 6:24, 6:14] = True
    np.testing.assert_array_equal(region.mask, expected)


def test_fast_decay_and_untrusted_voxels_are_left_out(labels):
    valid = np.ones(labels.shape, bool)
    valid[:, 15:] = False
    r2star_per_s = np.full(labels.shape, 2.0)
    r2star_per_s[8:12] = 30.0  # choroid plexus
    r2star_per_s[23, 10, 10] = np.nan
    region = csf_reference_region(labels, TABLE, valid, r2star_per_s)
    assert region.mask[:, 14:].sum() == 0 and region.mask[:, 13].any()
    assert not region.mask[8:12].any() and not region.mask[23, 10, 10]
    assert region.mask[7, 8, 8] and region.warnings == ()


def test_little_fluid_is_taken_with_a_warning(labels):
    r2star_per_s = np.full(labels.shape, 30.0)
    region = csf_reference_region(labels, TABLE, np.ones(labels.shape, bool), r2star_per_s)
    assert region.mask.sum() == 4000
    assert "decay fast" in region.warnings[0]
    valid = np.zeros(labels.shape, bool)
    valid[5:15, 5:13, 5:6] = True  # 80 voxels, one slice: all of it rim
    region = csf_reference_region(labels, TABLE, valid)
    assert region.mask.sum() == 80 and "rim was kept" in region.warnings[0]


def test_no_fluid_is_an_empty_region_with_a_warning(labels):
    nowhere = csf_reference_region(labels, TABLE, np.zeros(labels.shape, bool))
    assert not nowhere.mask.any() and "only 0 voxels" in nowhere.warnings[0]
    unnamed = csf_reference_region(labels, TABLE.iloc[1:2], np.ones(labels.shape, bool))
    assert not unnamed.mask.any() and "no lateral ventricles" in unnamed.warnings[0]


def test_the_atria_are_taken_where_they_are_large_enough(labels):
    everywhere = np.ones(labels.shape, bool)
    atria = np.zeros(labels.shape, bool)
    atria[:, :12] = True
    region = csf_reference_region(labels, TABLE, everywhere, atria=atria)
    expected = np.zeros(labels.shape, bool)
    expected[6:14, 6:12, 6:14] = expected[21:29, 6:12, 6:14] = True
    np.testing.assert_array_equal(region.mask, expected)
    assert region.name == ATRIA and region.warnings == ()
    atria[:, 6:] = False  # only the rim of the ventricles is left
    small = csf_reference_region(labels, TABLE, everywhere, atria=atria)
    whole = csf_reference_region(labels, TABLE, everywhere)
    np.testing.assert_array_equal(small.mask, whole.mask)
    assert small.name == whole.name == VENTRICLES
    assert "atria hold only 0 voxels" in small.warnings[0]


def test_veins_and_choroid_plexus_are_left_out(labels, rng):
    everywhere = np.ones(labels.shape, bool)
    veins, plexus = np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)
    veins[10, 8:14, 10] = True
    plexus[24:27, 10:16, 8:12] = True
    chi = rng.normal(0.02, 0.005, labels.shape) + 0.05 * plexus
    whole = csf_reference_region(labels, TABLE, everywhere).mask
    region = csf_reference_region(labels, TABLE, everywhere, veins=veins, contrasts=[chi])
    assert not region.mask[9:12, 8:14, 10].any() and not region.mask[10, 8:14, 9:12].any()
    assert not region.mask[plexus].any()
    assert region.mask.sum() > 0.97 * (whole & ~plexus & ~veins).sum() - 4 * veins.sum()
    assert chi[region.mask].mean() == pytest.approx(0.02, abs=0.0005)
    assert chi[whole].mean() > 0.021
    chi[whole & ~plexus & (rng.random(chi.shape) < 0.1)] = np.nan
    region = csf_reference_region(labels, TABLE, everywhere, contrasts=[chi])
    assert np.isfinite(chi[region.mask]).all() and region.warnings == ()


def test_the_box_holds_the_atria_of_the_atlas():
    atlas = load_atlas("default")
    box = atria_box(atlas.labels)
    ventricles = np.isin(atlas.labels.data, (4, 43))
    place = np.argwhere(box.data & ventricles) @ box.affine[:3, :3].T + box.affine[:3, 3]
    assert place[:, 1].min() >= -50 and place[:, 1].max() <= -30
    left, right = (place[:, 0] < 0).sum(), (place[:, 0] > 0).sum()
    assert min(left, right) > 1500 and np.abs(place[:, 0]).min() >= 10
    part = np.s_[60:135, 50:165, 50:140]  # around the ventricles
    rest = atlas.labels.data.copy()
    rest[part] = 0
    assert not np.isin(rest, (4, 43)).any()
    labels = Image(atlas.labels.data[part], atlas.labels.affine)
    everywhere = np.ones(labels.shape, bool)
    region = csf_reference_region(labels, atlas.table, everywhere, atria=box.data[part])
    assert region.name == ATRIA and 1000 < region.mask.sum() < 5000
