"""A CT of a head is brought to its T1w image; what is no CT of it is refused."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.anatomy import ct as module
from bids_qsm.anatomy.brain import PreparedT1w
from bids_qsm.anatomy.ct import (
    CtRegistration,
    brain_on_ct,
    ct_on_t1w,
    load_ct,
    register_ct,
)
from bids_qsm.anatomy.resampling import apply_transforms, map_points
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, encode_image


@pytest.fixture(scope="module")
def t1w(whole_head, template_3mm) -> PreparedT1w:
    return PreparedT1w(whole_head, template_3mm.like(template_3mm.data > 0), np.eye(4))


@pytest.fixture(scope="module")
def t1w_to_ct(rigid_matrix) -> np.ndarray:
    return rigid_matrix((6, -4, 9), (65.0, -42, 14))


@pytest.fixture(scope="module")
def ct(template_3mm, t1w_to_ct) -> Image:
    """HU of the same head, which lies elsewhere; a wire in it."""
    brain = template_3mm.data / template_3mm.data.max()
    distance_mm = 3.0 * ndimage.distance_transform_edt(brain == 0)
    hu = np.where(brain > 0, 5 + 30 * brain, np.where(distance_mm < 15, 40, -1000))
    hu[(distance_mm > 0) & (distance_mm <= 6.5)] = 1100
    hu[30:33, 40, 30:50] = 3071
    rng = np.random.default_rng(3)
    hu = hu + 4 * rng.standard_normal(hu.shape)
    return Image(np.rint(hu).astype(np.int16), t1w_to_ct @ template_3mm.affine)


@pytest.fixture(scope="module")
def found(t1w, ct) -> CtRegistration:
    return register_ct(t1w, ct)


def test_the_ct_is_brought_to_the_t1w(found, t1w, t1w_to_ct):
    voxels = np.argwhere(t1w.brain.data)[::500]
    points = voxels @ t1w.image.affine[:3, :3].T + t1w.image.affine[:3, 3]
    moved, true = (map_points(points, (matrix,)) for matrix in (found.t1w_to_ct, t1w_to_ct))
    assert np.linalg.norm(moved - true, axis=1).max() < 0.8
    assert not found.failed and found.overlap > 0.95 and found.covered > 0.99
    assert found.skull > 0.2


def test_images_that_do_not_lie_over_each_other_are_seen(found, t1w, ct, rigid_matrix):
    shifted = rigid_matrix((0, 0, 0), (0.0, 45, 0)) @ found.t1w_to_ct
    brain = t1w.brain.like(t1w.brain.data.astype(np.float32))
    overlap, skull, covered = module._fit(brain, ct, shifted)
    wrong = dataclasses.replace(found, overlap=overlap, skull=skull, covered=covered)
    assert wrong.failed and overlap < 0.8
    assert dataclasses.replace(found, mutual_information=0.05).failed


def test_the_grids_are_those_asked_for(found, t1w, ct):
    moved = ct_on_t1w(ct, t1w.image, found)
    assert moved.data.dtype == np.int16 and moved.shape == t1w.image.shape
    assert np.median(moved.data[t1w.brain.data]) == pytest.approx(25, abs=6)
    far = dataclasses.replace(found, t1w_to_ct=found.t1w_to_ct + np.eye(4, k=3) * 1e4)
    assert (ct_on_t1w(ct, t1w.image, far).data == -1024).all()
    region = brain_on_ct(t1w.brain, ct, found, 4.0)
    assert region.shape == ct.shape
    assert 0.6 < region.sum() / t1w.brain.data.sum() < 0.95
    assert np.percentile(ct.data[region], 1) > -50


def test_a_ct_without_a_head_is_refused(t1w, ct):
    empty = ct.like(np.where(ct.data > 200, ct.data, np.int16(-1000)))
    with pytest.raises(ValueError, match="shows no brain: only 0 mL of soft tissue"):
        register_ct(t1w, empty)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda hu: hu + 1024, "is not in HU: its values go from"),
        (lambda hu: hu / 20, "convert it with the slope and intercept"),
        (lambda hu: np.where(hu > 2000, np.nan, hu), "holds NaN"),
        (lambda hu: hu[..., None], "one volume of at least 8 slices"),
        (lambda hu: hu[:, :, :5], "one volume of at least 8 slices"),
    ],
)
def test_what_is_no_ct_is_refused(tmp_path, ct, change, sentence):
    path = tmp_path / "sub-aa_ct.nii.gz"
    image = ct.like(change(ct.data.astype(np.float32)))
    path.write_bytes(encode_image(SimpleNamespace(data=image.data, affine=ct.affine)))
    with pytest.raises(UnreadableInputError, match=sentence):
        load_ct(path)


def test_padding_below_air_is_cut(tmp_path, ct):
    path = tmp_path / "sub-aa_ct.nii.gz"
    padded = ct.data.copy()
    padded[:3] = -3024
    path.write_bytes(encode_image(ct.like(padded)))
    read = load_ct(path)
    assert read.data.dtype == np.int16 and read.data.min() == -1024
    np.testing.assert_array_equal(read.data[3:], np.maximum(ct.data[3:], -1024))


def test_points_go_the_way_of_images(template_4mm, rigid_matrix):
    """A blob brought over by mappings lies where the inverse takes its middle, and points agree."""
    mappings = (rigid_matrix((5, 0, 10), (3.0, -2, 8)), rigid_matrix((0, 20, 0), (-6.0, 4, 0)))
    place = np.array([[10.0, -20, 15]])
    there = map_points(place, mappings)
    expected = mappings[1] @ mappings[0] @ [*place[0], 1]
    np.testing.assert_allclose(there[0], expected[:3], atol=1e-4)
    grid = np.indices(template_4mm.shape).reshape(3, -1).T
    world = grid @ template_4mm.affine[:3, :3].T + template_4mm.affine[:3, 3]
    blob = np.exp(-((world - there[0]) ** 2).sum(axis=1) / 200).reshape(template_4mm.shape)
    image = template_4mm.like(blob.astype(np.float32))
    moved = apply_transforms(image, template_4mm, mappings).data.ravel()
    middle = (moved[:, None] * world).sum(axis=0) / moved.sum()
    np.testing.assert_allclose(middle, place[0], atol=0.3)
    assert map_points(np.zeros((0, 3)), mappings).shape == (0, 3)
