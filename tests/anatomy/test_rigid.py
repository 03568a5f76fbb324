from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.anatomy.brain import PreparedT1w
from bids_qsm.anatomy.grids import on_grid
from bids_qsm.anatomy.rigid import register_t1w_to_gre
from bids_qsm.images import Image


@pytest.fixture(scope="module")
def t1w(template_3mm: Image) -> PreparedT1w:
    return PreparedT1w(template_3mm, template_3mm.like(template_3mm.data > 0), np.eye(4))


def gradient_echo(brain: Image, affine: np.ndarray, shape: tuple[int, int, int]) -> Image:
    """Return another contrast of the brain, bright fluid, on an own grid."""
    grid = Image(np.zeros(shape, np.float32), affine)
    values = on_grid(brain, grid).data
    noise = np.random.default_rng(3).normal(0, 1.5, shape)
    return grid.like(np.where(values > 10, 100 - 0.6 * values + noise, 0).astype(np.float32))


def error_mm(found: np.ndarray, truth: np.ndarray) -> float:
    corners = np.array([[x, y, z, 1] for x in (-50, 50) for y in (-80, 40) for z in (-20, 60)]).T
    return float(np.linalg.norm(((found - truth) @ corners)[:3], axis=0).max())


OBLIQUE = np.array([[2.5, 0, 0, -80.0], [0, 2.4, -1.1, -85.0], [0, 0.7, 3.6, -70.0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("degrees", "shift_mm"), [((3, -4, 6), (5.0, -6.0, 4.0)), ((6, 2, -9), (30.0, -25.0, 35.0))]
)
def test_known_motion_is_found(t1w, rigid_matrix, degrees, shift_mm):
    truth = rigid_matrix(degrees, shift_mm)
    brain = Image(t1w.image.data, truth @ t1w.image.affine)
    magnitude = gradient_echo(brain, truth @ OBLIQUE, (64, 80, 40))
    found = register_t1w_to_gre(t1w, magnitude, magnitude.like(magnitude.data > 0))
    assert error_mm(found.t1w_to_gre, truth) < 0.5
    np.testing.assert_allclose(found.gre_to_t1w @ found.t1w_to_gre, np.eye(4), atol=1e-9)
    rotation = found.t1w_to_gre[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert found.mutual_information > found.mutual_information_before
    assert found.overlap > 0.9 and found.warnings == ()


def test_a_slab_is_enough(t1w, rigid_matrix):
    truth = rigid_matrix((2, -3, 4), (3.0, -4.0, 5.0))
    slab = np.array([[1.6, 0, 0, -80.0], [0, 1.6, 0, -110.0], [0, 0, 4, -8.0], [0, 0, 0, 1]])
    brain = Image(t1w.image.data, truth @ t1w.image.affine)
    magnitude = gradient_echo(brain, truth @ slab, (100, 120, 10))
    found = register_t1w_to_gre(t1w, magnitude, magnitude.like(magnitude.data > 0))
    assert error_mm(found.t1w_to_gre, truth) < 1.5


def test_images_that_do_not_fit_are_said(t1w):
    """Noise has nothing to be registered by."""
    noise = np.random.default_rng(5).random((30, 30, 20)).astype(np.float32)
    affine = np.diag([7.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = (-105, -140, -85)
    magnitude = Image(noise, affine)
    found = register_t1w_to_gre(t1w, magnitude, magnitude.like(np.ones(noise.shape, bool)))
    assert any("check their alignment" in text for text in found.warnings)
