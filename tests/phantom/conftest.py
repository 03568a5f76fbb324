"""A head in miniature for the phantom's tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bids_qsm.images import Image
from bids_qsm.phantom.head import Phantom, simulate_head
from bids_qsm.phantom.options import HeadOptions


@pytest.fixture(scope="session")
def small_labels() -> Image:
    """Brain with ventricles, nuclei, skull and skin in air; 3 mm voxels, 48 x 56 x 44."""
    shape = (48, 56, 44)
    x, y, z = np.ix_(*((np.arange(n) - (n - 1) / 2) * 3.0 for n in shape))

    def ellipsoid(centre, radii):
        parts = ((a - c) / r for a, c, r in zip((x, y, z), centre, radii, strict=True))
        return sum(p**2 for p in parts) < 1

    labels = np.zeros(shape, np.int16)
    for radii, label in (
        ((62, 74, 58), 511),
        ((56, 68, 52), 515),
        ((50, 62, 46), 24),
        ((47, 59, 43), 3),
        ((40, 52, 36), 2),
    ):
        labels[ellipsoid((0, 0, 0), radii)] = label
    for side, pallidum, ventricle in ((-1, 13, 4), (1, 52, 43)):
        labels[ellipsoid((side * 20, 0, 0), (9, 12, 9))] = pallidum
        labels[ellipsoid((side * 8, -12, 15), (5, 15, 6))] = ventricle
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * 3.0 for n in shape]
    return Image(labels, affine)


@pytest.fixture(scope="session")
def make_head(small_labels) -> Callable[..., Phantom]:
    """Make a head from the small label map, plain unless asked otherwise."""

    def make(**options) -> Phantom:
        plain = {
            "sampling_mm": (3.0, 3.0, 3.0),
            "deformation_mm": 0.0,
            "texture": 0.0,
            "veins": 0,
            "nuclei_spread": 0.0,
        }
        return simulate_head(small_labels, HeadOptions(**{**plain, **options}))

    return make


@pytest.fixture(scope="session")
def tiny_labels(small_labels) -> Image:
    """The same head shrunk to 41 x 49 x 39 mm, for whole datasets."""
    affine = small_labels.affine.copy()
    affine[:3] /= 3
    return Image(small_labels.data, affine)
