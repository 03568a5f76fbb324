from __future__ import annotations

import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bids_qsm.errors import UnreadableInputError
from bids_qsm.execution import local
from bids_qsm.execution.local import Early, Message, Outcome, Unit, run_units, start_worker

TELL = Callable[[str], None]


def succeed(path: str, tell: TELL) -> None:
    tell("only step")
    logging.getLogger("bids_qsm.test").warning("a warning")
    Path(path).write_text(str(os.getpid()))


def prepare(begin: Callable[[], None]) -> None:
    begin()


def prepare_nothing(begin: Callable[[], None]) -> None:
    begin()
    raise UnreadableInputError("x.nii.gz: is damaged.")


def prepare_until(path: str, begin: Callable[[], None]) -> None:
    begin()
    wait_for(Path(path))


def wait_for(path: Path) -> None:
    until = time.monotonic() + 30
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)


def read_early(path: str) -> list[int]:
    Path(path).touch()
    return [threading.get_native_id()]


def read_badly() -> None:
    raise UnreadableInputError("x.nii.gz: is damaged.")


def note_reader(path: str, early: Early, tell: TELL) -> None:
    reader = early.take()
    Path(path).write_text("thread" if reader != [os.getpid()] else "process")


def refuse(tell: TELL) -> None:
    raise UnreadableInputError("x.nii.gz: is damaged.")


def crash(tell: TELL) -> None:
    raise KeyError("no such thing")


def die(tell: TELL) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def exhaust(tell: TELL) -> None:
    raise MemoryError


def stay(path: str, tell: TELL) -> None:
    folder = Path(path)
    (folder / str(os.getpid())).touch()
    time.sleep(0.6)
    (folder / f"seen-{os.getpid()}").write_text(
        str(len([p for p in folder.iterdir() if p.name.isdigit()]))
    )
    (folder / str(os.getpid())).unlink()


def use(path: str, gib: float, tell: TELL) -> None:
    """Write what those need that are here at the same time."""
    folder, here = Path(path), Path(path) / f"{os.getpid()}"
    here.write_text(str(gib))
    time.sleep(0.4)
    (folder / f"seen-{gib}-{os.getpid()}").write_text(
        " ".join(p.read_text() for p in folder.iterdir() if p.name.isdigit())
    )
    here.unlink()


def linger(tell: TELL) -> None:
    threading.Thread(target=time.sleep, args=(60,)).start()


def outcomes(units: list[Unit], **options: object) -> dict[str, Outcome]:
    events = list(run_units(units, **options))  # type: ignore[arg-type]
    return {event.unit: event for event in events if isinstance(event, Outcome)}


def test_messages_and_outcome_of_a_good_unit(tmp_path) -> None:
    file = tmp_path / "pid"
    events = list(run_units([Unit("a", succeed, (str(file),))], 1))
    assert Message("a", 0, "only step") in events
    assert Message("a", logging.WARNING, "a warning") in events
    assert isinstance(events[-1], Outcome)
    assert events[-1].problem == ""
    assert events[-1].peak_mib > 5
    assert int(file.read_text()) != os.getpid()


def test_worker_that_waits_does_the_first_unit(tmp_path) -> None:
    files = [tmp_path / "first", tmp_path / "second"]
    worker = start_worker(prepare)
    worker.await_preparation()
    units = [Unit(file.name, succeed, (str(file),)) for file in files]
    assert not any(outcome.problem for outcome in outcomes(units, workers=1, ready=worker).values())
    pids = [int(file.read_text()) for file in files]
    assert pids[0] == worker.process.pid
    assert pids[1] != worker.process.pid


def test_worker_reads_early_what_it_is_told_of(tmp_path) -> None:
    """The preparation waits for what only the early part makes."""
    file, said = tmp_path / "read", tmp_path / "said"
    worker = start_worker(prepare_until, str(file))
    unit = Unit("a", note_reader, (str(said),), early=partial(read_early, str(file)))
    worker.await_preparation(unit)
    assert file.exists()
    assert outcomes([unit], workers=1, ready=worker)["a"].problem == ""
    assert said.read_text() == "thread"


def test_worker_reads_late_what_it_was_not_told_of(tmp_path) -> None:
    file, said = tmp_path / "read", tmp_path / "said"
    unit = Unit("a", note_reader, (str(said),), early=partial(read_early, str(file)))
    told = Unit("b", note_reader, (str(said),), early=read_badly)
    worker = start_worker(prepare)
    worker.await_preparation(told)
    assert outcomes([unit], workers=1, ready=worker)["a"].problem == ""
    assert said.read_text() == "process"


def test_what_cannot_be_read_early_fails_its_unit(tmp_path) -> None:
    unit = Unit("a", note_reader, (str(tmp_path / "said"),), early=read_badly)
    worker = start_worker(prepare)
    worker.await_preparation(unit)
    assert outcomes([unit], workers=1, ready=worker)["a"].problem == "x.nii.gz: is damaged."
    assert not (tmp_path / "said").exists()


