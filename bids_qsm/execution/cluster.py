"""Units of work on the workers of a Dask cluster, with the events of :mod:`..execution.local`.

A worker gives each unit a fresh process of its own, as a run without a cluster does.  A worker
holds as many units at once as it has threads, and as many as fit into its memory: into what it
declares (``dask worker --resources memory_gib=12``), else into its ``--memory-limit``.  When a
worker dies, Dask's scheduler gives its unit to another one, ``allowed-failures`` times (3, unless
the scheduler's settings say otherwise).  When the run ends early, the workers end their units.
The workers that are there at the start must be of the installation of the run.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pkgutil
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, Future, KilledWorker, Worker, WorkerPlugin, get_worker

from bids_qsm import __version__
from bids_qsm.errors import BidsQsmError, CommandLineError, UnreadableInputError
from bids_qsm.execution import local
from bids_qsm.execution.environment import prepare_environment
from bids_qsm.execution.local import Message, Outcome, Unit

LONGEST_CONNECT_S = 20
LONGEST_END_S = 10
LONGEST_WITHOUT_WORKERS_S = 300
_LOOK_S = 0.5
_STARTED = -1
"""Level of the event that tells which worker has a unit."""
_MEMORY = "memory_gib"
_NO_LIMIT = 2**60
_ALONE = "no worker has been there for minutes: start workers, and run again."


@dataclass(frozen=True)
class Needs:
    """What each worker needs: folders it must see, and threads and seed of its units."""

    folders: tuple[Path, ...]
    threads: int
    seed: int


class ClusterError(BidsQsmError):
    """The cluster cannot do the work."""


class _Preparation(WorkerPlugin):
    """Prepares a worker, also one that joins later, or refuses it."""

    def __init__(self, needs: Needs, name: str, unit: str) -> None:
        self.name = name
        self._needs = needs
        self._unit = unit
        self._version = __version__

    async def setup(self, worker: Worker) -> None:
        try:
            self._check(worker)
        except ClusterError as error:  # of one that joins later, Dask tells nobody else
            worker.log_event(self.name, (self._unit, logging.WARNING, f"{error}"))
            raise
        prepare_environment(self._needs.threads, self._needs.seed)
        # Dask's workers are daemons, which multiprocessing lets have no children
        multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
        declared = _MEMORY in worker.state.total_resources  # then the scheduler sees to it
        limit = None if declared else worker.memory_manager.memory_limit
        self._limit = self._free = limit or _NO_LIMIT
        self._change = threading.Condition()

    def _check(self, worker: Worker) -> None:
        if self._version != __version__:
            raise ClusterError(
                f"the worker {worker.address} has version {__version__} of bids-qsm, and this run "
                f"is of {self._version}: start the workers from the same installation or image."
            )
        for folder in self._needs.folders:
            if not folder.is_dir():
                raise ClusterError(
                    f"{folder}: the worker {worker.address} does not see this folder; it must "
                    "have the same path there (a shared file system, or bound into the container)."
                )

    @contextlib.contextmanager
    def memory(self, gib: float) -> Iterator[None]:
        """Hold memory of this worker, once it is free; never more than the worker has."""
        n_bytes = min(int(gib * 2**30), self._limit)
        with self._change:
            self._change.wait_for(lambda: self._free >= n_bytes)
            self._free -= n_bytes
        try:
            yield
        finally:
            with self._change:
                self._free += n_bytes
                self._change.notify_all()


def run_units(
    units: Sequence[Unit],
    memory_gib: Sequence[float],
    where: str,
    needs: Needs,
    *,
    stop_on_first_failure: bool = False,
) -> Iterator[Message | Outcome]:
    """Run units on the workers of a cluster and report as they go on.

    Parameters
    ----------
    units : sequence of Unit
    memory_gib : sequence of float
        Estimated peak memory of each unit; one that no worker has goes alone to the largest.
    where : str
        Address of the scheduler, or its file.
    needs : Needs
    stop_on_first_failure : bool
        Start no further unit once one has failed.

    Yields
    ------
    Message or Outcome
        Messages of running units; one outcome for each unit that was started.

    Raises
    ------
    ClusterError, UnreadableInputError
        If the scheduler cannot be reached, or a worker cannot do the work.
    """
    # what a user can act on is said by sentences
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    client = _connect(where)
    topic = f"bids-qsm-{secrets.token_hex(8)}"
    waiting: dict[str, Future] = {}
    events: SimpleQueue[Any] = SimpleQueue()
    try:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            yield Message(units[0].name, logging.WARNING, f"waits for workers to join {where}")
            client.wait_for_workers(1)
        _prepare(client, _Preparation(needs, topic, units[0].name))
        most_gib = _declared_gib(client)
        client.subscribe_topic(topic, lambda event: events.put(event[1]))
        for unit, gib in zip(units, memory_gib, strict=True):
            future = client.submit(
                _work,
                unit,
                topic,
                gib,
                key=f"{topic}-{unit.name}",
                resources=None if most_gib is None else {_MEMORY: min(gib, most_gib)},
            )
            waiting[unit.name] = future
            future.add_done_callback(lambda _, name=unit.name: events.put(name))
        yield from _events(client, waiting, events, stop_on_first_failure)
    finally:
        with contextlib.suppress(Exception):  # of a scheduler that is gone, there is nothing to end
            client.cancel(list(waiting.values()))
            # a worker that hangs would keep the run from ending
            client.sync(
                client.scheduler.unregister_worker_plugin,
                name=topic,
                callback_timeout=LONGEST_END_S,
            )
        client.close()


def _events(
    client: Client, waiting: dict[str, Future], events: SimpleQueue[Any], stop: bool
) -> Iterator[Message | Outcome]:
    """Yield what units say and how they end, until none is left in ``waiting``."""
    started: set[str] = set()
    last_seen_s = time.monotonic()
    while waiting:
        try:
            event = events.get(timeout=_LOOK_S)
        except Empty:
            if _has_workers(client):
                last_seen_s = time.monotonic()
            elif time.monotonic() - last_seen_s > LONGEST_WITHOUT_WORKERS_S:
                client.cancel(list(waiting.values()))
                yield from (Outcome(name, _ALONE, "", 0.0, 0.0) for name in waiting)
                return
            continue
        if not isinstance(event, str):
            name, level, text = event
            if level != _STARTED:
                yield Message(name, level, text)
            elif name in started:
                lost = f"the worker that was at work on it was lost: it is done again, by {text}"
                yield Message(name, logging.WARNING, lost)
            started.add(name)
        elif event in waiting:
            outcome = _outcome(event, waiting.pop(event))
            yield outcome
            if outcome.problem and stop:
                idle = {name: waiting.pop(name) for name in set(waiting) - started}
                client.cancel(list(idle.values()))


def _has_workers(client: Client) -> bool:
    """Return whether a worker is there, as far as is known; a lost scheduler cancels all units."""
    try:
        return bool(client.scheduler_info(n_workers=-1)["workers"])
    except (OSError, TimeoutError):
        return True


def _outcome(name: str, future: Future) -> Outcome:
    try:
        outcome: Outcome = future.result()
        return outcome
    except KilledWorker as error:
        problem = (
            f"{error.allowed_failures + 1} workers died one after the other while at work on it "
            "(the memory may have run out: give the workers more, or fewer threads)."
        )
    except CancelledError:
        problem = "the scheduler was lost, or has cancelled it: start the cluster, and run again."
    except Exception as error:  # of the cluster: what the unit itself raises is in its outcome
        problem = f"the cluster could not run it ({type(error).__name__}: {error})."
    return Outcome(name, problem, "", 0.0, 0.0)


def _connect(where: str) -> Client:
    """Return a client of the scheduler at an address or named by a file."""
    file = Path(where)
    is_file = file.is_file()
    if not is_file and "://" not in where and (file.suffix == ".json" or "/" in where):
        raise UnreadableInputError(f"--executor dask:{where}: there is no such scheduler file.")
    at: Mapping[str, str] = {"scheduler_file": where} if is_file else {"address": where}
    try:
        return Client(**at, timeout=LONGEST_CONNECT_S, set_as_default=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ClusterError(
            f"--executor dask:{where}: the scheduler cannot be reached ({reason}); is it running, "
            "and may this machine connect to it?"
        ) from None


def _check_versions(client: Client) -> None:
    """Refuse a scheduler or a worker without this version of bids-qsm, before it is sent any."""
    # functions of the standard library, as that is all that surely is there
    version = (pkgutil.resolve_name, "bids_qsm:__version__")
    found = client.run(*version, on_error="return")
    lost = [there for there in found.values() if isinstance(there, OSError)]
    if lost:
        raise lost[0]
    try:
        found["scheduler"] = client.run_on_scheduler(*version)
    except ImportError as error:
        found["scheduler"] = error
    wrong = [place for place, there in found.items() if there != __version__]
    if not wrong:
        return
    place, there = wrong[0], found[wrong[0]]
    python = (pkgutil.resolve_name, "sys:executable")
    if place == "scheduler":
        where = f"the scheduler (Python: {client.run_on_scheduler(*python)})"
    else:
        where = f"the worker {place} (Python: {client.run(*python, workers=[place])[place]})"
    has = f"has version {there} of bids-qsm" if isinstance(there, str) else "has no bids-qsm"
    raise ClusterError(
        f"{where} {has}, and this run is of {__version__}; {len(wrong)} of {len(found)} processes "
        "of the cluster are so: start them all from the same installation or image as this run."
    )


def _prepare(client: Client, preparation: _Preparation) -> None:
    """Prepare all workers; once more if one of them was lost meanwhile."""
    until = time.monotonic() + LONGEST_CONNECT_S
    while True:
        try:
            _check_versions(client)
            client.register_plugin(preparation)
            return
        except BidsQsmError:
            raise
        except Exception as error:
            if not isinstance(error, OSError) or time.monotonic() > until:
                raise ClusterError(
                    f"a worker of the cluster cannot be prepared ({type(error).__name__}: {error})"
                    "; look into its log, and start the cluster again."
                ) from None
        time.sleep(1)


def _declared_gib(client: Client) -> float | None:
    """Return the most memory that a worker declares; None where not all of them declare some."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    declared = [worker["resources"].get(_MEMORY) for worker in workers]
    return max(declared) if declared and None not in declared else None


