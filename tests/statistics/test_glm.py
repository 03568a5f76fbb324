from __future__ import annotations

from pathlib import Path

import numba
import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from bids_qsm.statistics import glm
from bids_qsm.statistics.glm import (
    Distribution,
    false_discovery_q,
    fit_voxels,
    p_values,
    upper_quantile,
    upper_tail,
)

N = 24
GROUP = np.repeat([0.0, 1.0], [10, 14])


def design(random: np.random.Generator) -> np.ndarray:
    return np.column_stack([np.ones(N), GROUP, random.normal(40, 10, N)])


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    x = design(random)
    values = random.normal(50, 3, (N, 700)) + 2 * GROUP[:, None]
    return values.astype(np.float32), x


def test_t_is_that_of_statsmodels(data: tuple[np.ndarray, np.ndarray]) -> None:
    values, x = data
    result = glm.test_contrast(fit_voxels(values, x), [0, 1, 0])
    p = p_values(result)
    for v in range(0, 700, 70):
        ols = sm.OLS(values[:, v].astype(float), x).fit()
        np.testing.assert_allclose(result.statistic[v], ols.tvalues[1], rtol=2e-6)
        np.testing.assert_allclose(result.effect[v], ols.params[1], rtol=2e-6)
        np.testing.assert_allclose(result.standard_error[v], ols.bse[1], rtol=2e-6)
        np.testing.assert_allclose(p[v], ols.pvalues[1], rtol=1e-5)
    assert result.distribution == Distribution("t", 1, 21)


def test_f_is_that_of_statsmodels(data: tuple[np.ndarray, np.ndarray]) -> None:
    values, x = data
    rows = [[0, 1, 0.5], [0, 0, 1]]
    result = glm.test_contrast(fit_voxels(values, x), rows)
    for v in (3, 333):
        test = sm.OLS(values[:, v].astype(float), x).fit().f_test(np.array(rows))
        np.testing.assert_allclose(result.statistic[v], test.fvalue, rtol=2e-6)
        np.testing.assert_allclose(p_values(result)[v], test.pvalue, rtol=1e-5)
    assert result.distribution == Distribution("F", 2, 21)
    assert result.effect is None
    assert result.cohen_d is None


def test_f_of_one_row_is_t_squared(data: tuple[np.ndarray, np.ndarray]) -> None:
    fit = fit_voxels(*data)
    t, f = glm.test_contrast(fit, [0, 1, 0]), glm.test_contrast(fit, [[0, 1, 0]])
    np.testing.assert_allclose(f.statistic, t.statistic**2, rtol=1e-5)
    np.testing.assert_allclose(p_values(f), p_values(t), rtol=1e-5)
    np.testing.assert_array_equal(f.partial_eta_squared, t.partial_eta_squared)


def test_cohen_d_of_two_groups(data: tuple[np.ndarray, np.ndarray]) -> None:
    values, _ = data
    x = np.column_stack([1 - GROUP, GROUP])
    result = glm.test_contrast(fit_voxels(values, x), [-1, 1])
    a, b = values[GROUP == 0].astype(float), values[GROUP == 1].astype(float)
    pooled = np.sqrt((9 * a.var(0, ddof=1) + 13 * b.var(0, ddof=1)) / 22)
    np.testing.assert_allclose(result.cohen_d, (b.mean(0) - a.mean(0)) / pooled, rtol=1e-5)
    np.testing.assert_allclose(
        result.partial_eta_squared,
        result.statistic**2 / (result.statistic**2 + 22),
        rtol=1e-5,
    )


def test_statistic_does_not_depend_on_units(data: tuple[np.ndarray, np.ndarray]) -> None:
    values, x = data
    a = glm.test_contrast(fit_voxels(values, x), [0, 1, 0])
    scaled = x * [1, 1, 1e-3]
    b = glm.test_contrast(fit_voxels(values * np.float32(2**-20), scaled), [0, 1, 0])
    np.testing.assert_allclose(a.statistic, b.statistic, rtol=1e-5)


def test_blocks_threads_and_memory_maps_change_nothing(
    data: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, x = data
    expected = fit_voxels(values, x)
    np.save(tmp_path / "values.npy", values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    monkeypatch.setattr(glm, "_BLOCK_BYTES", 4 * N * 256)  # three blocks
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        found = fit_voxels(mapped, x)
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(found.betas, expected.betas)
    np.testing.assert_array_equal(found.residual_ss, expected.residual_ss)


def test_voxels_without_a_test_are_marked(data: tuple[np.ndarray, np.ndarray]) -> None:
    values, x = data
    values[4, 0] = np.nan
    values[5, 1] = np.inf
    values[:, 2] = 0.1
    values[:, 3] = 7 * GROUP  # without any residual
    values[:, 4] = 0
    fit = fit_voxels(values, x)
    result = glm.test_contrast(fit, [0, 1, 0])
    assert not fit.valid[:5].any()
    assert fit.valid[5:].all()
    for part in (result.statistic, result.effect, result.standard_error, result.cohen_d):
        assert not part[:5].any()
        assert np.isfinite(part).all()
    assert (p_values(result)[:5] == 1).all()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.column_stack([np.ones(N), GROUP, 1 - GROUP]), "controls is zero, or the other"),
        (np.column_stack([np.ones(N), GROUP, np.zeros(N)]), "controls is zero"),
        (np.column_stack([np.ones(N), np.full(N, 3.0), GROUP]), "patients is zero, or the other"),
        (np.column_stack([np.ones(N), GROUP, np.where(GROUP, np.nan, 1)]), r"finite \(controls\)"),
        (np.ones((N - 1, 3)), "one row for each image"),
        (np.eye(N), "24 images cannot fit 24 coefficients"),
    ],
)
def test_designs_that_cannot_be_fitted(x: np.ndarray, message: str) -> None:
    names = ["intercept", "patients", "controls"] if x.shape[1] == 3 else None
    with pytest.raises(ValueError, match=message):
        fit_voxels(np.ones((N, 5), np.float32), x, names=names)


@pytest.mark.parametrize(
    ("contrast", "message"),
    [
        ([0, 1], "2 weights and the model 3 coefficients"),
        ([0, 0, 0], "not all zero"),
        ([[0, 1, 0], [0, 2, 0]], "depend on each other"),
        ([0, np.nan, 0], "finite weights"),
    ],
)
def test_contrasts_that_cannot_be_tested(
    contrast: list, message: str, data: tuple[np.ndarray, np.ndarray]
) -> None:
    with pytest.raises(ValueError, match=message):
        glm.test_contrast(fit_voxels(*data), contrast)


def test_false_discovery_is_that_of_scipy() -> None:
    p = np.random.default_rng(1).random(200) ** 3
    valid = np.arange(200) % 7 > 0
    q = false_discovery_q(p, valid)
    np.testing.assert_allclose(q[valid], stats.false_discovery_control(p[valid]), rtol=1e-12)
    assert (q[~valid] == 1).all()


@pytest.mark.parametrize(
    "law",
    [
        Distribution("t", 1, 12),
        Distribution("t", 1, np.inf),
        Distribution("F", 3, 12),
        Distribution("F", 3, np.inf),
    ],
)
def test_quantile_inverts_tail(law: Distribution) -> None:
    for p in (0.3, 0.05, 1e-9):
        assert upper_tail(upper_quantile(p, law), law) == pytest.approx(p, rel=1e-6)
