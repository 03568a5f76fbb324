"""What hundreds of subjects cost: time, processor, memory, files, of each part of a study.

    python -m tests.benchmarks.scale FOLDER --subjects 50 100 200 [--nprocs 2] [--one-process]

For each number of subjects a dataset is made in FOLDER: four-echo series of some 30 x 39 x 31
voxels, hard links of a few simulated heads.  The program is started on it as a user does: index
alone (``--dry-run``), participant level, the same again when all is finished (resume), group level.

Labels need a T1w image, whose registration takes two minutes for any size: the series have none.
What the group level reads of structures is that of one head with a T1w image, which is processed
once, with values that differ between subjects; there are no maps for it.  Nothing is asserted;
parts that are there are not made again.

A process of its own for each series takes some 2 s of a processor to start and import what it
needs, whatever the series' size, and pictures as much again.  With ``--one-process`` the
participant level is a fork of this process, which has imported all, does one series after the other
in it, and draws no pictures: many subjects in little time.  All else, locks, records, pages and the
display, is as ever.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from bids_qsm.bids.dataset import prepare_output_dir
from bids_qsm.bids.naming import record_path
from bids_qsm.bids.publishing import encode_table, write_text
from bids_qsm.gathering import read_table
from bids_qsm.report.record import SeriesRecord, TableRecord, record_from_json, record_to_json
from bids_qsm.settings import Settings
from tests.benchmarks.tables import markdown, write_tables

HEADS = 2
PATIENTS_PPM = 0.01
SPREAD = {"ppm": 0.01, "1/s": 2.0}
"""SD over subjects of what is added to the values of structures, by their units."""
COLUMNS = (
    "subjects",
    "input_files",
    "index_s",
    "participant_s",
    "cpu_s_per_subject",
    "parent_mib_at_tenth",
    "parent_mib_at_end",
    "worker_mib",
    "mb_per_subject",
    "files_per_subject",
    "resume_s",
    "resume_cpu_s",
    "group_s",
    "group_cpu_s",
    "group_mib",
    "page_mb",
    "load_average",
)


@dataclass(frozen=True)
class Ran:
    """What a run of the program took; memory in MiB, of the program and of its workers."""

    seconds: float
    cpu_s: float
    parent_mib: tuple[float, ...]
    worker_mib: float


def run_program(log: Path, *words: str, forked: bool = False) -> Ran:
    """Run the program to its end and look at its memory every second.

    Raises
    ------
    RuntimeError
        If it fails; what it said is in the log.
    """
    started, parent, worker = time.perf_counter(), [], 0.0
    with log.open("w") as told:
        started_pid = _fork(told, words) if forked else _spawn(told, words)
        while True:
            pid, status, used = os.wait4(started_pid, os.WNOHANG)
            if pid:
                break
            parent.append(_mib(started_pid, "VmRSS"))
            worker = max([worker, *(_mib(child, "VmHWM") for child in _children(started_pid))])
            time.sleep(1.0 if len(parent) > 10 else 0.1)
    if status:
        raise RuntimeError(f"{log}: the program ended with status {status}")
    seconds = time.perf_counter() - started
    peak = used.ru_maxrss / 1024  # of the program or of its largest worker
    return Ran(seconds, used.ru_utime + used.ru_stime, tuple(parent), max(worker, peak))


def _spawn(told: TextIO, words: Sequence[str]) -> int:
    command = [sys.executable, "-m", "bids_qsm", *words]
    return subprocess.Popen(command, stdout=told, stderr=told).pid


def _fork(told: TextIO, words: Sequence[str]) -> int:
    """Start the program in a fork, which does without other processes and pictures."""
    import bids_qsm.participant
    import bids_qsm.report.citations
    import bids_qsm.report.pages  # noqa: F401
    from bids_qsm.cli import main
    from bids_qsm.execution.steps import code_fingerprint
    from tests.one_process import one_process

    code_fingerprint()  # kept
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.dup2(told.fileno(), 1)
        os.dup2(told.fileno(), 2)
        with one_process(pictures=False):
            status = main([*words])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _mib(pid: int, what: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(what)), 0.0)


def make_heads(folder: Path) -> Path:
    """Simulate the heads that all subjects are links of; the first one has its outputs, too."""
    from bids_qsm.phantom.anatomy import default_labels
    from bids_qsm.phantom.dataset import write_dataset
    from bids_qsm.phantom.options import DatasetOptions

    heads = folder / "heads"
    if not (heads / f"sub-{HEADS:02d}").exists():
        options = DatasetOptions(
            participants=HEADS,
            voxel_mm=(6.0, 6.0, 6.0),
            anatomy_voxel_mm=3.0,
            te_s=(0.005, 0.012, 0.019, 0.026),
            has_flair=False,
        )
        write_dataset(heads, default_labels(), options)
    if not (folder / "labelled" / record_path("sub-01")).exists():
        words = (str(heads), str(folder / "labelled"), "participant", "--participant-label", "01")
        run_program(folder / "labelled.log", *words, "--preset", "fast")
    return heads


def make_dataset(folder: Path, heads: Path, n_subjects: int) -> Path:
    """Link the heads' series under the names of ``n_subjects``; a file is there once."""
    bids = folder / f"bids-{n_subjects}"
    if (bids / "participants.tsv").exists():
        return bids
    rng = np.random.default_rng(n_subjects)
    names = [f"{number:04d}" for number in range(1, n_subjects + 1)]
    for place, name in enumerate(names):
        head = f"{place % HEADS + 1:02d}"
        anat = bids / f"sub-{name}" / "anat"
        anat.mkdir(parents=True, exist_ok=True)
        for path in (heads / f"sub-{head}" / "anat").glob("*_MEGRE.*"):
            own = anat / path.name.replace(f"sub-{head}", f"sub-{name}")
            own.unlink(missing_ok=True)
            os.link(path, own)
    shutil.copy(heads / "dataset_description.json", bids)
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{name}" for name in names],
            "age": rng.normal(60, 8, n_subjects).round(1),
            "sex": rng.choice(["F", "M"], n_subjects),
            "group": np.resize(["control", "patient"], n_subjects),
        }
    )
    write_text(bids / "participants.tsv", encode_table(table))
    return bids


