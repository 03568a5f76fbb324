from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bids_qsm.images import Image
from tests.benchmarks import segmentation as benchmark


def test_overlaps_are_the_mean_of_both_sides():
    truth = np.zeros((4, 4, 4), np.int16)
    truth[0, :2, :2], truth[3, :2, :2] = 11, 50
    found = truth.copy()
    found[0, 0, :2] = 0  # half of the left caudate is missed
    head = SimpleNamespace(
        name="01", t1w=SimpleNamespace(image=None), truth=Image(truth, np.eye(4))
    )
    result = SimpleNamespace(labels_on=lambda _: Image(found, np.eye(4)))
    row = benchmark.measured(head, lambda: result, {"way": "single"})
    assert row["head"] == "01" and row["way"] == "single"
    assert row["caudate"] == pytest.approx((0.5 + 1) / 2)
    assert row["caudate_dice"] == pytest.approx((2 / 3 + 1) / 2)
    assert row["cpu_s"] >= 0 and row["peak_mib"] > 1


def test_members_have_what_lies_beside_the_nuclei(monkeypatch, tmp_path):
    data = np.ones((3, 3, 3), np.float32)
    image = Image(data, np.eye(4))
    series = SimpleNamespace(chi=image, mask=Image(data > 0, np.eye(4)))
    t1w = SimpleNamespace(image=image, brain=Image(data > 0, np.eye(4)))
    head = SimpleNamespace(name="02", t1w=t1w, series=series, truth=image)
    asked: dict[str, pd.DataFrame] = {}

    def fake(t1w, members, table, folder, series, *, threads):
        asked[members[0].name] = table

    monkeypatch.setattr(benchmark, "segment_multi", fake)
    monkeypatch.setattr(benchmark, "resample_map", lambda chi, *_: chi)
    benchmark.by_heads(head, [head], "T1w", tmp_path, 1)
    assert asked["02"]["index"].tolist() == [4, 10, 11, 12, 13, 26, 43, 49, 50, 51, 52, 58]
