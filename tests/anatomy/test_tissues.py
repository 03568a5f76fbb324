from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bids_qsm.anatomy.brain import PreparedT1w
from bids_qsm.anatomy.grids import coarser
from bids_qsm.anatomy.template import load_tissue_prior
from bids_qsm.anatomy.tissues import (
    COLUMNS,
    LABELS,
    measures_table,
    segment_tissues,
)
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image

SHIFT = np.diag([1.1, 1.0, 0.9, 1.0])
SHIFT[:3, 3] = (5.0, -8.0, 3.0)


@pytest.fixture(scope="module")
def tissues_truth() -> tuple[Image, np.ndarray]:
    """The template's own tissues at 3 mm, moved by an affine: shares of grey, white, fluid."""
    parts = []
    for kind in ("gm", "wm"):
        small = coarser(load_tissue_prior(kind), 3.0)
        parts.append(small.data)
    grey, white = parts
    inside = grey + white > 0.2
    fluid = np.where(inside, np.clip(1 - grey - white, 0, 1), 0)
    shares = np.stack([np.where(inside, grey, 0), np.where(inside, white, 0), fluid])
    shares[:, inside] /= shares[:, inside].sum(axis=0)
    return Image(inside, SHIFT @ small.affine), shares


@pytest.fixture(scope="module")
def prepared(tissues_truth) -> PreparedT1w:
    brain, shares = tissues_truth
    noise = 15 * np.random.default_rng(3).standard_normal(brain.shape)
    image = 700 * shares[0] + 1000 * shares[1] + 250 * shares[2] + noise
    return PreparedT1w(brain.like(image.astype(np.float32)), brain, SHIFT)


def test_volumes_and_labels_of_the_template(prepared, tissues_truth):
    _, shares = tissues_truth
    found = segment_tissues(prepared)
    voxel_ml = prepared.image.geometry.voxel_mm3 / 1000
    truth_ml = shares.reshape(3, -1).sum(axis=1) * voxel_ml
    np.testing.assert_allclose(found.volumes_ml[:2], truth_ml[:2], rtol=0.12)
    assert sum(found.volumes_ml) == pytest.approx(found.brain_ml, rel=1e-4)
    assert found.head_scale == pytest.approx(1.1 * 0.9)
    assert found.shares.dtype == np.uint8 and found.labels.dtype == np.uint8
    total = found.shares.sum(axis=0)[prepared.brain.data]
    assert total.min() >= 99 and total.max() <= 101
    assert (found.labels[~prepared.brain.data] == 0).all()
    white = found.labels == LABELS["WM"]
    true_white = shares.argmax(axis=0) == 1
    true_white &= prepared.brain.data
    assert 2 * (white & true_white).sum() / (white.sum() + true_white.sum()) > 0.93


def test_nuclei_are_grey_and_lesions_white(prepared, tissues_truth):
    brain, _ = tissues_truth
    plain = segment_tissues(prepared)
    white = np.argwhere(plain.shares[1] == 100)
    grey = np.argwhere(plain.shares[0] == 100)
    labels, lesions = np.zeros(brain.shape, np.int16), np.zeros(brain.shape, bool)
    labels[tuple(white[:50].T)] = 7
    labels[tuple(white[50:90].T)] = 9
    lesions[tuple(grey[:40].T)] = True
    table = pd.DataFrame({"index": [7, 9], "name": ["Left thalamus", "Left white matter"]})
    found = segment_tissues(prepared, brain.like(labels), table, brain.like(lesions))
    assert (found.labels[labels == 7] == LABELS["GM"]).all()
    assert (found.labels[labels == 9] == LABELS["WM"]).all()
    assert (found.labels[lesions] == LABELS["WM"]).all()
    voxel_ml = prepared.image.geometry.voxel_mm3 / 1000
    assert found.volumes_ml[1] - plain.volumes_ml[1] == pytest.approx(-10 * voxel_ml, abs=voxel_ml)
    every = segment_tissues(prepared, brain.like(labels))
    assert (every.labels[labels == 9] == LABELS["GM"]).all()


def test_table_of_volumes(prepared):
    found = segment_tissues(prepared)
    table = measures_table(found.measures(), found.head_scale)
    assert list(table.columns) == list(COLUMNS)
    rows = table.set_index("name")
    assert rows.loc["grey matter", "value"] == found.volumes_ml[0]
    assert rows.loc["grey and white matter", "value"] == sum(found.volumes_ml[:2])
    np.testing.assert_allclose(table["normalised"], table["value"] / 0.99, rtol=1e-9)
    assert set(table["units"]) == {"mL"} and set(table["source"]) == {"bids-qsm"}


def test_other_contrast_is_refused_in_a_sentence(prepared):
    inverted = prepared.image.like(np.float32(1200) - prepared.image.data)
    other = PreparedT1w(inverted, prepared.brain, prepared.template_to_t1w)
    with pytest.raises(UnreadableInputError, match="white matter is not brighter than grey"):
        segment_tissues(other)


def test_flat_contrast_is_said(prepared):
    noise = 140 * np.random.default_rng(5).standard_normal(prepared.image.shape)
    flat = prepared.image.like((prepared.image.data + noise).astype(np.float32))
    found = segment_tissues(PreparedT1w(flat, prepared.brain, prepared.template_to_t1w))
    assert "differ little" in " ".join(found.warnings)
    assert segment_tissues(prepared).warnings == ()
