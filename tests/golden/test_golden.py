"""Results are those that are stored, within a tolerance for other processors and versions."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bids_qsm.images import Image
from tests.golden import cases
from tests.golden.cases import CASES, inverted, wider, without_background
from tests.golden.drift import REGISTERED, Drift, Output, drifts, kept, report
from tests.golden.store import VALUES, load, load_made_in
from tests.golden.surroundings import surroundings

LARGEST_FILE = 200_000
ON_SMALL_FIELD = {"background": without_background, "inversion": inverted}


SLOW = pytest.param("anatomy", marks=pytest.mark.slow)


@pytest.mark.parametrize("case", [SLOW if case in SLOW.values else case for case in CASES])
def test_results_are_those_that_are_stored(case: str, tmp_path: Path) -> None:
    found = drifts(load().get(case, {}), CASES[case](tmp_path), wider(case))
    assert found
    wrong = [drift for drift in found if drift.is_too_large]
    assert not wrong, report(case, wrong)


def too_large(stored: Output, found: Output) -> list[Drift]:
    compared = drifts({"it": kept(stored)}, {"it": found})
    return [drift for drift in compared if drift.is_too_large]


@pytest.fixture(scope="module")
def image() -> Image:
    """An image of 20,000 known voxels of both signs."""
    values = np.random.default_rng(1).normal(0.2, 1, (40, 50, 20)).astype(np.float32)
    values[:20] = 0
    return Image(values, np.diag([1.0, 2.0, 3.0, 1.0]))


def one_part_in_a_thousand(values: np.ndarray) -> np.ndarray:
    return values * np.float32(1.001)


def other_sign(values: np.ndarray) -> np.ndarray:
    return -values


def moved(values: np.ndarray) -> np.ndarray:
    return np.roll(values, 1, axis=1)


def one_voxel_lost(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[30, 25, 10] = 0
    return values


def shifted(values: np.ndarray) -> np.ndarray:
    return np.where(values != 0, values + np.float32(1e-3), 0)


def noisier(values: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(2).normal(0, 3e-3, values.shape).astype(np.float32)
    return np.where(values != 0, values + noise, 0)


def other_type(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64)


@pytest.mark.parametrize(
    "change",
    [one_part_in_a_thousand, other_sign, moved, one_voxel_lost, shifted, noisier, other_type],
)
def test_a_changed_image_is_noticed(image: Image, change: Callable) -> None:
    assert too_large(image, image) == []
    assert too_large(image, image.like(change(image.data))) != []


def test_an_image_that_lies_elsewhere_is_noticed(image: Image) -> None:
    (drift,) = too_large(image, Image(image.data, image.affine + 0.01 * np.eye(4, k=3)))
    assert drift.quantity == "affine"


def test_rounding_errors_are_not(image: Image) -> None:
    last_digits = np.random.default_rng(3).normal(1, 3e-6, image.shape)
    assert too_large(image, image.like((image.data * last_digits).astype(np.float32))) == []


def test_a_few_huge_voxels_do_not_hide_the_others(image: Image) -> None:
    values = image.data.copy()
    values[30, 25, :5] = 1e8
    assert too_large(image.like(values), image.like(values * np.float32(1.001)))


def test_a_changed_table_is_noticed() -> None:
    table = pd.DataFrame({"name": ["a", "b"], "value": [1.0, math.nan], "passed": [True, False]})
    assert too_large(table, table.copy()) == []
    assert too_large(table, table.assign(value=[1.0001, math.nan])) == []
    for changed in (
        table.assign(value=[1.001, math.nan]),
        table.assign(value=[-1.0, math.nan]),
        table.assign(value=[1.0, 0.0]),
        table.assign(name=["a", "c"]),
        table.assign(passed=[True, True]),
        table.rename(columns={"value": "mean"}),
        table.iloc[:1],
    ):
        assert too_large(table, changed), changed


def test_small_numbers_are_seen_beside_others_of_their_measure() -> None:
    table = pd.DataFrame({"measure": ["a", "a", "b"], "value": [1.0, 0.01, 0.01]})
    stored = {"it": kept(table)}
    for row, allowed in ((1, True), (2, False)):
        now = table.assign(value=[1.0 if i == 0 else 0.03 if i == row else 0.01 for i in range(3)])
        wrong = [d for d in drifts(stored, {"it": now}, {"it": REGISTERED}) if d.is_too_large]
        assert bool(wrong) != allowed
        assert any(d.is_too_large for d in drifts(stored, {"it": now}))


def test_more_may_drift_only_where_last_digits_are_others(monkeypatch) -> None:
    made_in = load_made_in()["anatomy"]
    monkeypatch.setattr(cases, "surroundings", lambda: made_in)
    assert cases.wider("anatomy") == {}
    monkeypatch.setattr(cases, "surroundings", lambda: f"{made_in}.1")
    assert cases.wider("anatomy") == cases.WIDER["anatomy"]
    assert cases.wider("relaxometry") == {}


def test_surroundings_are_the_same_again_and_others_with_other_functions(monkeypatch) -> None:
    here = surroundings.__wrapped__()
    assert here == surroundings.__wrapped__()
    sinus = math.sin
    monkeypatch.setattr(math, "sin", lambda x: math.nextafter(sinus(x), 2))
    assert surroundings.__wrapped__() != here


@pytest.mark.parametrize(
    ("step", "name", "options"),
    [
        ("background", "vsharp", {"largest_radius_mm": 12.5}),
        ("inversion", "tv", {"regularisation": 0.81}),
        ("inversion", "medi", {"regularisation": 0.41}),
        ("inversion", "tkd", {"threshold": 0.151}),
    ],
)
def test_another_default_is_noticed_in_the_values_themselves(step, name, options) -> None:
    for changed in ({}, options):
        found = {name: ON_SMALL_FIELD[step](name, **changed)}
        wrong = [d for d in drifts({name: load()[step][name]}, found) if d.is_too_large]
        assert bool(wrong) == bool(changed), wrong


def test_message_says_which_output_by_how_much_and_how_to_renew() -> None:
    stored = load()["inversion"]
    tkd = inverted("tkd")
    larger = tkd.like(tkd.data * np.float32(1.001))
    found = drifts({"tkd": stored["tkd"]}, {"tkd": larger})
    said = report("inversion", [drift for drift in found if drift.is_too_large])
    assert f"  tkd: rms was {stored['tkd']['rms']}, is " in said
    assert "off by 1.0e-03 (allowed: 2.0e-04)" in said
    assert "python -m tests.golden.renew inversion" in said


def test_missing_and_new_outputs_are_said(image: Image) -> None:
    found = drifts({"old": kept(image)}, {"new": image})
    assert all(drift.is_too_large for drift in found)
    said = [str(drift) for drift in found]
    assert said == [
        "new: the output was unknown, is there",
        "old: the output was there, is missing",
    ]


def test_every_stored_value_is_compared_and_the_file_is_small() -> None:
    stored = load()
    assert set(stored) == set(load_made_in()) == set(CASES)
    assert VALUES.stat().st_size < LARGEST_FILE
