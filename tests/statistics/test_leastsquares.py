from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.datasets import longley

from bids_qsm.statistics.leastsquares import Robust, estimates, joint_test, least_squares


@pytest.fixture
def problem() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    matrix = np.column_stack([np.ones(60), rng.normal(50, 9, 60), rng.integers(0, 2, 60)])
    outcomes = rng.normal(size=(60, 3)) * (1 + matrix[:, 2:]) + 0.02 * matrix[:, 1:2]
    return matrix, outcomes


@pytest.mark.parametrize("robust", [None, "HC0", "HC1", "HC2", "HC3"])
def test_equal_to_statsmodels(
    problem: tuple[np.ndarray, np.ndarray], robust: Robust | None
) -> None:
    matrix, outcomes = problem
    fit = least_squares(matrix, outcomes)
    weights = np.array([[0.0, 1, 0], [0, 1, -2]])
    found = estimates(fit, weights, robust=robust, level=0.9)
    f, p = joint_test(fit, weights, robust=robust)
    for k in range(3):
        theirs = sm.OLS(outcomes[:, k], matrix).fit()
        if robust:
            theirs = theirs.get_robustcov_results(robust, use_t=True)
        test = theirs.t_test(weights)
        np.testing.assert_allclose(found.value[:, k], test.effect, rtol=1e-9)
        np.testing.assert_allclose(found.se[:, k], test.sd, rtol=1e-9)
        np.testing.assert_allclose(found.t[:, k], test.tvalue, rtol=1e-9)
        np.testing.assert_allclose(found.p[:, k], test.pvalue, rtol=1e-8)
        interval = np.column_stack([found.low[:, k], found.high[:, k]])
        np.testing.assert_allclose(interval, test.conf_int(alpha=0.1), rtol=1e-8)
        joint = theirs.f_test(weights)
        np.testing.assert_allclose([f[k], p[k]], [joint.fvalue, joint.pvalue], rtol=1e-8)


def test_leverage_is_the_diagonal_of_the_hat_matrix(
    problem: tuple[np.ndarray, np.ndarray],
) -> None:
    matrix, outcomes = problem
    hat = matrix @ np.linalg.pinv(matrix)
    np.testing.assert_allclose(least_squares(matrix, outcomes).leverage, np.diag(hat), rtol=1e-9)


def test_certified_values_of_longley() -> None:
    # NIST Statistical Reference Datasets, Longley
    data = longley.load_pandas()
    matrix = np.column_stack([np.ones(16), data.exog.to_numpy()])
    fit = least_squares(matrix, data.endog.to_numpy())
    certified = [
        -3482258.63459582,
        15.0618722713733,
        -0.358191792925910e-01,
        -2.02022980381683,
        -1.03322686717359,
        -0.511041056535807e-01,
        1829.15146461355,
    ]
    np.testing.assert_allclose(fit.coefficients[:, 0], certified, rtol=1e-8)
    np.testing.assert_allclose(np.sqrt(fit.variance), 304.854073561965, rtol=1e-9)
    se = estimates(fit, np.eye(7)).se[:, 0]
    np.testing.assert_allclose(se[[0, 6]], [890420.383607373, 455.478499142212], rtol=1e-8)


def test_scale_and_order_of_rows_do_not_matter(problem: tuple[np.ndarray, np.ndarray]) -> None:
    matrix, outcomes = problem
    weights = np.array([[0.0, 1, 0]])
    p = estimates(least_squares(matrix, outcomes), weights).p
    scaled = estimates(least_squares(matrix * [1, 1e6, 1e-6], outcomes * 1e-3), weights).p
    order = np.random.default_rng(1).permutation(60)
    shuffled = estimates(least_squares(matrix[order], outcomes[order]), weights).p
    np.testing.assert_allclose(scaled, p, rtol=1e-9)
    np.testing.assert_allclose(shuffled, p, rtol=1e-9)


def test_unknown_errors_are_refused(problem: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="robust errors are HC0, HC1, HC2, HC3, not 'HC9'"):
        estimates(least_squares(*problem), np.eye(3), robust="HC9")  # type: ignore[arg-type]
