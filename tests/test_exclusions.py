from __future__ import annotations

from pathlib import Path

import pytest

from bids_qsm.errors import NothingToDoError, UnreadableInputError
from bids_qsm.exclusions import Exclusion, read_exclusions, split_records, without_scan
from bids_qsm.report.record import SeriesRecord


def record(subject: str, session: str | None = None, acq: str = "") -> SeriesRecord:
    name = f"sub-{subject}" + (f"_ses-{session}" if session else "") + acq
    return SeriesRecord(subject, session, name, "1", {}, (), (), ())


RECORDS = [record("01", "1"), record("01", "2"), record("02"), record("02", acq="_acq-fine")]


def names_left_out(*exclusions: Exclusion) -> list[str]:
    return [found.name for found, _ in split_records(RECORDS, exclusions)[1]]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.tsv"
    path.write_text(text.replace(",", "\t"), encoding="utf-8")
    return path


def test_a_list_of_participants_sessions_and_series(tmp_path) -> None:
    text = (
        "participant_id,session_id,series,reasons\nsub-01,n/a,n/a,moved\n02,2,,\n03,,sub-03_run-1\n"
    )
    assert read_exclusions(written(tmp_path, text)) == (
        Exclusion("sub-01", "", "", "moved"),
        Exclusion("sub-02", "ses-2"),
        Exclusion("sub-03", "", "sub-03_run-1"),
    )
    assert read_exclusions(None) == ()


def test_a_spreadsheet_may_have_changed_the_file(tmp_path) -> None:
    text = "\ufeffparticipant_id,exclude\r\nsub-01,TRUE\r\nsub-02, yes \r\n,true\r\n"
    assert [e.participant_id for e in read_exclusions(written(tmp_path, text))] == [
        "sub-01",
        "sub-02",
    ]


def test_only_what_is_to_be_excluded_counts(tmp_path) -> None:
    rows = {"01": "true", "02": "false", "03": "n/a", "04": "1", "05": "", "06": "0", "07": "No"}
    text = "participant_id,exclude\n" + "".join(f"{k},{v}\n" for k, v in rows.items())
    found = read_exclusions(written(tmp_path, text))
    assert [e.participant_id for e in found] == ["sub-01", "sub-04"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"nope.tsv: the list of exclusions cannot be read \(No such file or directory\)\."),
        ("", "the list of exclusions cannot be read"),
        ("id;why\n1;2\n", "needs a column 'participant_id', with tabs between columns; there are"),
        ("participant_id,exclude\n01,perhaps\n", "holds 'perhaps'; write true or false"),
    ],
)
def test_a_bad_list_is_said_in_one_sentence(tmp_path, text, sentence) -> None:
    path = tmp_path / "nope.tsv" if text is None else written(tmp_path, text)
    with pytest.raises(UnreadableInputError, match=sentence) as error:
        read_exclusions(path)
    assert "\n" not in str(error.value)


def test_rows_without_session_or_series_are_of_all() -> None:
    assert names_left_out(Exclusion("sub-01")) == ["sub-01_ses-1", "sub-01_ses-2"]
    assert names_left_out(Exclusion("sub-01", "ses-2")) == ["sub-01_ses-2"]
    assert names_left_out(Exclusion("sub-02", "", "sub-02_acq-fine")) == ["sub-02_acq-fine"]
    assert names_left_out(Exclusion("sub-02", "ses-1")) == []
    kept, left_out = split_records(RECORDS, [Exclusion("sub-02", reason="a"), Exclusion("sub-02")])
    assert [found.name for found in kept] == ["sub-01_ses-1", "sub-01_ses-2"]
    assert [reason for _, reason in left_out] == ["a", "a"]


def test_all_must_not_be_left_out() -> None:
    with pytest.raises(NothingToDoError, match="leaves none of the 4 scans"):
        split_records(RECORDS, [Exclusion("sub-01"), Exclusion("sub-02")])


def test_who_is_not_there_is_said() -> None:
    exclusions = [Exclusion("sub-01"), Exclusion("sub-09"), Exclusion("sub-01", "ses-3")]
    assert without_scan(RECORDS, exclusions) == (
        "The list of exclusions names sub-09, sub-01 ses-3, of which there is no scan; check its "
        "spelling.",
    )
    assert without_scan(RECORDS, exclusions[:1]) == ()
