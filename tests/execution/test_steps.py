from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bids_qsm.execution.steps import Steps, files_fingerprint, fingerprint, locked


@dataclass(frozen=True)
class Place:
    size: tuple[int, ...]
    origin: np.ndarray


@dataclass(frozen=True)
class Result:
    values: np.ndarray
    mask: np.ndarray
    scale: float
    name: str
    warnings: tuple[str, ...]
    place: Place


def make(folder: Path, calls: list[str], factor: float = 2.0) -> Result:
    calls.append("run")
    (folder / "note.txt").write_text("made by the step")
    values = factor * np.arange(6, dtype=np.float32).reshape(2, 3)
    return Result(values, values > 4, factor, "é", ("one", "two"), Place((2, 3), np.eye(2)))


def run(folder: Path, calls: list[str], inputs: str = "a", factor: float = 2.0) -> Result:
    steps = Steps(folder, inputs, lambda name: None, keep_from_s=0)
    return steps.run("first", Result, lambda f: make(f, calls, factor), {"factor": factor})


def test_unchanged_step_is_read_back_as_it_was(tmp_path) -> None:
    calls: list[str] = []
    first, second = run(tmp_path, calls), run(tmp_path, calls)
    assert calls == ["run"]
    np.testing.assert_array_equal(first.values, second.values)
    assert second.values.dtype == np.float32
    assert second.mask.dtype == np.bool_
    assert (second.scale, second.name, second.warnings) == (2.0, "é", ("one", "two"))
    assert second.place.size == (2, 3)
    np.testing.assert_array_equal(second.place.origin, np.eye(2))
    assert (next(tmp_path.glob("first-*")) / "note.txt").exists()


def test_quick_step_is_made_again_and_long_one_is_kept(tmp_path) -> None:
    calls: list[str] = []
    for _ in range(2):
        steps = Steps(tmp_path, "a", lambda name: None, keep_from_s=0.2)
        steps.run("quick", Result, lambda f: make(f, calls), {})
        steps.run("long", Result, lambda f: (time.sleep(0.3), make(f, calls))[1], {}, ["quick"])
    assert [timing.reused for timing in steps.timings] == [False, True]
    assert calls == ["run"] * 3


def test_changed_parameter_or_input_runs_again(tmp_path) -> None:
    calls: list[str] = []
    run(tmp_path, calls)
    assert run(tmp_path, calls, factor=3.0).scale == 3.0
    run(tmp_path, calls, inputs="b")
    assert len(calls) == 3


def test_change_upstream_runs_the_later_step_again(tmp_path) -> None:
    calls: list[str] = []
    for factor in (2.0, 2.0, 3.0):
        steps = Steps(tmp_path, "a", lambda name: None, keep_from_s=0)
        steps.run("first", Result, lambda f, x=factor: make(f, [], x), {"factor": factor})
        steps.run("second", Result, lambda f: make(f, calls), {}, after=["first"])
    assert len(calls) == 2


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", b"\x00" * 100])
def test_damaged_result_is_made_again(tmp_path, damage) -> None:
    calls: list[str] = []
    run(tmp_path, calls)
    next(tmp_path.glob("first-*/result.npz")).write_bytes(damage)
    assert run(tmp_path, calls).scale == 2.0
    assert len(calls) == 2


def test_step_that_fails_leaves_no_result(tmp_path) -> None:
    def fail(folder: Path) -> Result:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("no")

    steps = Steps(tmp_path, "a", lambda name: None, keep_from_s=0)
    with pytest.raises(RuntimeError):
        steps.run("first", Result, fail, {"factor": 2.0})
    assert not list(tmp_path.glob("*/result.npz"))
    run(tmp_path, calls := [])
    assert calls == ["run"]
    assert not list(tmp_path.glob("first-*/half.txt"))


def test_fingerprints_tell_apart(tmp_path) -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    file = tmp_path / "x"
    file.write_text("1")
    before = files_fingerprint([file])
    file.write_text("22")
    assert files_fingerprint([file]) != before


def _hold(folder: str, log: str, seconds: float) -> None:
    with locked(Path(folder)):
        with Path(log).open("a") as handle:
            handle.write("in ")
        time.sleep(seconds)
        with Path(log).open("a") as handle:
            handle.write("out ")


def test_lock_lets_one_process_in_at_a_time(tmp_path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    arguments = (str(tmp_path / "lock"), str(log), 0.2)
    processes = [context.Process(target=_hold, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert log.read_text() == "in out in out "
