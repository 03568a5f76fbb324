from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bids_qsm.errors import UnwritableOutputError
from bids_qsm.execution.locks import FOLDER, alone, held, shared

HOLDER = """
import sys, time
from pathlib import Path
from bids_qsm.execution.locks import held
with held(Path(sys.argv[1]), "sub-01"):
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(folder: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLDER, str(folder)]
    holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_second_waits_and_is_told_for_whom_and_death_releases(tmp_path) -> None:
    holder = start_holder(tmp_path)
    told: list[str] = []
    waited: list[bool] = []

    def second() -> None:
        with held(tmp_path, "sub-01", told.append) as did:
            waited.append(did)

    thread = threading.Thread(target=second)
    thread.start()
    time.sleep(0.3)
    assert waited == []
    assert f"another run that is at work on it (process {holder.pid} on" in told[0]
    with held(tmp_path, "sub-02", told.append) as did:  # another series is free
        assert did is False
    holder.kill()
    thread.join(20)
    holder.wait()
    assert waited == [True]
    assert len(told) == 1
    assert list(tmp_path.iterdir()) == []  # nothing is left, also of the one that was killed


def test_nothing_is_left_and_one_is_in_at_a_time(tmp_path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            with held(tmp_path, "sub-01"):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.001)
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1] * 40
    assert list(tmp_path.iterdir()) == []


def test_only_the_last_of_those_that_share_is_alone(tmp_path) -> None:
    with shared(tmp_path, "work"):
        with shared(tmp_path, "work"), alone(tmp_path, "work") as is_last:
            assert is_last is False
        with alone(tmp_path, "work") as is_last:
            assert is_last is False
    with alone(tmp_path, "work") as is_last:
        assert is_last is True
    assert list(tmp_path.iterdir()) == []


def test_file_system_without_locks_is_said_and_nobody_is_alone(tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    told: list[str] = []
    with held(tmp_path, "sub-01", told.append) as waited:
        assert waited is False
    assert "has no locks" in told[0]
    with shared(tmp_path, "work"), alone(tmp_path, "work") as is_last:
        assert is_last is False


def test_link_in_the_place_of_a_lock_is_not_written_through(tmp_path) -> None:
    out, other = tmp_path / "out", tmp_path / "precious"
    (out / FOLDER).mkdir(parents=True)
    other.write_text("as it was")
    (out / FOLDER / "sub-01").symlink_to(other)
    with (
        pytest.raises(UnwritableOutputError, match="sub-01: it cannot be written"),
        held(out, "sub-01"),
    ):
        pass
    assert other.read_text() == "as it was"


def test_no_folder_gives_a_sentence(tmp_path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UnwritableOutputError, match="cannot be written"),
        held(tmp_path / "file", "sub-01"),
    ):
        pass


@pytest.mark.parametrize("error", [FileExistsError, FileNotFoundError])
def test_folder_that_goes_while_it_is_being_made_is_made_again(
    tmp_path, monkeypatch, error
) -> None:
    """As when the run that held the last lock removes it just then."""
    mkdir, errors = Path.mkdir, [error, error]

    def made(*words: object, **more: object) -> None:
        if errors:
            raise errors.pop()
        mkdir(*words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", made)
    with held(tmp_path, "sub-01") as waited:
        assert waited is False
    assert errors == []


@pytest.mark.parametrize("kind", ["file", "link"])
def test_something_else_in_the_place_of_the_folder_gives_a_sentence(tmp_path, kind) -> None:
    folder = tmp_path / FOLDER
    folder.touch() if kind == "file" else folder.symlink_to("nowhere")
    with (
        pytest.raises(UnwritableOutputError, match="cannot be written"),
        held(tmp_path, "sub-01"),
    ):
        pass
