from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from bids_qsm.statistics.multiplicity import fdr, holm


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_statsmodels(seed: int) -> None:
    p = np.random.default_rng(seed).uniform(size=40) ** 3
    p[[3, 9]] = p[0]
    np.testing.assert_allclose(fdr(p), multipletests(p, method="fdr_bh")[1], rtol=1e-12)
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], rtol=1e-12)


def test_published_example() -> None:
    # Benjamini and Hochberg 1995, section 3.2: four of 15 rejected at .05, Bonferroni rejects three
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
    p += [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    assert (fdr(p) <= 0.05).sum() == 4
    assert (holm(p) <= 0.05).sum() == 3


def test_tests_not_made_are_not_counted() -> None:
    p = np.array([0.01, np.nan, 0.04])
    np.testing.assert_allclose(fdr(p), [0.02, np.nan, 0.04])
    np.testing.assert_allclose(holm(p), [0.02, np.nan, 0.04])
    assert fdr([]).size == 0
    assert np.isnan(holm([np.nan])).all()


def test_order_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    p, order = rng.uniform(size=20), rng.permutation(20)
    np.testing.assert_array_equal(fdr(p)[order], fdr(p[order]))
    np.testing.assert_array_equal(holm(p)[order], holm(p[order]))
