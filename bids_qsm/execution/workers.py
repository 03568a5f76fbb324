"""Which workers of a Dask cluster can do the work: those of the installation of the run."""

from __future__ import annotations

import pkgutil
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distributed import Client, Worker

from bids_qsm import __version__
from bids_qsm.errors import BidsQsmError

LONGEST_LOOK_S = 20
LONGEST_ANSWER_S = 20
_LIBRARIES = ("numpy", "scipy", "numba", "antspyx")
"""Those whose versions decide the last digits of numbers."""
_VERSION = (pkgutil.resolve_name, "bids_qsm:__version__")
_PYTHON = (pkgutil.resolve_name, "sys:executable")
"""Of the standard library, as that is all that surely is there."""


def installation() -> dict[str, str]:
    """Return the versions that the run and all workers must have in common."""
    python = ".".join(platform.python_version_tuple()[:2])
    libraries = {name: version(name) for name in _LIBRARIES}
    return {"bids-qsm": __version__, "Python": python, **libraries}


@dataclass(frozen=True)
class Needs:
    """What each worker needs: folders it must see, threads and seed of its units, versions."""

    folders: tuple[Path, ...]
    threads: int
    seed: int
    versions: Mapping[str, str] = field(default_factory=installation)


class ClusterError(BidsQsmError):
    """The cluster cannot do the work."""


def refuse_unfit(client: Client, needs: Needs) -> None:
    """Refuse a cluster that cannot do the work; look again if a worker was lost meanwhile."""
    until = time.monotonic() + LONGEST_LOOK_S
    while True:
        try:
            there = client.run_on_scheduler(*_VERSION)
        except ImportError:
            there = None
        try:
            unfit = _unfit(client, needs)
            break
        except OSError as error:
            if time.monotonic() > until:
                raise ClusterError(
                    f"a worker of the cluster does not answer ({type(error).__name__}: {error}); "
                    "look into its log, and start the cluster again."
                ) from None
        time.sleep(1)
    if there != __version__:
        where = f"the scheduler (Python: {client.run_on_scheduler(*_PYTHON)})"
        raise ClusterError(_other(where, "bids-qsm", there, __version__))
    if unfit:
        n_workers = len(client.scheduler_info(n_workers=-1)["workers"])
        so = f" {len(unfit)} of {n_workers} workers cannot do the work."
        raise ClusterError(next(iter(unfit.values())) + so)


def send_away(client: Client, needs: Needs) -> list[str]:
    """Send workers away that cannot do the work, and return why."""
    try:
        unfit = _unfit(client, needs)
    except OSError:  # one was lost, or does not answer: the next unit that it fails looks again
        return []
    if unfit:
        client.retire_workers(list(unfit))
    return [f"{why} It is given no work, and leaves the cluster." for why in unfit.values()]


def _unfit(client: Client, needs: Needs) -> dict[str, str]:
    """Return the workers that cannot do the work, and why."""
    found = _asked(client, *_VERSION)
    same = [place for place, there in found.items() if there == __version__]
    refused = _asked(client, check, needs, workers=same) if same else {}
    unfit = {place: str(error) for place, error in refused.items() if error is not None}
    for place in found.keys() - set(same):
        where = f"the worker {place} (Python: {_asked(client, *_PYTHON, workers=[place])[place]})"
        unfit[place] = _other(where, "bids-qsm", found[place], __version__)
    return unfit


def _asked(client: Client, *words: Any, workers: list[str] | None = None) -> dict[str, Any]:
    """Return what a function says on workers, or what it raises; one that is lost is raised."""
    # one that hangs would keep the run from going on
    said: dict[str, Any] = client.sync(
        client._run, *words, workers=workers, on_error="return", callback_timeout=LONGEST_ANSWER_S
    )
    for there in said.values():
        if isinstance(there, OSError):
            raise there
    return said


def check(needs: Needs, dask_worker: Worker) -> None:
    """Refuse a worker that is not of the installation of the run, or does not see its folders."""
    where = f"the worker {dask_worker.address}"
    here = installation()
    for name, there in needs.versions.items():
        if here.get(name) != there:
            python = f"{where} (Python: {sys.executable})"
            raise ClusterError(_other(python, name, here.get(name), there))
    for folder in needs.folders:
        if not folder.is_dir():
            raise ClusterError(
                f"{folder}: {where} does not see this folder; it must have the same path there "
                "(a shared file system, or bound into the container)."
            )


def _other(where: str, name: str, there: object, here: str) -> str:
    has = f"version {there} of {name}" if isinstance(there, str) else f"no {name}"
    return (
        f"{where} has {has}, and this run is of {here}: start scheduler and workers from the same "
        "installation or image as this run."
    )
