"""Atlases of other layouts brought into ours."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from bids_qsm.anatomy import atlas_import, atlas_members
from bids_qsm.anatomy.atlas_checks import atlas_problems
from bids_qsm.anatomy.atlas_import import ImportOptions, import_atlas
from bids_qsm.anatomy.atlas_members import majority
from bids_qsm.anatomy.atlas_names import check_names, packaged_text, read_names
from bids_qsm.anatomy.atlas_volumes import as_probabilities, likeliest, two_sided
from bids_qsm.anatomy.atlases import AtlasMember, load_atlas
from bids_qsm.anatomy.grids import on_grid
from bids_qsm.anatomy.template import load_template
from bids_qsm.errors import CommandLineError, UnreadableInputError
from bids_qsm.images import Image
from tests.anatomy.atlas_makers import AFFINE, SHAPE, SPACE, TABLE, putamina, save

FREE = ImportOptions(license="CC0")


def probabilities() -> np.ndarray:
    data = np.zeros((*SHAPE, 2), np.float32)
    data[5:10, 5:12, 5:12, 0], data[31:36, 5:12, 5:12, 1] = 0.8, 0.6
    return data


def test_any_labels_with_a_table_come_to_the_template(tmp_path):
    path = save(tmp_path / "nuclei.nii.gz", putamina())
    (tmp_path / "nuclei.tsv").write_text(TABLE)
    folder = import_atlas("nifti", path, tmp_path / "out", FREE)
    assert folder == tmp_path / "out" / "atlas-nuclei"
    atlas = load_atlas(str(folder))
    assert atlas_problems(str(folder)) == []
    assert atlas.labels.shape == load_template().shape
    # a voxel of 2 mm is eight of the template's
    counts = np.bincount(atlas.labels.data.ravel())[1:]
    assert counts.tolist() == pytest.approx([8 * 245, 8 * 245], rel=0.01)


def test_labels_finer_than_the_template_keep_their_grid(tmp_path):
    fine = AFFINE @ np.diag([0.25, 0.25, 0.25, 1])
    fine[:3, 3] = (-30, -4, -4)
    data = np.zeros((20, 20, 20), np.int16)
    data[6:15, 6:15, 6:15] = 1
    path = save(tmp_path / "fine.nii.gz", data, fine)
    (tmp_path / "fine.tsv").write_text(TABLE.splitlines()[0] + "\n" + TABLE.splitlines()[1])
    labels = load_atlas(str(import_atlas("nifti", path, tmp_path, FREE))).labels
    assert labels.shape == (13, 13, 13) and (labels.data == 1).sum() == 9**3
    assert np.allclose(labels.affine[:3, 3], [-28, -2, -2])


def test_probabilities_are_kept_and_their_likeliest_labelled(tmp_path):
    percent = np.rint(100 * probabilities()).astype(np.uint8)
    path = save(tmp_path / "p.nii.gz", percent)
    (tmp_path / "p.tsv").write_text(TABLE)
    folder = import_atlas("nifti", path, tmp_path, FREE)
    assert atlas_problems(str(folder)) == []
    kept = nib.load(folder / f"tpl-{SPACE}_atlas-p_probseg.nii.gz").get_fdata()
    assert np.allclose(kept, probabilities(), atol=0.5 / 255)
    path = save(tmp_path / "q.nii.gz", np.repeat(percent, 2, axis=3))
    (tmp_path / "q.tsv").write_text(TABLE)
    with pytest.raises(UnreadableInputError, match="has 4 volumes, and the table has 2 rows"):
        import_atlas("nifti", path, tmp_path, FREE)


def test_neighbours_that_share_a_voxel_leave_no_gap():
    data = np.array([[0.45, 0.4], [0.2, 0.2], [0.0, 0.9], [0.6, 0.0]], np.float32)
    table = packaged_text("CIT168").table.iloc[:2]
    image = Image(data.reshape(4, 1, 1, 2), np.eye(4))
    assert likeliest(image, table).data.ravel().tolist() == [1, 0, 2, 1]


@pytest.mark.parametrize("scale", [1.0, 100.0, 255.0])
def test_probabilities_are_scaled_to_one(scale):
    image = Image(np.array([0, scale], np.float32).reshape(1, 1, 1, 2), np.eye(4))
    assert as_probabilities(image).data.max() == 1


def test_both_sides_in_one_label_are_told_apart_by_the_midline(tmp_path):
    labels = Image(np.minimum(putamina(), 1).astype(np.float32), AFFINE)
    assert (two_sided(labels, 2, tmp_path).data == putamina()).all()
    flipped = Image(labels.data[::-1], AFFINE @ np.diag([-1, 1, 1, 1]))
    flipped.affine[0, 3] = 40
    assert (two_sided(flipped, 2, tmp_path).data == putamina()[::-1]).all()
    likely = Image(probabilities().sum(axis=3, keepdims=True), AFFINE)
    assert np.allclose(two_sided(likely, 2, tmp_path).data, probabilities())
    with pytest.raises(UnreadableInputError, match="expected 32 labels"):
        two_sided(labels, 32, tmp_path)


def test_another_order_of_a_published_atlas_is_refused(tmp_path):
    table = packaged_text("CIT168").table
    check_names({1: "L Putamen", 32: "R Subthalamic Nucleus"}, table, tmp_path)
    check_names({18: "Right-Substantia-Nigra pars reticulata "}, table, tmp_path)
    with pytest.raises(UnreadableInputError, match=r"calls the label 1 'L Caudate'"):
        check_names({1: "L Caudate"}, table, tmp_path)


def test_look_up_tables_of_both_kinds_are_read(tmp_path):
    path = tmp_path / "lut.txt"
    path.write_text("# no name\n0 Unknown 0 0 0 0\n\n10 Left-Thalamus 0 118 14 0\n")
    assert read_names(path) == {10: "Left-Thalamus"}
    path.write_text("9 0.00 0.50 0.00 Left-Putamen\n11 1 0 1e-3 Left Sub thalamic\n")
    assert read_names(path) == {9: "Left-Putamen", 11: "Left Sub thalamic"}
    path.write_text("1 a 0 0 0\n1 b 0 0 0\n")
    with pytest.raises(UnreadableInputError, match="line 2 is not 'number name red green blue'"):
        read_names(path)


def test_what_is_not_in_the_space_is_refused(tmp_path):
    moved = AFFINE.copy()
    moved[1, 3] += 200
    path = save(tmp_path / "n.nii.gz", putamina(), moved)
    (tmp_path / "n.tsv").write_text(TABLE)
    with pytest.raises(UnreadableInputError, match="only 0 % of the labels lie in the brain"):
        import_atlas("nifti", path, tmp_path, FREE)
    path = save(tmp_path / "n.nii.gz", putamina())
    with pytest.raises(
        UnreadableInputError, match=r"'Mine' is not known \(known: MNI152NLin2009cA"
    ):
        import_atlas("nifti", path, tmp_path, ImportOptions(space="Mine"))
    assert not (tmp_path / "atlas-n").exists()


def test_what_is_missing_or_wrong_is_said(tmp_path):
    with pytest.raises(UnreadableInputError, match="no such file or folder"):
        import_atlas("nifti", tmp_path / "absent", tmp_path, FREE)
    with pytest.raises(UnreadableInputError, match="expected one label image in the folder"):
        import_atlas("cit168", tmp_path, tmp_path, FREE)
    path = save(tmp_path / "n.nii.gz", putamina())
    with pytest.raises(UnreadableInputError, match="no names of its labels; give them by --table"):
        import_atlas("nifti", path, tmp_path, FREE)
    (tmp_path / "n.tsv").write_text(TABLE)
    save(path, 0.5 * putamina())
    with pytest.raises(UnreadableInputError, match="not whole numbers"):
        import_atlas("nifti", path, tmp_path, FREE)
    save(path, putamina())
    import_atlas("nifti", path, tmp_path, FREE)
    with pytest.raises(CommandLineError, match="such an atlas already"):
        import_atlas("nifti", path, tmp_path, FREE)


@pytest.fixture
def no_registration(monkeypatch):
    """Members that are brought to the template by their affine alone."""

    def make_member(name, t1w, chi, labels):
        brought = on_grid(labels, load_template(), 0)
        return AtlasMember(name, t1w, chi, labels), brought

    monkeypatch.setattr(atlas_import, "make_member", make_member)


def save_mgz(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.MGHImage(data, AFFINE), path)


def test_freesurfer_subjects_become_members(tmp_path, no_registration):
    labels = np.array([0, 12, 51], np.int32)[putamina()]
    labels[0, 0, 0] = 1001  # cortex, which has no name here
    for subject, data in (("bert", labels), ("anna", labels)):
        save_mgz(tmp_path / subject / "mri" / "aseg.mgz", data)
        save_mgz(tmp_path / subject / "mri" / "norm.mgz", (putamina() > 0).astype(np.float32))
    out = tmp_path / "out"
    for subject in ("bert", "anna"):
        folder = import_atlas("freesurfer", tmp_path / subject, out, FREE)
    atlas = load_atlas(str(folder))
    assert [m.name for m in atlas.members] == ["anna", "bert"]
    assert set(np.unique(atlas.members[0].load().labels.data)) == {0, 12, 51}
    assert set(np.unique(atlas.labels.data)) == {0, 12, 51}
    assert (atlas.table["freesurfer_id"] == atlas.table["index"]).all()
    with pytest.raises(CommandLineError, match="has a member 'bert' already"):
        import_atlas("freesurfer", tmp_path / "bert", out, FREE)


def test_freesurfers_own_table_names_what_is_there(tmp_path, no_registration):
    save_mgz(tmp_path / "bert" / "mri" / "aseg.mgz", np.array([0, 12, 51], np.int32)[putamina()])
    save_mgz(tmp_path / "bert" / "mri" / "norm.mgz", (putamina() > 0).astype(np.float32))
    lut = tmp_path / "FreeSurferColorLUT.txt"
    lut.write_text("0 Unknown 0 0 0 0\n10 Left-Thalamus 0 1 1 0\n12 Left-Putamen 1 1 1 0\n"
                   "51 Right-Putamen 1 1 1 0\n")  # fmt: skip
    options = ImportOptions(name="mine", table=lut, license="CC0")
    folder = import_atlas("freesurfer", tmp_path / "bert", tmp_path, options)
    table = load_atlas(str(folder)).table
    assert table["name"].tolist() == ["Left-Putamen", "Right-Putamen"]
    assert table["hemisphere"].tolist() == ["L", "R"] and table["freesurfer_id"].tolist() == [
        12,
        51,
    ]
    with pytest.raises(UnreadableInputError, match=r"there is no aseg.mgz"):
        import_atlas("freesurfer", tmp_path, tmp_path, FREE)
    other = tmp_path / "nuclei.tsv"
    other.write_text(TABLE.replace("1\tLeft putamen", "12\tLeft caudate"))
    path = save(tmp_path / "n.nii.gz", np.where(putamina() == 1, 12, putamina()))
    options = ImportOptions(name="mine", table=other, t1w=path, license="CC0", member="two")
    with pytest.raises(UnreadableInputError, match="is 'Left-Putamen' in the atlas that is there"):
        import_atlas("nifti", path, tmp_path, options)


def test_majority_wins_and_none_needs_more_than_half():
    votes = [[1, 1, 0, 2, 0], [1, 2, 0, 1, 0], [2, 2, 1, 0, 3], [1, 0, 0, 0, 3]]
    images = [Image(np.array(v, np.int16).reshape(5, 1, 1), np.eye(4)) for v in votes]
    assert majority(images).data.ravel().tolist() == [1, 2, 0, 1, 3]


def templateflow(folder):
    """What TemplateFlow's own client leaves: some files fetched, others empty."""
    tpl = folder / f"tpl-{SPACE}"
    for desc in ("th25", "th50"):
        save(tpl / f"tpl-{SPACE}_res-01_atlas-Nuc_desc-{desc}_dseg.nii.gz", putamina())
    (tpl / f"tpl-{SPACE}_res-02_atlas-Nuc_desc-th25_dseg.nii.gz").write_bytes(b"")
    (tpl / f"tpl-{SPACE}_res-01_atlas-Void_dseg.nii.gz").write_bytes(b"")
    (tpl / f"tpl-{SPACE}_atlas-Nuc_dseg.tsv").write_text(TABLE)
    (tpl / "template_description.json").write_text('{"License": "See LICENSE file"}')
    return folder


