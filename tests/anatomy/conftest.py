"""Small volumes that the anatomy's tests share."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.anatomy.grids import coarser
from bids_qsm.anatomy.template import load_template
from bids_qsm.images import Image


@pytest.fixture(scope="session")
def template_4mm() -> Image:
    return coarser(load_template(), 4.0)


@pytest.fixture(scope="session")
def template_3mm() -> Image:
    return coarser(load_template(), 3.0)


def turned(degrees_xyz: tuple[float, float, float], shift_mm: tuple[float, ...]) -> np.ndarray:
    """Return a rigid matrix: turns about x, y and z in this order, then a shift."""
    matrix = np.eye(4)
    for axis, degrees in enumerate(degrees_xyz):
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.eye(4)
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
        matrix = turn @ matrix
    matrix[:3, 3] = shift_mm
    return matrix


@pytest.fixture(scope="session")
def rigid_matrix():
    return turned


@pytest.fixture(scope="session")
def whole_head(template_3mm: Image) -> Image:
    """The template's brain in a dark skull and a bright scalp, with a neck, bias and noise."""
    rng = np.random.default_rng(7)
    brain = template_3mm.data / template_3mm.data.max()
    distance_mm = 3.0 * ndimage.distance_transform_edt(brain == 0)
    head = np.where((distance_mm > 8) & (distance_mm < 14), 1.6, brain)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in head.shape], indexing="ij")
    neck = (z < -0.75) & (x**2 + y**2 < 0.25) & (distance_mm > 6)
    head = np.where(neck, 0.55, head) * (1 + 0.25 * x - 0.2 * y)
    noisy = np.abs(head + 0.02 * rng.standard_normal(head.shape))
    return template_3mm.like((1000 * noisy).astype(np.float32))
