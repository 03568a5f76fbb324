"""What happens when the surroundings fail: a sentence, nothing half done, and others unharmed."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bids_qsm import dispatch
from bids_qsm.bids.inputs import find_series
from bids_qsm.bids.publishing import Staging, withdraw, write_text
from bids_qsm.errors import UnwritableOutputError
from bids_qsm.execution.local import Message, Outcome, Unit, run_units
from bids_qsm.execution.locks import held
from bids_qsm.execution.progress import Display
from bids_qsm.execution.steps import Steps
from bids_qsm.images import Image, load_image
from bids_qsm.numerics.relaxometry import Relaxation
from bids_qsm.settings import Settings
from tests.tiny import tiny_dataset, tiny_series

RECORD = Path("logs/sub-01_record.json")
NAMES = [Path(f"sub-01/anat/sub-01_{name}.nii.gz") for name in ("Chimap", "R2starmap", "mask")]
TELL = Callable[[str], None]


def publish(out: Path, value: int) -> None:
    """Publish as a series does: the first map early, the record last."""
    with Staging(out, "sub-01") as staging:
        image = Image(np.full((4, 4, 4), value, np.float32), np.eye(4))
        staging.write_image(NAMES[0], image, {"Run": value})
        withdraw(out, RECORD, "sub-01")
        staging.release()
        for name in NAMES[1:]:
            staging.write_image(name, image, {"Run": value})
        files = [path.as_posix() for path in staging.files()]
        staging.write(RECORD, json.dumps({"run": value, "outputs": files}))


def in_fork(work: Callable[[], None]) -> int:
    """Do the work in a fork of this process and return how it ended."""
    process = os.fork()
    if process:
        return os.waitpid(process, 0)[1]
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def publish_and_die(out: Path, change: int) -> None:
    """Publish, and be killed just before a change of a file, counted from 0."""
    seen = 0

    def see(event: str, details: tuple[object, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(details[2], int) and details[2] & os.O_CREAT
        if (writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")) and str(
            details[0]
        ).startswith(str(out)):
            if seen == change:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(see)
    publish(out, 2)


def test_killed_at_every_change_of_a_file(tmp_path) -> None:
    """Whenever a run is killed, what is visible is whole, and a record is of one run."""
    killed, change = True, 0
    while killed:
        out = tmp_path / str(change)
        publish(out, 1)
        killed = in_fork(lambda out=out, change=change: publish_and_die(out, change)) != 0
        values = {}
        for path in out.glob("sub-01/anat/*.nii.gz"):
            values[path.name] = float(load_image(path).data.max())
            assert values[path.name] in (1.0, 2.0)
        for path in out.glob("sub-01/anat/*.json"):
            json.loads(path.read_text())
        if (out / RECORD).exists():
            record = json.loads((out / RECORD).read_text())
            there = [(out / name).exists() for name in record["outputs"]]
            if all(there):
                assert set(values.values()) == {float(record["run"])}
        publish(out, 3)
        assert {float(load_image(out / name).data.max()) for name in NAMES} == {3.0}
        assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
        change += 1
    assert change > 30


def test_remains_of_a_run_that_was_killed_when_all_was_done_are_removed(tmp_path) -> None:
    publish(tmp_path, 1)
    staging = Staging(tmp_path, "sub-01").__enter__()
    with held(tmp_path, "sub-01"):
        dispatch.remove_staging(tmp_path, "sub-01")
        assert staging.folder.is_dir()  # another run is at work on it
    dispatch.remove_staging(tmp_path, "sub-01")
    assert not staging.folder.exists()
    assert (tmp_path / RECORD).exists()


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Let no file become larger than a number of bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(n_bytes: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_leaves_what_was_there(tmp_path, small_files) -> None:
    path = tmp_path / "page.html"
    write_text(path, "old")
    small_files(1000)
    with pytest.raises(UnwritableOutputError, match=r"page\.html: it cannot be written \(File too"):
        write_text(path, "x" * 5000)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_full_work_folder_is_said_and_the_next_run_goes_on(tmp_path, small_files) -> None:
    zeros = np.zeros((20, 20, 20), np.float32)

    def run() -> None:
        steps = Steps(tmp_path / "work", "inputs", lambda _: None, keep_from_s=0)
        steps.run("relaxometry", Relaxation, lambda _: Relaxation(zeros, zeros, zeros), {})

    small_files(1000)
    with pytest.raises(UnwritableOutputError, match="intermediate results cannot be written"):
        run()
    small_files(resource.RLIM_INFINITY)
    run()


def test_full_disk_of_the_log_does_not_end_the_run(tmp_path, capsys) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with Display(1, tmp_path / "logs", 0) as display:
        display.show(Message("sub-01", 0, "field"))
        display.show(Outcome("sub-01", "", "", 1.0, 1.0))
    said = capsys.readouterr().err
    assert said.count("the log cannot be written") == 1
    assert "done in 1 s" in said


def fill_up(tell: TELL) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.nii.gz")


def vanish(tell: TELL) -> None:
    Path("/nonexistent/x.nii.gz").read_bytes()


def test_what_the_system_refuses_is_a_sentence() -> None:
    units = [Unit("full", fill_up, ()), Unit("gone", vanish, ())]
    ended = {e.unit: e.problem for e in run_units(units, 2) if isinstance(e, Outcome)}
    assert ended["full"] == (
        "x.nii.gz: it cannot be written (No space left on device): free some space, and run again."
    )
    assert ended["gone"].startswith("/nonexistent/x.nii.gz: there is no such file")


def test_input_that_vanishes_after_it_was_found_is_refused(tmp_path) -> None:
    bids = tiny_dataset(tmp_path / "bids", ("01", "02"))
    settings = Settings(bids, tmp_path / "out")
    found = find_series(settings)
    found.series[0].files[2].unlink()
    left, keys = dispatch._with_keys(found, settings)
    assert [series.name for series in left.series] == ["sub-02"] == list(keys)
    assert "has vanished" in left.refused[0].sentence


def test_clocks_that_are_wrong_change_nothing_but_what_is_made_again(tmp_path) -> None:
    bids = tiny_dataset(tmp_path / "bids")
    settings = Settings(bids, tmp_path / "out")

    def key() -> str:
        (series,) = find_series(settings).series
        return dispatch.series_key(series, settings)

    image = sorted(bids.rglob("*.nii.gz"))[0]
    keys = [key()]
    for time in (4e9, 1.0):  # in the year 2096, and in 1970
        os.utime(image, (time, time))
        keys.append(key())
        assert key() == keys[-1]
    assert len(set(keys)) == 3


def test_images_larger_than_the_memory_that_is_given_are_refused(tmp_path) -> None:
    tiny_series(tmp_path / "bids", "01")
    settings = Settings(tmp_path / "bids", tmp_path / "out", mem_gb=1e-4, skip_bids_validation=True)
    found = find_series(settings)
    left, waiting = dispatch._with_memory(found, found.series, settings)
    assert (left.series, waiting) == ((), [])
    assert "more than --mem-gb 0.0001 allows" in left.refused[0].sentence
