"""A small head with the nuclei of stereotactic surgery, in which all is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from bids_qsm.anatomy.segmentation import CERTAIN, Segmentation
from bids_qsm.clinical.case import Case
from bids_qsm.execution.steps import Steps
from bids_qsm.images import Image
from bids_qsm.job import Job, Journal
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.settings import Method, Processing, Settings

SHAPE = (48, 40, 40)
AFFINE = np.array([[1.0, 0, 0, -24], [0, 1, 0, -20], [0, 0, 1, -16], [0, 0, 0, 1]])
BOXES = {
    9: ("Left globus pallidus externa", "L", (slice(4, 9), slice(14, 28), slice(20, 32))),
    11: ("Left globus pallidus interna", "L", (slice(9, 15), slice(14, 28), slice(20, 32))),
    13: ("Left substantia nigra pars compacta", "L", (slice(12, 19), slice(12, 24), slice(5, 8))),
    17: ("Left substantia nigra pars reticulata", "L", (slice(12, 19), slice(12, 24), slice(2, 5))),
    31: ("Left subthalamic nucleus", "L", (slice(12, 19), slice(12, 24), slice(8, 13))),
    15: ("Left red nucleus", "L", (slice(15, 20), slice(27, 33), slice(5, 12))),
}
"""Voxels of the left side; labels of the right side are one more, at the mirrored place."""
T1W = {"externa": 760.0, "interna": 800.0, "nigra": 820.0, "subthalamic": 830.0, "red": 840.0}
CHI_PPM = {"externa": 0.13, "interna": 0.12, "nigra": 0.11, "subthalamic": 0.08, "red": 0.09}
WHITE, WHITE_PPM = 900.0, -0.03


def nuclei() -> tuple[np.ndarray, pd.DataFrame]:
    """Return the labels and their table."""
    labels, rows = np.zeros(SHAPE, np.int16), []
    for index, (name, side, box) in BOXES.items():
        labels[box] = index
        labels[::-1][box] = index + 1
        rows += [(index, name, side), (index + 1, name.replace("Left", "Right"), "R")]
    return labels, pd.DataFrame(rows, columns=["index", "name", "hemisphere"])


def case(*, only: str = "", noise: float = 1.0) -> Case:
    """Return the case; ``only`` keeps the structures whose name holds a word."""
    random = np.random.default_rng(5)
    labels, table = nuclei()
    t1w, chi = np.full(SHAPE, WHITE), np.full(SHAPE, WHITE_PPM)
    for index, name in zip(table["index"], table["name"], strict=True):
        word = next(w for w in T1W if w in name)
        t1w[labels == index], chi[labels == index] = T1W[word], CHI_PPM[word]
    t1w = (t1w + noise * 20 * random.standard_normal(SHAPE)).astype(np.float32)
    chi = (chi + noise * 0.02 * random.standard_normal(SHAPE)).astype(np.float32)
    everywhere = np.ones(SHAPE, bool)
    grid = Image(t1w, AFFINE)
    kept = table[table["name"].str.contains(only)].reset_index(drop=True)
    labels = np.where(np.isin(labels, kept["index"]), labels, 0).astype(np.int16)
    indices = kept["index"].to_numpy(np.int16)
    shares = np.stack([CERTAIN * (labels == i).astype(np.uint8) for i in indices])
    n = np.ones(len(indices), np.float32)
    structures = SimpleNamespace(
        atlas=SimpleNamespace(name="tiny", table=kept),
        segmentation=Segmentation(grid.like(labels), indices, shares, n, n),
        t1w_labels=grid.like(labels),
    )
    anatomy = SimpleNamespace(
        t1w=SimpleNamespace(image=grid, brain=grid.like(everywhere)),
        rigid=SimpleNamespace(t1w_to_gre=np.eye(4)),
        map_in=lambda space, values, mask: values,
        mask_in=lambda space, mask: grid.like(mask),
    )
    local = FieldMap(chi, np.ones(SHAPE, np.float32), t1w, everywhere, grid.geometry)
    maps = SimpleNamespace(
        magnitude=grid,
        brain=everywhere,
        local=local,
        chi=(SimpleNamespace(region="CSF", result=SimpleNamespace(chi_ppm=chi)),),
        uncertainty=None,
        veins=None,
    )
    return Case(maps, anatomy, (structures,), None)  # type: ignore[arg-type]


def job(
    folder: Path,
    *,
    table: str | None = None,
    hybrid: Method | None = None,
    words: Sequence[str] = ("dbs",),
    **series: Any,
) -> Job:
    """Return a job for it; ``table`` is the content of the user's trajectories."""
    derivatives = {}
    if table is not None:
        derivatives["trajectories"] = folder / "given"
        derivatives["trajectories"].mkdir()
        (derivatives["trajectories"] / "sub-aa_trajectories.tsv").write_text(table)
    processing = Processing() if hybrid is None else Processing(hybrid=hybrid)
    settings = Settings(
        folder, folder, extra_steps=tuple(words), derivatives=derivatives, processing=processing
    )
    known = {"subject": "aa", "session": None, "name": "sub-aa", "t2w": None, "files": ()}
    of_series = SimpleNamespace(**{**known, "t1w": folder / "sub-aa_T1w.nii.gz", **series})
    steps = Steps(folder / "work", "inputs", lambda _: None)
    return Job(of_series, settings, steps, Journal())  # type: ignore[arg-type]
