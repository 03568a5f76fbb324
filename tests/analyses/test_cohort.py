from __future__ import annotations

import pytest

from bids_qsm.analyses.cohort import Cohort, Selection, one_scan_each, select, with_labels
from tests.analyses.test_regions import with_people


def test_all_of_deep_grey_matter_joined_is_the_usual_choice(cohort: Cohort) -> None:
    part = select(cohort, Selection())
    assert set(part.regions["name"]) == {"thalamus", "putamen"}
    assert set(part.regions["hemisphere"]) == {"B"}
    assert set(part.regions["reference"]) == {"n/a", "CSF of the ventricles' atria"}
    assert len(part.regions) == 32 * 2 * 2
    assert len(part.scans) == 32
    assert len(part.images) == 64


@pytest.mark.parametrize(
    ("structures", "sides", "found"),
    [
        (("thalamus",), "joined", {"thalamus"}),
        (("Thalamus",), "apart", {"Left thalamus", "Right thalamus"}),
        (("left thalamus",), "apart", {"Left thalamus"}),
        (("thalamus",), "both", {"thalamus", "Left thalamus", "Right thalamus"}),
        (("lateral ventricle",), "joined", {"lateral ventricle"}),
    ],
)
def test_structures_with_and_without_their_side(cohort, structures, sides, found) -> None:
    part = select(cohort, Selection(structures=structures, sides=sides))
    assert set(part.regions["name"]) == found


def test_parts_fit_each_other(cohort: Cohort) -> None:
    part = select(
        cohort, Selection(measures=("R2starmap",), subset="age < 40 and sex == 'F'", session="1")
    )
    series = set(part.scans["series"])
    assert 0 < len(series) < 8
    assert set(part.regions["series"]) == set(part.images["series"]) == series
    assert set(part.regions["measure"]) == set(part.images["measure"]) == {"R2starmap"}
    assert any("age < 40" in note for note in part.notes)


def test_another_reference(cohort: Cohort) -> None:
    part = select(cohort, Selection(reference="whole brain", measures=("Chimap",)))
    assert set(part.regions["reference"]) == {"whole brain"}


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        (Selection(atlas="other"), "no atlas 'other'; there are: tiny"),
        (Selection(reference="cortex"), "no reference 'cortex'; there are: CSF .*, whole brain"),
        (Selection(measures=("FA",)), "no measure 'FA'; there are: Chimap, R2starmap"),
        (Selection(session="3"), "no session 'ses-3'; there are: ses-1, ses-2"),
        (Selection(sides="left"), "'sides' must be 'joined', 'apart' or 'both', got 'left'"),
        (Selection(structures=("Left thalamus",)), "no structure 'Left thalamus'.*sides = 'apart'"),
        (Selection(subset="agee < 3"), "'agee', which is no column"),
        (Selection(subset="__import__('os')"), "not taken"),
    ],
)
def test_what_is_not_there_is_one_sentence(cohort, selection, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        select(cohort, selection)


def test_one_scan_each_is_the_first(cohort: Cohort) -> None:
    part = one_scan_each(cohort)
    assert set(part.scans["session_id"]) == {"ses-1"}
    assert set(part.regions["session_id"]) == set(part.images["session_id"]) == {"ses-1"}
    assert part.notes[-1].startswith("Of participants with several scans the first was taken; 16")
    assert one_scan_each(part) is part


def test_labels_of_groups_are_texts(cohort: Cohort) -> None:
    coded = with_people(cohort, arm=[0.0] * 8 + [1.0] * 7 + [None])
    labelled = with_labels(coded, "arm")
    assert (
        set(labelled.scans["arm"].dropna()) == set(labelled.regions["arm"].dropna()) == {"0", "1"}
    )
    assert labelled.scans["arm"].isna().sum() == 2
    assert with_labels(cohort, "nothing") is cohort
