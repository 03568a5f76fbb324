"""A tiny cohort, written once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bids_qsm.analyses.cohort import Cohort
from tests.analyses.tiny import Tiny, cohort_of, make, small_pictures


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    """8 + 8 subjects with two scans each, as the participant level leaves them."""
    return make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def cohort(tiny: Tiny, tmp_path_factory) -> Cohort:
    """What the group level gathers of it."""
    return cohort_of(tiny, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module", autouse=True)  # others' tests run between those of two modules
def pictures_are_small() -> Iterator[None]:
    """Paint no figure: that takes most of the time of an analysis."""
    with small_pictures():
        yield
