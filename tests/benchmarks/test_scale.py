"""The dataset of many subjects is one, and costs no more room than the heads it is made of."""

from __future__ import annotations

import pandas as pd

from bids_qsm.bids.inputs import find_series
from bids_qsm.settings import Settings
from tests.benchmarks import scale
from tests.tiny import tiny_dataset


def test_subjects_are_links_of_the_heads(tmp_path) -> None:
    heads = tiny_dataset(tmp_path / "heads", ("01", "02"))
    bids = scale.make_dataset(tmp_path, heads, 5)
    found = find_series(Settings(bids, tmp_path / "out"))
    assert found.refused == ()
    assert [series.subject for series in found.series] == [f"{i:04d}" for i in range(1, 6)]
    assert len({file.stat().st_ino for series in found.series for file in series.files}) == 2 * 6
    people = pd.read_csv(bids / "participants.tsv", sep="\t")
    assert people["participant_id"].to_list() == [f"sub-{i:04d}" for i in range(1, 6)]
    assert set(people["group"]) <= {"control", "patient"}
    assert scale.make_dataset(tmp_path, heads, 5) == bids  # what is there is not made again