def add_structures(bids: Path, done: Path, labelled: Path, out: Path) -> None:
    """Make an output folder of the records and tables of ``done``, with structures added."""
    shutil.rmtree(out, ignore_errors=True)
    prepare_output_dir(Settings(bids, out))
    record = record_from_json((labelled / record_path("sub-01")).read_text())
    people = read_table(bids / "participants.tsv").set_index("participant_id")
    rng = np.random.default_rng(1)
    for path in sorted((done / "logs").glob("sub-*_record.json")):
        own = record_from_json(path.read_text())
        patient = people.loc[f"sub-{own.subject}", "group"] == "patient"
        _add_to_one(own, record, (done, labelled, out), rng, PATIENTS_PPM * patient)


def _add_to_one(
    own: SeriesRecord,
    other: SeriesRecord,
    folders: tuple[Path, Path, Path],
    rng: np.random.Generator,
    more_ppm: float,
) -> None:
    done, labelled, out = folders
    for table in own.tables:
        _link(done / table.path, out / table.path)
    tables = list(own.tables)
    for given in other.tables:
        if given.key not in ("stats", "quality", "morphometry"):
            continue
        rows = read_table(labelled / given.path)
        if given.key == "stats":
            scale = rows["units"].map(SPREAD).fillna(0.0)
            moved = scale * rng.normal(size=len(rows)) + more_ppm * (rows["units"] == "ppm")
            values = ["mean", "median", "mean_without_veins"]
            rows[values] = rows[values].add(moved, axis=0)
        path = given.path.replace("sub-01", own.name)
        write_text(out / path, encode_table(rows))
        tables.append(TableRecord(given.key, path, given.atlas))
    whole = dataclasses.replace(
        own,
        tables=tuple(tables),
        reference=other.reference,
        has_t1w=True,
        outputs=tuple(table.path for table in tables),
    )
    write_text(out / record_path(own.name), record_to_json(whole))


def _link(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    os.link(path, to)


def measure(folder: Path, n_subjects: int, nprocs: int, *, forked: bool) -> dict[str, float]:
    """Return a row of the table; the participant level's part is kept for another call."""
    heads = make_heads(folder)
    bids, out = make_dataset(folder, heads, n_subjects), folder / f"out-{n_subjects}"
    words = (str(bids), str(out), "participant", "--nprocs", str(nprocs), "--preset", "fast")
    row: dict[str, float] = {"subjects": n_subjects, "load_average": os.getloadavg()[1]}
    row["input_files"] = sum(len(names) for _, _, names in os.walk(bids))
    row["index_s"] = run_program(folder / "index.log", *words, "--dry-run").seconds
    kept = folder / f"participant-{n_subjects}.json"
    if not kept.exists():
        ran = run_program(folder / f"participant-{n_subjects}.log", *words, forked=forked)
        kept.write_text(json.dumps(dataclasses.asdict(ran)))
    ran = Ran(**json.loads(kept.read_text()))
    parent = ran.parent_mib
    sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    row |= {
        "participant_s": ran.seconds,
        "cpu_s_per_subject": ran.cpu_s / n_subjects,
        "parent_mib_at_tenth": parent[len(parent) // 10],
        "parent_mib_at_end": max(parent[-len(parent) // 10 :]),
        "worker_mib": ran.worker_mib,
        "mb_per_subject": sum(sizes) / 1e6 / n_subjects,
        "files_per_subject": len(sizes) / n_subjects,
    }
    again = run_program(folder / "resume.log", *words)
    row |= {"resume_s": again.seconds, "resume_cpu_s": again.cpu_s}
    grouped = folder / f"group-{n_subjects}"
    add_structures(bids, out, folder / "labelled", grouped)
    group = run_program(folder / "group.log", str(bids), str(grouped), "group")
    page = (grouped / "group.html").stat().st_size / 1e6
    row |= {"group_s": group.seconds, "group_cpu_s": group.cpu_s, "group_mib": group.worker_mib}
    return row | {"page_mb": page}


def main(words: Sequence[str] | None = None) -> int:
    """Measure, and write the table after each number of subjects."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--subjects", type=int, nargs="+", default=(50, 100, 200), metavar="N")
    parser.add_argument("--nprocs", type=int, default=2)
    parser.add_argument(
        "--one-process", action="store_true", help="no other processes, no pictures"
    )
    a = parser.parse_args(words)
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))
    a.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for n_subjects in a.subjects:
        rows.append(measure(a.folder, n_subjects, a.nprocs, forked=a.one_process))
        write_tables(a.folder, "scale", rows, COLUMNS)
    print(markdown(rows, COLUMNS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
