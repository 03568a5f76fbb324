"""Thickness of a shell of grey matter around a ball of white matter; lobes of the template."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.anatomy.lobes import LOBES
from bids_qsm.anatomy.template import load_template
from bids_qsm.anatomy.thickness import cortical_thickness, load_lobes, thickness_measures
from bids_qsm.anatomy.tissues import Tissues
from bids_qsm.images import Image

N = 26
GREY_MM = 8.0


def shell(white_mm: float) -> tuple[Image, Tissues]:
    """Grey matter out to 8 mm, fluid around it."""
    radius = np.linalg.norm(np.indices([N] * 3) - (N - 1) / 2, axis=0)
    white = np.clip(white_mm + 0.5 - radius, 0, 1)
    grey = np.clip(GREY_MM + 0.5 - radius, 0, 1) - white
    fluid = np.clip(11.5 - radius, 0, 1) - grey - white
    shares = np.rint(100 * np.stack([grey, white, fluid])).astype(np.uint8)
    labels = np.where(shares.any(axis=0), shares.argmax(axis=0) + 1, 0).astype(np.uint8)
    image = Image(np.zeros([N] * 3, np.float32), np.diag([-1.0, 1.0, 1.0, 1.0]))
    return image, Tissues(shares, labels, (0.0, 0.0, 0.0), 0.0, 1.0)


def test_thickness_of_shells():
    """A millimetre more is a millimetre more; most of a voxel is missing, as documented."""
    medians = []
    for white_mm in (5.0, 4.0):
        image, tissues = shell(white_mm)
        found = cortical_thickness(image, tissues).data
        grey = tissues.labels == 1
        assert found.dtype == np.float32 and (found[~grey] == 0).all()
        assert np.percentile(found[grey], 95) - np.percentile(found[grey], 5) < 0.4
        medians.append(float(np.median(found[grey])))
    assert medians[1] - medians[0] == pytest.approx(1.0, abs=0.25)
    assert 0 < 3.0 - medians[0] < 1.1


def test_thickness_is_repeatable():
    image, tissues = shell(5.0)
    first, second = (cortical_thickness(image, tissues, iterations=3).data for _ in range(2))
    assert first.any()
    np.testing.assert_array_equal(first, second)


def test_no_white_matter_is_no_thickness():
    image, tissues = shell(5.0)
    grey = np.minimum(tissues.labels, 1)
    none = Tissues(tissues.shares, grey, (0.0, 0.0, 0.0), 0.0, 1.0)
    assert not cortical_thickness(image, none).data.any()


def test_means_of_lobes():
    thickness = np.zeros((4, 4, 4), np.float32)
    lobes = np.zeros((4, 4, 4), np.int16)
    lobes[0], lobes[1], lobes[2] = 1, 11, 12
    thickness[0], thickness[1], thickness[3] = 2.0, 3.0, 9.0  # the last is no cortex
    thickness[0, 0] = 0  # fluid between the banks
    names = {1: ("insula", "L"), 11: ("insula", "R"), 12: ("frontal lobe", "R")}
    found = {(m.name, m.hemisphere): m.value for m in thickness_measures(thickness, lobes, names)}
    assert found["insula", "L"] == 2.0 and found["cortex", "L"] == 2.0
    assert found["cortex", "R"] == 3.0
    assert found["cortex", "B"] == pytest.approx((12 * 2 + 16 * 3) / 28)
    assert np.isnan(found["frontal lobe", "R"])


def test_lobes_lie_where_they_should():
    lobes, names = load_lobes()
    assert len(names) == 12 and set(np.unique(lobes.data)) == {0, *names}
    centre = {}
    for number, key in names.items():
        sites = np.argwhere(lobes.data == number)
        centre[key] = lobes.affine[:3, :3] @ sites.mean(axis=0) + lobes.affine[:3, 3]
        assert 2 < len(sites) / 1000 < 120, key
    for name in LOBES:
        assert centre[name, "L"][0] < 0 < centre[name, "R"][0]
    for side in "LR":
        assert centre["frontal lobe", side][1] > centre["parietal lobe", side][1]
        assert centre["parietal lobe", side][2] > centre["temporal lobe", side][2]
        assert centre["occipital lobe", side][1] < centre["temporal lobe", side][1]
    sites = np.argwhere(lobes.data > 0) @ lobes.affine[:3, :3].T + lobes.affine[:3, 3]
    template = load_template()
    voxels = np.rint((sites - template.affine[:3, 3]) @ np.linalg.inv(template.affine[:3, :3]).T)
    assert (template.data[tuple(voxels.astype(int).T)] > 0).mean() > 0.97
