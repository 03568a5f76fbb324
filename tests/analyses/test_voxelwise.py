from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bids_qsm.analyses.cohort import Cohort
from bids_qsm.analyses.result import Result
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, encode_image, load_image
from tests.analyses.test_regions import with_people
from tests.analyses.tiny import AFFINE, EFFECT_PPM, Tiny, made, map_of, table_of


@pytest.fixture(scope="module", autouse=True)
def no_charts() -> Iterator[None]:
    """Nothing is drawn, as it takes long; the test of a whole run draws."""
    with pytest.MonkeyPatch.context() as patch:
        # by the module's own name the package has its function
        module = sys.modules["bids_qsm.analyses.voxelwise"]
        patch.setattr(module, "charts_of", lambda *args: [])
        yield


def voxels(cohort: Cohort, **words: object) -> Result:
    return made(cohort, "voxelwise", **{"measures": ["Chimap"], "permutations": 0, **words})


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


@pytest.fixture(scope="module")
def adjusted(cohort: Cohort) -> Result:
    return voxels(cohort, covariates=["age"], permutations=200)


def test_the_planted_part_is_found_and_nothing_where_there_is_none(
    cohort: Cohort, tiny: Tiny, adjusted: Result
) -> None:
    truth = tiny.plan.truth["Chimap"]
    inside = tiny.plan.mask
    assert dice(map_of(adjusted, "Chimap_significant")[inside].astype(bool), truth) > 0.9
    tfce = map_of(adjusted, "Chimap_log10p-tfce")[inside] > -np.log10(0.05)
    assert dice(tfce, truth) > 0.8
    effect = map_of(adjusted, "Chimap_effect")[inside]
    assert effect[truth].mean() == pytest.approx(EFFECT_PPM, rel=0.1)
    assert map_of(adjusted, "Chimap_effect")[~inside].max() == 0
    first = table_of(adjusted, "Chimap_clusters").iloc[0]
    assert first["p_cluster"] < 0.01
    assert first["regions"] == "Left thalamus 50 %; Right thalamus 50 %"

    null = voxels(cohort, measures=["R2starmap"], permutations=200)
    assert not map_of(null, "R2starmap_significant").any()
    assert map_of(null, "R2starmap_log10p-tfce").max() < -np.log10(0.05)
    assert "1/s" in {m.units for m in null.maps}


def test_statistic_is_that_of_least_squares(cohort: Cohort, tiny: Tiny, adjusted: Result) -> None:
    chosen = cohort.images.query("measure == 'Chimap' and session_id == 'ses-1'")
    people = cohort.scans.query("session_id == 'ses-1'")
    images = [load_image(path).data[8, 3, 4] for path in chosen["path"]]
    patient = (people["group"] == "patient").to_numpy(float)
    design = np.column_stack([np.ones(16), patient, people["age"]])
    beta, rest, _, _ = np.linalg.lstsq(design, np.array(images, np.float64), rcond=None)
    variance = rest[0] / 13 * np.linalg.inv(design.T @ design)[1, 1]
    assert map_of(adjusted, "Chimap_effect")[8, 3, 4] == pytest.approx(beta[1], rel=1e-4)
    t = beta[1] / np.sqrt(variance)
    assert map_of(adjusted, "Chimap_statistic")[8, 3, 4] == pytest.approx(t, rel=1e-4)
    d = beta[1] / np.sqrt(rest[0] / 13)
    assert map_of(adjusted, "Chimap_cohen-d")[8, 3, 4] == pytest.approx(d, rel=1e-4)


def test_significant_part_has_the_means_of_its_voxels(
    cohort: Cohort, tiny: Tiny, adjusted: Result
) -> None:
    table = table_of(adjusted, "Chimap_significant-random-fields").set_index("name")
    significant = map_of(adjusted, "Chimap_significant").astype(bool)
    thalamus = np.zeros_like(significant)
    thalamus[tiny.plan.mask] = tiny.plan.of_nucleus("thalamus")
    part = significant & thalamus
    share = 100 * part.sum() / thalamus.sum()
    assert table.loc["Thalamus", "percent_significant"] == pytest.approx(share)
    assert table.loc["Putamen", "percent_significant"] == 0
    chosen = cohort.images.query("measure == 'Chimap' and session_id == 'ses-1'")
    values = np.array([load_image(path).data[part].mean() for path in chosen["path"]])
    row = table.loc["Thalamus"]
    assert row["group_a"] == "patient"
    assert row["mean_a"] == pytest.approx(values[8:].mean(), rel=1e-5)
    assert row["sd_b"] == pytest.approx(values[:8].std(ddof=1), rel=1e-4)