def test_templateflow_by_name(tmp_path):
    home = templateflow(tmp_path / "home")
    options = ImportOptions(name="Nuc", desc="th25")
    folder = import_atlas("templateflow", home, tmp_path, options)
    atlas = load_atlas(str(folder))
    assert (atlas.name, atlas.license) == ("Nuc", "See LICENSE file")
    assert atlas_problems(str(folder)) == []
    for words, error, sentence in (
        (ImportOptions(), CommandLineError, "say which atlas by --name"),
        (ImportOptions(name="Nuc"), CommandLineError, "choose by --desc: th25, th50"),
        (ImportOptions(name="Void"), UnreadableInputError, "has not fetched this file yet"),
        (ImportOptions(name="Gone"), UnreadableInputError, "there is: Nuc, Void"),
        (ImportOptions(name="Nuc", space="X"), UnreadableInputError, "there is no such folder"),
    ):
        with pytest.raises(error, match=sentence):
            import_atlas("templateflow", home, tmp_path, words)


@pytest.mark.shared
def test_cit168_is_in_the_space_of_the_template(shared_data, tmp_path):
    """Its T1w brain lies on the template's to the voxel: any half voxel's shift fits worse."""
    folder = import_atlas("cit168", shared_data / "atlases", tmp_path, ImportOptions())
    assert atlas_problems(str(folder)) == []
    atlas, packaged = load_atlas(str(folder)), load_atlas("CIT168")
    assert (atlas.labels.data == packaged.labels.data).all()
    assert "CC BY 4.0" in atlas.license
    given = nib.load(shared_data / "atlases" / "CIT168_LR_dseg_p25.nii.gz")
    p25 = on_grid(Image(np.asarray(given.dataobj, np.int16), given.affine), load_template(), 0)
    agreed = (p25.data == atlas.labels.data) & (p25.data > 0)
    assert agreed.sum() > 0.8 * (p25.data > 0).sum()
    brain = nib.load(shared_data / "atlases" / "MNI2009c_T1w_brain_CIT168.nii.gz")
    data = np.asarray(brain.dataobj, np.float32)
    inside = (load_template().data > 0)[40:150, 60:180, 40:130]

    def correlation(shift_mm: float) -> float:
        affine = np.array(brain.affine)
        affine[1, 3] += shift_mm
        moved = on_grid(Image(data, affine), load_template()).data[40:150, 60:180, 40:130]
        return np.corrcoef(moved[inside], load_template().data[40:150, 60:180, 40:130][inside])[
            0, 1
        ]

    assert correlation(0) > max(correlation(-1), correlation(1))


