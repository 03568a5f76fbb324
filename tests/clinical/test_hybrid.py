from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from bids_qsm.bids.sidecars import TABLE_COLUMNS
from bids_qsm.clinical import drawing, hybrid
from bids_qsm.clinical.hybrid import make_hybrid
from bids_qsm.clinical.nuclei import GPE, GPI, RN, SN, STN
from bids_qsm.images import Image, encode_image
from bids_qsm.settings import Method
from tests.clinical.brainstem import AFFINE, CHI_PPM, SHAPE, T1W, WHITE, WHITE_PPM, case, job


def weakest(table, nucleus):
    rows = table[(table["structure"] == nucleus) & (table["surround"] == "weakest")]
    return rows.groupby("contrast")["cnr"].mean()


def test_gpi_stands_out_best_in_the_hybrid(tmp_path) -> None:
    head = case()
    found = make_hybrid(job(tmp_path), head)
    (image,), (named,) = found.images, found.tables
    k = image.fields["SusceptibilityWeight"]
    t1w, chi = head.anatomy.t1w.image.data, head.maps.chi[0].result.chi_ppm
    assert image.image.data.dtype == np.float32
    assert np.allclose(image.image.data, t1w + np.float32(k) * chi, atol=1e-3)
    table = named.table
    ratios = weakest(table, GPI)
    assert ratios["hybrid"] > 1.02 * max(ratios["T1w"], ratios["Chimap"])
    # of susceptibility the two parts of the pallidum differ little: T1w must have its part
    assert k < 0
    assert set(table.columns) == set(TABLE_COLUMNS["contrast_to_noise"])
    assert found.facts["Hybrid contrast"] == f"T1w {k:+.4g} χ (χ in ppm)"


def test_means_and_ratios_are_those_that_were_put_in(tmp_path) -> None:
    table = make_hybrid(job(tmp_path), case()).tables[0].table
    rows = table.set_index(["structure", "hemisphere", "surround", "contrast"])
    for nucleus, word, other, neighbour in (
        (GPI, "interna", GPE, "externa"),
        (STN, "subthalamic", SN, "nigra"),
        (SN, "nigra", STN, "subthalamic"),
        (RN, "red", None, None),
    ):
        for side in "LR":
            row = rows.loc[nucleus, side, "unlabelled", "Chimap"]
            assert row["mean"] == pytest.approx(CHI_PPM[word], abs=0.004)
            assert row["surround_mean"] == pytest.approx(WHITE_PPM, abs=0.004)
            expected = (CHI_PPM[word] - WHITE_PPM) / 0.02
            assert row["cnr"] == pytest.approx(expected, rel=0.15)
            row = rows.loc[nucleus, side, "unlabelled", "T1w"]
            assert row["cnr"] == pytest.approx((WHITE - T1W[word]) / 20, rel=0.2)
            if other is not None:
                row = rows.loc[nucleus, side, other, "T1w"]
                expected = abs(T1W[word] - T1W[neighbour]) / 20
                assert row["cnr"] == pytest.approx(expected, abs=0.35)


def test_a_fixed_weight_is_in_medians_of_the_t1w(tmp_path) -> None:
    head = case()
    found = make_hybrid(job(tmp_path, hybrid=Method("fixed", {"k": 0.5})), head)
    median = float(np.median(head.anatomy.t1w.image.data))
    assert found.images[0].fields["SusceptibilityWeight"] == pytest.approx(0.5 * median)


def test_t2w_joins_where_there_is_one(tmp_path, monkeypatch) -> None:
    head = case()
    path = tmp_path / "sub-aa_T2w.nii.gz"
    t2w = np.random.default_rng(1).normal(100, 5, SHAPE).astype(np.float32)
    path.write_bytes(encode_image(Image(t2w, AFFINE)))
    monkeypatch.setattr("bids_qsm.morphometry.align_to_t1w", lambda t1w, image: image)
    task = job(tmp_path, t2w=path)
    table = make_hybrid(task, head).tables[0].table
    assert list(dict.fromkeys(table["contrast"])) == ["T1w", "T2w", "Chimap", "hybrid"]
    assert weakest(table, RN)["T2w"] < 0.5
    assert [step.name for step in task.journal.steps] == ["t2w", "hybrid"]


def test_a_t2w_that_cannot_be_read_is_left_out(tmp_path) -> None:
    path = tmp_path / "sub-aa_T2w.nii.gz"
    path.write_bytes(b"no image")
    task = job(tmp_path, t2w=path)
    table = make_hybrid(task, case()).tables[0].table
    assert list(dict.fromkeys(table["contrast"])) == ["T1w", "Chimap", "hybrid"]
    assert task.journal.warnings[0].endswith("The T2w image was left out.")


def test_without_voxels_a_fixed_weight_makes_an_image_and_nothing_else(tmp_path) -> None:
    head = case()
    head.structures[0].t1w_labels.data[:] = 0
    found = make_hybrid(job(tmp_path, hybrid=Method("fixed")), head)
    assert len(found.images) == 1 and found.tables[0].table.empty
    assert not list(found.draw())


def test_fluid_and_veins_are_no_surround() -> None:
    head = case()
    t1w = head.anatomy.t1w.image
    t1w.data[20:28] = 200
    veins = np.zeros(SHAPE, bool)
    veins[:4] = True
    head.maps.veins = type("Veins", (), {"mask": veins})
    chi = head.maps.chi[0].result.chi_ppm
    usable = hybrid.usable_voxels(head.maps, head.anatomy, chi, float(np.median(t1w.data)))
    assert not usable[20:28].any() and not usable[:4].any() and usable[30:].mean() > 0.99


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("no T1w", "needs a T1w image and a susceptibility map"),
        ("no chi", "needs a T1w image and a susceptibility map"),
        ("no GPi", "no atlas of this run parts the globus pallidus; --atlas CIT168"),
        ("empty", "neither side has 10 voxels of the nucleus"),
    ],
)
def test_what_is_missing_is_one_warning_and_no_error(tmp_path, change, sentence) -> None:
    head = case(only="nigra" if change == "no GPi" else "")
    if change == "no T1w":
        head = replace(head, anatomy=None, structures=())
    elif change == "no chi":
        head.maps.chi = ()
    elif change == "empty":
        head.structures[0].t1w_labels.data[:] = 0
    task = job(tmp_path)
    assert make_hybrid(task, head) is None
    (warning,) = task.journal.warnings
    assert re.search(sentence, warning)


def test_the_picture_has_the_contrasts_with_and_without_borders(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(drawing, "DPI", 40)
    (picture,) = make_hybrid(job(tmp_path), case()).draw()
    assert [suffix for suffix, _ in picture.images] == ["1", "2"]
    plain, outlined = (png for _, png in picture.images)
    assert plain[:8] == outlined[:8] == b"\x89PNG\r\n\x1a\n" and plain != outlined
    assert max(len(plain), len(outlined)) < 100_000
