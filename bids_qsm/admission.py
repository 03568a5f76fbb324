"""How many series run at once, and which are too large: what each needs of memory is estimated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bids_qsm.bids.acquisition import read_grid
from bids_qsm.bids.derivatives import find_ct
from bids_qsm.bids.inputs import Series
from bids_qsm.errors import UnreadableInputError
from bids_qsm.limits import available_memory_gib
from bids_qsm.settings import Settings

FIXED_GIB = 0.7
"""The interpreter, libraries, and the kernels while they are compiled."""
ANATOMY_GIB = 1.5
"""Registration and labels on the template's grid of 1 mm."""
BYTES_OF_T1W_VOXEL = 32
BYTES_OF_CT_VOXEL = 16
"""A CT with slope and intercept is double, then single precision, then integers."""


@dataclass(frozen=True)
class Plan:
    """How many processes run at once, and the threads of each.

    Attributes
    ----------
    workers, threads : int
    memory_gib : tuple of float
        Estimated peak of each series.
    limit_gib : float
        What those that run at once may need together.
    """

    workers: int
    threads: int
    memory_gib: tuple[float, ...] = ()
    limit_gib: float = math.inf


def planned_workers(series: Sequence[Series], settings: Settings) -> Plan:
    """Return how many series run at once, as cores and memory allow.

    The memory decides anew whenever a series ends (:func:`bids_qsm.execution.local.run_units`);
    here it only decides into how many threads the cores are divided.
    """
    if not series:
        return Plan(1, settings.omp_nthreads or settings.nprocs)
    memory_gib = tuple(needed_memory_gib(s, settings) for s in series)
    if settings.executor != "local":
        return Plan(len(series), settings.omp_nthreads or 1, memory_gib)
    limit_gib = settings.mem_gb or available_memory_gib()
    usual_gib = sum(memory_gib) / len(memory_gib)
    at_once = min(len(series), max(1, int(limit_gib / usual_gib)), settings.nprocs)
    threads = settings.omp_nthreads or max(1, settings.nprocs // at_once)
    workers = max(1, min(len(series), settings.nprocs // threads))
    return Plan(workers, threads, memory_gib, limit_gib)


def too_large(series: Series, settings: Settings) -> str:
    """Return why a series cannot be processed with the memory that is given, or nothing."""
    limit_gib = settings.mem_gb or math.inf
    needed_gib = needed_memory_gib(series, settings)
    if needed_gib <= limit_gib:
        return ""
    return (
        f"{series.files[0]}: the series needs some {needed_gib:.2g} GiB of memory, more than "
        f"--mem-gb {limit_gib:g} allows; allow more."
    )


def needed_memory_gib(series: Series, settings: Settings) -> float:
    """Return an estimate of the peak memory of one series.

    All echoes of magnitude, phase and unwrapped phase are held at once, then some 40 volumes of
    single precision for the inversion on a padded grid.  With a T1w image, some 20 volumes are
    held when its registration, or a CT, takes most.
    """
    volume = 4 * math.prod(series.shape)
    maps = volume * (4 * len(series.te_s) + 40)
    if series.t1w is None:
        return FIXED_GIB + maps / 2**30
    held = 20 * volume + BYTES_OF_T1W_VOXEL * _voxels(series.t1w)
    if "dbs" in settings.extra_steps:
        held += BYTES_OF_CT_VOXEL * _voxels(_ct(series, settings))
    return FIXED_GIB + max(maps / 2**30, ANATOMY_GIB + held / 2**30)


def _ct(series: Series, settings: Settings) -> Path | None:
    try:
        return find_ct(settings, series)
    except UnreadableInputError:  # the step that reads it will say why
        return None


def _voxels(path: Path | None) -> int:
    try:
        return 0 if path is None else math.prod(read_grid(path).shape)
    except UnreadableInputError:
        return 0
