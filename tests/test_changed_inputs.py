"""Inputs that change, vanish or turn into something else: made again, or refused, never mixed."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bids_qsm import dispatch, participant
from bids_qsm.bids.inputs import find_series
from bids_qsm.cli import main
from bids_qsm.execution.steps import Steps
from bids_qsm.settings import Settings
from tests.benchmarks.kills import faults, images
from tests.one_process import one_process
from tests.tiny import tiny_dataset

FIRST = "sub-01/anat/sub-01_echo-2_part-phase_MEGRE.nii.gz"


@pytest.fixture
def bids(tmp_path) -> Path:
    return tiny_dataset(tmp_path / "bids", ("01", "02"))


def run(bids: Path, out: Path, *words: object) -> int:
    with one_process(pictures=False):
        return main([str(bids), str(out), "participant", *map(str, words)])


def key_of(bids: Path) -> str:
    settings = Settings(bids, bids.parent / "out")
    return dispatch.series_key(find_series(settings).series[0], settings)


@pytest.mark.parametrize("field", ["EchoTime", "MagneticFieldStrength"])
def test_series_with_an_edited_sidecar_is_made_again(bids, field) -> None:
    before = key_of(bids)
    for path in bids.glob(
        "sub-01/anat/sub-01_echo-3_*.json" if field == "EchoTime" else "sub*/*/*.json"
    ):
        fields = json.loads(path.read_text())
        path.write_text(json.dumps(fields | {field: 1.1 * fields[field]}))
    assert key_of(bids) != before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def flip_checksum(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-6] ^= 0x10
    path.write_bytes(content)


def twice_packed(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes()))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


CHANGES = (cut, flip, flip_checksum, twice_packed, folder, pipe, dangling)


@pytest.mark.parametrize("change", CHANGES)
def test_damaged_file_is_named_and_the_other_subject_is_processed(
    bids, tmp_path, capsys, monkeypatch, change
) -> None:
    change(bids / FIRST)
    monkeypatch.setattr(participant, "process_series", loaded_only)
    assert run(bids, tmp_path / "out") == 1
    said = capsys.readouterr().out
    (line,) = (line for line in said.splitlines() if "sub-01: " in line)
    assert line.startswith(("FAILED", "REFUSED"))
    assert "sub-01_echo-2_part-" in line  # of a folder: its partner, which is alone
    assert "fault in the program" not in said
    assert "loaded sub-02" in said


def loaded_only(series, settings, key, threads, read, tell) -> None:
    """Read a series, and do no more."""
    read()
    print(f"loaded {series.name}")


@pytest.mark.parametrize("change", [Path.unlink, Path.touch, cut, folder], ids=lambda f: f.__name__)
def test_file_that_changes_during_a_run_is_refused_before_anything_is_published(
    bids, tmp_path, capsys, monkeypatch, change
) -> None:
    out = tmp_path / "out"
    at_work(monkeypatch, lambda: change(bids / FIRST))
    assert run(bids, out, "--participant-label", "01") == 1
    said = capsys.readouterr().out
    assert f"{FIRST}: the file was there when" in said or "has changed since the run began" in said
    assert images(out) == {}
    assert not list(out.glob("logs/*_record.json"))


def test_file_that_changes_before_its_turn_is_refused(bids, tmp_path, capsys, monkeypatch) -> None:
    """Else kept results of what it was would be mixed with what it is."""
    change = [lambda: cut(bids / "sub-02/anat/sub-02_echo-1_part-mag_MEGRE.nii.gz")]

    def only_first(series, settings, key, threads, read, tell) -> None:
        participant.check_inputs(series, settings, key)
        while change:
            change.pop()()

    monkeypatch.setattr(participant, "process_series", only_first)
    assert run(bids, tmp_path / "out") == 1
    said = capsys.readouterr().out
    assert "FAILED sub-02: " in said and "changed since the run began" in said
    assert "FAILED sub-01" not in said


def at_work(monkeypatch, change: Callable[[], None]) -> None:
    """Let something happen once, while the field is being fitted."""
    in_ppm = participant.in_ppm

    def first(*words: object) -> object:
        change()
        return in_ppm(*words)

    monkeypatch.setattr(participant, "in_ppm", first)


def test_page_of_an_earlier_run_goes_with_what_it_shows(bids, tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    words = ("--participant-label", "01")
    assert run(bids, out, *words) == 0
    page = out / "sub-01.html"
    first = images(out)
    seen = []

    def die(*_: object) -> None:
        seen.append(page.exists())
        raise KeyboardInterrupt

    monkeypatch.setattr("bids_qsm.publication.write_maps", die)
    assert run(bids, out, *words, "--reference", "none") == 130
    assert seen == [False]
    monkeypatch.undo()
    assert run(bids, out, *words) == 0
    assert page.exists()
    assert images(out) == first


def test_runs_of_two_output_folders_share_a_work_folder(bids, tmp_path, monkeypatch) -> None:
    """The second waits: it would remove what the first is just making."""
    held: list[tuple[Path, str]] = []
    original = dispatch.held

    def see(folder: Path, name: str, *more: object):
        held.append((folder, name))
        return original(folder, name, *more)

    monkeypatch.setattr(dispatch, "held", see)
    monkeypatch.setattr(participant, "process_series", lambda *_: None)
    work = tmp_path / "work"
    assert run(bids, tmp_path / "out", "--participant-label", "01", "--work-dir", work) == 0
    assert (work, "sub-01") in held
    assert list(work.iterdir()) == []


def test_clock_of_another_time_means_no_needless_work(bids, tmp_path) -> None:
    """Outputs and kept results that are dated in the future or in 1970 are as good as any."""
    out, work = tmp_path / "out", tmp_path / "work"
    words = ("--participant-label", "01", "--work-dir", work)
    monkey = pytest.MonkeyPatch()
    monkey.setattr(Steps.__init__, "__defaults__", (0.0,))
    assert run(bids, out, *words) == 0
    first = images(out)
    for number, path in enumerate(sorted([*out.rglob("*"), *work.rglob("*")])):
        os.utime(path, (4e9, 4e9) if number % 2 else (1.0, 1.0))
    record = out / "logs/sub-01_record.json"
    before = record.stat().st_mtime
    assert run(bids, out, *words) == 0
    assert record.stat().st_mtime == before
    record.unlink()  # made again from what is kept
    assert run(bids, out, *words) == 0
    assert json.loads(record.read_text())["run"]["reused"]
    assert images(out) == first
    assert faults(out, [first]) == []
    monkey.undo()
