"""Multi-atlases made from datasets."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.anatomy import atlas_build
from bids_qsm.anatomy.atlas_build import build_atlas, find_subjects, find_table, text_for_build
from bids_qsm.anatomy.atlas_checks import atlas_problems
from bids_qsm.anatomy.atlases import AtlasMember, load_atlas
from bids_qsm.anatomy.grids import on_grid
from bids_qsm.anatomy.template import load_template
from bids_qsm.errors import CommandLineError, NothingToDoError, UnreadableInputError
from tests.anatomy.atlas_makers import TABLE, putamina, save


@pytest.fixture
def datasets(tmp_path):
    """Raw T1w images, and derived χ maps and labels in several spaces."""
    raw, derived = tmp_path / "raw", tmp_path / "derived"
    brain = (putamina() > 0).astype(np.float32)
    for name in ("01", "02", "03"):
        save(raw / f"sub-{name}/anat/sub-{name}_T1w.nii.gz", brain)
        stem = derived / f"sub-{name}/anat/sub-{name}"
        save(stem.with_name(f"sub-{name}_Chimap.nii.gz"), 0 * brain)
        save(stem.with_name(f"sub-{name}_space-T1w_Chimap.nii.gz"), 0.04 * brain)
        save(stem.with_name(f"sub-{name}_desc-sd_Chimap.nii.gz"), brain)
        save(stem.with_name(f"sub-{name}_space-MNI152NLin2009cAsym_res-1_Chimap.nii.gz"), brain)
    for name in ("01", "02"):
        stem = f"sub-{name}/anat/sub-{name}"
        save(derived / f"{stem}_space-T1w_desc-manual_dseg.nii.gz", putamina())
        save(derived / f"{stem}_space-T1w_atlas-A_dseg.nii.gz", putamina())
    (derived / "atlas-A_dseg.tsv").write_text(TABLE)
    return [raw, derived]


def test_files_in_the_space_of_the_t1w_come_first(datasets):
    first, _, third = find_subjects(datasets)
    assert first.t1w == datasets[0] / "sub-01/anat/sub-01_T1w.nii.gz"
    assert first.chi.name == "sub-01_space-T1w_Chimap.nii.gz"
    assert first.labels.name == "sub-01_space-T1w_desc-manual_dseg.nii.gz"
    assert third.name == "03" and third.labels is None
    own = find_subjects(datasets, ["02"], {"labels": "*_atlas-A_dseg.nii.gz"})
    assert [s.labels.name for s in own] == ["sub-02_space-T1w_atlas-A_dseg.nii.gz"]


def test_what_cannot_be_chosen_or_is_absent_is_said(datasets, tmp_path):
    with pytest.raises(CommandLineError, match=r"sub-01 has 2 images that may be its labels"):
        find_subjects(datasets, patterns={"labels": "*_dseg.nii.gz"})
    with pytest.raises(NothingToDoError, match="there is no sub-9"):
        find_subjects(datasets, ["9"])
    with pytest.raises(NothingToDoError, match="nobody there has a T1w"):
        find_subjects(datasets[1:])
    with pytest.raises(UnreadableInputError, match="no such folder"):
        find_subjects([tmp_path / "absent"])
    with pytest.raises(CommandLineError, match="found 0; give it by --table"):
        find_table(datasets[:1])


@pytest.fixture
def no_registration(monkeypatch):
    def make_member(name, t1w, chi, labels):
        brought = on_grid(labels, load_template(), 0)
        return AtlasMember(name, t1w, chi, labels), brought

    monkeypatch.setattr(atlas_build, "make_member", make_member)


def test_everybody_with_labels_becomes_a_member(datasets, tmp_path, no_registration):
    table = find_table(datasets)
    text = text_for_build("my own", table, "CC0", ["Me 2026"])
    lines: list[str] = []
    subjects = find_subjects(datasets)
    folder = build_atlas(tmp_path / "out", text, subjects, table, lines.append)
    assert folder == tmp_path / "out/atlas-myown" and lines == [
        "sub-01 (1 of 2)",
        "sub-02 (2 of 2)",
    ]
    assert [p.name for p in folder.parent.iterdir()] == ["atlas-myown"]
    assert atlas_problems(str(folder)) == []
    atlas = load_atlas(str(folder))
    assert (atlas.license, atlas.references) == ("CC0", ("Me 2026",))
    member = atlas.members[1].load()
    assert member.name == "02" and (member.labels.data == putamina()).all()
    assert member.chi.data.max() == pytest.approx(0.04)
    with pytest.raises(CommandLineError, match="such an atlas already"):
        build_atlas(tmp_path / "out", text, subjects, table)


def test_labels_without_a_name_are_refused_before_the_first_long_step(datasets, tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text("index\tname\n1\tLeft putamen\n")
    text = text_for_build("x", table, None, ())
    with pytest.raises(UnreadableInputError, match="no row for the label 2"):
        build_atlas(tmp_path, text, find_subjects(datasets), table)
    with pytest.raises(NothingToDoError, match="Nobody there has labels"):
        build_atlas(tmp_path, text, find_subjects(datasets, ["03"]), table)
    assert not (tmp_path / "atlas-x").exists()
