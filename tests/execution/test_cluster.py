"""The same units of work on a real scheduler with two workers."""

# ruff: noqa: E402 - what needs Dask is imported only where there is Dask

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator

import pytest

distributed = pytest.importorskip("distributed", reason="needs Dask: pip install bids-qsm[dask]")

from bids_qsm import dispatch, execution
from bids_qsm.cli import main, settings_from
from bids_qsm.errors import CommandLineError, UnreadableInputError
from bids_qsm.execution import cluster, workers
from bids_qsm.execution.cluster import ClusterError, Needs
from bids_qsm.execution.local import Message, Outcome, Unit
from bids_qsm.settings import Settings
from tests.execution.units import count, kill_worker, kill_worker_once, refuse, stay, succeed
from tests.one_process import one_process
from tests.tiny import contents, tiny_dataset

NEEDS = Needs((), 1, 1)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with (
        pytest.MonkeyPatch.context() as patch,  # workers set variables only in their own processes
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            processes=True,
            memory_limit="4GiB",
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as started,
    ):
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        yield started.scheduler_address


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def run(
    units: list[Unit], address: str, gib: float = 0.1, **options: bool
) -> list[Message | Outcome]:
    return list(cluster.run_units(units, [gib] * len(units), address, NEEDS, **options))


def test_worker_takes_no_more_units_than_its_memory_holds(address, tmp_path) -> None:
    run([Unit(f"u{number}", count, (str(tmp_path),)) for number in range(4)], address, gib=3)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["1"] * 4


def test_messages_and_outcomes(address, tmp_path) -> None:
    good, bad = Unit("a", succeed, (str(tmp_path / "pid"),)), Unit("b", refuse, ())
    events = run([good, bad], address)
    assert [e for e in events if e.unit == "a"][:2] == [
        Message("a", 0, "only step"),
        Message("a", logging.WARNING, "a warning"),
    ]
    ended = {e.unit: e.problem for e in events if isinstance(e, Outcome)}
    assert ended == {"a": "", "b": "x.nii.gz: is damaged."}
    assert (tmp_path / "pid").read_text().split()[1] == "1"


def test_unit_of_a_killed_worker_is_done_again_and_that_is_said(address, tmp_path) -> None:
    units = [Unit(n, kill_worker_once, (str(tmp_path / "x"),)) for n in ("a", "b")]
    events = run(units, address)
    ended = {e.unit: e.problem for e in events if isinstance(e, Outcome)}
    assert ended == {"a": "", "b": ""}
    assert any("was lost: it is done again" in e.text for e in events if isinstance(e, Message))


def test_unit_that_kills_every_worker_fails_in_the_end(address) -> None:
    *_, end = run([Unit("a", kill_worker, ())], address)
    assert isinstance(end, Outcome)
    assert end.problem.startswith("4 workers died one after the other")


def test_cluster_that_has_lost_all_workers_ends_the_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cluster, "LONGEST_WITHOUT_WORKERS_S", 1.0)
    with distributed.LocalCluster(
        n_workers=1, dashboard_address=None, silence_logs=logging.CRITICAL
    ) as alone:
        units = [Unit("a", stay, (str(tmp_path / "pid"),)), Unit("b", refuse, ())]
        events = cluster.run_units(units, [0.1, 0.1], alone.scheduler_address, NEEDS)
        assert Message("a", 0, "stays") in events  # the other unit may say something before
        alone.scale(0)
        ended = {e.unit: e.problem for e in events if isinstance(e, Outcome)}
    assert ended.keys() >= {"a"}
    assert ended["a"].startswith("no worker has been there")


def test_no_unit_is_started_after_the_first_failure(address, tmp_path) -> None:
    later = [Unit(f"u{number}", count, (str(tmp_path),)) for number in range(12)]
    events = run([Unit("first", refuse, ()), *later], address, stop_on_first_failure=True)
    assert 1 <= sum(isinstance(event, Outcome) for event in events) < 10


def test_units_end_with_a_run_that_is_interrupted(address, tmp_path) -> None:
    events = cluster.run_units([Unit("a", stay, (str(tmp_path / "pid"),))], [99.0], address, NEEDS)
    assert next(events) == Message("a", 0, "stays")  # no worker has 99 GiB: the largest takes it
    pid = int((tmp_path / "pid").read_text())
    assert is_alive(pid)
    events.close()
    until = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_alive(pid)


def test_worker_that_cannot_do_the_work_is_refused(address, tmp_path, monkeypatch) -> None:
    units = [Unit("a", refuse, ())]
    lost = Needs((tmp_path / "elsewhere",), 1, 1)
    with pytest.raises(ClusterError, match=r"elsewhere: the worker tcp://.* does not see"):
        list(cluster.run_units(units, [0.1], address, lost))
    monkeypatch.setattr(workers, "__version__", "0.0.1")
    with pytest.raises(ClusterError, match=r"has version .*, and this run is of 0\.0\.1"):
        run(units, address)


def test_scheduler_that_cannot_be_reached(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cluster, "LONGEST_CONNECT_S", 0.5)
    with pytest.raises(ClusterError, match="the scheduler cannot be reached"):
        run([], "tcp://127.0.0.1:9")
    with pytest.raises(UnreadableInputError, match="no such scheduler file"):
        run([], str(tmp_path / "scheduler.json"))


def test_without_dask_it_is_said_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "bids_qsm.execution.cluster")
    monkeypatch.delattr(execution, "cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    settings = Settings(tmp_path, tmp_path, executor="dask:host:8786")
    with pytest.raises(CommandLineError, match=r"pip install 'bids-qsm\[dask\]'"):
        dispatch._on_cluster([], [], dispatch.Plan(1, 1), settings)


@pytest.mark.parametrize("word", ["dask", "dask:", "slurm:x"])
def test_executor_that_there_is_not(word, capsys) -> None:
    with pytest.raises(SystemExit):
        settings_from(["in", "out", "participant", "--executor", word])
    assert "write 'local' or 'dask:ADDRESS|FILE'" in capsys.readouterr().err
    with pytest.raises(CommandLineError, match="is for the participant level"):
        settings_from(["in", "out", "group", "--executor", "dask:host:8786"])


def test_outputs_are_those_of_a_run_without_a_cluster(address, tmp_path, monkeypatch) -> None:
    bids = tiny_dataset(tmp_path / "bids", ("01",))
    with one_process():
        assert main([str(bids), str(tmp_path / "local"), "participant"]) == 0
    words = [str(bids), str(tmp_path / "dask"), "participant", "--executor", f"dask:{address}"]
    monkeypatch.setattr(sys, "argv", ["bids-qsm", *words])
    assert main(words) == 0
    record = json.loads((tmp_path / "dask/logs/sub-01_record.json").read_text())
    assert record["run"]["command"][3:] == ["participant", "--executor", "dask"]
    assert "done in" in (tmp_path / "dask/logs/sub-01_log.txt").read_text()
    here, there = contents(tmp_path / "local"), contents(tmp_path / "dask")
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []
    assert sum(name.endswith(".nii.gz") for name in here) >= 5
