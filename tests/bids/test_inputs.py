from __future__ import annotations

import random

import nibabel as nib
import numpy as np
import pytest

from bids_qsm.bids import queries
from bids_qsm.bids.inputs import find_series
from bids_qsm.images import b0_direction
from bids_qsm.settings import Phase, Processing, Settings

SHAPE = (6, 5, 4)


def names(found) -> list[str]:
    return [series.name for series in found.series]


def only(found):
    assert found.refused == ()
    (series,) = found.series
    return series


def refusal(found) -> str:
    """The one sentence with which sub-01 is refused, while sub-02 is found."""
    assert names(found) == ["sub-02"]
    (refused,) = found.refused
    assert refused.subject == "01"
    assert refused.sentence.endswith((".", "?"))
    return refused.sentence


@pytest.fixture
def beside_good(dataset):
    """A dataset whose sub-02 is fine."""
    dataset.megre("sub-02")
    return dataset


class TestForms:
    def test_magnitude_and_phase_by_echo(self, dataset):
        dataset.megre("sub-01_ses-2_acq-A_run-01", Manufacturer="Philips")
        series = only(find_series(dataset.settings()))
        assert series.name == "sub-01_ses-2_acq-A_run-01"
        assert (series.subject, series.session) == ("01", "2")
        assert series.entities == (("acquisition", "A"), ("run", "01"))
        assert series.form == "phase" and not series.stacked
        assert series.te_s == (0.004, 0.008, 0.012) and series.b0_t == 3
        assert [p.name for p in series.phase] == [
            f"sub-01_ses-2_acq-A_run-01_echo-{n}_part-phase_MEGRE.nii.gz" for n in (1, 2, 3)
        ]
        assert len(series.magnitude) == 3 and series.real == series.imaginary == ()
        assert series.manufacturer == "Philips"
        assert series.shape == SHAPE and series.assumptions == ()
        nifti = nib.load(series.magnitude[0])
        np.testing.assert_array_equal(series.affine, nifti.affine)
        assert series.b0_direction == b0_direction(nifti.affine)
        assert series.b0_direction == pytest.approx((0, 0.2588, 0.9659), abs=1e-3)

    def test_magnitude_without_part_beside_phase(self, dataset):
        dataset.megre("sub-01", parts=("", "part-phase"))
        series = only(find_series(dataset.settings()))
        assert series.form == "phase" and len(series.magnitude) == 3
        assert "without part- are taken as magnitude" in series.assumptions[0]

    def test_named_magnitude_wins_over_unnamed(self, dataset):
        dataset.megre("sub-01", parts=("", "part-mag", "part-phase"), te_s=(0.004,))
        series = only(find_series(dataset.settings()))
        assert series.magnitude[0].name == "sub-01_echo-1_part-mag_MEGRE.nii.gz"
        assert "sub-01_echo-1_MEGRE.nii.gz was left out" in series.assumptions[0]

    def test_t2starw_with_echoes(self, dataset):
        dataset.megre("sub-01", suffix="T2starw")
        assert only(find_series(dataset.settings())).form == "phase"

    def test_single_echo_with_phase(self, dataset):
        dataset.image(
            "sub-01_part-mag_T2starw", None, {"EchoTime": 0.02, "MagneticFieldStrength": 7}
        )
        dataset.image("sub-01_part-phase_T2starw", None, {"EchoTime": 0.02})
        series = only(find_series(dataset.settings()))
        assert series.te_s == (0.02,) and series.b0_t == 7

    def test_plain_t2star_weighted_image_is_no_series(self, dataset):
        dataset.megre("sub-01")
        dataset.image("sub-01_acq-clinical_T2starw", None, {"EchoTime": 0.02})
        assert only(find_series(dataset.settings())).name == "sub-01"

    @pytest.mark.parametrize("field", ["EchoTime", "EchoTimes"])
    def test_stacks(self, dataset, field):
        stack = np.random.default_rng(0).random((*SHAPE, 3), np.float32)
        fields = {field: [0.004, 0.008, 0.012], "MagneticFieldStrength": 3}
        dataset.image("sub-01_part-mag_MEGRE", stack, fields)
        dataset.image("sub-01_part-phase_MEGRE", stack, fields)
        series = only(find_series(dataset.settings()))
        assert series.stacked and series.te_s == (0.004, 0.008, 0.012)
        assert series.shape == SHAPE and len(series.magnitude) == len(series.phase) == 1

    def test_real_and_imaginary(self, dataset):
        dataset.megre("sub-01", parts=("part-real", "part-imag"))
        series = only(find_series(dataset.settings()))
        assert series.form == "complex" and len(series.real) == len(series.imaginary) == 3
        assert series.magnitude == series.phase == ()

    def test_real_and_imaginary_beside_a_magnitude(self, dataset):
        dataset.megre("sub-01", parts=("part-mag", "part-real", "part-imag"))
        assert only(find_series(dataset.settings())).form == "complex"

    def test_all_four_parts(self, dataset):
        dataset.megre("sub-01", parts=("part-mag", "part-phase", "part-real", "part-imag"))
        series = only(find_series(dataset.settings()))
        assert series.form == "phase"
        assert "real and imaginary parts are left unread" in series.assumptions[0]

    def test_magnitude_only_is_said(self, dataset):
        dataset.megre("sub-01", parts=("part-mag",))
        series = only(find_series(dataset.settings()))
        assert series.form == "magnitude"
        assert series.assumptions == (
            "There is no phase: R2* alone is computed, and no susceptibility.",
        )

    def test_volume_with_a_fourth_axis_of_one(self, dataset):
        for path in dataset.megre("sub-01"):
            nifti = nib.load(path)
            data = np.asarray(nifti.dataobj)[..., None]
            nib.Nifti1Image(data, nifti.affine).to_filename(path)
        series = only(find_series(dataset.settings()))
        assert series.shape == SHAPE and not series.stacked

    def test_real_philips_data(self, shared_data, tmp_path):
        series = only(find_series(Settings(shared_data / "philips3T", tmp_path)))
        assert series.te_s == (0.0023, 0.0046) and series.form == "phase"
        assert series.t1w is not None and series.manufacturer == "Philips"
        assert series.b0_direction == pytest.approx((-0.0608, 0.0024, 0.9981), abs=1e-4)


