from __future__ import annotations

import os

import numpy as np
import pytest

from bids_qsm.anatomy.itk import from_itk, load_ants, read_matrix, to_itk, write_matrix
from bids_qsm.images import Image


def affine_of(columns: np.ndarray, origin: tuple[float, float, float]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns, origin
    return affine


OBLIQUE = np.array([[0.98, -0.15, 0.13], [0.17, 0.97, -0.17], [-0.1, 0.19, 0.977]])
OBLIQUE = np.linalg.qr(OBLIQUE)[0]
AFFINES = {
    "straight": affine_of(np.diag([1.0, 1.2, 2.0]), (-90.5, -120.0, 33.0)),
    "flipped": affine_of(np.diag([-1.0, 1.0, -3.0]), (90.0, -120.0, 70.0)),
    "permuted": affine_of(np.array([[0, 0, 2.0], [-1, 0, 0], [0, 1.5, 0]]), (1.0, 2.0, 3.0)),
    "oblique": affine_of(OBLIQUE @ np.diag([0.8, 0.9, 2.5]), (-11.1, 22.2, -3.3)),
}


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())
def test_image_round_trip(affine, rng):
    image = Image(rng.standard_normal((5, 6, 7)).astype(np.float32), affine)
    back = from_itk(to_itk(image))
    np.testing.assert_array_equal(back.data, image.data)
    np.testing.assert_allclose(back.affine, affine, atol=1e-12)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())
def test_voxels_lie_where_the_affine_says(affine):
    """ITK's own index-to-point mapping, turned to RAS, is the affine."""
    itk = to_itk(Image(np.zeros((5, 6, 7), np.float32), affine))
    point = np.array(load_ants().transform_index_to_physical_point(itk, [3, 4, 2]))
    expected = affine @ [3, 4, 2, 1]
    np.testing.assert_allclose(point * [-1, -1, 1], expected[:3], atol=1e-5)


def test_file_written_by_ants_has_our_affine(tmp_path, rng):
    import nibabel as nib

    image = Image(rng.random((4, 5, 6)).astype(np.float32), AFFINES["oblique"])
    to_itk(image).to_filename(str(tmp_path / "image.nii.gz"))
    nifti = nib.load(tmp_path / "image.nii.gz")
    np.testing.assert_allclose(nifti.affine, image.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(nifti.dataobj), image.data)


def test_labels_and_masks_are_exact():
    labels = np.array([[[0, 1, 2035, 32767]]], np.int16)
    back = from_itk(to_itk(Image(labels, np.eye(4)))).data
    np.testing.assert_array_equal(back.astype(np.int16), labels)
    mask = from_itk(to_itk(Image(labels > 1, np.eye(4)))).data
    assert set(np.unique(mask)) == {0.0, 1.0}


def test_matrix_round_trip(tmp_path, rigid_matrix):
    matrix = rigid_matrix((10, -20, 5), (3.0, -4.0, 5.0))
    matrix[:3, :3] *= [1.1, 0.9, 1.05]
    write_matrix(matrix, tmp_path / "m.txt")
    np.testing.assert_allclose(read_matrix(tmp_path / "m.txt"), matrix, atol=1e-12)


def test_ants_runs_with_one_thread():
    load_ants()
    assert os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] == "1"
    assert int(os.environ["ANTS_RANDOM_SEED"]) != 0  # 0 is ITK's word for the clock
