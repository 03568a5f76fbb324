"""Schedulers and workers that are not of the same installation as the run."""

# ruff: noqa: E402 - what needs Dask is imported only where there is Dask

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

distributed = pytest.importorskip("distributed", reason="needs Dask: pip install bids-qsm[dask]")

from bids_qsm import __version__
from bids_qsm.execution import cluster
from bids_qsm.execution.cluster import ClusterError, Needs
from bids_qsm.execution.local import Message, Outcome, Unit
from tests.execution.units import note_where, wait_for

LACKING = """
import sys
class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "bids_qsm":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Lacking())
"""
OTHER = """
import bids_qsm
bids_qsm.__version__ = "0.0.1"
"""
NUMPY = """
import importlib.metadata as metadata
version = metadata.version
metadata.version = lambda name: "1.0" if name == "numpy" else version(name)
"""
ROOT = Path(__file__).parents[2]
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path) -> Iterator[Start]:
    """Start a process of Dask, at whose beginning some code is run."""
    with contextlib.ExitStack() as stack:

        def started(*words: str, code: str = "") -> subprocess.Popen[bytes]:
            site = tmp_path / f"site-{len(list(tmp_path.iterdir()))}"
            site.mkdir()
            (site / "sitecustomize.py").write_text(code)
            path = os.pathsep.join([str(site), str(ROOT)])
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *words, "--no-dashboard"],
                env={**os.environ, "PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE"},
                stderr=(site / "log").open("w"),
                cwd=tmp_path,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield started


@pytest.fixture
def address() -> Iterator[str]:
    """A scheduler of this installation."""
    with distributed.LocalCluster(
        n_workers=0, dashboard_address=None, worker_dashboard_address=None
    ) as started:
        yield started.scheduler_address


def run(address: str, *units: Unit) -> list[Message | Outcome]:
    return list(cluster.run_units(units, [0.1] * len(units), address, Needs((), 1, 1)))


def await_that(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_worker_of_another_installation_is_named(address, start) -> None:
    unit = Unit("a", print, ())
    worker = ("worker", address, "--no-nanny", "--nthreads", "1")
    lacking = start(*worker, code=LACKING)
    expected = rf"worker tcp://\S+ \(Python: {sys.executable}\) has no bids-qsm, and this run is of"
    with pytest.raises(ClusterError, match=expected) as caught:
        run(address, unit)
    assert "start scheduler and workers from the same installation" in str(caught.value)
    lacking.kill()
    with distributed.Client(address) as client:
        await_that(lambda: not client.scheduler_info()["workers"])
    start(*worker, code=OTHER)
    expected = rf"has version 0\.0\.1 of bids-qsm, and this run is of {__version__}: .* 1 of 1 "
    with pytest.raises(ClusterError, match=expected):
        run(address, unit)


def test_scheduler_of_another_installation_is_named(start, tmp_path) -> None:
    file = tmp_path / "scheduler.json"
    start("scheduler", "--port", "0", "--scheduler-file", str(file), code=LACKING)
    start("worker", "--scheduler-file", str(file), "--no-nanny")
    await_that(file.exists)
    with pytest.raises(ClusterError, match=r"the scheduler \(Python: .*\) has no bids-qsm"):
        run(str(file), Unit("a", print, ()))


def test_worker_of_other_libraries_is_named(address, start) -> None:
    start("worker", address, "--no-nanny", code=NUMPY)
    with pytest.raises(ClusterError, match=r"worker tcp://\S+ .* has version 1\.0 of numpy, and"):
        run(address, Unit("a", print, ()))


def test_worker_that_joins_later_and_is_not_fit_spoils_nothing(address, start, tmp_path) -> None:
    worker = ("worker", address, "--nthreads", "1")
    lost = start(*worker, "--no-nanny")
    units = [Unit("first", wait_for, (str(tmp_path / "gate"),))]
    units += [Unit(f"u{number}", note_where, (str(tmp_path),)) for number in range(5)]
    leaves = "It is given no work, and leaves the cluster."
    told, ended = "", {}
    for event in cluster.run_units(units, [0.1] * len(units), address, Needs((), 1, 1)):
        if isinstance(event, Outcome):
            ended[event.unit] = event.problem
        elif event.text == "waits" and not told:
            lost.kill()  # all that there is to do waits for those that join now
            unfit = [start(*worker, "--no-nanny", code=code) for code in (OTHER, NUMPY)]
            unfit.append(start(*worker, code=LACKING))
        elif leaves in event.text:
            told += event.text
            if told.count(leaves) == len(unfit):
                (tmp_path / "gate").touch()
                good = start(*worker, "--no-nanny")
    assert ended == dict.fromkeys((unit.name for unit in units), "")
    assert {path.read_text() for path in tmp_path.glob("u-*")} == {str(good.pid)}
    assert f"has version 0.0.1 of bids-qsm, and this run is of {__version__}" in told
    assert "has version 1.0 of numpy, and this run is of" in told
    assert "has no bids-qsm, and this run is of" in told
    await_that(lambda: all(one.poll() is not None for one in unfit))
