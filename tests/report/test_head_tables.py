from __future__ import annotations

from pathlib import Path

import pytest

from bids_qsm.report.head_tables import (
    CHECKS_NEEDED,
    LESIONS_NEEDED,
    MEASURES_NEEDED,
    check_table,
    lesion_table,
    load_table,
    measure_table,
    total_load,
)
from bids_qsm.report.tables import Cell, Column, Table, read_rows

Rows = list[dict[str, str]]


def texts(table: Table) -> list[list[str]]:
    """Return what each row says; there is one cell for each column."""
    return [[row.name, *(cell.text for (cell,) in row.cells)] for row in table.rows]


@pytest.fixture
def lesions(output_dir: Path) -> Rows:
    return read_rows(output_dir / "lesions.tsv", LESIONS_NEEDED)


@pytest.fixture
def measures(output_dir: Path) -> Rows:
    return read_rows(output_dir / "morphometry.tsv", MEASURES_NEEDED)


@pytest.fixture
def checks(output_dir: Path) -> Rows:
    return read_rows(output_dir / "quality.tsv", CHECKS_NEEDED)


def test_each_lesion_is_a_row(lesions: Rows) -> None:
    table = lesion_table(lesions)
    assert [column.unit for column in table.columns] == ["mm³", "", "", "mm", "ppb", "1/s", "mm"]
    assert [" | ".join(row) for row in texts(table)] == [
        "1 | 1250 | periventricular | insula | 2.5 | −56.7 ± 1.2 | 20.0 ± 3.9 | 20, −23, 22",
        "2 | 63 | deep white | frontal | 6.1 | – | – | −26, 0, 21",
        "3 | 20 | – | parietal | 16.0 | 31.0 | 18.0 | 1, 2, 3",
    ]
    assert table.rows[0].cells[4][0].value == pytest.approx(-56.7)
    assert table.rows[1].cells[4][0].value is None


def test_total_load_is_the_sum_of_the_volumes(lesions: Rows) -> None:
    assert total_load(lesions) == "3 lesions, 1.33 mL in all."
    assert total_load(lesions[1:2]) == "1 lesion, 0.06 mL in all."
    assert total_load([]) == "No lesion was found: the load is 0 mL."


def test_load_has_number_and_volume_side_by_side(measures: Rows) -> None:
    assert texts(load_table(measures)) == [
        ["T2 lesions", "3", "1.33", "1.46"],
        ["enhancing lesions", "1", "0.05", "0.05"],
    ]


def test_volumes_are_those_of_tissues_and_structures(measures: Rows) -> None:
    table = measure_table(measures, "volume")
    assert table.columns == (
        Column("Side", is_text=True),
        Column("Volume", "mL"),
        Column("Normalised", "mL"),
        Column("Measured by", is_text=True),
    )
    assert texts(table) == [
        ["grey matter", "both", "640.2", "701.5", "bids-qsm"],
        ["white matter", "both", "505.8", "554.1", "bids-qsm"],
        ["thalamus", "left", "7.0", "7.5", "FreeSurfer"],
    ]


def test_columns_that_tell_nothing_are_left_out(measures: Rows) -> None:
    table = measure_table(measures[:3], "volume")
    assert [column.title for column in table.columns] == ["Volume", "Normalised"]
    assert texts(table) == [["grey matter", "640.2", "701.5"], ["white matter", "505.8", "554.1"]]


def test_thickness_is_not_normalised(measures: Rows) -> None:
    table = measure_table(measures, "thickness")
    assert table.columns[1] == Column("Thickness", "mm")
    assert texts(table) == [
        ["cortex", "both", "2.51", "bids-qsm"],
        ["frontal", "left", "2.60", "bids-qsm"],
        ["cortex", "both", "2.45", "FreeSurfer"],
    ]
    assert measure_table(measures[:2], "thickness").rows == ()


def test_checks_that_failed_come_first(checks: Rows) -> None:
    table = check_table(checks)
    assert texts(table) == [
        ["volume", "caudate, right", "0.9 mL", "1.8 to 6.5 mL", "failed"],
        ["R2*", "lateral ventricle, left", "1234 1/s", "at most 12 1/s", "failed"],
        ["volume", "caudate, left", "3.52 mL", "1.8 to 6.5 mL", "passed"],
        ["voxels at the edge", "caudate, left", "0", "0", "passed"],
        ["volume asymmetry", "caudate", "−0.162", "−0.4 to 0.4", "passed"],
        ["right beyond left", "caudate", "27.4 mm", "at least 2 mm", "passed"],
    ]
    assert table.rows[0].cells[3] == (Cell("failed", mark="failed"),)
    assert table.rows[4].cells[1][0].value == -0.162


def test_a_value_that_was_not_found_fails(checks: Rows) -> None:
    row = checks[0] | {"value": "n/a", "passed": "False"}
    assert texts(check_table([row])) == [
        ["volume", "caudate, left", "–", "1.8 to 6.5 mL", "failed"]
    ]


def test_text_in_the_place_of_a_number_is_refused(lesions: Rows) -> None:
    with pytest.raises(ValueError, match="column 'volume_mm3' holds 'big'"):
        lesion_table([lesions[0] | {"volume_mm3": "big"}])
