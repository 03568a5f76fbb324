from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest

from bids_qsm.bids import queries
from bids_qsm.bids.inputs import find_series
from bids_qsm.bids.queries import select_files, without_prefix
from bids_qsm.errors import (
    CommandLineError,
    NotBidsError,
    NothingToDoError,
    UnreadableInputError,
)


def names(dataset, **changes) -> list[str]:
    return [series.name for series in find_series(dataset.settings(**changes)).series]


@pytest.fixture
def cohort(dataset):
    """Two subjects; the first has two sessions with two acquisitions each."""
    for session in ("1", "2"):
        for acquisition in ("A", "B"):
            dataset.megre(f"sub-01_ses-{session}_acq-{acquisition}", te_s=(0.004, 0.008))
    dataset.megre("sub-02", te_s=(0.004, 0.008))
    return dataset


class TestDataset:
    def test_a_folder_that_may_not_be_read(self, dataset, monkeypatch):
        """As root may read anything, the refusal is made up."""
        closed = str(dataset.root / "sub-01" / "anat")

        def refuse(root):
            raise PermissionError(13, "Permission denied", closed)

        monkeypatch.setattr(queries, "subjects_of", refuse)
        with pytest.raises(UnreadableInputError, match=rf"{closed}: this user \(id \d+\) may not"):
            select_files(dataset.settings())

    def test_missing_folder(self, dataset):
        dataset.root.rename(dataset.root.with_name("gone"))
        with pytest.raises(NotBidsError, match="there is no such folder"):
            select_files(dataset.settings())

    def test_no_description(self, dataset):
        dataset.megre("sub-01")
        (dataset.root / "dataset_description.json").unlink()
        with pytest.raises(NotBidsError, match="this is not a BIDS dataset, as it has no"):
            select_files(dataset.settings())
        assert names(dataset, skip_bids_validation=True) == ["sub-01"]

    @pytest.mark.parametrize("text", ["{", "[]", "\xff"])
    def test_unreadable_description(self, dataset, text):
        dataset.megre("sub-01")
        dataset.json("dataset_description.json", text)
        with pytest.raises(NotBidsError, match=r"the file (cannot be read|must hold)"):
            select_files(dataset.settings())
        assert names(dataset, skip_bids_validation=True) == ["sub-01"]


class TestLabels:
    def test_prefixes(self):
        assert without_prefix(("sub-02", "01", "sub-01"), "sub-") == ("01", "02")

    @pytest.mark.parametrize("label", ["01", "sub-01"])
    @pytest.mark.parametrize("session", ["2", "ses-2"])
    def test_participant_and_session(self, cohort, label, session):
        found = names(cohort, participant_labels=(label,), session_labels=(session,))
        assert found == ["sub-01_ses-2_acq-A", "sub-01_ses-2_acq-B"]

    def test_label_is_no_prefix_or_pattern_of_another(self, dataset):
        for subject in ("1", "11", "1x"):
            dataset.megre(f"sub-{subject}", te_s=(0.004, 0.008))
        assert names(dataset, participant_labels=("1",)) == ["sub-1"]

    def test_unknown_participant(self, cohort):
        sentence = "nothing matches --participant-label 03; the dataset has: 01, 02"
        with pytest.raises(NothingToDoError, match=sentence):
            select_files(cohort.settings(participant_labels=("sub-03",)))

    def test_unknown_session(self, cohort):
        with pytest.raises(NothingToDoError) as caught:
            select_files(cohort.settings(session_labels=("9",)))
        assert "matches session ['9']; there is sub-01_ses-1_acq-A_echo-1" in str(caught.value)

    def test_no_participant_at_all(self, dataset):
        with pytest.raises(NothingToDoError, match="the dataset has no sub- folder"):
            select_files(dataset.settings())

    def test_weighted_images_only(self, dataset):
        dataset.image("sub-01_T2starw")
        with pytest.raises(NothingToDoError, match=r"such as sub-01_T2starw\.nii\.gz"):
            find_series(dataset.settings())

    def test_no_gradient_echo_at_all(self, dataset):
        dataset.image("sub-01_T1w")
        with pytest.raises(NothingToDoError, match="was found in any anat folder"):
            select_files(dataset.settings())


