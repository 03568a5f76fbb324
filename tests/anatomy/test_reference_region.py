from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_qsm.anatomy.reference_region import csf_reference_region
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
