"""Units of work for the workers of a cluster, which import this and nothing heavy."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from bids_qsm.errors import UnreadableInputError

TELL = Callable[[str], None]


def succeed(path: str, tell: TELL) -> None:
    tell("only step")
    logging.getLogger("bids_qsm.test").warning("a warning")
    Path(path).write_text(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}")


def refuse(tell: TELL) -> None:
    raise UnreadableInputError("x.nii.gz: is damaged.")


def kill_worker_once(path: str, tell: TELL) -> None:
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)


def kill_worker(tell: TELL) -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def count(folder: str, tell: TELL) -> None:
    """Write how many units this worker has at the same time."""
    mine = Path(folder) / f"{os.getppid()}-{os.getpid()}"
    mine.touch()
    time.sleep(0.3)
    at_once = len(list(mine.parent.glob(f"{os.getppid()}-*")))
    mine.rename(mine.with_name(f"done-{os.getpid()}")).write_text(str(at_once))


def stay(path: str, tell: TELL) -> None:
    Path(path).write_text(str(os.getpid()))
    tell("stays")
    time.sleep(60)


def wait_for(path: str, tell: TELL) -> None:
    tell("waits")
    until = time.monotonic() + 60
    while not Path(path).exists() and time.monotonic() < until:
        time.sleep(0.05)


def note_where(folder: str, tell: TELL) -> None:
    """Write which worker this unit is of."""
    (Path(folder) / f"u-{os.getpid()}").write_text(str(os.getppid()))
