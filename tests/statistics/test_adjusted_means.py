from __future__ import annotations

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf

from bids_qsm.statistics.adjusted_means import adjust


def test_outcomes_with_other_subjects_are_fitted_apart() -> None:
    rng = np.random.default_rng(0)
    people = pd.DataFrame({"kind": ["b", "a", "c"] * 10, "age": rng.normal(45, 9, 30)})
    matrix = rng.normal(size=(30, 4))
    matrix[[1, 5], 1] = np.nan
    matrix[3:, 3] = np.nan
    found, notes = adjust(people, matrix, "kind", ["c", "a", "b"], "age", None, 0.95)
    for k in range(3):
        data = people.assign(y=matrix[:, k]).dropna()
        model = smf.ols("y ~ C(kind, Treatment('c')) + age", data).fit()
        names = ["C(kind, Treatment('c'))[T.a]", "C(kind, Treatment('c'))[T.b]"]
        for pair, weights in (((1, 0), [1, 0]), ((2, 0), [0, 1]), ((2, 1), [-1, 1])):
            expected = model.params[names] @ weights
            np.testing.assert_allclose(found.pairs[pair]["adjusted_difference"][k], expected)
        assert found.n[k] == len(data)
        at = pd.DataFrame({"kind": ["c", "a", "b"], "age": data["age"].mean()})
        np.testing.assert_allclose(found.means["adjusted_mean"][:, k], model.predict(at))
    assert np.isnan(found.p).tolist() == [False, False, False, True]
    assert notes[0].startswith("1 outcome with 3 subjects could not be adjusted: the design has")
