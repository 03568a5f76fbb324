from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bids_qsm.analyses.cohort import Cohort, Selection, select
from bids_qsm.analyses.stacks import stack_maps
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, encode_image, load_image
from tests.analyses.tiny import VOXEL_MM, Tiny

FWHM_MM = 6.0


@pytest.fixture
def chosen(cohort: Cohort, tmp_path) -> Cohort:
    part = select(cohort, Selection(measures=("Chimap",), structures=("thalamus", "putamen")))
    return dataclasses.replace(part, work_dir=tmp_path)


def written(path, image: Image):
    path.write_bytes(encode_image(image))
    return path


def test_values_are_those_of_the_maps_in_the_structures(chosen: Cohort, tiny: Tiny) -> None:
    paths = list(chosen.images["path"][:3])
    stack = stack_maps(chosen, paths)
    deep = np.zeros(tiny.plan.mask.shape, bool)
    deep[tiny.plan.mask] = tiny.plan.deep_grey
    np.testing.assert_array_equal(stack.mask.data, deep)
    for row, path in zip(stack.values, paths, strict=True):
        np.testing.assert_array_equal(row, load_image(path).data[deep])
    assert set(stack.sided.names.values()) == {
        f"{side} {name}" for side in ("Left", "Right") for name in ("thalamus", "putamen")
    }
    assert sorted(stack.joined.names.values()) == ["Putamen", "Thalamus"]
    assert stack.voxel_mm == pytest.approx((VOXEL_MM,) * 3)
    back = stack.volume(stack.values[1], fill=-1)
    assert back.data[~deep].tolist() == [-1] * int((~deep).sum())
    np.testing.assert_array_equal(back.data[deep], stack.values[1])


def test_smoothing_takes_nothing_from_outside(chosen: Cohort, tmp_path) -> None:
    image = load_image(chosen.images["path"].iloc[0])
    mask = stack_maps(chosen, [chosen.images["path"].iloc[0]]).mask.data
    flat, loud = np.full(image.shape, 1e6, np.float32), image.data.copy()
    flat[mask], loud[~mask] = 0.25, 1e6
    hole = tuple(np.argwhere(mask)[100])
    gapped = flat.copy()
    gapped[hole] = 0
    paths = [chosen.images["path"].iloc[0]] + [
        written(tmp_path / f"{name}.nii.gz", image.like(data))
        for name, data in (("loud", loud), ("flat", flat), ("gapped", gapped))
    ]
    stack = stack_maps(chosen, paths, FWHM_MM)
    np.testing.assert_array_equal(stack.values[0], stack.values[1])
    np.testing.assert_allclose(stack.values[2], 0.25, rtol=1e-5)
    assert np.isnan(stack.values[3]).sum() == np.isnan(stack.values[3][100]) == 1
    known = np.isfinite(stack.values[3])
    np.testing.assert_allclose(stack.values[3][known], 0.25, rtol=1e-5)


def test_smoothing_is_a_gaussian_over_what_is_inside(chosen: Cohort) -> None:
    path = chosen.images["path"].iloc[0]
    stack, data = stack_maps(chosen, [path], FWHM_MM), load_image(path).data.astype(np.float64)
    mask, sd = stack.mask.data, FWHM_MM / 2.3548 / VOXEL_MM
    inside, total = (
        gaussian_filter(np.pad(part, 12), sd)[12:-12, 12:-12, 12:-12][mask]
        for part in (mask.astype(np.float64), np.where(mask, data, 0))
    )
    np.testing.assert_allclose(stack.values[0], total / inside, rtol=1e-4)
    assert np.std(stack.values[0]) < np.std(data[mask])


def test_labels_on_a_finer_grid_follow_the_maps(chosen: Cohort, tiny: Tiny) -> None:
    (atlas,) = chosen.atlases.values()
    fine = np.kron(atlas.labels.data, np.ones((2, 2, 2), np.int16))
    affine = atlas.labels.affine @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] -= VOXEL_MM / 4
    finer = dataclasses.replace(atlas, labels=Image(fine, affine))
    cohort = dataclasses.replace(chosen, atlases={"tiny": finer})
    paths = [chosen.images["path"].iloc[0]]
    np.testing.assert_array_equal(
        stack_maps(cohort, paths).labels, stack_maps(chosen, paths).labels
    )


def test_maps_elsewhere_have_no_voxel(chosen: Cohort, tmp_path) -> None:
    image = load_image(chosen.images["path"].iloc[0])
    affine = image.affine.copy()
    affine[:3, 3] += 500
    path = written(tmp_path / "far.nii.gz", Image(image.data, affine))
    with pytest.raises(ValueError, match="none of the structures has a voxel"):
        stack_maps(chosen, [path])
    with pytest.raises(UnreadableInputError, match="another grid than"):
        stack_maps(chosen, [chosen.images["path"].iloc[0], path])


def test_a_damaged_map_is_named(chosen: Cohort, tmp_path) -> None:
    path = tmp_path / "cut.nii.gz"
    path.write_bytes(chosen.images["path"].iloc[1].read_bytes()[:200])
    with pytest.raises(UnreadableInputError, match=r"cut\.nii\.gz.*cannot be read"):
        stack_maps(chosen, [chosen.images["path"].iloc[0], path])
