"""Pages and methods texts are made anew where records have changed, and only there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bids_qsm import pages
from bids_qsm.bids.naming import record_path
from bids_qsm.bids.publishing import write_text
from bids_qsm.report.record import SeriesRecord, StepRecord, record_to_json

RECORD = SeriesRecord(
    subject="1",
    session=None,
    name="sub-1_run-2",
    version="1.0",
    facts={},
    steps=(StepRecord("inversion", "tv"),),
    warnings=(),
    figures=(),
    reference=None,
    tables=(),
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder of two subjects, one of them with two runs; 2 comes before 10."""
    write_record(tmp_path, RECORD)
    write_record(tmp_path, replace(RECORD, name="sub-1_run-10"))
    write_record(tmp_path, replace(RECORD, subject="10", name="sub-10"))
    return tmp_path


def write_record(out: Path, record: SeriesRecord) -> None:
    write_text(out / record_path(record.name), record_to_json(record))


def written(out: Path) -> dict[str, int]:
    """Return all pages and methods texts, with the file that each is now: a new one has another."""
    pages.write_old_pages({"1", "10", "nobody"}, out)
    pages.write_old_citations(out)
    files = [*out.glob("*.html"), *(out / "logs").glob("CITATION.*")]
    return {path.name: path.stat().st_ino for path in files}


def test_names_of_each_subject_in_order(out: Path) -> None:
    assert pages.names_with_records(out) == {"1": ["sub-1_run-2", "sub-1_run-10"], "10": ["sub-10"]}
    assert pages.names_of("1", out) == ["sub-1_run-2", "sub-1_run-10"]
    assert pages.names_of("2", out) == []


def test_what_is_current_stays_and_what_is_old_is_written(out: Path) -> None:
    first = written(out)
    kinds = {f"CITATION.{end}" for end in ("md", "html", "tex", "bib")}
    assert set(first) == {"sub-1.html", "sub-10.html", *kinds}
    assert written(out) == first
    page = (out / "sub-1.html").read_text()
    assert page.index("run-2") < page.index("run-10")
    write_record(out, replace(RECORD, steps=(StepRecord("inversion", "medi"),)))
    second = written(out)
    assert {name for name in second if second[name] != first[name]} == {"sub-1.html", *kinds}
    assert "sub-1_run-2" in (out / "logs" / "CITATION.md").read_text()  # apart from the others


def test_a_killed_run_leaves_methods_that_the_next_one_writes(out: Path, monkeypatch) -> None:
    first = written(out)
    write_record(out, replace(RECORD, steps=()))
    pages.write_page("1", out)  # by the process of the series
    (out / "logs" / "CITATION.md").unlink()  # and then it was killed
    second = written(out)
    assert second["CITATION.md"] != first["CITATION.md"]
    assert written(out) == second


def test_records_of_another_version_are_passed_over(out: Path) -> None:
    (out / record_path("sub-10")).write_text("{}")
    assert pages.read_record("sub-10", out) is None
    assert "sub-10.html" not in written(out)
