from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.anatomy.brain import PreparedT1w, _first_brain, prepare_t1w, remove_receive_field
from bids_qsm.anatomy.grids import on_grid
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture
def brain_truth(template_3mm: Image) -> np.ndarray:
    return ndimage.binary_fill_holes(template_3mm.data > 0)


@pytest.fixture(scope="module")
def moved(whole_head, rigid_matrix) -> tuple[Image, np.ndarray]:
    truth = rigid_matrix((8, -4, 10), (12.0, -7.0, 20.0))
    return Image(whole_head.data, truth @ whole_head.affine), truth


@pytest.fixture(scope="module")
def prepared(moved, template_3mm) -> PreparedT1w:
    return prepare_t1w(moved[0], template_3mm)


def test_brain_of_a_moved_head(prepared, moved, brain_truth):
    truth = moved[1]
    assert dice(prepared.brain.data, brain_truth) > 0.94
    assert prepared.warnings == ()
    assert prepared.image.data.dtype == np.float32 and prepared.brain.data.dtype == bool
    corners = np.array([[x, y, z, 1] for x in (-50, 50) for y in (-80, 40) for z in (-20, 60)]).T
    error_mm = np.linalg.norm(((prepared.template_to_t1w - truth) @ corners)[:3], axis=0)
    assert error_mm.max() < 3.0


@pytest.mark.parametrize("kind", ["brain only", "defaced"])
def test_brain_of_other_t1w(whole_head, template_3mm, brain_truth, kind):
    data = whole_head.data.copy()
    if kind == "brain only":
        data[~brain_truth] = 0
    else:
        data[:, 60:, :22] = 0  # the face is in front and below
    prepared = prepare_t1w(whole_head.like(data), template_3mm)
    expected = brain_truth & (data > 0) if kind == "defaced" else brain_truth
    assert dice(prepared.brain.data, expected) > 0.93


@pytest.mark.parametrize("muscle", [450.0, 530.0, 630.0])
def test_muscles_of_the_neck_are_left_out_of_the_first_brain(muscle):
    """They hang together with the brain where they are brighter than half of white matter."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    x, y, z = np.meshgrid(*[np.arange(n) * 4.0 - 2 * n for n in (50, 50, 64)], indexing="ij")
    brain = x**2 + y**2 + (z - 60) ** 2 < 62**2
    neck = (x**2 + y**2 < 85**2) & (z < 20) & ~brain
    head = Image(np.select([brain, neck], [1000.0, muscle]).astype(np.float32), affine)
    tissue, first = _first_brain(head)
    assert neck.sum() * 0.064 > 2000  # mL
    assert dice(first, brain) > 0.98 and dice(tissue, brain) > 0.98


def test_receive_field_is_taken_away(template_3mm):
    """The spread of white matter's brightness under a strong field falls to near its own."""
    tissue = np.where(template_3mm.data > 0, template_3mm.data, 0)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in tissue.shape], indexing="ij")
    field = np.exp(0.5 * x - 0.4 * z + 0.2 * y * x)
    white = tissue > np.percentile(tissue[tissue > 0], 75)
    mask = template_3mm.like(tissue > 0)
    flat = remove_receive_field(template_3mm.like((tissue * field).astype(np.float32)), mask).data

    def spread(values: np.ndarray) -> float:
        return float(values[white].std() / values[white].mean())

    assert spread(tissue * field) > 0.2
    assert spread(flat) < spread(tissue) + 0.05


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_empty_image_is_refused_in_a_sentence(value):
    with pytest.raises(UnreadableInputError, match="T1w image is empty or holds NaN"):
        prepare_t1w(Image(np.full((10, 10, 10), value, np.float32), np.eye(4)))


def test_doubtful_volume_is_said(whole_head, template_3mm):
    """A head at half its size is registered, and its volume looks wrong."""
    small = Image(whole_head.data, np.diag([0.75, 0.75, 0.75, 1.0]) @ whole_head.affine)
    warnings = " ".join(prepare_t1w(small, template_3mm).warnings)
    assert "unusual volume" in warnings


def test_mask_does_not_depend_on_the_order_of_the_axes(prepared, moved, template_3mm):
    """The same head stored with flipped axes gives the same brain."""
    head = moved[0]
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = head.shape[0] - 1
    flipped = Image(np.ascontiguousarray(head.data[::-1]), head.affine @ flip)
    back = on_grid(prepare_t1w(flipped, template_3mm).brain, head, order=0)
    assert dice(prepared.brain.data, back.data) > 0.985
