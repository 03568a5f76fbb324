from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bids_qsm.report.region_table import REGIONS_NEEDED, leaves_out_veins, region_table
from bids_qsm.report.tables import Cell, Column, read_rows

SIDES = ("left", "right")
Rows = list[dict[str, str]]


@pytest.fixture
def rows(output_dir: Path) -> Rows:
    return read_rows(output_dir / "stats.tsv", REGIONS_NEEDED)


def test_structures_are_rows_with_left_and_right(rows: Rows) -> None:
    table = region_table(rows, "lateral ventricles")
    assert table.columns == (
        Column("R2*", "1/s", parts=SIDES),
        Column("χ", "ppb", parts=SIDES),
        Column("Volume", "mm³", parts=SIDES),
    )
    assert [row.name for row in table.rows] == ["Caudate", "Brain-Stem"]
    relaxation, chi, volume = table.rows[0].cells
    assert relaxation == (Cell("21.4 ± 2.0", 21.44), Cell("22.0 ± 2.0", 22.0))
    assert chi == (Cell("45.6 ± 12.3", pytest.approx(45.6)), Cell("–", mark="partial"))
    assert volume == (Cell("3500", 3500.4), Cell("3400", 3400))


def test_a_structure_of_both_sides_has_one_cell(rows: Rows) -> None:
    chi = region_table(rows, "lateral ventricles").rows[1].cells[1]
    assert chi == (Cell("−9.8 ± 15.0", pytest.approx(-9.8), "partial"),)


def test_all_references_are_shown_where_the_one_asked_for_is_absent(rows: Rows) -> None:
    notes = [column.note for column in region_table(rows, None).columns]
    assert notes == ["", "relative to lateral ventricles", "relative to whole brain", ""]


def test_values_without_veins_stand_beside_the_others(rows: Rows) -> None:
    added = {"n_vein_voxels": "0", "mean_without_veins": "n/a", "sd_without_veins": "n/a"}
    rows = [row | added for row in rows]
    assert not leaves_out_veins(rows)
    assert len(region_table(rows, "lateral ventricles").columns) == 3
    rows[3] |= {
        "n_vein_voxels": "7",
        "mean_without_veins": "0.0402",
        "sd_without_veins": "0.0111",
    }
    assert leaves_out_veins(rows)
    table = region_table(rows, "lateral ventricles")
    assert [(column.title, column.note) for column in table.columns] == [
        ("R2*", ""),
        ("R2*", "without veins"),
        ("χ", ""),
        ("χ", "without veins"),
        ("Volume", ""),
    ]
    caudate = table.rows[0].cells
    assert [cells[0].text for cells in caudate[2:4]] == ["45.6 ± 12.3", "40.2 ± 11.1"]
    assert caudate[3][0].value == pytest.approx(40.2)


def test_confidence_and_separated_sources_are_shown_where_they_are(rows: Rows) -> None:
    rows = [row | {"confidence": "0.876" if row["name"] == "Caudate" else "n/a"} for row in rows]
    rows.append(rows[3] | {"measure": "ParamagneticChimap", "mean": "0.1", "sd": "0.02"})
    table = region_table(rows, "lateral ventricles")
    titles = [column.title for column in table.columns]
    assert titles == ["R2*", "χ", "χ paramagnetic", "Volume", "Confidence"]
    assert table.rows[0].cells[2] == (Cell("100.0 ± 20.0", 100.0), Cell("–"))
    assert table.rows[0].cells[4][0].text == "88"


def test_a_measure_that_is_not_known_is_left_out(rows: Rows) -> None:
    table = region_table([*rows, rows[0] | {"measure": "S0map"}], "lateral ventricles")
    assert table == region_table(rows, "lateral ventricles")
    assert region_table([], None).rows == ()


def test_left_and_right_of_a_structure_share_a_row(rows: Rows) -> None:
    prefixes = {"L": "Left ", "R": "right-", "B": ""}
    sided = [row | {"name": prefixes[row["hemisphere"]] + row["name"]} for row in rows]
    assert region_table(sided, "lateral ventricles") == region_table(rows, "lateral ventricles")


def test_order_is_that_of_the_table(rows: Rows) -> None:
    table = region_table(rows, "lateral ventricles")
    turned = region_table(rows[::-1], "lateral ventricles")
    assert turned.rows[0].name == "Brain-Stem"
    assert {row.name for row in turned.rows} == {row.name for row in table.rows}
    assert dataclasses.replace(turned.columns[0], title="R2*", unit="1/s") == table.columns[0]
