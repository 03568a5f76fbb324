"""The tool that compares methods, on a head in miniature."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_qsm.bids.echoes import load_echoes
from bids_qsm.errors import CommandLineError
from bids_qsm.images import Image
from bids_qsm.numerics.background import vsharp
from bids_qsm.phantom.dataset import write_dataset
from bids_qsm.phantom.options import DatasetOptions
from bids_qsm.settings import Method, Processing
from tests.benchmarks import kernels, methods, scores, tables
from tests.benchmarks.combinations import combinations
from tests.benchmarks.heads import (
    find_heads,
    geometry_of,
    load_field_ppm,
    load_truth,
    read_field_map,
    write_inputs,
)
from tests.benchmarks.measure import COSTS, Task, measure, run_chain
from tests.benchmarks.runs import rows_of

TOOL = Path(__file__).with_name("methods.py")
SCAN = DatasetOptions(
    voxel_mm=(3.0, 3.0, 3.0), te_s=(0.004, 0.010, 0.016), deformation_mm=0.0, snr=20.0,
    has_t1w=False, has_flair=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """One head of 3 mm voxels, of three shells with a pallidum on each side."""
    shape = (48, 56, 44)
    x, y, z = np.ix_(*((np.arange(n) - (n - 1) / 2) * 3.0 for n in shape))
    labels = np.zeros(shape, np.int16)
    for radii, label in (((62, 74, 58), 511), ((56, 68, 52), 515), ((50, 62, 46), 2)):
        labels[sum((a / r) ** 2 for a, r in zip((x, y, z), radii, strict=True)) < 1] = label
    for centre, label in ((-20, 10), (20, 49), (-33, 13), (33, 52)):
        labels[((x - centre) / 7) ** 2 + (y / 9) ** 2 + (z / 9) ** 2 < 1] = label
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * 3.0 for n in shape]
    folder = tmp_path_factory.mktemp("heads") / "bids"
    write_dataset(folder, Image(labels, affine), SCAN)
    return folder


def test_truth_is_read_in_ppm(dataset):
    head = find_heads(dataset)[0]
    assert head.name == "bids/sub-01"
    truth = load_truth(head)
    assert truth.nuclei == (10, 49, 11, 50, 12, 51, 13, 52)
    assert truth.chi_ppm[truth.labels == 13].mean() == pytest.approx(0.125, abs=0.04)
    hz = nib.load(next(dataset.rglob("*_desc-local_fieldmap.nii.gz"))).get_fdata()
    local = load_field_ppm(head, "local")
    np.testing.assert_allclose(local, hz / (42.577478 * 3), atol=1e-6)


def test_noise_of_the_inputs_is_what_they_say(dataset, tmp_path):
    head = find_heads(dataset)[0]
    write_inputs(head, tmp_path / "inputs.npz", print)
    with np.load(tmp_path / "inputs.npz") as stored:
        mask, noise, local = (stored[name] for name in ("mask", "noise", "local"))
        total = stored["total"]
    for field, key in ((local, "local"), (total, "total")):
        error = (field - load_field_ppm(head, key))[mask] / noise[mask]
        assert error.std() == pytest.approx(1, abs=0.05)
        assert not field[~mask].any()
    # a linear fit's: sigma / (2 pi gamma B0 root of the sum of (signal TE)^2), with the first
    # echo's signal at 20 sigma, and white matter's decay after it
    te_s = np.array(SCAN.te_s)
    signal = SCAN.snr * np.exp(-21 * (te_s - te_s[0]))
    expected = 1 / (2 * np.pi * 127.73 * np.sqrt(((signal * te_s) ** 2).sum()))
    assert np.median(noise[mask]) == pytest.approx(expected, rel=0.4)


def test_a_head_of_the_challenge_s_layout(dataset, tmp_path):
    """Fields in ppm, other names, another folder, other labels; one head has no fields."""
    source = next(dataset.rglob("*_Chimap.nii.gz")).parent
    (tmp_path / "sub-01").symlink_to(dataset / "sub-01")
    (tmp_path / "dataset_description.json").symlink_to(dataset / "dataset_description.json")
    folder = tmp_path / "derivatives" / "qsm-forward" / "sub-01"
    folder.mkdir(parents=True)
    for old, new in (("Chimap", "Chimap"), ("label-brain_mask", "mask"), ("dseg", "dseg")):
        (folder / f"sub-01_{new}.nii.gz").symlink_to(source / f"sub-01_{old}.nii.gz")
    head = find_heads(tmp_path)[0]
    assert [stage for stage in ("background", "inversion", "chain") if head.allows(stage)] == [
        "chain"
    ]
    (folder / "sub-01_fieldmap-local.nii.gz").symlink_to(
        source / "sub-01_desc-local_fieldmap.nii.gz"
    )
    head = find_heads(tmp_path)[0]
    assert head.allows("inversion")
    assert not head.allows("background")
    stored = nib.load(folder / "sub-01_fieldmap-local.nii.gz").get_fdata()
    np.testing.assert_allclose(load_field_ppm(head, "local"), stored)


def test_combinations_are_crossed_with_their_options():
    found = combinations(
        "chain", ["background=joint,vsharp", "inversion=tv:regularisation=0.4,tkd"]
    )
    assert [c.name for c in found] == [
        "joint + tv:regularisation=0.4",
        "joint + tkd",
        "vsharp + tv:regularisation=0.4",
        "vsharp + tkd",
    ]
    assert found[0].processing == Processing(inversion=Method("tv", {"regularisation": 0.4}))


def test_a_stage_takes_what_it_runs_and_takes_it_once():
    words = ["background=pdf,vsharp", "inversion=tkd:threshold=0.1,tkd:threshold=0.2"]
    assert [c.name for c in combinations("background", words)] == ["pdf", "vsharp"]
    assert [c.name for c in combinations("inversion", words)] == [
        "tkd:threshold=0.1",
        "tkd:threshold=0.2",
    ]


def test_every_method_is_tried(tmp_path):
    from bids_qsm.choices import METHODS
    from bids_qsm.participant import FIELD_STEPS

    n = {step: len(methods) for step, methods in METHODS.items()}
    assert len(combinations("inversion", every="one")) == n["inversion"]
    steps = (*FIELD_STEPS, "background", "inversion", "artefact_reduction")
    one = combinations("chain", every="one")
    assert len(one) == 1 + sum(n[step] - 1 for step in steps)
    crossed = combinations("chain", every="crossed")
    assert len(crossed) == np.prod([n[step] for step in steps])
    preset = tmp_path / "mine.toml"
    preset.write_text('[field]\nmethod = "linear"\n[inversion]\nmethod = "tkd"\nthreshold = 0.15\n')
    assert [c.name for c in combinations("chain", presets=[preset])] == [
        "linear + joint + tkd:threshold=0.15"
    ]
    assert [c.name for c in combinations("chain")] == ["joint + tv"]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("inversion", "got 'inversion'"),
        ("relaxometry=arlo", "got 'relaxometry=arlo'"),
        ("inversion=magic", "no method 'magic'"),
        ("inversion=tv:magic=1", "no option 'magic'"),
        ("inversion=tv:regularisation=much", "must be of type float"),
    ],
)
def test_words_that_make_no_sense_are_refused(word, sentence):
    with pytest.raises(CommandLineError, match=sentence):
        combinations("chain", [word])


def test_means_are_over_heads():
    rows = [
        {"stage": "chain", "head": head, "combination": name, "xsim": xsim}
        for head, name, xsim in (("a", "p", 0.5), ("a", "q", 0.1), ("b", "p", 0.7))
    ]
    means = [row for row in tables.with_means(rows) if row["head"] == tables.MEAN]
    assert [(row["combination"], row["xsim"]) for row in means] == [("p", pytest.approx(0.6))]
    assert tables.markdown(rows[:1], ("head", "xsim", "wall_s")) == (
        "| head | xsim |\n| --- | --- |\n| a | 0.5000 |\n"
    )


def test_the_tool_writes_tables_of_finite_numbers(dataset, tmp_path):
    words = [TOOL, dataset, "--out", tmp_path, "--threads", "2", "--stage", "inversion"]
    words += ["--combine", "inversion=tkd,tv", "--no-kernels"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "methods.tsv", sep="\t")
    assert tuple(table.columns) == tables.COLUMNS
    assert list(table["combination"]) == ["tkd", "tv"]
    assert set(table["head"]) == {"bids/sub-01"}
    assert np.isfinite(table.loc[:, list(tables.COLUMNS[3:])].to_numpy()).all()
    assert (table["peak_mib"] >= table["base_mib"]).all()
    error = table.set_index("combination")["nrmse_core_percent"]
    assert error["tv"] < error["tkd"]
    assert (tmp_path / "bids-sub-01-inversion.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "methods.md").read_text().count("\n") == 4


def test_the_tool_refuses_a_method_that_does_not_exist(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(methods, "prepare_environment", lambda threads: None)
    words = [str(dataset), "--out", str(tmp_path), "--combine", "inversion=magic"]
    assert methods.main(words) == 2
    assert "no method 'magic'" in capsys.readouterr().err


def test_background_is_scored_as_a_field(dataset, tmp_path):
    head = find_heads(dataset)[0]
    write_inputs(head, tmp_path / "inputs.npz", print)
    combination = combinations("background", ["background=vsharp"])[0]
    task = Task(
        "background", head, combination, tmp_path / "inputs.npz", head.series, tmp_path / "row", 2
    )
    measure(task, print)
    (row,) = rows_of(task)
    assert list(row) == ["stage", "head", "combination", *scores.FIELD_SCORES, *COSTS]
    local = vsharp(read_field_map(tmp_path / "inputs.npz", "total", geometry_of(head)))
    expected = scores.score_field(local.field_ppm, load_field_ppm(head, "local"), load_truth(head))
    assert {name: row[name] for name in scores.FIELD_SCORES} == expected


def test_the_chain_starts_from_the_phase(dataset):
    head = find_heads(dataset)[0]
    processing = Processing(background=Method("vsharp"), inversion=Method("tkd"))
    told: list[str] = []
    chi_ppm = run_chain(head.series, load_echoes(head.series, processing), processing, told.append)
    assert told == ["brain", "field", "background", "inversion"]
    truth = load_truth(head)
    slope = scores.nuclei_agreement(chi_ppm, truth.chi_ppm, truth)[0]
    assert slope == pytest.approx(1, abs=0.3)


def test_kernels_are_set_against_the_machine(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "TRIAD_LENGTH", 1 << 16)
    monkeypatch.setattr(kernels, "REPEATS", 1)
    head = find_heads(dataset)[0]
    write_inputs(head, tmp_path / "inputs.npz", print)
    kernels.measure_kernels(head, tmp_path / "inputs.npz", tmp_path / "rows.json", 2, print)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [tuple(row) for row in rows] == [kernels.COLUMNS] * len(rows)
    assert {"rfftn", "gradient", "tv: ADMM step", "pdf: CG step", "romeo: growth"} <= {
        row["kernel"] for row in rows
    }
    for row in rows:
        assert row["times_limit"] == pytest.approx(row["time_ms"] / row["limit_ms"])
        assert row["limit_ms"] > 0
    triad = rows[0]
    assert triad["times_limit"] == pytest.approx(1)
    assert triad["moved_mb"] == pytest.approx(3 * 4 * (1 << 16) / 1e6)
