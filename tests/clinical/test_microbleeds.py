"""Microbleeds and rims as steps of a run: their tables, places, pictures and warnings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from bids_qsm.bids.sidecars import TABLE_COLUMNS
from bids_qsm.clinical import microbleeds
from bids_qsm.clinical.bleed_places import (
    CHOROID_PLEXUS,
    DEEP,
    FALX,
    INFRATENTORIAL,
    LOBAR,
    PINEAL,
    placed,
    usual_places,
)
from bids_qsm.clinical.case import Case
from bids_qsm.clinical.microbleeds import facts, find_microbleeds
from bids_qsm.clinical.rims import score_rims
from bids_qsm.execution.steps import Steps
from bids_qsm.images import Image
from bids_qsm.job import Job, Journal
from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import dipole_kernel, hz_per_ppm
from bids_qsm.numerics.microbleeds import BLEED, CALCIFICATION
from bids_qsm.settings import Settings

SHAPE = (40, 36, 30)
AFFINE = np.array([[1.0, 0, 0, -20], [0, 1, 0, -18], [0, 0, 1, -15], [0, 0, 0, 1]])
SHIFT = np.array([[1.0, 0, 0, 2.0], [0, 1, 0, 0], [0, 0, 1, -1.0], [0, 0, 0, 1]])
PLACE = (-8.0, -6.0, 0.0)
LESION = (10.0, 6.0, 0.0)


def distance(place) -> np.ndarray:
    x, y, z = np.ix_(*(np.arange(n) + AFFINE[i, 3] - place[i] for i, n in enumerate(SHAPE)))
    return np.sqrt(x**2 + y**2 + z**2)


@pytest.fixture(scope="module")
def case() -> Case:
    """A bleed in what an atlas takes for white matter, and a lesion with a rim."""
    chi = np.where(distance(PLACE) < 2.0, np.float32(0.9), np.float32(0))
    away = distance(LESION)
    chi[(away < 5.5) & (away > 4.0)] = 0.12
    chi = ndimage.gaussian_filter(chi, 0.5)
    chi += np.random.default_rng(1).normal(0, 0.004, SHAPE).astype(np.float32)
    grid = Image(np.ones(SHAPE, np.float32), AFFINE)
    mask = np.zeros(SHAPE, bool)
    mask[2:-2, 2:-2, 2:-2] = True
    field = convolve(chi, dipole_kernel(grid.geometry))
    noise = np.full(SHAPE, 0.004, np.float32)
    local = FieldMap(field, noise, grid.data, mask, grid.geometry)
    lobe = SimpleNamespace(
        atlas=SimpleNamespace(table=pd.DataFrame({"index": [3], "name": ["Left white matter"]})),
        labels=grid.like(np.full(SHAPE, 3, np.int16)),
    )
    lesions = SimpleNamespace(
        on_series=grid.like((away < 5.5).astype(np.int16)),
        table=pd.DataFrame({"index": [1], "location": ["periventricular"], "lobe": [None]}),
    )
    maps = SimpleNamespace(
        magnitude=grid,
        brain=mask,
        b0_t=3.0,
        local=local,
        total=SimpleNamespace(mask=mask, field_hz=field * np.float32(hz_per_ppm(3.0))),
        chi=(SimpleNamespace(region="CSF", result=SimpleNamespace(chi_ppm=chi)),),
        relaxation=SimpleNamespace(r2star_per_s=np.where(chi > 0.2, 90, 20).astype(np.float32)),
        veins=None,
    )
    anatomy = SimpleNamespace(rigid=SimpleNamespace(gre_to_t1w=SHIFT))
    return Case(maps, anatomy, (lobe,), lesions)  # type: ignore[arg-type]


def job(folder: Path) -> Job:
    settings = Settings(folder, folder, extra_steps=("microbleeds",))
    series = SimpleNamespace(subject="aa", session=None, name="sub-aa")
    steps = Steps(folder / "work", "inputs", lambda _: None)
    steps.run("background", microbleeds.Inclusions, lambda _: _nothing(), {})
    return Job(series, settings, steps, Journal())  # type: ignore[arg-type]


def _nothing() -> microbleeds.Inclusions:
    return microbleeds.Inclusions(np.zeros((1, 1, 1), np.int16), np.empty((0, 0)))


def test_a_bleed_is_reported_where_it_lies(tmp_path, case, monkeypatch) -> None:
    places = pd.DataFrame({"region": ["lobar"], "lobe": ["insula"], "usual_place": [None]})
    monkeypatch.setattr(microbleeds, "place_inclusions", lambda table, _: places[: len(table)])
    task = job(tmp_path)
    found = find_microbleeds(task, case)
    (table,) = (named.table for named in found.tables)
    assert set(TABLE_COLUMNS["microbleeds"]) <= set(table.columns)
    row = table.iloc[0]
    assert (row["kind"], row["region"], row["space"]) == (BLEED, "lobar", "T1w")
    expected = np.array(PLACE) + np.array((2.0, 0.0, -1.0))
    assert row[["x_mm", "y_mm", "z_mm"]].to_numpy(float) == pytest.approx(expected, abs=0.3)
    assert row["structure"] == "Left white matter" and row["r2star_per_s"] > 60
    labels, mask = (image.image.data for image in found.images)
    np.testing.assert_array_equal(mask, labels > 0)
    assert found.facts["Microbleeds"] == "1 (strictly lobar)"
    (picture,) = found.draw()
    assert picture.images[0][1].startswith(b"\x89PNG")
    assert task.journal.warnings == ()
    assert task.journal.steps[0].method == "compact-sources"


def test_without_a_t1w_places_are_those_of_the_series(tmp_path, case) -> None:
    plain = replace(case, anatomy=None, structures=(), lesions=None)
    table = find_microbleeds(job(tmp_path), plain).tables[0].table
    row = table.iloc[0]
    assert row["space"] == "series" and row["structure"] is None and "region" not in table
    assert row[["x_mm", "y_mm", "z_mm"]].to_numpy(float) == pytest.approx(PLACE, abs=0.3)


def test_rims_are_scored_and_joined_with_the_lesions(tmp_path, case) -> None:
    found = score_rims(job(tmp_path), case)
    (table,) = (named.table for named in found.tables)
    assert set(TABLE_COLUMNS["rims"]) <= set(table.columns)
    assert table.loc[0, "score"] > 0.9 and table.loc[0, "location"] == "periventricular"
    assert found.facts == {"Lesions with a paramagnetic rim": "1 of 1 that are large enough"}
    (picture,) = found.draw()
    assert picture.section == "Paramagnetic rims"


def test_bad_input_is_a_warning(tmp_path, case) -> None:
    no_map = replace(case, maps=SimpleNamespace(chi=(), local=None))
    empty = SimpleNamespace(
        on_series=case.maps.magnitude.like(np.zeros(SHAPE, np.int16)), table=case.lesions.table
    )
    for step, bad, words in (
        (find_microbleeds, no_map, "no susceptibility map"),
        (score_rims, no_map, "no map of susceptibility"),
        (score_rims, replace(case, lesions=None), "no map of T2 lesions"),
        (score_rims, replace(case, lesions=empty), "no T2 lesion on"),
    ):
        task = job(tmp_path)
        assert step(task, bad) is None
        assert words in task.journal.warnings[0]
    large = SimpleNamespace(**vars(case.maps))
    geometry = case.maps.local.geometry
    thick = replace(geometry, voxel_mm=(1.0, 1.0, 3.0))
    large.local = replace(case.maps.local, geometry=thick)
    bare = replace(case, maps=large, anatomy=None, structures=())
    task = job(tmp_path)
    find_microbleeds(task, bare)
    score_rims(task, bare)
    assert [w.split(" are too large")[0] for w in task.journal.warnings] == ["Voxels of 3 mm"] * 2


def test_places_follow_the_nearest_of_the_regions() -> None:
    labels = np.zeros((60, 20, 20), np.int16)
    labels[:5] = 1028  # superior frontal gyrus
    labels[28:32] = 10  # thalamus
    labels[55:] = 8  # cerebellum
    labels[30:32, :, 15:] = 4  # a ventricle
    usual = np.zeros(labels.shape, np.int16)
    usual[29, 4, 4], usual[3, 4, 4] = 1, 2
    rows = [
        (7, 10, 10, BLEED), (24, 10, 10, BLEED), (52, 10, 10, BLEED),
        (29, 4, 4, CALCIFICATION), (3, 4, 4, CALCIFICATION), (31, 10, 17, CALCIFICATION),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["i", "j", "k", "kind"])
    found = placed(table, labels, usual, (1.0, 1.0, 1.0))
    assert found["region"].tolist() == [LOBAR, DEEP, INFRATENTORIAL, DEEP, LOBAR, DEEP]
    assert found["lobe"].tolist()[:2] == ["frontal lobe", None]
    assert found["usual_place"].tolist() == [None, None, None, PINEAL, FALX, CHOROID_PLEXUS]
    nowhere = placed(table[:1], np.zeros_like(labels), usual, (1.0, 1.0, 1.0))
    assert nowhere.loc[0, "region"] is None


def test_the_usual_places_lie_in_the_midline() -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-30, -60, -20)
    places = usual_places(Image(np.zeros((31, 61, 41), np.float32), affine)).data
    for number, side in ((1, 8.0), (2, 3.5)):
        x = np.argwhere(places == number)[:, 0] * 2.0 - 30
        assert abs(x.mean()) < 1e-9 and np.abs(x).max() <= side
    assert places[15, 15, 11] == 1  # x 0, y -30, z 2


def test_facts_count_by_region() -> None:
    table = pd.DataFrame(
        {
            "kind": [BLEED, BLEED, BLEED, CALCIFICATION],
            "region": ["lobar", "deep", "lobar", "deep"],
            "moment_ppm_mm3": [10.0, 5.5, 1.0, -8.0],
        }
    )
    said = facts(table)
    assert said["Microbleeds"] == "3 (1 deep, 2 lobar)"
    assert said["Total susceptibility of microbleeds"] == "16.5 ppm mm³"
    assert said["Calcifications"] == "1"
    assert facts(table[:0])["Microbleeds"] == "0"
