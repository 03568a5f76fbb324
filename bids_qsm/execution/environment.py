"""What the process needs from its surroundings: threads, cache folders, cores and memory.

This must run before numpy, numba or ants are imported: they read these variables once.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def prepare_environment(threads: int) -> None:
    """Set thread counts and writable cache folders for this process and its children.

    A container may have no HOME and a read-only root: whatever the user has not set is pointed
    to the temporary folder.  ITK runs on one thread, as its results depend on the number.

    Parameters
    ----------
    threads : int
        Threads of BLAS, OpenMP and numba.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    scratch = Path(tempfile.gettempdir()) / f"bids_qsm-{os.getuid()}"
    if not _is_writable(Path(os.environ.get("HOME", "/nonexistent"))):
        os.environ["HOME"] = str(scratch)
    os.environ.setdefault("MPLCONFIGDIR", str(scratch / "matplotlib"))
    if not os.access(Path(__file__).parents[1] / "numerics", os.W_OK):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(scratch / "numba"))


def _is_writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK)


def available_cpus() -> int:
    """Return the number of cores this process may use, a container's limit included."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        limit = cpus if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no cgroup v2 here: only the affinity is known
        return cpus
    return min(cpus, limit)


def available_memory_gib() -> float:
    """Return the memory that is free for this process, a container's limit included."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = {line.split(":")[0]: line.split()[1] for line in lines}
    free = int(fields["MemAvailable"]) / 2**20
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        return free if limit == "max" else min(free, (int(limit) - used) / 2**30)
    except (OSError, ValueError):
        return free
