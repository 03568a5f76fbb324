from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bids_qsm.anatomy.brain import PreparedT1w
from bids_qsm.anatomy.grids import on_grid
from bids_qsm.anatomy.lesions import (
    LesionRegions,
    _moves_little,
    align_to_t1w,
    grow_lesions,
    load_lesion_mask,
    locate_lesions,
    read_points,
    regions_from_template,
)
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, encode_image


@pytest.fixture(scope="module")
def t1w(template_3mm: Image) -> PreparedT1w:
    return PreparedT1w(template_3mm, template_3mm.like(template_3mm.data > 0), np.eye(4))


def test_a_moved_flair_comes_back_to_the_t1w(t1w, rigid_matrix):
    top = np.percentile(t1w.image.data[t1w.brain.data], 99)
    inverted = 120 - 100 * np.minimum(t1w.image.data / top, 1)
    truth = t1w.image.like(np.where(t1w.brain.data, inverted, 0).astype(np.float32))
    motion = rigid_matrix((2, -3, 4), (3.0, -2.0, 4.0))
    oblique = np.array([[2.5, 0, 0, -85], [0, 2.4, -1.1, -90], [0, 0.7, 2.8, -75], [0, 0, 0, 1.0]])
    grid = Image(np.zeros((70, 88, 66), np.float32), motion @ oblique)
    moved = on_grid(Image(truth.data, motion @ truth.affine), grid)
    back = on_grid(Image(moved.data, np.linalg.inv(motion) @ moved.affine), t1w.image).data
    unmoved = on_grid(moved, t1w.image).data
    found = align_to_t1w(t1w, moved)
    inside = t1w.brain.data
    assert found.shape == t1w.image.shape
    assert np.corrcoef(unmoved[inside], back[inside])[0, 1] < 0.5
    assert np.corrcoef(found.data[inside], back[inside])[0, 1] > 0.96


def test_an_image_on_the_t1ws_grid_is_interpolated_only_if_the_head_lies_off(t1w):
    """3 mm voxels: half a diagonal is 2.6 mm."""
    shift = np.eye(4)
    for shift_mm, little in ((0.0, True), (2.5, True), (2.7, False)):
        shift[1, 3] = shift_mm
        assert _moves_little(shift, t1w.brain) is little


@pytest.fixture(scope="module")
def regions(template_3mm: Image):
    return regions_from_template(template_3mm, ())


def test_the_template_tells_where_a_lesion_is(template_3mm, regions):
    assert regions.white.max() <= 1 and regions.grey.min() >= 0
    labels = np.zeros(template_3mm.shape, np.int16)
    to_voxel = np.linalg.inv(template_3mm.affine)
    points = [(-4, -30, -32), (-22, -42, 12), (-30, 26, 34), (28, -72, 26)]
    for number, point in enumerate(points, start=1):
        voxel = np.rint(to_voxel[:3, :3] @ point + to_voxel[:3, 3]).astype(int)
        labels[tuple(voxel)] = number
    table = locate_lesions(labels, template_3mm.affine, regions)
    assert table["location"].tolist()[:2] == ["infratentorial", "periventricular"]
    assert table["lobe"].tolist()[2] == "frontal lobe"
    assert (table["ventricle_distance_mm"][2:] > 3).all()
    mixed = set(table["location"][2:])
    assert mixed <= {"juxtacortical", "deep white"}


def test_white_matter_and_ventricles_deeper_than_2_mm_hold_no_grey_matter():
    labels = np.full((12, 2, 2), 2, np.int16)
    labels[:2], labels[8:10] = 1024, 4
    nowhere = np.zeros(labels.shape, np.float32)
    free = LesionRegions(nowhere, nowhere, labels).free_of_grey((1.5, 1.0, 1.0))
    np.testing.assert_array_equal(free[:, 0, 0], [False] * 3 + [True] * 9)


def test_lesions_grow_from_points_in_millimetres(t1w):
    flair = np.full(t1w.image.shape, 80, np.float32)
    centre = np.array([27, 36, 33])
    flair[tuple(slice(c - 1, c + 2) for c in centre)] = 150
    point = t1w.image.affine[:3, :3] @ centre + t1w.image.affine[:3, 3]
    grown = grow_lesions(t1w, t1w.image.like(flair), point[None])
    np.testing.assert_array_equal(grown.labels == 1, flair > 100)


def test_points_are_read_and_faults_are_said(tmp_path: Path):
    path = tmp_path / "points.tsv"
    path.write_text("name\tx\ty\tz\na\t1\t-2.5\t3\nb\t4\t5\t6\n", encoding="utf-8")
    np.testing.assert_array_equal(read_points(path), [[1, -2.5, 3], [4, 5, 6]])
    for text, message in (
        ("x\ty\n1\t2\n", "column 'z'"),
        ("x\ty\tz\n1\t2\tfar\n", "three numbers"),
        ("x\ty\tz\n", "three numbers"),
        ("", "cannot be read"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UnreadableInputError, match=message):
            read_points(path)


def test_an_edited_mask_is_taken_on_either_grid(tmp_path: Path, template_3mm: Image):
    data = np.zeros(template_3mm.shape, bool)
    data[20:23, 30:34, 30:33] = True
    path = tmp_path / "mask.nii.gz"
    path.write_bytes(encode_image(template_3mm.like(data)))
    np.testing.assert_array_equal(load_lesion_mask(path, template_3mm).data, data)
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = template_3mm.shape[0] - 1
    flair = Image(data[::-1].copy(), template_3mm.affine @ flipped)
    path.write_bytes(encode_image(flair))
    np.testing.assert_array_equal(load_lesion_mask(path, template_3mm, flair).data, data)
    with pytest.raises(UnreadableInputError, match="draw it on the grid"):
        load_lesion_mask(path, template_3mm)
