from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bids_qsm.bids.dataset import AtlasLabel, check_output_dir, prepare_output_dir, write_atlas
from bids_qsm.bids.inputs import find_series
from bids_qsm.bids.naming import (
    OUTPUTS,
    figure_path,
    output_path,
    record_path,
    report_path,
    transform_path,
)
from bids_qsm.bids.publishing import Staging, encode_table
from bids_qsm.bids.sidecars import STATISTICS_COLUMNS, raw_uri, sidecar_for
from bids_qsm.errors import CommandLineError, UnwritableOutputError
from bids_qsm.images import Image
from bids_qsm.report.record import ReferenceRecord, StepRecord
from tests.validator import issues_of

ATLAS = "ours"


def write_everything(settings, name: str) -> None:
    """Write every output of the table in every space, as the participant level does."""
    source = raw_uri(settings.bids_dir / "sub-01/anat/sub-01_T1w.nii.gz", settings.bids_dir)
    image = Image(np.ones((4, 4, 4), np.float32), np.eye(4))
    table = pd.DataFrame({column: [1] for column in STATISTICS_COLUMNS})
    with Staging(settings.output_dir, name) as staging:
        for key, row in OUTPUTS.items():
            for space in row.spaces:
                path = output_path(name, key, space=space, atlas=ATLAS if row.per_atlas else None)
                sidecar = sidecar_for(
                    key,
                    space=space,
                    sources=[source],
                    spatial_reference=source if space in ("orig", "T1w") else None,
                    steps=[StepRecord("inversion", "tv", {"weight": 1e-3})],
                    reference=ReferenceRecord("whole brain", 0.0, 0.1, 10),
                    warnings=["The echo times were guessed."],
                )
                if row.extension == ".tsv":
                    staging.write(path, encode_table(table), sidecar)
                else:
                    staging.write_image(path, image, sidecar)
        staging.write(transform_path(name, "orig", "T1w", ".mat"), b"itk")
        staging.write(transform_path(name, "T1w", "MNI152NLin2009cAsym", ".nii.gz"), b"itk", {})
        staging.write(figure_path(name, "chi"), b"png")
        staging.write(record_path(name), "{}")
    (settings.output_dir / report_path("01")).write_text("<html></html>")


def problems(folder: Path, severity: str) -> list[str]:
    return [
        f"{issue['code']} {issue.get('subCode', '')} {issue['location']}"
        for issue in issues_of(folder)
        if issue["severity"] == severity
    ]


class TestDerivativeDataset:
    def test_valid_with_every_output(self, dataset):
        settings = dataset.settings()
        prepare_output_dir(settings)
        labels = [AtlasLabel(1, "Putamen", "L"), AtlasLabel(2, "Putamen", "R")]
        write_atlas(settings.output_dir, ATLAS, labels, {"Name": "Ours", "License": "CC0"})
        for name in ("sub-01", "sub-01_ses-2_task-rest_acq-A_ce-gad_rec-norm_run-1_chunk-3"):
            write_everything(settings, name)
        assert problems(settings.output_dir, "error") == []

    def test_validator_sees_what_is_wrong(self, dataset):
        settings = dataset.settings()
        prepare_output_dir(settings)
        write_everything(settings, "sub-01")
        (settings.output_dir / ".bidsignore").unlink()
        found = problems(settings.output_dir, "error")
        assert any("fieldmap" in problem for problem in found)
        assert any(".html" in problem for problem in found)

    def test_description(self, dataset, monkeypatch):
        for name in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "BIDS_QSM_IMAGE"):
            monkeypatch.delenv(name, raising=False)
        settings = dataset.settings()
        prepare_output_dir(settings)
        fields = json.loads((settings.output_dir / "dataset_description.json").read_text())
        (generator,) = fields["GeneratedBy"]
        assert generator["Name"] == "bids-qsm" and set(generator) == {
            "Name",
            "Version",
            "Description",
        }
        assert fields["DatasetType"] == "derivative"
        assert fields["DatasetLinks"] == {"raw": "../raw"}

    @pytest.mark.parametrize(
        ("variable", "value", "expected"),
        [
            ("APPTAINER_CONTAINER", "/images/x.sif", {"Type": "singularity", "Tag": "x.sif"}),
            ("BIDS_QSM_IMAGE", "bids-qsm:1", {"Type": "docker", "Tag": "bids-qsm:1"}),
        ],
    )
    def test_container(self, dataset, monkeypatch, variable, value, expected):
        monkeypatch.setenv(variable, value)
        settings = dataset.settings()
        prepare_output_dir(settings)
        fields = json.loads((settings.output_dir / "dataset_description.json").read_text())
        assert fields["GeneratedBy"][0]["Container"] == expected

    def test_readme_names_every_output(self, dataset):
        settings = dataset.settings()
        prepare_output_dir(settings)
        readme = (settings.output_dir / "README.md").read_text()
        for row in OUTPUTS.values():
            assert f"{row.suffix}{row.extension}` | {row.description}" in readme
        assert "{" not in readme + (settings.output_dir / "CITATION.md").read_text()

    def test_twice_gives_the_same_bytes(self, dataset):
        settings = dataset.settings()
        contents = []
        for _ in range(2):
            prepare_output_dir(settings)
            contents.append({p.name: p.read_bytes() for p in settings.output_dir.iterdir()})
        assert contents[0] == contents[1] and len(contents[0]) == 4

    def test_atlas_table(self, tmp_path):
        write_atlas(tmp_path, "ours", [AtlasLabel(3, "Putamen", "L")], {"Name": "Ours"})
        assert (tmp_path / "atlas-ours_dseg.tsv").read_text() == (
            "index\tname\themisphere\n3\tPutamen\tL\n"
        )
        assert json.loads((tmp_path / "atlas-ours_description.json").read_text())["Name"] == "Ours"


class TestOutputFolder:
    def test_inside_the_input(self, dataset):
        dataset.megre("sub-01")
        inside = dataset.root / "derivatives" / "bids-qsm"
        settings = dataclasses.replace(dataset.settings(), output_dir=inside)
        prepare_output_dir(settings)
        write_everything(settings, "sub-01")
        assert len(find_series(settings).series) == 1
        assert problems(inside, "error") == []

    def test_is_the_input(self, dataset):
        settings = dataclasses.replace(dataset.settings(), output_dir=dataset.root / "x" / "..")
        (dataset.root / "x").mkdir()
        with pytest.raises(CommandLineError, match="must not be the input folder"):
            check_output_dir(settings)

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ('{"GeneratedBy": [{"Name": "fMRIPrep"}]}', "holds a dataset made by fMRIPrep"),
            ('{"Name": "raw"}', "holds another dataset"),
            ("{", "holds another dataset"),
        ],
    )
    def test_of_another_pipeline(self, dataset, text, sentence):
        settings = dataset.settings()
        settings.output_dir.mkdir()
        description = settings.output_dir / "dataset_description.json"
        description.write_text(text)
        with pytest.raises(UnwritableOutputError, match=sentence):
            prepare_output_dir(settings)
        assert [p.name for p in settings.output_dir.iterdir()] == [description.name]

    def test_is_a_file(self, dataset):
        settings = dataset.settings()
        settings.output_dir.write_text("")
        with pytest.raises(UnwritableOutputError, match="cannot be written"):
            prepare_output_dir(settings)
