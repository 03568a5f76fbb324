"""Quality of all scans at the group level: gathered, judged, proposed, and honoured."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bids_qsm.bids.naming import output_path
from bids_qsm.bids.publishing import encode_table
from bids_qsm.cli import main
from bids_qsm.errors import UnreadableInputError
from bids_qsm.gathering import gather, read_records
from bids_qsm.numerics.series_quality import judged, metrics_table
from bids_qsm.quality import comparable, gather_quality, write_quality
from bids_qsm.report.record import SeriesRecord
from tests.analyses.tiny import Tiny, make, small_pictures

QUICK = '[[analysis]]\nname = "sizes"\nkind = "power"\n'
BAD = "sub-03_ses-2"
FACTS = {"Field strength": "3 T", "Echo times": "4, 8, 12 ms", "Voxel size": "1 x 1 x 2 mm"}


def add_quality(tiny: Tiny) -> None:
    """Give each scan its tables of quality; one has a noisy phase and a swollen thalamus."""
    rng = np.random.default_rng(1)
    for path in sorted(tiny.out.glob("logs/*.json")):
        record = json.loads(path.read_text())
        name = record["name"]
        noise, volume = 0.02 * np.exp(rng.normal(0, 0.1)), 7 * np.exp(rng.normal(0, 0.1))
        if name == BAD:
            noise, volume = 0.4, 20.0
        values = [("phase_noise", "first echo", noise), ("clipping", "first echo", 0.0)]
        values += [("field_range", "field", 70 * np.exp(rng.normal(0, 0.1)))]
        series = metrics_table(judged(values, 128.0)).drop(columns="hemisphere")
        labels = pd.DataFrame({"check": ["volume"], "name": ["thalamus"], "hemisphere": ["L"]})
        labels = labels.assign(value=volume, low=3.5, high=12.0, units="mL", passed=volume < 12)
        tables = {output_path(name, "series_quality"): (series, None)}
        tables[output_path(name, "quality", atlas="tiny")] = (labels.assign(sentence="x"), "tiny")
        for key, (place, (table, atlas)) in zip(
            ("series_quality", "quality"), tables.items(), strict=True
        ):
            (tiny.out / place).write_text(encode_table(table), encoding="utf-8")
            record["tables"].append({"key": key, "path": place.as_posix(), "atlas": atlas})
        path.write_text(json.dumps({**record, "facts": FACTS}))


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Tiny:
    tiny = make(tmp_path_factory.mktemp("original"), n_each=3)
    add_quality(tiny)
    (tiny.bids.parent / "quick.toml").write_text(QUICK)
    return tiny


@pytest.fixture
def tiny(original: Tiny, tmp_path) -> Tiny:
    folder = tmp_path / "copy"
    shutil.copytree(original.bids.parent, folder)
    return Tiny(folder / "bids", folder / "out", folder / "tiny.nii.gz", original.plan)


def run(tiny: Tiny, *words: str) -> int:
    with small_pictures():
        return main([*tiny.words, "--model", str(tiny.bids.parent / "quick.toml"), *words])


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False)


def test_the_proposed_list_is_edited_given_back_and_honoured(tiny: Tiny, capsys) -> None:
    assert run(tiny) == 0
    quality = read(tiny.out / "group_quality.tsv")
    assert len(quality[quality["atlas"].isna()]) == 12 * (3 + 1)  # a distance in all three
    assert len(quality[quality["atlas"] == "tiny"]) == 12
    row = quality.query("series == @BAD and check == 'phase noise'").iloc[0]
    assert (row["value"], row["is_outlier"], row["comparable"]) == (
        0.4, True, "3 T, 3 echoes, 1 x 1 x 2 mm",
    )  # fmt: skip
    proposed = read(tiny.out / "group_exclusions.tsv")
    assert proposed["series"].iloc[0] == BAD
    assert proposed["exclude"].tolist() == [True] + [False] * 11
    assert proposed["reasons"].iloc[0].startswith("phase noise (first echo) 0.4 rad, expected at")
    scans = read(tiny.out / "group_scans.tsv")
    assert len(scans) == 12  # nothing is left out by itself
    page = (tiny.out / "group.html").read_text()
    assert '<a href="./group_quality.html">1 of 12 scans flagged, 1 proposed for exclu' in page
    mine = tiny.bids.parent / "mine.tsv"
    other = proposed["series"] == "sub-01_ses-1"
    edited = proposed.assign(
        exclude=(proposed["exclude"] | other).map({True: "true", False: "false"}),
        reasons=proposed["reasons"].where(~other, "implant"),
    )
    mine.write_text(encode_table(edited))
    assert run(tiny, "--exclude", str(mine)) == 0
    assert "10 scans of 6 subjects" in capsys.readouterr().out
    left = {BAD, "sub-01_ses-1"}
    for name in ("group_scans", "group_regions", "group_morphometry"):
        assert not left & set(read(tiny.out / f"{name}.tsv")["series"])
    missing = read(tiny.out / "group_missing.tsv").set_index("unit")["reason"]
    assert missing["sub-01_ses-1"] == "excluded by mine.tsv: implant"
    page = (tiny.out / "group.html").read_text()
    assert "mine.tsv: 2 scans left out" in page
    assert "excluded by mine.tsv: implant" in page
    again = read(tiny.out / "group_exclusions.tsv").set_index("series")
    assert set(again.index[again["exclude"]]) == left
    assert again["reasons"]["sub-01_ses-1"] == "implant"
    assert "You: implant." in (tiny.out / "group_quality.html").read_text()


def test_the_list_in_use_is_not_written_over(tiny: Tiny) -> None:
    path = tiny.out / "group_exclusions.tsv"
    path.write_text("participant_id\tnote\nsub-02\tmine\n")
    settings = dataclasses.replace(tiny.settings, exclude_file=path)
    gathered = gather(settings)
    assert len(gathered.scans) == 10
    assert write_quality(settings, gathered).sentence.endswith("; 2 excluded")
    assert path.read_text() == "participant_id\tnote\nsub-02\tmine\n"
    assert "it was not written anew" in (tiny.out / "group_quality.html").read_text()


@pytest.mark.parametrize(
    ("rows", "status", "sentence"),
    [
        (["sub-99"], 0, "names sub-99, of which there is no scan"),
        ([f"sub-0{n}" for n in range(1, 7)], 18, "leaves none of the 12 scans"),
    ],
)
def test_unknown_participants_are_a_warning_and_all_of_them_an_error(
    tiny: Tiny, capsys, rows, status, sentence
) -> None:
    mine = tiny.bids.parent / "mine.tsv"
    mine.write_text("\n".join(["participant_id", *rows, ""]))
    assert run(tiny, "--exclude", str(mine)) == status
    page = tiny.out / "group.html"
    assert sentence in (page.read_text() if status == 0 else capsys.readouterr().err)


def test_an_exclusion_is_for_the_group_level(tiny: Tiny, capsys) -> None:
    words = [str(tiny.bids), str(tiny.out), "participant", "--exclude", "x.tsv"]
    assert main(words) == 2
    assert "for the group level" in capsys.readouterr().err


def test_tables_of_several_forms_are_read_as_they_are(tiny: Tiny) -> None:
    (path,) = tiny.out.rglob("sub-01_ses-1_desc-quality_stats.tsv")
    table = read(path).assign(added="more", value=np.nan, passed=np.nan)
    path.write_text(encode_table(table[["added", *table.columns.drop("added")]]))
    found = gather_quality(tiny.settings, list(read_records(tiny.settings)))
    rows = found[found["series"] == "sub-01_ses-1"]
    assert rows["passed"].tolist() == [None, None, None, True]
    assert rows["value"].isna().tolist() == [True, True, True, False]
    assert rows["direction"].tolist() == ["high", "high", "both", "both"]
    bad = found[found["series"] == BAD]
    assert bad["passed"].tolist() == [False, True, True, False]
    assert bad["value"].tolist()[:2] == [0.4, 0.0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(None, "cannot be read"), ("check\tname\n", "has no column 'value'"), ("", "cannot be read")],
)
def test_a_damaged_table_is_said(tiny: Tiny, text, sentence) -> None:
    (path,) = tiny.out.rglob("sub-01_ses-1_desc-quality_stats.tsv")
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UnreadableInputError, match=sentence) as error:
        gather_quality(tiny.settings, list(read_records(tiny.settings)))
    assert path.name in str(error.value)


def test_scans_without_tables_are_no_failure(tiny: Tiny) -> None:
    for path in tiny.out.glob("logs/*.json"):
        record = json.loads(path.read_text())
        kept = [table for table in record["tables"] if "quality" not in table["key"]]
        path.write_text(json.dumps({**record, "tables": kept}))
    found = write_quality(tiny.settings, gather(tiny.settings))
    assert found.path is None
    assert found.sentence.startswith("not measured")
    assert not (tiny.out / "group_quality.tsv").exists()


def test_scans_without_any_structures_have_their_quality(tiny: Tiny, capsys) -> None:
    for path in tiny.out.glob("logs/*_record.json"):
        record = json.loads(path.read_text())
        kept = [table for table in record["tables"] if table["key"] == "series_quality"]
        path.write_text(json.dumps({**record, "tables": kept}))
    with small_pictures():
        assert main([*tiny.words]) == 0
    assert "12 scans of 6 subjects, 0 rows" in capsys.readouterr().out
    scans = read(tiny.out / "group_scans.tsv")
    assert scans["age"].tolist() == tiny.plan.participants["age"].repeat(2).tolist()
    assert len(read(tiny.out / "group_regions.tsv")) == 0
    assert len(read(tiny.out / "group_missing.tsv")) == 12
    page = (tiny.out / "group.html").read_text()
    assert "No scan has structures" in page
    assert "group_quality.html" in page
    flagged = read(tiny.out / "group_exclusions.tsv")
    assert flagged.loc[flagged["exclude"], "series"].tolist() == [BAD]
    assert set(flagged["series"]) == set(scans["series"])


def test_scans_are_comparable_by_name_and_facts() -> None:
    def of(name: str, **facts: str) -> str:
        return comparable(SeriesRecord("1", None, name, "1", {**FACTS, **facts}, (), (), ()))

    first = of("sub-1_ses-1_acq-fine_run-1", Manufacturer="Siemens")
    assert first == "acq-fine, 3 T, 3 echoes, 1 x 1 x 2 mm, Siemens"
    assert of("sub-1_ses-2_acq-fine_run-2", Manufacturer="Siemens", Matrix="9") == first
    assert of("sub-1_acq-fine", Manufacturer="not stated") != first
    assert of("sub-1_acq-fine", Manufacturer="Siemens", **{"Echo times": "4.1, 8, 12 ms"}) == first
    assert comparable(SeriesRecord("1", None, "sub-1", "1", {}, (), (), ())) == "all scans"
