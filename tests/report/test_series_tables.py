from __future__ import annotations

import dataclasses
from pathlib import Path

from bids_qsm.report.record import ReferenceRecord, SeriesRecord, TableRecord
from bids_qsm.report.series_tables import TableSection, table_sections


def sections(record: SeriesRecord, output_dir: Path) -> dict[str, TableSection]:
    return {section.key: section for section in table_sections(record, "s1", output_dir)}


def test_all_tables_have_their_place(series_record: SeriesRecord, output_dir: Path) -> None:
    found = sections(series_record, output_dir)
    assert [(key, [block.title for block in part.blocks]) for key, part in found.items()] == [
        ("s1-table", ["DesikanKilliany"]),
        ("s1-lesions", ["Each lesion", "Load"]),
        ("s1-tissues", ["Volumes", "Thickness"]),
        ("s1-checks", ["DesikanKilliany"]),
    ]
    assert found["s1-lesions"].blocks[0].summary == ("3 lesions, 1.33 mL in all.",)
    assert [block.path for part in found.values() for block in part.blocks] == [
        "stats.tsv",
        "lesions.tsv",
        "morphometry.tsv",
        "morphometry.tsv",
        "morphometry.tsv",
        "quality.tsv",
    ]


def test_each_atlas_has_its_tables(series_record: SeriesRecord, output_dir: Path) -> None:
    text = (output_dir / "stats.tsv").read_text(encoding="utf-8")
    (output_dir / "more.tsv").write_text(text.replace("Caudate", "Red nucleus"), encoding="utf-8")
    tables = (*series_record.tables, TableRecord("stats", "more.tsv", "CIT168"))
    record = dataclasses.replace(series_record, tables=tables)
    first, second = sections(record, output_dir)["s1-table"].blocks
    assert (first.title, second.title) == ("DesikanKilliany", "CIT168")
    assert first.table is not None
    assert second.table is not None
    assert [row.name for row in first.table.rows] == ["Caudate", "Brain-Stem"]
    assert [row.name for row in second.table.rows] == ["Red nucleus", "Brain-Stem"]


def test_the_reference_is_said_with_its_values(
    series_record: SeriesRecord, output_dir: Path
) -> None:
    assert sections(series_record, output_dir)["s1-table"].summary == (
        "χ is relative to lateral ventricles: 4.1 ± 18.3 ppb over 8120 voxels before that mean "
        "was taken for zero (whole brain = 0).",
    )
    for reference in (None, ReferenceRecord("none", 0.0, 0.0, 0)):
        record = dataclasses.replace(series_record, reference=reference)
        assert sections(record, output_dir)["s1-table"].summary == ()


def test_checks_that_failed_are_counted_and_said(
    series_record: SeriesRecord, output_dir: Path
) -> None:
    (block,) = sections(series_record, output_dir)["s1-checks"].blocks
    assert block.summary == ("2 of 6 checks failed.",)
    assert block.failures == (
        "Right caudate: volume 0.9 mL, expected 1.8 to 6.5: small.",
        "Left lateral ventricle: R2* 1.23e+03 1/s: tissue.",
    )
    assert block.is_folded
    path = output_dir / "quality.tsv"
    path.write_text(path.read_text(encoding="utf-8").replace("False", "True"), encoding="utf-8")
    (block,) = sections(series_record, output_dir)["s1-checks"].blocks
    assert block.summary == ("All 6 checks passed.",)
    assert block.failures == ()


def test_veins_are_said_where_none_are_left_out(
    series_record: SeriesRecord, output_dir: Path
) -> None:
    path = output_dir / "stats.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()
    veins = ["\tn_vein_voxels\tmean_without_veins\tsd_without_veins"] + ["\t0\t1\t1"] * len(lines)
    path.write_text("\n".join(map(str.__add__, lines, veins)) + "\n", encoding="utf-8")
    (block,) = sections(series_record, output_dir)["s1-table"].blocks
    assert block.notes[-1].startswith("No voxel of a vein was found in a structure")
    path.write_text(path.read_text(encoding="utf-8").replace("\t0\t1\t1\n", "\t2\t1\t1\n"))
    (block,) = sections(series_record, output_dir)["s1-table"].blocks
    assert not [note for note in block.notes if "vein" in note]


def test_a_head_without_lesions(series_record: SeriesRecord, output_dir: Path) -> None:
    path = output_dir / "lesions.tsv"
    path.write_text(path.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    block = sections(series_record, output_dir)["s1-lesions"].blocks[0]
    assert block.table is None
    assert block.summary == ("No lesion was found: the load is 0 mL.",)


def test_what_is_not_there_is_said(
    series_record: SeriesRecord, bare_record: SeriesRecord, output_dir: Path
) -> None:
    assert list(sections(bare_record, output_dir)) == ["s1-table"]
    record = dataclasses.replace(series_record, tables=())
    said = {
        key: [block.missing for block in part.blocks]
        for key, part in sections(record, output_dir).items()
    }
    assert said == {
        "s1-table": ["There are no values of single structures."],
        "s1-lesions": [
            "There is no table of lesions: it takes a FLAIR image, or a mask of lesions given by "
            "-d lesions=PATH."
        ],
        "s1-tissues": ["Tissues were not measured: a warning says why."],
        "s1-checks": ["No labels were checked."],
    }


def test_a_broken_table_does_not_stop_the_others(
    series_record: SeriesRecord, output_dir: Path
) -> None:
    (output_dir / "lesions.tsv").unlink()
    (output_dir / "quality.tsv").write_text("nonsense\n1\n", encoding="utf-8")
    found = sections(series_record, output_dir)
    assert found["s1-lesions"].blocks[0].missing == "The table lesions.tsv is missing."
    assert found["s1-checks"].blocks[0].missing == (
        "The table quality.tsv cannot be read: it has no column 'check'."
    )
    assert found["s1-tissues"].blocks[0].table is not None


def test_checks_of_the_data_are_shown_with_and_without_a_t1w(
    series_record: SeriesRecord, bare_record: SeriesRecord, output_dir: Path
) -> None:
    (output_dir / "series.tsv").write_text(
        "check\tname\tvalue\tlow\thigh\tunits\tdirection\tpassed\tsentence\n"
        "signal to noise\tfirst echo\t5\t10\tn/a\tn/a\tlow\tFalse\tFirst echo: noisy.\n"
        "streak index\tsusceptibility\tn/a\tn/a\t2\tn/a\thigh\tn/a\tNot measured.\n"
        "phase noise\tfirst echo\t0.02\tn/a\t0.1\trad\thigh\tTrue\tAs expected.\n",
        encoding="utf-8",
    )
    for record in (series_record, bare_record):
        tables = (*record.tables, TableRecord("series_quality", "series.tsv"))
        found = sections(dataclasses.replace(record, tables=tables), output_dir)
        assert list(found)[-1] == "s1-quality"
        (block,) = found["s1-quality"].blocks
        assert block.summary == ("1 of 3 checks failed.",)
        assert block.failures == ("First echo: noisy.",)
        assert block.table is not None
        verdicts = [(row.name, row.cells[-1][0].text) for row in block.table.rows]
        assert verdicts == [
            ("signal to noise", "failed"),
            ("streak index", "–"),
            ("phase noise", "passed"),
        ]
