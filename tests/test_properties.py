"""Whatever a file holds: it is read, or refused in one sentence."""

from __future__ import annotations

import gzip
import json
import math
import string
import tomllib
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bids_qsm.bids.acquisition import echo_time_s, field_strength_t, read_grid
from bids_qsm.bids.inheritance import sidecar_reader
from bids_qsm.bids.naming import entities_of, stem_from
from bids_qsm.bids.publishing import encode_table
from bids_qsm.errors import BidsQsmError, UnreadableInputError, printable
from bids_qsm.gathering import read_table
from bids_qsm.images import Image, encode_image, load_image
from bids_qsm.models import analyses_from
from bids_qsm.report.record import record_from_json
from bids_qsm.settings import processing_from, read_processing

few = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
NUMBERS = st.floats(1e-4, 0.9)
WHOLE = encode_image(Image(np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.eye(4)))
PLAIN = gzip.decompress(WHOLE)


@few
@given(content=st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
@example(content=b"\xef\xbb\xbf{}")
def test_sidecar_of_any_content(tmp_path, content) -> None:
    path = tmp_path / "sub-01_MEGRE.json"
    path.write_bytes(content)
    try:
        fields = sidecar_reader(tmp_path)(tmp_path / "sub-01_MEGRE.nii.gz")
    except UnreadableInputError as error:
        assert str(error).startswith(f"{path}: the sidecar")
    else:
        assert json.dumps(fields) == json.dumps(json.loads(content.decode("utf-8-sig")))


@few
@given(te=values | NUMBERS, b0=values | st.floats(0.1, 20), mhz=values)
def test_fields_of_any_kind(te, b0, mhz) -> None:
    path = Path("x.nii.gz")
    fields = {"EchoTime": te, "MagneticFieldStrength": b0, "ImagingFrequency": mhz}
    for read in (lambda: echo_time_s({path: fields}), lambda: field_strength_t(path, fields)[0]):
        try:
            assert 0 < read() < math.inf
        except UnreadableInputError as error:
            assert len(str(error)) < 400


@few
@given(place=st.integers(0, len(PLAIN) - 1), value=st.integers(0, 255), packed=st.booleans())
@example(place=40, value=255, packed=True)
@example(place=111, value=127, packed=False)
def test_image_with_a_changed_byte(tmp_path, place, value, packed) -> None:
    content = PLAIN[:place] + bytes([value]) + PLAIN[place + 1 :]
    path = tmp_path / ("x.nii.gz" if packed else "x.nii")
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    for read in (lambda: read_grid(path).shape, lambda: load_image(path).data.shape):
        try:
            assert math.prod(read()[:3]) <= 60
        except UnreadableInputError as error:
            assert str(error).startswith(str(path))


@few
@given(length=st.integers(0, len(WHOLE) - 1), place=st.integers(0, len(WHOLE) - 1))
def test_packed_image_that_is_cut_or_changed(tmp_path, length, place) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(WHOLE[:length])
    with pytest.raises(UnreadableInputError):
        load_image(path)
    if place >= 10:  # the ten bytes before are of no use to the voxels
        path.write_bytes(WHOLE[:place] + bytes([WHOLE[place] ^ 0x55]) + WHOLE[place + 1 :])
        with pytest.raises(UnreadableInputError):
            load_image(path)


@few
@given(content=st.binary(max_size=80) | st.text(alphabet='a1\t\n\r"\x00n/', max_size=60))
def test_table_of_any_content(tmp_path, content) -> None:
    path = tmp_path / "participants.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        assert isinstance(read_table(path), pd.DataFrame)
    except UnreadableInputError as error:
        assert str(error).startswith(f"{path}: the table cannot be read")


words = st.text(alphabet=string.ascii_letters + string.digits + " _.-", min_size=1, max_size=8)


@few
@given(texts=st.lists(words.map(str.strip).filter(bool), min_size=1, max_size=5, unique=True))
def test_table_is_read_as_it_was_written(tmp_path, texts) -> None:
    table = pd.DataFrame({"participant_id": texts, "value": np.arange(len(texts)) / 3})
    (tmp_path / "t.tsv").write_text(encode_table(table))
    back = read_table(tmp_path / "t.tsv")
    expected = [np.nan if text == "n/a" else text for text in texts]
    assert back["participant_id"].tolist() == expected
    np.testing.assert_allclose(back["value"], table["value"], rtol=1e-5)


@few
@given(text=st.text(max_size=60) | st.sampled_from(["[inversion]\nmethod = 3", "reference = []"]))
def test_settings_of_any_text(tmp_path, text) -> None:
    path = tmp_path / "s.toml"
    path.write_bytes(text.encode())
    try:
        read_processing(path, None)
    except BidsQsmError as error:
        assert str(path) in str(error)


tables = st.dictionaries(
    st.sampled_from(["preset", "reference", "inversion", "phase", "analysis", "name", "method"])
    | st.text(max_size=5),
    values,
    max_size=4,
)


@few
@given(content=tables)
def test_settings_and_models_of_any_values(content) -> None:
    for read in (lambda: processing_from(content, None), lambda: analyses_from(content)):
        try:
            read()
        except BidsQsmError as error:
            assert str(error)


@few
@given(text=values.map(json.dumps) | st.text(max_size=40))
def test_records_of_any_content(text) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        record_from_json(text)


labels = st.text(alphabet=string.ascii_letters + string.digits, min_size=1, max_size=6)


@few
@given(entities=st.dictionaries(labels.map(str.lower), labels, min_size=1, max_size=5))
def test_names_are_read_as_they_were_made(entities) -> None:
    assert entities_of(stem_from(entities)) == entities


@few
@given(text=st.text())
def test_what_is_printed_is_one_plain_line(text) -> None:
    said = printable(text)
    assert said.isprintable()
    assert said == text or not text.isprintable()


def test_examples_are_what_they_seem() -> None:
    assert tomllib.loads("[inversion]\nmethod = 3") == {"inversion": {"method": 3}}
    assert nib.Nifti1Image.from_bytes(PLAIN).shape == (3, 4, 5)
