"""The participant level as a user runs it, from files to files."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bids_qsm.anatomy import warp
from bids_qsm.anatomy.atlas_writing import AtlasText, write_atlas_folder
from bids_qsm.anatomy.atlases import load_atlas
from bids_qsm.anatomy.reference_region import ATRIA, VENTRICLES
from bids_qsm.cli import main
from bids_qsm.images import Image, encode_image, load_image
from bids_qsm.numerics.convolution import convolve
from bids_qsm.numerics.geometry import Geometry, dipole_kernel, hz_per_ppm
from bids_qsm.report.record import record_from_json
from tests.one_process import one_process
from tests.validator import errors_among, issues_of

TISSUES = ("GM", "WM", "CSF")
EXAMPLES = Path(__file__).resolve().parents[1] / "data_examples" / "bids"


def run(bids: Path, out: Path, *words: str) -> int:
    return main([str(bids), str(out), "participant", *words])


def run_here(bids: Path, out: Path, *words: str, pictures: bool = False) -> int:
    """Run without processes of its own and, unless they matter, without pictures: much faster."""
    with one_process(pictures=pictures):
        return run(bids, out, *words)


def validate(folder: Path) -> None:
    assert errors_among(issues_of(folder)) == []


def copy_subject(bids: Path, name: str) -> Path:
    """Add the examples' second subject, without its T1w, under another name."""
    folder = bids / f"sub-{name}" / "anat"
    folder.mkdir(parents=True)
    for source in (EXAMPLES / "sub-02" / "anat").glob("*MEGRE*"):
        shutil.copy(source, folder / source.name.replace("sub-02", f"sub-{name}"))
    return folder


def new_dataset(folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(EXAMPLES / "dataset_description.json", folder)
    return folder


def change_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change_image(path: Path, change: Callable[[np.ndarray, np.ndarray], tuple]) -> None:
    """Rewrite an image (as float32) with other data and affine."""
    image = load_image(path)
    data, affine = change(image.data, image.affine)
    path.write_bytes(encode_image(Image(np.asarray(data, np.float32), affine)))


def part(folder: Path, echo: int, kind: str, extension: str = "nii.gz") -> Path:
    return next(folder.glob(f"*_echo-{echo}_part-{kind}_MEGRE.{extension}"))


def each(folder: Path, pattern: str, change: Callable[[np.ndarray, np.ndarray], tuple]) -> None:
    for path in folder.glob(pattern):
        change_image(path, change)


def break_phase_range(folder: Path) -> None:
    each(folder, "*phase*.nii.gz", lambda d, a: (d * 31.0, a))


def break_filter(folder: Path) -> None:
    """Divide out the smooth phase, as scanners do for SWI."""
    for echo in range(1, 5):
        magnitude = load_image(part(folder, echo, "mag")).data

        def filtered(
            phase: np.ndarray, affine: np.ndarray, magnitude: np.ndarray = magnitude
        ) -> tuple:
            signal = magnitude * np.exp(1j * phase)
            spectrum = np.fft.fftn(signal, axes=(0, 1))
            window = np.ones((1, 1, 1))
            for axis in (0, 1):
                position = np.abs(np.fft.fftfreq(signal.shape[axis])) * 8
                hann = np.where(position < 1, 0.5 + 0.5 * np.cos(np.pi * position), 0)
                window = window * np.expand_dims(hann, [i for i in range(3) if i != axis])
            smooth = np.fft.ifftn(spectrum * window, axes=(0, 1))
            return np.angle(signal * np.conj(smooth)), affine

        change_image(part(folder, echo, "phase"), filtered)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "nophase": (lambda f: part(f, 3, "phase").unlink(), "phase"),
    "noecho": (
        lambda f: [p.write_text("{}") for p in f.glob("*echo-2*.json")],
        "EchoTime",
    ),
    "nofield": (
        lambda f: [change_json(p, MagneticFieldStrength=None) for p in f.glob("*.json")],
        "MagneticFieldStrength",
    ),
    "millisec": (
        lambda f: [change_json(p, EchoTime=4.0 * (i + 1)) for i in range(4)
                   for p in f.glob(f"*echo-{i + 1}*.json")],
        "milliseconds",
    ),
    "shape": (
        lambda f: change_image(part(f, 2, "mag"), lambda d, a: (d[:-1], a)),
        "shape",
    ),
    "affine": (
        lambda f: change_image(part(f, 2, "mag"), lambda d, a: (d, a + np.diag([0.1, 0, 0, 0]))),
        "affine",
    ),
    "slices": (
        lambda f: each(f, "*.nii.gz", lambda d, a: (d[:, :, :2], a)),
        "slices",
    ),
    "nan": (
        lambda f: change_image(part(f, 2, "phase"), lambda d, a: (d * np.nan, a)),
        "NaN",
    ),
    "constant": (
        lambda f: change_image(part(f, 2, "mag"), lambda d, a: (d * 0 + 7, a)),
        "constant",
    ),
    "range": (break_phase_range, "units_per_turn"),
    "filtered": (break_filter, "high-pass filtered"),
    "truncated": (lambda f: truncate(part(f, 2, "mag")), "damaged or cut short"),
}  # fmt: skip


