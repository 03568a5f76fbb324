from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bids_qsm.analyses.cohort import Cohort
from bids_qsm.bids.naming import output_path, record_path
from bids_qsm.bids.publishing import encode_table
from bids_qsm.bids.sidecars import TABLE_COLUMNS
from bids_qsm.gathering import gather, read_table
from bids_qsm.group import write_tables
from bids_qsm.models import default_analyses
from bids_qsm.statistics.collection import KEYS
from tests.analyses.tiny import Tiny, made, table_of

MEANS = {"T1w": 1.0, "T2w": 1.4, "Chimap": 2.5, "hybrid": 3.0}
GPI, STN = "globus pallidus interna", "subthalamic nucleus"


@pytest.fixture
def with_ratios(cohort: Cohort) -> Cohort:
    """The cohort with ratios of two nuclei: in the first the contrasts differ, else they do not."""
    random = np.random.default_rng(4)
    rows = []
    for scan in cohort.scans[KEYS].itertuples(index=False):
        own = 0.5 * random.standard_normal()
        for structure in (GPI, STN):
            for side in "LR":
                for contrast, mean in MEANS.items():
                    cnr = (mean if structure == GPI else 2.0) + own
                    cnr += 0.2 * random.standard_normal()
                    keys = dict(zip(KEYS, scan, strict=True))
                    ids = {"structure": structure, "hemisphere": side, "contrast": contrast}
                    rows.append({**keys, **ids, "surround": "weakest", "cnr": cnr})
                    rows.append({**keys, **ids, "surround": "unlabelled", "cnr": cnr + 9})
    return replace(cohort, clinical={"contrast_to_noise": pd.DataFrame(rows)})


@pytest.fixture
def first_scans(with_ratios: Cohort) -> pd.DataFrame:
    """Ratios of GPi by participant and contrast, means of both sides."""
    first = with_ratios.scans.sort_values(KEYS).drop_duplicates("participant_id")
    table = with_ratios.clinical["contrast_to_noise"].merge(first[KEYS], on=KEYS)
    table = table[(table["surround"] == "weakest") & (table["structure"] == GPI)]
    return table.pivot_table(index="participant_id", columns="contrast", values="cnr")[[*MEANS]]


def test_one_way_and_repeated_analyses_are_those_of_the_means_of_both_sides(
    with_ratios, first_scans
) -> None:
    result = made(with_ratios, "contrast")
    row = table_of(result, "anova").set_index("structure").loc[GPI]
    f, p = stats.f_oneway(*first_scans.to_numpy().T)
    assert (row["f_anova"], row["p_anova"]) == pytest.approx((f, p), rel=1e-6)
    assert row["n_subjects"] == len(first_scans)
    # subjects differ much, which only the second analysis knows
    assert row["f_repeated"] > 2 * row["f_anova"]
    assert table_of(result, "anova").set_index("structure").loc[STN, "p_greenhouse_geisser"] > 1e-3
    means = table_of(result, "means").set_index(["structure", "contrast"])["mean"]
    assert means[GPI].to_dict() == pytest.approx(first_scans.mean().to_dict())


def test_pairs_have_tukey_and_paired_tests(with_ratios, first_scans) -> None:
    pairs = table_of(made(with_ratios, "contrast"), "pairs")
    assert len(pairs) == 12
    row = pairs.set_index(["structure", "group_a", "group_b"]).loc[GPI, "hybrid", "Chimap"]
    test = stats.tukey_hsd(*first_scans.to_numpy().T)
    assert row["p_tukey"] == pytest.approx(test.pvalue[3, 2], abs=1e-6)
    paired = stats.ttest_rel(first_scans["hybrid"], first_scans["Chimap"])
    assert row["p_paired"] == pytest.approx(paired.pvalue)
    assert row["difference"] == pytest.approx(row["paired_difference"])
    assert row["p_paired_holm"] < 0.001


