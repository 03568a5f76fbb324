from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from bids_qsm.report.group_agreement_charts import agreement, bland_altman, tolerance_shares
from bids_qsm.report.group_charts import forest, values_by_group
from bids_qsm.report.group_course_charts import courses, curves
from bids_qsm.report.group_fit_charts import (
    heat_map,
    ladder_of_powers,
    line_and_band,
    scatter_with_fit,
)
from bids_qsm.report.group_style import (
    COLOURS,
    DPI,
    Chart,
    Quantity,
    plain_ticks,
    quantity_of,
    structure_labels,
)

HOSTILE = "$x_{ <b>&\"']]> --"
CHI = Quantity("χ", "ppm")


def values(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [
        {"structure": name, "group": group, "mean": value, "volume": 8 - 20 * value}
        for name, centre in (("Thalamus", 0.06), ("Putamen", 0.1))
        for group, shift in (("controls", 0.0), ("patients", 0.01))
        for value in rng.normal(centre + shift, 0.01, 12)
    ]
    table = pd.DataFrame(rows)
    table["volume"] += rng.normal(0, 0.1, len(table))
    return table


def differences() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "structure": ["Thalamus", "Putamen"],
            "difference": [0.007, 0.015],
            "ci_low": [0.001, 0.006],
            "ci_high": [0.013, 0.024],
            "p": [0.02, 0.000004],
        }
    )


def pairs() -> tuple[pd.DataFrame, pd.DataFrame]:
    points = pd.DataFrame({"first": [0.09, 0.1, 0.12], "second": [0.1, 0.1, 0.11]})
    points["average"] = points.mean(axis=1)
    points["difference"] = points["second"] - points["first"]
    limits = {"bias": 0.001, "loa_lower": -0.02, "loa_upper": 0.022}
    limits |= {"loa_upper_low": 0.02, "loa_upper_high": 0.03}
    return points, pd.DataFrame([limits])


def drawn(chart: Callable[..., Chart], *args: Any, **kwargs: Any) -> list[Axes]:
    """Return the axes of a chart before it is made to bytes."""
    figure: Figure = chart.__wrapped__(*args, **kwargs)  # type: ignore[attr-defined]
    return figure.axes


def lines_of(ax: Axes) -> list[np.ndarray]:
    return [np.column_stack(line.get_data()).astype(float) for line in ax.lines]


def has_line(ax: Axes, points: np.ndarray | list[list[float]]) -> bool:
    wanted = np.asarray(points, float)
    return any(
        line.shape == wanted.shape and np.allclose(line, wanted, atol=1e-9) for line in lines_of(ax)
    )


def dots_of(ax: Axes) -> np.ndarray:
    return np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])


