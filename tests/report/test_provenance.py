from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import pytest

from bids_qsm.report.provenance import command_words, input_records, settings_record, versions
from bids_qsm.settings import Settings, read_processing

SETTINGS = Settings(
    Path("/data/me/in"),
    Path("/data/me/out"),
    derivatives={"mask": Path("/data/me/masks")},
    atlases=("default", "/users/me/atlas-Mine"),
    extra_steps=("swi",),
)


@pytest.mark.parametrize("program", ["/opt/venv/bin/bids-qsm", "/x/bids_qsm/__main__.py"])
def test_the_command_has_no_folder_of_the_machine(program: str) -> None:
    words = [
        "/data/me/in",
        "/data/me/out",
        "participant",
        "-d",
        "mask=/data/me/masks",
        "--nprocs",
        "4",
    ]
    words += ["--config-file=/users/me/my methods.toml", "--atlas", "/users/me/atlas-Mine"]
    words += ["--executor", "dask:tcp://node7:8786"]
    said = ["BIDS_DIR", "OUTPUT_DIR", "participant", "-d", "mask=masks", "--nprocs", "4"]
    said += ["--config-file=my methods.toml", "--atlas", "atlas-Mine"]
    said += ["--executor", "dask"]
    assert command_words([program, *words], SETTINGS) == ("bids-qsm", *said)


def test_without_a_command_line_there_are_no_words() -> None:
    assert command_words(["/usr/bin/pytest", "/data/me/in"], SETTINGS) == ()
    assert command_words([], SETTINGS) == ()


def test_the_folder_may_be_given_in_any_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(Path("in"), tmp_path / "out")
    words = ["bids-qsm", str(tmp_path / "in"), "out"]
    assert command_words(words, settings) == ("bids-qsm", "BIDS_DIR", "OUTPUT_DIR")


def test_settings_can_be_said_in_json_and_name_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[inversion]\nmethod = "tkd"\nthreshold = 0.2\n')
    settings = Settings(**{**vars(SETTINGS), "processing": read_processing(tmp_path / "a.toml")})
    record = settings_record(settings)
    assert record["processing"]["inversion"] == {"name": "tkd", "options": {"threshold": 0.2}}
    assert record["with"] == ("swi",)
    assert record["atlases"] == ("default", "atlas-Mine")
    assert "/me" not in json.dumps(record)


def test_fingerprints_are_those_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"abc")
    record = input_records({"bids:raw:a.nii.gz": tmp_path / "a.nii.gz"})[0]
    assert record.name == "bids:raw:a.nii.gz"
    assert record.n_bytes == 3
    assert record.sha256 == hashlib.sha256(b"abc").hexdigest()


def test_versions() -> None:
    assert versions()["numpy"] == version("numpy")
    assert versions()["Python"].startswith("3.")
