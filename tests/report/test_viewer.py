"""What the live viewer holds; how it works in a browser is tested in test_viewer_live."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from bids_qsm.report.pages import subject_page
from bids_qsm.report.record import SeriesRecord
from bids_qsm.report.viewer import UNKNOWN, Viewer, library, viewer

ROOM = 1e8


def read(nifti: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(nifti, validate=True)))


def at(image: nib.Nifti1Image, mm: np.ndarray) -> np.ndarray:
    """Return the values of the voxels that lie at scanner coordinates."""
    voxels = np.rint(apply_affine(np.linalg.inv(image.affine), mm)).astype(int)
    return np.asanyarray(image.dataobj)[tuple(voxels.T)]


def item(live: Viewer, title: str) -> dict:
    return next(shown for shown in live.data["maps"] if shown["title"] == title)


def published(folder: Path, record: SeriesRecord, end: str) -> nib.Nifti1Image:
    return nib.load(next(folder / path for path in record.outputs if path.endswith(end)))


def test_values_survive_within_half_a_step_at_their_place(
    viewed_record: SeriesRecord, viewed_dir: Path
) -> None:
    live = viewer(viewed_record, viewed_dir, ROOM)
    assert live is not None
    assert live.titles == ("χ", "R2*", "T1w", "FLAIR", "structures", "lesions")
    brain = published(viewed_dir, viewed_record, "label-brain_mask.nii.gz")
    inside = np.argwhere(np.asanyarray(brain.dataobj) > 0)
    mm = apply_affine(brain.affine, inside)
    for title, end, factor in (
        ("χ", "space-T1w_Chimap.nii.gz", 1000.0),
        ("R2*", "space-T1w_R2starmap.nii.gz", 1.0),
        ("T1w", "desc-preproc_T1w.nii.gz", 1.0),
    ):
        shown = item(live, title)
        true = factor * published(viewed_dir, viewed_record, end).get_fdata()[tuple(inside.T)]
        below = true <= 255 * shown["step"] if title == "T1w" else true == true
        assert below.mean() > 0.99
        error = np.abs(at(read(shown["nifti"]), mm) - true)
        assert error[below].max() <= shown["step"] / 2 + 1e-4 * np.abs(true).max()


def test_axes_point_right_front_and_up_and_the_box_is_that_of_the_brain(
    viewed_record: SeriesRecord, viewed_dir: Path
) -> None:
    live = viewer(viewed_record, viewed_dir, ROOM)
    assert live is not None
    volumes = [read(shown["nifti"]) for shown in live.data["maps"]]
    volumes += [read(labels["nifti"]) for labels in live.data["labels"]]
    volumes += [read(live.data["lesions"]["nifti"])]
    stored = published(viewed_dir, viewed_record, "desc-preproc_T1w.nii.gz")
    assert nib.aff2axcodes(stored.affine) == ("L", "A", "S")
    for volume in volumes:
        assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
        assert volume.shape == volumes[0].shape
        np.testing.assert_allclose(volume.affine, volumes[0].affine)
    assert np.prod(volumes[0].shape) < 0.6 * np.prod(stored.shape)


def test_left_is_left_and_each_structure_is_found_at_its_place(
    viewed_record: SeriesRecord, viewed_dir: Path
) -> None:
    live = viewer(viewed_record, viewed_dir, ROOM)
    assert live is not None
    (labels,) = live.data["labels"]
    image = read(labels["nifti"])
    found = {(s["row"], s["side"]): s for s in labels["structures"]}
    assert set(found) == {("Caudate", "L"), ("Caudate", "R"), ("Brain-Stem", "B")}
    assert found["Caudate", "L"]["name"] == "Left Caudate"
    assert found["Caudate", "L"]["mm"][0] < -5 < 5 < found["Caudate", "R"]["mm"][0]
    assert found["Caudate", "L"]["colour"] == found["Caudate", "R"]["colour"]
    for number, structure in enumerate(labels["structures"], start=1):
        assert at(image, np.array([structure["mm"]])) == [number]
    lesions = live.data["lesions"]
    assert list(lesions["places"]) == [1, 2]
    assert at(read(lesions["nifti"]), np.array([lesions["places"][2]])) == [2]


def test_where_a_map_has_no_value_it_is_unknown(
    viewed_record: SeriesRecord, viewed_dir: Path
) -> None:
    live = viewer(viewed_record, viewed_dir, ROOM)
    assert live is not None
    stored = read(item(live, "χ")["nifti"]).dataobj.get_unscaled()
    true = published(viewed_dir, viewed_record, "space-T1w_Chimap.nii.gz").get_fdata()
    assert np.count_nonzero(stored != UNKNOWN) == np.count_nonzero(true)


def test_what_does_not_fit_is_made_coarser_or_left_out(
    viewed_record: SeriesRecord, viewed_dir: Path
) -> None:
    full = viewer(viewed_record, viewed_dir, ROOM)
    assert full is not None
    room = full.n_bytes / 1.8
    small = viewer(viewed_record, viewed_dir, room)
    assert small is not None
    assert small.n_bytes <= room
    assert 0.5 * room < small.n_bytes
    assert min(small.voxel_mm) > min(full.voxel_mm)
    one, other = (read(item(live, "T1w")["nifti"]) for live in (full, small))
    # the same head at the same place: the mean lies where it lay
    centres = []
    for image in (one, other):
        data = image.get_fdata()
        centre = (np.argwhere(data >= 0) * data.reshape(-1, 1)).sum(axis=0) / data.sum()
        centres.append(apply_affine(image.affine, centre))
    np.testing.assert_allclose(*centres, atol=0.5)
    assert viewer(viewed_record, viewed_dir, 100.0) is None


def test_without_t1w_it_shows_the_series_own_grid(
    viewed_record: SeriesRecord, viewed_dir: Path
) -> None:
    outputs = [path for path in viewed_record.outputs if "T1w" not in path]
    record = dataclasses.replace(viewed_record, outputs=tuple(outputs))
    live = viewer(record, viewed_dir, ROOM)
    assert live is not None
    assert live.titles == ("χ",)


def test_what_cannot_be_read_is_left_out(viewed_record: SeriesRecord, viewed_dir: Path) -> None:
    for path in viewed_record.outputs:
        if "R2star" in path:
            (viewed_dir / path).write_bytes(b"nonsense")
        if "FLAIR" in path:
            (viewed_dir / path).unlink()
    live = viewer(viewed_record, viewed_dir, ROOM)
    assert live is not None
    assert live.titles == ("χ", "T1w", "structures", "lesions")


def test_a_record_without_volumes_has_no_viewer(
    series_record: SeriesRecord, output_dir: Path
) -> None:
    assert viewer(series_record, output_dir, ROOM) is None
    assert viewer(dataclasses.replace(series_record, outputs=()), output_dir, ROOM) is None
    page = subject_page("01", [series_record], output_dir)
    assert "niivue" not in page
    assert "-viewer" not in page


def test_the_page_holds_the_viewer_once_for_each_series_and_niivue_once(
    viewed_record: SeriesRecord, viewed_dir: Path
) -> None:
    page = subject_page("01", [viewed_record, viewed_record], viewed_dir)
    assert page == subject_page("01", [viewed_record, viewed_record], viewed_dir)
    assert len(page.encode()) < 25e6
    assert page.count('<section id="s1-viewer"') == page.count('<section id="s2-viewer"') == 1
    assert page.count(library()) == 1
    texts = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert [len(json.loads(text)["maps"]) for text in texts] == [4, 4]
    assert set(re.findall(r"https?://[^/\"<]*", page)) == {"https://doi.org"}


def test_names_of_structures_are_escaped(viewed_record: SeriesRecord, viewed_dir: Path) -> None:
    stats = viewed_dir / "stats.tsv"
    hostile = "</script><img src=x onerror=alert(1)>'\""
    stats.write_text(stats.read_text(encoding="utf-8").replace("Caudate", hostile))
    page = subject_page("01", [viewed_record], viewed_dir)
    assert "<img src=x" not in page
    text = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)[0]
    names = [s["row"] for s in json.loads(text)["labels"][0]["structures"]]
    assert hostile in names


def test_niivue_is_the_file_that_its_readme_says() -> None:
    folder = Path(__file__).parents[2] / "bids_qsm" / "resources" / "report" / "niivue"
    content = gzip.decompress(base64.b64decode(library(), validate=True))
    assert content == gzip.decompress((folder / "niivue.umd.js.gz").read_bytes())
    assert hashlib.sha256(content).hexdigest() in (folder / "README.md").read_text()
    assert "BSD 2-Clause" in (folder / "LICENSE.txt").read_text()


@pytest.mark.parametrize("name", ["viewer.js", "viewer.html", "viewer.css"])
def test_its_sources_are_plain(name: str) -> None:
    folder = Path(__file__).parents[2] / "bids_qsm" / "resources" / "report"
    text = (folder / name).read_text(encoding="utf-8")
    assert not re.search(r"https?:|fetch\(|innerHTML|eval\(|url\(", text)
