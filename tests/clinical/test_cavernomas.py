"""Lesions of a session: found, or given on one of two grids, or refused in a sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bids_qsm.bids.sidecars import TABLE_COLUMNS
from bids_qsm.clinical.case import Case
from bids_qsm.clinical.cavernomas import find_paramagnetic
from bids_qsm.execution.steps import Steps
from bids_qsm.images import Image, encode_image
from bids_qsm.job import Job, Journal
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.settings import Method, Processing, Settings

SHAPE, T1W_SHAPE = (44, 40, 36), (50, 46, 40)
AFFINE = np.array([[1.0, 0, 0, -22], [0, 1, 0, -20], [0, 0, 1.2, -20], [0, 0, 0, 1]])
T1W_AFFINE = np.array([[1.0, 0, 0, -25], [0, 1, 0, -23], [0, 0, 1, -20], [0, 0, 0, 1]])
SHIFT = np.array([[1.0, 0, 0, 2.0], [0, 1, 0, 0], [0, 0, 1, -1.0], [0, 0, 0, 1]])
CENTRES = ((-9.0, 0.0, 0.0), (10.0, 2.0, 3.0))


def balls(shape, affine, centres, radius_mm=4.5) -> np.ndarray:
    """Number the balls around some places (mm)."""
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = voxels @ affine[:3, :3].T + affine[:3, 3]
    labels = np.zeros(shape, np.int16)
    for number, centre in enumerate(centres, start=1):
        labels[((world - centre) ** 2).sum(axis=-1) < radius_mm**2] = number
    return labels


@pytest.fixture
def case() -> Case:
    """Two lesions; the left one lies in what an atlas takes for the putamen."""
    labels = balls(SHAPE, AFFINE, CENTRES)
    chi = np.where(labels > 0, 0.5, 0).astype(np.float32)
    chi += np.random.default_rng(2).normal(0, 0.02, SHAPE).astype(np.float32)
    grid = Image(np.ones(SHAPE, np.float32), AFFINE)
    mask = np.ones(SHAPE, bool)
    mask[:, :, -1] = False
    local = FieldMap(chi, np.ones(SHAPE, np.float32), grid.data, mask, grid.geometry)
    putamen = SimpleNamespace(
        atlas=SimpleNamespace(table=pd.DataFrame({"index": [7], "name": ["Left Putamen"]})),
        labels=grid.like(np.where(balls(SHAPE, AFFINE, CENTRES[:1], 7.0) > 0, 7, 0)),
    )
    anatomy = SimpleNamespace(
        t1w=SimpleNamespace(image=Image(np.ones(T1W_SHAPE, np.float32), T1W_AFFINE)),
        rigid=SimpleNamespace(gre_to_t1w=SHIFT),
    )
    maps = SimpleNamespace(
        magnitude=grid,
        brain=mask,
        local=local,
        chi=(SimpleNamespace(region="CSF", result=SimpleNamespace(chi_ppm=chi)),),
        relaxation=SimpleNamespace(r2star_per_s=np.where(labels > 0, 80, 20).astype(np.float32)),
    )
    return Case(maps, anatomy, (putamen,), None)  # type: ignore[arg-type]


def job(folder: Path, session: str | None = "1", given: bool = False, **processing) -> Job:
    derivatives = {"tracked-lesions": folder / "given"} if given else {}
    settings = Settings(
        folder,
        folder,
        extra_steps=("lesion-tracking",),
        derivatives=derivatives,
        processing=Processing(**processing),
    )
    name = "sub-aa" if session is None else f"sub-aa_ses-{session}"
    series = SimpleNamespace(subject="aa", session=session, name=name, files=())
    steps = Steps(folder / "work", "inputs", lambda _: None)
    return Job(series, settings, steps, Journal())  # type: ignore[arg-type]


def give(folder: Path, name: str, data: np.ndarray, affine=AFFINE) -> None:
    (folder / "given").mkdir(exist_ok=True)
    (folder / "given" / name).write_bytes(encode_image(Image(data, affine)))


def test_lesions_are_found_and_a_nucleus_needs_more(tmp_path, case) -> None:
    task = job(tmp_path)
    found = find_paramagnetic(task, case)
    (image,), (named,) = found.images, found.tables
    assert (image.key, named.key) == ("tracked_dseg", "tracked_lesions")
    np.testing.assert_array_equal(image.image.data > 0, balls(SHAPE, AFFINE, CENTRES) == 2)
    (row,) = named.table.itertuples()
    assert row.chi_ppm_mean == pytest.approx(0.5, abs=0.01)
    assert row.r2star_per_s_mean == pytest.approx(80)
    assert (row.x_mm, row.y_mm, row.z_mm) == pytest.approx(CENTRES[1], abs=0.3)
    assert set(TABLE_COLUMNS["tracked_lesions"]) <= set(named.table.columns)
    assert task.journal.steps[0].parameters["core_ppm"] == 0.3
    assert task.journal.warnings == ()
    (picture,) = found.draw()
    assert picture.images[0][1].startswith(b"\x89PNG")
    both = find_paramagnetic(
        job(tmp_path, paramagnetic=Method("hysteresis", {"nucleus_ppm": 0.4})), case
    )
    assert len(both.tables[0].table) == 2
    assert both.facts["Lesions to follow"].startswith("2, ")


def test_coarse_voxels_are_warned_of_where_lesions_are_not_given(tmp_path, case) -> None:
    maps = SimpleNamespace(**vars(case.maps))
    thick = replace(maps.local.geometry, voxel_mm=(1.0, 1.0, 3.0))
    maps.local = replace(maps.local, geometry=thick)
    task = job(tmp_path)
    find_paramagnetic(task, replace(case, maps=maps))
    assert task.journal.warnings[0].startswith("Voxels of 3 mm are too large to tell lesions from")


def test_a_mask_is_taken_apart_and_labels_stay_as_they_are(tmp_path, case) -> None:
    drawn = balls(SHAPE, AFFINE, CENTRES)
    give(tmp_path, "sub-aa_ses-1_label-lesion_mask.nii.gz", drawn > 0)
    task = job(tmp_path, given=True)
    labels = find_paramagnetic(task, case).images[0].image.data
    assert set(np.unique(labels)) == {0, 1, 2}
    assert task.journal.steps[0].method == "given"
    (tmp_path / "given" / "sub-aa_ses-1_label-lesion_mask.nii.gz").unlink()
    give(tmp_path, "sub-aa_ses-1_dseg.nii.gz", np.where(drawn == 2, 9, drawn))
    labels = find_paramagnetic(job(tmp_path, given=True), case).images[0].image.data
    assert set(np.unique(labels)) == {0, 1, 9}


def test_a_mask_on_the_t1w_is_brought_to_the_series(tmp_path, case) -> None:
    moved = [np.add(centre, SHIFT[:3, 3]) for centre in CENTRES]
    drawn = balls(T1W_SHAPE, T1W_AFFINE, moved) > 0
    give(tmp_path, "sub-aa_ses-1_label-lesion_mask.nii.gz", drawn, T1W_AFFINE)
    found = find_paramagnetic(job(tmp_path, given=True), case)
    overlap = (found.images[0].image.data > 0) & (balls(SHAPE, AFFINE, CENTRES) > 0)
    assert overlap.sum() > 0.93 * (balls(SHAPE, AFFINE, CENTRES) > 0).sum()


def test_a_session_without_a_mask_has_none_of_its_own(tmp_path, case) -> None:
    give(tmp_path, "sub-aa_ses-1_label-lesion_mask.nii.gz", balls(SHAPE, AFFINE, CENTRES) > 0)
    task = job(tmp_path, session="2", given=True)
    assert find_paramagnetic(task, case) is None
    assert task.journal.warnings == ()


@pytest.mark.parametrize(
    ("name", "data", "affine", "said"),
    [
        ("sub-aa_ses-1_label-lesion_mask", np.zeros(SHAPE, bool), AFFINE, "is empty"),
        ("sub-aa_ses-1_label-lesion_mask", np.ones((9, 9, 9), bool), AFFINE, "draw them on"),
        ("sub-aa_ses-1_label-lesion_mask", np.ones(SHAPE, bool), T1W_AFFINE, "draw them on"),
        ("sub-aa_ses-1_dseg", np.ones((*SHAPE, 2), np.int16), AFFINE, "draw them on"),
        ("sub-aa_label-lesion_mask", np.ones(SHAPE, bool), AFFINE, "in which session"),
    ],
)
def test_what_cannot_be_followed_is_said(tmp_path, case, name, data, affine, said) -> None:
    give(tmp_path, f"{name}.nii.gz", data, affine)
    task = job(tmp_path, given=True)
    assert find_paramagnetic(task, case) is None
    (warning,) = task.journal.warnings
    assert said in warning and name in warning


def test_two_masks_or_a_damaged_one_cost_no_map(tmp_path, case) -> None:
    drawn = balls(SHAPE, AFFINE, CENTRES)
    give(tmp_path, "sub-aa_ses-1_label-lesion_mask.nii.gz", drawn > 0)
    give(tmp_path, "sub-aa_ses-1_dseg.nii.gz", drawn)
    task = job(tmp_path, given=True)
    assert find_paramagnetic(task, case) is None
    assert "leave one" in task.journal.warnings[0]
    (tmp_path / "given" / "sub-aa_ses-1_dseg.nii.gz").unlink()
    path = tmp_path / "given" / "sub-aa_ses-1_label-lesion_mask.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    task = job(tmp_path, given=True)
    assert find_paramagnetic(task, case) is None
    assert "damaged" in task.journal.warnings[0]


def test_a_lesion_without_susceptibility_is_said(tmp_path, case) -> None:
    drawn = balls(SHAPE, AFFINE, CENTRES)
    drawn[5:8, 5:8, -1] = 3
    give(tmp_path, "sub-aa_dseg.nii.gz", drawn)
    task = job(tmp_path, session=None, given=True)
    assert find_paramagnetic(task, case) is not None
    assert "not known anywhere in one lesion (3)" in task.journal.warnings[0]


def test_no_susceptibility_no_lesion(tmp_path, case) -> None:
    case.maps.chi = ()
    task = job(tmp_path)
    assert find_paramagnetic(task, case) is None
    assert "no susceptibility map" in task.journal.warnings[0]
