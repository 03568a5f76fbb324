"""Atlas folders in the documented layout."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.anatomy.atlas_files import hemisphere_in, read_table
from bids_qsm.anatomy.atlases import atlas_files, load_atlas, named_atlases
from bids_qsm.anatomy.template import load_template
from bids_qsm.errors import UnreadableInputError
from tests.anatomy.atlas_makers import (
    AFFINE,
    SHAPE,
    SPACE,
    TABLE,
    add_member,
    putamina,
    save,
    write_folder,
)


def test_a_folder_gives_labels_table_and_text(tmp_path):
    atlas = load_atlas(str(write_folder(tmp_path)))
    assert (atlas.name, atlas.title, atlas.license) == ("Tiny", "A tiny one", "CC0")
    assert (atlas.space, atlas.references) == (SPACE, ("Nobody 1999",))
    assert atlas.table["abbreviation"].tolist() == ["Put_L", "Put_R"]
    assert atlas.labels.data.dtype == np.int16 and (atlas.labels.data == putamina()).all()
    assert atlas.chi is None and atlas.members == ()


def test_chi_comes_on_the_grid_of_the_template(tmp_path):
    folder = write_folder(tmp_path)
    save(folder / f"tpl-{SPACE}_Chimap.nii.gz", 0.1 * (putamina() > 0).astype(np.float32))
    chi = load_atlas(str(folder)).chi
    template = load_template()
    assert chi.shape == template.shape and np.allclose(chi.affine, template.affine)
    voxel = np.linalg.inv(template.affine) @ [-26, 0, 0, 1]
    assert chi.data[tuple(np.rint(voxel[:3]).astype(int))] == pytest.approx(0.1)
    assert chi.data[0, 0, 0] == 0


def test_members_are_read_when_they_are_needed(tmp_path):
    folder = write_folder(tmp_path)
    add_member(folder, "02", chi=False)
    add_member(folder, "01")
    first, second = load_atlas(str(folder)).members
    assert (first.name, second.name) == ("01", "02")
    one, two = first.load(), second.load()
    assert one.t1w.data.dtype == one.chi.data.dtype == np.float32
    assert one.labels.data.dtype == np.int16 and two.chi is None
    assert one.chi.data[one.labels.data > 0] == pytest.approx(0.05)
    assert np.allclose(one.labels.affine, one.t1w.affine)
    assert not np.allclose(one.t1w.affine, AFFINE)


def test_members_on_several_grids_are_refused(tmp_path):
    folder = write_folder(tmp_path)
    own = add_member(folder)
    save(own / "sub-01_Chimap.nii.gz", np.zeros(SHAPE, np.float32))
    with pytest.raises(UnreadableInputError, match=r"sub-01_Chimap.*must lie on one grid"):
        load_atlas(str(folder)).members[0].load()
    nan = np.full(SHAPE, np.nan, np.float32)
    save(own / "sub-01_T1w.nii.gz", nan)
    with pytest.raises(UnreadableInputError, match="one 3D image without NaN"):
        load_atlas(str(folder)).members[0].load()


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        ("atlas-Tiny_dseg.tsv", "lacks atlas-Tiny_dseg.tsv, the table"),
        ("atlas-Tiny_description.json", "lacks atlas-Tiny_description.json, the description"),
        (f"tpl-{SPACE}_res-2_atlas-Tiny_dseg.nii.gz", "lacks labels on the template"),
        ("sub-01/sub-01_T1w.nii.gz", "member of the multi-atlas lacks sub-01_T1w"),
        ("sub-01/sub-01_atlas-Tiny_dseg.nii.gz", "lacks sub-01_atlas-Tiny_dseg"),
    ],
)
def test_what_is_missing_is_said(tmp_path, gone, sentence):
    folder = write_folder(tmp_path)
    add_member(folder)
    (folder / gone).unlink()
    with pytest.raises(UnreadableInputError, match=sentence):
        load_atlas(str(folder))


def test_two_of_what_must_be_one_are_refused(tmp_path):
    folder = write_folder(tmp_path)
    save(folder / f"tpl-{SPACE}_atlas-Tiny_dseg.nii.gz", putamina())
    with pytest.raises(UnreadableInputError, match="expected one image"):
        load_atlas(str(folder))
    (folder / f"tpl-{SPACE}_atlas-Tiny_dseg.nii.gz").unlink()
    save(folder / f"tpl-{SPACE}_atlas-Other_dseg.nii.gz", putamina())
    with pytest.raises(UnreadableInputError, match=r"carry one name.*Other, Tiny"):
        load_atlas(str(folder))


def test_another_space_is_refused(tmp_path):
    folder = write_folder(tmp_path)
    labels = folder / f"tpl-{SPACE}_res-2_atlas-Tiny_dseg.nii.gz"
    labels.rename(folder / "tpl-Mine_atlas-Tiny_dseg.nii.gz")
    with pytest.raises(UnreadableInputError, match=r"in the space Mine.*import nifti --t1w"):
        load_atlas(str(folder))


def test_names_are_looked_up_in_the_users_folders(tmp_path, monkeypatch):
    write_folder(tmp_path / "a")
    write_folder(tmp_path / "b", "Other")
    monkeypatch.setenv("BIDS_QSM_ATLASES", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert {"Tiny", "Other"} <= set(named_atlases())
    assert load_atlas("Other").title == "A tiny one"
    with pytest.raises(UnreadableInputError, match=r"give a name .default.*Tiny"):
        load_atlas("Nothing")


def test_every_file_that_decides_is_named(tmp_path):
    folder = write_folder(tmp_path)
    add_member(folder)
    assert len(atlas_files(str(folder))) == 6
    assert len(atlas_files("CIT168")) == 3 and atlas_files("default") == []
    image = save(tmp_path / "n.nii.gz", putamina())
    table = tmp_path / "n.tsv"
    table.write_text(TABLE)
    assert atlas_files(str(image)) == [image, table]


@pytest.mark.parametrize("name", ["CIT168", "7TAMI"])
def test_packaged_atlases_are_whole(name):
    atlas = load_atlas(name)
    present = set(np.unique(atlas.labels.data)) - {0}
    assert present == set(atlas.table["index"])
    assert sorted(atlas.table["hemisphere"]) == sorted("LR" * (len(present) // 2))
    assert atlas.license != "not stated" and atlas.references
    caudate = atlas.table.set_index("name")["freesurfer_id"]
    assert (caudate["Left caudate"], caudate["Right putamen"]) == (11, 51)
    assert caudate.isna().any()


def test_tables_may_have_freesurfer_ids_and_names_like_na(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("index\tname\tfreesurfer_id\n0\tbackground\tn/a\n3\tNA\t26\n4\tb R\tn/a\n")
    table = read_table(path)
    assert table["name"].tolist() == ["NA", "b R"] and table["hemisphere"].tolist() == ["B", "R"]
    assert table["freesurfer_id"][0] == 26 and table["freesurfer_id"].isna().tolist() == [
        False,
        True,
    ]
    path.write_text("index\tname\tfreesurfer_id\n3\ta\tb\n")
    with pytest.raises(UnreadableInputError, match="'freesurfer_id' must hold whole numbers"):
        read_table(path)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("Left thalamus", "L"), ("L Putamen", "L"), ("thal-rh-pulvinar", "R"), ("nigra_R", "R"),
        ("7Networks_LH_Vis_1", "L"), ("fornix", "B"), ("lateral r nucleus", "B"),
    ],
)  # fmt: skip
def test_sides_are_read_from_names(name, side):
    assert hemisphere_in(name) == side