@pytest.mark.shared
@pytest.mark.slow
def test_7tami_is_brought_from_the_symmetric_template(shared_data, tmp_path):
    folder = import_atlas("7tami", shared_data / "atlases", tmp_path, ImportOptions())
    assert atlas_problems(str(folder)) == []
    assert (load_atlas(str(folder)).labels.data == load_atlas("7TAMI").labels.data).mean() > 0.999


@pytest.mark.shared
@pytest.mark.slow
def test_a_real_freesurfer_subject_becomes_a_member(shared_data, tmp_path):
    folder = import_atlas("freesurfer", shared_data / "freesurfer_subject", tmp_path, FREE)
    atlas = load_atlas(str(folder))
    member = atlas.members[0].load()
    assert {10, 11, 12, 13, 49, 50, 51, 52} <= set(np.unique(member.labels.data))
    assert 0.05 < np.count_nonzero(member.t1w.data) / member.t1w.data.size < 0.3
    default = load_atlas("default").labels.data
    for index in (10, 11, 12, 49, 50, 51):
        a, b = atlas.labels.data == index, default == index
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.7, index


def test_known_spaces_are_those_of_installed_packages():
    assert set(atlas_members.SPACES) == {"MNI152NLin2009aSym", "MNI152NLin2009bSym"}
