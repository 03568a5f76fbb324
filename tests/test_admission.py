"""How many series run at once, by estimates of their memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bids_qsm import dispatch
from bids_qsm.admission import needed_memory_gib, planned_workers
from bids_qsm.bids.inputs import Found, Series, find_series
from bids_qsm.images import Image, encode_image
from bids_qsm.settings import Settings
from tests.tiny import tiny_dataset

LARGE = (320, 320, 208)


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Series:
    bids = tiny_dataset(tmp_path_factory.mktemp("admission") / "bids")
    return find_series(Settings(bids, bids / "out")).series[0]


def write_empty(path: Path, shape: tuple[int, int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(Image(np.zeros(shape, np.uint8), np.eye(4))))
    return path


def test_memory_of_maps_grows_with_voxels_and_echoes(series: Series) -> None:
    settings = Settings(Path("in"), Path("out"))
    small, large = (
        needed_memory_gib(replace(series, shape=s), settings) for s in ((1,) * 3, LARGE)
    )
    # magnitude, phase and unwrapped phase of three echoes, and 40 volumes
    assert large - small == pytest.approx(4 * 320 * 320 * 208 * (12 + 40) / 2**30, rel=1e-6)
    twice = replace(series, shape=LARGE, te_s=(*series.te_s, 0.03))
    assert needed_memory_gib(twice, settings) > large


def test_memory_of_anatomy_grows_with_t1w_and_ct(series: Series, tmp_path) -> None:
    settings = Settings(tmp_path, tmp_path / "out")
    t1w = write_empty(tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz", (128, 128, 128))
    write_empty(tmp_path / "sub-01" / "ct" / "sub-01_ct.nii.gz", (256, 256, 64))
    plain, with_t1w = needed_memory_gib(series, settings), replace(series, t1w=t1w)
    assert needed_memory_gib(with_t1w, settings) - plain == pytest.approx(
        1.5 + 2**26 / 2**30, abs=0.01
    )
    with_ct = needed_memory_gib(with_t1w, replace(settings, extra_steps=("dbs",)))
    assert with_ct - needed_memory_gib(with_t1w, settings) == pytest.approx(2**26 / 2**30)
    # what cannot be read is refused by the step that reads it
    t1w.write_bytes(b"")
    assert needed_memory_gib(with_t1w, settings) > plain + 1


@pytest.mark.parametrize(
    ("mem_gb", "nprocs", "omp_nthreads", "expected"),
    [
        (100.0, 8, None, (4, 2)),  # memory for all four
        (100.0, 8, 4, (2, 4)),
        (100.0, 2, None, (2, 1)),
        (1.5, 8, None, (2, 4)),  # memory for two of 0.7 GiB
        (0.1, 8, None, (1, 8)),
    ],
)
def test_cores_are_divided_among_those_that_memory_allows(
    series: Series, mem_gb, nprocs, omp_nthreads, expected
) -> None:
    settings = Settings(
        Path("in"), Path("out"), nprocs=nprocs, omp_nthreads=omp_nthreads, mem_gb=mem_gb
    )
    plan = planned_workers([series] * 4, settings)
    assert (plan.workers, plan.threads) == expected
    assert plan.limit_gib == mem_gb
    assert len(plan.memory_gib) == 4


def test_series_that_needs_more_than_is_given_is_refused_and_others_go_on(series: Series) -> None:
    large = replace(series, subject="02", shape=LARGE)
    found = Found((series, large), ())
    settings = Settings(Path("in"), Path("out"), mem_gb=2.0)
    left, waiting = dispatch._with_memory(found, [large, series], settings)
    assert list(left.series) == waiting == [series]
    (refused,) = left.refused
    assert refused.name == "sub-02"
    assert refused.sentence.endswith(
        "the series needs some 4.8 GiB of memory, more than --mem-gb 2 allows; allow more."
    )
    # what is finished needs no memory, and what is free is no limit that the user has set
    assert dispatch._with_memory(found, [series], settings)[0] == found
    unlimited = replace(settings, mem_gb=None)
    assert dispatch._with_memory(found, [large, series], unlimited) == (found, [large, series])