def coils(dataset, stem="sub-01", numbers=(1, 2, 10), entity="coil", **words):
    """Write the images of single coils; the entity stands before echo-."""
    return {n: dataset.megre(f"{stem}_{entity}-{n}", **words) for n in numbers}


class TestCoils:
    @pytest.mark.parametrize("entity", ["coil", "ch"])
    def test_single_coils_make_one_series(self, dataset, entity):
        coils(dataset, "sub-01_acq-fine", entity=entity)
        series = only(find_series(dataset.settings()))
        assert series.name == "sub-01_acq-fine" and series.n_coils == 3
        assert series.entities == (("acquisition", "fine"),)
        assert [p.name.split("_")[2:4] for p in series.phase] == [
            [f"{entity}-{coil}", f"echo-{echo}"] for coil in (1, 2, 10) for echo in (1, 2, 3)
        ]
        assert series.assumptions == ("The 3 coils are combined by MCPC-3D-S.",)
        assert "3 echoes of magnitude and phase of 3 coils" in series.summary
        one = series.of_coil(1)
        assert one.n_coils == 1 and one.magnitude == series.magnitude[3:6]
        assert one.phase == series.phase[3:6] and one.real == ()

    def test_echoes_of_all_coils_are_sorted_by_time(self, dataset):
        coils(dataset, numbers=(1, 2), te_s=(0.012, 0.004, 0.008))
        series = only(find_series(dataset.settings()))
        assert series.te_s == (0.004, 0.008, 0.012)
        assert [p.name.split("_")[1:3] for p in series.magnitude] == [
            [f"coil-{coil}", f"echo-{echo}"] for coil in (1, 2) for echo in (2, 3, 1)
        ]

    def test_real_and_imaginary_parts(self, dataset):
        coils(dataset, parts=("part-real", "part-imag"))
        series = only(find_series(dataset.settings()))
        assert series.form == "complex" and len(series.real) == len(series.imaginary) == 9

    def test_stacks_of_single_coils(self, dataset):
        fields = {"EchoTime": [0.004, 0.008, 0.012], "MagneticFieldStrength": 3}
        stack = np.random.default_rng(0).random((*SHAPE, 3), np.float32)
        for coil in (1, 2):
            for part in ("mag", "phase"):
                dataset.image(f"sub-01_coil-{coil}_part-{part}_MEGRE", stack, fields)
        series = only(find_series(dataset.settings()))
        assert series.stacked and series.n_coils == 2 and len(series.of_coil(1).phase) == 1

    def test_combined_images_win(self, dataset):
        dataset.megre("sub-01")
        coils(dataset)
        series = only(find_series(dataset.settings()))
        assert series.n_coils == 1 and len(series.magnitude) == 3
        assert series.assumptions == (
            "The images of single coils were left out: there are combined ones.",
        )

    @pytest.mark.parametrize(("coil", "place"), [(1, 3), (10, 3), (2, 0), (2, 5)])
    def test_missing_image_of_a_coil(self, beside_good, coil, place):
        path = coils(beside_good)[coil][place]
        path.unlink()
        part = "phase" if "part-phase" in path.name else "magnitude"
        sentence = refusal(find_series(beside_good.settings()))
        echo = path.name.split("echo-")[1][0]
        assert f"_coil-{coil}_echo-" in sentence.split(":")[0]
        assert f"this coil has no {part} of echo {echo}" in sentence

    def test_coil_without_any_phase(self, beside_good):
        for path in coils(beside_good)[1][1::2]:
            path.unlink()
        assert "this coil has no phase of echo 1" in refusal(find_series(beside_good.settings()))

    def test_coils_without_phase(self, beside_good):
        coils(beside_good, parts=("part-mag",))
        sentence = refusal(find_series(beside_good.settings()))
        assert "single coils cannot be combined without phase" in sentence

    def test_coils_of_a_single_echo(self, beside_good):
        coils(beside_good, te_s=(0.02,))
        sentence = refusal(find_series(beside_good.settings()))
        assert "the coils of a single echo cannot be combined" in sentence

    def test_coils_that_differ_in_their_echo_time(self, beside_good):
        path = coils(beside_good)[2][0]
        sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
        sidecar.write_text('{"EchoTime": 0.005, "MagneticFieldStrength": 3}')
        assert "differ in EchoTime" in refusal(find_series(beside_good.settings()))