def test_rows_of_clusters_are_those_of_the_map(adjusted: Result) -> None:
    numbers, t = map_of(adjusted, "Chimap_clusters"), map_of(adjusted, "Chimap_statistic")
    height = stats.t.isf(0.0005, 13)
    table = table_of(adjusted, "Chimap_clusters")
    assert set(table["cluster"]) == set(numbers[numbers > 0])
    for row in table.itertuples():
        inside = numbers == row.cluster
        assert row.n_voxels == inside.sum()
        assert np.abs(t[inside]).min() > height
        assert row.peak_statistic == pytest.approx(t[inside][np.abs(t[inside]).argmax()])
        at = (row.peak_i, row.peak_j, row.peak_k)
        position = AFFINE[:3, :3] @ at + AFFINE[:3, 3]
        assert (row.peak_x_mm, row.peak_y_mm, row.peak_z_mm) == pytest.approx(tuple(position))
        assert t[at] == pytest.approx(row.peak_statistic)
    permuted = table_of(adjusted, "Chimap_clusters-permuted").set_index("n_voxels")
    largest = permuted.loc[table["n_voxels"].max()]
    inside = numbers == table["cluster"].iloc[table["n_voxels"].argmax()]
    assert largest["mass"] == pytest.approx((np.abs(t[inside]) - height).sum(), rel=1e-3)
    assert largest["p_mass"] == largest["p_size"] == pytest.approx(1 / 201, abs=0.01)


def test_reference_group_turns_the_sign(cohort: Cohort, adjusted: Result) -> None:
    turned = voxels(cohort, covariates=["age"], reference_group="patient")
    expected = -map_of(adjusted, "Chimap_statistic")
    np.testing.assert_allclose(map_of(turned, "Chimap_statistic"), expected, rtol=1e-4, atol=1e-5)
    assert "(control − patient)" in turned.summary
    assert not any("tfce" in item.name for item in (*turned.maps, *turned.tables))


@pytest.mark.parametrize("contrast", ["patient - control", "group[T.patient]", "group"])
def test_a_formula_says_the_same_as_groups_and_covariates(
    cohort: Cohort, adjusted: Result, contrast: str
) -> None:
    free = voxels(cohort, formula="group + age", contrast=contrast)
    expected = map_of(adjusted, "Chimap_statistic")
    np.testing.assert_allclose(map_of(free, "Chimap_statistic"), expected, rtol=1e-4, atol=1e-5)


def test_a_contrast_of_several_columns_is_f(cohort: Cohort, adjusted: Result) -> None:
    found = voxels(cohort, formula="group + age", contrast="group, age")
    f = map_of(found, "Chimap_statistic")[8, 3, 4]
    chosen = cohort.images.query("measure == 'Chimap' and session_id == 'ses-1'")
    y = np.array([load_image(path).data[8, 3, 4] for path in chosen["path"]], np.float64)
    people = cohort.scans.query("session_id == 'ses-1'")
    patient = (people["group"] == "patient").to_numpy(float)
    design = np.column_stack([np.ones(16), patient, people["age"]])
    rest = np.linalg.lstsq(design, y, rcond=None)[1][0]
    expected = (((y - y.mean()) ** 2).sum() - rest) / 2 / (rest / 13)
    assert f == pytest.approx(expected, rel=1e-4)
    assert "effect" not in {m.name.removeprefix("Chimap_") for m in found.maps}
    assert "F of group, age" in found.summary


def test_a_number_is_tested_by_its_slope(cohort: Cohort) -> None:
    words = {"subset": "group == 'control'", "permutations": 50}
    found = voxels(cohort, by="age", **words)
    chosen = cohort.images.query("measure == 'Chimap' and session_id == 'ses-1'").iloc[:8]
    y = [load_image(path).data[4, 3, 4] for path in chosen["path"]]
    slope = np.polyfit(cohort.scans.query("session_id == 'ses-1'")["age"].iloc[:8], y, 1)[0]
    assert map_of(found, "Chimap_effect")[4, 3, 4] == pytest.approx(slope, rel=1e-3)
    assert "t of age" in found.summary


@pytest.mark.parametrize(
    "labels", [('it\'s "control"', "x"), ("con'trol", "pat'ient"), ("a\\", "b c"), ("é, ü", "[z]")]
)
def test_labels_of_groups_may_hold_any_sign(
    cohort: Cohort, adjusted: Result, labels: tuple[str, str]
) -> None:
    named = with_people(cohort, group=[labels[0]] * 8 + [labels[1]] * 8)
    found = voxels(named, covariates=["age"], reference_group=labels[0])
    expected = map_of(adjusted, "Chimap_statistic")
    np.testing.assert_allclose(map_of(found, "Chimap_statistic"), expected, rtol=1e-4, atol=1e-5)
    table = table_of(found, "Chimap_significant-random-fields")
    assert set(table["group_a"]) == {labels[1]}


