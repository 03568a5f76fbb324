"""The default anatomy, and the example dataset that is made from it."""

from __future__ import annotations

import runpy
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_qsm.errors import UnreadableInputError
from bids_qsm.phantom import anatomy
from bids_qsm.phantom.surroundings import fill_gaps
from bids_qsm.phantom.tissues import is_brain, tissues_of

EXAMPLES = Path(__file__).resolve().parents[2] / "data_examples"


@pytest.fixture(scope="module")
def head():
    return anatomy.default_labels()


def _at(head, x, y, z) -> int:
    index = np.rint(np.linalg.inv(head.affine) @ [x, y, z, 1])[:3].astype(int)
    return int(head.data[tuple(index)])


def test_every_label_has_a_tissue(head):
    values = np.unique(head.data).tolist()
    assert tissues_of(values)[1] == ()
    nuclei = {10, 49, 11, 50, 12, 51, 13, 52, 26, 58, 27, 59, 981, 982, 983, 984}
    assert nuclei | {2, 41, 3, 42, 4, 43, 16, 511, 515, 516, 507, 506} <= set(values)


def test_volumes_are_a_heads(head):
    litre = 1e6
    assert 1.3 < is_brain(head.data).sum() / litre < 2.2
    assert 3.5 < (head.data > 0).sum() / litre < 7.0
    assert 0.2 < np.isin(head.data, (515, 516)).sum() / litre < 1.2
    for left, right in ((12, 51), (13, 52), (981, 982)):
        sides = [(head.data == label).sum() for label in (left, right)]
        assert 0.8 < sides[0] / sides[1] < 1.25


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ((-25, 2, 0), {12}),  # left putamen
        ((26, 2, 0), {51}),  # right putamen
        ((1, 19, -39), {0}),  # sphenoid sinus
        ((27, 52, -68), {0}),  # right maxillary sinus
        ((32, 63, -42), {506}),  # right eye
        ((0, 0, 103), {0}),  # above the head
        ((5, -20, -9), {982}),  # right red nucleus
    ],
)
def test_places_are_right(head, position, expected):
    assert _at(head, *position) in expected


def test_brain_is_enclosed(head):
    """From inside the brain outwards one meets CSF or dura, bone, and then skin."""
    for direction in ((1, 0, 0), (-1, 0, 0), (0, -1, 0), (0, 0, 1), (0.7, 0, 0.7), (0, -0.7, 0.7)):
        line = [_at(head, *(np.array([0, -20, 20]) + np.array(direction) * r)) for r in range(120)
                if _inside(head, np.array([0, -20, 20]) + np.array(direction) * r)]  # fmt: skip
        last_brain = max(i for i, v in enumerate(line) if v and v < 500)
        bone = [i for i, v in enumerate(line) if v in (515, 516)]
        skin = [i for i, v in enumerate(line) if v == 511]
        assert bone and skin and last_brain < min(bone) and max(bone) < max(skin)


def _inside(head, position) -> bool:
    index = np.rint(np.linalg.inv(head.affine) @ [*position, 1])[:3]
    return bool((index >= 0).all() and (index < head.shape).all())


def test_gaps_in_a_brain_are_filled_and_the_air_around_it_is_not(small_labels):
    labels = small_labels.data.copy()
    labels[24, 28, 22:24] = 0
    filled = fill_gaps(labels, voxel_mm=3.0)
    assert (filled[24, 28, 22:24] == 24).all()
    rest = np.ones(labels.shape, bool)
    rest[24, 28, 22:24] = False
    np.testing.assert_array_equal(filled[rest], labels[rest])


def test_missing_package_is_said(monkeypatch):
    monkeypatch.setattr(anatomy.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnreadableInputError, match="--labels"):
        anatomy.default_labels()


def test_examples_are_small_and_complete():
    files = [f for f in EXAMPLES.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    assert sum(f.stat().st_size for f in files) < 5e6
    bids = EXAMPLES / "bids"
    assert {f.name for f in bids.glob("sub-*")} == {"sub-01", "sub-02"}
    assert {f.name for f in (bids / "sub-01").glob("ses-*")} == {"ses-1", "ses-2"}
    assert not list((bids / "sub-02").rglob("*FLAIR*"))
    affine = nib.load(bids / "sub-02/anat/sub-02_echo-1_part-mag_MEGRE.nii.gz").affine
    assert np.rad2deg(np.arcsin(affine[2, 1] / 3)) == pytest.approx(18, abs=0.01)


@pytest.mark.slow
def test_examples_are_made_again_byte_for_byte(head, tmp_path):
    make = runpy.run_path(str(EXAMPLES / "make.py"))["make"]
    make.__globals__["default_labels"] = lambda: head  # they take seconds
    make(tmp_path)
    made, kept = (
        sorted(f.relative_to(folder) for f in folder.rglob("*") if f.is_file())
        for folder in (tmp_path, EXAMPLES / "bids")
    )
    assert made == kept
    same_zlib = "ng" not in zlib.ZLIB_RUNTIME_VERSION
    for name in made:
        one, two = tmp_path / name, EXAMPLES / "bids" / name
        if name.suffix == ".gz":
            images = [nib.load(f) for f in (one, two)]
            np.testing.assert_array_equal(*(i.dataobj.get_unscaled() for i in images), str(name))
            np.testing.assert_array_equal(*(i.affine for i in images))
        if same_zlib or name.suffix != ".gz":
            # compared outside the assertion: pytest would take minutes to show how they differ
            equal = one.read_bytes() == two.read_bytes()
            assert equal, name
