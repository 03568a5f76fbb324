from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_qsm.statistics.icc import icc
from bids_qsm.statistics.reliability import by_label, reliability, voxel_reliability

# Bland & Altman 1986, 10.1016/S0140-6736(86)90837-8: the large meter, twice
FIRST = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
SECOND = [490, 397, 512, 401, 470, 611, 415, 431, 638, 429, 420, 633, 275, 492, 165, 372, 421]


def tidy(values: np.ndarray, names: list[str] | None = None) -> pd.DataFrame:
    """Rows for values of shape (subjects, sessions, structures)."""
    subject, session, structure = np.indices(values.shape).reshape(3, -1)
    names = names or [f"part-{i}" for i in range(values.shape[2])]
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{i:03d}" for i in subject],
            "session_id": [f"ses-{i}" for i in session],
            "name": np.array(names)[structure],
            "measure": "Chimap",
            "units": "ppm",
            "mean": values.ravel(),
        }
    )


@pytest.fixture
def scans(rng) -> np.ndarray:
    truth = np.array([0.1, 0.05, 0.0]) + 0.02 * rng.normal(size=(30, 1, 3))
    return truth + 0.003 * rng.normal(size=(30, 2, 3))


def test_peak_flow_as_published() -> None:
    values = np.array([FIRST, SECOND], float).T[:, :, None]
    row = reliability(tidy(values)).table.iloc[0]
    # published: SD of differences 21.6 about zero
    assert row["sd_within"] * np.sqrt(2) == pytest.approx(21.6, abs=0.06)
    assert row["smallest_detectable_change"] == pytest.approx(1.96 * 21.64, abs=0.05)
    difference = np.array(SECOND) - np.array(FIRST)
    mean = (np.array(SECOND) + np.array(FIRST)) / 2
    assert row["mad"] == pytest.approx(np.abs(difference).mean())
    assert row["mad_percent"] == pytest.approx(100 * np.mean(np.abs(difference) / mean))
    assert row["mad_percent_of_mean"] == pytest.approx(100 * row["mad"] / mean.mean())
    assert row["cv_percent"] == pytest.approx(100 * row["sd_within"] / mean.mean())
    assert row["bias"] == pytest.approx(difference.mean())


def test_icc_of_each_structure(scans) -> None:
    scans[4, 1, 1] = np.nan
    found = reliability(tidy(scans)).table
    assert found["n"].tolist() == [30, 29, 30]
    assert found["n_left_out"].tolist() == [0, 1, 0]
    for where, kind in enumerate(("1_1", "2_1", "3_1")):
        one = icc(scans[:, :, 1]).iloc[where]
        row = found.iloc[1][[f"icc_{kind}", f"icc_{kind}_low", f"icc_{kind}_high"]]
        np.testing.assert_allclose(row.astype(float), one[["icc", "icc_low", "icc_high"]].tolist())


def test_noise_that_is_known_comes_back(rng) -> None:
    values = 0.1 + 0.03 * rng.normal(size=(850, 1, 4)) + 0.004 * rng.normal(size=(850, 3, 4))
    found = reliability(tidy(values)).table
    assert found["sessions"].unique() == ["ses-0, ses-1, ses-2"]
    np.testing.assert_allclose(found["sd_within"], 0.004, rtol=0.04)
    np.testing.assert_allclose(found["icc_2_1"], 0.03**2 / (0.03**2 + 0.004**2), atol=0.004)
    # E|d| of normal errors, over all pairs of sessions
    np.testing.assert_allclose(found["mad"], 2 * 0.004 / np.sqrt(np.pi), rtol=0.05)
    assert "bias" not in found


def test_percentages_scale_away_and_units_do_not(scans) -> None:
    one, other = reliability(tidy(scans)).table, reliability(tidy(1000 * scans)).table
    for column in ("mad_percent", "cv_percent", "icc_2_1", "n_near_zero"):
        np.testing.assert_allclose(other[column], one[column], rtol=1e-9)
    for column in ("mad", "sd_within", "loa_upper_high", "smallest_detectable_change_low"):
        np.testing.assert_allclose(other[column], 1000 * one[column], rtol=1e-9)


def test_means_near_zero_give_no_percentage(scans) -> None:
    scans[:, :, 2] -= scans[:, :, 2].mean()
    row = reliability(tidy(scans)).table.iloc[2]
    centre = scans[:, :, 2].mean(axis=1)
    assert row["n_near_zero"] == np.sum(np.abs(centre) <= 1.96 * row["sd_within"] / np.sqrt(2))
    assert row["n_near_zero"] > 0
    assert np.isnan(row["mad_percent_of_mean"])
    assert np.isnan(row["cv_percent"])
    strict = reliability(tidy(scans), least_mean=10.0).table.iloc[2]
    assert strict["n_near_zero"] == 30
    assert np.isnan(strict["mad_percent"])


