import numpy as np
import pytest

from bids_qsm.numerics.quantiles import median, percentiles


def numbers(kind, n, rng):
    return {
        "normal": rng.normal(size=n),
        "skewed": rng.exponential(size=n),
        "tied": rng.integers(-3, 4, n),
        "equal": np.zeros(n),
    }[kind].astype(np.float32)


@pytest.mark.parametrize("kind", ["normal", "skewed", "tied", "equal"])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 4097, 100_000])
def test_they_are_numpys(kind, n, rng):
    values = numbers(kind, n, rng)
    assert median(values) == np.median(values)
    assert percentiles(values, (0, 2, 50, 90, 100)) == list(
        np.percentile(values, (0, 2, 50, 90, 100))
    )
    assert median(values.astype(float)) == np.median(values.astype(float))


def test_shape_does_not_matter_and_nothing_is_overwritten(rng):
    values = rng.normal(size=(7, 8, 10)).astype(np.float32)
    before, part = values.copy(), values[1:, ::2]
    assert median(part) == np.median(part)
    assert percentiles(part, (10,)) == [np.percentile(part, 10)]
    np.testing.assert_array_equal(values, before)
