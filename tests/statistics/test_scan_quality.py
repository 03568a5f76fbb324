from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_qsm.statistics.collection import KEYS
from bids_qsm.statistics.scan_quality import FEWEST, ORTHOGONAL, SCORE, Judged, judge_scans

BOUNDS = {
    "snr": ("low", 10.0, np.nan, 60.0),
    "noise": ("high", np.nan, 0.1, 0.02),
    "residual": ("high", np.nan, 0.2, 0.03),
    "range": ("both", 5.0, 500.0, 70.0),
}
LABELS = {f"volume {n}": ("both", 1.0, 9.0, 4.0) for n in range(4)}


def table_of(n: int, seed: int = 0, kind: str = "one") -> pd.DataFrame:
    """Log-normal metrics of n scans, all within their ranges."""
    rng, rows = np.random.default_rng(seed), []
    for scan in range(n):
        name = f"sub-{kind}{scan:03d}"
        for atlas, checks in (("n/a", BOUNDS), ("A", LABELS)):
            for check, (direction, low, high, usual) in checks.items():
                value = usual * np.exp(rng.normal(0, 0.1))
                rows.append((name, "n/a", name, kind, atlas, check, value, low, high, direction))
    names = [*KEYS, "comparable", "atlas", "check", "value", "low", "high", "direction"]
    table = pd.DataFrame(rows, columns=names).assign(name="brain", hemisphere="n/a", units="")
    return table.assign(passed=pd.Series(True, table.index, dtype=object))


def planted(table: pd.DataFrame, scan: int, **values: float) -> pd.DataFrame:
    table = table.copy()
    series = table["series"].unique()[scan]
    for check, value in values.items():
        row = (table["series"] == series) & (table["check"] == check.replace("_", " "))
        table.loc[row, "value"] = value
    out = (table["value"] < table["low"]) | (table["value"] > table["high"])
    return table.assign(passed=pd.Series(~out, dtype=object))


def flagged(judged: Judged) -> dict[int, bool]:
    """Return the flagged scans and whether they are proposed."""
    scans = judged.scans[judged.scans["is_flagged"]]
    return {int(place): bool(proposed) for place, proposed in scans["is_proposed"].items()}


def test_a_bad_scan_is_proposed_with_its_reason() -> None:
    judged = judge_scans(planted(table_of(60), 7, noise=0.3))
    assert flagged(judged) == {7: True}
    (scan,) = judged.scans[judged.scans["is_flagged"]].itertuples()
    assert (scan.n_out_of_range, scan.n_outliers, scan.n_failed_labels) == (1, 1, 0)
    assert scan.reasons.startswith("noise (brain) 0.3, expected at most 0.1, robust z 2")
    assert SCORE in scan.reasons
    assert scan.distance > 2 * scan.distance_cutoff
    row = judged.metrics.query("series == 'sub-one007' and check == 'noise'").iloc[0]
    others = judged.metrics.query("check == 'noise'")["value"]
    assert row["median"] == pytest.approx(others.median())
    assert row["n_comparable"] == 60
    assert row["robust_z"] > row["z_cutoff"] > 3


def test_an_outlier_within_the_range_is_flagged_alone() -> None:
    assert flagged(judge_scans(planted(table_of(60), 3, snr=25))) == {3: False}


def test_a_value_that_is_unusually_good_is_no_outlier() -> None:
    judged = judge_scans(planted(table_of(60), 3, noise=0.008))
    row = judged.metrics.query("series == 'sub-one003' and check == 'noise'").iloc[0]
    assert row["robust_z"] < -5
    assert not row["is_outlier"]
    assert judged.scans["n_outliers"].sum() == 0


def test_out_of_range_like_the_others_is_flagged_but_not_proposed() -> None:
    """A noisy protocol: 12 of 60 scans are just beyond the bound, none is unlike the rest."""
    table = table_of(60)
    noisy = table["check"] == "noise"
    table.loc[noisy, "value"] *= 0.09 / 0.02
    judged = judge_scans(planted(table, 0))
    scans = judged.scans
    assert scans["n_out_of_range"].sum() >= 5
    assert scans.loc[scans["n_out_of_range"] > 0, "is_flagged"].all()
    assert not scans["is_proposed"].any()


def test_what_most_scans_fail_flags_none_and_is_said() -> None:
    table = table_of(60)
    table.loc[table["check"] == "noise", "value"] += 0.1
    judged = judge_scans(planted(table, 0))
    assert flagged(judged) == {}
    assert judged.notes[0].startswith(
        "noise (brain) is out of the expected range in 100% of the 60"
    )


def test_labels_need_to_be_out_of_range_and_unlike_the_others() -> None:
    table = planted(table_of(60), 5, volume_1=12.0)
    table = planted(table, 6, volume_1=2.0)  # an outlier, but in its range
    assert flagged(judge_scans(table)) == {5: False}
    table = planted(table, 9, volume_0=0.2, volume_1=0.2, volume_2=20.0)
    judged = judge_scans(table)
    assert flagged(judged) == {5: False, 9: True}
    assert judged.scans["n_failed_labels"].iloc[9] == 3


def test_few_scans_are_judged_by_their_ranges_alone() -> None:
    table = planted(table_of(FEWEST - 1), 2, noise=0.3, snr=25)
    judged = judge_scans(table)
    assert flagged(judged) == {2: True}
    assert judged.metrics["robust_z"].isna().all()
    assert not judged.metrics["check"].isin((SCORE, ORTHOGONAL)).any()
    assert judged.notes == (
        "7 scans are not compared, since fewer than 8 are of their kind (one): the reference "
        "ranges alone judge them.",
    )


def test_scans_are_compared_with_their_kind_alone() -> None:
    """Another protocol with three times the noise is not an outlier; the same in the first is."""
    other = table_of(30, seed=1, kind="two")
    other.loc[other["check"] == "noise", "value"] *= 3
    both = pd.concat([planted(table_of(60), 4, noise=0.06), other], ignore_index=True)
    judged = judge_scans(both)
    assert flagged(judged) == {4: False}
    assert judged.scans["n_comparable"].tolist() == [60] * 60 + [30] * 30


def test_what_was_not_measured_is_no_reason() -> None:
    table = planted(table_of(40), 0)
    gone = (table["series"] == "sub-one002") & (table["check"] == "residual")
    table.loc[gone, ["value", "passed"]] = [np.nan, None]
    table = table[~((table["series"] == "sub-one003") & (table["atlas"] == "A"))]
    judged = judge_scans(table)
    assert flagged(judged) == {}
    assert judged.metrics.query("check == 'residual'")["n_comparable"].eq(39).all()
    assert judged.metrics.query("check == 'volume 1'")["n_comparable"].eq(39).all()


def test_half_of_one_value_leaves_the_range_to_judge() -> None:
    table = table_of(40)
    table.loc[table["check"] == "noise", "value"] = 0.0
    judged = judge_scans(planted(planted(table, 1, noise=0.01), 2, noise=0.2))
    assert flagged(judged) == {2: True}


@pytest.mark.parametrize("n", [12, 40, 200])
def test_usual_scans_are_seldom_flagged(n) -> None:
    judged = [judge_scans(table_of(n, seed=seed)) for seed in range(200 // n + 1)]
    assert np.mean(np.concatenate([j.scans["is_flagged"] for j in judged])) < 0.025
    assert not any(j.scans["is_proposed"].any() for j in judged)