def _work(unit: Unit, topic: str, gib: float) -> Outcome:
    """Run a unit on a worker, once there is memory for it; its messages go to the topic."""
    worker = get_worker()
    key = worker.get_current_task()
    with worker.plugins[topic].memory(gib):
        if _is_cancelled(worker, key):
            return Outcome(unit.name, "it was cancelled.", "", 0.0, 0.0)
        worker.log_event(topic, (unit.name, _STARTED, worker.address))
        return _in_process(unit, topic, worker, key)


def _is_cancelled(worker: Worker, key: str) -> bool:
    task = worker.state.tasks.get(key)
    return task is None or task.state == "cancelled"


def _in_process(unit: Unit, topic: str, worker: Worker, key: str) -> Outcome:
    process = local.start_worker()
    done = threading.Event()

    def end_when_cancelled() -> None:
        while not done.wait(_LOOK_S):
            if _is_cancelled(worker, key):
                process.process.terminate()
                return

    threading.Thread(target=end_when_cancelled, daemon=True).start()
    try:
        for event in local.run_units([unit], 1, ready=process):
            if isinstance(event, Outcome):
                return event
            worker.log_event(topic, (event.unit, event.level, event.text))
    finally:
        done.set()
    raise CommandLineError(f"{unit.name}: ended without an outcome on {os.uname().nodename}.")
