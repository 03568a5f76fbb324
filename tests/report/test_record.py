from __future__ import annotations

import dataclasses
import json

import pytest

from bids_qsm.report.record import (
    RunRecord,
    SeriesRecord,
    TableRecord,
    record_from_json,
    record_to_json,
)


def test_round_trip_keeps_everything(series_record: SeriesRecord) -> None:
    assert record_from_json(record_to_json(series_record)) == series_record


def test_a_record_of_an_older_version_can_be_read(series_record: SeriesRecord) -> None:
    fields = json.loads(record_to_json(series_record))
    del fields["run"]
    for step in fields["steps"]:
        del step["peak_mib"]
    assert record_from_json(json.dumps(fields)) == dataclasses.replace(
        series_record, run=RunRecord()
    )


def test_round_trip_without_reference(bare_record: SeriesRecord) -> None:
    assert record_from_json(record_to_json(bare_record)) == bare_record


def test_facts_keep_their_order(series_record: SeriesRecord) -> None:
    facts = {"z": "1", "a": "2", "m": "3"}
    record = dataclasses.replace(series_record, facts=facts)
    assert list(record_from_json(record_to_json(record)).facts) == ["z", "a", "m"]


@pytest.mark.parametrize("text", ["", "{}", '{"steps": 1}', "[]"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        record_from_json(text)


def test_step_by_name(series_record: SeriesRecord) -> None:
    step = series_record.step("unwrapping")
    assert step is not None
    assert step.method == "romeo"
    assert series_record.step("coffee") is None


def test_tables_by_kind_in_their_order(series_record: SeriesRecord) -> None:
    tables = (
        TableRecord("quality", "a.tsv", "A"),
        TableRecord("stats", "b.tsv", "A"),
        TableRecord("stats", "c.tsv", "B"),
    )
    record = dataclasses.replace(series_record, tables=tables)
    assert [table.path for table in record.tables_of("stats")] == ["b.tsv", "c.tsv"]
    assert record.tables_of("morphometry") == ()
    assert record.table == "b.tsv"
    assert dataclasses.replace(series_record, tables=tables[:1]).table is None
    assert record_from_json(record_to_json(record)).tables == tables
