"""The CT of a head: HU, leads where they should be, metal beyond the scale, words and files."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from bids_qsm.images import Image, load_image
from bids_qsm.numerics.lead_models import LEAD_MODELS, lead_model
from bids_qsm.phantom import cli
from bids_qsm.phantom.ct import LARGEST_HU, simulate_ct
from bids_qsm.phantom.dataset import write_dataset
from bids_qsm.phantom.metal import STEP_MM, bowed_path
from bids_qsm.phantom.options import CtOptions, DatasetOptions

COARSE = CtOptions(voxel_mm=(1.0, 1.0, 1.0), target="gpi", sides="R", noise_hu=5.0, fillings=False)


@pytest.fixture(scope="module")
def head(make_head):
    return make_head()


@pytest.fixture(scope="module")
def scan(head):
    return simulate_ct(head, COARSE, seed=1)


def _voxels(ct, points_mm):
    moved = np.einsum("ij,nj->ni", ct.pose[:3, :3], points_mm) + ct.pose[:3, 3]
    return (moved - ct.affine[:3, 3]) / np.diag(ct.affine)[:3]


def test_tissue_has_its_hu(head, scan):
    assert scan.data.dtype == np.int16 and scan.data.max() == LARGEST_HU
    for label, hu, spread in ((2, 28, 3), (515, 1500, 40), (0, -1000, 5)):
        deep = ndimage.binary_erosion(head.labels == label, iterations=1 if label else 3)
        places = np.argwhere(deep) if deep.any() else np.argwhere(head.labels == label)
        world = np.einsum("ij,nj->ni", head.affine[:3, :3], places) + head.affine[:3, 3]
        path = scan.leads[0].path_mm[::10]
        far = np.linalg.norm(world[:, None] - path, axis=2).min(axis=1) > 30
        values = ndimage.map_coordinates(
            scan.data, _voxels(scan, world[far]).T, np.float32, order=0, cval=-1000
        )
        assert np.median(values) == pytest.approx(hu, abs=spread)


def test_a_lead_is_bright_from_its_lowest_contact_upwards(scan):
    lead = scan.leads[0]
    assert lead.side == "R" and lead.path_mm[0, 0] > 0
    metal = scan.data > 1800
    for point in lead.contacts_mm():
        x, y, z = np.rint(_voxels(scan, point[None])[0]).astype(int)
        assert metal[x - 1 : x + 2, y - 1 : y + 2, z - 1 : z + 2].any()
    down = lead.path_mm[0] - lead.path_mm[20]
    below = lead.path_mm[0] + 2.0 * down / np.linalg.norm(down)
    assert not metal[tuple(np.rint(_voxels(scan, below[None])[0]).astype(int))]


def test_contacts_lie_as_the_model_says(scan):
    contacts = scan.leads[0].contacts_mm()
    pitch = np.linalg.norm(np.diff(contacts, axis=0), axis=1)
    np.testing.assert_allclose(pitch, 2.0, atol=1e-6)
    assert np.linalg.norm(contacts[0] - scan.leads[0].path_mm[0]) == pytest.approx(2.25)
    assert list(lead_model("3387").centres_mm) == [2.25, 5.25, 8.25, 11.25]
    assert lead_model("db 2202".replace(" ", "")).centres_mm[0] == 0.75
    spans = {n: m.centres_mm[-1] - m.centres_mm[0] + m.contact_mm for n, m in LEAD_MODELS.items()}
    assert (spans["3389"], spans["3387"], spans["DB-2201"], spans["3391"]) == (7.5, 10.5, 15.5, 24)
    with pytest.raises(ValueError, match="choose one of: 3389"):
        lead_model("9999")


def test_a_bow_keeps_its_ends_and_its_step():
    tip, end = np.array([10.0, 0, 0]), np.array([30.0, 20, 60])
    path = bowed_path(tip, end, 3.0, np.array([1.0, 0, 0]))
    np.testing.assert_allclose(path[0], tip)
    assert np.linalg.norm(path[-1] - end) < STEP_MM
    np.testing.assert_allclose(np.linalg.norm(np.diff(path, axis=0), axis=1), STEP_MM, rtol=1e-3)
    chord = (end - tip) / np.linalg.norm(end - tip)
    across = (path - tip) - ((path - tip) @ chord)[:, None] * chord
    assert np.linalg.norm(across, axis=1).max() == pytest.approx(3.0, abs=0.01)


def test_the_shifted_brain_leaves_air(head, scan):
    shifted = simulate_ct(head, dataclasses.replace(COARSE, brain_shift_mm=8.0), seed=1)
    new_air = (shifted.data < -700) & (scan.data > -200)
    assert new_air.sum() > 500
    world = scan.affine[1, 3] + np.argwhere(new_air)[:, 1] * scan.affine[1, 1]
    # at the forehead, which is at some 60 mm
    assert np.percentile(world - scan.pose[1, 3], 5) > 30


def test_the_dataset_has_the_ct_and_where_its_leads_are(tmp_path, small_labels):
    options = DatasetOptions(
        voxel_mm=(6.0, 6.0, 6.0),
        anatomy_voxel_mm=4.0,
        te_s=(0.004, 0.008, 0.012),
        deformation_mm=0.0,
        has_flair=False,
        ct=dataclasses.replace(COARSE, voxel_mm=(2.0, 2.0, 2.0)),
    )
    write_dataset(tmp_path / "bids", small_labels, options)
    ct = load_image(tmp_path / "bids/sub-01/ct/sub-01_ct.nii.gz", np.int16)
    assert (tmp_path / "bids/.bidsignore").read_text().splitlines() == ["**/ct"]
    truth = tmp_path / "bids/derivatives/truth/sub-01/anat"
    table = pd.read_csv(truth / "sub-01_leads.tsv", sep="\t")
    assert list(table.groupby("hemisphere").size()) == [6]
    t1w_to_ct = np.array(json.loads((truth / "sub-01_leads.json").read_text())["T1wToCt"])
    points = table[["x_mm", "y_mm", "z_mm"]].to_numpy()
    moved = points @ t1w_to_ct[:3, :3].T + t1w_to_ct[:3, 3]
    np.testing.assert_allclose(moved, table[["ct_x_mm", "ct_y_mm", "ct_z_mm"]], atol=2e-3)
    contact = table[table["point"] == "contact 2"].iloc[0]
    voxel = np.linalg.inv(ct.affine) @ [*contact[["ct_x_mm", "ct_y_mm", "ct_z_mm"]], 1]
    x, y, z = np.rint(voxel[:3].astype(float)).astype(int)
    assert ct.data[x - 1 : x + 2, y - 1 : y + 2, z - 1 : z + 2].max() > 1500
    labels = load_image(truth / "sub-01_space-T1w_dseg.nii.gz", np.int16)
    assert isinstance(labels, Image)
    place = np.linalg.inv(labels.affine) @ [*contact[["x_mm", "y_mm", "z_mm"]], 1]
    assert labels.data[tuple(np.rint(place[:3].astype(float)).astype(int))] in (13, 52, 2)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--ct", "--no-t1w"], "--ct needs a T1w image"),
        (["--ct", "--leads", "9999"], "there is no lead model '9999'"),
        (["--ct", "--ct-voxel", "0", "1", "1"], "voxel sizes of the CT must be positive"),
    ],
)
def test_wrong_words_are_refused(words, sentence, tmp_path, capsys):
    assert cli.main([str(tmp_path / "x"), *words]) == 2
    assert sentence in capsys.readouterr().err
