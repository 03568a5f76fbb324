"""Lesions in several scans: matched, measured in one region, and their change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bids_qsm.numerics.lesion_regions import LesionScan, match_lesions, region_shares
from bids_qsm.numerics.lesion_tracking import same_region, with_changes

SHAPE = (44, 40, 30)
VOXEL_MM = np.array([1.0, 1.0, 1.4])
BIG, SMALL = (np.array([16.0, 18.0, 20.0]), 6.0), (np.array([31.0, 20.0, 22.0]), 4.0)


def _pose(degrees: float, shift) -> np.ndarray:
    """Return a turn about the middle and a shift: where a point of the first scan has moved."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    pose = np.eye(4)
    pose[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    middle = np.array([22.0, 20.0, 21.0])
    pose[:3, 3] = middle - pose[:3, :3] @ middle + shift
    return pose


def _scan(pose: np.ndarray, lesions, *, shape=SHAPE, noise: float = 0.0, seed: int = 1):
    """Simulate a scan of balls (centre, radius, ppm, label) as the means of fine samples."""
    affine = np.diag([*VOXEL_MM, 1.0])
    chi = np.zeros(shape)
    labels = np.zeros(shape, np.int16)
    offsets = (np.arange(4) + 0.5) / 4 - 0.5
    for centre, radius, ppm, label in lesions:
        moved = pose[:3, :3] @ centre + pose[:3, 3]
        # a voxel's samples stand side by side
        lines = [
            (np.arange(n)[:, None] + offsets).ravel() * v - c
            for n, v, c in zip(shape, VOXEL_MM, moved, strict=True)
        ]
        x, y, z = np.ix_(*lines)
        inside = (x**2 + y**2 + z**2 < radius**2).astype(np.float32)
        blocks = inside.reshape([k for n in shape for k in (n, 4)])
        share = blocks.mean(axis=(1, 3, 5))
        chi += ppm * share
        labels[share > 0.5] = label
    chi += np.random.default_rng(seed).normal(0, noise, shape) if noise else 0
    return LesionScan(
        labels, chi.astype(np.float32), np.full(shape, 30, np.float32), np.ones(shape, bool),
        affine, np.linalg.inv(pose),
    )  # fmt: skip


@pytest.fixture(scope="module")
def three() -> list[LesionScan]:
    """The big one gains 8 % a year; the small one stays; the head lies elsewhere each time."""
    scans = []
    for year, pose in enumerate(
        (np.eye(4), _pose(4, (1.3, -0.6, 0.4)), _pose(-5, (-0.7, 1.1, -0.9)))
    ):
        lesions = [(*BIG, 0.4 * (1 + 0.08 * year), 1), (*SMALL, 0.3, 2)]
        scans.append(_scan(pose, lesions))
    return scans


def test_change_is_that_of_the_truth_whatever_the_position(three) -> None:
    table = same_region(three, [0.0, 1.0, 2.0]).table.set_index(["lesion", "scan"])
    assert table.loc[(1, 1), "change_percent"] == pytest.approx(8.0, abs=0.9)
    assert table.loc[(1, 1), "moment_change_percent"] == pytest.approx(8.0, abs=0.2)
    assert table.loc[(1, 2), "total_change_percent"] == pytest.approx(16.0, abs=0.9)
    assert table.loc[(1, 2), "change_percent"] == pytest.approx(100 * 0.08 / 1.08, abs=0.9)
    for scan in (1, 2):
        assert table.loc[(2, scan), "change_percent"] == pytest.approx(0.0, abs=0.8)
        assert table.loc[(2, scan), "moment_change_percent"] == pytest.approx(0.0, abs=1.0)
    flags = table["exceeds_threshold"]
    assert pd.isna(flags[1, 0]) and flags[1, 1] is True and flags[2, 1] is False


def test_values_are_those_of_the_balls(three) -> None:
    table = same_region(three, [0.0, 1.0, 2.0]).table.set_index(["lesion", "scan"])
    row = table.loc[(1, 0)]
    volume = 4 / 3 * np.pi * BIG[1] ** 3
    assert row["region_mm3"] == pytest.approx(volume, rel=0.06)
    assert row["own_volume_mm3"] == pytest.approx(volume, rel=0.03)
    assert row["moment_ppm_mm3"] == pytest.approx(0.4 * volume, rel=0.01)
    assert row["chi_ppm_p99"] == pytest.approx(0.4, abs=1e-3)
    assert row["chi_ppm_around"] == pytest.approx(0.0, abs=1e-6)
    assert row["r2star_per_s_mean"] == pytest.approx(30.0)
    # where it is in that session's own world
    for scan, of in enumerate(three):
        expected = np.linalg.inv(of.to_common) @ (*BIG[0], 1.0)
        found = table.loc[(1, scan), ["x_mm", "y_mm", "z_mm"]].to_numpy(float)
        np.testing.assert_allclose(found, expected[:3], atol=0.15)


def test_no_scan_is_favoured(three) -> None:
    """The order of the scans, and so whose world is common, changes no value."""
    forward = same_region(three, [0.0, 1.0, 2.0]).table
    back = [replace(s, to_common=three[2].to_common @ np.linalg.inv(three[2].to_common)
                    if s is three[2] else np.linalg.inv(three[2].to_common) @ s.to_common)
            for s in reversed(three)]  # fmt: skip
    backward = same_region(back, [0.0, 1.0, 2.0]).table
    one = forward.pivot(index="lesion", columns="scan", values="chi_ppm_mean").to_numpy()
    two = backward.pivot(index="lesion", columns="scan", values="chi_ppm_mean").to_numpy()
    np.testing.assert_allclose(one, two[:, ::-1], rtol=0.012)


def test_shares_add_up_to_the_region(three) -> None:
    tracked = same_region(three, [0.0, 1.0, 2.0])
    for scan in three:
        box, share = region_shares(tracked.regions[1], scan)
        assert share.sum() * np.prod(VOXEL_MM) == pytest.approx(
            tracked.regions[1].volume_mm3, rel=0.01
        )
        assert share.shape == scan.labels[box].shape


def test_new_and_vanished_lesions_are_measured_everywhere() -> None:
    first = _scan(np.eye(4), [(*BIG, 0.4, 3)])
    second = _scan(_pose(3, (0.5, 0, 0)), [(*SMALL, 0.5, 1)])
    assert match_lesions([first, second]) == {1: ((0, 3),), 2: ((1, 1),)}
    table = same_region([first, second], [np.nan, np.nan]).table.set_index(["lesion", "scan"])
    assert table["state"].to_dict() == {
        (1, 0): "found", (1, 1): "not found", (2, 0): "not found", (2, 1): "found",
    }  # fmt: skip
    assert abs(table.loc[(2, 0), "chi_ppm_mean"]) < 0.01
    assert table.loc[(2, 1), "chi_ppm_mean"] > 0.35
    assert table.loc[(1, 1), "change_percent"] == pytest.approx(-100, abs=2)
    assert table.loc[(1, 1), "own_volume_mm3"] == 0
    assert table["change_percent_per_year"].isna().all()


def test_a_lesion_that_falls_apart_stays_one() -> None:
    whole = _scan(np.eye(4), [(*BIG, 0.4, 1)])
    parted = replace(whole, labels=whole.labels.copy())
    x = np.arange(SHAPE[0])[:, None, None]
    parted.labels[(parted.labels > 0) & (x > 17)] = 2
    parted.labels[np.broadcast_to(x == 16, SHAPE)] = 0
    assert match_lesions([whole, parted]) == {1: ((0, 1), (1, 1), (1, 2))}


def test_a_lesion_outside_the_field_of_view_has_no_value() -> None:
    whole = _scan(np.eye(4), [(*BIG, 0.4, 1), (*SMALL, 0.3, 2)])
    # the second scan ends before the small one
    cut = _scan(np.eye(4), [(*BIG, 0.44, 1)], shape=(26, 40, 30))
    table = same_region([whole, cut, whole], [0, 1, 2]).table.set_index(["lesion", "scan"])
    assert table.loc[(2, 1), "state"] == "outside"
    assert table.loc[(2, 1), "coverage"] == 0.0
    assert np.isnan(table.loc[(2, 1), "chi_ppm_mean"])
    assert np.isnan(table.loc[(2, 1), "own_volume_mm3"])
    assert pd.isna(table.loc[(2, 1), "exceeds_threshold"])
    # the next change is since the last value
    assert table.loc[(2, 2), "change_percent"] == pytest.approx(0.0, abs=1e-6)
    assert table.loc[(2, 2), "change_percent_per_year"] == pytest.approx(0.0, abs=1e-6)
    assert table.loc[(1, 1), "change_percent"] == pytest.approx(10.0, abs=0.5)


def test_nothing_to_follow_and_a_single_scan() -> None:
    empty = _scan(np.eye(4), [])
    tracked = same_region([empty, empty], [0.0, 1.0])
    assert tracked.table.empty and tracked.regions == {}
    assert "change_percent" in tracked.table
    assert not tracked.labels[0].any()
    alone = same_region([_scan(np.eye(4), [(*BIG, 0.4, 1)])], [0.0]).table
    assert len(alone) == 1 and alone["change_percent"].isna().all()


def test_the_threshold_counts_rises_from_scan_to_scan() -> None:
    table = pd.DataFrame(
        {
            "lesion": [1, 1, 1, 1],
            "chi_ppm_mean": [0.5, 0.53, 0.54, 0.5],
            "years": [0.0, 0.5, 2.5, 2.5],
        }
    )
    found = with_changes(table.assign(chi_ppm_around=[0.0, 0.03, 0.03, 0.03]), 6.0)
    assert found["contrast_change_percent"].tolist()[1:3] == pytest.approx([0.0, 2.0])
    assert found["exceeds_threshold"].tolist()[1:] == [True, False, False]
    assert found["change_percent_per_year"].tolist()[1:3] == pytest.approx([12.0, 0.943396])
    assert np.isnan(found["change_percent_per_year"].iloc[3])  # no time between
    assert found["total_change_percent"].iloc[2] == pytest.approx(8.0)
    assert with_changes(table, 1.5)["exceeds_threshold"].tolist()[2] is True
