"""Cavernomas of the phantom: where they lie, what they hold, how they grow."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from bids_qsm.images import load_image
from bids_qsm.phantom.cavernomas import R2STAR_PER_PPM, draw_cavernomas, with_cavernomas
from bids_qsm.phantom.dataset import write_dataset
from bids_qsm.phantom.options import DatasetOptions
from bids_qsm.phantom.tissues import WHITE_MATTER


@pytest.fixture(scope="module")
def plain(make_head):
    return make_head(sampling_mm=(1.5, 1.5, 1.5))


def test_each_holds_its_moment_and_leaves_the_rest_alone(plain) -> None:
    planted = draw_cavernomas(plain, 3, 8.0, seed=4)
    assert [c.label for c in planted] == [991, 992, 993]
    head = with_cavernomas(plain, planted)
    added, rate = head.chi_ppm - plain.chi_ppm, head.r2star_per_s - plain.r2star_per_s
    np.testing.assert_allclose(rate, R2STAR_PER_PPM * added, rtol=1e-4, atol=1e-3)
    total = 0.0
    for own in planted:
        volume = 4 / 3 * np.pi * np.prod(own.radii_mm)
        total += own.chi_ppm * volume
        inside = head.labels == own.label
        assert inside.sum() * 1.5**3 == pytest.approx(volume, rel=0.15)
        assert added[inside].max() == pytest.approx(own.chi_ppm, rel=1e-5)
        centre = head.affine[:3, :3] @ np.argwhere(inside).mean(axis=0) + head.affine[:3, 3]
        np.testing.assert_allclose(centre, own.centre_mm, atol=0.5)
    assert added.sum() * 1.5**3 == pytest.approx(total, rel=0.06)
    assert set(plain.labels[head.labels >= 991]) <= {*WHITE_MATTER, 3, 42}
    untouched = added == 0
    np.testing.assert_array_equal(head.labels[untouched], plain.labels[untouched])
    assert head.table([t.m0 for t in head.tissues])[991] > 0


def test_every_second_one_grows_and_the_same_seed_gives_the_same(plain) -> None:
    planted = draw_cavernomas(plain, 3, 8.0, seed=4)
    assert [c.growth_percent_per_year for c in planted] == [8.0, 0.0, 8.0]
    assert planted[0].chi_after(2.0) == pytest.approx(1.16 * planted[0].chi_ppm)
    now, later = with_cavernomas(plain, planted), with_cavernomas(plain, planted, years=2.0)
    for own in planted:
        inside = now.labels == own.label
        ratio = (later.chi_ppm - plain.chi_ppm)[inside] / (now.chi_ppm - plain.chi_ppm)[inside]
        expected = 1 + 2 * own.growth_percent_per_year / 100
        np.testing.assert_allclose(ratio, expected, rtol=1e-4)
    assert planted == draw_cavernomas(plain, 3, 8.0, seed=4)
    assert planted[:2] == draw_cavernomas(plain, 2, 8.0, seed=4)
    assert planted != draw_cavernomas(plain, 3, 8.0, seed=5)
    assert with_cavernomas(plain, ()) is plain


def test_sessions_are_dated_and_the_truth_is_where_the_head_lies(tmp_path, tiny_labels) -> None:
    options = DatasetOptions(
        sessions=2, voxel_mm=(3.0, 3.0, 3.0), anatomy_voxel_mm=3.0, te_s=(0.004, 0.008),
        deformation_mm=0.0, cavernomas=1, growth_percent=20.0, has_t1w=False, has_flair=False,
    )  # fmt: skip
    write_dataset(tmp_path, tiny_labels, options)
    rows = (tmp_path / "sub-01" / "sub-01_sessions.tsv").read_text().split()
    assert rows == [
        "session_id", "acq_time", "ses-1", "2020-06-01T12:00:00", "ses-2", "2021-06-01T12:00:00",
    ]  # fmt: skip
    chi = []
    for session in (1, 2):
        stem = f"sub-01_ses-{session}"
        folder = tmp_path / "derivatives/truth/sub-01" / f"ses-{session}" / "anat"
        with (folder / f"{stem}_cavernomas.tsv").open() as lines:
            (row,) = csv.DictReader(lines, delimiter="\t")
        labels = load_image(folder / f"{stem}_dseg.nii.gz", np.int16)
        middle = np.argwhere(labels.data == 991).mean(axis=0)
        place = labels.affine[:3, :3] @ middle + labels.affine[:3, 3]
        written = [float(row[f"{axis}_mm"]) for axis in "xyz"]
        np.testing.assert_allclose(place, written, atol=1.5)
        chi.append(float(row["chi_ppm"]))
    assert chi[1] == pytest.approx(1.2 * chi[0], rel=1e-3)
