"""Units of work in processes of their own, several at a time.

Each unit has a fresh interpreter (spawn: ITK does not survive fork), so that memory is given back
and a killed process harms no other unit.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import multiprocessing
import os
import resource
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from bids_qsm.errors import BidsQsmError

LONGEST_END_S = 20.0


@dataclass(frozen=True)
class Unit:
    """One piece of work: a module-level function and its arguments, all picklable.

    ``memory_gib`` is what it is estimated to need at most.  ``early``, where there is one, reads
    what the work begins with; the function is then given an :class:`Early` after its arguments.
    """

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    memory_gib: float = 0.0
    early: Callable[[], Any] | None = None


class Early:
    """What a unit begins with: it is read when it is asked for, or before, in a thread."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._begun: Future[Any] | None = None

    def begin(self) -> None:
        """Read in a thread from now on."""
        if self._unit.early is not None:
            thread = ThreadPoolExecutor(1)
            self._begun = thread.submit(self._unit.early)
            thread.shutdown(wait=False)

    def is_of(self, unit: Unit) -> bool:
        """Return whether it belongs to a unit."""
        return self._unit.name == unit.name

    def take(self) -> Any:
        """Return what was read, and keep nothing of it; what reading raised is raised here."""
        assert self._unit.early is not None
        begun, self._begun = self._begun, None
        return self._unit.early() if begun is None else begun.result()


@dataclass(frozen=True)
class Message:
    """What a unit says while it runs: a step's name (level 0), or a log line with its level."""

    unit: str
    level: int
    text: str


@dataclass(frozen=True)
class Outcome:
    """How a unit ended; ``problem`` is a sentence, or empty; ``details`` a traceback, or empty."""

    unit: str
    problem: str
    details: str
    seconds: float
    peak_mib: float


@dataclass(frozen=True)
class Worker:
    """A process that waits for its unit."""

    process: SpawnProcess
    units: Connection
    events: Connection

    def await_preparation(self, unit: Unit | None = None) -> None:
        """Wait until the process is ready; what its preparation refused is raised here.

        Parameters
        ----------
        unit : Unit, optional
            The one that the process will be given: its early part may begin meanwhile.
        """
        # a killed one: the outcome of its unit will tell
        with contextlib.suppress(EOFError, BrokenPipeError):
            self.units.send(unit)
            refusal = self.events.recv()
            if refusal is not None:
                raise refusal

    def dismiss(self) -> None:
        """End the process without a unit."""
        self.process.terminate()
        _end(self.process)


def start_worker(prepare: Callable[..., None] | None = None, *arguments: Any) -> Worker:
    """Start a process that waits for its unit.

    Parameters
    ----------
    prepare : callable, optional
        A module-level function of a module that is quickly imported.  It is called while the
        process has nothing else to do, to import what all units need;
        :meth:`Worker.await_preparation` tells how it went, and must be called before the process
        is given its unit.
    *arguments
        Of ``prepare``; a function follows that it is to call once all is imported that the early
        part of a unit needs: that runs in a thread from then on, and must import nothing more.
    """
    context = multiprocessing.get_context("spawn")
    unit_receiver, unit_sender = context.Pipe(duplex=False)
    event_receiver, event_sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(prepare, arguments, unit_receiver, event_sender))
    process.start()
    unit_receiver.close()
    event_sender.close()
    return Worker(process, unit_sender, event_receiver)


def run_units(
    units: Sequence[Unit],
    workers: int,
    *,
    limit_gib: float = math.inf,
    stop_on_first_failure: bool = False,
    ready: Worker | None = None,
) -> Iterator[Message | Outcome]:
    """Run units in processes, at most ``workers`` at a time, and report as they go on.

    Parameters
    ----------
    units : sequence of Unit
    workers : int
    limit_gib : float
        What those that run may need together: a unit starts once there is room for it, and those
        behind it that are small enough go first.  A larger one runs alone.
    stop_on_first_failure : bool
        Start no further unit once one has failed.
    ready : Worker, optional
        A process that was started before; the first unit is given to it.

    Yields
    ------
    Message or Outcome
        Messages of running units; one outcome for each unit that was started.
    """
    waiting = list(units)
    running: dict[Connection, tuple[Unit, SpawnProcess, float]] = {}
    try:
        while waiting or running:
            while len(running) < workers:
                unit = _next(waiting, [unit for unit, _, _ in running.values()], limit_gib)
                if unit is None:
                    break
                worker, ready = ready or start_worker(), None
                with contextlib.suppress(BrokenPipeError):  # a killed one: reading from it tells
                    worker.units.send(unit)
                worker.units.close()
                running[worker.events] = (unit, worker.process, time.perf_counter())
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                event = _receive(connection, *running[connection])
                if isinstance(event, Outcome):
                    _end(running.pop(connection)[1])
                    if event.problem and stop_on_first_failure:
                        waiting.clear()
                yield event
    finally:
        for _, process, _ in running.values():
            process.terminate()
            _end(process)


