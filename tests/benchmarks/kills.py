"""Kill the real program at random moments: nothing wrong is ever visible, the next run finishes.

``python -m tests.benchmarks.kills FOLDER [--kills 50] [--seed 1]`` makes a dataset of three small
series, processes it once for reference, and then, again and again, starts the program in an output
folder in which one series is finished, and kills it (SIGKILL, its children with it or not) after a
random time.  After each kill every file that is visible is compared with the reference.  After
every tenth kill the program runs to its end, and all must be there; then it starts anew, from
outputs of other settings in every other case.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.tiny import tiny_dataset

SUBJECTS = ("01", "02", "03")
ROUND = 10
OTHER = ("--reference", "none")


def words(bids: Path, out: Path, *more: str) -> list[str]:
    """Return the command line of a run."""
    return [sys.executable, "-m", "bids_qsm", str(bids), str(out), "participant", *more]


def complete(bids: Path, out: Path, *more: str) -> float:
    """Run to the end and return how long it took."""
    started = time.perf_counter()
    subprocess.run(words(bids, out, *more), check=True, capture_output=True)
    return time.perf_counter() - started


def images(out: Path) -> dict[str, bytes]:
    """Return all visible images, whose bytes do not depend on when they were made."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*.nii.gz"))
        if not any(part.startswith(".") for part in path.relative_to(out).parts)
    }


def faults(out: Path, allowed: list[dict[str, bytes]]) -> list[str]:
    """Return what is wrong with what is visible.

    Every image must be one of the whole ones that are allowed; every text must be whole; a record
    must be of outputs that are all there and are all of one run.
    """
    wrong = []
    there = images(out)
    for name, content in there.items():
        if not any(content == of_run.get(name) for of_run in allowed):
            wrong.append(f"{name} is not as it should be")
    for path in out.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(out).parts)
        if hidden or not path.is_file():
            continue
        if path.suffix == ".json":
            try:
                json.loads(path.read_text())
            except ValueError:
                wrong.append(f"{path.name} is cut short")
        if path.suffix in (".tsv", ".html", ".md") and not path.read_bytes().endswith(b"\n"):
            wrong.append(f"{path.name} is cut short")
    for path in (out / "logs").glob("*_record.json"):
        of_series = [
            name for name in json.loads(path.read_text())["outputs"] if name.endswith(".nii.gz")
        ]
        if all((out / name).exists() for name in of_series) and not any(
            all(there[name] == of_run.get(name) for name in of_series) for of_run in allowed
        ):
            wrong.append(f"{path.name} is of outputs of two runs")
    return wrong


def killed(bids: Path, out: Path, seconds: float, *, group: bool, more: tuple[str, ...]) -> bool:
    """Start a run and kill it; return whether it was still running."""
    process = subprocess.Popen(
        words(bids, out, *more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        return True


def main() -> int:
    """Kill, look, finish; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nprocs", default="2")
    a = parser.parse_args()
    rng = random.Random(a.seed)
    shutil.rmtree(a.folder, ignore_errors=True)
    bids = tiny_dataset(a.folder / "bids", SUBJECTS)
    more = ("--nprocs", a.nprocs)
    span = complete(bids, a.folder / "reference", *more)
    complete(bids, a.folder / "other", *more, *OTHER)
    reference, other = images(a.folder / "reference"), images(a.folder / "other")
    print(f"a run takes {span:.1f} s and makes {len(reference)} images", flush=True)
    out, n_wrong, n_running = a.folder / "out", 0, 0
    for number in range(a.kills):
        if number % ROUND == 0:
            shutil.rmtree(out, ignore_errors=True)
            if number // ROUND % 2:
                shutil.copytree(a.folder / "other", out)
            complete(bids, out, *more, "--participant-label", "01")
            finished = (out / "logs" / "sub-01_record.json").read_bytes()
        seconds, group = rng.uniform(0.05, 0.95) * span, rng.random() < 0.5
        n_running += killed(bids, out, seconds, group=group, more=more)
        wrong = faults(out, [reference, other])
        if (out / "logs" / "sub-01_record.json").read_bytes() != finished:
            wrong.append("sub-01 was finished, and was made again")
        if number % ROUND == ROUND - 1 or number == a.kills - 1:
            took = complete(bids, out, *more)
            if images(out) != reference:
                wrong.append("the last run has not made what it should")
            left = [p.name for p in out.iterdir() if p.name.startswith((".staging", ".work"))]
            wrong += [f"{name} is left" for name in left]
            print(f"finished after kill {number + 1} in {took:.1f} s", flush=True)
        for sentence in wrong:
            print(f"kill {number + 1} after {seconds:.2f} s: {sentence}", flush=True)
        n_wrong += len(wrong)
    print(f"{a.kills} kills, {n_running} of a run that went on; {n_wrong} faults")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
