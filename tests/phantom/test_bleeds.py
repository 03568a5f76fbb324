"""Planted microbleeds, calcifications and rims."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from bids_qsm.phantom.bleeds import BLEED, CALCIFICATION
from bids_qsm.phantom.cli import main
from bids_qsm.phantom.dataset import write_dataset
from bids_qsm.phantom.options import DatasetOptions
from bids_qsm.phantom.tissues import BLEED_LABEL, CALCIFICATION_LABEL, LESION_LABEL


def test_inclusions_hold_what_their_truth_says_and_change_nothing_else(make_head):
    plain = make_head(sampling_mm=(1.5, 1.5, 1.5))
    head = make_head(sampling_mm=(1.5, 1.5, 1.5), microbleeds=6, calcifications=4)
    kinds = [inclusion.kind for inclusion in head.inclusions]
    assert kinds.count(BLEED) == 6 and kinds.count(CALCIFICATION) >= 1
    difference = (head.chi_ppm - plain.chi_ppm).astype(np.float64)
    voxel_mm3 = np.prod(head.voxel_mm)
    inverse = np.linalg.inv(head.affine)
    for inclusion in head.inclusions:
        volume = np.pi / 6 * inclusion.diameter_mm**3
        assert inclusion.moment_ppm_mm3 == pytest.approx(inclusion.chi_ppm * volume, rel=0.15)
        middle = inverse[:3, :3] @ inclusion.centre_mm + inverse[:3, 3]
        part = tuple(slice(max(round(m) - 5, 0), round(m) + 6) for m in middle)
        found = difference[part].sum() * voxel_mm3
        assert found == pytest.approx(inclusion.moment_ppm_mm3, rel=0.01)
    # every voxel that differs belongs to one
    total = sum(inclusion.moment_ppm_mm3 for inclusion in head.inclusions)
    assert difference.sum() * voxel_mm3 == pytest.approx(total, rel=0.01)
    assert {BLEED_LABEL, CALCIFICATION_LABEL} <= set(head.label_values)
    assert (head.r2star_per_s >= plain.r2star_per_s).all()


def test_rims_raise_the_outer_millimetre_of_some_lesions(make_head):
    fine = {"sampling_mm": (1.0, 1.0, 1.0), "lesions": 8}
    plain, rimmed = make_head(**fine), make_head(**fine, rims=0.5)
    assert sum(lesion.rim_ppm > 0 for lesion in rimmed.lesions) == 4
    assert not any(lesion.rim_ppm for lesion in plain.lesions)
    raised = rimmed.chi_ppm[rimmed.labels == LESION_LABEL] - np.float32(0.010)
    assert (raised > 0.035).any() and raised.max() < 0.25
    for lesion in rimmed.lesions:
        middle = tuple(round(c / v) for c, v in zip(lesion.centre_mm, rimmed.voxel_mm, strict=True))
        if lesion.rim_ppm:
            assert min(lesion.radii_mm) >= 3.0
            assert rimmed.labels[middle] == LESION_LABEL


def test_the_dataset_has_the_truth_of_both(tiny_labels, tmp_path):
    options = DatasetOptions(
        voxel_mm=(1.5, 1.5, 2.0), te_s=(0.005,), microbleeds=2, lesions=3, rims=0.4,
        deformation_mm=0.0, has_t1w=False, has_flair=False,
    )  # fmt: skip
    write_dataset(tmp_path, tiny_labels, options)
    truth = tmp_path / "derivatives" / "truth" / "sub-01" / "anat"
    with (truth / "sub-01_inclusions.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert rows and {row["kind"] for row in rows} == {BLEED}
    assert all(0.2 <= float(row["chi_ppm"]) <= 2.0 for row in rows)
    with (truth / "sub-01_lesions.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 3 and sum(float(row["rim_ppm"]) > 0 for row in rows) == 1


def test_a_wrong_share_of_rims_is_refused(tmp_path, capsys):
    assert main([str(tmp_path / "out"), "--rims", "1.5"]) == 2
    assert "0 to 1" in capsys.readouterr().err
