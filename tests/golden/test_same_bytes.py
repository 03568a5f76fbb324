"""The same bytes for any number of threads and processes.

Beside this: a Dask cluster (tests/execution/test_cluster.py), equal subjects
(tests/test_participant.py), the group level twice (tests/test_group.py), registration on other
numbers of threads (tests/anatomy/test_warp.py), and the simulator (tests/phantom/test_dataset.py).
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.tiny import tiny_dataset

TAKES = {"seconds", "peak_mib", "run"}
"""What a record says of time, memory and surroundings."""


def run(bids: Path, out: Path, *words: str) -> dict[str, object]:
    """Run the program as a user does, and return what it wrote of the first subject and of all."""
    variables = ("OMP", "OPENBLAS", "MKL", "NUMBA")
    surroundings = {k: v for k, v in os.environ.items() if k.split("_NUM_")[0] not in variables}
    command = [sys.executable, "-m", "bids_qsm", str(bids), str(out), "participant", *words]
    subprocess.run(command, check=True, env=surroundings, capture_output=True, timeout=600)
    files = (
        path
        for path in sorted(out.rglob("*"))
        if path.is_file() and "sub-02" not in path.as_posix()
    )
    return {path.relative_to(out).as_posix(): content(path) for path in files}


def content(path: Path) -> object:
    """Return the bytes of a file, unpacked; of a record, what does not tell of time and memory."""
    if path.name.endswith("_record.json"):
        return without_times(json.loads(path.read_text()))
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    timed = path.suffix == ".html" or path.name.endswith("_log.txt")
    return "" if timed else path.read_bytes()


def without_times(told: object) -> object:
    if isinstance(told, dict):
        return {key: without_times(value) for key, value in told.items() if key not in TAKES}
    return [without_times(value) for value in told] if isinstance(told, list) else told


def test_any_number_of_threads_and_processes_gives_the_same_bytes(tmp_path: Path) -> None:
    bids = tiny_dataset(tmp_path / "bids", ("01", "02"))
    alone = ("--participant-label", "01", "--nprocs", "1", "--omp-nthreads", "1")
    one = run(bids, tmp_path / "one", *alone)
    other = run(bids, tmp_path / "other", "--nprocs", "2", "--omp-nthreads", "4")
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
    assert sum(name.endswith(".nii.gz") for name in one) >= 10
    assert sum(name.endswith(".png") for name in one) >= 5
