from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bids_qsm.report.slices import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    cut,
    enlarged,
    lay_out,
    reoriented,
    reoriented_affine,
)

CODES = ["RAS", "LPS", "PIR", "SLA", "AIL"]


def affine_of(code: str, shape: tuple[int, int, int], tilt: float = 0.0) -> np.ndarray:
    """Return an affine with the array's axes along ``code``, centred, tilted about x (rad)."""
    axes = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
    linear = np.zeros((3, 3))
    for column, letter in enumerate(code):
        linear[axes[letter], column] = (1 if letter in "RAS" else -1) * (1.0, 1.5, 2.0)[column]
    c, s = np.cos(tilt), np.sin(tilt)
    linear = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ linear
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = -linear @ ((np.array(shape) - 1) / 2)
    return affine


@pytest.mark.parametrize("code", CODES)
def test_reoriented_as_nibabel_does(code: str, rng: np.random.Generator) -> None:
    volume = rng.normal(size=(5, 6, 7)).astype(np.float32)
    affine = affine_of(code, volume.shape, tilt=0.2)
    canonical = nib.as_closest_canonical(nib.Nifti1Image(volume, affine))
    np.testing.assert_array_equal(reoriented(volume, affine), canonical.get_fdata())
    np.testing.assert_allclose(reoriented_affine(affine, volume.shape), canonical.affine)


def test_slices_lie_within_the_region_and_the_canvas() -> None:
    region = np.zeros((60, 70, 50), bool)
    region[20:40, 25:60, 10:30] = True
    layout = lay_out(region, np.eye(4), 900)
    assert {cell.axis for cell in layout.cells} == {AXIAL, CORONAL, SAGITTAL}
    spans = ((20, 40), (25, 60), (10, 30))
    for cell in layout.cells:
        first, last = spans[cell.axis]
        assert first <= cell.index < last
        assert cell.position_mm == pytest.approx(cell.index)
        assert 0 <= cell.left <= layout.width - cell.width
        assert 0 <= cell.top <= layout.height - cell.height


def test_cells_do_not_overlap() -> None:
    layout = lay_out(np.ones((60, 70, 50), bool), np.diag([1.0, 1.0, 2.0, 1.0]), 900)
    covered = np.zeros((layout.height, layout.width), int)
    for cell in layout.cells:
        covered[cell.top : cell.top + cell.height, cell.left : cell.left + cell.width] += 1
    assert covered.max() == 1


def test_pixels_are_square_in_mm() -> None:
    layout = lay_out(np.ones((60, 70, 50), bool), np.diag([1.0, 1.5, 3.0, 1.0]), 1200)
    size_mm = {AXIAL: (60, 105), CORONAL: (60, 150), SAGITTAL: (105, 150)}
    for cell in layout.cells:
        width_mm, height_mm = size_mm[cell.axis]
        assert cell.width / cell.height == pytest.approx(width_mm / height_mm, rel=0.03)


def test_a_slab_of_three_slices_has_one_axial_row() -> None:
    layout = lay_out(np.ones((60, 70, 3), bool), np.diag([1.0, 1.0, 5.0, 1.0]), 900)
    axial = [cell for cell in layout.cells if cell.axis == AXIAL]
    assert [cell.index for cell in axial] == [0, 1, 2]


def test_an_empty_region_is_the_whole_volume() -> None:
    empty, full = np.zeros((20, 20, 20), bool), np.ones((20, 20, 20), bool)
    assert lay_out(empty, np.eye(4), 600) == lay_out(full, np.eye(4), 600)


def test_a_thin_cord_does_not_stretch_the_picture() -> None:
    region = np.zeros((60, 60, 80), bool)
    region[10:50, 10:50, 40:75] = True
    region[29:31, 29:31, :40] = True
    layout = lay_out(region, np.eye(4), 900)
    assert min(cell.index for cell in layout.cells if cell.axis == AXIAL) >= 40


def test_enlarging_keeps_the_mean() -> None:
    layout = lay_out(np.ones((40, 40, 40), bool), np.eye(4), 900)
    cell = layout.cells[0]
    x = np.linspace(0, 1, 40, dtype=np.float32)
    volume = x[:, None, None] + np.zeros((40, 40, 40), np.float32)
    pixels = enlarged(cut(volume, layout.box, cell), cell)
    assert pixels.shape == (cell.height, cell.width)
    assert pixels.mean() == pytest.approx(0.5, abs=0.01)
    assert (np.diff(pixels.mean(axis=0)) > -1e-3).all()
