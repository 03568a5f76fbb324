from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bids_qsm.bids.naming import output_path, record_path
from bids_qsm.images import load_image
from bids_qsm.report.record import record_from_json
from bids_qsm.settings import TEMPLATE
from bids_qsm.statistics.glm import fit_voxels
from bids_qsm.statistics.glm import test_contrast as voxel_contrast
from tests.benchmarks.cohort import main
from tests.benchmarks.cohort_images import MEASURES, TABLE_1, Cohort, Painter, plan


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return plan()


@pytest.fixture(scope="module")
def painter(cohort: Cohort) -> Painter:
    return Painter(cohort)


def group_p(cohort: Cohort, measure: str, nucleus: str, column: int) -> float:
    patient = (cohort.participants["group"] == "patient").to_numpy()
    means = cohort.means[measure, nucleus][:, column]
    return float(stats.ttest_ind(means[patient], means[~patient], equal_var=False).pvalue)


def test_groups_have_the_moments_of_the_table_and_p_its_order(cohort: Cohort) -> None:
    for measure, table in TABLE_1.items():
        for nucleus, effect in table.items():
            for group, (mean, sd) in zip(("control", "patient"), effect.whole, strict=True):
                member = (cohort.participants["group"] == group).to_numpy()
                its = cohort.means[measure, nucleus][member, 0]
                assert its.mean() == pytest.approx(mean, rel=1e-9)
                assert its.std(ddof=1) == pytest.approx(sd, rel=1e-9)
    p = {m: {n: group_p(cohort, m, n, 0) for n in TABLE_1[m]} for m in MEASURES}
    r2star, chi = (sorted(p[m], key=p[m].__getitem__) for m in MEASURES)
    assert r2star == ["pallidum", "thalamus", "putamen", "caudate"]
    assert chi == ["caudate", "putamen", "pallidum", "thalamus"]
    for nucleus in TABLE_1["R2starmap"]:
        assert group_p(cohort, "R2starmap", nucleus, 1) < p["R2starmap"][nucleus] / 10


def test_p_adjusted_for_age_are_those_that_are_printed(cohort: Cohort) -> None:
    printed = {
        "R2starmap": {"thalamus": 0.02, "caudate": 0.07, "putamen": 0.03, "pallidum": 0.007},
        "Chimap": {"thalamus": 0.01, "caudate": 0.0005, "putamen": 0.0008, "pallidum": 0.0008},
    }
    patient = (cohort.participants["group"] == "patient").to_numpy()
    age = cohort.participants["age"].to_numpy()
    design = np.column_stack([np.ones(74), patient, age])
    for measure, nuclei in printed.items():
        for nucleus, p in nuclei.items():
            fit = fit_voxels(cohort.means[measure, nucleus][:, :1], design)
            t = voxel_contrast(fit, [0, 1, 0]).statistic[0]
            assert 2 * stats.t.sf(t, 71) == pytest.approx(p, rel=0.35)


def test_truth_is_the_tables_share_on_both_sides(cohort: Cohort) -> None:
    for measure, table in TABLE_1.items():
        for nucleus, effect in table.items():
            for index in cohort.table.loc[cohort.table["nucleus"] == nucleus, "index"]:
                share = cohort.truth[measure][cohort.labels == index].mean()
                assert share == pytest.approx(effect.share, abs=1e-3)
        assert not cohort.truth[measure][cohort.of_nucleus("hippocampus")].any()
    assert not plan(5, 4, size=0).truth["Chimap"].any()


def test_images_have_their_subjects_means(cohort: Cohort, painter: Painter) -> None:
    image = painter.image("R2starmap", 50)
    for nucleus in TABLE_1["R2starmap"]:
        whole, part = cohort.means["R2starmap", nucleus][50]
        assert image[cohort.of_nucleus(nucleus)].mean() == pytest.approx(whole, rel=1e-4)
        assert image[cohort.parts["R2starmap", nucleus]].mean() == pytest.approx(part, rel=1e-4)
    np.testing.assert_array_equal(image, Painter(plan()).image("R2starmap", 50))


def test_scans_of_a_subject_differ_as_the_abstract_says(cohort: Cohort, painter: Painter) -> None:
    putamen = cohort.of_nucleus("putamen")
    for measure, percent in (("R2starmap", 5.0), ("Chimap", 1.0)):
        changes = []
        for subject in range(4):
            one, two = (painter.image(measure, subject, session) for session in (1, 2))
            mean = cohort.means[measure, "putamen"][:, 0].mean()
            changes.append(np.abs(one - two)[putamen].mean() / mean)
        assert 100 * np.mean(changes) == pytest.approx(percent, rel=0.35)


@pytest.mark.slow
def test_dataset_is_what_the_participant_level_leaves(tmp_path, cohort: Cohort) -> None:
    words = [str(tmp_path / "bids"), str(tmp_path / "out")]
    assert main([*words, "--groups", "4", "4", "--sessions", "2"]) == 0
    small = plan(4, 4)
    path = output_path("sub-03_ses-2", "chi", space=TEMPLATE)
    written = load_image(tmp_path / "out" / path)
    expected = Painter(small).image("Chimap", 2, 2)
    np.testing.assert_array_equal(written.data[small.mask], expected)
    text = (tmp_path / "out" / record_path("sub-03_ses-2")).read_text(encoding="utf-8")
    record = record_from_json(text)
    assert (record.subject, record.session) == ("03", "2")
    assert all((tmp_path / "out" / output).exists() for output in record.outputs)
    table = pd.read_csv(tmp_path / "out" / record.table, sep="\t", keep_default_na=False)
    row = table.query("index == 12 and measure == 'Chimap' and reference != 'whole brain'").iloc[0]
    assert row["mean"] == pytest.approx(expected[small.labels == 12].mean(), rel=1e-4)
    people = pd.read_csv(tmp_path / "bids" / "participants.tsv", sep="\t")
    assert people["group"].tolist() == ["control"] * 4 + ["patient"] * 4
    sessions = pd.read_csv(tmp_path / "bids" / "sub-03" / "sub-03_sessions.tsv", sep="\t")
    assert sessions["session_id"].tolist() == ["ses-1", "ses-2"]
