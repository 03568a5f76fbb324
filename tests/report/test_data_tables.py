from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_qsm.report.data_tables import LARGEST, data_table
from bids_qsm.report.tables import Table


def column(table: Table, title: str) -> list[str]:
    place = [c.title for c in table.columns].index(title)
    return [row.cells[place][0].text for row in table.rows]


def results() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "structure": ["Left-Putamen", "Right-Putamen", "Left-Putamen"],
            "hemisphere": ["L", "R", "L"],
            "measure": ["Chimap", "Chimap", "R2starmap"],
            "units": ["ppm", "ppm", "1/s"],
            "n_a": [37, 36, 37],
            "mean_a": [0.1071, 0.0921, 35.62],
            "sd_a": [0.0183, 0.02, 4.61],
            "difference": [0.0153, np.nan, -1.61],
            "ci_low": [0.0063, np.nan, -3.4],
            "ci_high": [0.0243, np.nan, 0.2],
            "p_welch": [0.00003, np.nan, 0.03],
            "converged": [True, True, False],
        }
    )


IN_UNITS = ("mean_a", "sd_a", "difference", "ci_low", "ci_high")


def test_titles_sides_and_units() -> None:
    table = data_table(results(), in_units=IN_UNITS)
    assert table.corner == "structure"
    assert [row.name for row in table.rows] == ["Putamen L", "Putamen R", "Putamen L"]
    assert [c.title for c in table.columns] == [
        "measure", "units", "n A", "mean ± SD A", "difference", "95 % CI", "p (Welch)", "converged",
    ]  # fmt: skip
    assert column(table, "measure") == ["χ", "χ", "R2*"]
    assert column(table, "units") == ["ppb", "ppb", "1/s"]
    assert [c.title for c in table.columns if c.is_text] == ["measure", "units"]


def test_numbers_of_one_unit_share_their_decimals() -> None:
    table = data_table(results(), in_units=IN_UNITS)
    assert column(table, "mean ± SD A") == ["107 ± 18", "92 ± 20", "35.6 ± 4.6"]
    assert column(table, "difference") == ["15.3", "–", "−1.61"]
    assert column(table, "95 % CI") == ["[6.3, 24.3]", "–", "[−3.4, 0.2]"]
    assert column(table, "p (Welch)") == ["0.00003", "–", "0.030"]
    assert column(table, "n A") == ["37", "36", "37"]
    assert column(table, "converged") == ["yes", "yes", "no"]


def test_values_stay_in_ppm_where_nothing_is_said() -> None:
    table = data_table(results())
    assert column(table, "units") == ["ppm", "ppm", "1/s"]
    assert column(table, "mean ± SD A")[0] == "0.107 ± 0.018"


def test_cells_are_sorted_by_their_numbers() -> None:
    table = data_table(results(), in_units=IN_UNITS)
    values = [row.cells[5][0].value for row in table.rows]
    assert values == [pytest.approx(6.3), None, -3.4]


def test_unlike_numbers_keep_their_digits() -> None:
    frame = pd.DataFrame({"name": list("abcd"), "value": [1234.5, 0.00123, 0.5, 0.0]})
    assert column(data_table(frame), "value") == ["1234", "0.00123", "0.500", "0"]


def test_columns_are_chosen_and_titled() -> None:
    table = data_table(results(), {"measure": "what", "n_a": "", "ci_high": "upper end"})
    assert table.corner == "what"
    assert [c.title for c in table.columns] == ["n A", "upper end"]  # no interval without its low
    assert column(table, "upper end")[0] == "0.0243"


def test_intervals_of_other_columns() -> None:
    frame = pd.DataFrame(
        {"name": ["a"], "icc_2_1": [0.9], "icc_2_1_low": [0.8], "icc_2_1_high": 0.95}
    )
    table = data_table(frame)
    assert [c.title for c in table.columns] == ["ICC(2,1)", "ICC(2,1), CI"]
    assert column(table, "ICC(2,1), CI") == ["[0.80, 0.95]"]


def test_a_mean_with_its_interval_and_deviation() -> None:
    frame = pd.DataFrame(
        {"name": ["a"], "mean": 9.51, "mean_low": 8.0, "mean_high": 11.0, "sd": 1.5}
    )
    table = data_table(frame)
    assert [c.title for c in table.columns] == ["mean ± SD", "mean, CI"]
    assert column(table, "mean, CI") == ["[8, 11]"]
    assert column(table, "mean ± SD") == ["9.51 ± 1.50"]


def test_decimals_that_say_nothing_are_left_out() -> None:
    frame = pd.DataFrame({"name": ["a", "b"], "alpha": 0.05, "effect": [0.28, 0.5], "x": 0.0512})
    table = data_table(frame)
    assert column(table, "alpha") == ["0.05", "0.05"]
    assert column(table, "effect") == ["0.28", "0.50"]
    assert column(table, "x") == ["0.0512", "0.0512"]


def test_long_tables_are_cut() -> None:
    frame = pd.DataFrame({"name": range(LARGEST + 3)})
    assert len(data_table(frame).rows) == LARGEST


def test_an_absent_column_is_said() -> None:
    with pytest.raises(ValueError, match="no column 'mean', there are: structure, hemisphere"):
        data_table(results(), {"mean": ""})


def test_the_frame_is_left_as_it_was() -> None:
    frame = results()
    data_table(frame, in_units=IN_UNITS)
    pd.testing.assert_frame_equal(frame, results())
