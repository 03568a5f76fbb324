"""Datasets that were made to do harm: one sentence each, in bounded time and memory."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import tracemalloc
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_qsm import reading
from bids_qsm.anatomy.atlas_files import read_table as read_atlas_table
from bids_qsm.anatomy.lesions import read_points
from bids_qsm.bids.dataset import check_output_dir, prepare_output_dir
from bids_qsm.bids.inheritance import sidecar_reader
from bids_qsm.bids.inputs import find_series
from bids_qsm.bids.publishing import Staging, withdraw, write_text
from bids_qsm.bids.session_times import series_times
from bids_qsm.clinical.leads import read_targets
from bids_qsm.clinical.trajectories import read_trajectories
from bids_qsm.errors import (
    CommandLineError,
    NotBidsError,
    UnreadableInputError,
    UnwritableOutputError,
    printable,
)
from bids_qsm.exclusions import read_exclusions
from bids_qsm.execution.local import Message
from bids_qsm.execution.progress import Display
from bids_qsm.execution.steps import Steps
from bids_qsm.gathering import read_table
from bids_qsm.images import Image, encode_image, load_image
from bids_qsm.models import read_models
from bids_qsm.pages import read_record, write_old_citations, write_old_pages
from bids_qsm.report.pages import subject_page
from bids_qsm.report.record import (
    FigureRecord,
    SeriesRecord,
    StepRecord,
    TableRecord,
    record_from_json,
    record_to_json,
)
from bids_qsm.settings import read_processing

ESCAPE = "\x1b]0;owned\x07"


def refusal(settings) -> str:
    found = find_series(settings)
    assert not found.series
    (refused,) = found.refused
    return refused.sentence


@pytest.mark.parametrize(
    "label", ["a b", "$(touch x)", "`id`", "<b>x", "x\ny", "*", "[0-9]", "é\u202e", "a-", ""]
)
def test_labels_that_are_none_are_refused(dataset, label) -> None:
    dataset.megre(f"sub-01_acq-{label}", te_s=(0.01,), parts=("part-mag", "part-phase"))
    assert "no entity of BIDS" in refusal(dataset.settings())


def test_labels_in_other_alphabets_and_with_signs_are_taken(dataset) -> None:
    dataset.megre("sub-Łódź01_acq-a+b-2")
    (series,) = find_series(dataset.settings()).series
    assert series.name == "sub-Łódź01_acq-a+b-2"


def test_terminals_are_told_nothing_but_text() -> None:
    assert printable(f"a{ESCAPE}\n\udcffb é χ") == "a\\x1b]0;owned\\x07\\n\\udcffb é χ"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"EchoTime": ' + "9" * 5000 + "}", "cannot be read as JSON"),
        ("[1, 2]", "JSON object"),
        ('{"EchoTime": "\x00', "cannot be read as JSON"),
    ],
)
def test_bombs_in_sidecars(dataset, content, said) -> None:
    dataset.megre("sub-01")
    path = dataset.json("sub-01/anat/sub-01_echo-1_part-mag_MEGRE.json", content)
    with pytest.raises(UnreadableInputError, match=said):
        sidecar_reader(dataset.root)(path.with_suffix(".nii.gz"))
    assert said in refusal(dataset.settings())


@pytest.mark.parametrize(
    "value", ["1e999", "NaN", "-Infinity", "9" * 400, "true", "{}", '"0.01"', "[[0.01]]", "null"]
)
def test_numbers_that_are_none(dataset, value) -> None:
    dataset.megre("sub-01")
    for path in dataset.root.rglob("*MEGRE.json"):
        path.write_text(f'{{"EchoTime": {value}, "MagneticFieldStrength": 3}}')
    sentence = refusal(dataset.settings())
    assert "EchoTime" in sentence
    assert len(sentence) < 500


def test_huge_sidecar_is_not_read(dataset) -> None:
    dataset.megre("sub-01")
    path = dataset.root / "sub-01/anat/sub-01_echo-1_part-mag_MEGRE.json"
    with path.open("wb") as handle:
        handle.truncate(2**36)  # a file with a hole: it takes no space
    assert "larger than 16 MiB" in refusal(dataset.settings())
    description = dataset.root / "dataset_description.json"
    with description.open("wb") as handle:
        handle.truncate(2**36)
    with pytest.raises(NotBidsError, match="larger than 16 MiB"):
        find_series(dataset.settings())


def test_pipes_and_devices_are_not_opened(dataset) -> None:
    dataset.megre("sub-01")
    anat = dataset.root / "sub-01/anat"
    os.mkfifo(anat / "sub-01_T1w.nii.gz")
    (anat / "sub-01_FLAIR.nii.gz").symlink_to("/dev/zero")
    (series,) = find_series(dataset.settings()).series
    assert series.t1w is None and series.flair is None
    assert sum("no ordinary file" in note for note in series.assumptions) == 2
    os.mkfifo(anat / "sub-01_MEGRE.json")
    assert "no ordinary file" in refusal(dataset.settings())


def test_links_out_of_the_dataset_are_followed(dataset, tmp_path) -> None:
    """As in datalad's datasets, whose images are links to where git-annex keeps them."""
    for number, path in enumerate(dataset.megre("sub-01")):
        target = tmp_path / "annex" / f"MD5E-{number}.nii.gz"
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
        path.symlink_to(target)
    (series,) = find_series(dataset.settings()).series
    assert load_image(series.files[0]).data.max() > 0
    target.unlink()
    assert "link without its target" in refusal(dataset.settings())


