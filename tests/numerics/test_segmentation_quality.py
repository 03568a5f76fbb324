"""A made-up brain of balls at about the right places and sizes; then it is broken."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from bids_qsm.numerics.segmentation_quality import (
    Check,
    check_segmentation,
    checks_table,
    failures,
)

VOXEL_MM = 2.0
SHAPE = (44, 50, 36)
AFFINE = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
AFFINE[:3, 3] = (-43.0, -49.0, -35.0)
# name: number, centre on the right (x, y, z), half axes in mm, χ in ppm, R2* in 1/s
BALLS = {
    "lateral ventricle": (4, (8, -16, 22), (6, 22, 6), 0.02, 3.0),
    "thalamus": (10, (12, -18, 6), (9, 13, 11), 0.015, 22.0),
    "caudate": (11, (13, 14, 10), (6, 12, 11), 0.045, 24.0),
    "putamen": (12, (29, 4, 2), (7, 15, 11), 0.055, 27.0),
    "pallidum": (13, (19, -2, 0), (4, 10, 8), 0.125, 42.0),
}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rows = [(b[0], f"Left {name}", "L") for name, b in BALLS.items()]
    rows += [(b[0] + 100, f"Right {name}", "R") for name, b in BALLS.items()]
    return pd.DataFrame(rows, columns=["index", "name", "hemisphere"])


@pytest.fixture(scope="module")
def head() -> dict[str, np.ndarray]:
    """Labels, and maps that fit them."""
    x, y, z = (AFFINE[i, i] * g + AFFINE[i, 3] for i, g in enumerate(np.indices(SHAPE)))
    labels = np.zeros(SHAPE, np.int16)
    chi = np.full(SHAPE, -0.03, np.float32)
    r2star = np.full(SHAPE, 21.0, np.float32)
    for number, centre, axes, chi_ppm, r2star_per_s in BALLS.values():
        for side, offset in ((-1, 0), (1, 100)):
            distance = sum(
                ((g - c) / a) ** 2
                for g, c, a in zip((x, y, z), (side * centre[0], *centre[1:]), axes, strict=True)
            )
            ball = distance < 1
            labels[ball], chi[ball], r2star[ball] = number + offset, chi_ppm, r2star_per_s
    fluid = np.isin(labels, (4, 104)).astype(np.float32)
    brain = ndimage.distance_transform_edt(labels == 0) < 5
    return {"labels": labels, "chi": chi, "r2star": r2star, "fluid": fluid, "brain": brain}


def checked(head: dict[str, np.ndarray], table: pd.DataFrame, labels=None, **changes):
    maps = {
        "chi_ppm": head["chi"],
        "r2star_per_s": head["r2star"],
        "fluid": head["fluid"],
        "valid": np.ones(SHAPE, bool),
        "brain": head["brain"],
        "t1w_brain": head["brain"],
    }
    labels = head["labels"] if labels is None else labels
    return check_segmentation(labels, table, AFFINE, **{**maps, **changes})


def failed(checks: tuple[Check, ...]) -> set[tuple[str, str, str]]:
    return {(c.check, c.name, c.hemisphere) for c in checks if not c.passed}


def test_true_labels_pass_every_check(head, table):
    checks = checked(head, table)
    assert failures(checks) == ()
    kinds = {c.check for c in checks}
    assert kinds == {
        "volume",
        "share in one piece",
        "voxels at the edge",
        "volume asymmetry",
        "right beyond left",
        "distance to the side",
        "distance to the front",
        "distance up",
        "coverage",
        "χ contrast",
        "χ contrast of the lower quarter",
        "χ of left over right",
        "R2* contrast",
        "R2*",
        "share of fluid",
        "overlap (Dice)",
    }
    contrast = next(c for c in checks if c.check == "χ contrast" and c.hemisphere == "L")
    assert contrast.value == pytest.approx(110, abs=0.1) and contrast.units == "ppb"
    volume = next(c for c in checks if c.check == "volume" and c.name == "pallidum")
    analytic_ml = 4 / 3 * np.pi * 4 * 10 * 8 / 1000
    assert volume.value == pytest.approx(analytic_ml, rel=0.12)


def test_only_labels_are_needed(head, table):
    checks = check_segmentation(head["labels"], table, AFFINE)
    assert checks and failures(checks) == ()
    assert not any("χ" in c.check for c in checks)


def exchanged(labels: np.ndarray, pairs: list[tuple[int, int]]) -> np.ndarray:
    out = labels.copy()
    for a, b in pairs:
        out[labels == a], out[labels == b] = b, a
    return out


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ([(10, 13), (110, 113)], ("χ contrast", "pallidum - thalamus", "L")),
        ([(12, 13), (112, 113)], ("distance to the side", "putamen - pallidum", "R")),
        ([(10, 11), (110, 111)], ("distance to the front", "caudate - thalamus", "L")),
        ([(4, 10)], ("share of fluid", "thalamus", "L")),
        ([(n, n + 100) for n in (4, 10, 11, 12, 13)], ("right beyond left", "putamen", "B")),
    ],
)
def test_exchanged_labels_are_found(head, table, pairs, found):
    assert found in failed(checked(head, table, exchanged(head["labels"], pairs)))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("step_mm", [-8, 8])
def test_shifted_labels_are_found(head, table, axis, step_mm):
    """By the maps alone, and by the T1w's fluid alone."""
    shifted = np.roll(head["labels"], int(step_mm / VOXEL_MM), axis)
    by_chi = {c[0] for c in failed(checked(head, table, shifted, fluid=None, r2star_per_s=None))}
    assert {"χ contrast", "χ contrast of the lower quarter", "χ of left over right"} & by_chi
    by_r2star = {c[0] for c in failed(checked(head, table, shifted, fluid=None, chi_ppm=None))}
    assert axis == 1 or {"R2* contrast", "R2*"} & by_r2star
    by_t1w = failed(checked(head, table, shifted, chi_ppm=None, r2star_per_s=None))
    along_the_ventricles = axis == 1  # where they still hold much fluid
    assert along_the_ventricles or "share of fluid" in {c[0] for c in by_t1w}


