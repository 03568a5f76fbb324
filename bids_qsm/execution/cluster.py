"""Units of work on the workers of a Dask cluster, with the events of :mod:`..execution.local`.

A worker gives each unit a fresh process of its own, as a run without a cluster does.  A worker
holds as many units at once as it has threads, and as many as fit into its memory: into what it
declares (``dask worker --resources memory_gib=12``), else into its ``--memory-limit``.  When a
worker dies, Dask's scheduler gives its unit to another one, ``allowed-failures`` times (3, unless
the scheduler's settings say otherwise).  When the run ends early, the workers end their units.
The workers that are there at the start must be of the installation of the run.  One that joins
later and is not is sent away as soon as it is given a unit, which another worker does.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
import os
import pickle
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, Future, KilledWorker, Worker, WorkerPlugin, get_worker

from bids_qsm.errors import BidsQsmError, CommandLineError, UnreadableInputError
from bids_qsm.execution import local
from bids_qsm.execution.environment import prepare_environment
from bids_qsm.execution.local import Message, Outcome, Unit
from bids_qsm.execution.workers import ClusterError, Needs, check, refuse_unfit, send_away

LONGEST_CONNECT_S = 20
LONGEST_WITHOUT_WORKERS_S = 300
MOST_TRIES = 10
_LOOK_S = 0.5
_STARTED = -1
"""Level of the event that tells which worker has a unit."""
_MEMORY = "memory_gib"
_NO_LIMIT = 2**60
_LOCK = threading.Lock()
_ALONE = "no worker has been there for minutes: start workers, and run again."


class _Memory(WorkerPlugin):
    """The memory of a worker, for all units that it has."""

    def __init__(self, worker: Worker) -> None:
        declared = _MEMORY in worker.state.total_resources  # then the scheduler sees to it
        limit = None if declared else worker.memory_manager.memory_limit
        self._limit = self._free = limit or _NO_LIMIT
        self._change = threading.Condition()

    @contextlib.contextmanager
    def held(self, gib: float) -> Iterator[None]:
        """Hold some of it, once it is free; never more than the worker has."""
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
        refuse_unfit(client, needs)
        most_gib = _declared_gib(client)
        client.subscribe_topic(topic, lambda event: events.put(event[1]))
        submit = {
            unit.name: functools.partial(_submit, client, events, unit, needs, topic, gib, most_gib)
            for unit, gib in zip(units, memory_gib, strict=True)
        }
        waiting.update({name: first() for name, first in submit.items()})
        yield from _events(client, needs, waiting, events, submit, stop_on_first_failure)
    finally:
        with contextlib.suppress(Exception):  # of a scheduler that is gone, there is nothing to end
            client.cancel(list(waiting.values()))
        client.close()


def _submit(
    client: Client,
    events: SimpleQueue[Any],
    unit: Unit,
    needs: Needs,
    topic: str,
    gib: float,
    most_gib: float | None,
    attempt: int = 0,
) -> Future:
    """Give a unit to the cluster; its name comes among the events when it has ended."""
    future = client.submit(
        pickle.loads,  # a worker that could not read its task would break off without a word
        pickle.dumps(_Call(unit, needs, topic, gib)),
        key=f"{topic}-{unit.name}-{attempt}",
        resources=None if most_gib is None else {_MEMORY: min(gib, most_gib)},
    )
    future.add_done_callback(lambda _: events.put(unit.name))
    return future


def _events(
    client: Client,
    needs: Needs,
    waiting: dict[str, Future],
    events: SimpleQueue[Any],
    submit: Mapping[str, Callable[[int], Future]],
    stop: bool,
) -> Iterator[Message | Outcome]:
    """Yield what units say and how they end, until none is left in ``waiting``."""
    started: set[str] = set()
    tries: Counter[str] = Counter()
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
        elif event in waiting and _is_of_the_worker(waiting[event]) and tries[event] < MOST_TRIES:
            tries[event] += 1
            yield from (Message(event, logging.WARNING, text) for text in send_away(client, needs))
            waiting[event] = submit[event](tries[event])
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


def _is_of_the_worker(future: Future) -> bool:
    """Return whether the worker could not do it: what a unit itself raises is in its outcome."""
    return future.status == "error" and not isinstance(future.exception(), KilledWorker)


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
    except BidsQsmError as error:  # of the worker: what the unit itself raises is in its outcome
        problem = str(error)
    except Exception as error:
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


def _declared_gib(client: Client) -> float | None:
    """Return the most memory that a worker declares; None where not all of them declare some."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    declared = [worker["resources"].get(_MEMORY) for worker in workers]
    return max(declared) if declared and None not in declared else None


@dataclass(frozen=True)
class _Call:
    """A call of :func:`_work`: reading its pickle makes it."""

    unit: Unit
    needs: Needs
    topic: str
    gib: float

    def __reduce__(self) -> tuple[Any, ...]:
        return _work, (self.unit, self.needs, self.topic, self.gib)


def _work(unit: Unit, needs: Needs, topic: str, gib: float) -> Outcome:
    """Run a unit on a worker, once there is memory for it; its messages go to the topic."""
    worker = get_worker()
    key = str(worker.get_current_task())
    check(needs, worker)
    with _LOCK:
        prepare_environment(needs.threads, needs.seed)
        # Dask's workers are daemons, which multiprocessing lets have no children
        multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
        memory = worker.plugins.setdefault(_MEMORY, _Memory(worker))
    with memory.held(gib):
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