class TestMetadata:
    @pytest.mark.parametrize(("kind", "sliced"), [("2D", True), ("3D", False), (None, False)])
    def test_slices(self, dataset, kind, sliced):
        dataset.megre("sub-01", MRAcquisitionType=kind)
        assert only(find_series(dataset.settings())).sliced is sliced

    def test_echoes_are_sorted_by_time_not_by_name(self, dataset):
        dataset.megre("sub-01", te_s=(0.012, 0.004, 0.008))
        series = only(find_series(dataset.settings()))
        assert series.te_s == (0.004, 0.008, 0.012)
        assert [p.name.split("_")[1] for p in series.magnitude] == ["echo-2", "echo-3", "echo-1"]
        assert [p.name.split("_")[1] for p in series.phase] == ["echo-2", "echo-3", "echo-1"]

    def test_ten_echoes(self, dataset):
        dataset.megre("sub-01", te_s=[0.003 * n for n in range(1, 12)])
        series = only(find_series(dataset.settings()))
        assert [p.name.split("_")[1] for p in series.phase] == [f"echo-{n}" for n in range(1, 12)]

    def test_inheritance_nearer_file_wins(self, dataset):
        for path in dataset.megre("sub-01", parts=("part-mag", "part-phase")):
            path.with_name(path.name.replace(".nii.gz", ".json")).unlink()
        dataset.json("MEGRE.json", {"MagneticFieldStrength": 1.5, "Manufacturer": "A"})
        dataset.json("T1w.json", {"MagneticFieldStrength": 9})
        dataset.json("acq-other_MEGRE.json", {"MagneticFieldStrength": 9})
        for number, te in enumerate((0.004, 0.008, 0.012), 1):
            dataset.json(f"echo-{number}_MEGRE.json", {"EchoTime": te})
        dataset.json("sub-01/sub-01_MEGRE.json", {"MagneticFieldStrength": 7})
        series = only(find_series(dataset.settings()))
        assert series.b0_t == 7 and series.manufacturer == "A"
        assert series.te_s == (0.004, 0.008, 0.012)

    def test_echo_time_in_the_phase_sidecar_alone(self, dataset):
        for path in dataset.megre("sub-01"):
            if "part-mag" in path.name:
                sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
                sidecar.write_text('{"MagneticFieldStrength": 3}')
        assert only(find_series(dataset.settings())).te_s == (0.004, 0.008, 0.012)

    def test_field_from_imaging_frequency(self, dataset):
        dataset.megre("sub-01", MagneticFieldStrength=None, ImagingFrequency=127.7324)
        series = only(find_series(dataset.settings()))
        assert series.b0_t == pytest.approx(3.0, abs=1e-5)
        assert "by ImagingFrequency" in series.assumptions[0]

    def test_nominal_field_gives_way_to_the_frequency(self, dataset):
        dataset.megre("sub-01", ImagingFrequency=123.25)
        series = only(find_series(dataset.settings()))
        assert series.b0_t == pytest.approx(2.8947, abs=1e-4)
        assert "MagneticFieldStrength says 3 T" in series.assumptions[0]

    def test_absurd_frequency_is_not_believed(self, dataset):
        dataset.megre("sub-01", ImagingFrequency=63.9)
        series = only(find_series(dataset.settings()))
        assert series.b0_t == 3 and "was not believed" in series.assumptions[0]

    def test_b0_direction_of_the_settings(self, dataset):
        dataset.megre("sub-01")
        processing = Processing(phase=Phase(b0_direction=(0.0, 1.0, 0.0)))
        series = only(find_series(dataset.settings(processing=processing)))
        assert series.b0_direction == (0.0, 1.0, 0.0)
        assert "of the settings" in series.assumptions[0]

    def test_header_without_orientation_is_said(self, dataset):
        for path in dataset.megre("sub-01"):
            nifti = nib.load(path)
            nifti.header["sform_code"] = nifti.header["qform_code"] = 0
            bare = nib.Nifti1Image(np.asarray(nifti.dataobj), None, nifti.header)
            bare.to_filename(path)
        series = only(find_series(dataset.settings()))
        assert "sform and qform code 0" in series.assumptions[0]
        assert series.b0_direction == (0.0, 0.0, 1.0)


