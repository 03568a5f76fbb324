"""The dataset on disk: names, truth, faults, the command line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import fft

from bids_qsm.errors import UnreadableInputError, UnwritableOutputError
from bids_qsm.images import Image, encode_image, load_image
from bids_qsm.phantom import cli
from bids_qsm.phantom.dataset import subvoxels, write_dataset
from bids_qsm.phantom.options import BREAKAGES, VENDORS, DatasetOptions

SMALL = DatasetOptions(
    voxel_mm=(3.0, 3.0, 3.0), anatomy_voxel_mm=3.0, te_s=(0.004, 0.008, 0.012), deformation_mm=0.5
)


def _write(folder: Path, labels: Image, **options) -> Path:
    write_dataset(folder, labels, dataclasses.replace(SMALL, **options))
    return folder


def _digest(folder: Path) -> dict[str, str]:
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, tiny_labels) -> Path:
    """Two participants; the second has two sessions, no FLAIR and slices tilted."""
    folder = tmp_path_factory.mktemp("phantom") / "bids"
    _write(folder, tiny_labels, lesions=2)
    return _write(
        folder, tiny_labels, first=2, sessions=2, has_flair=False, tilt_deg=15.0, vendor="philips",
        group="patient",
    )  # fmt: skip


def test_files_are_there(dataset):
    anat = dataset / "sub-01" / "anat"
    assert sorted(f.name for f in anat.glob("*.nii.gz")) == sorted(
        [f"sub-01_echo-{e}_part-{p}_MEGRE.nii.gz" for e in (1, 2, 3) for p in ("mag", "phase")]
        + ["sub-01_T1w.nii.gz", "sub-01_FLAIR.nii.gz"]
    )
    assert not list(dataset.rglob("sub-02*FLAIR*"))
    sessions = (dataset / "sub-02" / "sub-02_sessions.tsv").read_text().split()
    assert sessions == ["session_id", "ses-1", "ses-2"]
    rows = [r.split("\t") for r in (dataset / "participants.tsv").read_text().splitlines()]
    assert [r[0] for r in rows] == ["participant_id", "sub-01", "sub-02"]
    assert [r[3] for r in rows[1:]] == ["control", "patient"]
    sidecar = json.loads((anat / "sub-01_echo-2_part-phase_MEGRE.json").read_text())
    assert sidecar["EchoTime"] == 0.008 and sidecar["MagneticFieldStrength"] == 3.0


def test_truth_is_on_the_grids_of_its_images(dataset):
    truth = dataset / "derivatives" / "truth"
    for stem in ("sub-01/anat/sub-01", "sub-02/ses-2/anat/sub-02_ses-2"):
        series = load_image(dataset / f"{stem}_echo-1_part-mag_MEGRE.nii.gz")
        for name in ("Chimap", "R2starmap", "dseg", "label-brain_mask", "desc-total_fieldmap",
                     "desc-local_fieldmap", "label-lesion_mask"):  # fmt: skip
            image = load_image(truth / f"{stem}_{name}.nii.gz")
            assert image.shape == series.shape
            np.testing.assert_array_equal(image.affine, series.affine)
        t1w = load_image(dataset / f"{stem}_T1w.nii.gz")
        labels = load_image(truth / f"{stem}_space-T1w_dseg.nii.gz")
        np.testing.assert_array_equal(labels.affine, t1w.affine)
        inside = t1w.data[labels.data == 2].mean(), t1w.data[labels.data == 0].mean()
        assert inside[0] > 1.5 * inside[1]
    facts = json.loads((truth / "sub-01/anat/sub-01_truth.json").read_text())
    chi = load_image(truth / "sub-01/anat/sub-01_Chimap.nii.gz").data
    seg = load_image(truth / "sub-01/anat/sub-01_dseg.nii.gz", np.int16).data
    for nucleus in facts["Nuclei"]:
        # only the middle of so small a nucleus is free of its surroundings
        highest = chi[seg == nucleus["label"]].max()
        assert highest == pytest.approx(nucleus["chi_ppm"], abs=0.02)
    assert (truth / "sub-01/anat/sub-01_dseg.tsv").read_text().startswith("index\tname\n")


def test_truth_gives_the_measured_phase(dataset):
    stem = "sub-02/ses-1/anat/sub-02_ses-1"
    one, two = (
        load_image(dataset / f"{stem}_echo-{e}_part-phase_MEGRE.nii.gz").data for e in (1, 2)
    )
    field = load_image(dataset / "derivatives/truth" / f"{stem}_desc-total_fieldmap.nii.gz").data
    labels = load_image(dataset / "derivatives/truth" / f"{stem}_dseg.nii.gz", np.int16).data
    error = np.angle(np.exp(1j * (two - one - 2 * np.pi * 0.004 * field)))
    assert np.abs(np.median(error[labels == 2])) < 0.02
    assert np.abs(error[labels == 2]).mean() < 0.06


def test_validator_is_content(dataset):
    validator = Path(sys.executable).with_name("bids-validator-deno")
    if not validator.exists():
        pytest.skip("needs bids-validator-deno")
    done = subprocess.run([validator, dataset], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_same_seed_same_bytes_whatever_the_threads(tmp_path, tiny_labels):
    options = {"has_flair": False, "vendor": "siemens"}
    one = _write(tmp_path / "one", tiny_labels, **options)
    with fft.set_workers(2):
        two = _write(tmp_path / "two", tiny_labels, **options)
    other = _write(tmp_path / "other", tiny_labels, seed=2, **options)
    assert _digest(one) == _digest(two)
    assert _digest(one) != _digest(other)


def test_a_participant_is_not_overwritten(dataset, tiny_labels):
    before = _digest(dataset)
    with pytest.raises(UnwritableOutputError, match="sub-02 is there already"):
        _write(dataset, tiny_labels, first=2)
    assert _digest(dataset) == before


@pytest.mark.parametrize("vendor", VENDORS)
def test_stacked_echoes_are_one_file_for_each_part(tmp_path, tiny_labels, vendor):
    folder = _write(
        tmp_path, tiny_labels, vendor=vendor, stacked=True, has_t1w=False, has_flair=False
    )
    parts = ("real", "imag") if vendor == "ge" else ("mag", "phase")
    for part in parts:
        stem = folder / "sub-01" / "anat" / f"sub-01_part-{part}_T2starw"
        assert nib.load(f"{stem}.nii.gz").shape[3] == 3
        assert json.loads(Path(f"{stem}.json").read_text())["EchoTime"] == [0.004, 0.008, 0.012]


def _broken_images(folder: Path) -> list[np.ndarray]:
    files = sorted((folder / "sub-01" / "anat").glob("*_MEGRE.nii.gz"))
    return [np.asanyarray(nib.load(f).dataobj) for f in files]


@pytest.mark.parametrize("kind", BREAKAGES)
def test_breakage_does_what_it_says(tmp_path, tiny_labels, kind):
    folder = _write(tmp_path, tiny_labels, breakage=kind, has_t1w=False, has_flair=False)
    anat = folder / "sub-01" / "anat"
    last = anat / "sub-01_echo-3_part-phase_MEGRE.nii.gz"
    sidecar = json.loads((anat / "sub-01_echo-3_part-mag_MEGRE.json").read_text())
    if kind == "missing-phase-echo":
        assert not last.exists() and len(list(anat.glob("*.nii.gz"))) == 5
        return
    if kind == "truncated":
        with pytest.raises(UnreadableInputError):
            load_image(last)
        return
    images = _broken_images(folder)
    good = _broken_images(_write(tmp_path / "good", tiny_labels, has_t1w=False, has_flair=False))
    checks = {
        "te-in-ms": lambda: sidecar["EchoTime"] == pytest.approx(12.0),
        "no-echo-times": lambda: "EchoTime" not in sidecar,
        "no-field-strength": lambda: "MagneticFieldStrength" not in sidecar,
        "nan": lambda: np.isnan(images[5]).all() and np.isfinite(images[4]).all(),
        "constant": lambda: np.ptp(images[5]) == 0 and np.ptp(images[3]) > 6,
        "swi-filtered": lambda: spread(images[5]) < 0.5 * spread(good[5]),
        "shape-mismatch": lambda: images[5].shape[1] == images[4].shape[1] - 1,
        "affine-mismatch": lambda: (
            np.abs(nib.load(last).affine - nib.load(str(last).replace("phase", "mag")).affine).max()
            == pytest.approx(5.0, abs=1e-4)
        ),
        "unknown-phase-scale": lambda: np.ptp(images[5]) == pytest.approx(370, rel=1e-4),
        "two-slices": lambda: all(image.shape[2] == 2 for image in images),
    }
    truth = folder / "derivatives/truth/sub-01/anat/sub-01_dseg.nii.gz"
    labels = load_image(truth, np.int16).data

    def spread(phase):
        return np.abs(phase[labels == 2]).mean()

    assert checks[kind]()


def test_only_the_last_participant_is_broken(tmp_path, tiny_labels):
    folder = _write(tmp_path, tiny_labels, participants=2, breakage="missing-phase-echo",
                    has_t1w=False, has_flair=False)  # fmt: skip
    assert [len(list((folder / s).rglob("*.nii.gz"))) for s in ("sub-01", "sub-02")] == [6, 5]


@pytest.mark.parametrize(
    ("voxel_mm", "expected"),
    [((1, 1, 2), (2, 2, 2)), ((3, 3, 4), (3, 3, 4)), ((0.8, 0.8, 2.5), (2, 2, 3))],
)
def test_simulation_is_finer_than_the_series(voxel_mm, expected):
    assert subvoxels(voxel_mm) == expected


def test_command_line(tmp_path, tiny_labels, capsys):
    labels = tmp_path / "labels.nii.gz"
    labels.write_bytes(encode_image(tiny_labels))
    words = [str(tmp_path / "out"), "--labels", str(labels), "--voxel", "3", "3", "3"]
    words += ["--echo-times", "0.005", "0.01", "--no-flair", "--anatomy-voxel", "3", "--b0", "7"]
    assert cli.main([*words, "--vendor", "ge"]) == 0
    names = {f.name for f in (tmp_path / "out" / "sub-01" / "anat").iterdir()}
    assert "sub-01_echo-2_part-real_MEGRE.nii.gz" in names and "sub-01_T1w.nii.gz" in names
    assert cli.main(words) == UnwritableOutputError.exit_status
    assert "there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["--echo-times", "4", "8"], 2, "in seconds"),
        (["--echo-times", "0.01", "0.005"], 2, "grow"),
        (["--snr", "0"], 2, "SNR"),
        (["--labels", "/no/such/file.nii.gz"], 66, "no such file"),
    ],
)
def test_wrong_words_get_a_sentence(tmp_path, capsys, words, status, sentence):
    assert cli.main([str(tmp_path / "out"), *words]) == status
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_help_is_complete_and_loads_nothing_heavy():
    code = (
        "import sys\nfrom bids_qsm.phantom import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'numpy', 'scipy', 'nibabel'} & set(sys.modules)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - start < 5
    for word in ("--labels", "--tilt", "--vendor", "--break", "--group", "truncated", "siemens"):
        assert word in done.stdout
