from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bids_qsm.anatomy import deep_grey, segmentation
from bids_qsm.anatomy.atlases import Atlas
from bids_qsm.anatomy.brain import PreparedT1w
from bids_qsm.anatomy.deep_grey import Contrasts, SeriesChi, contrasts_through, deep_grey_grid
from bids_qsm.anatomy.member_registration import WarpedMember
from bids_qsm.anatomy.resampling import apply_transforms
from bids_qsm.anatomy.segmentation import Segmentation, segment_multi, segment_single
from bids_qsm.images import Image

TABLE = pd.DataFrame({"index": [13, 52, 99], "name": ["Left pallidum", "Right pallidum", "none"]})
BOX_MM = ((-30.0, 30.0), (-20.0, 20.0), (-18.0, 18.0))


@pytest.fixture(autouse=True)
def small_box(monkeypatch) -> None:
    monkeypatch.setattr(deep_grey, "DEEP_GREY_BOX_MM", BOX_MM)


def pallida(shift_mm: float) -> Image:
    """Two balls of 7 mm on a grid of 1.5 mm, moved to the front by ``shift_mm``."""
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    affine[:3, 3] = (-45.0, -36.0, -36.0)
    world = affine[:3, :3] @ np.indices((61, 49, 49)).reshape(3, -1) + affine[:3, 3:]
    labels = np.zeros(61 * 49 * 49, np.int16)
    for side, label in ((-14.0, 13), (14.0, 52)):
        centre = np.array([[side], [shift_mm], [0.0]])
        labels[((world - centre) ** 2).sum(axis=0) < 49.0] = label
    return Image(labels.reshape(61, 49, 49), affine)


@pytest.fixture
def truth() -> Image:
    return pallida(3.0)


@pytest.fixture
def t1w(truth, rng) -> PreparedT1w:
    data = 0.95 - 0.03 * (truth.data > 0) + 0.02 * rng.standard_normal(truth.shape)
    image = truth.like((500 * data).astype(np.float32))
    return PreparedT1w(image, image.like(np.ones(image.shape, bool)), np.eye(4))


@pytest.fixture
def series(truth, rng, rigid_matrix) -> SeriesChi:
    """χ of the same head, which lay otherwise in the scanner when it was measured."""
    to_gre = rigid_matrix((0.0, 5.0, 0.0), (3.0, -8.0, 4.0))
    values = 0.15 * (truth.data > 0) - 0.03 + 0.01 * rng.standard_normal(truth.shape)
    chi = Image(values.astype(np.float32), to_gre @ truth.affine)
    return SeriesChi(chi, chi.like(np.ones(chi.shape, bool)), to_gre)


def atlas_of(labels: Image) -> Atlas:
    return Atlas("Test", "Test", "MNI152NLin2009cAsym", labels, TABLE, "CC0")


def jaccard(a: np.ndarray, b: np.ndarray, label: int) -> float:
    return ((a == label) & (b == label)).sum() / ((a == label) | (b == label)).sum()


def test_one_atlas_and_susceptibility_find_the_pallidum(t1w, series, truth):
    atlas = atlas_of(pallida(0.0))
    found = segment_single(t1w, SimpleNamespace(t1w_to_template=()), atlas, series)
    assert found.indices.tolist() == [13, 52]  # the third one does not occur
    on_t1w = found.labels_on(t1w.image).data
    for label in (13, 52):
        before = jaccard(atlas.labels.data, truth.data, label)
        assert jaccard(on_t1w, truth.data, label) > before + 0.15
    assert (found.confidence > 0.8).all() and (found.confidence <= 1).all()
    # moved by 3 mm: a ball's overlap with itself is known
    moved = 1 - 1.5 * (3 / 14) + 0.5 * (3 / 14) ** 3
    np.testing.assert_allclose(found.agreement, moved, atol=0.12)


def test_labels_and_probabilities_on_other_grids(t1w, series):
    warp = SimpleNamespace(t1w_to_template=())
    found = segment_single(t1w, warp, atlas_of(pallida(0.0)), series)
    gre_to_t1w = np.linalg.inv(series.t1w_to_gre)
    on_series = found.labels_on(series.chi, (gre_to_t1w,))
    assert on_series.data.dtype == np.int16
    np.testing.assert_array_equal(on_series.affine, series.chi.affine)
    on_t1w = found.labels_on(t1w.image).data
    assert jaccard(on_series.data, on_t1w, 13) > 0.9  # the two grids differ by what was measured
    again = found.labels_of(found.probabilities_on(t1w.image))
    assert again.data.dtype == np.int16
    assert (again.data != on_t1w).mean() < 1e-3  # probabilities are rounded, some to a draw
    probability = found.probability_on(13, t1w.image)
    assert probability.data.max() <= 1
    assert jaccard((probability.data > 0.5).astype(int), (on_t1w == 13).astype(int), 1) > 0.95
    elsewhere = Image(np.zeros((5, 5, 5)), np.diag([1.0, 1.0, 1.0, 1.0]) + 500 * np.eye(4, k=3))
    assert not found.labels_on(elsewhere).data.any()


def _warped(t1w: PreparedT1w, series: SeriesChi, labels: Image) -> WarpedMember:
    """A member that looks as the subject does and was registered well, or badly."""
    grid = deep_grey_grid(t1w)
    there = apply_transforms(labels, grid, (), "label").data
    t1w_data = (0.95 - 0.03 * (there > 0)).astype(np.float32)
    chi = (0.15 * (there > 0) - 0.03).astype(np.float32)
    return WarpedMember(Contrasts(grid.like(t1w_data), grid.like(chi)), there)


def test_members_are_fused(t1w, series, truth, monkeypatch, tmp_path):
    members = [_warped(t1w, series, pallida(shift)) for shift in (3.0, 2.0, -2.0, -2.0)]
    asked = {}

    def warp_members(files, subject, folder, threads):
        asked.update(files=files, folder=folder, threads=threads, subject=subject)
        return members

    monkeypatch.setattr(segmentation, "warp_members", warp_members)
    found = segment_multi(t1w, ("a", "b"), TABLE, tmp_path, series, threads=2)
    assert (asked["files"], asked["folder"], asked["threads"]) == (("a", "b"), tmp_path, 2)
    assert asked["subject"].brain.data.max() == pytest.approx(1, abs=0.02)
    assert isinstance(found, Segmentation)
    for label in (13, 52):
        assert jaccard(found.labels_on(t1w.image).data, truth.data, label) > 0.85
    assert (found.agreement > 0.5).all() and (found.agreement < 0.95).all()


def test_members_without_susceptibility_are_fused_by_t1w(t1w, series, monkeypatch, tmp_path):
    member = _warped(t1w, series, pallida(3.0))
    plain = WarpedMember(Contrasts(member.deep.t1w), member.labels)
    own = contrasts_through(deep_grey_grid(t1w), (), t1w, series)
    fused = segmentation.fuse_members(own, [member, plain], np.array([13, 52], np.int16))
    assert fused.shape == (2, *own.t1w.shape)
    inside = (slice(5, -5),) * 3
    expected = np.stack([member.labels == 13, member.labels == 52])
    np.testing.assert_allclose(fused[(slice(None), *inside)].sum(), expected.sum(), rtol=0.1)