@pytest.mark.parametrize("name", ["study arm", "study-arm", "1st"])
def test_names_of_columns_may_hold_any_sign(cohort: Cohort, adjusted: Result, name: str) -> None:
    named = with_people(cohort, **{name: ["control"] * 8 + ["patient"] * 8})
    found = voxels(named, by=name, covariates=["age"])
    expected = map_of(adjusted, "Chimap_statistic")
    np.testing.assert_allclose(map_of(found, "Chimap_statistic"), expected, rtol=1e-4, atol=1e-5)
    assert len(table_of(found, "Chimap_significant-random-fields")) == 2
    aged = with_people(cohort, **{name: cohort.scans["age"].iloc[::2].tolist()})
    slopes = [voxels(aged, by=by) for by in (name, "age")]
    first, second = (map_of(result, "Chimap_statistic") for result in slopes)
    np.testing.assert_allclose(first, second)
    covaried = voxels(aged, covariates=[name])
    np.testing.assert_allclose(map_of(covaried, "Chimap_statistic"), expected, rtol=1e-4, atol=1e-5)
    free = voxels(named, formula=f"`{name}` + age", contrast=f"`{name}`")
    np.testing.assert_allclose(map_of(free, "Chimap_statistic"), expected, rtol=1e-4, atol=1e-5)


def test_groups_by_number_and_groups_of_three(cohort: Cohort, adjusted: Result) -> None:
    coded = with_people(cohort, group=[0] * 8 + [1] * 8)
    found = voxels(coded, covariates=["age"])
    expected = map_of(adjusted, "Chimap_statistic")
    np.testing.assert_allclose(map_of(found, "Chimap_statistic"), expected, rtol=1e-4, atol=1e-5)
    three = with_people(cohort, group=["a"] * 6 + ["b"] * 5 + ["c"] * 5)
    whole = voxels(three, permutations=20)
    assert whole.summary.startswith("F of group")
    assert any("; F of" in note for note in whole.notes)
    assert len(table_of(whole, "Chimap_clusters"))
    pair = voxels(three, contrast="c - b")
    assert pair.summary.startswith("t of group")


def spoiled(cohort: Cohort, path, change) -> Cohort:
    """The cohort with another map in place of its first."""
    image = load_image(cohort.images["path"].iloc[0])
    path.write_bytes(encode_image(change(image)))
    images = cohort.images.copy()
    images.loc[0, "path"] = path
    return dataclasses.replace(cohort, images=images)


def test_what_was_not_measured_has_no_test_and_is_said(cohort: Cohort, tmp_path) -> None:
    def hole(image: Image) -> Image:
        data = image.data.copy()
        data[8, 3, 4] = 0
        return image.like(data)

    found = voxels(spoiled(cohort, tmp_path / "hole.nii.gz", hole))
    assert any("1 voxel of 420 were not measured" in note for note in found.notes)
    assert map_of(found, "Chimap_statistic")[8, 3, 4] == 0
    assert map_of(found, "Chimap_significant").any()


def test_a_map_on_another_grid_is_refused(cohort: Cohort, tmp_path) -> None:
    other = spoiled(cohort, tmp_path / "other.nii.gz", lambda image: Image(image.data[1:], AFFINE))
    with pytest.raises(UnreadableInputError, match="another grid than other"):
        voxels(other)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"by": "grupo"}, "'grupo'"),
        ({"by": "nothing"}, "column 'nothing' has no value"),
        ({"formula": "group + agee"}, "'agee', which is no column"),
        ({"formula": "group + age", "contrast": "grupo"}, "grupo"),
        ({"covariates": ["edss"]}, "one group alone"),
        ({"reference_group": "healthy"}, "'healthy' is none of"),
        ({"primary_p": 2.0}, "a probability must lie"),
        ({"permutations": -1}, "permutations"),
        ({"smoothing_mm": -1.0}, "smoothing_mm"),
    ],
)
def test_what_cannot_be_tested_is_one_sentence(cohort: Cohort, words, sentence) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        voxels(with_people(cohort, nothing=[None] * 16), **words)
    assert "\n" not in str(caught.value)


def test_without_maps_it_says_what_to_do(cohort: Cohort) -> None:
    none = dataclasses.replace(cohort, images=cohort.images.iloc[:0])
    with pytest.raises(ValueError, match="output space MNI152NLin2009cAsym"):
        voxels(none)


def test_who_has_no_map_is_said(cohort: Cohort) -> None:
    fewer = cohort.images[cohort.images["participant_id"] != "sub-03"].reset_index(drop=True)
    found = voxels(dataclasses.replace(cohort, images=fewer))
    assert any("sub-03" in note and "map" in note for note in found.notes)


def test_a_frame_of_scans_is_left_as_it_was(cohort: Cohort) -> None:
    before = cohort.scans.copy()
    voxels(cohort, covariates=["age"])
    pd.testing.assert_frame_equal(before, cohort.scans)
