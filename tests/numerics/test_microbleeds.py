"""Microbleeds and calcifications: found, told from vessels, and measured at any echo time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.field import nonlinear
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    Geometry,
    crop,
    dipole_kernel,
    hz_per_ppm,
    pad,
    padded_geometry,
)
from bids_qsm.numerics.inversion.tv import tv
from bids_qsm.numerics.microbleeds import BLEED, CALCIFICATION, compact_sources
from bids_qsm.numerics.unwrapping import romeo
from bids_qsm.phantom.field import field_ppm
from bids_qsm.phantom.signal import sampled_echo

GEOMETRY = Geometry((52, 48, 40), (1.0, 1.0, 1.0))


def local_of(chi, mask, geometry=GEOMETRY) -> FieldMap:
    padded = padded_geometry(geometry, (24, 24, 24))
    field = crop(convolve(pad(chi, padded.shape), dipole_kernel(padded)), geometry.shape)
    noise = np.where(mask, np.float32(0.004), np.float32(np.inf))
    return FieldMap(field, noise, np.ones(geometry.shape, np.float32), mask, geometry)


@pytest.fixture(scope="module")
def scene():
    """White matter with a bleed, a calcification, a vessel and a nucleus, and its local field."""
    rng = np.random.default_rng(5)
    x, y, z = np.ix_(*(np.arange(n, dtype=np.float32) for n in GEOMETRY.shape))

    def ellipsoid(centre, radii):
        parts = zip((x, y, z), centre, radii, strict=True)
        return sum(((a - c) / r) ** 2 for a, c, r in parts) < 1

    chi = np.zeros(GEOMETRY.shape, np.float32)
    chi[ellipsoid((14, 14, 20), (2.2, 2.2, 2.2))] = 0.8
    chi[ellipsoid((36, 34, 20), (2.05, 2.05, 2.05))] = -0.6
    path = (x - 36 - 2 * np.sin(z / 9)) ** 2 + (y - 14) ** 2
    chi[np.broadcast_to(path < 1.5**2, chi.shape)] = 0.35
    nucleus = ellipsoid((16, 34, 20), (3.5, 3.5, 4.0))
    chi[nucleus] = 0.15
    chi = ndimage.gaussian_filter(chi, 0.7)
    mask = np.zeros(GEOMETRY.shape, bool)
    mask[3:-3, 3:-3, 3:-3] = True
    local = local_of(chi, mask)
    error = ndimage.gaussian_filter(rng.standard_normal(GEOMETRY.shape), 0.6)
    seen = chi + np.float32(0.008 / error.std()) * error.astype(np.float32)
    return local, seen, nucleus


def near(table, place) -> np.ndarray:
    away = np.abs(table[["i", "j", "k"]].to_numpy() - np.array(place))
    return away.max(axis=1) < 3


def test_a_bleed_and_a_calcification_are_found_and_a_vessel_is_not(scene):
    local, chi, nucleus = scene
    found = compact_sources(local, chi, None, nucleus)
    table = found.table()
    assert table["kind"].tolist() in ([BLEED, CALCIFICATION], [CALCIFICATION, BLEED])
    rows = table.set_index("kind")
    for kind, place, moment in (
        (BLEED, (14, 14, 20), 0.8 * 33),
        (CALCIFICATION, (36, 34, 20), -0.6 * 33),
    ):
        row = rows.loc[kind]
        assert row[["i", "j", "k"]].to_numpy(float) == pytest.approx(place, abs=0.3)
        assert row["moment_ppm_mm3"] == pytest.approx(moment, rel=0.1)
        assert row["dipole_ppm_mm3"] == pytest.approx(moment, rel=0.15)
        assert row["confidence"] > 0.8 and row["saddle"] < 0.2
        assert found.labels[place] == row["index"]
    assert set(np.unique(found.labels)) == {0, 1, 2}


def test_a_nucleus_counts_only_where_no_atlas_names_it(scene):
    local, chi, nucleus = scene
    plain = compact_sources(local, chi).table()
    at_nucleus = near(plain, (16, 34, 20))
    assert at_nucleus.sum() == 1
    known = compact_sources(local, chi, None, nucleus, least_confidence=0.01).table()
    at_nucleus = near(known, (16, 34, 20))
    assert (known.loc[at_nucleus, "confidence"] < 0.1).all()


def test_signs_turn_with_the_map(scene):
    local, chi, nucleus = scene
    turned = replace(local, field_ppm=-local.field_ppm)
    table = compact_sources(local, chi, None, nucleus, least_confidence=0.8).table()
    other = compact_sources(turned, -chi, None, nucleus, least_confidence=0.8).table()
    assert sorted(-other["moment_ppm_mm3"]) == pytest.approx(sorted(table["moment_ppm_mm3"]))


def test_a_void_at_the_edge_is_measured_by_the_total_field(scene):
    local, _, _ = scene
    source = np.zeros(GEOMETRY.shape, np.float32)
    x, y, z = np.ix_(*(np.arange(n) for n in GEOMETRY.shape))
    near = (x - 26) ** 2 + (y - 24) ** 2 + (z - 35) ** 2
    source[near < 2.5**2] = 1.0
    moment = float(source.sum())
    mask = local.mask & (near > 4.5**2)
    background = 0.2 + 0.01 * (x - 26) + 0.03 * (z - 20) + 0.001 * (z - 20) * (y - 20)
    total = (local_of(source, mask).field_ppm + background).astype(np.float32)
    # background removal has taken the field of a source outside the mask away
    empty = local_of(np.zeros_like(source), mask)
    flat = np.zeros_like(source)
    table = compact_sources(empty, flat, total).table()
    assert len(table) == 1 and table.loc[0, "at_edge"] == 1
    assert table.loc[0, ["i", "j", "k"]].to_numpy(float) == pytest.approx((26, 24, 35), abs=0.3)
    assert table.loc[0, "moment_ppm_mm3"] == pytest.approx(moment, rel=0.05)
    assert len(compact_sources(empty, flat, total, edge_voids=False).table()) == 0
    assert len(compact_sources(empty, flat).table()) == 0


def test_nothing_is_found_in_nothing():
    mask = np.zeros(GEOMETRY.shape, bool)
    chi = np.zeros(GEOMETRY.shape, np.float32)
    found = compact_sources(local_of(chi, mask), chi)
    assert len(found.table()) == 0 and not found.labels.any()
    mask[5:-5, 5:-5, 5:-5] = True
    assert len(compact_sources(local_of(chi, mask), chi).table()) == 0


@pytest.fixture(scope="module")
def bleed_at_two_echo_times():
    """One bleed (4 mm, 1 ppm) acquired with early and with late echoes.

    Of each: the void's volume in the last magnitude, and the table of the bleeds found.
    """
    blocks, n = (3, 3, 3), 32
    voxel = 1 / 3
    fine = Geometry((3 * n,) * 3, (voxel,) * 3)
    axes = np.ix_(*((np.arange(3 * n) - 1.5 * n + 0.5) * voxel,) * 3)
    inside = sum(a**2 for a in axes) < 2.0**2
    chi = inside.astype(np.float32)
    b0_t = 3.0
    field_hz = field_ppm(chi, fine, 0.0) * np.float32(hz_per_ppm(b0_t))
    labels = np.zeros(fine.shape, np.int16)
    r2star = np.where(inside, np.float32(150), np.float32(20))
    geometry = Geometry((n,) * 3, (1.0,) * 3)
    mask = np.zeros(geometry.shape, bool)
    mask[2:-2, 2:-2, 2:-2] = True
    rng = np.random.default_rng(2)
    results = []
    for te_s in ((0.003, 0.006, 0.009), (0.010, 0.020, 0.030)):
        amplitude = np.ones(1, np.float32)
        echoes = [sampled_echo(labels, r2star, field_hz, amplitude, te, blocks) for te in te_s]
        signal = np.stack(echoes, axis=-1)
        noise = rng.standard_normal((2, *signal.shape)) / 80
        signal = (signal + noise[0] + 1j * noise[1]).astype(np.complex64)
        phase, magnitude = np.angle(signal).astype(np.float32), np.abs(signal)
        unwrapped = romeo(phase.copy(), magnitude, np.array(te_s), mask)
        fitted = nonlinear(unwrapped, magnitude, np.array(te_s), mask, geometry)
        scale = np.float32(1 / hz_per_ppm(b0_t))
        known = mask & np.isfinite(fitted.noise_hz)
        combined = np.sqrt((magnitude**2).sum(axis=-1))
        local = FieldMap(
            np.where(known, fitted.field_hz * scale, 0).astype(np.float32),
            np.where(known, fitted.noise_hz * scale, np.inf).astype(np.float32),
            combined,
            mask,
            geometry,
        )
        chi_ppm = tv(local, max_iterations=12, margin_mm=8.0)
        last = magnitude[..., -1]
        void = mask & (last < 0.7 * np.median(last[mask]))
        results.append((int(void.sum()), compact_sources(local, chi_ppm).table()))
    return float(chi.sum()) * voxel**3, results


def test_the_moment_does_not_depend_on_the_echo_time_as_the_void_does(bleed_at_two_echo_times):
    moment, ((early_void, early), (late_void, late)) = bleed_at_two_echo_times
    assert late_void > 2 * early_void
    for table in (early, late):
        assert table["kind"].tolist() == [BLEED]
        assert table.loc[0, "moment_ppm_mm3"] == pytest.approx(moment, rel=0.06)
        assert table.loc[0, "dipole_ppm_mm3"] == pytest.approx(moment, rel=0.12)
    ratio = late.loc[0, "moment_ppm_mm3"] / early.loc[0, "moment_ppm_mm3"]
    assert ratio == pytest.approx(1.0, abs=0.03)