class TestRefusals:
    def test_different_shape(self, beside_good):
        paths = beside_good.megre("sub-01")
        data = np.ones((6, 5, 5), np.float32)
        nib.Nifti1Image(data, nib.load(paths[0]).affine).to_filename(paths[3])
        assert "its shape 6x5x5 differs from 6x5x4" in refusal(find_series(beside_good.settings()))

    @pytest.mark.parametrize(("shift_mm", "refused"), [(0.01, False), (0.2, True)])
    def test_different_affine(self, beside_good, shift_mm, refused):
        paths = beside_good.megre("sub-01")
        nifti = nib.load(paths[4])
        affine = nifti.affine.copy()
        affine[1, 3] += shift_mm
        nib.Nifti1Image(np.asarray(nifti.dataobj), affine).to_filename(paths[4])
        found = find_series(beside_good.settings())
        if refused:
            assert "its affine differs" in refusal(found)
        else:
            assert names(found) == ["sub-01", "sub-02"]

    @pytest.mark.parametrize(
        ("removed", "sentence"),
        [
            ("echo-2_part-phase", "the magnitude of this echo has no phase beside it"),
            ("echo-3_part-mag", "the phase of this echo has no magnitude beside it"),
        ],
    )
    def test_incomplete_echo(self, beside_good, removed, sentence):
        beside_good.megre("sub-01")
        (beside_good.root / f"sub-01/anat/sub-01_{removed}_MEGRE.nii.gz").unlink()
        assert sentence in refusal(find_series(beside_good.settings()))

    def test_incomplete_complex_pair(self, beside_good):
        *_, last = beside_good.megre("sub-01", parts=("part-real", "part-imag"))
        last.unlink()
        assert "has no imaginary part" in refusal(find_series(beside_good.settings()))

    def test_milliseconds(self, beside_good):
        beside_good.megre("sub-01", te_s=(4.0, 8.0))
        sentence = refusal(find_series(beside_good.settings()))
        assert "EchoTime is 4, which looks like milliseconds" in sentence
        assert "sub-01_echo-1_part-mag_MEGRE.nii.gz" in sentence

    @pytest.mark.parametrize(
        ("fields", "sentence"),
        [
            ({"EchoTime": None}, "EchoTime is missing"),
            ({"EchoTime": "fast"}, "must be a positive number of seconds, got 'fast'"),
            ({"EchoTime": -0.01}, "must be a positive number of seconds"),
            ({"EchoTime": 0.01}, "two echoes have the same EchoTime, 0.01 s"),
            ({"MagneticFieldStrength": None}, "neither MagneticFieldStrength nor Imaging"),
            ({"MagneticFieldStrength": 30000}, "a field strength of 30000 T cannot be right"),
            ({"MagneticFieldStrength": "3T"}, "must be a positive number, got '3T'"),
        ],
    )
    def test_metadata(self, beside_good, fields, sentence):
        beside_good.megre("sub-01", **fields)
        assert sentence in refusal(find_series(beside_good.settings()))

    def test_parts_that_differ_in_echo_time(self, beside_good):
        paths = beside_good.megre("sub-01")
        sidecar = paths[1].with_name(paths[1].name.replace(".nii.gz", ".json"))
        sidecar.write_text('{"EchoTime": 0.005, "MagneticFieldStrength": 3}')
        assert "the parts of one echo differ in EchoTime" in refusal(
            find_series(beside_good.settings())
        )

    def test_too_few_slices(self, beside_good):
        for path in beside_good.megre("sub-01"):
            nib.Nifti1Image(np.ones((6, 5, 2), np.float32), np.eye(4)).to_filename(path)
        assert "at least 3 slices are needed" in refusal(find_series(beside_good.settings()))

    def test_link_without_target(self, beside_good):
        path = beside_good.megre("sub-01")[2]
        path.unlink()
        path.symlink_to("annexed-away")
        assert "it is a link without its target" in refusal(find_series(beside_good.settings()))

    @pytest.mark.parametrize("content", [b"", b"no image", b"\x1f\x8b\x08\x00broken"])
    def test_damaged_header(self, beside_good, content):
        beside_good.megre("sub-01")[2].write_bytes(content)
        assert "the image's header cannot be read" in refusal(find_series(beside_good.settings()))

    def test_affine_without_volume(self, beside_good):
        for path in beside_good.megre("sub-01"):
            nifti = nib.load(path)
            header = nifti.header.copy()
            header["srow_x"] = 0
            header["sform_code"] = 1
            image = nib.Nifti1Image(np.asarray(nifti.dataobj), None, header)
            image.header["qform_code"] = 0
            image.to_filename(path)
        assert "the header's affine has no volume" in refusal(find_series(beside_good.settings()))

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [('{"EchoTime": ', "cannot be read as JSON"), ("[1]", "must hold a JSON object")],
    )
    def test_unreadable_sidecar(self, beside_good, text, sentence):
        path = beside_good.megre("sub-01")[0]
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(text)
        assert sentence in refusal(find_series(beside_good.settings()))

    @pytest.mark.parametrize(
        ("echo_time", "sentence"),
        [
            (None, "EchoTime is missing"),
            (0.004, "must be a list of 3 times in seconds, got 0.004"),
            ([0.004, 0.008], "must be a list of 3 times in seconds"),
            ([0.008, 0.004, 0.012], "must be in the order of their EchoTime"),
            ([4, 8, 12], "which looks like milliseconds"),
            ([0.004, 0.004, 0.012], "two echoes have the same EchoTime"),
        ],
    )
    def test_stack(self, beside_good, echo_time, sentence):
        fields = {"EchoTime": echo_time, "MagneticFieldStrength": 3}
        beside_good.image("sub-01_MEGRE", np.zeros((*SHAPE, 3), np.float32), fields)
        assert sentence in refusal(find_series(beside_good.settings()))

    def test_several_volumes_in_one_echo(self, beside_good):
        coils = np.zeros((*SHAPE, 8), np.float32)
        for path in beside_good.megre("sub-01"):
            nib.Nifti1Image(coils, np.eye(4)).to_filename(path)
        assert "the image has 8 volumes" in refusal(find_series(beside_good.settings()))

    def test_one_magnitude_alone(self, beside_good):
        beside_good.megre("sub-01", parts=("part-mag",), te_s=(0.02,))
        assert "one echo without phase gives neither" in refusal(
            find_series(beside_good.settings())
        )

    def test_same_image_twice(self, beside_good):
        path = beside_good.megre("sub-01")[0]
        nib.load(path).to_filename(path.with_name(path.name.removesuffix(".gz")))
        assert "is there too; remove one of them" in refusal(find_series(beside_good.settings()))

    def test_unknown_part(self, beside_good):
        beside_good.megre("sub-01", parts=("part-mag", "part-complex"))
        assert "part-complex is none of" in refusal(find_series(beside_good.settings()))

    def test_two_suffixes_with_the_same_entities(self, dataset):
        dataset.megre("sub-01")
        dataset.megre("sub-01", suffix="T2starw")
        found = find_series(dataset.settings())
        assert [s.magnitude[0].name for s in found.series] == [
            "sub-01_echo-1_part-mag_MEGRE.nii.gz"
        ]
        assert "would have the same names" in found.refused[0].sentence

    def test_participant_that_was_asked_for(self, dataset):
        dataset.megre("sub-01")
        dataset.image("sub-02_T1w")
        asked = find_series(dataset.settings(participant_labels=("01", "02", "sub-99")))
        assert names(asked) == ["sub-01"]
        assert [r.name for r in asked.refused] == ["sub-02", "sub-99"]
        assert "no multi-echo gradient echo of sub-02" in asked.refused[0].sentence
        assert "no participant sub-99" in asked.refused[1].sentence
        assert find_series(dataset.settings()).refused == ()