def _next(waiting: list[Unit], running: Sequence[Unit], limit_gib: float) -> Unit | None:
    """Take the first unit that there is room for from those that wait."""
    free_gib = limit_gib - sum(unit.memory_gib for unit in running)
    for place, unit in enumerate(waiting):
        if unit.memory_gib <= free_gib or not running:
            return waiting.pop(place)
    return None


def _end(process: SpawnProcess) -> None:
    """Wait for a process that has nothing more to say; one that hangs at its end is killed."""
    process.join(LONGEST_END_S)
    if process.is_alive():
        process.kill()
        process.join()


def _receive(
    connection: Connection, unit: Unit, process: SpawnProcess, started: float
) -> Message | Outcome:
    """Return what the unit sent; a pipe that closed without an outcome is a killed process."""
    try:
        event: Message | Outcome = connection.recv()
        return event
    except EOFError:
        _end(process)
        code = process.exitcode or 0
        cause = (
            f"its process was killed by signal {-code}"
            + (
                " (the memory may have run out: lower --nprocs, or allow more)"
                if code == -9
                else ""
            )
            if code < 0
            else f"its process ended early with status {code}"
        )
        return Outcome(unit.name, f"{cause}.", "", time.perf_counter() - started, 0.0)


def _child(
    prepare: Callable[..., None] | None,
    arguments: tuple[Any, ...],
    units: Connection,
    sender: Connection,
) -> None:
    _end_with_parent()
    begun: list[Early] = []

    def begin() -> None:
        unit = units.recv()
        if unit is not None:
            begun.append(Early(unit))
            begun[0].begin()

    try:
        if prepare is not None:
            try:
                prepare(*arguments, begin)
                sender.send(None)
            except BidsQsmError as refusal:
                sender.send(refusal)
                return
        unit = units.recv()
    except (EOFError, KeyboardInterrupt):
        return  # there is nothing to do
    early = next((early for early in begun if early.is_of(unit)), Early(unit))
    started = time.perf_counter()
    root = logging.getLogger("bids_qsm")
    root.setLevel(logging.DEBUG)
    root.addHandler(_PipeHandler(unit.name, sender))
    problem = details = ""
    try:
        given = unit.arguments if unit.early is None else (*unit.arguments, early)
        unit.function(*given, lambda step: sender.send(Message(unit.name, 0, step)))
    except BidsQsmError as error:
        problem = str(error)
    except MemoryError:
        problem = "the memory ran out: allow more with --mem-gb, or run fewer at once (--nprocs)."
        details = traceback.format_exc()
    except OSError as error:
        problem = _sentence(error)
        details = traceback.format_exc()
    except Exception as error:  # the last resort of a whole unit: others must go on
        problem = f"a fault in the program ({type(error).__name__}: {error})."
        details = traceback.format_exc()
    seconds = time.perf_counter() - started
    sender.send(Outcome(unit.name, problem, details, seconds, peak_memory_mib()))


def _end_with_parent() -> None:
    """Let this process die when the run that started it has died: nobody waits for its work."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _sentence(error: OSError) -> str:
    """Return what the system refused, for the user."""
    where = f"{error.filename}: " if error.filename else ""
    if isinstance(error, FileNotFoundError):
        return f"{where}there is no such file: it was there before, and has vanished."
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{where}it cannot be written ({error.strerror}): free some space, and run again."
    return f"{where}the system refused it ({error.strerror or error})."


def peak_memory_mib() -> float:
    """Return the highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _PipeHandler(logging.Handler):
    """Sends log lines to the parent process."""

    def __init__(self, unit: str, sender: Connection) -> None:
        super().__init__()
        self._unit = unit
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        self._sender.send(Message(self._unit, record.levelno, record.getMessage()))