def test_a_contrast_that_few_have_is_left_out_unless_it_is_asked_for(with_ratios) -> None:
    table = with_ratios.clinical["contrast_to_noise"]
    first = table["participant_id"].iloc[0]
    few = table[(table["contrast"] != "T2w") | (table["participant_id"] == first)]
    cohort = replace(with_ratios, clinical={"contrast_to_noise": few})
    result = made(cohort, "contrast", nuclei=[STN], surround="unlabelled")
    assert set(table_of(result, "means")["contrast"]) == {"T1w", "Chimap", "hybrid"}
    assert table_of(result, "means")["mean"].min() > 9
    asked = made(cohort, "contrast", nuclei=[STN], contrasts=["T1w", "T2w"])
    assert table_of(asked, "anova")["n_subjects"].tolist() == [1]
    assert any("without all contrasts" in note for note in asked.notes)
    assert not asked.warnings and result.warnings


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"surround": "bone"}, "no surround 'bone'; there are: unlabelled, weakest"),
        ({"nuclei": ["GPi"]}, "no nucleus 'GPi'"),
        ({"contrasts": ["FLAIR"]}, "no contrast 'FLAIR'"),
        ({"contrasts": ["T1w"]}, "the only contrast is T1w"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(with_ratios, words, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        made(with_ratios, "contrast", **words)


def test_without_clinical_steps_it_is_said_what_makes_them(cohort: Cohort) -> None:
    with pytest.raises(ValueError, match=r"no table 'contrast_to_noise'.*'--with dbs'"):
        made(cohort, "contrast")


def test_spans_of_trajectories_are_compared_with_recorded_ones(cohort: Cohort) -> None:
    random = np.random.default_rng(2)
    spans = cohort.scans[KEYS].iloc[:12].copy()
    spans["recorded_span_mm"] = random.normal(5.3, 1, 12)
    spans["span_mm"] = spans["recorded_span_mm"] + random.normal(0.2, 0.4, 12)
    others = spans.assign(recorded_span_mm=np.nan)
    table = pd.concat([spans, others], ignore_index=True)
    cohort = replace(cohort, clinical={"trajectories": table})
    words = {"first": "recorded_span_mm", "second": "span_mm", "table": "trajectories"}
    result = made(cohort, "agreement", **words, units="mm")
    d = spans["span_mm"] - spans["recorded_span_mm"]
    (row,) = table_of(result, "agreement").itertuples()
    assert row.n == 12 and row.bias == pytest.approx(d.mean())
    shares = table_of(result, "shares").set_index("tolerance")["share"]
    assert shares.index.tolist() == [0.1, 0.5, 1.0, 2.0]
    assert shares[0.5] == pytest.approx((d.abs() <= 0.5).mean())
    assert not any("left out" in note for note in result.notes)
    assert any("Some participants have several rows" in note for note in result.notes)


def test_what_the_clinical_steps_measured_is_analysed_without_being_asked(with_ratios) -> None:
    spans = with_ratios.scans[KEYS].assign(recorded_span_mm=5.0, span_mm=4.0)
    clinical = {**with_ratios.clinical, "trajectories": spans}
    analyses, _ = default_analyses(with_ratios.scans, clinical=clinical)
    kinds = {analysis.name: analysis.kind for analysis in analyses}
    assert kinds["contrast-to-noise"] == "contrast" and kinds["spans"] == "agreement"
    clinical["trajectories"] = spans.assign(recorded_span_mm=np.nan)
    kinds = {a.name for a in default_analyses(with_ratios.scans, clinical=clinical)[0]}
    assert "spans" not in kinds


def test_tables_of_clinical_steps_are_gathered_and_written(tiny: Tiny, tmp_path) -> None:
    out = tmp_path / "out"
    shutil.copytree(tiny.out, out)
    for place, subject in enumerate(("sub-01", "sub-02")):
        for key, rows in (
            ("contrast_to_noise", {"structure": [GPI], "contrast": ["T1w"], "cnr": [place]}),
            ("trajectories", {"trajectory": ["left"], "name": ["STN"], "span_mm": [5 + place]}),
        ):
            name = f"{subject}_ses-2"
            path = output_path(name, key)
            columns = list(TABLE_COLUMNS[key])
            table = pd.DataFrame(rows).reindex(columns=columns)
            (out / path).write_text(encode_table(table), encoding="utf-8")
            record = out / record_path(name)
            content = json.loads(record.read_text())
            content["tables"].append({"key": key, "path": path.as_posix(), "atlas": None})
            record.write_text(json.dumps(content))
    settings = replace(tiny.settings, output_dir=out)
    gathered = gather(settings)
    spans = gathered.clinical["trajectories"]
    assert spans["series"].tolist() == ["sub-01_ses-2", "sub-02_ses-2"]
    assert spans["span_mm"].tolist() == [5, 6] and spans["age"].notna().all()
    write_tables(out, gathered)
    written = read_table(out / "group_contrast_to_noise.tsv")
    assert written["cnr"].tolist() == [0, 1]
    described = json.loads((out / "group_contrast_to_noise.json").read_text())
    assert described["cnr"]["Description"].startswith("Contrast-to-noise ratio")
