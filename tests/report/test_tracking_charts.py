"""Pictures of lesions that are followed: flags where they belong, and the same bytes each time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from bids_qsm.report.tracking_charts import FLAG, MOST_LESIONS, lesion_courses, lesion_slices


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures themselves, in the place of their bytes."""
    figures: list[Figure] = []
    monkeypatch.setattr("bids_qsm.report.group_style.rasterised", figures.append)
    monkeypatch.setattr("bids_qsm.report.group_style.png_of", lambda image: b"")
    monkeypatch.setattr("bids_qsm.report.group_style.svg_of", lambda figure: b"")
    return figures


def table(n_lesions: int, years=(0.0, 1.0, 2.5)) -> pd.DataFrame:
    rows = [
        {"lesion": n, "scan": s, "years": y, "chi_ppm_mean": 0.4 + 0.05 * s,
         "exceeds_threshold": [None, True, False][s]}
        for n in range(1, n_lesions + 1)
        for s, y in enumerate(years)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_ring_stands_where_the_threshold_is_reached(drawn) -> None:
    lesion_courses(table(2), 6.0)
    axes = drawn[0].axes
    assert [ax.get_xlabel() for ax in axes] == ["years", "years"]
    for ax in axes:
        course, rings = ax.lines
        np.testing.assert_allclose(course.get_xdata(), [0, 1, 2.5])
        np.testing.assert_allclose(course.get_ydata(), [400, 450, 500])
        assert rings.get_xdata().tolist() == [1.0]
        assert to_rgba(rings.get_markeredgecolor()) == to_rgba(FLAG)
        (band,) = ax.patches
        assert (band.get_y(), band.get_height()) == pytest.approx((400, 24))


def test_sessions_without_dates_and_lesions_without_values_are_drawn(drawn) -> None:
    rows = table(MOST_LESIONS + 3, (np.nan, np.nan, np.nan))
    rows.loc[rows["lesion"] == 1, "chi_ppm_mean"] = np.nan
    lesion_courses(rows, 6.0)
    assert len(drawn[0].axes) == MOST_LESIONS
    assert drawn[0].axes[1].get_xlabel() == "session"
    assert drawn[0].axes[1].lines[0].get_xdata().tolist() == [0, 1, 2]


def test_a_slice_of_each_session_or_a_word(drawn) -> None:
    chi, share = np.random.default_rng(1).random((2, 20, 20))
    lesion_slices([[(chi, share), None], [(chi, 0 * share), (chi, share)]], [1, 4], ["a", "b"])
    axes = np.reshape(drawn[0].axes, (2, -1))
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["Lesion 1", "Lesion 4"]
    assert [ax.get_title("left") for ax in axes[0, :2]] == ["a", "b"]
    assert axes[0, 1].texts[0].get_text() == "outside"
    np.testing.assert_array_equal(axes[0, 0].images[0].get_array(), chi.T)
    assert len(axes[0, 0].collections) == 1 and not axes[1, 0].collections


def test_the_same_values_give_the_same_bytes() -> None:
    one, two = (lesion_courses(table(1), 6.0).png for _ in range(2))
    assert one == two and one.startswith(b"\x89PNG")
