from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from bids_qsm.anatomy.grids import on_grid
from bids_qsm.anatomy.resampling import apply_transforms, resample_map
from bids_qsm.images import Image


@pytest.fixture
def labels(rng) -> Image:
    affine = np.diag([2.0, 2.0, 2.5, 1.0])
    return Image(rng.choice(np.array([0, 4, 10, 2035], np.int16), (16, 17, 12)), affine)


def test_no_mapping_is_the_headers_alone(rng):
    image = Image(rng.random((8, 9, 10)).astype(np.float32), np.diag([-1.0, 1.0, 2.0, 1.0]))
    reference = Image(np.zeros((12, 7, 15), np.float32), np.diag([-0.7, 1.3, 1.1, 1.0]))
    mine = apply_transforms(image, reference, ())
    inside = np.zeros(reference.shape, bool)
    inside[:10, :6, :12] = True  # within the image's last voxel centres
    naive = on_grid(image, reference)
    np.testing.assert_allclose(mine.data[inside], naive.data[inside], atol=1e-5)


@pytest.mark.parametrize("interpolation", ["nearest", "label"])
def test_labels_keep_their_values(labels, rigid_matrix, interpolation):
    moved = apply_transforms(labels, labels, (rigid_matrix((5, 3, -8), (1, 2, 0)),), interpolation)
    assert moved.data.dtype == np.int16
    assert set(np.unique(moved.data)) == {0, 4, 10, 2035}


def test_matrices_are_taken_in_turn(labels, rigid_matrix):
    """The reference's point goes through the first mapping first."""
    first, second = rigid_matrix((0, 0, 30), (4, 0, 0)), rigid_matrix((20, 0, 0), (0, 3, 1))
    in_turn = apply_transforms(labels, labels, (first, second), "nearest").data
    at_once = apply_transforms(labels, labels, (second @ first,), "nearest").data
    assert (in_turn == at_once).mean() > 0.999  # ties at voxel borders may fall either way
    assert (
        in_turn == apply_transforms(labels, labels, (first @ second,), "nearest").data
    ).mean() < 0.9


def test_shift_by_a_voxel_is_exact(labels):
    shift = np.eye(4)
    shift[0, 3] = 2.0
    moved = apply_transforms(labels, labels, (shift,), "nearest").data
    np.testing.assert_array_equal(moved[:-1], labels.data[1:])
    assert not moved[-1].any()


def test_masks_and_nan(rng):
    data = rng.random((8, 8, 8)).astype(np.float32)
    data[2, 2, 2], data[5, 5, 5] = np.nan, np.inf
    image = Image(data, np.eye(4))
    moved = apply_transforms(image, image, (np.eye(4),), "sinc").data
    assert np.isfinite(moved).all()
    mask = apply_transforms(image.like(np.isfinite(data)), image, ())
    np.testing.assert_array_equal(mask.data, np.isfinite(data))


def test_a_masked_constant_stays_constant_to_the_edge(rigid_matrix):
    distance = np.linalg.norm(np.indices((20, 20, 20)) - 9.5, axis=0)
    mask = Image(distance < 7, np.eye(4))
    values = mask.like(np.where(mask.data, 0.05, np.nan).astype(np.float32))
    moved = resample_map(values, mask, mask, (rigid_matrix((4, 5, 6), (0.3, 0.4, -0.3)),)).data
    assert (moved != 0).sum() == pytest.approx(mask.data.sum(), rel=0.02)
    np.testing.assert_allclose(moved[moved != 0], 0.05, rtol=1e-4)


def test_no_file_is_left(labels, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    apply_transforms(labels, labels, (np.eye(4), np.eye(4)), "label")
    assert not list(Path(tmp_path).iterdir())
