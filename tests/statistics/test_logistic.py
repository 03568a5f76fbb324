from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from bids_qsm.statistics.logistic import fit_logistic, roc_area


def test_equal_to_statsmodels() -> None:
    rng = np.random.default_rng(0)
    matrix = np.column_stack([np.ones(80), rng.normal(2020, 9, 80), rng.normal(size=80) * 1e-4])
    event = rng.random(80) < 1 / (1 + np.exp(-0.1 * (matrix[:, 1] - 2020)))
    found = fit_logistic(matrix, event)
    scale = np.array([1, 1, 1e4])  # Newton of statsmodels needs columns of like size
    centred = (matrix - [0, 2020, 0]) * scale
    theirs = sm.Logit(event * 1.0, centred).fit(disp=0, tol=1e-12)
    np.testing.assert_allclose(found.coefficients[1:], theirs.params[1:] * scale[1:], rtol=1e-6)
    se = np.sqrt(np.diag(found.covariance))[1:]
    np.testing.assert_allclose(se, theirs.bse[1:] * scale[1:], rtol=1e-5)
    assert found.log_likelihood == pytest.approx(theirs.llf, rel=1e-10)
    np.testing.assert_allclose(found.probability, theirs.predict(), rtol=1e-6)


@pytest.mark.parametrize("overlap", [0, 1])
def test_separated_levels_are_refused(overlap: int) -> None:
    x = np.arange(20.0)
    event = x >= 10
    if overlap:  # quasi-complete: they touch in one value
        x[9] = x[10]
    matrix = np.column_stack([np.ones(20), x])
    with pytest.raises(ValueError, match="separate the two levels of the outcome"):
        fit_logistic(matrix, event)


def test_area_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(1)
    event = rng.random(50) < 0.4
    scores = np.stack([rng.normal(size=50) + event, np.round(rng.normal(size=50) + event)])
    areas, covariance = roc_area(scores, event)
    for score, area in zip(scores, areas, strict=True):
        u = stats.mannwhitneyu(score[event], score[~event]).statistic
        assert area == pytest.approx(u / (event.sum() * (~event).sum()), abs=1e-12)
    # variance by its definition, one comparison at a time
    pairs = scores[0][event][:, None] - scores[0][~event][None]
    kernel = (pairs > 0) + 0.5 * (pairs == 0)
    expected = (
        kernel.mean(1).var(ddof=1) / event.sum() + kernel.mean(0).var(ddof=1) / (~event).sum()
    )
    assert covariance[0, 0] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(covariance, covariance.T)
