"""From a label map to tissue maps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bids_qsm.images import Image, b0_direction, voxel_sizes_mm
from bids_qsm.phantom.head import simulate_head
from bids_qsm.phantom.options import HeadOptions
from bids_qsm.phantom.tissues import (
    AIR_CHI_PPM,
    LESION_LABEL,
    TISSUES,
    VEIN_LABEL,
    is_brain,
    tissues_of,
)


def test_table_has_each_label_once_and_head_like_values():
    labels = [label for tissue in TISSUES for label in tissue.labels]
    assert len(labels) == len(set(labels))
    chi = {tissue.name: tissue.chi_ppm for tissue in TISSUES}
    assert chi["pallidum"] > chi["putamen"] > chi["caudate"] > chi["thalamus"] > 0
    assert chi["white matter"] < 0 and chi["cortical bone"] < -1.5 and chi["fat and skin"] > 0.3


def test_unknown_labels_are_muscle_and_are_said():
    tissues, warnings = tissues_of([0, 2, 1005, 3010, 640])
    assert [t.name for t in tissues] == [
        "air",
        "white matter",
        "grey matter",
        "white matter",
        "muscle",
    ]
    assert len(warnings) == 1 and "640" in warnings[0]


def test_plain_head_has_the_table_values(make_head, small_labels):
    head = make_head()
    assert (head.chi_ppm[head.labels == 0] == np.float32(AIR_CHI_PPM)).all()
    assert head.chi_ppm[head.labels == 13] == pytest.approx(0.125)
    assert head.r2star_per_s[head.labels == 2] == pytest.approx(21.0)
    for label in (2, 13, 52, 515):
        assert (head.labels == label).sum() == (small_labels.data == label).sum()
    assert {n.label for n in head.nuclei} == {13, 52}


def test_finer_sampling_keeps_volumes_and_places(make_head):
    coarse, fine = make_head(), make_head(sampling_mm=(1.5, 1.5, 3.0))
    for label in (13, 43):
        a, b = ((h.labels == label) for h in (coarse, fine))
        assert b.sum() / 4 == pytest.approx(a.sum(), rel=0.02)
        middle = [
            h.affine[:3, :3] @ np.argwhere(m).mean(axis=0) + h.affine[:3, 3]
            for h, m in ((coarse, a), (fine, b))
        ]
        np.testing.assert_allclose(middle[0], middle[1], atol=0.8)


def test_tilt_turns_the_grid_not_the_head(make_head):
    straight, tilted = make_head(), make_head(tilt_deg=20.0)
    np.testing.assert_allclose(voxel_sizes_mm(tilted.affine), (3, 3, 3))
    expected = (0.0, np.sin(np.deg2rad(20)), np.cos(np.deg2rad(20)))
    np.testing.assert_allclose(b0_direction(tilted.affine), expected, atol=1e-12)
    for head in (straight, tilted):
        index = np.argwhere(head.labels == 52).mean(axis=0)
        np.testing.assert_allclose(
            head.affine[:3, :3] @ index + head.affine[:3, 3], [20, 0, 0], atol=1
        )


def test_axes_of_the_label_map_do_not_matter(small_labels, make_head):
    flipped = Image(
        small_labels.data[::-1].transpose(1, 0, 2).copy(),
        small_labels.affine @ np.array([[0, -1, 0, 47], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    )
    plain = HeadOptions(
        sampling_mm=(3.0, 3.0, 3.0), deformation_mm=0, texture=0, veins=0, nuclei_spread=0
    )
    np.testing.assert_array_equal(simulate_head(flipped, plain).labels, make_head().labels)


def test_seeds_give_different_anatomies_and_the_same_seed_the_same(make_head):
    options = {"deformation_mm": 3.0, "nuclei_spread": 0.12, "texture": 1.0, "veins": 5}
    first, again, other = (make_head(seed=s, **options) for s in (1, 1, 2))
    for field in dataclasses.fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name))
    assert first.nuclei != other.nuclei
    volumes = [(h.labels == 2).sum() for h in (first, other)]
    assert volumes[0] != volumes[1] and volumes[0] == pytest.approx(volumes[1], rel=0.3)


def test_texture_is_in_the_brain_only_and_as_strong_as_asked(make_head):
    head, plain = make_head(texture=1.0), make_head()
    difference = head.chi_ppm - plain.chi_ppm
    brain = is_brain(head.labels)
    assert difference[brain].std() == pytest.approx(0.006, rel=0.4)
    assert (difference[~brain] == 0).all()


def test_patients_have_more_iron_in_their_nuclei(make_head):
    control, patient = make_head(), make_head(group="patient")
    pallidum = control.labels == 13
    assert (patient.chi_ppm - control.chi_ppm)[pallidum] == pytest.approx(0.021, abs=1e-6)
    assert (patient.r2star_per_s - control.r2star_per_s)[pallidum] == pytest.approx(2.8, abs=1e-5)
    white = control.labels == 2
    np.testing.assert_array_equal(patient.chi_ppm[white], control.chi_ppm[white])


def test_lesions_are_in_white_matter_near_the_ventricles(make_head):
    plain, head = make_head(), make_head(lesions=6)
    lesion = head.labels == LESION_LABEL
    assert lesion.any() and set(plain.labels[lesion]) == {2}
    ventricle = np.argwhere(np.isin(plain.labels, (4, 43))) * 3.0
    distance = [np.abs(ventricle - v * 3.0).max(axis=1).min() for v in np.argwhere(lesion)]
    assert max(distance) < 14 + 5


def test_veins_spare_the_nuclei(make_head):
    plain, head = make_head(), make_head(veins=30)
    vein = head.labels == VEIN_LABEL
    assert vein.any() and is_brain(plain.labels[vein]).all()
    assert not np.isin(plain.labels[vein], (13, 52)).any()
    assert head.chi_ppm[vein] == pytest.approx(0.3)