def test_what_was_read_early_is_handed_over_and_not_kept() -> None:
    class Large:
        pass

    for begins in (True, False):
        early = Early(Unit("a", refuse, (), early=Large))
        if begins:
            early.begin()
        large = weakref.ref(taken := early.take())
        assert isinstance(large(), Large)
        del taken
        gone = time.monotonic() + 10
        while large() is not None and time.monotonic() < gone:
            time.sleep(0.01)  # the thread may not have ended yet
        assert large() is None


def test_refusal_of_a_workers_preparation_is_raised() -> None:
    worker = start_worker(prepare_nothing)
    with pytest.raises(UnreadableInputError, match=r"x\.nii\.gz: is damaged"):
        worker.await_preparation()
    worker.dismiss()


def test_worker_that_was_killed_is_a_failed_unit() -> None:
    worker = start_worker()
    worker.process.kill()
    worker.process.join()
    ended = outcomes([Unit("a", refuse, ())], workers=1, ready=worker)
    assert "killed by signal 9" in ended["a"].problem


def test_worker_that_has_nothing_to_do_ends() -> None:
    dismissed, left = start_worker(), start_worker()
    dismissed.dismiss()
    assert not dismissed.process.is_alive()
    left.units.close()
    left.process.join(30)
    assert left.process.exitcode == 0


def test_every_kind_of_failure_harms_only_its_own_unit(tmp_path) -> None:
    file = tmp_path / "pid"
    units = [
        Unit("refused", refuse, ()),
        Unit("crashed", crash, ()),
        Unit("killed", die, ()),
        Unit("memory", exhaust, ()),
        Unit("good", succeed, (str(file),)),
    ]
    ended = outcomes(units, workers=2)
    assert ended["refused"].problem == "x.nii.gz: is damaged."
    assert ended["refused"].details == ""
    assert "fault in the program (KeyError" in ended["crashed"].problem
    assert "Traceback" in ended["crashed"].details
    assert "killed by signal 9" in ended["killed"].problem
    assert "memory ran out" in ended["memory"].problem
    assert ended["good"].problem == ""
    assert file.exists()


def test_stop_on_first_failure_starts_no_more(tmp_path) -> None:
    file = tmp_path / "pid"
    units = [Unit("refused", refuse, ()), Unit("good", succeed, (str(file),))]
    assert set(outcomes(units, workers=1, stop_on_first_failure=True)) == {"refused"}
    assert not file.exists()


def test_no_more_than_the_allowed_number_run_at_once(tmp_path) -> None:
    units = [Unit(str(i), stay, (str(tmp_path),)) for i in range(4)]
    assert len(outcomes(units, workers=2)) == 4
    together = [int(p.read_text()) for p in tmp_path.glob("seen-*")]
    assert len(together) == 4
    assert max(together) <= 2


def test_no_more_memory_than_is_allowed_is_used_at_once(tmp_path) -> None:
    needs = (3.0, 2.0, 5.0, 1.0, 2.0)  # one needs more than there may be
    units = [Unit(str(i), use, (str(tmp_path), gib), gib) for i, gib in enumerate(needs)]
    ended = outcomes(units, workers=5, limit_gib=4.0)
    assert [ended[unit.name].problem for unit in units] == [""] * 5
    at_once = {p.name: sum(map(float, p.read_text().split())) for p in tmp_path.glob("seen-*")}
    assert len(at_once) == 5
    assert max(at_once.values()) == 5.0  # alone
    assert sorted(at_once.values())[-2] <= 4.0


def test_units_are_taken_in_order_as_far_as_there_is_room() -> None:
    large, small, other = (
        Unit("a", refuse, (), 3),
        Unit("b", refuse, (), 1),
        Unit("c", refuse, (), 1),
    )
    waiting = [large, small, other]
    assert local._next(waiting, [Unit("d", refuse, (), 2)], 4) is small
    assert local._next(waiting, [Unit("d", refuse, (), 2), small], 4) is other
    assert local._next(waiting, [small], 2) is None
    assert local._next(waiting, [], 2) is large
    assert waiting == []


def test_leaving_early_ends_the_children(tmp_path) -> None:
    generator = run_units([Unit("a", stay, (str(tmp_path),)), Unit("b", refuse, ())], 2)
    next(generator)
    generator.close()
    time.sleep(1.0)
    assert not list(tmp_path.glob("seen-*"))


def test_process_that_hangs_at_its_end_is_killed(monkeypatch) -> None:
    monkeypatch.setattr(local, "LONGEST_END_S", 0.5)
    started = time.perf_counter()
    assert outcomes([Unit("a", linger, ())], workers=1)["a"].problem == ""
    assert time.perf_counter() - started < 30