def texts_of(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def ladder() -> pd.DataFrame:
    names = [HOSTILE, "square", "identity", "root", "log", "a", "b", "c", "d"]
    return pd.DataFrame(
        [
            {"transform": name, "expected": float(i), "observed": i + 0.1 * k}
            for k, name in enumerate(names)
            for i in range(5)
        ]
    )


POINTS, LIMITS = pairs()
LINES = pd.DataFrame({"method": [HOSTILE], "slope": [1.1], "intercept": [0.002]})
SHARES = pd.DataFrame({"tolerance": [1.0, 0.5], "share": [0.9, 0.25], "pair": [HOSTILE] * 2})
COURSES = pd.DataFrame(
    {
        "participant_id": ["a", "a", "b", "b"],
        "years": [1.0, 0.0, 0.0, 2.0],
        "mean": [0.02, 0.01, 0.03, 0.05],
        "group": [HOSTILE, HOSTILE, "y", "y"],
    }
)
POWER = pd.DataFrame({"n": [10, 20, 30], "power": [0.4, 0.85, 0.95], "effect": [HOSTILE] * 3})
MATRIX = pd.DataFrame([[0.5, -0.25], [np.nan, 0.1]], index=["a", HOSTILE], columns=["x", HOSTILE])
HOSTILE_VALUES = values().replace({"Thalamus": HOSTILE, "controls": HOSTILE})

CHARTS: dict[str, Callable[[], Chart]] = {
    "violins": lambda: values_by_group(HOSTILE_VALUES, CHI, p_values={HOSTILE: 0.01}),
    "boxes": lambda: values_by_group(values(), CHI, kind="box"),
    "scatter": lambda: scatter_with_fit(
        HOSTILE_VALUES,
        "mean",
        "volume",
        CHI,
        Quantity(HOSTILE, "ml"),
        panel="structure",
        group="group",
        notes={HOSTILE: HOSTILE},
    ),
    "forest": lambda: forest(
        differences().replace("Thalamus", HOSTILE), CHI, p="p", sides=(HOSTILE, "more")
    ),
    "heat map": lambda: heat_map(MATRIX, HOSTILE, p_values=MATRIX.abs()),
    "ladder": lambda: ladder_of_powers(ladder(), HOSTILE, suggested="log", p_values={"log": 0.5}),
    "Bland-Altman": lambda: bland_altman(POINTS, LIMITS, CHI, panel=None),
    "agreement": lambda: agreement(POINTS, LINES, "first", "second", CHI, CHI, panel=None),
    "tolerances": lambda: tolerance_shares(
        SHARES.assign(share_low=0.1, share_high=0.95), series="pair"
    ),
    "courses": lambda: courses(COURSES, CHI, group="group"),
    "curves": lambda: curves(POWER, "n", "power", HOSTILE, "power", series="effect", target=0.8),
}


@cache
def made(name: str) -> Chart:
    return CHARTS[name]()


@pytest.mark.parametrize("name", CHARTS)
def test_same_bytes_whatever_the_settings_of_the_user(name: str) -> None:
    chart = made(name)
    with matplotlib.rc_context({"lines.linewidth": 9, "axes.grid": False, "font.size": 30}):
        again = CHARTS[name]()
        assert matplotlib.rcParams["font.size"] == 30
    assert chart == again


@pytest.mark.parametrize("name", CHARTS)
def test_pictures_can_be_read_and_hold_no_date(name: str) -> None:
    chart = made(name)
    image = Image.open(io.BytesIO(chart.png))
    image.load()
    assert not image.info.get("Software")
    assert 400 < image.width <= 7.2 * DPI + 1
    root = ElementTree.fromstring(chart.svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert b"dc:date" not in chart.svg
    assert b"<b>" not in chart.svg
    assert len(chart.svg) < 400_000


def test_medians_and_points_are_those_of_the_table() -> None:
    table = values()
    (ax,) = drawn(values_by_group, table, CHI, p_values={"Putamen": 0.0123})
    samples = table.groupby(["structure", "group"], sort=False)["mean"]
    medians = 1000 * samples.median().to_numpy()
    level = [line[0, 1] for line in lines_of(ax) if len(line) == 2 and line[0, 1] == line[1, 1]]
    assert all(np.isclose(level, median, atol=1e-9).any() for median in medians)
    dots = dots_of(ax)
    drawn_points = np.sort(dots[np.isin(dots[:, 1].round(9), (1000 * table["mean"]).round(9)), 1])
    np.testing.assert_allclose(np.unique(drawn_points), np.sort(1000 * table["mean"]))
    assert texts_of(ax) == ["p = 0.012"]
    assert ax.get_ylabel() == "χ (ppb)"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["Thalamus", "Putamen"]
    assert [h.get_label() for h in ax.lines if str(h.get_label()).startswith(("c", "p"))] == [
        "controls (n = 12)",
        "patients (n = 12)",
    ]


def test_many_points_make_no_large_svg() -> None:
    rng = np.random.default_rng(0)
    many = pd.DataFrame({"x": rng.normal(size=20_000), "y": rng.normal(size=20_000)})
    chart = scatter_with_fit(many, "x", "y", Quantity("x"), Quantity("y"))
    assert len(chart.svg) < 500_000
    assert b"data:image/png" in chart.svg


def test_missing_values_are_left_out_and_counted() -> None:
    table = values()
    table.loc[[0, 1], "mean"] = [np.nan, np.inf]
    (ax,) = drawn(values_by_group, table, CHI)
    assert "controls (n = 10 to 12)" in [line.get_label() for line in ax.lines]


def test_line_and_band_are_those_of_statsmodels() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=20)
    y = 0.4 * x + rng.normal(size=20)
    fit = line_and_band(x, y, level=0.9)
    assert fit is not None
    at, height, half_width = fit
    expected = sm.OLS(y, sm.add_constant(x)).fit().get_prediction(sm.add_constant(at))
    np.testing.assert_allclose(height, expected.predicted_mean)
    interval = expected.conf_int(alpha=0.1)
    np.testing.assert_allclose(height - half_width, interval[:, 0])
    np.testing.assert_allclose(height + half_width, interval[:, 1])
    assert line_and_band(np.ones(5), y[:5]) is None
    assert line_and_band(x[:2], y[:2]) is None


def test_scatter_has_a_panel_for_each_structure() -> None:
    table = values()
    axes = drawn(
        scatter_with_fit, table, "mean", "volume", CHI, Quantity("v", "ml"), panel="structure"
    )
    assert [ax.get_title(loc="left") or ax.get_title() for ax in axes] == ["Thalamus", "Putamen"]
    for ax, name in zip(axes, ("Thalamus", "Putamen"), strict=True):
        rows = table[table["structure"] == name]
        expected = rows[["mean", "volume"]].to_numpy() * [1000, 1]
        np.testing.assert_allclose(np.asarray(ax.collections[0].get_offsets()), expected)
        at, height, _ = line_and_band(*expected.T) or ((), (), ())
        assert has_line(ax, np.column_stack([at, height]))
        assert "n = 24" in texts_of(ax)


def test_rows_of_groups_that_are_not_drawn_are_not_counted() -> None:
    table = values()
    (ax,) = drawn(
        scatter_with_fit,
        table,
        "mean",
        "volume",
        CHI,
        Quantity("v"),
        group="group",
        groups=["patients"],
    )
    assert "n = 24" in texts_of(ax)
    assert len(table) == 48


def test_forest_shows_intervals_and_numbers() -> None:
    (ax,) = drawn(forest, differences(), CHI, p="p", sides=("less", "more"))
    assert has_line(ax, [[1, 0], [13, 0]])
    assert has_line(ax, [[7, 0]])
    assert has_line(ax, [[6, 1], [24, 1]])
    assert {"7.0  [1.0, 13.0]", "0.020", "15.0  [6.0, 24.0]", "< 0.00001"} <= set(texts_of(ax))
    assert {"← less", "more →"} <= set(texts_of(ax))
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first line is on top


def test_forest_tells_series_apart() -> None:
    both = pd.concat([differences().assign(model=m) for m in ("before", "after")])
    (ax,) = drawn(forest, both, CHI, series="model", series_order=["before", "after"])
    of_thalamus = [line for line in ax.lines if np.isclose(line.get_xdata(), 7).all()]
    of_thalamus = [line for line in of_thalamus if len(line.get_xdata())]
    heights = [float(line.get_ydata()[0]) for line in of_thalamus]
    assert heights == [pytest.approx(-0.18), pytest.approx(0.18)]
    assert [line.get_color() for line in of_thalamus] == list(COLOURS[:2])


def test_heat_map_is_symmetric_about_zero_and_frames_low_p() -> None:
    p = pd.DataFrame([[0.01, 0.2], [np.nan, 0.05]], index=MATRIX.index, columns=MATRIX.columns)
    ax, _ = drawn(heat_map, MATRIX, "r", p_values=p)
    mesh = ax.collections[0]
    assert mesh.get_clim() == (-0.5, 0.5)
    assert texts_of(ax) == ["0.50", "−0.25", "–", "0.10"]
    assert len(ax.lines) == 1
    with pytest.raises(ValueError, match="need the rows and columns"):
        heat_map(MATRIX, "r", p_values=p.T)


def test_ladder_marks_the_suggested_transform() -> None:
    axes = drawn(ladder_of_powers, ladder(), "load", suggested="log", p_values={"log": 0.5})
    assert len(axes) == 9
    colours = [to_hex(ax.collections[0].get_facecolor()[0]).upper() for ax in axes]
    assert [place for place, colour in enumerate(colours) if colour == COLOURS[1]] == [4]
    assert "p = 0.500" in texts_of(axes[4])
    np.testing.assert_allclose(dots_of(axes[2])[:, 1], np.arange(5) + 0.2)


def test_bland_altman_lines_and_intervals() -> None:
    (ax,) = drawn(bland_altman, POINTS, LIMITS, CHI, panel=None)
    np.testing.assert_allclose(dots_of(ax), 1000 * POINTS[["average", "difference"]].to_numpy())
    heights = [line.get_ydata()[0] for line in ax.lines]
    np.testing.assert_allclose(heights, [0, 1, -20, 22])
    (band,) = ax.patches  # only the upper limit has an interval
    np.testing.assert_allclose(
        band.get_extents().intervaly, ax.transData.transform([[0, 20], [0, 30]])[:, 1]
    )
    assert {"1.0", "−20.0", "22.0"} <= set(texts_of(ax))


def test_bland_altman_in_percent() -> None:
    percent = Quantity("difference", "%")
    (ax,) = drawn(bland_altman, POINTS, LIMITS, CHI, panel=None, difference_quantity=percent)
    np.testing.assert_allclose(dots_of(ax)[:, 1], POINTS["difference"])
    assert ax.get_ylabel() == "difference (%)"


def test_agreement_draws_the_fitted_line_and_identity() -> None:
    (ax,) = drawn(agreement, POINTS, LINES, "first", "second", CHI, CHI, panel=None)
    assert has_line(ax, [[90, 90], [120, 120]])
    assert has_line(ax, [[90, 2 + 99], [120, 2 + 132]])


def test_tolerances_are_in_order() -> None:
    (ax,) = drawn(tolerance_shares, SHARES, series="pair")
    bars = sorted((bar.get_x(), bar.get_height()) for bar in ax.patches)
    assert [height for _, height in bars] == [25, 90]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["≤ 0.5", "≤ 1"]
    with pytest.raises(ValueError, match="between 0 and 1"):
        tolerance_shares(SHARES.assign(share=25.0))


def test_courses_are_in_the_order_of_time() -> None:
    means = pd.DataFrame(
        {"years": [2.0, 0.0], "mean": [0.03, 0.02], "ci_low": 0.01, "ci_high": 0.04}
    )
    (ax,) = drawn(courses, COURSES, CHI, means=means)
    assert has_line(ax, [[0, 10], [1, 20]])
    assert has_line(ax, [[0, 30], [2, 50]])
    assert has_line(ax, [[0, 20], [2, 30]])
    assert "n = 2, 4 values" in texts_of(ax)


def test_curves_say_where_the_target_is_reached() -> None:
    (ax,) = drawn(curves, POWER.assign(effect="30 %"), "n", "power", "n", "power",
                  series="effect", target=0.8)  # fmt: skip
    assert has_line(ax, [[20, 0.85]])
    assert "30 % → 20" in [line.get_label() for line in ax.lines]
    (ax,) = drawn(curves, POWER, "n", "power", "n", "power", target=0.99)
    assert not has_line(ax, [[30, 0.95]])


@pytest.mark.parametrize(
    ("chart", "message"),
    [
        (lambda: values_by_group(values(), CHI, value="man"), "needs the column 'man', there are"),
        (lambda: values_by_group(values(), CHI, kind="pie"), "not 'pie'"),
        (lambda: values_by_group(values().iloc[:0], CHI), "has no row to draw"),
        (lambda: values_by_group(values(), CHI, groups=["x"]), "there are: controls, patients"),
        (lambda: forest(differences(), CHI, p="q"), "needs the column 'q'"),
        (lambda: bland_altman(POINTS, LIMITS.iloc[:0], CHI, panel=None), "needs one row of limits"),
        (lambda: heat_map(pd.DataFrame(), "r"), "no cell"),
        (lambda: curves(POWER, "n", "size", "n", "n"), "needs the column 'size'"),
        (lambda: courses(COURSES, CHI, time="age"), "needs the column 'age'"),
    ],
)
def test_what_cannot_be_drawn_is_said(chart: Callable[[], Chart], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chart()


@pytest.mark.parametrize(
    ("units", "factor", "label"),
    [
        ("ppm", 1000, "χ (ppb)"),
        ("ppm/year", 1000, "χ (ppb/year)"),
        ("1/s", 1, "χ (1/s)"),
        ("", 1, "χ"),
    ],
)
def test_susceptibility_is_shown_in_ppb(units: str, factor: float, label: str) -> None:
    quantity = quantity_of("Chimap", units)
    assert (quantity.factor, quantity.label) == (factor, label)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-2.5, "−2.5"),
        (12500.0, "12,500"),
        (400000.0, "4×10⁵"),
        (0.0025, "0.0025"),
        (-1.5e-5, "−1.5×10⁻⁵"),
    ],
)
def test_numbers_at_an_axis(value: float, text: str) -> None:
    ax = Figure().subplots()
    plain_ticks(ax)
    assert ax.xaxis.get_major_formatter()(value, 0) == text


def test_structures_have_their_side() -> None:
    names = pd.Series(["Left-Putamen", "Right-Putamen", "Brain-Stem", "Caudate", "Vermis"])
    sides = pd.Series(["L", "right", "B", "left", None])
    labels = ["Putamen L", "Putamen R", "Brain-Stem", "Caudate L", "Vermis"]
    assert structure_labels(names, sides).tolist() == labels
