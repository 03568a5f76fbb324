from __future__ import annotations

import math
from pathlib import Path

import pytest

from bids_qsm.report.tables import Cell, mean_cell, number, number_cell, read_rows


def test_rows_are_texts_by_column(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text('name\tvalue\nNA\t1\n"a ""b"""\tn/a\n', encoding="utf-8")
    assert read_rows(path, ["value"]) == [
        {"name": "NA", "value": "1"},
        {"name": 'a "b"', "value": "n/a"},
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"name\tvalue\na\t1\n", "no column 'hemisphere'"),
        (b"", "no column 'name'"),
        (b"name\themisphere\na\n", "a row is not as long as the header"),
        (b"name\themisphere\na\tL\t1\n", "a row is not as long as the header"),
        (b"name\themisphere\n\xff\tL\n", "utf-8"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "x.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        read_rows(tmp_path / "x.tsv", ["name", "hemisphere"])


def test_numbers() -> None:
    row = {"a": "-1.5", "b": "n/a", "c": "many"}
    assert number(row, "a") == -1.5
    assert math.isnan(number(row, "b"))
    assert math.isnan(number(row, "absent"))
    with pytest.raises(ValueError, match="column 'c' holds 'many', which is no number"):
        number(row, "c")


def test_cells_are_rounded_but_sorted_by_the_value() -> None:
    assert number_cell(-12.345, 1) == Cell("−12.3", -12.345)
    assert number_cell(math.nan, 1) == Cell("–")
    assert mean_cell(-12.345, 2.0, partial=True) == Cell("−12.3 ± 2.0", -12.345, "partial")
    assert mean_cell(3.0, math.nan) == Cell("3.0", 3.0)
    assert mean_cell(math.nan, 1.0) == Cell("–")
