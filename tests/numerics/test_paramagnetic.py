"""Compact regions of high susceptibility, told from veins, edges and nuclei."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.geometry import Geometry
from bids_qsm.numerics.paramagnetic import hysteresis, off

VOXEL_MM = (1.0, 1.2, 1.5)
SHAPE = (60, 56, 44)
CENTRE = np.array([29.5, 33.0, 32.2])


def _ellipsoid(centre_mm, radii_mm) -> np.ndarray:
    axes = np.ix_(*(np.arange(n) * v for n, v in zip(SHAPE, VOXEL_MM, strict=True)))
    parts = ((a - c) / r for a, c, r in zip(axes, centre_mm, radii_mm, strict=True))
    return sum(p**2 for p in parts) < 1


@pytest.fixture(scope="module")
def head() -> dict:
    """A lesion with a rim, a small one, a vein, a sinus at the edge, and a nucleus."""
    rng = np.random.default_rng(4)
    mask = _ellipsoid(CENTRE, (27, 29, 29))
    chi = rng.normal(0, 0.02, SHAPE).astype(np.float32)
    r2star = rng.normal(20, 2, SHAPE).astype(np.float32)
    parts = {
        "lesion": _ellipsoid((20, 33, 32), (5, 5, 5)),
        "rim": _ellipsoid((20, 33, 32), (6.5, 6.5, 6.5)),
        "small": _ellipsoid((40, 33, 20), (2.3, 2.3, 2.3)),
        "vein": _ellipsoid((38, 33, 45), (1.3, 18, 1.4)),
        "sinus": _ellipsoid((29.5, 33, 60), (8, 8, 2.2)),
        "nucleus": _ellipsoid((42, 40, 32), (4, 5, 4)),
        "calm": _ellipsoid((30, 50, 32), (4, 4, 4)),
    }
    for name, value in (("rim", 0.25), ("lesion", 0.6), ("small", 0.6), ("vein", 0.45),
                        ("sinus", 0.5), ("nucleus", 0.4), ("calm", 0.5)):  # fmt: skip
        chi[parts[name]] = value
        if name != "calm":
            r2star[parts[name]] = 70
    return {"chi": chi, "r2star": r2star, "mask": mask, **parts}


GEOMETRY = Geometry(SHAPE, VOXEL_MM, (0.0, 0.0, 1.0))


def _run(head, **options) -> np.ndarray:
    nuclei = options.pop("nuclei", head["nucleus"])
    return hysteresis(head["chi"], head["r2star"], head["mask"], GEOMETRY, nuclei, **options)


def test_finds_the_lesion_with_its_rim_and_nothing_else(head) -> None:
    labels = _run(head)
    assert labels.dtype == np.int16
    np.testing.assert_array_equal(labels == 1, head["rim"])
    assert labels.max() == 1


@pytest.mark.parametrize(
    ("options", "added"),
    [
        ({"least_mm3": 20.0}, "small"),
        ({"compactness": 0.2}, "vein"),
        ({"edge_mm": 0.0, "compactness": 0.2}, "sinus"),
        ({"nuclei": None}, "nucleus"),
        ({"nucleus_ppm": 0.3}, "nucleus"),
        ({"r2star_ratio": 0.5}, "calm"),
    ],
)
def test_each_rule_keeps_what_it_is_made_for_out(head, options, added) -> None:
    labels = _run(head, **options)
    part = head[added] & head["mask"]
    assert (labels[part] > 0).mean() > 0.8
    assert labels.max() >= 2


def test_a_vein_that_enters_a_lesion_is_cut_off(head) -> None:
    vein = _ellipsoid((20, 33, 32), (1.3, 20, 1.4)) & ~_ellipsoid((20, 33, 32), (6.5, 6.5, 6.5))
    joined = {**head, "chi": np.where(vein, np.float32(0.45), head["chi"])}
    outer = vein & ~_ellipsoid((20, 33, 32), (10.5, 10.5, 10.5))
    labels = _run(joined)
    np.testing.assert_array_equal((labels == 1)[head["rim"]], True)
    assert outer.sum() >= 20 and not labels[outer].any()
    whole = _run(joined, branch=0.0, compactness=0.0)
    assert (whole == whole[tuple(np.argwhere(head["lesion"])[0])])[outer].all()


def test_a_lesion_grows_no_farther_than_it_is_told(head) -> None:
    labels = _run(head, rim_mm=0.5)
    np.testing.assert_array_equal(labels > 0, head["lesion"])


def test_without_relaxation_or_lesion_or_mask(head) -> None:
    found = hysteresis(head["chi"], None, head["mask"], GEOMETRY, head["nucleus"])
    assert found.max() == 2  # the quiet one too
    nothing = hysteresis(0 * head["chi"], None, head["mask"], GEOMETRY)
    assert not nothing.any() and nothing.shape == SHAPE
    assert not hysteresis(head["chi"], None, np.zeros(SHAPE, bool), GEOMETRY).any()
    assert not off(head["chi"], None, head["mask"], GEOMETRY).any()


def test_values_that_are_no_numbers_are_not_found(head) -> None:
    chi = head["chi"].copy()
    chi[head["rim"]] = np.nan
    labels = hysteresis(chi, head["r2star"], head["mask"], GEOMETRY, head["nucleus"])
    assert not labels.any()
