from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.anatomy.brain import PreparedT1w
from bids_qsm.anatomy.deep_grey import (
    DEEP_GREY_BOX_MM,
    SeriesChi,
    brain_alone,
    contrasts_through,
    cropped,
    deep_grey_grid,
)
from bids_qsm.images import Image, voxel_sizes_mm


@pytest.fixture
def turned_head(rigid_matrix) -> PreparedT1w:
    """A head that lies oblique and is a tenth larger than the template, with thick slices."""
    to_t1w = rigid_matrix((8.0, -5.0, 12.0), (4.0, -20.0, 15.0)) @ np.diag([1.1, 1.1, 1.1, 1.0])
    affine = rigid_matrix((3.0, 0.0, 0.0), (-90.0, -110.0, -80.0)) @ np.diag([2.0, 2.0, 4.0, 1.0])
    x, y, z = np.indices((90, 110, 45))
    data = (100 + x + 2 * y + 3 * z).astype(np.float32)
    image = Image(data, affine)
    return PreparedT1w(image, image.like(np.ones(data.shape, bool)), to_t1w)


def test_grid_is_upright_isotropic_and_holds_the_box(turned_head):
    grid = deep_grey_grid(turned_head, 2.0)
    np.testing.assert_allclose(voxel_sizes_mm(grid.affine), 2.0, rtol=1e-12)
    axes = grid.affine[:3, :3] / 2.0
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    # turned as the template's axes are, without their scale
    np.testing.assert_allclose(axes, turned_head.template_to_t1w[:3, :3] / 1.1, atol=1e-12)
    corners = np.array(np.meshgrid(*DEEP_GREY_BOX_MM)).reshape(3, -1)
    mapped = turned_head.template_to_t1w @ np.vstack([corners, np.ones(8)])
    voxels = (np.linalg.inv(grid.affine) @ mapped)[:3]
    assert voxels.min() > -1e-9
    assert (voxels.max(axis=1) <= np.array(grid.shape) - 1 + 1e-9).all()
    assert (voxels.max(axis=1) > np.array(grid.shape) - 2).all()


def test_values_come_from_the_same_places(turned_head):
    """The T1w's ramp and χ, which lies elsewhere by a known shift, agree in every voxel."""
    grid = deep_grey_grid(turned_head, 4.0)
    shift = np.eye(4)
    shift[:3, 3] = (7.0, -3.0, 2.0)
    ramp = turned_head.image.data
    chi = Image(1e-3 * ramp, shift @ turned_head.image.affine)
    series = SeriesChi(chi, chi.like(np.ones(ramp.shape, bool)), shift)
    found = contrasts_through(grid, (), turned_head, series)
    inside = found.chi.data > 0
    assert inside.sum() > 1000
    top = np.percentile(ramp, 99)
    expected = np.minimum(1000 * found.chi.data / top, 1.0)
    dim = inside & (expected < 0.95)
    np.testing.assert_allclose(found.t1w.data[dim], expected[dim], atol=2e-3)


def test_brain_alone_is_scaled_and_cut(turned_head):
    mask = np.zeros(turned_head.image.shape, bool)
    mask[10:40] = True
    brain = brain_alone(
        PreparedT1w(turned_head.image, turned_head.image.like(mask), turned_head.template_to_t1w)
    )
    assert brain.data.max() == 1.0
    assert (brain.data[~mask] == 0).all() and (brain.data[mask] > 0).all()


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_cropped_keeps_places(flip):
    affine = np.diag([flip * 2.0, 3.0, 1.0, 1.0])
    affine[:3, 3] = (-flip * 20.0, -30.0, -10.0)
    image = Image(np.random.default_rng(1).random((21, 21, 21)), affine)
    part = cropped(image, ((-5.0, 6.0), (-9.0, 9.0), (-4.0, 3.0)))
    start = (np.linalg.inv(affine) @ part.affine[:, 3])[:3].round().astype(int)
    sides = tuple(slice(s, s + n) for s, n in zip(start, part.shape, strict=True))
    np.testing.assert_array_equal(part.data, image.data[sides])
    corners = part.affine @ np.array([[0, n - 1] for n in part.shape] + [[1, 1]])
    assert (corners[:3].min(axis=1) <= (-5.0, -9.0, -4.0)).all()
    assert (corners[:3].max(axis=1) >= (6.0, 9.0, 3.0)).all()
