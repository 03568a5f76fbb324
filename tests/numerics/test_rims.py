"""Paramagnetic rims of lesions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.numerics.rims import HYPERINTENSE, ISOINTENSE, shells

VOXEL_MM = (1.0, 1.0, 2.0)
PARTS = (2, 2, 4)
SHAPE = (30, 30, 16)


def binned(fine) -> np.ndarray:
    x, y, z = SHAPE
    return fine.reshape(x, PARTS[0], y, PARTS[1], z, PARTS[2]).mean(axis=(1, 3, 5))


def lesion(rng, rim_ppm, *, core_ppm=0.01, noise_ppm=0.01, border_sd_mm=0.5):
    """Map and label of an ellipsoid; a rim is open to one side, FLAIR's border is off a little."""
    radii = rng.uniform(3.0, 5.5, 3)
    centre = np.array(SHAPE) * VOXEL_MM / 2 + rng.uniform(-0.5, 0.5, 3)
    lines = np.ix_(
        *(
            (np.arange(n * p) + 0.5) * v / p - c
            for n, p, v, c in zip(SHAPE, PARTS, VOXEL_MM, centre, strict=True)
        )
    )

    def within(r, shift=(0.0, 0.0, 0.0)):
        return sum(((a - s) / k) ** 2 for a, s, k in zip(lines, shift, r, strict=True)) < 1

    chi = np.where(within(radii), core_ppm, -0.03)
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    along = sum(a * d for a, d in zip(lines, direction, strict=True))
    closed = along > -0.6 * np.sqrt(sum(a**2 for a in lines))
    chi += rim_ppm * (within(radii) & ~within(radii - 1) & closed)
    error = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 0.6)
    values = ndimage.gaussian_filter(binned(chi), (0.55, 0.55, 0.35))
    values += noise_ppm / error.std() * error
    drawn = within(radii + rng.normal(0, border_sd_mm), rng.normal(0, border_sd_mm / 2, 3))
    return values.astype(np.float32), (binned(drawn) > 0.5).astype(np.int16)


def scored(chi, labels, **options):
    return shells(chi, labels, np.ones(SHAPE, bool), VOXEL_MM, **options).table()


def test_lesions_with_a_rim_are_told_from_those_without():
    rng = np.random.default_rng(4)
    tables = [scored(*lesion(rng, rim)) for rim in [0.07, 0.0] * 16]
    score = np.array([table.loc[0, "score"] for table in tables])
    with_rim, without = score[::2], score[1::2]
    area = (with_rim[:, None] > without).mean()
    assert area > 0.95
    assert (with_rim >= 0.5).mean() > 0.85 and (without < 0.5).mean() > 0.9
    has_rim = [table.loc[0, "has_rim"] for table in tables]
    assert has_rim == (score >= 0.5).tolist()


def test_the_values_are_those_of_the_shells():
    rng = np.random.default_rng(1)
    quiet = {"noise_ppm": 1e-6, "border_sd_mm": 0.0}
    plain = scored(*lesion(rng, 0.0, **quiet)).iloc[0]
    assert plain["outside_ppm"] == pytest.approx(-0.03, abs=0.002)
    assert plain["core_ppm"] == pytest.approx(0.01, abs=0.003)
    assert plain["core_type"] == HYPERINTENSE and plain["coverage"] == 0
    rimmed = scored(*lesion(rng, 0.08, core_ppm=-0.03, **quiet)).iloc[0]
    assert rimmed["core_type"] == ISOINTENSE
    assert rimmed["rim_to_core_ppm"] == pytest.approx(
        rimmed["rim_ppm"] - rimmed["core_ppm"], abs=1e-9
    )
    assert rimmed["rim_offset_mm"] < 0 < rimmed["rim_to_outside_ppm"]
    # the cap of the rim that is open: a fifth of the directions
    assert 0.6 < rimmed["coverage"] <= 1.0


def test_small_lesions_veins_and_nothing():
    rng = np.random.default_rng(2)
    chi, labels = lesion(rng, 0.08)
    small = np.zeros_like(labels)
    small[14:16, 14:17, 8] = 3
    table = scored(chi, small)
    assert table["index"].tolist() == [3] and np.isnan(table.loc[0, "score"])
    assert table.loc[0, "has_rim"] is None and table.loc[0, "core_type"] is None
    assert len(scored(chi, np.zeros_like(labels))) == 0
    unknown = shells(chi, labels, np.zeros(SHAPE, bool), VOXEL_MM).table()
    assert np.isnan(unknown.loc[0, "score"])
    # a vein that is left out does not change the score
    vein = np.zeros(SHAPE, bool)
    vein[15, 3:27, 8] = True
    with_vein = np.where(vein, np.float32(0.3), chi)
    known = shells(with_vein, labels, np.ones(SHAPE, bool), VOXEL_MM, vein).table()
    clean = shells(chi, labels, np.ones(SHAPE, bool), VOXEL_MM, vein).table()
    assert known.loc[0, "score"] == clean.loc[0, "score"]