class TestFilterFile:
    def write(self, dataset, content):
        text = content if isinstance(content, str) else json.dumps(content)
        path = dataset.root.parent / "filters.json"
        path.write_text(text)
        return path

    @pytest.mark.parametrize(
        ("chosen", "expected"),
        [
            ({"acquisition": "A"}, ["sub-01_ses-1_acq-A", "sub-01_ses-2_acq-A"]),
            (
                {"acquisition": ["A", "B"], "session": "2"},
                ["sub-01_ses-2_acq-A", "sub-01_ses-2_acq-B"],
            ),
            ({"acquisition": None}, ["sub-02"]),
            (
                {"acquisition": "*", "session": "1"},
                ["sub-01_ses-1_acq-A", "sub-01_ses-1_acq-B"],
            ),
        ],
    )
    def test_filters(self, cohort, chosen, expected):
        path = self.write(cohort, {"megre": chosen})
        assert names(cohort, bids_filter_file=path) == expected

    def test_t1w_and_flair(self, dataset):
        dataset.megre("sub-01")
        for acquisition in ("x", "y"):
            dataset.image(f"sub-01_acq-{acquisition}_T1w")
            dataset.image(f"sub-01_acq-{acquisition}_FLAIR")
        path = self.write(dataset, {"t1w": {"acquisition": "y"}, "flair": {"acquisition": "none"}})
        (series,) = find_series(dataset.settings(bids_filter_file=path)).series
        assert series.t1w.name == "sub-01_acq-y_T1w.nii.gz"
        assert series.flair is None

    def test_another_suffix(self, dataset):
        dataset.megre("sub-01", suffix="GRE")
        path = self.write(dataset, {"megre": {"suffix": "GRE"}})
        assert names(dataset, bids_filter_file=path) == ["sub-01"]

    def test_nothing_matches(self, cohort):
        path = self.write(cohort, {"megre": {"acquisition": "C"}})
        with pytest.raises(
            NothingToDoError, match=r"matches acquisition C; there is sub-01_ses-1_"
        ):
            select_files(cohort.settings(bids_filter_file=path))

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            ({"bold": {}}, "has no input 'bold'; it has: megre, t1w, flair"),
            ({"megre": []}, "must map megre, t1w, flair, t2w to filters"),
            ([], "must map megre, t1w, flair, t2w to filters"),
            ({"megre": {"acq": "A"}}, "The filter of 'megre' cannot be used: 'acq' is not"),
        ],
    )
    def test_misunderstood(self, cohort, content, sentence):
        path = self.write(cohort, content)
        with pytest.raises(CommandLineError, match=sentence):
            select_files(cohort.settings(bids_filter_file=path))

    @pytest.mark.parametrize("text", ["{", None])
    def test_unreadable(self, cohort, text):
        path = cohort.root.parent / "filters.json"
        if text:
            path.write_text(text)
        with pytest.raises(UnreadableInputError, match="the filter file cannot be read"):
            select_files(cohort.settings(bids_filter_file=path))


def test_only_anat_of_raw_subjects_is_looked_at(dataset):
    dataset.megre("sub-01")
    for folder in ("derivatives/x", "sourcedata", "code", ".hidden", "out"):
        target = dataset.root / folder / "sub-01"
        target.parent.mkdir(parents=True)
        target.symlink_to(dataset.root / "sub-01")
    (dataset.root / "sub-01" / "func").symlink_to(dataset.root / "sub-01" / "anat")
    (series,) = find_series(dataset.settings()).series
    assert len(series.files) == 6


def test_database_is_kept_and_serves_other_participants(cohort, tmp_path):
    database = tmp_path / "database"
    first = names(cohort, bids_database_dir=database, participant_labels=("02",))
    assert first == ["sub-02"] and any(database.iterdir())
    assert len(names(cohort, bids_database_dir=database, participant_labels=("01",))) == 4


def test_database_of_another_dataset(cohort, tmp_path):
    database = tmp_path / "database"
    names(cohort, bids_database_dir=database)
    copy = shutil.copytree(cohort.root, tmp_path / "copy")
    settings = dataclasses.replace(cohort.settings(bids_database_dir=database), bids_dir=copy)
    with pytest.raises(UnreadableInputError, match="the index of another dataset"):
        find_series(settings)


def test_damaged_database(cohort, tmp_path):
    database = tmp_path / "database"
    database.mkdir()
    (database / "layout_index.sqlite").write_text("no database")
    with pytest.raises(UnreadableInputError, match="file is not a database"):
        find_series(cohort.settings(bids_database_dir=database))


def test_listed_as_by_pybids(cohort, tmp_path):
    for name in ("sub-01_ses-1_T1w.nii.gz", "sub-01_ses-1_FLAIR.nii", "sub-01_ses-1_T1w.json"):
        (cohort.root / "sub-01/ses-1/anat" / name).touch()
    everything = tmp_path / "filters.json"
    everything.write_text("{}")
    listed = select_files(cohort.settings())
    assert [file.path.name for file in listed.t1w["01"]] == ["sub-01_ses-1_T1w.nii.gz"]
    assert listed == select_files(cohort.settings(bids_filter_file=everything))


def test_files_in_others_folders_are_left(cohort):
    for stray in ("sub-02/anat/sub-01_T1w.nii.gz", "sub-02/anat/old/sub-02_T1w.nii.gz"):
        (cohort.root / stray).parent.mkdir(exist_ok=True)
        (cohort.root / stray).touch()
    assert select_files(cohort.settings()).t1w == {}


def test_no_home(cohort, tmp_path):
    (tmp_path / "filters.json").write_text("{}")
    code = (
        "import os, pwd\n"
        "def unknown(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = unknown\n"
        "from pathlib import Path\n"
        "from bids_qsm.bids.inputs import find_series\n"
        "from bids_qsm.settings import Settings\n"
        f"settings = Settings(Path({str(cohort.root)!r}), Path('out'), "
        f"bids_filter_file=Path({str(tmp_path / 'filters.json')!r}))\n"
        "print(len(find_series(settings).series))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "HOME"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "5", done.stderr


def test_pybids_is_imported_only_when_needed(cohort):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from bids_qsm.bids.inputs import find_series\n"
        "from bids_qsm.settings import Settings\n"
        f"found = find_series(Settings(Path({str(cohort.root)!r}), Path('out')))\n"
        "print(len(found.series) != 5 or 'bids' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
