from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.numerics.referencing import reference_to


@pytest.fixture
def chi(rng) -> np.ndarray:
    return rng.normal(0.02, 0.03, (10, 9, 8)).astype(np.float32)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((10, 9, 8), bool)
    mask[1:9, 1:8, 1:7] = True
    return mask


@pytest.fixture
def region() -> np.ndarray:
    region = np.zeros((10, 9, 8), bool)
    region[0:5, 2:6, 2:5] = True  # reaches beyond the mask
    return region


def test_the_region_reads_zero_and_its_whole_brain_values_are_kept(chi, mask, region) -> None:
    result = reference_to(chi, region, mask)
    used = region & mask
    whole_brain = chi - chi[mask].mean(dtype=np.float64)
    assert result.chi_ppm[used].mean(dtype=np.float64) == pytest.approx(0, abs=1e-8)
    assert result.mean_ppm == pytest.approx(whole_brain[used].mean(), abs=1e-8)
    assert result.sd_ppm == pytest.approx(whole_brain[used].std(), abs=1e-8)
    assert result.n_voxels == used.sum()
    assert not result.chi_ppm[~mask].any()
    assert result.chi_ppm.dtype == np.float32


def test_the_whole_brain_is_its_own_reference(chi, mask) -> None:
    result = reference_to(chi, mask, mask)
    assert result.mean_ppm == pytest.approx(0, abs=1e-9)
    assert result.chi_ppm[mask].mean(dtype=np.float64) == pytest.approx(0, abs=1e-8)


def test_a_constant_added_to_the_map_changes_nothing(chi, mask, region) -> None:
    plain = reference_to(chi, region, mask)
    shifted = reference_to(chi + np.float32(0.5), region, mask)
    np.testing.assert_allclose(shifted.chi_ppm, plain.chi_ppm, atol=2e-7)
    assert shifted.mean_ppm == pytest.approx(plain.mean_ppm, abs=1e-7)


def test_values_that_are_no_numbers_are_left_out(chi, mask, region) -> None:
    expected = reference_to(chi, region & (np.indices(chi.shape)[0] != 3), mask).mean_ppm
    chi[3][region[3]] = np.nan
    result = reference_to(chi, region, mask)
    assert result.mean_ppm == pytest.approx(expected, abs=2e-3)
    assert result.n_voxels == (region & mask & np.isfinite(chi)).sum()


@pytest.mark.parametrize("voxels", [0, 9])
def test_a_region_too_small_is_refused_with_a_sentence(voxels, chi, mask) -> None:
    region = np.zeros(mask.shape, bool)
    places = np.argwhere(mask)[:voxels]
    region[tuple(places.T)] = True
    with pytest.raises(ValueError, match=f"has {voxels} valid voxels"):
        reference_to(chi, region, mask)
