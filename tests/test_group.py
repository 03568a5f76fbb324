from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from bids_qsm.bids.dataset import prepare_output_dir
from bids_qsm.cli import main
from bids_qsm.report.record import SeriesRecord, TableRecord, record_to_json
from bids_qsm.settings import Settings


def processed(folder: Path) -> tuple[Path, Path]:
    """A dataset, with tables and records of two subjects as the participant level leaves them."""
    bids, out = folder / "bids", folder / "out"
    bids.mkdir()
    fields = {"Name": "x", "BIDSVersion": "1.10.0"}
    (bids / "dataset_description.json").write_text(json.dumps(fields))
    prepare_output_dir(Settings(bids, out))
    (out / "logs").mkdir()
    for subject, session, mean in (("01", "1", 0.1), ("01", "2", 0.12), ("02", "1", 0.2)):
        name = f"sub-{subject}_ses-{session}"
        table = f"sub-{subject}/ses-{session}/anat/{name}_atlas-A_desc-regions_stats.tsv"
        (out / table).parent.mkdir(parents=True)
        header = "index\tname\themisphere\tmeasure\tunits\treference\tmean\n"
        rows = f"10\tLeft thalamus\tL\tChimap\tppm\twhole brain\t{mean}\n"
        rows += f"10\tLeft thalamus\tL\tR2starmap\t1/s\tn/a\t{100 * mean}\n"
        (out / table).write_text(header + rows)
        tables = (TableRecord("stats", table, "A"),)
        record = SeriesRecord(subject, session, name, "0", {}, (), (), (), tables=tables)
        (out / "logs" / f"{name}_record.json").write_text(record_to_json(record))
    return bids, out


def test_one_table_over_all_subjects_with_their_columns(tmp_path, capsys) -> None:
    bids, out = processed(tmp_path)
    (bids / "participants.tsv").write_text("participant_id\tage\nsub-01\t40\nsub-02\tn/a\n")
    (bids / "sub-01").mkdir()
    (bids / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tedss\nses-1\t2\nses-2\t3\n")
    assert main([str(bids), str(out), "group"]) == 0
    assert "3 series of 2 subjects, 6 rows" in capsys.readouterr().out
    table = pd.read_csv(out / "group_regions.tsv", sep="\t", keep_default_na=False)
    assert table["participant_id"].tolist() == ["sub-01"] * 4 + ["sub-02"] * 2
    assert table["edss"].tolist()[:4] == ["2", "2", "3", "3"]
    assert table["age"].tolist() == ["40"] * 4 + ["n/a"] * 2
    assert table["reference"].tolist() == ["whole brain", "n/a"] * 3
    assert table["mean"].tolist() == [0.1, 10, 0.12, 12, 0.2, 20]


def test_only_the_wanted_subjects(tmp_path) -> None:
    bids, out = processed(tmp_path)
    assert main([str(bids), str(out), "group", "--participant-label", "02"]) == 0
    table = pd.read_csv(out / "group_regions.tsv", sep="\t")
    assert set(table["participant_id"]) == {"sub-02"}


@pytest.mark.parametrize(
    ("spoil", "status", "sentence"),
    [
        (lambda out: [p.unlink() for p in out.glob("logs/*")], 18, "participant level first"),
        (lambda out: next(out.glob("logs/*")).write_text("{"), 66, "process the subject again"),
        (lambda out: next(out.rglob("*stats.tsv")).unlink(), 66, "cannot be read"),
    ],
)
def test_what_is_missing_or_damaged_is_said(tmp_path, capsys, spoil, status, sentence) -> None:
    bids, out = processed(tmp_path)
    spoil(out)
    assert main([str(bids), str(out), "group"]) == status
    assert sentence in capsys.readouterr().err
    assert not (out / "group_regions.tsv").exists()
