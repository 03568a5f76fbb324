from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bids_qsm.report.tables import Cell, Group, read_table


def test_structures_are_rows_with_left_and_right(output_dir: Path) -> None:
    table = read_table(output_dir / "stats.tsv", "lateral ventricles")
    assert table.groups == (
        Group("R2*", "1/s"),
        Group("χ", "ppb", "lateral ventricles"),
        Group("Volume", "mm³"),
    )
    assert [row.name for row in table.rows] == ["Caudate", "Brain-Stem"]
    relaxation, chi, volume = table.rows[0].cells
    assert relaxation == (Cell("21.4 ± 2.0"), Cell("22.0 ± 2.0"))
    assert chi == (Cell("45.6 ± 12.3"), Cell("–", partial=True))
    assert volume == (Cell("3500"), Cell("3400"))


def test_a_structure_of_both_sides_has_one_cell(output_dir: Path) -> None:
    table = read_table(output_dir / "stats.tsv", "lateral ventricles")
    assert table.rows[1].cells[1] == (Cell("−9.8 ± 15.0", partial=True),)


def test_all_references_are_shown_where_the_one_asked_for_is_absent(output_dir: Path) -> None:
    table = read_table(output_dir / "stats.tsv", None)
    assert [group.note for group in table.groups] == ["", "lateral ventricles", "whole brain", ""]


def test_a_table_without_rows_is_empty(tmp_path: Path, output_dir: Path) -> None:
    header = (output_dir / "stats.tsv").read_text(encoding="utf-8").splitlines()[0]
    (tmp_path / "empty.tsv").write_text(header + "\n", encoding="utf-8")
    assert read_table(tmp_path / "empty.tsv", None).rows == ()


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("name\tvalue\na\t1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no column 'hemisphere'"):
        read_table(tmp_path / "x.tsv", None)


def test_left_and_right_of_a_structure_share_a_row(output_dir: Path, tmp_path: Path) -> None:
    text = (output_dir / "stats.tsv").read_text(encoding="utf-8")
    table = pd.read_csv(output_dir / "stats.tsv", sep="\t", keep_default_na=False)
    sides = {"L": "Left ", "R": "right-"}
    table["name"] = [
        sides.get(h[:1], "") + n for h, n in zip(table.hemisphere, table.name, strict=True)
    ]
    table.to_csv(tmp_path / "sided.tsv", sep="\t", index=False)
    assert "Left " not in text
    wanted = read_table(output_dir / "stats.tsv", "lateral ventricles")
    assert read_table(tmp_path / "sided.tsv", "lateral ventricles") == wanted
