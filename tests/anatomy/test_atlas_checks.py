"""What `atlas check` finds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bids_qsm.anatomy.atlas_checks import CENTRES_MM, atlas_problems, centre_mm, inside_share
from bids_qsm.anatomy.atlases import load_atlas
from bids_qsm.images import Image
from tests.anatomy.atlas_makers import (
    AFFINE,
    SPACE,
    TABLE,
    add_member,
    putamina,
    save,
    write_folder,
)

DSEG = f"tpl-{SPACE}_res-2_atlas-Tiny_dseg.nii.gz"


def problems_of(folder) -> str:
    return "\n".join(atlas_problems(str(folder)))


def test_a_good_atlas_has_no_problem(tmp_path):
    folder = write_folder(tmp_path)
    add_member(folder)
    assert atlas_problems(str(folder)) == []


@pytest.mark.parametrize("name", ["default", "CIT168", "7TAMI"])
def test_atlases_that_come_with_the_program_have_no_problem(name):
    assert atlas_problems(name) == []


def test_usual_centres_are_those_of_the_default_atlas():
    """An independent drawing of the same structures: half as far as what is complained of."""
    atlas = load_atlas("default")
    seen = 0
    for row in atlas.table.itertuples():
        usual = CENTRES_MM.get(row.name.split(" ", 1)[1])
        if usual is not None:
            expected = np.array(usual) * ((1 if row.hemisphere == "L" else -1), 1, 1)
            assert np.linalg.norm(centre_mm(atlas.labels, row.index) - expected) < 6, row.name
            seen += 1
    assert seen == 14


def test_unreadable_is_the_one_problem(tmp_path):
    assert "there is no such atlas" in problems_of(tmp_path / "nothing")


def test_no_licence_is_said(tmp_path):
    folder = write_folder(tmp_path)
    (folder / "atlas-Tiny_description.json").write_text(json.dumps({"Space": SPACE}))
    assert "no licence is stated" in problems_of(folder)


def test_a_flipped_image_is_one_sentence(tmp_path):
    folder = write_folder(tmp_path)
    save(folder / DSEG, putamina()[::-1].copy())
    assert "Every structure lies on the wrong side" in problems_of(folder)
    assert len(atlas_problems(str(folder))) == 1


def test_one_structure_on_the_wrong_side_is_named(tmp_path):
    folder = write_folder(tmp_path, data=np.where(putamina() == 2, 3, putamina()))
    rows = TABLE.replace("2\tRight", "3\tRight") + "2\tRight caudate\tR\tCau_R\n"
    (folder / "atlas-Tiny_dseg.tsv").write_text(rows)
    data = np.where(putamina() == 2, 3, putamina())
    data[12:16, 5:12, 12:16] = 2
    save(folder / DSEG, data)
    found = atlas_problems(str(folder))
    assert len(found) == 1 and "Right caudate (label 2) lies on the wrong side" in found[0]


def test_names_in_another_order_are_found_by_place(tmp_path):
    folder = write_folder(tmp_path)
    rows = TABLE.replace("putamen", "hippocampus")
    (folder / "atlas-Tiny_dseg.tsv").write_text(rows)
    found = atlas_problems(str(folder))
    assert len(found) == 2 and all("mm from where the template has it" in f for f in found)


def test_labels_outside_the_brain_are_in_another_space(tmp_path):
    folder = write_folder(tmp_path)
    moved = AFFINE.copy()
    moved[2, 3] += 90
    save(folder / DSEG, putamina(), moved)
    assert "% of the labels' voxels lie in the template's brain" in problems_of(folder)
    assert inside_share(Image(putamina(), moved)) < 0.2 < inside_share(Image(putamina(), AFFINE))


def test_empty_labels_and_contradictions_are_said(tmp_path):
    folder = write_folder(tmp_path)
    rows = TABLE + "9\tLeft red nucleus\tR\tRN\n"
    (folder / "atlas-Tiny_dseg.tsv").write_text(rows)
    said = problems_of(folder)
    assert "label 9 (Left red nucleus) of the table has no voxel" in said
    assert "says hemisphere R for 'Left red nucleus'" in said


def test_interpolated_labels_are_said(tmp_path):
    folder = write_folder(tmp_path)
    data = putamina().astype(np.float32)
    data[4, 5:12, 5:12] = 0.6
    save(folder / DSEG, data)
    assert "not whole numbers" in problems_of(folder)


def test_space_of_the_description_must_be_that_of_the_files(tmp_path):
    folder = write_folder(tmp_path)
    text = {"License": "CC0", "Space": "MNI152Lin"}
    (folder / "atlas-Tiny_description.json").write_text(json.dumps(text))
    assert "'Space' is 'MNI152Lin'" in problems_of(folder)


def test_probabilities_must_fit_the_table(tmp_path):
    folder = write_folder(tmp_path)
    path = folder / f"tpl-{SPACE}_atlas-Tiny_probseg.nii.gz"
    save(path, np.zeros((4, 4, 4, 3), np.float32))
    assert "one volume for each of the 2 rows" in problems_of(folder)
    save(path, np.full((4, 4, 4, 2), 100, np.float32))
    assert "between 0 and 1, got up to 100" in problems_of(folder)


def test_images_of_the_template_must_look_like_it(tmp_path):
    folder = write_folder(tmp_path)
    save(folder / f"tpl-{SPACE}_T1w.nii.gz", np.ones((41, 17, 17), np.float32))
    save(folder / f"tpl-{SPACE}_Chimap.nii.gz", 50 * (putamina() > 0).astype(np.float32))
    said = problems_of(folder)
    assert "does not look like the template's" in said
    assert "must be in ppm" in said and "convert it (ppb / 1000)" in said


def test_members_are_checked(tmp_path):
    folder = write_folder(tmp_path)
    own = add_member(folder)
    affine = load_atlas(str(folder)).members[0].load().t1w.affine
    labels = own / "sub-01_atlas-Tiny_dseg.nii.gz"
    save(own / "sub-01_T1w.nii.gz", np.ones((41, 17, 17), np.float32), affine)
    save(own / "sub-01_Chimap.nii.gz", np.ones((41, 17, 17), np.float32), affine)
    save(labels, np.where(putamina() == 2, 7, putamina()), affine)
    said = problems_of(folder)
    assert "sub-01_T1w.nii.gz: the T1w image of a member must be zero outside" in said
    assert "sub-01_Chimap.nii.gz: the susceptibility must be zero outside" in said
    assert "the table has no row for the label 7" in said
    save(labels, putamina()[::-1].copy(), affine)
    assert "left structures lie to the right of right ones" in problems_of(folder)
    save(own / "sub-01_Chimap.nii.gz", np.ones((41, 17, 17), np.float32))
    assert "must lie on one grid" in problems_of(folder)
