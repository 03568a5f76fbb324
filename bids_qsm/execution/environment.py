"""What the process needs from its surroundings: threads and cache folders.

This must run before numpy, numba or ants are imported: they read these variables once.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from bids_qsm.errors import UnwritableOutputError

_SPINS_BEFORE_SLEEP = "20000"
"""Well below a millisecond."""
_CACHES = ("NUMBA_CACHE_DIR", "MPLCONFIGDIR")


def prepare_environment(threads: int, seed: int = 1) -> None:
    """Set thread counts and writable cache folders for this process and its children.

    A container may have no HOME and a read-only root.  numba refuses a cache that it cannot
    write, so caches that come read-only with the image are copied to a private folder, which is
    removed at the end.  ITK runs on one thread, as its results depend on the number.

    Parameters
    ----------
    threads : int
        Threads of BLAS, OpenMP and numba.
    seed : int
        Of the registrations; ANTs takes 0 as the time of day.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads)
    # threads of numba that wait for long would take the cores from those of the Fourier transform;
    # those that went to sleep at once would have to be woken for the next of many short kernels
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS_BEFORE_SLEEP)
    os.environ["ANTS_RANDOM_SEED"] = str(seed)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    folders = {name: Path(os.environ[name]) for name in _CACHES if os.environ.get(name)}
    read_only = {name: folder for name, folder in folders.items() if _is_read_only(folder)}
    home = Path(os.environ.get("HOME", "/nonexistent"))
    homeless = not home.is_dir() or _is_read_only(home)
    if not (read_only or homeless):
        return
    private = _private_folder()
    if homeless:
        os.environ["HOME"] = str(private)
    for name, folder in read_only.items():
        shutil.copytree(folder, private / name, copy_function=shutil.copyfile)
        os.environ[name] = str(private / name)


def _is_read_only(folder: Path) -> bool:
    return folder.is_dir() and not os.access(folder, os.W_OK)


def _private_folder() -> Path:
    """Return a temporary folder of this process alone, which is removed when it ends."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="bids_qsm-"))
    except OSError as error:
        raise UnwritableOutputError(
            f"no temporary folder can be written ({error.strerror}): point TMPDIR to one that can, "
            "or give the container one (docker run --tmpfs /tmp)."
        ) from None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