class TestAnatomicals:
    def test_same_session_and_no_contrast_agent_first(self, dataset):
        dataset.megre("sub-01_ses-2")
        for name in ("ses-1", "ses-2_ce-gad", "ses-2_run-10", "ses-2_run-2"):
            dataset.image(f"sub-01_{name}_T1w")
        dataset.image("sub-02_ses-2_run-1_T1w")
        series = only(find_series(dataset.settings()))
        assert series.t1w.name == "sub-01_ses-2_run-2_T1w.nii.gz"
        assert series.assumptions == (
            "Of 2 equal T1w images, sub-01_ses-2_run-2_T1w.nii.gz was chosen.",
        )

    def test_another_session_is_said(self, dataset):
        dataset.megre("sub-01_ses-2")
        dataset.image("sub-01_ses-1_T1w")
        dataset.image("sub-01_ses-1_FLAIR")
        series = only(find_series(dataset.settings(session_labels=("ses-2",))))
        assert series.t1w.name == "sub-01_ses-1_T1w.nii.gz"
        assert series.flair.name == "sub-01_ses-1_FLAIR.nii.gz"
        assert "The T1w is from another session: sub-01_ses-1_T1w.nii.gz." in series.assumptions
        assert "The FLAIR is from another session: sub-01_ses-1_FLAIR.nii.gz." in series.assumptions

    def test_contrast_agent_is_said(self, dataset):
        dataset.megre("sub-01")
        dataset.image("sub-01_ce-gad_T1w")
        series = only(find_series(dataset.settings()))
        assert "acquired with a contrast agent" in series.assumptions[0]

    def test_damaged_t1w_is_left_out(self, dataset):
        dataset.megre("sub-01")
        dataset.image("sub-01_T1w").write_bytes(b"")
        series = only(find_series(dataset.settings()))
        assert series.t1w is None and "This T1w was left out." in series.assumptions[0]


