"""Leads in images whose truth is known: places, models, several leads, and what is none."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.lead_models import LEAD_MODELS, lead_model
from bids_qsm.numerics.leads import (
    ASSUMED_HOW,
    ESTIMATED,
    GIVEN,
    find_leads,
    lead_mask,
    radial_error,
)
from bids_qsm.phantom.metal import (
    SimulatedLead,
    add_points,
    add_streaks,
    bowed_path,
    lead_density,
    tube,
)

SHAPE_MM = np.array([44.0, 40.0, 56.0])
TIP, ENTRY = np.array([16.2, 14.7, 9.3]), np.array([27.6, 24.1, 60.0])


def _image(
    leads,
    voxel_mm=(0.5, 0.5, 1.0),
    *,
    noise_hu=15.0,
    clip_hu=3071,
    seed=1,
    blur_mm=0.4,
    plain=False,
):
    """Return HU, affine and region: soft tissue with leads, the region 4 mm within it."""
    rng = np.random.default_rng(seed)
    shape = tuple(np.ceil(SHAPE_MM / voxel_mm).astype(int))
    volume = (35 + noise_hu * rng.standard_normal(shape)).astype(np.float32)
    affine = np.diag([*voxel_mm, 1.0])
    for lead in leads:
        density = lead_density(lead, rng)
        density = np.where(density > 0, 8000, 0) if plain else density
        points, masses = tube(lead.path_mm, density, lead.model.diameter_mm / 2)
        add_points(volume, affine, points, masses, blur_mm)
        add_streaks(volume, affine, lead.path_mm, rng)
    region = np.zeros(shape, bool)
    margin = np.ceil(4 / np.array(voxel_mm)).astype(int)
    region[tuple(slice(m, n - m) for m, n in zip(margin, shape, strict=True))] = True
    return np.rint(np.clip(volume, -1024, clip_hu)).astype(np.int16), affine, region


def _lead(tip=TIP, entry=ENTRY, model="3389", bend_mm=0.0) -> SimulatedLead:
    path = bowed_path(np.asarray(tip), np.asarray(entry), bend_mm, np.array([0.9, -0.4, 0.1]))
    return SimulatedLead("L", lead_model(model), path)


def _errors(found, true) -> tuple[float, float, float]:
    """Return the errors of tip, contacts, and the largest distance of the axis (mm)."""
    tip = np.linalg.norm(found.tip_mm - true.path_mm[0])
    contacts = np.linalg.norm(found.contacts_mm - true.contacts_mm(), axis=1).max()
    offset = found.path_mm[:, None] - true.path_mm
    return tip, contacts, np.sqrt((offset**2).sum(axis=-1)).min(axis=1).max()


@pytest.mark.parametrize(
    ("voxel_mm", "model", "bend_mm", "options"),
    [
        ((0.45, 0.45, 1.0), "3387", 0.0, {"noise_hu": 30.0}),
        ((0.5, 0.5, 2.0), "B33005", 0.0, {}),
        ((0.5, 0.5, 1.0), "DB-2202", 2.0, {}),
        ((0.5, 0.5, 1.0), "3389", 0.0, {"blur_mm": 0.8}),
        ((0.6, 0.6, 1.0), "6173", 0.0, {"clip_hu": 20000, "blur_mm": 0.6}),
    ],
)
def test_a_lead_is_found_where_it_is(voxel_mm, model, bend_mm, options):
    true = _lead(model=model, bend_mm=bend_mm)
    hu, affine, region = _image([true], voxel_mm, **options)
    (found,) = find_leads(hu, affine, region, model=model)
    tip, contacts, axis = _errors(found, true)
    assert (found.model, found.how) == (model, GIVEN)
    assert tip < 0.3 and contacts < 0.3 and axis < 0.3
    assert found.axis @ (ENTRY - TIP) / np.linalg.norm(ENTRY - TIP) > 0.98
    # a bow is a parabola, of which the region holds 0.84
    assert found.bend_mm == pytest.approx(0.71 * bend_mm, abs=0.15)
    # up to the region's border, which is 4 mm below the image's
    assert found.path_mm[-1, 2] == pytest.approx(SHAPE_MM[2] - 4, abs=1.5)


def test_contacts_tell_the_model_where_they_show():
    hu, affine, region = _image([_lead(model="6173")])
    (found,) = find_leads(hu, affine, region)
    assert found.how == ESTIMATED
    assert LEAD_MODELS[found.model].pattern == LEAD_MODELS["6173"].pattern


def test_where_contacts_do_not_show_the_model_is_assumed():
    true = _lead(model="3387")
    hu, affine, region = _image([true], (0.6, 0.6, 1.5), plain=True)
    (found,) = find_leads(hu, affine, region)
    assert (found.model, found.how) == ("3389", ASSUMED_HOW)
    assert np.linalg.norm(found.tip_mm - true.path_mm[0]) < 1.0


def test_the_place_follows_the_affine():
    true = _lead()
    hu, affine, region = _image([true])
    turn = np.array([[0, -1, 0], [0, 0, 1], [1, 0, 0]], float)
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = turn, [5, -80, 30]
    # voxels flipped along x, in another world: tips move as the world does
    flipped = affine.copy()
    flipped[:3, 3] += (hu.shape[0] - 1) * affine[:3, 0]
    flipped[:3, 0] *= -1
    (plain,) = find_leads(hu, affine, region)
    (moved,) = find_leads(hu[::-1], world @ flipped, region[::-1])
    expected = turn @ plain.tip_mm + world[:3, 3]
    np.testing.assert_allclose(moved.tip_mm, expected, atol=0.1)
    np.testing.assert_allclose(moved.axis, turn @ plain.axis, atol=0.01)


def test_touching_parallel_leads_are_told_apart():
    shift = np.array([3.2, 0.0, 0.0])
    true = [_lead(), _lead(TIP + shift + [0, 0, 4], ENTRY + shift)]
    hu, affine, region = _image(true)
    assert _touch(hu > 800)
    found = find_leads(hu, affine, region, model="3389")
    assert len(found) == 2
    for own in true:
        errors = min((_errors(lead, own) for lead in found), key=lambda e: e[0])
        assert max(errors) < 0.6


def _touch(metal) -> bool:
    from scipy import ndimage

    labels, _ = ndimage.label(metal, np.ones((3, 3, 3)))
    return np.count_nonzero(np.bincount(labels.ravel())[1:] > 50) == 1


def test_what_is_no_lead_is_left_out():
    hu, affine, region = _image([])
    assert find_leads(hu, affine, region) == ()
    assert find_leads(hu, affine, np.zeros_like(region)) == ()
    bone = hu.copy()
    bone[:, 30:36] = 1500  # a sheet, as skull that the brain's mask holds
    bone[40:46, 50:56, 20:26] = 3071  # a clip
    assert find_leads(bone, affine, region) == ()
    # outside the region: wires below the scalp
    wires, affine, region = _image([_lead()])
    assert find_leads(wires, affine, region & (np.indices(region.shape)[0] < 20)) == ()


def test_bone_beside_a_lead_does_not_hide_it():
    true = _lead()
    hu, affine, region = _image([true])
    hu[:, 66:72] = 1500
    (found,) = find_leads(hu, affine, region, model="3389")
    assert max(_errors(found, true)) < 0.3


def test_the_radial_error_is_perpendicular_to_the_axis():
    axis = np.array([0.0, 0.6, 0.8])
    target = np.array([3.0, 4.0, 5.0]) + 2.5 * axis + 1.5 * np.array([0, 0.8, -0.6])
    radial, depth = radial_error(np.array([3.0, 4.0, 5.0]), axis, target)
    assert (radial, depth) == (pytest.approx(1.5), pytest.approx(2.5))


def test_a_mask_is_a_tube_of_the_lead():
    path = np.stack([np.full(41, 5.0), np.full(41, 6.0), np.arange(41) * 0.5], axis=1)
    mask = lead_mask((24, 24, 50), np.diag([0.5, 0.5, 0.5, 1.0]), {2: path})
    assert set(np.unique(mask)) == {0, 2}
    assert mask.sum() / 2 * 0.125 == pytest.approx(np.pi * 20.0, rel=0.15)
    assert mask[10, 12, 20] == 2 and mask[13, 12, 20] == 0


def test_unknown_models_are_refused():
    hu, affine, region = _image([])
    with pytest.raises(ValueError, match="there is no lead model '1234'"):
        find_leads(hu, affine, region, model="1234")