def compressed_zeros(start: bytes, mebibytes: int) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as stream:
        stream.write(start)
        for _ in range(mebibytes):
            stream.write(bytes(2**20))
    return packed.getvalue()


def test_bomb_behind_a_small_header_is_not_unpacked(tmp_path) -> None:
    image = nib.Nifti1Image(np.ones((8, 8, 8), np.float32), np.eye(4))
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(compressed_zeros(image.to_bytes(), 96))
    tracemalloc.start()
    with pytest.raises(UnreadableInputError, match="unpacks to much more than its header says"):
        load_image(path)
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


def test_few_bytes_after_the_voxels_do_no_harm(tmp_path) -> None:
    image = nib.Nifti1Image(np.ones((8, 8, 8), np.float32), np.eye(4))
    path = tmp_path / "long.nii.gz"
    path.write_bytes(gzip.compress(image.to_bytes() + bytes(1000)))
    assert load_image(path).data.sum() == 512
    path.write_bytes(gzip.compress(image.to_bytes()[:600]) + gzip.compress(image.to_bytes()[600:]))
    assert load_image(path).data.sum() == 512  # two members, as of pigz or bgzip


def header_with(**fields: object) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_shape((8, 8, 8))
    header.set_data_dtype(np.float32)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + bytes(4) + bytes(8**3 * 4)


ABSURD = {
    "dims": header_with(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]),
    "seven dims": header_with(dim=[7, *[32767] * 7]),
    "negative": header_with(dim=[3, -8, 8, 8, 1, 1, 1, 1]),
    "no voxels": header_with(dim=[7, 32767, 32767, 32767, 32767, 32767, 32767, 0]),
    "number of dims": header_with(dim=[3000, 8, 8, 8, 1, 1, 1, 1]),
    "offset": header_with(vox_offset=1e30),
    "negative offset": header_with(vox_offset=-1e9),
    "offset is no number": header_with(vox_offset=np.nan),
    "type": header_with(datatype=12345),
    "short": header_with()[:100],
    "more than the file has": header_with(dim=[3, 800, 800, 800, 1, 1, 1, 1]),
    "empty": b"",
}


@pytest.mark.parametrize("name", ABSURD)
@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_absurd_headers(dataset, name, extension) -> None:
    content = ABSURD[name]
    path = dataset.megre("sub-01")[0].with_name(f"sub-01_T1w{extension}")
    path.write_bytes(gzip.compress(content) if extension == ".nii.gz" else content)
    with pytest.raises(UnreadableInputError, match="sub-01_T1w"):
        load_image(path)
    (series,) = find_series(dataset.settings()).series
    assert series.t1w is None
    assert any("This T1w was left out" in note for note in series.assumptions)


def test_header_that_claims_more_than_the_memory(tmp_path, monkeypatch) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(encode_image(Image(np.zeros((20, 20, 20), np.float32), np.eye(4))))
    monkeypatch.setattr(reading, "memory_bytes", lambda: 30_000)
    with pytest.raises(UnreadableInputError, match=r"claims 3\S+ GiB of voxels"):
        load_image(path)


