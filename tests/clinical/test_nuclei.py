from __future__ import annotations

import pandas as pd
import pytest

from bids_qsm.anatomy.atlases import load_atlas
from bids_qsm.clinical.nuclei import GPE, GPI, RN, SN, STN, nuclei_of


@pytest.mark.parametrize(("name", "parts_of_nigra"), [("CIT168", 2), ("7TAMI", 1)])
def test_both_atlases_have_all_nuclei_on_both_sides(name, parts_of_nigra) -> None:
    table = load_atlas(name).table
    nuclei = nuclei_of(table)
    for nucleus in (GPI, GPE, STN, RN):
        for side in "LR":
            (index,) = nuclei.of(nucleus, side)
            row = table.set_index("index").loc[index]
            assert row["hemisphere"] == side
    assert len(nuclei.of(SN, "L")) == len(nuclei.of(SN, "R")) == parts_of_nigra
    assert len(nuclei.labels) == 10


@pytest.mark.parametrize(
    ("written", "nucleus"),
    [
        ("Left-Pallidum-internal", GPI),
        ("GPe", GPE),
        ("L STN", STN),
        ("Sub-thalamic", STN),
        ("Left-Substancia-nigra", SN),
        ("SNr", SN),
        ("Red-nucleus", RN),
        ("Left pallidum", None),
        ("thalamus", None),
        ("subthalamic fasciculus", None),
        ("external capsule", None),
    ],
)
def test_names_of_other_atlases_are_known(written, nucleus) -> None:
    table = pd.DataFrame({"index": [1], "name": [written], "hemisphere": ["L"]})
    assert dict(nuclei_of(table).labels) == ({} if nucleus is None else {(nucleus, "L"): (1,)})
