from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_qsm.report.group_strips import AXIS_PX, LANE_PX, NAME_PX, short_text, strip


def rows_of(values, *, low=np.nan, high=np.nan, kind="one", **more) -> pd.DataFrame:
    values = np.asarray(values, float)
    names = [f"sub-{kind}{n:02d}" for n in range(len(values))]
    table = pd.DataFrame({"series": names, "comparable": kind, "value": values, "low": low})
    out = (table["value"] < low) | (table["value"] > high)
    table = table.assign(high=high, atlas="n/a", check="noise", name="first echo", units="rad")
    table = table.assign(
        hemisphere="n/a", median=np.median(values), robust_z=1.0, is_excluded=False
    )
    table = table.assign(number=range(len(table)), page=[f"{name}.html" for name in names])
    return table.assign(
        is_out_of_range=out, is_outlier=False, **{"median": np.median(values), **more}
    )


def places(found) -> dict[int, float]:
    return {p.scan: float(p.x.rstrip("%")) for lane in found.lanes for p in lane.points}


def test_points_lie_in_the_order_of_their_values_and_in_proportion() -> None:
    found = strip(rows_of([3.0, 1.0, 2.0, 5.0]), "k")
    x = places(found)
    assert x == {0: pytest.approx(50), 1: pytest.approx(1.5), 2: pytest.approx(25.75), 3: 98.5}
    assert [tick for _, tick in found.ticks] == ["1", "2", "3", "4", "5"]
    assert [float(at.rstrip("%")) for at, _ in found.ticks][2] == pytest.approx(50)
    assert found.lanes[0].median == "37.88%"
    assert (found.title, found.units, found.is_log) == ("noise, first echo", "rad", False)
    assert found.height_px == LANE_PX + AXIS_PX


def test_ticks_that_are_nearly_the_same_have_all_their_digits() -> None:
    found = strip(rows_of([0.8751, 0.8753, 0.8754]), "k")
    texts = [text for _, text in found.ticks]
    assert texts == ["0.8751", "0.87515", "0.8752", "0.87525", "0.8753", "0.87535", "0.8754"]


def test_the_range_is_shaded_as_far_as_it_is_seen() -> None:
    found = strip(rows_of([1.0, 2, 3, 4, 5], low=3.0), "k")
    (lane,) = found.lanes
    left, width = (float(text.rstrip("%")) for text in (lane.left, lane.width))
    assert left == pytest.approx(50, abs=3)
    assert left + width == pytest.approx(100, abs=0.01)
    assert found.facts == "expected at least 3 · median 3 · 2 out of range"
    (lane,) = strip(rows_of([1.0, 2, 3, 4, 5], high=5000.0), "k").lanes
    assert (lane.left, lane.width) == ("0.00%", "100.00%")
    (lane,) = strip(rows_of([1.0, 2, 3]), "k").lanes
    assert (lane.left, lane.width) == (None, None)


def test_what_lies_far_off_is_drawn_at_the_end_beyond_the_bound(rng) -> None:
    values = np.append(rng.normal(0, 1, 60), [400.0, 50_000.0])
    found = strip(rows_of(values, high=100.0), "k")
    (lane,) = found.lanes
    end = float(lane.left.rstrip("%")) + float(lane.width.rstrip("%"))
    x = places(found)
    assert x[60] == x[61] == 98.5 > end
    assert max(x[n] for n in range(60)) < end
    assert lane.points[-1].words == "sub-one61: 50000 rad, robust z 1.0, out of range"


def test_a_wide_spread_above_zero_is_logarithmic() -> None:
    found = strip(rows_of([0.001, 0.01, 0.1]), "k")
    assert found.is_log
    assert places(found)[1] == pytest.approx(50)
    assert [tick for _, tick in found.ticks] == ["0.001", "0.003", "0.01", "0.03", "0.1"]


def test_kinds_have_lanes_of_their_own() -> None:
    both = pd.concat([rows_of([1.0, 2, 3]), rows_of([5.0, 6], kind="two")])
    found = strip(both, "k")
    assert [lane.name for lane in found.lanes] == ["one", "two"]
    assert [len(lane.points) for lane in found.lanes] == [3, 2]
    assert found.height_px == 2 * (LANE_PX + NAME_PX) + AXIS_PX


def test_kinds_with_few_scans_share_a_lane() -> None:
    few = [rows_of([v], kind=k, high=h, median=np.nan) for k, v, h in (("x", 4, 9), ("y", 5, 8))]
    found = strip(pd.concat([rows_of([1.0, 2, 3], high=9.0), *few]), "k")
    assert [lane.name for lane in found.lanes] == ["one", "other kinds, not compared"]
    assert found.lanes[0].width is not None
    assert found.lanes[1].width is None  # their ranges differ
    assert [point.words[:6] for point in found.lanes[1].points] == ["sub-x0", "sub-y0"]


def test_marks_come_last_and_say_what_they_are() -> None:
    table = rows_of([1.0, 2, 3, 4], high=3.5)
    table.loc[0, "is_outlier"] = True
    table.loc[1, "is_excluded"] = True
    (lane,) = strip(table, "k").lanes
    assert [(p.scan, p.mark) for p in lane.points] == [(2, ""), (0, "odd"), (1, "gone"), (3, "out")]
    assert lane.points[1].words == "sub-one00: 1 rad, robust z 1.0, outlier"


def test_equal_values_and_none() -> None:
    found = strip(rows_of([0.0] * 30), "k")
    assert set(places(found).values()) == {50.0}
    heights = {point.y for point in found.lanes[0].points}
    assert len(heights) > 20  # told apart though they are equal
    assert strip(rows_of([np.nan, np.nan]), "k") is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.001, "0.001"), (20.0, "20"), (-1.5, "−1.5"), (2e-7, "2.00×10⁻⁷")]
)
def test_numbers_have_no_zeros_at_their_end(value, text) -> None:
    assert short_text(value) == text
