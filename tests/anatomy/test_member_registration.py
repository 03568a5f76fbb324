from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.anatomy import member_registration
from bids_qsm.anatomy.atlases import AtlasMember
from bids_qsm.anatomy.deep_grey import Contrasts, scaled_brain
from bids_qsm.anatomy.member_registration import (
    Subject,
    WarpedMember,
    warp_member,
    warp_members,
)
from bids_qsm.images import Image


@pytest.fixture
def subject(template_4mm: Image) -> Subject:
    brain = scaled_brain(template_4mm)
    return Subject(brain, Contrasts(brain, brain.like(brain.data - 0.5)))


def _grey(image: Image) -> np.ndarray:
    bright = np.percentile(image.data[image.data > 0], 60)
    return (13 * ((image.data > bright) & (image.data > 0))).astype(np.int16)


def test_a_member_is_brought_to_the_subject(template_4mm, subject, rigid_matrix):
    """A member that is bent, larger, and lies elsewhere."""
    voxels = np.indices(template_4mm.shape).astype(np.float32)
    away = voxels - np.array(template_4mm.shape)[:, None, None, None] / 2
    swell = 0.3 * np.exp(-(away**2).sum(axis=0) / (2 * 7.0**2))
    affine = rigid_matrix((4.0, -3.0, 6.0), (10.0, 30.0, -20.0)) @ np.diag([1.05, 1, 1, 1])
    affine = affine @ template_4mm.affine

    def bent(data: np.ndarray, order: int) -> Image:
        return Image(ndimage.map_coordinates(data, voxels - swell * away, order=order), affine)

    t1w = bent(template_4mm.data, 1)
    chi = t1w.like((t1w.data / template_4mm.data.max() - 0.5).astype(np.float32))
    member = AtlasMember("a", t1w, chi, bent(_grey(template_4mm), 0))
    warped = warp_member(member, subject)
    truth, found = _grey(template_4mm), warped.labels
    assert found.dtype == np.int16 and found.shape == subject.deep.t1w.shape
    dice = 2 * ((truth > 0) & (found > 0)).sum() / ((truth > 0).sum() + (found > 0).sum())
    assert dice > 0.9
    inside = subject.deep.t1w.data > 0
    seen = np.corrcoef(warped.deep.t1w.data[inside], subject.deep.t1w.data[inside])[0, 1]
    assert seen > 0.9


def test_what_is_kept_is_read_and_the_rest_is_made(subject, tmp_path, monkeypatch):
    made: list[str] = []

    def fake(name: str, to: Subject) -> WarpedMember:
        made.append(name)
        grid = to.deep.t1w
        chi = grid.like(np.full(grid.shape, 0.1, np.float32)) if name == "b" else None
        return WarpedMember(Contrasts(grid, chi), np.full(grid.shape, 7, np.int16))

    monkeypatch.setattr(member_registration, "warp_member", fake)
    files = [SimpleNamespace(name=n, load=lambda n=n: n) for n in ("a", "b", "c")]
    first = warp_members(files[:2], subject, tmp_path / "own")
    again = warp_members(files, subject, tmp_path / "own")
    assert made == ["a", "b", "c"]
    assert first[0].deep.chi is None and float(again[1].deep.chi.data.max()) == np.float32(0.1)
    np.testing.assert_array_equal(again[0].deep.t1w.data, subject.deep.t1w.data)
    assert (again[2].labels == 7).all()
    assert sorted(p.name for p in (tmp_path / "own").iterdir()) == ["a.npz", "b.npz", "c.npz"]
