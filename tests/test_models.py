from __future__ import annotations

import pandas as pd
import pytest

from bids_qsm.analyses import KINDS
from bids_qsm.analyses.cohort import Selection
from bids_qsm.errors import CommandLineError, UnreadableInputError
from bids_qsm.models import analyses_from, analysis_from, default_analyses, read_models
from bids_qsm.numerics.registry import options_of

FULL = """
[[analysis]]
name = "iron-in-patients"
kind = "regions"
title = "Iron"
covariates = ["age", "sex"]
subset = "age < 50"
measures = "Chimap"
robust = true

[[analysis]]
name = "slopes"
kind = "longitudinal"
threshold_percent = 5
"""


def test_a_file_becomes_analyses_with_all_their_options(tmp_path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(FULL)
    iron, slopes = read_models(path)
    assert (iron.name, iron.kind, iron.title) == ("iron-in-patients", "regions", "Iron")
    assert iron.selection == Selection(measures=("Chimap",), subset="age < 50")
    assert iron.options == {
        **options_of(KINDS["regions"]), "covariates": ("age", "sex"), "robust": True,
    }  # fmt: skip
    assert slopes.title == "slopes"
    assert slopes.options["threshold_percent"] == 5.0
    assert isinstance(slopes.options["threshold_percent"], float)


def test_transforms_are_a_table() -> None:
    words = {"name": "a", "kind": "regression", "transforms": {"age": "log"}}
    assert analysis_from(words).options["transforms"] == {"age": "log"}


def a(**words: object) -> dict[str, object]:
    return {"analysis": [{"name": "a", "kind": "regions", **words}]}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "asks for nothing"),
        ({"analysis": []}, "asks for nothing"),
        ({"analysis": {"name": "a"}}, "asks for nothing"),
        ({"analysis": ["a"]}, "asks for nothing"),
        ({"analyses": []}, "no table 'analyses'"),
        (a(kind="voodoo"), "no kind 'voodoo'; choose one of: regions, voxelwise"),
        (a(kind=["regions"]), "no kind"),
        (a(kind=3), "no kind"),
        (a(colour="red"), r"no option 'colour'; its options: .*covariates.*\(All kinds have: mea"),
        (a(robust="yes"), "'robust' of 'regions' must be of type bool, got 'yes'"),
        (a(covariates="age"), "'covariates' of 'regions' must be of type tuple, got 'age'"),
        (a(covariates=[1, 2]), "covariates"),
        (a(by=3), "'by' of 'regions' must be of type str"),
        (a(kind="power", effects=["big"]), "effects"),
        (a(kind="power", seed=True), "must be of type int"),
        (a(kind="regression", transforms={"age": 3}), "transforms"),
        (a(subset=50), "'subset' must be a text, got 50"),
        (a(measures=[1]), "'measures' must be a list of texts"),
        (a(measures=3), "'measures' must be a list of texts"),
        (a(title=3), "'title' must be a text"),
        *((a(name=name), "of letters, digits and hyphens") for name in (
            "", "../x", "a/b", "a b", ".hidden", "-x", "a" * 80, "é", "a\n", 3, "a_b",
        )),
        ({"analysis": [{"kind": "regions"}]}, "an analysis is named ''"),
        ({"analysis": [{"name": "a", "kind": "power"}, {"name": "A", "kind": "trial"}]},
         "two analyses are named 'a'"),
    ],
)  # fmt: skip
def test_what_does_not_exist_is_one_sentence(content, sentence) -> None:
    with pytest.raises(CommandLineError, match=sentence) as caught:
        analyses_from(content)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_toml_or_not_there(tmp_path) -> None:
    path = tmp_path / "models.toml"
    with pytest.raises(UnreadableInputError, match=r"models\.toml: .*cannot be read"):
        read_models(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnreadableInputError, match="cannot be read"):
        read_models(path)
    path.write_text("[[analysis]\n")
    with pytest.raises(CommandLineError, match=r"models\.toml: .*line 1"):
        read_models(path)
    path.write_text('[[analysis]]\nname = "a"\nkind = "voodoo"\n')
    with pytest.raises(CommandLineError, match=r"models\.toml: analysis 'a' has no kind"):
        read_models(path)


def scans(**columns: list) -> pd.DataFrame:
    return pd.DataFrame({"participant_id": ["sub-1", "sub-2", "sub-3", "sub-4"], **columns})


def test_without_a_file_two_groups_are_compared() -> None:
    table = scans(group=["a", "b", "a", "b"], age=[30, 40, 50, None], sex=["F"] * 4)
    (regions, voxels), (note, left) = default_analyses(table)
    assert (regions.kind, voxels.kind) == ("regions", "voxelwise")
    assert regions.options["covariates"] == voxels.options["covariates"] == ("age",)
    assert "two levels (a, b), which are compared by structure and by voxel, adjusted" in note
    assert left.startswith("Not adjusted for sex: ")
    (regions, _), (note,) = default_analyses(scans(group=[1.0, 0.0, 1.0, None]))
    assert regions.options["covariates"] == ()
    assert "(0, 1), which are compared by structure and by voxel." in note


def test_what_would_fail_is_left_out_of_the_defaults() -> None:
    table = scans(group=["a", "b", "a", "b"], age=[30, 40, 50, 60], sex=["F", "M", "F", "F"])
    (regions,), notes = default_analyses(table, has_maps=False)
    assert regions.kind == "regions"
    assert regions.options["covariates"] == ("age",)
    assert "which are compared by structure, adjusted for age." in notes[0]
    assert notes[1].startswith("There are no maps in the atlas' space")
    assert notes[2].startswith("Not adjusted for sex: ")


def test_without_structures_only_what_needs_none_is_made() -> None:
    table = scans(group=["a", "b", "a", "b"])
    analyses, (note,) = default_analyses(
        table, ("ses-1", "ses-2"), has_structures=False, follows_lesions=True
    )
    assert [analysis.kind for analysis in analyses] == ["longitudinal"]
    assert note == "No scan has structures, as there was no T1w image: none are compared."


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({}, "is not there"),
        ({"group": ["a", "b", "c", "a"]}, "has 3 levels"),
        ({"group": ["a"] * 4}, "has 1 level."),
        ({"group": [None] * 4}, "has 0 levels"),
    ],
)
def test_without_two_groups_there_is_nothing_but_rescans(columns, found) -> None:
    analyses, (note,) = default_analyses(scans(**columns), ("ses-1", "ses-2"))
    assert [analysis.kind for analysis in analyses] == ["reliability"]
    assert analyses[0].options["sessions"] == ("ses-1", "ses-2")
    assert found in note
    (lesions,), _ = default_analyses(scans(**columns), follows_lesions=True)
    assert (lesions.kind, lesions.options["lesions"]) == ("longitudinal", "largest")
    assert default_analyses(scans(**columns))[0] == ()
