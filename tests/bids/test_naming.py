from __future__ import annotations

from pathlib import Path

import pytest

from bids_qsm.bids.naming import (
    ENTITIES,
    OUTPUTS,
    entities_of,
    figure_path,
    ignored_names,
    output_path,
    record_path,
    report_path,
    sidecar_path,
    stem_from,
    transform_path,
)

NAME = "sub-01_ses-2_task-rest_acq-A_ce-gad_rec-norm_run-1_chunk-3"


def every_path(name: str) -> list[Path]:
    return [
        output_path(name, key, space=space, atlas="ours" if row.per_atlas else None)
        for key, row in OUTPUTS.items()
        for space in row.spaces
    ]


def test_names_are_unique_also_among_series():
    others = [NAME, "sub-01_ses-2_acq-A", "sub-01_ses-2_acq-A_run-1", "sub-01_acq-A"]
    paths = [path for name in others for path in every_path(name)]
    assert len({path.name for path in paths}) == len(paths) > 80


def test_names_can_be_read_back():
    for key, row in OUTPUTS.items():
        for space in row.spaces:
            atlas = "ours" if row.per_atlas else None
            path = output_path(NAME, key, space=space, atlas=atlas)
            read = entities_of(path.name)
            assert entities_of(NAME).items() <= read.items()
            assert read.get("space") == space and read.get("atlas") == atlas
            assert dict(row.entities).items() <= read.items()
            assert path.name.endswith(f"_{row.suffix}{row.extension}")
            assert path.parent == Path("sub-01/ses-2/anat")


def test_pybids_reads_the_same(dataset):
    layout = pytest.importorskip("bids.layout")
    for path in every_path("sub-01_ses-2_acq-A_run-1"):
        read = layout.parse_file_entities(f"/{path}", config=["bids", "derivatives"])
        expected = entities_of(path.name)
        assert (read["subject"], read["session"]) == ("01", "2")
        assert read.get("space") == expected.get("space")
        assert read.get("desc") == expected.get("desc")
        assert read["suffix"] == path.name.split(".")[0].split("_")[-1]


def test_entities_are_in_the_order_of_bids():
    order = list(ENTITIES)
    for path in [*every_path(NAME), transform_path(NAME, "T1w", "orig", ".mat")]:
        places = [order.index(key) for key in entities_of(path.name)]
        assert places == sorted(places)


@pytest.mark.parametrize(
    ("key", "options", "expected"),
    [
        ("chi", {}, "sub-01/anat/sub-01_acq-A_run-1_Chimap.nii.gz"),
        (
            "chi",
            {"space": "MNI152NLin2009cAsym"},
            "sub-01/anat/sub-01_acq-A_run-1_space-MNI152NLin2009cAsym_res-1_Chimap.nii.gz",
        ),
        ("brain_mask", {}, "sub-01/anat/sub-01_acq-A_run-1_label-brain_mask.nii.gz"),
        ("local_field", {}, "sub-01/anat/sub-01_acq-A_run-1_desc-local_fieldmap.nii.gz"),
        (
            "dseg",
            {"space": "orig", "atlas": "X"},
            "sub-01/anat/sub-01_acq-A_run-1_space-orig_atlas-X_dseg.nii.gz",
        ),
        (
            "stats",
            {"atlas": "X"},
            "sub-01/anat/sub-01_acq-A_run-1_atlas-X_desc-regions_stats.tsv",
        ),
    ],
)
def test_names_of_the_design(key, options, expected):
    assert output_path("sub-01_acq-A_run-1", key, **options).as_posix() == expected


def test_other_names():
    assert transform_path("sub-01", "orig", "T1w", ".mat").as_posix() == (
        "sub-01/anat/sub-01_from-orig_to-T1w_mode-image_xfm.mat"
    )
    assert figure_path("sub-01_ses-2", "chi").as_posix() == (
        "sub-01/figures/sub-01_ses-2_desc-chi.png"
    )
    assert report_path("01") == Path("sub-01.html")
    assert record_path("sub-01_run-1") == Path("logs/sub-01_run-1_record.json")
    assert sidecar_path(Path("a/sub-01_Chimap.nii.gz")) == Path("a/sub-01_Chimap.json")


def test_names_that_the_table_has_not():
    with pytest.raises(ValueError, match="total_field has no space 'T1w'"):
        output_path("sub-01", "total_field", space="T1w")
    with pytest.raises(ValueError, match="dseg needs an atlas"):
        output_path("sub-01", "dseg", space="orig")
    with pytest.raises(ValueError, match="chi has no atlas"):
        output_path("sub-01", "chi", atlas="X")


def test_an_entity_that_bids_lacks_comes_last():
    assert stem_from({"coil": "2", "run": "1", "sub": "01"}) == "sub-01_run-1_coil-2"


def test_names_outside_the_schema_are_ignored():
    assert {"*_fieldmap.*", "*_stats.*", "*_xfm.*", "*.html", "figures"} <= set(ignored_names())
    assert not any("Chimap" in name or "dseg" in name for name in ignored_names())