def test_the_order_of_sessions_turns_the_bias(scans) -> None:
    one = reliability(tidy(scans), ["ses-0", "ses-1"]).table
    other = reliability(tidy(scans), ["ses-1", "ses-0"]).table
    np.testing.assert_allclose(other["bias"], -one["bias"])
    np.testing.assert_allclose(other["icc_2_1"], one["icc_2_1"])


def test_constant_and_absent_structures_are_noted(scans) -> None:
    scans[:, :, 1] = 0.2
    scans[1:, 1, 2] = np.nan
    found = reliability(tidy(scans)).table
    assert found["note"].tolist() == [
        "",
        "all values are equal",
        "fewer than two subjects with all sessions",
    ]
    assert np.isnan(found["icc_2_1"][1])
    assert found["sd_within"][1] == 0
    assert np.isnan(found["bias"][2])


def test_one_subject_is_refused(scans) -> None:
    with pytest.raises(ValueError, match=r"two subjects or more .* ses-0, ses-1; there are 1"):
        reliability(tidy(scans[:1]))
    with pytest.raises(ValueError, match="give a share such as"):
        reliability(tidy(scans), confidence=95)


def test_voxels_equal_structures(scans, tmp_path) -> None:
    scans[3, 0, 1] = np.nan
    scans = scans.astype(np.float32)
    path = tmp_path / "first.npy"
    np.save(path, scans[:, 0])
    first = np.load(path, mmap_mode="r")
    maps = voxel_reliability(first, scans[:, 1])
    table = reliability(tidy(scans)).table
    for name in ("mean", "bias", "mad", "mad_percent", "sd_within", "icc_2_1", "icc_3_1"):
        np.testing.assert_allclose(getattr(maps, name), table[name], rtol=2e-5, err_msg=name)
        assert getattr(maps, name).dtype == np.float32
    for name in ("n", "n_near_zero"):
        np.testing.assert_array_equal(getattr(maps, name), table[name])


def test_blocks_change_nothing(rng) -> None:
    first, second = rng.normal(size=(2, 4000, 50)).astype(np.float32)
    whole, blocks = (voxel_reliability(first, second, block_mib=m) for m in (64, 1))
    for name in ("mad", "icc_2_1", "n_near_zero"):
        np.testing.assert_allclose(getattr(blocks, name), getattr(whole, name), rtol=1e-5)


def test_voxels_are_averaged_by_label(rng) -> None:
    truth = np.repeat([100.0, 0.0], 500)
    first, second = (truth + rng.normal(0, 5, (20, 1000)) for _ in range(2))
    first[:, 7] = np.nan
    maps = voxel_reliability(first, second)
    structures = pd.DataFrame({"index": [2, 1, 9], "name": ["White", "Pallidum", "None"]})
    found = by_label(maps, np.repeat([1, 2], 500), structures)
    assert found["name"].tolist() == ["White", "Pallidum", "None"]
    assert found["n_voxels"].tolist() == [500, 499, 0]
    np.testing.assert_allclose(found["mad"][:2], 2 * 5 / np.sqrt(np.pi), rtol=0.03)
    np.testing.assert_allclose(found["sd_within"][:2], 5, rtol=0.03)
    assert found["mad_percent"][1] == pytest.approx(200 / np.sqrt(np.pi) * 0.05, rel=0.03)
    assert found["share_near_zero"][1] == 0
    assert found["share_near_zero"][0] > 0.9
    assert np.isnan(found["mad"][2])
    keep = np.arange(500) != 7
    expected = np.abs(second - first)[:, :500][:, keep].mean()
    assert found["mad"][1] == pytest.approx(expected, rel=1e-6)


def test_voxel_stacks_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="of one shape"):
        voxel_reliability(np.zeros((3, 4)), np.zeros((3, 5)))
    with pytest.raises(ValueError, match="two subjects or more; there is 1"):
        voxel_reliability(np.zeros((1, 4)), np.zeros((1, 4)))
    maps = voxel_reliability(np.ones((3, 4)), np.ones((3, 4)))
    with pytest.raises(ValueError, match="5 labels for 4 voxels"):
        by_label(maps, np.ones(5, int), pd.DataFrame({"index": [1]}))
