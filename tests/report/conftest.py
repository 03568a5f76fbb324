"""Records, tables and volumes that the tests of the report share."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_qsm.report.record import SeriesRecord
from tests.report import records


@pytest.fixture
def series_record() -> SeriesRecord:
    """A complete record; its files are those of ``output_dir``."""
    return records.complete_record()


@pytest.fixture
def bare_record() -> SeriesRecord:
    """A series with nothing but magnitude."""
    return records.magnitude_record()


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    """An output folder with the pictures and the tables of ``series_record``."""
    return records.fill(tmp_path)


@pytest.fixture
def viewed_record() -> SeriesRecord:
    """A record whose volumes lie in ``viewed_dir``, too."""
    return records.record_with_volumes()


@pytest.fixture
def viewed_dir(tmp_path: Path) -> Path:
    """An output folder with volumes."""
    return records.fill_with_volumes(tmp_path)
