"""The scores, against cases whose value is known."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.geometry import Geometry, dipole_kernel, inverse_fft
from tests.benchmarks import scores

SHAPE, VOXEL = (40, 36, 24), (1.0, 1.0, 2.0)


@pytest.fixture
def truth(rng) -> scores.Truth:
    """A box of brain with four nuclei of 0.05 to 0.2 ppm in noise."""
    mask = np.zeros(SHAPE, bool)
    mask[2:-2, 2:-2, 1:-1] = True
    labels = np.zeros(SHAPE, np.int16)
    chi = 0.01 * rng.standard_normal(SHAPE).astype(np.float32)
    for label, x in zip((11, 12, 50, 51), (10, 15, 20, 25), strict=True):
        labels[x : x + 4, 14:20, 9:14] = label
        chi[labels == label] = 0.003 * label
    return scores.truth_of(chi, mask, labels, (11, 12, 50, 51), Geometry(SHAPE, VOXEL))


def test_core_is_deeper_than_six_millimetres():
    mask = np.ones((20, 21, 22), bool)
    core = scores.core_of(mask, (1.0, 2.0, 3.0))
    # the first voxel's centre is one voxel from the outside; deeper than 6 mm, not 6 mm
    expected = np.zeros_like(mask)
    expected[6:-6, 3:-3, 2:-2] = True
    np.testing.assert_array_equal(core, expected)


def test_a_perfect_map_but_for_its_constant(truth):
    found = scores.score_chi(truth.chi_ppm + np.float32(0.25), truth)
    assert tuple(found) == scores.CHI_SCORES
    assert found["nrmse_core_percent"] == pytest.approx(0, abs=1e-3)
    assert found["nrmse_tissue_percent"] == pytest.approx(0, abs=1e-3)
    assert found["hfen_percent"] == pytest.approx(0, abs=1e-3)
    assert found["xsim"] == pytest.approx(1, abs=1e-5)
    assert found["nuclei_slope"] == pytest.approx(1, abs=1e-5)
    assert found["nuclei_error_ppb"] == pytest.approx(0, abs=1e-3)
    assert found["covered_percent"] == 100


@pytest.mark.parametrize("gain", [0.8, 1.3])
def test_a_map_of_wrong_gain(truth, gain):
    found = scores.score_chi(np.float32(gain) * truth.chi_ppm, truth)
    assert found["nrmse_core_percent"] == pytest.approx(100 * abs(gain - 1), rel=1e-4)
    assert found["nrmse_tissue_percent"] == pytest.approx(100 * abs(gain - 1), rel=1e-4)
    assert found["hfen_percent"] == pytest.approx(100 * abs(gain - 1), rel=1e-4)
    assert found["nuclei_slope"] == pytest.approx(gain, rel=1e-5)
    means = [truth.chi_ppm[truth.labels == label].mean() for label in truth.nuclei]
    expected = 1000 * abs(gain - 1) * np.abs(means - truth.chi_ppm[truth.core].mean()).mean()
    assert found["nuclei_error_ppb"] == pytest.approx(expected, rel=1e-4)


def test_tissue_leaves_out_strong_sources(truth):
    found = truth.chi_ppm.copy()
    chi = truth.chi_ppm.copy()
    chi[20, 18, 16], found[20, 18, 16] = 0.3, 0.0
    mask = scores.core_of(np.ones(SHAPE, bool), VOXEL, 0.5)
    other = scores.truth_of(chi, mask, truth.labels, truth.nuclei, truth.geometry)
    assert scores.nrmse_percent(found, chi, other.tissue) == pytest.approx(0, abs=1e-4)
    assert scores.nrmse_percent(found, chi, other.core) > 5


def test_hfen_of_a_wave_is_that_of_its_gain():
    """A Laplacian of a Gaussian only scales a wave: noise of another wavelength counts by k^2."""
    x = np.arange(96)
    where = np.zeros((96, 9, 9), bool)
    where[:] = True
    slow, fast = (
        np.broadcast_to(np.cos(2 * np.pi * x / n)[:, None, None], where.shape) for n in (32, 16)
    )

    def response(n: float) -> float:
        k = 2 * np.pi / n
        return k**2 * np.exp(-((k * scores.SIGMA_VOXELS) ** 2) / 2)

    found = scores.hfen_percent(slow + 0.1 * fast, slow, where)
    assert found == pytest.approx(10 * response(16) / response(32), rel=0.02)


def test_xsim_against_its_definition_voxel_by_voxel(truth, rng):
    found = truth.chi_ppm + np.float32(0.02) * rng.standard_normal(SHAPE).astype(np.float32)
    a, b = (np.where(truth.core, m - m[truth.core].mean(), 0.0) for m in (found, truth.chi_ppm))
    reach = 5
    axis = np.exp(-0.5 * (np.arange(-reach, reach + 1) / 1.5) ** 2)
    window = axis[:, None, None] * axis[None, :, None] * axis[None, None, :]
    window /= window.sum()
    a, b = np.pad(a, reach, mode="symmetric"), np.pad(b, reach, mode="symmetric")
    values = []
    for x, y, z in np.argwhere(truth.core):
        part = (slice(x, x + 11), slice(y, y + 11), slice(z, z + 11))
        p, q = a[part], b[part]
        mp, mq = (window * p).sum(), (window * q).sum()
        vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
        c = (window * (p - mp) * (q - mq)).sum()
        values.append(
            (2 * mp * mq + 1e-4) * (2 * c + 1e-6) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 1e-6))
        )
    assert scores.xsim(found, truth.chi_ppm, truth.core) == pytest.approx(np.mean(values), rel=1e-5)


def test_nuclei_that_are_too_small_have_no_say(truth):
    labels = truth.labels.copy()
    labels[labels == 51] = 0
    labels[20, 18, 12] = 51
    few = scores.truth_of(truth.chi_ppm, truth.core, labels, (51,), truth.geometry)
    assert np.isnan(scores.nuclei_agreement(truth.chi_ppm, truth.chi_ppm, few)).all()


@pytest.mark.parametrize("direction", [(0.0, 0.0, 1.0), (0.0, 0.6, 0.8)])
def test_streaks_are_errors_on_the_cone(rng, direction):
    """White noise has none; noise on the cone alone has all, off it none of its power there."""
    geometry = Geometry((48, 40, 36), (1.0, 1.2, 1.5), direction)
    where, nil = np.ones(geometry.shape, bool), np.zeros(geometry.shape, np.float32)
    noise = rng.standard_normal(geometry.shape).astype(np.float32)
    assert scores.streak_index(noise, nil, where, geometry) == pytest.approx(1, abs=0.05)
    kernel = dipole_kernel(geometry)
    cone = np.abs(kernel) < 0.1
    spectrum = np.fft.rfftn(noise).astype(np.complex64)
    streaks = inverse_fft(spectrum * cone, geometry.shape)
    others = inverse_fft(spectrum * ~cone, geometry.shape)
    # |1/3 - cos^2| < 0.1 holds on this share of a sphere
    share = np.sqrt(1 / 3 + 0.1) - np.sqrt(1 / 3 - 0.1)
    assert scores.streak_index(streaks, nil, where, geometry) == pytest.approx(1 / share, rel=0.05)
    assert scores.streak_index(others, nil, where, geometry) < 0.01


def test_streak_index_does_not_depend_on_the_error_s_colour(rng):
    geometry = Geometry((48, 48, 48), (1.0, 1.0, 1.0))
    where, nil = np.ones(geometry.shape, bool), np.zeros(geometry.shape, np.float32)
    k = np.sqrt(sum(np.meshgrid(*[np.fft.fftfreq(48) ** 2] * 3, indexing="ij")))[..., :25]
    spectrum = np.fft.rfftn(rng.standard_normal(geometry.shape)) * np.exp(-20 * k)
    smooth = inverse_fft(spectrum.astype(np.complex64), geometry.shape)
    assert scores.streak_index(smooth, nil, where, geometry) == pytest.approx(1, abs=0.15)


def test_a_local_field_is_scored_where_it_is_known(truth):
    field = truth.chi_ppm.copy()
    field[:20] = 0
    found = scores.score_field(field, truth.chi_ppm, truth)
    assert tuple(found) == scores.FIELD_SCORES
    expected = 100 * truth.core[20:].sum() / truth.core.sum()
    assert found["covered_percent"] == pytest.approx(expected)