def test_order_of_files_does_not_matter(dataset, monkeypatch):
    dataset.megre("sub-01_acq-B")
    dataset.megre("sub-01_acq-A")
    dataset.megre("sub-02", te_s=(4.0, 8.0))
    for run in (1, 2):
        dataset.image(f"sub-01_run-{run}_T1w")
    first = find_series(dataset.settings())
    assert names(first) == ["sub-01_acq-A", "sub-01_acq-B"]

    def shuffled(paths, **options):
        listed = list(paths)
        return random.Random(1).sample(listed, len(listed))

    monkeypatch.setattr(queries, "sorted", shuffled, raising=False)
    assert find_series(dataset.settings()) == first


def test_name_of_the_folder_does_not_matter(dataset):
    dataset.megre("sub-01")
    before = only(find_series(dataset.settings()))
    moved = dataset.root.rename(dataset.root.with_name("sub-77_ses-1_acq-x.raw (copy)"))
    after = only(find_series(Settings(moved, moved.parent / "out")))
    assert (before.name, before.te_s, before.form) == (after.name, after.te_s, after.form)
    assert [p.name for p in before.files] == [p.name for p in after.files]


def test_summary_says_what_it_is(dataset):
    dataset.megre("sub-01")
    dataset.image("sub-01_T1w")
    assert only(find_series(dataset.settings())).summary == (
        "3 echoes of magnitude and phase at 4.0 to 12.0 ms, 6x5x4, 3.00 T, with T1w"
    )
