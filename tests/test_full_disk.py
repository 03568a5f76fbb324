"""Disks that are full or read-only for real: one sentence, nothing half done, the rest later."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bids_qsm import group, participant
from bids_qsm.analyses.cohort import Selection
from bids_qsm.analyses.result import Result, ResultTable
from bids_qsm.analyses.stacks import _mapped
from bids_qsm.anatomy.warp import Pair, Search, deform
from bids_qsm.cli import main
from bids_qsm.errors import UnwritableOutputError
from bids_qsm.execution import steps
from bids_qsm.images import Image
from bids_qsm.models import Analysis
from bids_qsm.participant import in_ppm
from tests.benchmarks.kills import faults, images
from tests.one_process import one_process
from tests.test_faults import in_fork
from tests.tiny import tiny_dataset

Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a disk of some KiB in the memory, or change one; the test is skipped without leave."""
    mounted: list[Path] = []

    def call(*words: str) -> None:
        try:
            subprocess.run(["mount", *words], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs leave to mount: root, and in a container --cap-add SYS_ADMIN")

    def change(folder: Path, options: str) -> Path:
        if folder not in mounted:
            folder.mkdir(parents=True, exist_ok=True)
            call("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
            mounted.append(folder)
        else:
            call("-o", f"remount,{options}", str(folder))
        return folder

    yield change
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


@pytest.fixture(scope="module", autouse=True)
def all_steps_are_kept():
    """Let also quick steps be kept in the work folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps.Steps.__init__, "__defaults__", (0.0,))
        yield


@pytest.fixture(scope="module")
def bids(tmp_path_factory) -> Path:
    return tiny_dataset(tmp_path_factory.mktemp("full") / "bids", ("01", "02"))


def run(bids: Path, out: Path, *words: object) -> int:
    with one_process(pictures=False):
        return main([str(bids), str(out), "participant", *map(str, words)])


@pytest.fixture(scope="module")
def whole(bids: Path) -> dict[str, bytes]:
    """All images of a run with space."""
    assert run(bids, bids.parent / "whole") == 0
    return images(bids.parent / "whole")


def check(said: str) -> None:
    """Check that a series that failed says once why, and nothing is a fault of the program."""
    assert "fault in the program" not in said
    assert "Traceback" not in said
    assert "No space left on device" in said


@pytest.mark.parametrize("kib", [4, 420, 620, 800])
def test_full_output_folder(bids, whole, tmp_path, mount, capsys, kib) -> None:
    out = mount(tmp_path / "out", f"size={kib}k")
    status = run(bids, out)
    captured = capsys.readouterr()
    check(captured.out + captured.err)
    assert status != 0
    assert faults(out, [whole]) == []
    done = [path.stat().st_mtime_ns for path in sorted(out.glob("logs/*_record.json"))]
    mount(out, "size=64m")
    assert run(bids, out) == 0
    assert images(out) == whole
    again = [path.stat().st_mtime_ns for path in sorted(out.glob("logs/*_record.json"))]
    assert again[: len(done)] == done  # what was finished has not been made again
    assert {path.name for path in out.glob(".*")} == {".bidsignore"}


@pytest.mark.parametrize("kib", [4, 480])
def test_full_work_folder(bids, whole, tmp_path, mount, capsys, kib) -> None:
    out, work = tmp_path / "out", mount(tmp_path / "work", f"size={kib}k")
    assert run(bids, out, "--work-dir", work / "w") == 1
    check(capsys.readouterr().out)
    assert faults(out, [whole]) == []
    mount(work, "size=64m")
    assert run(bids, out, "--work-dir", work / "w") == 0
    assert images(out) == whole


def test_one_subject_that_does_not_fit_harms_no_other(bids, whole, tmp_path, mount, capsys) -> None:
    """The page of each subject is its own matter, too."""
    out = tmp_path / "out"
    mount(out / "sub-01", "size=8k")
    (out / "sub-02.html").mkdir(parents=True)
    assert run(bids, out) == 1
    said = capsys.readouterr().out
    assert f"FAILED sub-01: {out / 'sub-01/anat/sub-01_Chimap.nii.gz'}: it cannot be" in said
    assert said.count(f"{out / 'sub-02.html'}: it cannot be written (Is a directory)") == 1
    assert (out / "logs/sub-02_record.json").exists()


def test_space_for_all_maps_is_taken_before_they_are_read(tmp_path, mount) -> None:
    """Who writes into a mapped file on a full disk is killed by a signal, without a word."""
    small = mount(tmp_path / "small", "size=64k")

    def fill() -> None:
        with pytest.raises(UnwritableOutputError, match="all maps side by side cannot be written"):
            _mapped(small / "stack.f32", (20, 1000))[:] = 1
        _mapped(small / "stack.f32", (5, 1000))[:] = 1

    assert in_fork(fill) == 0


@pytest.mark.parametrize("kib", [4, 20, 60, 4000])
def test_registration_on_a_full_temporary_folder(tmp_path, mount, monkeypatch, rng, kib) -> None:
    """ITK cuts its files short without a word: half a deformation would be kept for a whole one."""
    monkeypatch.setattr(tempfile, "tempdir", str(mount(tmp_path / "small", f"size={kib}k")))
    radius = np.sqrt(((np.indices((16, 16, 16)) - 7.5) ** 2).sum(axis=0))
    ball = Image((np.where(radius < 6, 100, 0) + rng.normal(size=radius.shape)), np.eye(4))
    search, names = Search("MI", "32", "3", "1", "0"), ("warp.nii.gz", "inverse.nii.gz")
    kept = tmp_path / "kept"
    kept.mkdir()
    if kib == 4000:
        deform([Pair(ball, ball)], search, kept, names)
        assert {path.name for path in kept.iterdir()} == {*names}
    else:
        with pytest.raises(UnwritableOutputError, match="was not written whole; free some space"):
            deform([Pair(ball, ball)], search, kept, names)
        assert not any(kept.iterdir())


def test_analysis_that_does_not_fit_shows_nothing_of_itself(tmp_path, mount) -> None:
    """Neither does the page of an earlier run stay, which shows other values."""
    out = mount(tmp_path / "out", "size=40k")
    folder = out / group.group_folder("ages")
    folder.mkdir(parents=True)
    (folder / "old.tsv").write_text("as it was\n")
    (out / group.group_report_path()).write_text("old")
    (out / ".staging-group-other").mkdir()
    group._start(out)
    analysis = Analysis("ages", "regions", Selection(), {}, "Ages")
    table = pd.DataFrame({"word": ["x" * 4000]})
    tables = [ResultTable(f"t{n}", "", table) for n in range(9)]
    with pytest.raises(UnwritableOutputError, match="No space left"):
        group.write_result(out, analysis, Result("", tables=tuple(tables)))
    assert [path.name for path in folder.iterdir()] == ["old.tsv"]
    assert {path.name for path in out.iterdir()} == {"group"}


def test_read_only_output_folder(bids, tmp_path, mount, capsys) -> None:
    out = mount(tmp_path / "out", "size=64m")
    mount(out, "ro")
    assert run(bids, out) == 73
    said = capsys.readouterr()
    assert said.err.count("cannot be written (Read-only file system)") == 1
    assert said.out == ""


def test_output_folder_that_allows_no_change_while_a_run_is_at_work(
    bids, whole, tmp_path, capsys, monkeypatch
) -> None:
    out = tmp_path / "out"

    def change(sign: str) -> bool:
        words = ["chattr", "-R", f"{sign}i", str(out)]
        return subprocess.run(words, check=False, capture_output=True).returncode == 0

    def first(*words: object) -> object:
        if not change("+"):
            pytest.skip("needs root, and a file system with immutable files")
        return in_ppm(*words)

    monkeypatch.setattr(participant, "in_ppm", first)
    try:
        assert run(bids, out) == 1
    finally:
        change("-")
    said = capsys.readouterr()
    assert "FAILED sub-01: " in said.out and "FAILED sub-02: " in said.out
    assert "(Operation not permitted)" in said.out
    assert "Traceback" not in said.err and "fault in the program" not in said.err
    assert faults(out, [whole]) == []
    monkeypatch.undo()
    assert run(bids, out) == 0
    assert images(out) == whole


def test_read_only_input_and_work_folder(bids, whole, tmp_path, mount, capsys) -> None:
    there = mount(tmp_path / "there", "size=8m")
    shutil.copytree(bids, there / "bids")
    (there / "work").mkdir()
    mount(there, "ro")
    out = tmp_path / "out"
    assert run(there / "bids", out, "--work-dir", there / "work") == 1
    said = capsys.readouterr().out
    assert said.count("Read-only file system") == 2  # once for each series
    assert run(there / "bids", out) == 0
    assert images(out) == whole