@pytest.mark.parametrize(("axis", "kind"), [(0, "right beyond left"), (1, "distance to the front")])
def test_mirrored_labels_are_found(head, table, axis, kind):
    labels = np.ascontiguousarray(np.flip(head["labels"], axis))
    assert kind in {c[0] for c in failed(checked(head, table, labels))}


def test_upside_down_is_found(head, table):
    labels = np.ascontiguousarray(head["labels"][:, :, ::-1])
    assert ("distance up", "caudate - pallidum", "L") in failed(
        check_segmentation(labels, table, AFFINE)
    )


def test_shrunken_labels_are_found(head, table):
    small = np.where(ndimage.binary_erosion(head["labels"] > 0, iterations=2), head["labels"], 0)
    found = failed(check_segmentation(small, table, AFFINE))
    assert {("volume", "pallidum", "L"), ("volume", "thalamus", "R")} <= found
    one_side = np.where(head["labels"] < 100, head["labels"], small)
    assert ("volume asymmetry", "thalamus", "B") in failed(
        check_segmentation(one_side, table, AFFINE)
    )


def test_expected_volumes_follow_the_head(head, table):
    found = failed(check_segmentation(head["labels"], table, AFFINE, head_scale=2.0))
    assert ("volume", "pallidum", "L") in found


def test_lost_cut_scattered_and_unmeasured_structures_are_found(head, table):
    labels = head["labels"].copy()
    labels[labels == 11] = 0
    labels[:2, :, 4:18][labels[:2, :, 4:18] == 0] = 12
    valid = np.ones(SHAPE, bool)
    valid[:, :, :18] = False
    found = failed(checked(head, table, labels, valid=valid))
    assert ("volume", "caudate", "L") in found
    assert ("voxels at the edge", "putamen", "L") in found
    assert ("share in one piece", "putamen", "L") in found
    assert ("coverage", "pallidum", "R") in found


def test_brains_that_do_not_lie_on_each_other_are_found(head, table):
    shifted = np.roll(head["brain"], 8, axis=1)
    checks = checked(head, table, t1w_brain=shifted)
    assert failed(checks) == {("overlap (Dice)", "brain", "B")}
    assert "do not lie on each other" in failures(checks)[0]


def test_map_without_values_fails(head, table):
    chi = np.full(SHAPE, np.nan, np.float32)
    assert ("χ contrast", "pallidum - thalamus", "R") in failed(checked(head, table, chi_ppm=chi))


@pytest.mark.parametrize(
    "names",
    [
        {"pallidum": "GPe"},
        {"pallidum": "Globus pallidus, external", "caudate": "Ca", "putamen": "Pu"},
        {"thalamus": "Thalamus-Proper", "lateral ventricle": "Lateral-Ventricle"},
    ],
)
def test_names_of_other_atlases_are_understood(head, table, names):
    other = table.copy()
    for ours, theirs in names.items():
        other["name"] = other["name"].str.replace(ours, theirs)
    assert {c.name for c in checked(head, other)} == {c.name for c in checked(head, table)}


def test_table_and_sentences(head, table):
    checks = checked(head, table, exchanged(head["labels"], [(10, 13)]))
    rows = checks_table(checks)
    assert len(rows) == len(checks) and rows["passed"].dtype == bool
    assert np.isnan(rows.loc[rows["check"] == "χ contrast", "high"]).all()
    said = " ".join(failures(checks))
    assert "Left pallidum over thalamus: χ contrast -110 ppb, expected at least 40" in said


def test_nothing_known_is_nothing_checked(table):
    unknown = pd.DataFrame({"index": [1], "name": ["Subthalamic nucleus"], "hemisphere": ["L"]})
    assert check_segmentation(np.ones((4, 4, 4), np.int16), unknown, np.eye(4)) == ()
    assert list(checks_table(()).columns) == list(Check.__dataclass_fields__)
