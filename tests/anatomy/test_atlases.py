from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from bids_qsm.anatomy.atlases import Atlas, load_atlas
from bids_qsm.anatomy.template import load_template, package_file
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, encode_image


@pytest.fixture(scope="module")
def default() -> Atlas:
    return load_atlas("default")


def test_default_has_every_structure_on_both_sides(default):
    table = default.table
    assert table["index"].is_unique and default.labels.data.dtype == np.int16
    names = {name.split(" ", 1)[1] for name in table["name"]}
    assert names == {
        "thalamus",
        "caudate",
        "putamen",
        "pallidum",
        "accumbens",
        "hippocampus",
        "amygdala",
        "lateral ventricle",
    }
    assert sorted(table["hemisphere"]) == ["L"] * 8 + ["R"] * 8
    assert "FSL" in default.license and len(default.references) == 4
    assert default.labels.shape == load_template().shape
    assert set(np.unique(default.labels.data)) == {0, *table["index"]}


def test_left_lies_at_negative_x(default):
    for row in default.table.itertuples():
        voxels = np.argwhere(default.labels.data == row.index)
        x_mm = voxels @ default.labels.affine[0, :3] + default.labels.affine[0, 3]
        side = x_mm < 2 if row.hemisphere == "L" else x_mm > -2
        assert side.mean() > 0.99, row.name
        assert row.name.startswith("Left" if row.hemisphere == "L" else "Right")


def test_sizes_and_symmetry_are_a_brains(default):
    count = np.bincount(default.labels.data.ravel(), minlength=60)
    expected_ml = {10: 8.5, 11: 4.0, 12: 6.0, 13: 2.0, 17: 4.5, 18: 2.0, 26: 0.7, 4: 9.0}
    right = {10: 49, 11: 50, 12: 51, 13: 52, 17: 53, 18: 54, 26: 58, 4: 43}
    for left, millilitres in expected_ml.items():
        assert count[left] / 1000 == pytest.approx(millilitres, rel=0.45)
        assert count[left] == pytest.approx(count[right[left]], rel=0.35)


def test_labels_fit_the_template(default):
    """Ventricles are dark, nuclei are bright, each label is (nearly) one piece."""
    template = load_template().data
    labels = default.labels.data
    assert np.median(template[np.isin(labels, (4, 43))]) < 0.5 * np.median(template[labels == 12])
    for index in default.table["index"]:
        pieces, _ = ndimage.label(labels == index)
        sizes = np.bincount(pieces.ravel())[1:]
        assert sizes.max() > 0.93 * sizes.sum(), index


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's atlas: image, table and description."""
    data = np.zeros((6, 6, 6), np.int16)
    data[1:3], data[4:] = 7, 9
    folder = tmp_path / "nuclei"
    folder.mkdir()
    (folder / "atlas-Red_dseg.nii.gz").write_bytes(encode_image(Image(data, np.eye(4))))
    (folder / "atlas-Red_dseg.tsv").write_text("index\tname\n7\tRed nucleus L\n9\tright nigra\n")
    (folder / "atlas-Red_dseg.json").write_text('{"Name": "Red things", "License": "CC0"}')
    return folder


def test_own_atlas_from_a_folder_or_an_image(own):
    for path in (own, own / "atlas-Red_dseg.nii.gz"):
        atlas = load_atlas(str(path))
        assert (atlas.name, atlas.title, atlas.license) == ("Red", "Red things", "CC0")
        assert atlas.table["hemisphere"].tolist() == ["L", "R"]
        assert atlas.table["abbreviation"].tolist() == ["Red nucleus L", "right nigra"]
        assert (atlas.labels.data == 7).sum() == 72


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("index\tlabel\n7\ta\n", "lacks the column 'name'"),
        ("index\tname\n7\ta\n", "no row for the label 9"),
        ("index\tname\n7\ta\n7\tb\n", "whole numbers, each once"),
        ("index\tname\nx\ta\n", "whole numbers, each once"),
        ("index\tname\themisphere\n7\ta\tleft\n9\tb\tR\n", "must hold L, R or B"),
        ("", "cannot be read"),
    ],
)
def test_bad_tables_are_refused_in_a_sentence(own, table, sentence):
    (own / "atlas-Red_dseg.tsv").write_text(table)
    with pytest.raises(UnreadableInputError, match=sentence):
        load_atlas(str(own))


def test_missing_files_are_refused_in_a_sentence(own, tmp_path):
    with pytest.raises(UnreadableInputError, match="there is no such atlas"):
        load_atlas(str(tmp_path / "absent"))
    (own / "second.nii.gz").write_bytes(b"")
    with pytest.raises(UnreadableInputError, match="holds 2 label images"):
        load_atlas(str(own))
    (own / "atlas-Red_dseg.tsv").unlink()
    with pytest.raises(UnreadableInputError, match="has no table"):
        load_atlas(str(own / "atlas-Red_dseg.nii.gz"))


def test_four_dimensions_are_refused(own):
    data = np.zeros((4, 4, 4, 2), np.int16)
    (own / "atlas-Red_dseg.nii.gz").write_bytes(encode_image(Image(data, np.eye(4))))
    with pytest.raises(UnreadableInputError, match="one 3D label image"):
        load_atlas(str(own))


def test_absent_package_is_said():
    with pytest.raises(UnreadableInputError, match="pip install no_such_package"):
        package_file("no_such_package", "file.nii.gz")