@pytest.mark.parametrize("dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_voxels_that_are_no_real_numbers(tmp_path, dtype) -> None:
    path = tmp_path / "x.nii.gz"
    image = nib.Nifti1Image(np.zeros((4, 4, 4), dtype), np.eye(4))
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([2, 1], np.float32).tobytes()  # slope and intercept
    path.write_bytes(gzip.compress(content))
    with pytest.raises(UnreadableInputError, match=r"complex numbers|colours"):
        load_image(path)


def test_names_in_what_is_merged_are_short_text(dataset) -> None:
    dataset.megre("sub-01", Manufacturer=f"{ESCAPE}<script>" + "x" * 10_000)
    dataset.megre("sub-02", Manufacturer={"a": 1})
    first, second = find_series(dataset.settings()).series
    assert first.manufacturer is not None and first.manufacturer.startswith("\\x1b]0;owned")
    assert len(first.manufacturer) == 100
    assert second.manufacturer is None


def test_outputs_are_not_written_through_links(dataset, tmp_path) -> None:
    settings = dataset.settings()
    prepare_output_dir(settings)
    outside = tmp_path / "outside"
    outside.mkdir()
    (settings.output_dir / "sub-01").symlink_to(outside)
    with pytest.raises(UnwritableOutputError, match="sub-01: this is a link"):
        check_output_dir(settings)
    (settings.output_dir / "sub-01").unlink()
    (settings.output_dir / "sub-01").mkdir()
    (settings.output_dir / "sub-01/ses-1").symlink_to(outside)
    with (
        pytest.raises(UnwritableOutputError, match="ses-1: this is a link"),
        Staging(settings.output_dir, "sub-01_ses-1") as staging,
    ):
        staging.write(Path("sub-01/ses-1/anat/x.txt"), "x")
    assert list(outside.iterdir()) == []


def test_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("as it was")
    (tmp_path / "README.md").symlink_to(precious)
    write_text(tmp_path / "README.md", "ours \ud800")
    assert precious.read_text() == "as it was"
    assert (tmp_path / "README.md").read_text() == "ours \\ud800"


@pytest.mark.parametrize("path", ["/etc/passwd", "../../secret.png", "sub-01/../../x"])
@pytest.mark.parametrize("kind", ["figures", "tables", "outputs"])
def test_record_that_leads_out_of_the_output_folder_is_none(kind, path) -> None:
    record = SeriesRecord(
        "01", None, "sub-01", "1", {}, (), (), (FigureRecord("s", "t", "c", ("sub-01/a.png",)),)
    )
    more = {
        "figures": {"figures": (FigureRecord("s", "t", "c", (path,)),)},
        "tables": {"tables": (TableRecord("stats", path),)},
        "outputs": {"outputs": (path,)},
    }[kind]
    assert record_from_json(record_to_json(record)) == record
    with pytest.raises(ValueError, match="leads out of the output folder"):
        record_from_json(record_to_json(dataclasses.replace(record, **more)))


def test_record_of_another_hand_removes_nothing_elsewhere(tmp_path) -> None:
    out = tmp_path / "out"
    mine = [out / "sub-01/anat/a.nii.gz", out / "sub-02/anat/b.nii.gz", tmp_path / "c", out / "d"]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    listed = ["sub-01/anat/a.nii.gz", "sub-02/anat/b.nii.gz", "../c", str(tmp_path / "c"), "d"]
    listed += ["sub-01/../d", "sub-01/../../c", 7]
    record = out / "logs/sub-01_record.json"
    record.parent.mkdir()
    record.write_text(json.dumps({"outputs": listed}))
    withdraw(out, Path("logs/sub-01_record.json"), "sub-01")
    assert [path.exists() for path in mine] == [False, True, True, True]
    assert not record.exists()


def wide(path: Path) -> None:
    path.write_bytes(b"participant_id\t" * 10_000 + b"\n")


def long_head(path: Path) -> None:
    path.write_bytes(b"a" * 2**21)


def without_end(path: Path) -> None:
    os.mkfifo(path)


def huge(path: Path) -> None:
    with path.open("wb") as handle:
        handle.truncate(2**36)  # a hole: it takes no space


READERS = {
    "participants": read_table,
    "points": read_points,
    "targets": read_targets,
    "trajectories": read_trajectories,
    "exclusions": read_exclusions,
    "atlas": read_atlas_table,
    "sessions": lambda path: series_times(path.parents[1], "01", ["sub-01"]),
}


@pytest.mark.parametrize("bomb", [wide, long_head, without_end, huge])
@pytest.mark.parametrize("name", READERS)
def test_bombs_in_tables(tmp_path, name, bomb) -> None:
    path = tmp_path / "sub-01" / "sub-01_sessions.tsv"
    path.parent.mkdir()
    bomb(path)
    with pytest.raises(UnreadableInputError, match=r"10000 columns|no ordinary|larger"):
        READERS[name](path)


@pytest.mark.parametrize("read", [lambda path: read_processing(path, None), read_models])
@pytest.mark.parametrize("opening", ["[", '{"a"='])
def test_bombs_in_toml(tmp_path, read, opening) -> None:
    path = tmp_path / "x.toml"
    path.write_text("a = " + opening * 100_000)
    with pytest.raises(CommandLineError, match="nested too deeply"):
        read(path)


def test_gzip_within_gzip_is_unpacked_once(tmp_path) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(compressed_zeros(b"", 64)))
    with pytest.raises(UnreadableInputError, match="no NIfTI header"):
        load_image(path)


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a step returns."""

    values: np.ndarray


def kept_by(folder: Path) -> Path:
    """Let a step keep its result, and return the file."""
    steps = Steps(folder, "inputs", lambda _: None, 0)
    steps.run("one", Kept, lambda _: Kept(np.arange(4.0)), {})
    return steps.folder_of("one") / "result.npz"


def claims_much(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        header = io.BytesIO()
        fields = {"descr": "<f8", "fortran_order": False, "shape": (2**40,)}
        np.lib.format.write_array_header_1_0(header, fields)
        archive.writestr("values.npy", header.getvalue())
        archive.writestr("_others.npy", array_bytes(np.array("{}")))


def unpacks_to_much(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("values.npy", array_bytes(np.zeros(2**22)))
        archive.writestr("_others.npy", array_bytes(np.array("{}")))


def holds_objects(path: Path) -> None:
    np.savez(path, values=np.array([{}], object), _others=np.array("{}"))


def of_a_later_format(path: Path) -> None:
    """As a flipped bit makes it: the archive asks for a program of another version."""
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 92
    path.write_bytes(content)


def nested(path: Path) -> None:
    np.savez(path, values=np.zeros(4), _others=np.array("[" * 100_000))


def array_bytes(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def is_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "bomb", [claims_much, unpacks_to_much, holds_objects, of_a_later_format, nested, is_a_pipe]
)
def test_bombs_in_kept_results_are_made_again(tmp_path, bomb) -> None:
    bomb(kept_by(tmp_path))
    steps = Steps(tmp_path, "inputs", lambda _: None, 0)
    tracemalloc.start()
    result = steps.run("one", Kept, lambda _: Kept(np.arange(4.0)), {})
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 16 * 2**20
    assert result.values.tolist() == [0, 1, 2, 3]
    assert not steps.timings[0].reused


@pytest.mark.parametrize("place", ["facts", "steps", "run", "seconds", "reference", "has_phase"])
@pytest.mark.parametrize("value", ["text", 7, [1], {"a": 1}, True, None, float("nan")])
def test_record_with_fields_of_other_types_is_none(place, value) -> None:
    """A page would be made of it, and would end the run of all."""
    record = SeriesRecord("01", None, "sub-01", "1", {"a": "b"}, (), (), ())
    fields = json.loads(record_to_json(record))
    taken = {"facts": (), "steps": (), "run": (), "seconds": (7,), "reference": (None,)}
    if (place == "has_phase" and value is True) or any(value is v for v in taken.get(place, ())):
        record_from_json(json.dumps(fields | {place: value}))
    else:
        with pytest.raises((TypeError, ValueError, KeyError)):
            record_from_json(json.dumps(fields | {place: value}))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, huge])
def test_record_that_cannot_be_read_is_none(tmp_path, make) -> None:
    path = tmp_path / "logs" / "sub-01_record.json"
    path.parent.mkdir()
    make(path)
    assert read_record("sub-01", tmp_path) is None
    assert write_old_pages(["01"], tmp_path) == []


@pytest.mark.parametrize(
    "name", ["sub-_record.json", "sub-01_x_record.json", "sub-a b_record.json"]
)
def test_records_of_other_names_do_no_harm(tmp_path, name) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / name).write_text("{}")
    assert write_old_pages(["01"], tmp_path) == []
    assert write_old_citations(tmp_path) == []


def test_page_that_cannot_be_made_is_said_and_others_are_made(tmp_path) -> None:
    (tmp_path / "logs").mkdir()
    step = StepRecord("inversion", "tv", {"max_iterations": {"a": [None]}})
    for label, steps in (("01", (step,)), ("02", ())):
        record = SeriesRecord(label, None, f"sub-{label}", "1", {}, steps, (), ())
        (tmp_path / f"logs/sub-{label}_record.json").write_text(record_to_json(record))
    (tmp_path / "sub-01.html").mkdir()
    (problem,) = write_old_pages(["01", "02"], tmp_path)
    assert problem.startswith(f"{tmp_path / 'sub-01.html'}: it cannot be")
    assert (tmp_path / "sub-02.html").is_file()


def test_pipes_in_the_output_folder_are_not_opened(tmp_path) -> None:
    (tmp_path / "logs").mkdir()
    os.mkfifo(tmp_path / "logs/sub-01_log.txt")
    os.mkfifo(tmp_path / "a.png")
    os.mkfifo(tmp_path / "a.tsv")
    with Display(1, tmp_path / "logs", 0) as display:
        display.show(Message("sub-01", 0, "field"))
    assert (tmp_path / "logs/sub-01_log.txt").read_text().endswith(" field\n")
    record = SeriesRecord(
        "01",
        None,
        "sub-01",
        "1",
        {},
        (),
        (),
        (FigureRecord("Maps", "t", "c", ("a.png",)),),
        tables=(TableRecord("stats", "a.tsv", "x"),),
    )
    page = subject_page("01", [record], tmp_path)
    assert "The picture a.png is missing." in page
