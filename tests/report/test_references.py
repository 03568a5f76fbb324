from __future__ import annotations

import re

import pytest

from bids_qsm.report.references import REFERENCES, Reference, cited_keys


@pytest.mark.parametrize("key", REFERENCES)
def test_entries_are_complete(key: str) -> None:
    reference = REFERENCES[key]
    assert re.fullmatch(r"10\.\d{4,5}/\S+", reference.doi)
    assert key.endswith(str(reference.year))
    surname = reference.authors.split(" ")[0].lower().replace("-", "")
    assert key.startswith(surname)


def test_each_paper_stands_once() -> None:
    dois = [reference.doi.lower() for reference in REFERENCES.values()]
    assert len(set(dois)) == len(dois)


@pytest.mark.parametrize(
    ("authors", "short"),
    [
        ("Smith SM", "Smith 2002"),
        ("Schofield MA, Zhu Y", "Schofield and Zhu 2002"),
        ("de Rochefort L, Liu T, Wang Y", "de Rochefort et al. 2002"),
    ],
)
def test_short_form(authors: str, short: str) -> None:
    assert Reference(authors, 2002, "T", "J 1:2", "10.1000/x").short == short


def test_cited_keys_are_sorted_and_single() -> None:
    assert cited_keys("[@b2001] x [@a2000; @b2001] a@b.org [see]") == ["a2000", "b2001"]
