from __future__ import annotations

from pathlib import Path

import pytest

from bids_qsm.bids.naming import OUTPUTS
from bids_qsm.bids.sidecars import STATISTICS_COLUMNS, output_uri, raw_uri, sidecar_for
from bids_qsm.report.record import ReferenceRecord, StepRecord

STEPS = (
    StepRecord("unwrapping", "romeo", {"template_echo": 1}),
    StepRecord("inversion", "tv", {"regularisation": 0.001}),
    StepRecord("relaxometry", "arlo"),
)


def test_units():
    units = {key: row.units for key, row in OUTPUTS.items()}
    assert [sidecar_for(key).get("Units") for key in units] == list(units.values())
    assert (units["chi"], units["r2star"], units["t2star"]) == ("ppm", "1/s", "s")
    assert units["total_field"] == units["local_field"] == units["field_noise"] == "Hz"


def test_methods_are_those_that_made_the_map():
    chi = sidecar_for("chi", steps=STEPS)
    assert chi["EstimationAlgorithm"] == "unwrapping: romeo; inversion: tv"
    assert chi["EstimationParameters"]["inversion"] == {"regularisation": 0.001}
    assert sidecar_for("r2star", steps=STEPS)["EstimationAlgorithm"] == (
        "unwrapping: romeo; relaxometry: arlo"
    )
    assert "EstimationAlgorithm" not in sidecar_for("brain_mask", steps=STEPS)


def test_reference_region():
    reference = ReferenceRecord("lateral ventricles", 0.012, 0.03, 900)
    assert sidecar_for("chi", reference=reference)["ReferenceRegion"] == {
        "Name": "lateral ventricles",
        "MeanBeforeReferencing": 0.012,
        "StandardDeviationBeforeReferencing": 0.03,
        "Units": "ppm",
        "NumberOfVoxels": 900,
    }
    assert "ReferenceRegion" not in sidecar_for("r2star", reference=reference)


def test_sources_reference_and_warnings():
    uri = raw_uri(Path("/raw/sub-01/anat/sub-01_T1w.nii.gz"), Path("/raw"))
    assert uri == "bids:raw:sub-01/anat/sub-01_T1w.nii.gz"
    assert raw_uri(Path("raw/sub-01/x.nii").absolute(), Path("raw")) == "bids:raw:sub-01/x.nii"
    assert output_uri(Path("sub-01/anat/a.nii.gz")) == "bids::sub-01/anat/a.nii.gz"
    fields = sidecar_for(
        "chi", space="T1w", sources=[uri], spatial_reference=uri, warnings=["No phase."]
    )
    assert fields["Sources"] == [uri] and fields["SpatialReference"] == uri
    assert fields["Warnings"] == ["No phase."]
    assert "Warnings" not in sidecar_for("chi")


@pytest.mark.parametrize("key", OUTPUTS)
def test_what_bids_requires(key):
    row, fields = OUTPUTS[key], sidecar_for(key)
    is_image = row.extension == ".nii.gz"
    assert ("SkullStripped" in fields) == (
        is_image and row.suffix not in ("mask", "dseg", "probseg")
    )
    assert ("Type" in fields) == (row.suffix == "mask")
    assert fields["Description"].endswith(".")
    if "MNI152NLin2009cAsym" in row.spaces:
        assert "1 mm" in sidecar_for(key, space="MNI152NLin2009cAsym")["Resolution"]


def test_columns_of_the_statistics_are_described():
    fields = sidecar_for("stats")
    assert " ".join(STATISTICS_COLUMNS) == (
        "index name hemisphere measure units reference mean median sd p05 p95 n_voxels "
        "volume_mm3 coverage n_vein_voxels mean_without_veins median_without_veins "
        "sd_without_veins confidence agreement"
    )
    assert all(fields[name]["Description"] for name in STATISTICS_COLUMNS)
