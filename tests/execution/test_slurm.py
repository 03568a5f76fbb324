"""The scripts for SLURM, on a real SLURM of one node."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bids_qsm.cli import main
from tests.analyses.tiny import make
from tests.execution.scripts import filled_in
from tests.execution.slurm import ask, await_jobs, cluster, state
from tests.one_process import one_process
from tests.tiny import contents, tiny_series

pytestmark = pytest.mark.slow

QUICK = '[[analysis]]\nname = "sizes"\nkind = "power"\n'


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    with cluster() as env:
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
        env["OMP_WAIT_POLICY"] = "PASSIVE"
        yield env


@dataclass(frozen=True)
class Study:
    """A folder with a dataset, and what a run without SLURM makes of its first subject."""

    folder: Path
    plain: dict[str, object]

    def script(self, name: str, **values: str) -> Path:
        """Write a script for this study; without an image."""
        own = {"cpus_per_task": "1", "DATASET": "bids", "IMAGE": ""}
        return filled_in(self.folder, name, **own, **values)


def of_subject(subject: str, out: Path) -> dict[str, object]:
    return {name: held for name, held in contents(out).items() if f"sub-{subject}" in name}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """Two subjects to process; ten more with outputs, so that the group level has some."""
    folder = tmp_path_factory.mktemp("a study")
    cohort = make(folder, n_each=5, n_sessions=1)
    (folder / "quick.toml").write_text(QUICK)
    for subject in ("a1", "a2"):
        tiny_series(cohort.bids, subject)
    words = [str(cohort.bids), str(folder / "plain"), "participant", "--participant-label", "a1"]
    with one_process():
        assert main(words) == 0
    return Study(folder, of_subject("a1", folder / "plain"))


def await_that(is_so: Callable[[], object], longest_s: float = 120) -> None:
    until = time.monotonic() + longest_s
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


def await_field(out: Path) -> None:
    """Wait until the first subject is at work on its field."""
    log = out / "logs" / "sub-a1_log.txt"
    await_that(lambda: log.exists() and "field" in log.read_text())


def worker_of(name: str, out: Path) -> int:
    """Return the worker whose child holds a series."""
    pid = (out / ".locks" / name).read_text().split()[1]
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def processes_with(folder: Path) -> list[int]:
    """Return the processes that have a folder in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is another's
            if os.fsencode(folder) in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def submit(script: Path, *words: str, env: dict[str, str]) -> tuple[str, str]:
    """Submit the array and the group level, and return their jobs."""
    said = subprocess.run(
        ["bash", script, *words],
        env=env,
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return said.partition("jobs ")[2].partition("_")[0], said.rstrip(".\n").rpartition(" ")[2]


def test_array_takes_up_what_is_left_and_the_group_level_follows(slurm, study: Study) -> None:
    folder, out = study.folder, study.folder / "out"
    script = study.script(
        "slurm-array.sh",
        mem="1500M",
        OUTPUT="out",
        GROUP="(--atlas tiny.nii.gz --model quick.toml)",
        GROUP_JOB="(--mem=2G)",
    )
    (folder / "list.txt").write_text("a1\nsub-a2\n")
    array, group = submit(script, "list.txt", env=slurm)
    await_field(out)
    ask(slurm, "scancel", "--signal=KILL", "--full", f"{array}_1")
    await_jobs(slurm)
    assert state(slurm, f"{array}_2") == "COMPLETED"
    assert state(slurm, group) == "CANCELLED"
    assert not (out / "sub-a1.html").exists()
    second = (out / "logs" / "sub-a2_record.json").stat()

    array, group = submit(script, "list.txt", env=slurm)
    await_jobs(slurm)
    said = [(folder / f"slurm-{array}_{number}.out").read_text() for number in (1, 2)]
    assert "Series: 1 processed." in said[0]
    assert "Series: 0 processed, 1 already done." in said[1]
    assert (out / "logs" / "sub-a2_record.json").stat().st_mtime_ns == second.st_mtime_ns
    assert state(slurm, group) == "COMPLETED", (folder / f"slurm-{group}.out").read_text()
    assert (out / "group.html").exists()
    assert study.plain == of_subject("a1", out)
    assert sum(name.endswith(".nii.gz") for name in study.plain) >= 5


@pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="needs Dask: pip install bids-qsm[dask]"
)
def test_dask_in_a_job_survives_a_worker_and_ends_with_the_run(slurm, study: Study) -> None:
    folder, out = study.folder, study.folder / "of dask"
    script = study.script(
        "slurm-dask.sh",
        ntasks="2",
        mem_per_cpu="2G",
        OUTPUT="'of dask'",
        PARTICIPANT="(--participant-label a1 a2)",
    )
    job = subprocess.run(
        ["sbatch", "--parsable", f"--chdir={folder}", script],
        env=slurm,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    await_field(out)
    key = next(folder.glob("dask-*/key.pem"))
    assert key.parent.stat().st_mode & 0o077 == 0
    os.kill(worker_of("sub-a1", out), signal.SIGKILL)
    assert processes_with(key.parent)
    await_jobs(slurm)
    said = (folder / f"slurm-{job}.out").read_text()
    assert state(slurm, job) == "COMPLETED", said
    assert "Series: 2 processed." in said
    assert "was lost: it is done again" in said
    assert study.plain == of_subject("a1", out)
    assert not key.parent.exists()
    assert processes_with(key.parent) == []