@pytest.fixture(scope="module")
def with_bad_subjects(tmp_path_factory) -> tuple[Path, Path, int, str]:
    """One dataset with every fault, and one good subject at each end, processed once."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("bad")
    bids, out = new_dataset(folder / "bids"), folder / "out"
    copy_subject(bids, "aa")
    copy_subject(bids, "zz")
    for name, (spoil, _) in BROKEN.items():
        spoil(copy_subject(bids, name))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = run(bids, out, "--nprocs", "2", "--omp-nthreads", "1")
    return bids, out, status, said.getvalue()


@pytest.mark.parametrize("name", BROKEN)
def test_bad_subject_is_refused_in_a_sentence_and_leaves_nothing(with_bad_subjects, name) -> None:
    bids, out, status, said = with_bad_subjects
    assert status == 1
    lines = [line for line in said.splitlines() if f"sub-{name}:" in line]
    assert len(lines) == 1
    assert BROKEN[name][1] in lines[0]
    assert str(bids) in lines[0]
    assert "fault in the program" not in lines[0]
    left = [p for p in out.rglob(f"*sub-{name}*") if "logs" not in p.parts]
    assert left == []
    assert not (out / "logs" / f"sub-{name}_record.json").exists()


def test_other_subjects_are_processed_all_the_same(with_bad_subjects) -> None:
    _, out, _, said = with_bad_subjects
    for name in ("aa", "zz"):
        assert (out / f"sub-{name}" / "anat" / f"sub-{name}_Chimap.nii.gz").exists()
        assert (out / f"sub-{name}.html").exists()
    assert "2 processed" in said
    assert not list(out.glob(".staging*"))
    assert not (out / ".work").exists() or not any((out / ".work").glob("sub-aa*"))
    validate(out)


def test_r2star_has_its_standard_deviation_and_knows_of_the_field(with_bad_subjects) -> None:
    _, out, _, _ = with_bad_subjects
    anat = out / "sub-aa" / "anat"
    r2star, sd = (
        load_image(anat / f"sub-aa_{what}.nii.gz").data
        for what in ("R2starmap", "desc-sd_R2starmap")
    )
    known = r2star > 0
    assert np.isfinite(sd).all()
    assert (sd[known] > 0).mean() > 0.99
    assert 0.2 < np.median(sd[known]) < 5
    record = record_from_json((out / "logs" / "sub-aa_record.json").read_text())
    steps = [step.name for step in record.steps]
    assert steps.index("field") < steps.index("relaxometry") < steps.index("inversion")
    assert record.step("relaxometry").parameters["gradient_correction"] is True


def test_magnitude_alone_gives_r2star_without_its_gradients_taken_off(tmp_path) -> None:
    bids = new_dataset(tmp_path / "bids")
    folder = copy_subject(bids, "aa")
    for path in folder.glob("*part-phase*"):
        path.unlink()
    assert run_here(bids, tmp_path / "out") == 0
    record = record_from_json((tmp_path / "out" / "logs" / "sub-aa_record.json").read_text())
    assert record.step("inversion") is None
    assert record.step("relaxometry").parameters["gradient_correction"] is False
    r2star = tmp_path / "out" / "sub-aa" / "anat" / "sub-aa_R2starmap.nii.gz"
    assert 10 < np.median(load_image(r2star).data[load_image(r2star).data > 0]) < 40


def test_equal_subjects_give_equal_bytes(with_bad_subjects) -> None:
    _, out, _, _ = with_bad_subjects
    for path in sorted((out / "sub-aa" / "anat").glob("*.nii.gz")):
        twin = out / "sub-zz" / "anat" / path.name.replace("sub-aa", "sub-zz")
        assert gzip.decompress(path.read_bytes()) == gzip.decompress(twin.read_bytes())


def test_finished_subjects_are_not_run_again_and_vanished_ones_are(
    with_bad_subjects, tmp_path, capsys
) -> None:
    bids, out, _, _ = with_bad_subjects
    again = tmp_path / "out"
    shutil.copytree(out, again)
    chi = again / "sub-zz" / "anat" / "sub-zz_Chimap.nii.gz"
    before = gzip.decompress(chi.read_bytes())
    chi.unlink()
    pages = [again / f"sub-{label}.html" for label in ("aa", "zz")]
    written = [page.stat().st_mtime_ns for page in pages]
    run_here(bids, again, "--participant-label", "aa", "sub-zz")
    same = [page.stat().st_mtime_ns == ns for page, ns in zip(pages, written, strict=True)]
    assert same == [True, False]
    said = capsys.readouterr().out
    assert "1 processed, 1 already done" in said
    assert gzip.decompress(chi.read_bytes()) == before


def test_reports_are_made_anew_from_what_is_there(with_bad_subjects, tmp_path) -> None:
    bids, out, _, _ = with_bad_subjects
    again = tmp_path / "out"
    shutil.copytree(out, again)
    page = again / "sub-aa.html"
    before = page.read_text()
    page.unlink()
    assert run(bids, again, "--participant-label", "aa", "--reports-only") == 0
    assert page.read_text() == before
    cited = {path.name: path.read_text() for path in (again / "logs").glob("CITATION.*")}
    assert set(cited) == {f"CITATION.{kind}" for kind in ("md", "html", "tex", "bib")}
    assert "ROMEO" in cited["CITATION.md"] and "@article{dymerska2021," in cited["CITATION.bib"]


def test_the_record_says_what_was_read_and_what_it_took(with_bad_subjects) -> None:
    bids, out, _, _ = with_bad_subjects
    record = record_from_json((out / "logs" / "sub-aa_record.json").read_text())
    assert record.run.inputs
    for file in record.run.inputs:
        content = (bids / file.name.removeprefix("bids:raw:")).read_bytes()
        assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert record.run.settings["processing"]["preset"] == "default"
    # the marks of memory rise from step to step up to that of the run
    peaks = [step.peak_mib for step in record.steps]
    assert 0 < peaks[0] <= peaks[-1] <= record.peak_mib
    assert peaks == sorted(peaks)
    assert str(bids) not in (out / "logs" / "sub-aa_record.json").read_text()


@pytest.fixture(scope="module")
def forms(tmp_path_factory) -> dict[str, np.ndarray]:
    """Susceptibility of one series that is stored in every form that scanners have."""
    folder = tmp_path_factory.mktemp("forms")
    bids = new_dataset(folder / "bids")
    base = copy_subject(bids, "radians")
    magnitude = {e: load_image(part(base, e, "mag")) for e in range(1, 5)}
    phase = {e: load_image(part(base, e, "phase")).data for e in range(1, 5)}
    for name in ("integer", "signed", "slope", "complex", "reversed"):
        copy_subject(bids, name)
    for echo in range(1, 5):
        like, radians = magnitude[echo], phase[echo]

        def save(name: str, data: np.ndarray, kind: str = "phase", echo: int = echo) -> None:
            path = part(bids / f"sub-{name}" / "anat", echo, kind)
            path.write_bytes(encode_image(Image(data, magnitude[echo].affine)))

        save("radians", radians)
        turns = (radians + np.pi) / (2 * np.pi)
        save("integer", np.minimum(np.rint(turns * 4096), 4095).astype(np.int16))
        save("signed", np.clip(np.rint((turns - 0.5) * 8192), -4096, 4095).astype(np.int16))
        slope = nib.Nifti1Image(np.rint(turns * 4095).astype(np.int16), like.affine)
        slope.header.set_slope_inter(2 * np.pi / 4095, -np.pi)
        nib.save(slope, part(bids / "sub-slope" / "anat", echo, "phase"))
        save("reversed", -radians)
        folder_complex = bids / "sub-complex" / "anat"
        for kind, function, old in (("real", np.cos, "mag"), ("imag", np.sin, "phase")):
            save("complex", (like.data * function(radians)).astype(np.float32), old)
            for extension in ("nii.gz", "json"):
                path = part(folder_complex, echo, old, extension)
                path.rename(path.with_name(path.name.replace(f"part-{old}", f"part-{kind}")))
    settings = folder / "reversed.toml"
    settings.write_text('preset = "consensus"\n[phase]\nsign = -1\n')
    names = ("radians", "integer", "signed", "slope", "complex")
    words = ("--preset", "consensus", "--participant-label", *names)
    assert run_here(bids, folder / "out", *words) == 0
    words = ("--participant-label", "reversed", "--config-file", str(settings))
    assert run_here(bids, folder / "out", *words) == 0
    return {
        n: load_image(folder / "out" / f"sub-{n}" / "anat" / f"sub-{n}_Chimap.nii.gz").data
        for n in (*names, "reversed")
    }


@pytest.mark.parametrize("name", ["integer", "signed", "slope", "complex", "reversed"])
def test_every_form_of_phase_gives_the_same_susceptibility(forms, name) -> None:
    known = forms["radians"] != 0
    difference = (forms[name] - forms["radians"])[known]
    assert np.sqrt(np.mean(difference**2)) < 1e-3
    assert forms["radians"][known].std() > 0.01  # there is something to compare


@pytest.mark.parametrize("background", ["joint", "pdf", "vsharp"])
def test_sphere_of_known_susceptibility_through_the_whole_chain(tmp_path, background, rng) -> None:
    """A +0.1 ppm sphere in an oblique, anisotropic volume reads +0.1 ppm."""
    turn = np.deg2rad(20.0)
    affine = np.eye(4)
    affine[:3, :3] = [
        [1, 0, 0],
        [0, np.cos(turn), -np.sin(turn)],
        [0, np.sin(turn), np.cos(turn)],
    ] @ np.diag([1.5, 1.25, 2.0])
    shape, b0_t = (72, 81, 48), 3.0
    geometry = Image(np.zeros(shape), affine).geometry
    axes = [(np.arange(n) - n // 2) * v for n, v in zip(shape, geometry.voxel_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    brain = (x / 42) ** 2 + (y / 40) ** 2 + (z / 38) ** 2 < 1
    sphere = x**2 + y**2 + z**2 < 10**2
    chi = np.where(sphere, 0.1, 0).astype(np.float32) + np.where(brain, 0, 9.4).astype(np.float32)
    field_ppm = wide_field(chi - 9.4 * (chi > 5), geometry)
    folder = new_dataset(tmp_path / "bids") / "sub-01" / "anat"
    folder.mkdir(parents=True)
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "sub-01_label-brain_mask.nii.gz").write_bytes(encode_image(Image(brain, affine)))
    for echo, te_s in enumerate((0.004, 0.010, 0.016, 0.022), start=1):
        magnitude = np.where(brain, 1000 * np.exp(-20 * te_s), 0.1).astype(np.float32)
        phase = 2 * np.pi * hz_per_ppm(b0_t) * field_ppm * te_s
        phase += rng.normal(0, 0.01, shape)
        phase = np.angle(np.exp(1j * phase))
        stem = f"sub-01_echo-{echo}_part-"
        for kind, data in (("mag", magnitude), ("phase", phase.astype(np.float32))):
            (folder / f"{stem}{kind}_MEGRE.nii.gz").write_bytes(encode_image(Image(data, affine)))
            fields = {"EchoTime": te_s, "MagneticFieldStrength": b0_t}
            (folder / f"{stem}{kind}_MEGRE.json").write_text(json.dumps(fields))
    settings = tmp_path / "s.toml"
    settings.write_text(
        f'[background]\nmethod = "{background}"\n[phase]\nunits_per_turn = {2 * np.pi}\n'
        "accept_filtered = true\n"
    )
    words = ("--config-file", str(settings), "-d", f"mask={masks}")
    assert run_here(tmp_path / "bids", tmp_path / "out", *words) == 0
    found = load_image(tmp_path / "out" / "sub-01" / "anat" / "sub-01_Chimap.nii.gz").data
    inner = x**2 + y**2 + z**2 < 8**2
    around = brain & (x**2 + y**2 + z**2 > 14**2) & (x**2 + y**2 + z**2 < 25**2)
    assert found[inner].mean() - found[around].mean() == pytest.approx(0.1, abs=0.005)


@pytest.fixture(scope="module")
def with_extra_steps(tmp_path_factory) -> Path:
    """Two series with all further steps, the second of them with an R2 map and a lesion."""
    folder = tmp_path_factory.mktemp("extra")
    bids, maps = new_dataset(folder / "bids"), folder / "r2maps" / "sub-bb" / "anat"
    copy_subject(bids, "aa")
    magnitude = load_image(part(copy_subject(bids, "bb"), 1, "mag"))
    maps.mkdir(parents=True)
    r2 = magnitude.like(np.full(magnitude.shape, 12, np.float32))
    (maps / "sub-bb_R2map.nii.gz").write_bytes(encode_image(r2))
    lesion = np.zeros(magnitude.shape, np.uint8)
    lesion[tuple(slice(n // 2 - 2, n // 2 + 2) for n in lesion.shape)] = 1
    path = folder / "lesions" / "sub-bb_label-lesion_mask.nii.gz"
    path.parent.mkdir()
    path.write_bytes(encode_image(magnitude.like(lesion)))
    words = (
        "--with",
        "swi,separation,uncertainty,lesion-tracking,microbleeds",
        "-d",
        f"r2map={folder / 'r2maps'}",
        f"tracked-lesions={folder / 'lesions'}",
        "--preset",
        "consensus",
    )
    assert run_here(bids, folder / "out", *words, pictures=True) == 0
    return folder / "out"


def test_further_steps_give_their_outputs(with_extra_steps) -> None:
    out = with_extra_steps
    validate(out)
    for name, separated in (("aa", "gre"), ("bb", "r2prime")):
        record = record_from_json((out / "logs" / f"sub-{name}_record.json").read_text())
        steps = {step.name: step.method for step in record.steps}
        assert (steps["swi"], steps["separation"]) == ("clear", separated)
        assert steps["uncertainty"] == "replay"
        anat = out / f"sub-{name}" / "anat"
        maps = {
            what: load_image(anat / f"sub-{name}_{what}.nii.gz").data
            for what in ("Chimap", "desc-paramagnetic_Chimap", "desc-diamagnetic_Chimap",
                         "desc-sd_Chimap", "swi", "minIP", "label-brain_mask")
        }  # fmt: skip
        brain = maps["label-brain_mask"] > 0
        assert maps["desc-paramagnetic_Chimap"].min() == 0 == maps["desc-diamagnetic_Chimap"].max()
        net = maps["desc-paramagnetic_Chimap"] + maps["desc-diamagnetic_Chimap"]
        known = maps["Chimap"] != 0
        assert np.corrcoef(net[known], maps["Chimap"][known])[0, 1] > 0.8
        spread = maps["desc-sd_Chimap"]
        assert spread[known].min() > 0 and not spread[~brain].any()
        assert 1e-4 < np.median(spread[known]) < maps["Chimap"][known].std()
        assert (maps["minIP"] <= maps["swi"])[brain].all()
        assert not maps["minIP"][~brain].any()
        for what in ("paramagnetic", "diamagnetic", "chisd", "swi", "minip"):
            assert (out / f"sub-{name}" / "figures" / f"sub-{name}_desc-{what}.png").exists()
    table = pd.read_csv(anat / "sub-bb_desc-tracking_stats.tsv", sep="\t")
    assert table[["lesion", "state", "reference"]].to_numpy().tolist() == [
        [1, "found", "whole brain"]
    ]
    page = (out / "sub-bb.html").read_text()
    assert "There is one session alone" in page and "Course of each lesion" in page
    assert "nothing to follow" not in page
    assert "there is nothing to follow" in (out / "sub-aa.html").read_text()
    labels = load_image(anat / "sub-bb_desc-microbleeds_dseg.nii.gz").data
    table = (anat / "sub-bb_desc-microbleeds_stats.tsv").read_text().splitlines()
    assert table[0].startswith("index\tkind\tconfidence") and len(table) - 1 == labels.max()
    fields = json.loads((anat / "sub-bb_desc-microbleeds_dseg.json").read_text())
    assert "microbleeds: compact-sources" in fields["EstimationAlgorithm"]
    fields = json.loads((anat / "sub-bb_desc-diamagnetic_Chimap.json").read_text())
    assert fields["EstimationParameters"]["separation"]["iterations"] == 20
    assert "separation: r2prime" in fields["EstimationAlgorithm"]
    assert fields["Units"] == "ppm"
    fields = json.loads((anat / "sub-bb_desc-sd_Chimap.json").read_text())
    assert (fields["Units"], fields["SkullStripped"]) == ("ppm", True)
    assert fields["EstimationParameters"]["uncertainty"]["replays"] == 2
    assert fields["ReferenceRegion"]["Name"] == "whole brain"


def test_an_r2_map_on_another_grid_is_refused(tmp_path, capsys) -> None:
    bids, maps = new_dataset(tmp_path / "bids"), tmp_path / "r2maps"
    magnitude = load_image(part(copy_subject(bids, "aa"), 1, "mag"))
    maps.mkdir()
    moved = Image(np.ones(magnitude.shape, np.float32), magnitude.affine + np.eye(4, k=3))
    (maps / "sub-aa_R2map.nii.gz").write_bytes(encode_image(moved))
    words = ("--with", "separation", "-d", f"r2map={maps}", "--preset", "consensus")
    assert run_here(bids, tmp_path / "out", *words) == 1
    said = capsys.readouterr().out
    assert "sub-aa_R2map.nii.gz: the R2 map is not on the grid of the series" in said


def wide_field(chi: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return the field of a susceptibility map, without wrap-around."""
    wide = geometry.with_shape(tuple(2 * n for n in geometry.shape))  # type: ignore[arg-type]
    padded = np.zeros(wide.shape, np.float32)
    inside = tuple(slice(n // 2, n // 2 + n) for n in geometry.shape)
    padded[inside] = chi
    return convolve(padded, dipole_kernel(wide))[inside]


@pytest.mark.slow
def test_whole_job_with_a_t1w(tmp_path, capsys, monkeypatch) -> None:
    """From a T1w image to tables of two atlases; fewer steps than usual of one registration."""
    search = dataclasses.replace(warp.DEEP_SEARCH_BY_BOTH, iterations="8")
    monkeypatch.setattr(warp, "DEEP_SEARCH_BY_BOTH", search)
    bids, out = tmp_path / "bids", tmp_path / "out"
    shutil.copytree(EXAMPLES, bids)
    t1w = bids / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
    shutil.copy(t1w, t1w.with_name("sub-02_FLAIR.nii.gz"))  # the lesions are given: any image does
    write_lesion_mask(tmp_path / "masks")
    words = ("--participant-label", "02", "--with", "separation", "--atlas", "default")
    more = ("--atlas", str(pallidum_of_cit168(tmp_path)), "-d", f"lesions={tmp_path / 'masks'}")
    assert run_here(bids, out, *words, *more, pictures=True) == 0
    assert not list(out.glob(".*work*")) + list(out.glob(".staging*"))
    validate(out)
    record = record_from_json((out / "logs" / "sub-02_record.json").read_text())
    assert record.has_t1w
    assert record.has_phase
    assert record.reference is not None
    assert record.reference.region in (ATRIA, VENTRICLES)
    assert all((out / path).exists() for path in record.outputs)
    assert record.table is not None
    table = pd.read_csv(out / record.table, sep="\t", keep_default_na=False)
    chi = table[(table.measure == "Chimap") & (table.reference == record.reference.region)]
    mean = chi.set_index("name")["mean"]
    for side in ("Left", "Right"):
        assert mean[f"{side} pallidum"] > mean[f"{side} thalamus"] + 0.04
        assert mean[f"{side} putamen"] > mean[f"{side} thalamus"]
    r2star = table[table.measure == "R2starmap"].set_index("name")["mean"]
    assert r2star["Left pallidum"] > r2star["Left thalamus"]
    assert set(table.measure) >= {"ParamagneticChimap", "DiamagneticChimap"}
    assert_places_agree(out)
    assert_anatomy_is_measured(out)
    page = (out / "sub-02.html").read_text()
    assert "data:image/png;base64" in page
    assert "Consensus" in page
    assert all(f'id="s1-{part}"' in page for part in ("lesions", "tissues", "checks"))
    columns = json.loads((out / "atlas-CIT168_dseg.json").read_text())
    assert columns["hemisphere"]["Description"] and columns["index"]["Format"] == "integer"
    assert main([str(bids), str(out), "group"]) == 0
    group = pd.read_csv(out / "group_regions.tsv", sep="\t", keep_default_na=False)
    assert set(group["participant_id"]) == {"sub-02"}
    assert group["group"].unique().tolist() == ["control"]
    validate(out)


def pallidum_of_cit168(parent: Path) -> Path:
    """Write an atlas of the globus pallidus alone: every structure takes seconds."""
    atlas = load_atlas("CIT168")
    table = atlas.table[atlas.table["name"].str.contains("globus pallidus")]
    assert len(table) == 4
    labels = np.where(np.isin(atlas.labels.data, table["index"]), atlas.labels.data, 0)
    text = AtlasText("CIT168", atlas.title, atlas.license, atlas.references, table)
    return write_atlas_folder(parent, text, atlas.labels.like(labels))


def write_lesion_mask(folder: Path) -> None:
    """Write a mask of two lesions of 2 x 2 x 2 and 2 x 2 x 1 voxels on the T1w's grid."""
    t1w = load_image(next((EXAMPLES / "sub-02").rglob("*_T1w.nii.gz")))
    drawn = np.zeros(t1w.shape, np.uint8)
    middle = [n // 2 for n in t1w.shape]
    x, y, z = middle
    drawn[x + 8 : x + 10, y : y + 2, z + 8 : z + 10] = 1
    drawn[x - 10 : x - 8, y : y + 2, z + 8] = 1
    folder.mkdir()
    path = folder / "sub-02_label-lesion_mask.nii.gz"
    path.write_bytes(encode_image(t1w.like(drawn)))


def assert_anatomy_is_measured(out: Path) -> None:
    anat = out / "sub-02" / "anat"
    lesions = pd.read_csv(anat / "sub-02_desc-lesions_stats.tsv", sep="\t")
    assert lesions["volume_mm3"].tolist() == pytest.approx([8 * 2.5**3, 4 * 2.5**3])
    # the second may have no voxel on the coarser grid of the series
    assert np.isfinite(lesions.loc[0, ["chi_ppm_mean", "r2star_per_s_mean"]].to_numpy(float)).all()
    head = pd.read_csv(anat / "sub-02_desc-morphometry_stats.tsv", sep="\t")
    value = head.set_index(["name", "measure"])["value"]
    assert 700 < value["grey matter", "volume"] < 1300
    assert 400 < value["white matter", "volume"] < 900
    parts = value["grey matter", "volume"] + value["white matter", "volume"]
    assert parts == pytest.approx(value["grey and white matter", "volume"], rel=1e-3)
    assert value["T2 lesions", "number"] == 2
    nuclei = pd.read_csv(anat / "sub-02_atlas-CIT168_desc-regions_stats.tsv", sep="\t")
    chi = nuclei[nuclei.measure == "Chimap"].groupby("name")["mean"].first()
    assert chi[[name for name in chi.index if "globus pallidus" in name]].min() > 0.03
    quality = pd.read_csv(anat / "sub-02_atlas-HarvardOxford_desc-quality_stats.tsv", sep="\t")
    assert quality["passed"].mean() > 0.9
    of_series = pd.read_csv(anat / "sub-02_desc-quality_stats.tsv", sep="\t")
    assert not of_series["sentence"][of_series["passed"] == False].tolist()  # noqa: E712 - or n/a
    flair = load_image(anat / "sub-02_space-T1w_desc-preproc_FLAIR.nii.gz")
    assert flair.shape == load_image(anat / "sub-02_desc-preproc_T1w.nii.gz").shape
    shares = [load_image(anat / f"sub-02_space-T1w_label-{t}_probseg.nii.gz").data for t in TISSUES]
    total = np.sum(shares, axis=0)
    assert total[total > 0] == pytest.approx(1, abs=0.03)
    probabilities = load_image(anat / "sub-02_space-orig_atlas-CIT168_probseg.nii.gz").data
    assert 0.9 < probabilities.max() <= 1


def assert_places_agree(out: Path) -> None:
    """Labels in each space lie at the same places of the head as the nuclei of that space."""
    anat = out / "sub-02" / "anat"
    for space in ("orig", "T1w", "MNI152NLin2009cAsym"):
        labels = next(anat.glob(f"*space-{space}_atlas-Harvard*_dseg.nii.gz"))
        pattern = "sub-02_Chimap" if space == "orig" else f"*space-{space}*Chimap"
        chi = load_image(next(anat.glob(f"{pattern}.nii.gz"))).data
        values = load_image(labels, np.int16).data
        pallidum = np.isin(values, (13, 52)) & (chi != 0)
        thalamus = np.isin(values, (10, 49)) & (chi != 0)
        assert chi[pallidum].mean() > chi[thalamus].mean() + 0.03


def test_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path, capsys) -> None:
    assert run(EXAMPLES, tmp_path / "out", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "3 series would be processed" in said
    assert "sub-01_ses-2: 4 echoes, phase" in said
    assert "inversion (" in said
    assert not (tmp_path / "out").exists()


def test_boilerplate_needs_no_data(tmp_path, capsys) -> None:
    assert run(tmp_path / "absent", tmp_path / "out", "--boilerplate-only") == 0
    said = capsys.readouterr().out
    assert "ROMEO" in said
    assert "## References" in said


@pytest.mark.parametrize(
    ("run", "text", "sentence"),
    [
        (run, '[inversion]\nmethod = "magic"\n', "inversion has no method 'magic'"),
        (run_here, "[inversion]\nlambda_ = 3\n", "has no option 'lambda_'"),
    ],
)
def test_wrong_method_ends_the_run_at_once(tmp_path, capsys, run, text, sentence) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    assert run(EXAMPLES, tmp_path / "out", "--config-file", str(file)) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("--participant-label", "99"), 18, "the dataset has: 01, 02"),
        (("-d", "veins=/nowhere"), 2, "'veins' is not used"),
        (("-d", "mask=/nowhere"), 66, "no such folder"),
        (("--atlas", "/nowhere"), 66, "no such atlas"),
    ],
)
def test_wrong_words_give_a_sentence(tmp_path, capsys, words, status, sentence) -> None:
    assert run_here(EXAMPLES, tmp_path / "out", *words) == status
    said = capsys.readouterr()
    assert sentence in said.out + said.err


def test_unwritable_output_is_said(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert run_here(EXAMPLES, tmp_path / "file" / "out") == 73
    assert "cannot be written" in capsys.readouterr().err
