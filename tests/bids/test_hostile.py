"""Datasets that were made to do harm: one sentence each, in bounded time and memory."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_qsm import reading
from bids_qsm.bids.dataset import check_output_dir, prepare_output_dir
from bids_qsm.bids.inheritance import sidecar_reader
from bids_qsm.bids.inputs import find_series
from bids_qsm.bids.publishing import Staging, withdraw, write_text
from bids_qsm.errors import NotBidsError, UnreadableInputError, UnwritableOutputError, printable
from bids_qsm.images import Image, encode_image, load_image
from bids_qsm.report.record import (
    FigureRecord,
    SeriesRecord,
    TableRecord,
    record_from_json,
    record_to_json,
)

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
